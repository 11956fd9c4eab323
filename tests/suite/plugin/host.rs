//! A plugin under `devcluster-remote host`, from `start` until it ends.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::plugin::{READY, exit_code, host, plugin, run, run_with, script};
use support::{Home, StageClient, leaks};

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
    assert!(stage.wait().await.0.success(), "{}", stage.stderr());
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
    let (code, _) = exit_code(host(&home, "check")).await;
    assert_eq!(code, 5);
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
async fn a_host_drives_it_over_stdin() {
    let home = Home::new();
    let mut command = host(&home, "run");
    command.args(["--stdin", "control"]);
    let mut stage = StageClient::hosted(command);
    stage.wait_for("hello").await;
    stage.write(b"not json\n").await;
    let with = |directory: &Path| json!({"uses": plugin(), "with": {"directory": directory}});
    let start = json!({"dcs": 1, "type": "start", "later": 1, "config": with(home.path())});
    stage.tell(start).await;
    let first = stage.wait_for("outputs").await;
    stage.wait_for("ready").await;
    let reload = json!({"dcs": 1, "type": "reload", "config": with(Path::new("/"))});
    stage.tell(reload).await;
    let second = stage.wait_for("outputs").await;
    let generation = |outputs: &Value| outputs["gen"].as_u64();
    assert!(
        generation(&second) > generation(&first),
        "{first}\n{second}"
    );
    stage.close_stdin();
    let stopping = stage.wait_for("stopping").await;
    assert_eq!(stopping["reason"], "stdin_closed");
    assert_eq!(stage.wait_for("result").await["exit"], 0);
    assert!(stage.wait().await.0.success());
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
}

#[tokio::test]
async fn another_protocol_version_is_refused_with_exit_3() {
    let home = Home::new();
    let mut command = host(&home, "run");
    command.args(["--stdin", "control"]);
    let mut stage = StageClient::hosted(command);
    stage.tell(json!({"dcs": 2, "type": "start"})).await;
    assert_eq!(stage.wait().await.0.code(), Some(3));

    let plugin = script(
        &home,
        r#"echo '{"dcs":9,"type":"hello","stage":"x"}'; cat >/dev/null"#,
    );
    let (code, stderr) = exit_code(run_with(&home, &plugin, &json!({}))).await;
    assert_eq!(code, 3, "{stderr}");
}

#[tokio::test]
async fn a_plugin_that_fails_reports_its_own_error() {
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
async fn a_plugin_can_send_messages_until_it_ends_and_then_needs_no_cleanup() {
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

    // A closed pipe would end it by SIGPIPE, before its last line.
    let body = format!("{READY}; cat >/dev/null; echo bye >&2; printf 'the end' >&2; exit 0");
    let mut stage = StageClient::start(run_with(&home, &script(&home, &body), &json!({})));
    stage.wait_for("ready").await;
    stage.signal(Signal::TERM);
    stage
        .wait_until("its last message", |m| m["message"] == "the end")
        .await;
    let (status, _) = stage.wait().await;
    assert!(status.success(), "{status}");
    assert!(leaks::files(&home.path().join("state")).is_empty());
}

#[tokio::test]
async fn a_last_line_without_a_newline_and_a_line_after_a_long_one_are_shown() {
    let home = Home::new();
    let body = "head -c 70000 /dev/zero | tr '\\0' x >&2; echo >&2; echo after >&2; printf 'last line' >&2; exit 1";
    let (code, stderr) = exit_code(run_with(&home, &script(&home, body), &json!({}))).await;
    assert_eq!(code, 1, "{stderr}");
    for expected in ["bytes more)", "after", "last line", "remote.plugin_ended"] {
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
        stderr.contains("with") && stderr.contains("the limit is"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_dead_plugin_fails_although_its_child_keeps_its_pipes_open() {
    let home = Home::new();
    let seen = home.path().join("seen");
    let until_seen = format!(
        "setsid sh -c 'until test -e {}; do sleep 0.1; done' & exit 3",
        seen.display()
    );
    for hold in ["sleep 61 & exit 3", &until_seen] {
        let body = format!("{READY}; {hold}");
        let (code, stderr) = exit_code(run_with(&home, &script(&home, &body), &json!({}))).await;
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("exit status: 3"), "{stderr}");
    }
    std::fs::write(&seen, "").expect("cannot write");
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
}

#[tokio::test]
async fn what_a_plugin_started_ends_with_it() {
    let home = Home::new();
    // Both get SIGTERM; one of them ignores it.
    let body = format!(
        "sleep 62 >/dev/null 2>&1 & (trap '' TERM; while :; do sleep 0.1; done) >/dev/null 2>&1 & {READY}; cat >/dev/null"
    );
    let mut stage = StageClient::start(run_with(&home, &script(&home, &body), &json!({})));
    stage.wait_for("ready").await;
    stage.signal(Signal::TERM);
    stage.wait().await;
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
}

#[tokio::test]
async fn a_plugin_that_stays_after_a_fatal_error_is_ended() {
    let home = Home::new();
    let body = r#"echo '{"dcs":1,"type":"error","stage":"x","error":{"code":"x.broken","message":"it broke","fatal":true}}'; cat >/dev/null"#;
    let (code, stderr) = exit_code(run_with(&home, &script(&home, body), &json!({}))).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("code: x.broken"), "{stderr}");
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
}

#[tokio::test]
async fn a_plugin_that_ignores_shutdown_is_ended() {
    let home = Home::new();
    let body = r#"trap '' TERM; echo '{"dcs":1,"type":"ready","stage":"x","run":"r","gen":1}'; while :; do sleep 0.1; done"#;
    let mut stage = StageClient::start(run_with(&home, &script(&home, body), &json!({})));
    stage.wait_for("ready").await;
    stage.signal(Signal::TERM);
    stage.wait().await;
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
}
