//! `explain`: the program that has a code explains it. stranger/trust.rs has codes of other projects.

use protocol::Explanation;
use support::{Home, bin};

/// The stdout, stderr and exit code of a program.
async fn explain(home: &Home, program: &str, args: &[&str]) -> (String, String, Option<i32>) {
    let mut command = home.command(&bin(program));
    let output = command.arg("explain").args(args).output();
    let output = output.await.expect("cannot run it");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.code(),
    )
}

#[tokio::test]
async fn the_driver_explains_its_codes_and_those_of_every_stage() {
    let home = Home::new();
    for (code, exit) in [
        ("remote.in_use", "exit code: 6"),
        ("protocol.version", "exit code: 3"),
        (
            "tunnel.server_busy",
            "exit code: 75; the same call may work later",
        ),
        ("config_emit.stale", "exit code: 5"),
        ("gateway.none", "exit code: 1"),
        (
            "cluster.unreachable",
            "exit code: 75; the same call may work later",
        ),
    ] {
        let (text, stderr, status) = explain(&home, "devcluster-remote", &[code]).await;
        assert_eq!(status, Some(0), "{stderr}");
        assert!(
            text.starts_with(&format!("{code}: ")) && text.contains("\n  hint: "),
            "{text}"
        );
        assert!(text.trim_end().ends_with(exit), "{text}");
    }
}

#[tokio::test]
async fn a_stage_explains_its_codes_and_those_of_every_program() {
    let home = Home::new();
    for (program, code) in [
        ("devcluster-tunnel", "tunnel.key_locked"),
        ("devcluster-tunnel", "protocol.locked"),
        ("devcluster-gateway", "cluster.forbidden"),
        ("devcluster-config-emit", "config_emit.refused"),
    ] {
        let (text, _, _) = explain(&home, program, &[code, "--format", "json"]).await;
        let one: Explanation = serde_json::from_str(&text).expect("JSON");
        assert_eq!(one.code, code);
        let (all, _, _) = explain(&home, program, &[]).await;
        let line = all
            .lines()
            .find(|line| line.split(' ').next() == Some(code));
        assert!(
            line.is_some_and(|line| line.ends_with(&one.meaning)),
            "{all}"
        );
    }
}

#[tokio::test]
async fn a_misspelt_code_is_a_usage_error_that_names_the_right_one() {
    let home = Home::new();
    for program in ["devcluster-remote", "devcluster-tunnel"] {
        let (_, stderr, status) = explain(&home, program, &["tunnel.sever_busy"]).await;
        assert_eq!(status, Some(2));
        assert!(
            stderr.contains("did you mean `tunnel.server_busy`?"),
            "{stderr}"
        );
    }
}
