//! Errors of the runtime, each with its code and exit code.

use std::process::Stdio;

use rustix::process::Signal;
use support::plugin::run;
use support::{DEADLINE, Home, StageClient, bin, code_of};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn each_failure_has_a_code_and_an_exit_code() {
    let home = Home::new();
    let run_dir = home.run_dir();
    let file = home.path().join("file");
    std::fs::write(&file, "").expect("cannot write");
    let below_a_file = file.join("run");
    let newer = r#"{"dcs":2,"type":"validate","dir":"/","stages":[],"instances":[],"targets":[]}"#;
    for (args, dir, stdin, code, exit) in [
        (&["check"][..], &run_dir, "", "protocol.not_ready", 5),
        (
            &["wait", "--timeout=0.1"],
            &run_dir,
            "",
            "protocol.wait_timeout",
            7,
        ),
        (&["cleanup"], &below_a_file, "", "protocol.io", 1),
        (&["validate"], &run_dir, "{", "protocol.usage", 2),
        (&["validate"], &run_dir, newer, "protocol.version", 3),
    ] {
        let mut command = home.command(&bin("devcluster-config-emit"));
        command.args(args);
        if args[0] != "validate" {
            command.arg("--run-dir").arg(dir);
        }
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = piped.stderr(Stdio::piped()).spawn().expect("no start");
        let mut input = child.stdin.take().expect("no stdin");
        input.write_all(stdin.as_bytes()).await.expect("not read");
        drop(input);
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
        let output = output.expect("no end").expect("no output");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (code_of(&stderr), output.status.code()),
            (code, Some(exit)),
            "{args:?}: {stderr}"
        );
    }
}

#[tokio::test]
async fn a_stop_before_the_command_ends_is_an_interruption() {
    let home = Home::new();
    let mut command = run(&home);
    command.args(["--", "sh", "-c", "echo up >&2; exec sleep 600"]);
    let mut stage = StageClient::start(command);
    stage.wait_for_line("up").await;
    stage.signal(Signal::TERM);
    let (status, _) = stage.wait().await;
    let stderr = stage.stderr();
    assert_eq!(
        (code_of(&stderr), status.code()),
        ("protocol.interrupted", Some(1)),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_lack_of_descriptors_is_reported() {
    let script = "ulimit -n 4; exec \"$0\" describe";
    let mut command = Home::new().command("sh".as_ref());
    let command = command.args(["-c", script]).arg(bin("devcluster-tunnel"));
    let output = command.output().await.expect("no start");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (code_of(&stderr), output.status.code()),
        ("protocol.internal", Some(70)),
        "{stderr}"
    );
}

#[tokio::test]
async fn what_a_program_of_another_release_does_not_accept_names_both_releases() {
    let home = Home::new();
    let ours = env!("CARGO_PKG_VERSION");
    for flag in ["--no-such-flag", "--config=/nowhere"] {
        for (release, code, exit) in [("0.0.1", "protocol.version", 3), (ours, "", 2)] {
            let mut command = home.command(&bin("devcluster-tunnel"));
            command.args(["run", flag, "--run-dir"]).arg(home.run_dir());
            command.env("DEVCLUSTER_STAGES_RELEASE", release);
            let output = command.output().await.expect("no start");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(exit), "{flag}: {stderr}");
            let both = stderr.contains("release 0.0.1") && stderr.contains(ours);
            assert_eq!(both, !code.is_empty(), "{flag}: {stderr}");
            assert!(
                stderr.contains("no-such-flag") || stderr.contains("/nowhere"),
                "{stderr}"
            );
            if !code.is_empty() {
                assert_eq!(code_of(&stderr), code);
            }
        }
    }
}
