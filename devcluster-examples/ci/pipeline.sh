#!/bin/sh
# A CI job without devcluster: tunnel and gateway stay up while the tests run, the exit code is that of the tests, and
# nothing is left. Each program reports its outputs to the next one as JSON lines.
set -eu

if [ $# -lt 4 ]; then
    echo "usage: $0 tunnel.yaml gateway.yaml base.yaml command…" >&2
    exit 2
fi
tunnel=$1 gateway=$2 base=$3
shift 3

devcluster-tunnel run --config "$tunnel" --events all |
    devcluster-gateway run --stdin chain --config "$gateway" --events all |
    devcluster-config-emit run --stdin chain --base "$base" --out "${OUT:-devcluster.out.yaml}" -- "$@"
