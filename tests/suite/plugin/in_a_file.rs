//! `plugin:` stages of a file: they are found, and their config is checked against their schema before anything runs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use support::devcluster::python_program;
use support::plugin::plugin;
use support::{DEADLINE, Home, StageClient, bin, leaks};
use tokio::process::Command;

fn remote(home: &Home, args: &[&str]) -> Command {
    let mut command = home.command(&bin("devcluster-remote"));
    command
        .args(args)
        .env("DEVCLUSTER", python_program("DEVCLUSTER", "devcluster"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn output(mut command: Command) -> Output {
    let output = tokio::time::timeout(DEADLINE, command.output()).await;
    output.expect("no end").expect("no start")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A devcluster.yaml beside the example plugin, with this body of the stage.
fn file(home: &Home, body: &str) -> PathBuf {
    let beside = home.path().join("serve.py");
    if !beside.exists() {
        std::fs::copy(plugin(), beside).expect("cannot copy");
    }
    let path = home.path().join("devcluster.yaml");
    let temp_dir = home.path().join("devcluster");
    let text = format!(
        "temp_dir: {}\nstages:\n  - plugin: {body}\n",
        temp_dir.display()
    );
    std::fs::write(&path, text).expect("cannot write");
    path
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[tokio::test]
async fn an_invalid_config_of_a_plugin_is_refused_before_anything_runs() {
    for (with, expected) in [
        (
            "{directroy: /tmp}",
            "directroy: unknown field; did you mean `directory`?",
        ),
        ("{directory: 7}", "with.directory: "),
        ("{}", "`directory` is missing (What to serve)"),
    ] {
        let home = Home::new();
        let file = file(
            &home,
            &format!("{{name: files, uses: ./serve.py, with: {with}}}"),
        );
        for args in [
            &["compile", "--with-plugins", "-c"][..],
            &["up", "-c"],
            &["up", "--dry-run", "-c"],
        ] {
            let mut command = remote(&home, args);
            command.arg(&file);
            let output = output(command).await;
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
            assert!(
                said.replace("\n", " ")
                    .contains(expected.split("; ").next().expect("text")),
                "{args:?}: {said}"
            );
            assert!(said.contains("devcluster.yaml:3:"), "{said}");
            assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
        }
        assert!(
            !home.path().join("devcluster").exists(),
            "something was written"
        );
        let plain = output(remote(&home, &["compile", "-c", shown(&file)])).await;
        assert!(
            plain.status.success(),
            "plain compile runs nothing: {}",
            text(&plain.stderr)
        );
    }
}

#[tokio::test]
async fn references_must_be_among_the_outputs_of_a_plugin() {
    let home = Home::new();
    for (reference, wrong) in [
        ("files.port", None),
        (
            "files.prot",
            Some("files has no `prot`; did you mean `files.port`?"),
        ),
        ("files.port.x", Some("there is nothing below `files.port`")),
    ] {
        let body = format!(
            "{{name: files, uses: ./serve.py, with: {{directory: /tmp}}}}\n  - custom: {{name: c, cmd: [echo, \"${{{{ {reference} }}}}\"]}}"
        );
        let file = file(&home, &body);
        let args = ["compile", "--with-plugins", "-c", shown(&file)];
        let output = output(remote(&home, &args)).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.success(), wrong.is_none(), "{said}");
        let wrong = wrong
            .unwrap_or_default()
            .split("; ")
            .next()
            .unwrap_or_default();
        assert!(said.contains(wrong), "{said}");
        let doctor = self::output(remote(&home, &["doctor", "-c", shown(&file)])).await;
        let shown_by_doctor = text(&doctor.stdout);
        let mark = if wrong.is_empty() { "✓" } else { "✗" };
        let line = format!("{mark} plugins report the values that others refer to");
        assert!(
            shown_by_doctor.contains(&line) && shown_by_doctor.contains(wrong),
            "{shown_by_doctor}"
        );
        let plain = self::output(remote(&home, &["compile", "-c", shown(&file)])).await;
        assert!(plain.status.success(), "{}", text(&plain.stderr));
    }
}

#[tokio::test]
async fn plain_compile_runs_no_plugin_and_with_plugins_does() {
    let home = Home::new();
    let file = file(&home, "{name: spy, uses: ./spy.sh}");
    let spy = home.path().join("spy.sh");
    std::fs::write(
        &spy,
        "#!/bin/sh\ntouch \"$HOME/ran\"\necho '{\"dcs\":1,\"verbs\":[\"describe\",\"run\"]}'\n",
    )
    .expect("cannot write");
    std::fs::set_permissions(&spy, std::fs::Permissions::from_mode(0o755)).expect("cannot chmod");
    let ran = home.path().join("ran");
    for (args, runs) in [
        (&["compile", "-c"][..], false),
        (&["compile", "--with-plugins", "-c"], true),
    ] {
        let mut command = remote(&home, args);
        command.arg(&file);
        let output = output(command).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(ran.exists(), runs, "{args:?}");
    }
}

#[tokio::test]
async fn a_plugin_is_found_beside_the_file_and_on_path_and_a_missing_one_is_named() {
    let home = Home::new();
    let elsewhere = Home::new();
    for (uses, found) in [
        ("./serve.py", true),
        ("serve.py", true),
        ("./nothere.py", false),
        ("nothere.py", false),
    ] {
        let file = file(
            &home,
            &format!("{{uses: {uses}, with: {{directory: /tmp}}}}"),
        );
        let mut command = remote(&home, &["compile", "--with-plugins", "-c"]);
        let path = std::env::var("PATH").expect("a PATH");
        command
            .arg(file)
            .env("PATH", format!("{}:{path}", shown(home.path())))
            .current_dir(elsewhere.path());
        let output = output(command).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.success(), found, "{uses}: {said}");
        if !found {
            assert!(
                said.contains("is not executable") && said.contains("devcluster.yaml:3:"),
                "{said}"
            );
        }
    }
}

#[tokio::test]
async fn a_plugin_that_does_not_describe_itself_is_named_with_its_output() {
    let home = Home::new();
    let file = file(&home, "{uses: ./broken.sh}");
    let broken = home.path().join("broken.sh");
    std::fs::write(
        &broken,
        "#!/bin/sh\necho 'no module named vpn' >&2\nexit 3\n",
    )
    .expect("cannot write");
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755))
        .expect("cannot chmod");
    let output = output(remote(
        &home,
        &["compile", "--with-plugins", "-c", shown(&file)],
    ))
    .await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for expected in ["describe` failed", "exit status: 3", "no module named vpn"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[tokio::test]
async fn doctor_checks_a_plugin_and_shows_its_own_checks() {
    let home = Home::new();
    let file = file(&home, "{name: looks, uses: ./looks.sh, with: {server: a}}");
    let looks = home.path().join("looks.sh");
    let script = r#"#!/bin/sh
case $1 in
describe) echo '{"dcs":1,"verbs":["describe","run","check"],"config":{"type":"object","properties":{"server":{"type":"string"}}}}';;
check) while [ $# -gt 1 ]; do [ "$1" != --config ] || cat "$2" >&2; shift; done
  echo '{"dcs":1,"type":"check","stage":"x","id":"login","title":"the server accepts the login","status":"failed","message":"no account","hint":"ask for one"}'
  exit 5;;
esac
"#;
    std::fs::write(&looks, script).expect("cannot write");
    std::fs::set_permissions(&looks, std::fs::Permissions::from_mode(0o755)).expect("cannot chmod");
    let output = output(remote(
        &home,
        &["doctor", "--format", "json", "-c", shown(&file)],
    ))
    .await;
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let status = |id: &str| {
        let checks = report["checks"].as_array().expect("a list");
        let check = checks
            .iter()
            .find(|c| c["stage"] == "looks" && c["id"] == id);
        check.unwrap_or_else(|| panic!("no {id} in {report:#}"))["status"].clone()
    };
    for (id, expected) in [
        ("program", "ok"),
        ("describe", "ok"),
        ("config", "ok"),
        ("login", "failed"),
    ] {
        assert_eq!(status(id), expected, "{id}");
    }
    let wrong = self::file(
        &home,
        "{name: looks, uses: ./looks.sh, with: {server: [hunter2]}}",
    );
    let output = self::output(remote(
        &home,
        &["doctor", "--format", "json", "-c", shown(&wrong)],
    ))
    .await;
    let said = text(&output.stdout);
    assert!(said.contains("with.server"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    assert_eq!(output.status.code(), Some(5));
}

#[tokio::test]
async fn a_plugin_stage_starts_under_stock_devcluster_and_status_and_gc_know_it() {
    let home = Home::new();
    let file = file(
        &home,
        "{name: files, uses: ./serve.py, with: {directory: $HOME}}",
    );
    let mut driver = StageClient::start(remote(&home, &["up", "-c", shown(&file)]));
    driver.wait_for_line("devcluster is up").await;
    let run_dir = home.path().join("devcluster/stages");
    let status = output(remote(
        &home,
        &["status", "--format", "json", "--run-dir", shown(&run_dir)],
    ))
    .await;
    let status = text(&status.stdout);
    assert!(
        status.contains(r#""files""#) && status.contains("ready") && status.contains("127.0.0.1"),
        "{status}"
    );
    let gc = output(remote(&home, &["gc"])).await;
    assert!(text(&gc.stderr).contains("files"), "{}", text(&gc.stderr));
    driver.signal(rustix::process::Signal::INT);
    driver.wait().await;
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
    assert!(leaks::files(&home.path().join("state")).is_empty());
}
