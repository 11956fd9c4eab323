//! The resident devcluster-config-emit: it follows its upstreams, in a run directory and in a pipe, and survives kills.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::emit::{
    DEVCLUSTER, RENDERED, command, finish, gateway_outputs, once, provides, read,
    tunnel_and_gateway, tunnel_outputs, write,
};
use support::{DEADLINE, Home, StageClient, bin};
use tokio::io::AsyncWriteExt;

/// Spread over the duration of one run.
const KILLS: u32 = 90;

#[tokio::test]
async fn a_resident_one_follows_its_upstreams_and_checks_itself() {
    let home = Home::new();
    let [tunnel, _gateway] = tunnel_and_gateway(&home).await;
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    let mut stage = StageClient::start(command(&home, "run", &base, &out));
    let outputs = stage.wait_for("outputs").await;
    assert_eq!(outputs["outputs"]["path"], out.display().to_string());
    assert_eq!(outputs["outputs"]["stage"], "master");
    let values = &outputs["outputs"]["values"];
    assert_eq!(values["resource_manager.determined_master_port"], 8003);
    assert_eq!(
        values["resource_manager.internal_task_gateway.gateway_ip"],
        "10.1.2.3"
    );
    stage.wait_for("ready").await;
    assert_eq!(read(&out), RENDERED);

    let check = || async { finish(command(&home, "check", &base, &out)).await.0 };
    assert_eq!(check().await, Some(0));

    tunnel.report(2, tunnel_outputs(8004));
    let warning = stage
        .wait_until("a warning", |m| m["level"] == "warn")
        .await;
    assert!(
        warning["message"]
            .as_str()
            .is_some_and(|m| m.contains("restart master")),
        "{warning}"
    );
    let second = stage.wait_for("ready").await;
    assert_eq!(second["gen"], 2, "{second}");
    assert_eq!(read(&out), RENDERED.replace("8003", "8004"));

    std::fs::write(&out, "mine").expect("written");
    assert_eq!(check().await, Some(5));
    stage.signal(Signal::TERM);
    assert!(stage.wait().await.0.success(), "{}", stage.stderr());
}

#[tokio::test]
async fn unusable_outputs_degrade_it_until_they_are_usable() {
    let home = Home::new();
    let [tunnel, _gateway] = tunnel_and_gateway(&home).await;
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    let mut stage = StageClient::start(command(&home, "run", &base, &out));
    stage.wait_for("ready").await;
    tunnel.report(2, json!({"host": "", "port": 1}));
    let degraded = stage.wait_for("degraded").await;
    assert_eq!(
        degraded["error"]["code"], "config_emit.bad_outputs",
        "{degraded}"
    );
    assert_eq!(read(&out), RENDERED);
    tunnel.report(3, tunnel_outputs(8005));
    stage.wait_for("ready").await;
    assert_eq!(read(&out), RENDERED.replace("8003", "8005"));
}

/// An upstream's lines in a pipe.
fn lines(name: &str, kind: &str, outputs: Value) -> String {
    let envelope = |type_: &str, more: Value| {
        let mut line = json!({"dcs": 1, "type": type_, "stage": name, "run": "1a2b"});
        let Value::Object(more) = more else {
            return line.to_string();
        };
        for (key, value) in more {
            line[key] = value;
        }
        line.to_string()
    };
    [
        envelope("hello", json!({"kind": kind, "version": "1", "pid": 1})),
        envelope(
            "outputs",
            json!({"kind": kind, "gen": 1, "outputs": outputs, "provides": provides(kind)}),
        ),
        envelope("ready", json!({"gen": 1})),
        String::new(),
    ]
    .join("\n")
}

#[tokio::test]
async fn in_a_pipeline_the_command_runs_when_all_is_written_and_sets_the_exit_code() {
    let home = Home::new();
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    let mut command = home.command(&bin("devcluster-config-emit"));
    command
        .args(["--stdin", "chain", "--diff", "--run-dir"])
        .arg(home.run_dir());
    command.arg("--base").arg(&base).arg("--out").arg(&out);
    command
        .args(["--", "sh", "-c", "cat \"$0\"; exit 7"])
        .arg(&out);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("stdin");
    // Both send hello before the first is ready, as in a real pipe.
    let (tunnel, gateway) = (
        lines("t", "tunnel", tunnel_outputs(8003)),
        lines("g", "gateway", gateway_outputs()),
    );
    let (hello, rest) = gateway.split_once('\n').expect("lines");
    for text in [hello, "\n", &tunnel, "not a message\n", rest] {
        stdin.write_all(text.as_bytes()).await.expect("it reads");
    }
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output());
    let output = output.await.expect("it ends").expect("it ran");
    drop(stdin);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(stdout, RENDERED, "{stderr}");
}

#[tokio::test]
async fn a_pipe_that_ends_early_or_fails_does_not_start_the_command() {
    let failed = json!({"code": "tunnel.key_refused", "message": "no", "fatal": true, "hint": "use another key"});
    let error = json!({"dcs": 1, "type": "error", "stage": "t", "error": failed}).to_string();
    let hello = lines("t", "tunnel", tunnel_outputs(1))
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    for said in [
        String::new(),
        format!("{hello}\n"),
        format!("{hello}\n{error}\n"),
    ] {
        let home = Home::new();
        let (base, out) = (
            write(&home, "base.yaml", DEVCLUSTER),
            home.path().join("out.yaml"),
        );
        let mut command = home.command(&bin("devcluster-config-emit"));
        command
            .args(["--stdin", "chain", "--run-dir"])
            .arg(home.run_dir());
        command.arg("--base").arg(&base).arg("--out").arg(&out);
        command.arg("--").arg("touch").arg(home.path().join("ran"));
        command.stdin(Stdio::from(
            std::fs::File::open(write(&home, "said", &said)).expect("open"),
        ));
        let (code, stderr) = finish(command).await;
        assert_eq!(code, Some(4), "{said:?}\n{stderr}");
        assert!(
            !out.exists() && !home.path().join("ran").exists(),
            "{said:?}"
        );
    }
}

#[tokio::test]
async fn killed_at_any_point_it_leaves_no_partial_file_and_the_next_run_works() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    let old = "# of a run before\n";
    // The first run also builds the binary. The shortest of the others is the duration without waiting for a busy
    // machine.
    once(&home, &base, &out).await;
    let mut life = DEADLINE;
    for _ in 0..5 {
        let started = Instant::now();
        once(&home, &base, &out).await;
        life = life.min(started.elapsed());
    }
    let (mut before, mut after) = (0, 0);
    for step in 0..KILLS {
        std::fs::write(&out, old).expect("written");
        let mut stage = StageClient::start(command(&home, "once", &base, &out));
        // The delays cover the whole run of the process, in steps finer than tokio's milliseconds.
        std::thread::sleep(life * step / KILLS);
        stage.signal(Signal::KILL);
        let (status, _) = stage.wait().await;
        let left = read(&out);
        assert!(left == old || left == RENDERED, "step {step}: {left}");
        assert_eq!(read(&base), DEVCLUSTER);
        if status.signal() == Some(Signal::KILL.as_raw()) {
            *(if left == old { &mut before } else { &mut after }) += 1;
        }
    }
    // Otherwise the kills missed the process and showed nothing.
    assert!(
        before + after >= KILLS / 3,
        "of {KILLS} kills {before} came before the write and {after} after it, life {life:?}"
    );
    eprintln!("{KILLS} kills over {life:?}: {before} before the write, {after} after it");
    once(&home, &base, &out).await;
    assert_eq!(read(&out), RENDERED);
    let files = std::fs::read_dir(home.path())
        .expect("a directory")
        .flatten();
    let names: Vec<_> = files.map(|f| f.file_name()).collect();
    assert!(
        !names.iter().any(|n| n.to_string_lossy().ends_with(".tmp")),
        "{names:?}"
    );
}
