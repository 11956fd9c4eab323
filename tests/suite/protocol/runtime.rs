//! The runtime of every stage: lock, ready line, command, document. Mostly tested with the host of plugins.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::plugin::{exit_code, host, plugin, run, run_with};
use support::{DEADLINE, Home, StageClient, bin, code_of, leaks};
use tokio::process::Command;

#[tokio::test]
async fn ready_is_written_twice_in_one_small_write() {
    let home = Home::new();
    let mut command = run(&home);
    let mut child = command
        .args(["--events", "ready"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("no start");
    let mut stdout = child.stdout.take().expect("no stdout");
    let mut buffer = [0; 4096];
    use tokio::io::AsyncReadExt;
    let read = tokio::time::timeout(DEADLINE, stdout.read(&mut buffer))
        .await
        .expect("nothing")
        .expect("no read");
    let text = std::str::from_utf8(&buffer[..read]).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines.len() == 2 && lines[0] == lines[1] && read <= 512,
        "{text}"
    );
    assert!(
        lines[0].starts_with(r#"{"dcs":1,"type":"ready","stage":"files","run":""#),
        "{text}"
    );
}

#[tokio::test]
async fn a_second_run_of_the_same_instance_is_refused() {
    let home = Home::new();
    let mut stage = StageClient::start(run(&home));
    stage.wait_for("ready").await;
    let (code, stderr) = exit_code(run(&home)).await;
    assert_eq!(code, 6, "{stderr}");
    assert!(stderr.contains("protocol.locked"), "{stderr}");
}

#[tokio::test]
async fn it_ends_when_the_reader_of_its_output_is_gone() {
    let home = Home::new();
    let mut command = run(&home);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("no start");
    let (code, _) = exit_code(host(&home, "wait")).await;
    assert_eq!(code, 0);
    drop(child.stdout.take());
    let status = tokio::time::timeout(DEADLINE, child.wait())
        .await
        .expect("it stays")
        .expect("no status");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn an_invalid_reload_is_refused_and_the_stage_keeps_running() {
    let home = Home::new();
    let mut command = host(&home, "run");
    command.args(["--stdin", "control"]);
    let mut stage = StageClient::hosted(command);
    let good = json!({"uses": plugin(), "with": {"directory": home.path()}});
    let command = |kind: &str, config: &Value| json!({"dcs": 1, "type": kind, "config": config});
    stage.tell(command("start", &good)).await;
    stage.wait_for("ready").await;
    stage.tell(command("reload", &json!({"used": "x"}))).await;
    let refused = stage.wait_for("error").await;
    assert_eq!(refused["error"]["fatal"], false, "{refused}");
    let (code, stderr) = exit_code(host(&home, "check")).await;
    assert_eq!(code, 0, "{stderr}");
    let mut last = format!("{}\n", command("reload", &good)).repeat(20);
    last.push_str("{\"dcs\":1,\"type\":\"shutdown\"}\n");
    stage.write(last.as_bytes()).await;
    assert_eq!(stage.wait_for("stopping").await["reason"], "shutdown");
    assert!(stage.wait().await.0.success());
}

#[tokio::test]
async fn a_command_runs_while_it_is_ready_and_it_exits_with_the_commands_code() {
    let home = Home::new();
    let mut command = run(&home);
    command.args([
        "--",
        "sh",
        "-c",
        "test -f \"$DEVCLUSTER_RUN_DIR/outputs/files.json\" && echo out && exit 7",
    ]);
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .expect("no end")
        .expect("no start");
    assert_eq!(
        output.status.code(),
        Some(7),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.stdout, b"out\n", "stdout is the command's");
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
}

#[tokio::test]
async fn a_command_and_its_children_end_with_the_stage() {
    let home = Home::new();
    for (signal, command) in [
        (Signal::TERM, "sleep 600 & echo up >&2; wait"),
        (Signal::KILL, "echo up >&2; exec sleep 600"),
    ] {
        let mut run = run(&home);
        run.args(["--", "sh", "-c", command]);
        let mut stage = StageClient::start(run);
        stage.wait_for_line("up").await;
        stage.signal(signal);
        stage.wait().await;
        leaks::gone("processes", || leaks::processes(&home.mark())).await;
    }
}

#[tokio::test]
async fn an_invalid_command_line_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let home = Home::new();
    for rest in [vec!["--"], vec!["--", ""]] {
        let mut command = run(&home);
        command.args(&rest);
        let (code, stderr) = exit_code(command).await;
        assert_eq!(code, 2, "{rest:?}: {stderr}");
        assert!(stderr.contains("no command"), "{stderr}");
    }
    let mut command = home.command(&bin("devcluster-tunnel"));
    let path = std::ffi::OsString::from_vec(b"/tmp/\xff".to_vec());
    command.args(["cleanup", "--run-dir"]).arg(path);
    let (code, stderr) = exit_code(command).await;
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("UTF-8"), "{stderr}");
}

#[tokio::test]
async fn a_failure_ends_a_wait_at_once_and_an_absent_instance_after_ten_seconds() {
    let home = Home::new();
    let mut wait = host(&home, "wait");
    let wait = wait.stderr(Stdio::piped()).spawn().expect("no start");
    let (code, _) = exit_code(run_with(
        &home,
        &plugin(),
        &json!({"directory": "/nowhere"}),
    ))
    .await;
    assert_eq!(code, 1);
    let output = tokio::time::timeout(DEADLINE, wait.wait_with_output())
        .await
        .expect("no end")
        .expect("no output");
    // Without the failure it would be 7, and later.
    assert_eq!(output.status.code(), Some(4));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code_of(&stderr), "protocol.upstream_failed");

    let empty = Home::new();
    let mut late = host(&empty, "wait");
    late.args(["--timeout", "0.2"]);
    assert_eq!(exit_code(late).await.0, 7);
}

#[tokio::test]
async fn describe_is_quick_and_leaves_nothing() {
    let home = Home::new();
    for name in [
        "devcluster-tunnel",
        "devcluster-gateway",
        "devcluster-config-emit",
    ] {
        let output = home
            .command(&bin(name))
            .arg("describe")
            .output()
            .await
            .expect("no start");
        let described: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(described["dcs"], 1);
        assert_eq!(
            format!("devcluster-{}", described["kind"].as_str().expect("a kind")),
            name
        );
        assert!(
            described["config"]["properties"].is_object()
                && described["outputs"]["properties"].is_object()
        );
    }
    assert!(leaks::files(home.path()).is_empty());
}

/// `devcluster-config-emit once` with a base of a megabyte and the document on stdout.
fn large_document(home: &Home) -> (Command, String) {
    let text = format!(
        "{}\nresource_manager:\n  type: kubernetes\n",
        format!("# {}\n", "x".repeat(98)).repeat(10_000)
    );
    let base = home.path().join("master.yaml");
    std::fs::write(&base, &text).expect("cannot write");
    let mut command = home.command(&bin("devcluster-config-emit"));
    command
        .args(["once", "--out=-", "--upstreams=[]", "--base"])
        .arg(base)
        .arg("--run-dir")
        .arg(home.run_dir())
        .stdin(Stdio::null());
    (command, text)
}

#[tokio::test]
async fn a_document_waits_for_a_slow_reader() {
    use tokio::io::AsyncReadExt;
    let home = Home::new();
    let (mut command, text) = large_document(&home);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("no start");
    let early = tokio::time::timeout(Duration::from_secs(3), child.wait()).await;
    assert!(early.is_err(), "it did not wait: {early:?}");
    let mut read = String::new();
    let mut stdout = child.stdout.take().expect("no stdout");
    tokio::time::timeout(DEADLINE, stdout.read_to_string(&mut read))
        .await
        .expect("no end")
        .expect("text");
    assert_eq!(read.len(), text.len());
    assert!(child.wait().await.expect("no status").success());
}

#[tokio::test]
async fn a_document_that_cannot_be_written_is_a_failure() {
    let home = Home::new();
    let (mut command, _) = large_document(&home);
    let full = std::fs::File::options().write(true).open("/dev/full");
    command
        .stdout(full.expect("no /dev/full"))
        .stderr(Stdio::piped());
    let child = command.spawn().expect("no start");
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output())
        .await
        .expect("no end")
        .expect("no output");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("code: protocol.disk_full"), "{stderr}");
}
