//! `status` and `gc --dry-run` at every phase of an instance; they change nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::SystemTime;

use conformance::harness::Stream;
use rustix::process::Signal;
use serde_json::Value;
use support::tunnel::{Setup, any_listener, port_of};
use support::{DEADLINE, Options, bin, leaks};
use tokio::process::Command;

fn remote(setup: &Setup, arguments: &[&str]) -> Command {
    let mut command = setup.home.command(&bin("devcluster-remote"));
    command.args(arguments);
    command
}

/// The only instance, with the exit code.
async fn status(setup: &Setup, more: &[&str]) -> (Value, Option<i32>) {
    let mut command = remote(setup, &["status", "--format", "json", "--run-dir"]);
    let output = command.arg(setup.home.run_dir()).args(more).output().await;
    let output = output.expect("no driver");
    let text = String::from_utf8_lossy(&output.stdout);
    let document: Value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (
        document["run_dirs"][0]["instances"][0].clone(),
        output.status.code(),
    )
}

async fn until(setup: &Setup, fits: impl Fn(&Value) -> bool) -> (Value, Option<i32>) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let (instance, code) = status(setup, &[]).await;
        if fits(&instance) {
            return (instance, code);
        }
        assert!(tokio::time::Instant::now() < deadline, "{instance:#}");
    }
}

#[tokio::test]
async fn every_phase_of_an_instance_is_shown() {
    let mut setup = Setup::new(Options::default()).await;
    assert_eq!(
        status(&setup, &[]).await,
        (Value::Null, Some(0)),
        "nothing runs"
    );

    let silent = any_listener().await;
    let port = silent.local_addr().expect("no address").port().to_string();
    let mut tunnel = setup.start(&[("ssh-port", &port)]);
    let (instance, code) = until(&setup, |i| i["message"].is_string()).await;
    assert_eq!(instance["phase"], "preparing");
    let message = instance["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("connecting to "), "{instance}");
    assert_eq!((&instance["outputs"], code), (&Value::Null, Some(0)));
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;
    assert_eq!(status(&setup, &[]).await.0["phase"], "stopped");

    let mut tunnel = setup.start(&[]);
    let outputs = tunnel.wait_for("outputs").await;
    tunnel.wait_for("ready").await;
    let (instance, code) = status(&setup, &["--check"]).await;
    assert_eq!((instance["phase"].as_str(), code), (Some("ready"), Some(0)));
    assert_eq!(instance["health"], "holds");
    assert_eq!(instance["outputs"], outputs["outputs"]);
    assert_eq!(instance["gen"], outputs["gen"]);

    setup.sshd.stop().await.expect("sshd does not stop");
    tunnel.wait_for("degraded").await;
    let (instance, code) = until(&setup, |i| i["phase"] == "degraded").await;
    assert_eq!(code, Some(5));
    // A reconnect may have failed since.
    let code = instance["last_error"]["code"].as_str().expect("a code");
    assert!(
        ["tunnel.connection_lost", "tunnel.server_refused"].contains(&code),
        "{instance}"
    );
    assert!(instance["health"].is_string(), "{instance}");

    tunnel.signal(Signal::KILL);
    tunnel.wait().await;
    let (instance, code) = status(&setup, &[]).await;
    assert_eq!(
        (instance["phase"].as_str(), code),
        (Some("killed"), Some(5))
    );
    assert_eq!(
        instance["outputs"],
        Value::Null,
        "the outputs of a dead run are not current"
    );

    let mut tunnel = setup.start(&[]);
    tunnel.wait_for("error").await;
    tunnel.wait().await;
    let (instance, code) = status(&setup, &[]).await;
    assert_eq!(
        (instance["phase"].as_str(), code),
        (Some("failed"), Some(5))
    );
    assert_eq!(instance["last_error"]["code"], "tunnel.server_refused");
}

async fn line(seen: &mut Stream, text: &str) -> String {
    let line = tokio::time::timeout(DEADLINE, seen.wait_for(text)).await;
    line.expect("not in time").expect("it ended")
}

#[tokio::test]
async fn a_watch_shows_every_change() {
    let setup = Setup::new(Options::default()).await;
    let mut tunnel = setup.start(&[]);
    let port = port_of(&tunnel.wait_for("outputs").await);
    tunnel.wait_for("ready").await;
    let mut command = remote(&setup, &["status", "--watch", "--run-dir"]);
    command
        .arg(setup.home.run_dir())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut watch = command.spawn().expect("no driver");
    let stdout = watch.stdout.take().expect("no stdout").into_owned_fd();
    let mut seen = Stream::read(stdout.expect("a pipe")).expect("a pipe");
    assert!(line(&mut seen, "  tunnel  ready").await.contains("gen 1"));
    let outputs = line(&mut seen, "outputs: ").await;
    assert!(outputs.contains(&format!("port {port}, ")), "{outputs}");
    tunnel.signal(Signal::KILL);
    tunnel.wait().await;
    for text in ["  tunnel  killed", "hint: start it again"] {
        line(&mut seen, text).await;
    }
    // A closed stdout ends it.
    drop(seen);
    watch.kill().await.expect("cannot end it");
}

/// Path, time of change and content of everything below the home.
fn world(setup: &Setup) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let files = leaks::files(setup.home.path()).into_iter();
    files
        .map(|path| {
            let changed = std::fs::symlink_metadata(&path).and_then(|m| m.modified());
            let content = std::fs::read(&path).unwrap_or_default();
            (path, (changed.expect("no time"), content))
        })
        .collect()
}

#[tokio::test]
async fn a_dry_run_of_gc_lists_what_is_left_and_changes_nothing() {
    let setup = Setup::new(Options::default()).await;
    let said = async |arguments: &[&str]| {
        let output = remote(&setup, arguments).output().await.expect("no driver");
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let mut tunnel = setup.start(&[]);
    tunnel.wait_for("ready").await;
    let text = said(&["gc", "--dry-run"]).await;
    assert!(text.contains("is running: would not be touched"), "{text}");
    tunnel.signal(Signal::KILL);
    tunnel.wait().await;
    leaks::gone("processes", || leaks::processes(&setup.home.mark())).await;

    let before = world(&setup);
    let text = said(&["gc", "--dry-run"]).await;
    assert_eq!(world(&setup), before);
    // Its ssh ended with it, and the server has detected that.
    let line = "is dead:\n  nothing is left";
    assert!(text.contains(line), "{text}");
    let text = said(&["gc"]).await;
    assert_eq!(text, "nothing was left behind\n");
    let text = said(&["gc", "--dry-run"]).await;
    assert_eq!(text, "nothing was left behind\n");
    assert!(setup.left().is_empty());
}
