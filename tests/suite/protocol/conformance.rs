//! The conformance kit: the stages and examples of this project pass it, and a stage that is broken in one way fails that check.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};
use support::devcluster::python_program;
use support::kube::{programmed, start_kube, write_kubeconfig};
use support::tunnel::Setup;
use support::{DEADLINE, Home, Options, bin, free_ports, leaks};
use tokio::process::Command;
use tokio::task::JoinSet;

/// The time limit of a run of the kit on a busy machine.
const PATIENCE: Duration = Duration::from_secs(1200);

/// How many broken stages run at the same time; most of them wait.
const SIDE_BY_SIDE: usize = 6;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A full stage in Python.
fn reference() -> PathBuf {
    root().join("tests/conformance/stage.py")
}

fn kit(home: &Home, args: &[&str]) -> Command {
    let mut command = home.command(&bin("devcluster-remote"));
    command
        .arg("conformance")
        .args(args)
        .env("DEVCLUSTER", python_program("DEVCLUSTER", "devcluster"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn output(mut command: Command) -> Output {
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    output.expect("the kit does not end").expect("no kit")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs every check on this program, asserts that all pass, and returns the report.
async fn passes(config: &Value, program: &[&str]) -> Value {
    let home = Home::new();
    let file = home.path().join("config.json");
    std::fs::write(&file, config.to_string()).expect("cannot write");
    let mut command = kit(&home, &["--no-skips", "--json", "-", "--config"]);
    command.arg(file).arg("--").args(program);
    let output = output(command).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
    serde_json::from_slice(&output.stdout).expect("the report is JSON")
}

fn stage(name: &str) -> String {
    bin(name).display().to_string()
}

#[tokio::test]
async fn config_emit_passes_as_a_full_stage() {
    let home = Home::new();
    let base = home.path().join("base.yaml");
    std::fs::write(&base, "resource_manager:\n  type: kubernetes\n").expect("cannot write");
    let config = json!({"base": base, "out": home.path().join("out.yaml"), "upstreams": []});
    let report = passes(&config, &[&stage("devcluster-config-emit")]).await;
    assert_eq!(report["level"], "stage");
    let listed = list().await;
    assert_eq!(report["passed"].as_u64(), Some(listed.len() as u64));
}

#[tokio::test]
async fn the_tunnel_passes_as_a_full_stage() {
    let mut setup = Setup::new(Options::default()).await;
    // Enough ports for all concurrent checks.
    setup.ports = free_ports(16);
    let report = passes(&setup.config(), &[&stage("devcluster-tunnel")]).await;
    assert_eq!(report["kind"], "tunnel");
    leaks::gone("what a tunnel leaves", || setup.left()).await;
}

#[tokio::test]
async fn the_gateway_passes_as_a_full_stage() {
    let home = Home::new();
    let api = start_kube(programmed()).await;
    let kubeconfig = write_kubeconfig(&home, "kubeconfig", &api.kubeconfig("sandbox"));
    let report = passes(
        &json!({"kubeconfig": kubeconfig}),
        &[&stage("devcluster-gateway")],
    )
    .await;
    assert_eq!(report["kind"], "gateway");
}

#[tokio::test]
async fn the_host_of_plugins_passes_as_a_full_stage() {
    let uses = root().join("devcluster-examples/plugin/serve.py");
    let config = json!({"uses": uses, "with": {"directory": root()}});
    passes(&config, &[&stage("devcluster-remote"), "host"]).await;
}

#[tokio::test]
async fn a_stage_in_python_passes_as_a_full_stage_and_as_a_plugin() {
    let reference = reference();
    let reference = reference.to_str().expect("text");
    let config = json!({"token": "hunter2-of-the-test", "value": "x"});
    // The kit puts flags of the config after every verb.
    passes(&config, &[reference, "--value", "y"]).await;
    let home = Home::new();
    let report = output(kit(&home, &["--level", "plugin", "--", reference])).await;
    assert!(report.status.success(), "{}", text(&report.stdout));
}

#[tokio::test]
async fn the_example_in_python_passes_as_a_plugin() {
    let example = root().join("devcluster-examples/plugin/serve.py");
    let report = passes(
        &json!({"directory": root()}),
        &[example.to_str().expect("text")],
    )
    .await;
    assert_eq!(report["level"], "plugin");
}

#[tokio::test]
async fn the_example_in_shell_passes_as_a_plugin() {
    let home = Home::new();
    let example = root().join("devcluster-examples/plugin-shell/scratch.sh");
    let config = json!({"directory": home.path()});
    let report = passes(&config, &[example.to_str().expect("text")]).await;
    assert_eq!(report["level"], "plugin");
    let left = leaks::files(home.path());
    assert!(left.is_empty(), "{left:?}");
}

/// Every check, from `--list`.
async fn list() -> Vec<Value> {
    let home = Home::new();
    let output = output(kit(&home, &["--list", "--json", "-"])).await;
    serde_json::from_slice(&output.stdout).expect("the list is JSON")
}

#[tokio::test]
async fn each_check_fails_on_a_stage_that_is_broken_in_that_way() {
    let checks = list().await;
    assert!(checks.len() > 50, "{checks:?}");
    let mut runs = JoinSet::new();
    for check in checks {
        let id = check["id"].as_str().expect("an id").to_owned();
        let levels = match check["level"] == "plugin" {
            true => &["stage", "plugin"][..],
            false => &["stage"],
        };
        for level in levels {
            if runs.len() >= SIDE_BY_SIDE {
                runs.join_next().await.expect("one").expect("it passed");
            }
            runs.spawn(fails(id.clone(), level));
        }
    }
    while let Some(run) = runs.join_next().await {
        run.expect("it passed");
    }
}

/// Runs a check on the stage that is broken in its way.
async fn fails(id: String, level: &str) {
    let home = Home::new();
    let reference = reference();
    let mut command = kit(&home, &["--only", &id, "--ready-within", "5"]);
    command
        .args(["--json", "-", "--level", level, "--"])
        .arg(reference)
        .env("BREAK", &id);
    let output = output(command).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{id} as a {level}: {said}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let entry = &report["checks"][0];
    let found = (&entry["id"], &entry["outcome"]);
    assert_eq!(found, (&json!(id), &json!("failed")), "{said}");
    let detail = entry["detail"].as_str().unwrap_or_default();
    assert!(detail.len() > 10, "{said}");
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
}

/// Binds this thread and its children to one processor, for which this many processes compete until they are dropped.
fn busy(processes: usize) -> Vec<tokio::process::Child> {
    let allowed = sched_getaffinity(None).expect("no processors");
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu));
    let mut one = CpuSet::new();
    one.set(first.expect("no processor"));
    sched_setaffinity(None, &one).expect("cannot choose a processor");
    let start = |_| {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        command.kill_on_drop(true).spawn().expect("no sh")
    };
    (0..processes).map(start).collect()
}

#[tokio::test]
async fn time_limits_have_the_same_verdict_on_a_busy_machine() {
    let _busy = busy(4);
    for (id, breaks, passes) in [
        ("describe.quick", "", true),
        ("describe.quick", "describe.quick", false),
        ("shutdown.early", "", true),
        ("shutdown.early", "shutdown.early", false),
        ("stdin.silent", "", true),
        ("stdin.silent", "stdin.silent", false),
        ("outputs.stale_gone", "", true),
        ("outputs.stale_gone", "outputs.stale_gone", false),
    ] {
        let home = Home::new();
        let mut command = kit(&home, &["--only", id, "--level", "stage", "--"]);
        command.arg(reference()).env("BREAK", breaks);
        let output = output(command).await;
        let said = text(&output.stdout);
        assert_eq!(output.status.success(), passes, "BREAK={breaks}: {said}");
    }
}

#[tokio::test]
async fn a_stage_that_never_becomes_ready_is_detected_once() {
    let home = Home::new();
    let args = ["--only", "ready", "--only", "chain", "--only", "describe"];
    let mut command = kit(&home, &args);
    command
        .args(["--ready-within", "3", "--json", "-", "--"])
        .arg(reference())
        .env("BREAK", "ready.reached");
    let output = output(command).await;
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("checks").iter();
    let outcome = |id: &str| {
        let check = checks.clone().find(|check| check["id"] == id);
        check.expect("it ran")["outcome"].clone()
    };
    assert_eq!(outcome("ready.reached"), "failed");
    assert_eq!(outcome("describe.valid"), "passed");
    assert_eq!(outcome("chain.passes_on"), "skipped");
    assert_eq!(report["failed"], 1, "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_secret_of_the_config_is_searched_if_the_schema_or_the_caller_marks_it() {
    let home = Home::new();
    let config = home.path().join("config.json");
    let secrets = json!({"token": "hunter2-of-the-test", "value": "shown-in-outputs"});
    std::fs::write(&config, secrets.to_string()).expect("cannot write");
    let reference = reference();
    for (breaks, flags, passes) in [
        ("", &[][..], true),
        ("a secret of the config", &[], false),
        ("", &["--secret", "value"], false),
    ] {
        let mut command = kit(&home, &["--only", "secrets", "--config"]);
        command.arg(&config).args(flags).arg("--").arg(&reference);
        command.env("BREAK", breaks);
        let output = output(command).await;
        let said = text(&output.stdout);
        assert_eq!(output.status.success(), passes, "{flags:?}: {said}");
        assert_eq!(said.contains("a secret of its config"), !passes, "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[tokio::test]
async fn every_link_of_a_check_leads_to_a_heading_of_the_specification() {
    let specification =
        std::fs::read_to_string(root().join("PROTOCOL.md")).expect("no PROTOCOL.md");
    let headings: BTreeSet<String> = specification
        .lines()
        .filter(|l| l.starts_with('#'))
        .map(|l| l.trim_start_matches('#').trim().to_lowercase())
        .map(|l| {
            l.chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                .collect::<String>()
                .replace(' ', "-")
        })
        .map(|anchor| format!("PROTOCOL.md#{anchor}"))
        .collect();
    for check in list().await {
        let section = check["section"].as_str().expect("a section");
        assert!(
            headings.contains(section),
            "{}: no heading for {section}",
            check["id"]
        );
    }
}

#[tokio::test]
async fn a_skipped_check_is_reported_and_fails_only_with_no_skips() {
    let home = Home::new();
    let reference = reference();
    for (flags, code) in [(&[][..], 0), (&["--no-skips"][..], 1)] {
        let mut command = kit(&home, &["--only", "devcluster"]);
        command
            .args(flags)
            .arg("--")
            .arg(&reference)
            .env("DEVCLUSTER", "/nowhere/devcluster");
        let output = output(command).await;
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(
            said.contains("skipped: ") && said.contains("hint: pipx install devcluster"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_program_that_cannot_be_checked_is_refused_with_the_reason() {
    let home = Home::new();
    let cases: [(&[&str], i32, &str); 5] = [
        (
            &["--", "/nowhere/stage"],
            2,
            "/nowhere/stage does not exist",
        ),
        (&["--", "cat"], 5, "describe"),
        (
            &["--only", "no.such", "--", "cat"],
            2,
            "there is no check no.such",
        ),
        (
            &["--config", "/nowhere.yaml", "--", "cat"],
            2,
            "cannot read the config file",
        ),
        (&[], 2, "PROGRAM"),
    ];
    for (args, code, expected) in cases {
        let output = output(kit(&home, args)).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn interrupted_it_ends_the_stage_and_leaves_nothing() {
    let home = Home::new();
    let temporary = home.path().join("tmp");
    std::fs::create_dir(&temporary).expect("cannot make it");
    let reference = reference();
    let mut command = kit(&home, &["--only", "stdin.silent", "--"]);
    command
        .arg(reference)
        .env("TMPDIR", &temporary)
        .env("MARK", home.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("no kit");
    let pid = Pid::from_raw(child.id().expect("a pid") as i32).expect("a pid");
    // The stage's home is in the kit's temporary directory.
    let of_stage = format!("HOME={}", temporary.display());
    let runs = async {
        while leaks::processes(&of_stage).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, runs)
        .await
        .expect("no stage");
    kill_process(pid, Signal::INT).expect("no signal");
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output())
        .await
        .expect("no end")
        .expect("no output");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    leaks::gone("processes", || leaks::processes(&of_stage)).await;
    assert_eq!(
        std::fs::read_dir(&temporary).expect("no directory").count(),
        0
    );
}
