# `make demo` shows it, `make test` tests it; both get what they need. `make help` lists the rest.

CARGO ?= cargo
BUILD := .build
DEVCLUSTER := $(abspath $(BUILD)/venv/bin/devcluster)
BIN := $(or $(CARGO_TARGET_DIR),target)/debug
PROGRAMS := $(wildcard stages/*) conformance sandbox
# Their parts are one cargo test each: `make bench BENCH=tunnel` runs one alone.
BENCH ?= tunnel gateway config-emit way live
SOAK ?= tunnel gateway kills live cluster older-api fuzz
FUZZ_SECONDS ?= 720
TESTS := test --package devcluster-tests

export DEVCLUSTER
# Skipped tests are listed in this file.
export DEVCLUSTER_SKIPPED := $(abspath $(BUILD)/skipped)
# Most tests wait most of the time.
export NEXTEST_TEST_THREADS ?= $(shell expr 2 \* $$(nproc 2>/dev/null || echo 2))
export DEVCLUSTER_PYTHON := $(abspath $(BUILD)/venv/bin/python)

.PHONY: help demo sandbox cluster test bench soak check schema install deps
# One at a time: two benchmarks disturb each other.
.NOTPARALLEL:

help:
	@echo "make demo     a pod reaches a master through a tunnel, all on this machine"
	@echo "make sandbox  the same with devcluster's console, to try things out"
	@echo "make cluster  a real Kubernetes of one node to try things on, as root (docs/cluster.md)"
	@echo "make test     all tests, on real sshd and stock devcluster (ONLY=tunnel::ghosts: these alone)"
	@echo "make bench    figures, beside those of other tools in the same run (BENCH=\"$(BENCH)\")"
	@echo "make soak     long rounds of what make test does in short ones (SOAK=\"$(SOAK)\")"
	@echo "make check    formatting, lints, English, licences and advisories"
	@echo "make schema   generate protocol/schema and docs/errors.md"
	@echo "make install  put the programs into cargo's bin directory"

demo: deps
	@echo "== building the stages and the driver"
	$(CARGO) build --workspace --bins
	@echo "== running the sandbox"
	DEVCLUSTER_SSHD="$$(scripts/get-sshd)" $(BIN)/devcluster-remote sandbox --check
	@echo "demo: a pod reached the master through the tunnel"

sandbox: deps
	$(CARGO) build --workspace --bins
	DEVCLUSTER_SSHD="$$(scripts/get-sshd)" $(BIN)/devcluster-remote sandbox

cluster:
	@dir=$$(scripts/get-bed) && { said=$$(scripts/can-run-node "$$dir/root") || { echo "$$said" >&2; exit 1; }; } && \
	  exec "$$dir/bed" up -text -dir "$$dir"

test: deps
	@scripts/get-bed >/dev/null || echo "== the test bed is not complete: tests that need it are skipped" >&2
	@rm -f $(DEVCLUSTER_SKIPPED)
	"$$(scripts/get-nextest $(BUILD)/venv)" nextest run --workspace $(ONLY); \
	  status=$$?; cat $(DEVCLUSTER_SKIPPED) 2>/dev/null; exit $$status

bench: deps $(addprefix bench-,$(BENCH))

bench-tunnel:
	@scripts/get-autossh >/dev/null || echo "== no autossh: its column stays empty" >&2
	$(CARGO) $(TESTS) --release --test bench -- --ignored --nocapture --test-threads 1 tunnel::

bench-gateway:
	@scripts/get-bed --api >/dev/null
	$(CARGO) $(TESTS) --test bench -- --ignored --nocapture --test-threads 1 gateway::

bench-config-emit:
	$(CARGO) $(TESTS) --release --test bench -- --ignored --nocapture config_emit::

bench-way:
	$(CARGO) $(TESTS) --release --test bench -- --ignored --nocapture --test-threads 1 way::from_up

bench-live:
	$(CARGO) $(TESTS) --release --test suite -- --ignored --nocapture live::bench

soak: deps $(addprefix soak-,$(SOAK))

# An hour and a quarter in all; FUZZ_SECONDS is for each of the five targets.
soak-fuzz:
	DEVCLUSTER_ROUNDS=50 $(CARGO) test -p devcluster-yaml -- edit_chains:: scraps_
	scripts/fuzz $(FUZZ_SECONDS)

soak-tunnel:
	DEVCLUSTER_ROUNDS=300 DEVCLUSTER_VISITS=100000 DEVCLUSTER_FLAPPING=240 \
	  $(CARGO) $(TESTS) --test suite -- --nocapture --test-threads 1 tunnel::soak::

soak-gateway:
	@scripts/get-bed --api >/dev/null
	DEVCLUSTER_ROUNDS=200 $(CARGO) $(TESTS) --test suite -- --nocapture --test-threads 1 real::kills::
	DEVCLUSTER_PARTITION=30 $(CARGO) $(TESTS) --test suite -- --nocapture real::watch::after_a_partition
	DEVCLUSTER_ROUNDS=1 $(CARGO) $(TESTS) --test suite -- --nocapture --test-threads 1 provision::killed provision::a_partial_installation

soak-kills:
	DEVCLUSTER_ROUNDS=100 $(CARGO) $(TESTS) --test suite -- --nocapture driver::kills::

# As root: six minutes without a network.
soak-cluster:
	@scripts/get-bed >/dev/null
	DEVCLUSTER_REQUIRE_NODE=1 DEVCLUSTER_OUTAGE=360 $(CARGO) $(TESTS) --test cluster -- --nocapture contour::

soak-older-api:
	assets=$$(scripts/get-older-apiserver) && KUBEBUILDER_ASSETS=$$assets $(CARGO) $(TESTS) --test suite -- gateway::real::

soak-live:
	$(CARGO) $(TESTS) --test suite -- --ignored --nocapture live::soak

check:
	scripts/prose
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	scripts/deny

schema:
	WRITE_SCHEMA=1 $(CARGO) test --package devcluster-protocol --test suite schema::
	WRITE_SCHEMA=1 $(CARGO) $(TESTS) --test suite -- docs_errors_md

install:
	for program in $(PROGRAMS); do $(CARGO) install --locked --path $$program || exit 1; done

deps:
	@command -v $(CARGO) >/dev/null || { echo "no $(CARGO); hint: install Rust with rustup, https://rustup.rs" >&2; exit 1; }
	@command -v ssh >/dev/null || { echo "no ssh; hint: apt-get install openssh-client" >&2; exit 1; }
	@echo "== stock devcluster: $$(scripts/get-devcluster $(BUILD)/venv)"
	@echo "== sshd: $$(scripts/get-sshd)"
