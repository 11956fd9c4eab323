//! A plugin under `devcluster-remote host`, and what the runtime gives to every stage. The plugin is the example in Python.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{DEADLINE, Home, StageClient, bin, leaks};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

const STOP: Duration = Duration::from_millis(500);

fn plugin() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../devcluster-examples/plugin/serve.py")
}

fn host(home: &Home, verb: &str) -> Command {
    let mut command = home.command(&bin("devcluster-remote"));
    command
        .args(["host", verb, "--name", "files", "--run-dir"])
        .arg(home.run_dir())
        .stdin(Stdio::null());
    command
}

fn run_with(home: &Home, uses: &Path, with: &Value) -> Command {
    let mut command = host(home, "run");
    command
        .arg("--uses")
        .arg(uses)
        .arg(format!("--with={with}"));
    command
}

fn run(home: &Home) -> Command {
    run_with(home, &plugin(), &json!({"directory": home.path()}))
}

fn script(home: &Home, body: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = home.path().join("plugin.sh");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("cannot write");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("cannot chmod");
    path
}

async fn exit_code(mut command: Command) -> (i32, String) {
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .expect("no end")
        .expect("no start");
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[tokio::test]
async fn a_plugin_becomes_a_full_stage() {
    let home = Home::new();
    let mut stage = StageClient::start(run(&home));
    let hello = stage.wait_for("hello").await;
    assert_eq!(
        (&hello["kind"], &hello["stage"]),
        (&json!("plugin"), &json!("files"))
    );
    let port = stage.wait_for("outputs").await["outputs"]["port"]
        .as_u64()
        .expect("a port");
    let ready = stage.wait_for("ready").await;
    assert_eq!(ready["run"], hello["run"]);
    assert!(leaks::is_listening(port as u16));
    let (code, stderr) = exit_code(host(&home, "wait")).await;
    assert_eq!(code, 0, "{stderr}");
    let (code, stderr) = exit_code(host(&home, "check")).await;
    assert_eq!(code, 0, "{stderr}");
    stage.signal(Signal::TERM);
    let (status, took) = stage.wait().await;
    assert!(
        status.success() && took < STOP,
        "{status} after {took:?}\n{}",
        stage.stderr()
    );
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
    let (code, _) = exit_code(host(&home, "check")).await;
    assert_eq!(code, 5);
}

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
async fn a_plugin_does_not_outlive_sigkill_of_its_host_and_the_next_run_works() {
    let home = Home::new();
    for _ in 0..3 {
        let mut stage = StageClient::start(run(&home));
        stage.wait_for("ready").await;
        stage.signal(Signal::KILL);
        stage.wait().await;
        leaks::gone("processes", || leaks::processes(&home.mark())).await;
    }
    let (code, stderr) = exit_code(host(&home, "cleanup")).await;
    assert_eq!(code, 0, "{stderr}");
    let (code, stderr) = exit_code(host(&home, "cleanup")).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(leaks::files(&home.path().join("state")).is_empty());
}

#[tokio::test]
async fn it_ends_when_nobody_reads_its_output_any_more() {
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
async fn a_host_drives_it_over_stdin() {
    let home = Home::new();
    let mut command = host(&home, "run");
    command
        .args(["--stdin", "control"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("no start");
    let mut stdin = child.stdin.take().expect("no stdin");
    let mut lines = support::lines::lines(child.stdout.take().expect("no stdout"));
    lines.wait_for(r#""type":"hello""#).await;
    let start = json!({"dcs": 1, "type": "start", "later": 1,
        "config": {"uses": plugin(), "with": {"directory": home.path()}}});
    stdin
        .write_all(format!("not json\n{start}\n").as_bytes())
        .await
        .expect("no write");
    let first = lines.wait_for(r#""type":"outputs""#).await;
    lines.wait_for(r#""type":"ready""#).await;
    let reload = json!({"dcs": 1, "type": "reload", "config": {"uses": plugin(), "with": {"directory": "/"}}});
    stdin
        .write_all(format!("{reload}\n").as_bytes())
        .await
        .expect("no write");
    let second = lines.wait_for(r#""type":"outputs""#).await;
    let generation =
        |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["gen"].as_u64();
    assert!(
        generation(&second) > generation(&first),
        "{first}\n{second}"
    );
    drop(stdin);
    let rest = lines.rest().await;
    assert!(
        rest.contains(r#""reason":"stdin_closed""#) && rest.contains(r#""exit":0"#),
        "{rest}"
    );
    assert!(child.wait().await.expect("no status").success());
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
}

#[tokio::test]
async fn another_protocol_version_is_refused_with_exit_3() {
    let home = Home::new();
    let mut command = host(&home, "run");
    command
        .args(["--stdin", "control"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("no start");
    let mut stdin = child.stdin.take().expect("no stdin");
    stdin
        .write_all(b"{\"dcs\":2,\"type\":\"start\"}\n")
        .await
        .expect("no write");
    let status = tokio::time::timeout(DEADLINE, child.wait())
        .await
        .expect("it stays")
        .expect("no status");
    assert_eq!(status.code(), Some(3));

    let plugin = script(
        &home,
        r#"echo '{"dcs":9,"type":"hello","stage":"x"}'; cat >/dev/null"#,
    );
    let (code, stderr) = exit_code(run_with(&home, &plugin, &json!({}))).await;
    assert_eq!(code, 3, "{stderr}");
}

#[tokio::test]
async fn a_plugin_that_fails_says_why_in_its_own_words() {
    let home = Home::new();
    let (code, stderr) = exit_code(run_with(
        &home,
        &plugin(),
        &json!({"directory": "/nowhere"}),
    ))
    .await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("code: serve.no_directory"), "{stderr}");
}

#[tokio::test]
async fn plugins_that_break_the_rules_are_named() {
    let home = Home::new();
    for (body, expected) in [
        ("echo hello world; cat >/dev/null", "remote.plugin_protocol"),
        ("exit 3", "remote.plugin_ended"),
        ("echo oops >&2; exit 0", "oops"),
        ("exec >&-; cat >/dev/null", "it closed its stdout"),
    ] {
        let (code, stderr) = exit_code(run_with(&home, &script(&home, body), &json!({}))).await;
        assert_eq!(code, 1, "{body}: {stderr}");
        assert!(stderr.contains(expected), "{body}: {stderr}");
    }
    let (code, stderr) = exit_code(run_with(&home, Path::new("/nowhere"), &json!({}))).await;
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("remote.plugin_missing"), "{stderr}");
}

#[tokio::test]
async fn a_plugin_may_speak_to_its_very_end_and_then_nothing_is_left_to_clean_up() {
    let home = Home::new();
    let mut stage = StageClient::start(run(&home));
    stage.wait_for("ready").await;
    stage.signal(Signal::TERM);
    let (status, _) = stage.wait().await;
    assert!(status.success(), "{status}\n{}", stage.stderr());
    let left = leaks::files(&home.path().join("state"));
    assert!(left.is_empty(), "{left:?}\n{}", stage.stderr());
    let (code, stderr) = exit_code(host(&home, "cleanup")).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("nothing was left"), "{stderr}");

    // A pipe that nobody reads would end this one by SIGPIPE, before its last line.
    let body = format!("{READY}; cat >/dev/null; echo bye >&2; printf 'the end' >&2; exit 0");
    let mut stage = StageClient::start(run_with(&home, &script(&home, &body), &json!({})));
    stage.wait_for("ready").await;
    stage.signal(Signal::TERM);
    stage
        .wait_until("its last words", |m| m["message"] == "the end")
        .await;
    let (status, _) = stage.wait().await;
    assert!(status.success(), "{status}");
    assert!(leaks::files(&home.path().join("state")).is_empty());
}

const READY: &str = r#"echo '{"dcs":1,"type":"ready","stage":"x","run":"r","gen":1}'"#;

#[tokio::test]
async fn last_words_without_a_newline_and_after_a_long_line_are_heard() {
    let home = Home::new();
    let body = "head -c 70000 /dev/zero | tr '\\0' x >&2; echo >&2; echo after >&2; printf 'last words' >&2; exit 1";
    let (code, stderr) = exit_code(run_with(&home, &script(&home, body), &json!({}))).await;
    assert_eq!(code, 1, "{stderr}");
    for expected in ["bytes more)", "after", "last words", "remote.plugin_ended"] {
        assert!(stderr.contains(expected), "{expected}: {stderr}");
    }
}

#[tokio::test]
async fn a_line_on_stdout_that_is_too_long_is_skipped() {
    let home = Home::new();
    let body = format!("head -c 70000 /dev/zero | tr '\\0' x; echo; {READY}; cat >/dev/null");
    let mut stage = StageClient::start(run_with(&home, &script(&home, &body), &json!({})));
    let warning = stage
        .wait_until("a warning", |m| m["level"] == "warn")
        .await;
    assert!(
        warning["message"].to_string().contains("64 KiB"),
        "{warning}"
    );
    stage.wait_for("ready").await;
}

#[tokio::test]
async fn a_config_that_does_not_fit_a_line_is_refused() {
    let home = Home::new();
    let config = home.path().join("host.json");
    let text = json!({"uses": plugin(), "with": {"directory": "x".repeat(70_000)}}).to_string();
    std::fs::write(&config, text).expect("cannot write");
    let mut command = host(&home, "run");
    command.arg("-c").arg(config);
    let (code, stderr) = exit_code(command).await;
    assert_eq!(code, 2, "{stderr}");
    assert!(
        stderr.contains("with") && stderr.contains("is the limit"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_dead_plugin_fails_although_a_process_of_its_own_holds_its_pipes() {
    let home = Home::new();
    for hold in ["sleep 61 & exit 3", "setsid sleep 3 & exit 3"] {
        let body = format!("{READY}; {hold}");
        let began = std::time::Instant::now();
        let (code, stderr) = exit_code(run_with(&home, &script(&home, &body), &json!({}))).await;
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("exit status: 3"), "{stderr}");
        assert!(began.elapsed() < Duration::from_secs(3), "{hold}");
    }
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
}

#[tokio::test]
async fn what_a_plugin_started_ends_with_it() {
    let home = Home::new();
    // Both are told; one of them does not listen.
    let body = format!(
        "sleep 62 >/dev/null 2>&1 & (trap '' TERM; while :; do sleep 0.1; done) >/dev/null 2>&1 & {READY}; cat >/dev/null"
    );
    let mut stage = StageClient::start(run_with(&home, &script(&home, &body), &json!({})));
    stage.wait_for("ready").await;
    stage.signal(Signal::TERM);
    let (_, took) = stage.wait().await;
    assert!(took < STOP, "{took:?}");
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
}

#[tokio::test]
async fn a_plugin_that_says_a_fatal_error_and_stays_is_ended_with_it() {
    let home = Home::new();
    let body = r#"echo '{"dcs":1,"type":"error","stage":"x","error":{"code":"x.broken","message":"it broke","fatal":true}}'; cat >/dev/null"#;
    let (code, stderr) = exit_code(run_with(&home, &script(&home, body), &json!({}))).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("code: x.broken"), "{stderr}");
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
}

/// Kills a host whose plugin is `body`, so that its ledger stays open, and returns the plugin.
async fn left_by(home: &Home, body: &str) -> PathBuf {
    let path = script(home, body);
    let mut command = run_with(home, Path::new("./plugin.sh"), &json!({}));
    command.current_dir(home.path());
    let mut stage = StageClient::start(command);
    stage.wait_for("ready").await;
    stage.signal(Signal::KILL);
    stage.wait().await;
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
    path
}

fn leaving(describe: &str, cleanup: &str) -> String {
    format!(
        "case $1 in describe) {describe};; cleanup) {cleanup};; *) {READY}; cat >/dev/null;; esac"
    )
}

#[tokio::test]
async fn cleanup_finds_the_plugin_from_anywhere_and_keeps_what_it_could_not_undo() {
    let cleans = r#"echo '{"verbs":["cleanup"]}'"#;
    for (describe, cleanup, expected_code, expected) in [
        (cleans, "exit 0", 0, "cleaned up"),
        (cleans, "sleep 63 & exit 0", 0, "cleaned up"),
        (cleans, "exit 5", 1, "exit status: 5"),
        (cleans, "seq 1 1000000", 1, "1 MiB"),
        ("echo no JSON", "exit 0", 1, "not a description"),
        ("exit 4", "exit 0", 1, "exit status: 4"),
    ] {
        let home = Home::new();
        left_by(&home, &leaving(describe, cleanup)).await;
        let mut command = host(&home, "cleanup");
        command.current_dir("/");
        let (code, stderr) = exit_code(command).await;
        assert_eq!(code, expected_code, "{describe}; {cleanup}: {stderr}");
        assert!(stderr.contains(expected), "{expected}: {stderr}");
        let kept = !leaks::files(&home.path().join("state")).is_empty();
        assert_eq!(kept, code != 0, "{describe}; {cleanup}: {stderr}");
        leaks::gone("processes", || leaks::processes(&home.mark())).await;
    }
}

#[tokio::test]
async fn what_a_plugin_left_that_is_gone_does_not_stay_for_ever() {
    let home = Home::new();
    let path = left_by(&home, &leaving("exit 4", "exit 0")).await;
    std::fs::remove_file(path).expect("cannot remove");
    let (code, stderr) = exit_code(host(&home, "cleanup")).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("is gone"), "{stderr}");
    assert!(leaks::files(&home.path().join("state")).is_empty());
}

#[tokio::test]
async fn a_plugin_that_cannot_be_started_leaves_nothing() {
    let home = Home::new();
    let path = script(&home, "");
    std::fs::write(&path, "#!/nowhere/interpreter\n").expect("cannot write");
    let (code, stderr) = exit_code(run_with(&home, &path, &json!({}))).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("cannot start"), "{stderr}");
    assert!(leaks::files(&home.path().join("state")).is_empty());
}

#[tokio::test]
async fn gc_leaves_alone_what_still_runs() {
    let home = Home::new();
    let mut stage = StageClient::start(run(&home));
    stage.wait_for("ready").await;
    for run_dir in [None, Some(home.run_dir())] {
        let mut command = home.command(&bin("devcluster-remote"));
        command.arg("gc");
        if let Some(run_dir) = run_dir {
            command.arg("--run-dir").arg(run_dir);
        }
        let (code, stderr) = exit_code(command).await;
        assert_eq!(code, 0, "{stderr}");
        assert!(
            stderr.contains("files is still running, left alone"),
            "{stderr}"
        );
    }
    let (code, stderr) = exit_code(host(&home, "check")).await;
    assert_eq!(code, 0, "{stderr}");
}

#[tokio::test]
async fn a_plugin_that_ignores_shutdown_is_ended_in_time() {
    let home = Home::new();
    let body = r#"trap '' TERM; echo '{"dcs":1,"type":"ready","stage":"x","run":"r","gen":1}'; while :; do sleep 0.1; done"#;
    let mut stage = StageClient::start(run_with(&home, &script(&home, body), &json!({})));
    stage.wait_for("ready").await;
    stage.signal(Signal::TERM);
    let (_, took) = stage.wait().await;
    assert!(took < STOP, "{took:?}");
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
}

#[tokio::test]
async fn a_command_runs_while_it_holds_and_its_exit_code_is_ours() {
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
async fn a_failure_ends_a_wait_at_once_and_nobody_there_after_ten_seconds() {
    let home = Home::new();
    let wait = host(&home, "wait").spawn().expect("no start");
    let (code, _) = exit_code(run_with(
        &home,
        &plugin(),
        &json!({"directory": "/nowhere"}),
    ))
    .await;
    assert_eq!(code, 1);
    let began = std::time::Instant::now();
    let output = tokio::time::timeout(DEADLINE, wait.wait_with_output())
        .await
        .expect("no end")
        .expect("no output");
    assert_eq!(output.status.code(), Some(4));
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );

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

/// `devcluster-config-emit once` with a base of a megabyte, whose document is for stdout.
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
async fn a_document_waits_for_a_reader_that_takes_its_time() {
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
    assert!(stderr.contains("code: protocol.io"), "{stderr}");
}

#[tokio::test]
async fn a_command_line_that_cannot_work_is_refused() {
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
async fn a_reload_that_is_wrong_is_refused_and_the_stage_works_on() {
    let home = Home::new();
    let mut command = host(&home, "run");
    command
        .args(["--stdin", "control"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("no start");
    let mut stdin = child.stdin.take().expect("no stdin");
    let mut lines = support::lines::lines(child.stdout.take().expect("no stdout"));
    let good = json!({"uses": plugin(), "with": {"directory": home.path()}});
    let start = json!({"dcs": 1, "type": "start", "config": good});
    stdin
        .write_all(format!("{start}\n").as_bytes())
        .await
        .expect("no write");
    lines.wait_for(r#""type":"ready""#).await;
    let reload = json!({"dcs": 1, "type": "reload", "config": {"used": "x"}});
    stdin
        .write_all(format!("{reload}\n").as_bytes())
        .await
        .expect("no write");
    let refused = lines.wait_for(r#""type":"error""#).await;
    assert!(refused.contains(r#""fatal":false"#), "{refused}");
    let (code, stderr) = exit_code(host(&home, "check")).await;
    assert_eq!(code, 0, "{stderr}");
    let reload = json!({"dcs": 1, "type": "reload", "config": good});
    let mut last = format!("{reload}\n").repeat(20);
    last.push_str("{\"dcs\":1,\"type\":\"shutdown\"}\n");
    stdin.write_all(last.as_bytes()).await.expect("no write");
    let rest = lines.rest().await;
    assert!(rest.contains(r#""reason":"shutdown""#), "{rest}");
    assert!(child.wait().await.expect("no status").success());
}

#[tokio::test]
async fn a_command_ends_with_us_and_takes_what_it_started_along() {
    let home = Home::new();
    for (signal, command) in [
        (Signal::TERM, "sleep 600 & echo up; wait"),
        (Signal::KILL, "echo up; exec sleep 600"),
    ] {
        let mut run = run(&home);
        run.args(["--", "sh", "-c", command])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = run.spawn().expect("no start");
        let mut lines = support::lines::lines(child.stdout.take().expect("no stdout"));
        lines.wait_for("up").await;
        let pid = rustix::process::Pid::from_raw(child.id().expect("a pid") as i32);
        rustix::process::kill_process(pid.expect("a pid"), signal).expect("no signal");
        child.wait().await.expect("no status");
        leaks::gone("processes", || leaks::processes(&home.mark())).await;
    }
}
