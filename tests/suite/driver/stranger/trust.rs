//! Which programs of other projects run, and what their answers can do.

use serde_json::Value;
use support::{Home, bin, code_of};

use super::{Bin, compile, file, output, remote, set_mode};

#[tokio::test]
async fn only_a_program_that_others_cannot_replace_is_run() {
    let home = Home::new();
    let bin = Bin::new(&home);
    let spy = format!(
        "#!/bin/sh\ntouch {}\nexit 1\n",
        home.path().join("ran").display()
    );
    let program = bin.put("devcluster-spy", &spy);
    let ran = || home.path().join("ran").exists();
    let stages = "  - spy: {}\n";
    let open = home.path().join("open");
    std::fs::create_dir(&open).expect("cannot make a directory");
    std::fs::copy(&program, open.join("devcluster-spy")).expect("cannot copy");
    set_mode(&open, 0o777);
    for path in [
        "bin".to_owned(),
        String::new(),
        format!("{}", open.display()),
    ] {
        let mut command = remote(&home, &format!("{path}:/usr/bin:/bin"), &["compile", "-c"]);
        command.arg(file(&home, stages)).current_dir(home.path());
        let output = command.output().await.expect("no driver");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !ran(), "{path:?}: {text}");
    }
    set_mode(&program, 0o777);
    let (ok, text) = compile(&home, &bin.path(), stages).await;
    assert!(
        !ok && !ran() && text.contains("is writable by other users"),
        "{text}"
    );
    set_mode(&program, 0o755);
    let (ok, _) = compile(&home, &bin.path(), stages).await;
    assert!(!ok && ran(), "it is safe to run, and fails");
}

#[tokio::test]
async fn a_reserved_name_is_never_a_kind_and_an_unknown_one_suggests_the_nearest() {
    let home = Home::new();
    let bin = Bin::with_hello(&home);
    for (kind, expected) in [
        ("remote", "unknown kind of stage `remote`"),
        ("sandbox", "unknown kind of stage `sandbox`"),
        ("../x", "unknown kind of stage"),
        ("Hello", "unknown kind of stage `Hello`"),
        ("tunel", "did you mean `tunnel`?"),
        ("helo", "did you mean `hello`?"),
    ] {
        bin.put("devcluster-remote", "#!/bin/sh\ntouch \"$HOME/ran\"\n");
        let (ok, text) = compile(&home, &bin.path(), &format!("  - '{kind}': {{}}\n")).await;
        assert!(!ok && text.contains(expected), "{kind}: {text}");
        assert!(!home.path().join("ran").exists(), "{kind}");
    }
}

#[tokio::test]
async fn it_gets_no_secret_of_the_environment_and_a_flood_ends_it() {
    let home = Home::new();
    let bin = Bin::new(&home);
    bin.put(
        "devcluster-env",
        "#!/bin/sh\nenv > \"$HOME/seen\"\nexit 1\n",
    );
    let mut command = remote(&home, &bin.path(), &["compile", "-c"]);
    command
        .arg(file(&home, "  - env: {}\n"))
        .env("DET_PASSWORD", "hunter2");
    command.output().await.expect("no driver");
    let seen = std::fs::read_to_string(home.path().join("seen")).expect("it was not run");
    assert!(
        seen.contains("PATH=") && !seen.contains("hunter2"),
        "{seen}"
    );

    bin.put("devcluster-flood", "#!/bin/sh\nexec cat /dev/zero\n");
    let (ok, text) = compile(&home, &bin.path(), "  - flood: {}\n").await;
    assert!(!ok && text.contains("more than 1 MiB"), "{text}");
}

#[tokio::test]
async fn a_stage_of_this_project_and_of_another_release_is_refused_with_both_named() {
    let home = Home::new();
    let programs = Bin::new(&home);
    for name in ["devcluster-remote", "devcluster-gateway"] {
        std::fs::copy(bin(name), programs.0.join(name)).expect("cannot copy");
    }
    let real = bin("devcluster-tunnel");
    let older = format!(
        "#!/bin/sh\n{} \"$@\" | sed 's/\"release\": \"[^\"]*\"/\"release\": \"0.0.9\"/'\n",
        real.display()
    );
    programs.put("devcluster-tunnel", &older);
    let mut command = home.command(&programs.0.join("devcluster-remote"));
    command
        .args(["compile", "-c"])
        .arg(file(&home, "  - tunnel: {reverse_proxy_host: a}\n"));
    let output = command.output().await.expect("no driver");
    let text = String::from_utf8_lossy(&output.stderr);
    let ours = env!("CARGO_PKG_VERSION");
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("0.0.9") && text.contains(ours), "{text}");

    let mut command = home.command(&programs.0.join("devcluster-remote"));
    let output = command.args(["explain", "config_emit.stale"]).output();
    let output = output.await.expect("no driver");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("devcluster-config-emit is not installed"),
        "{text}"
    );
}

/// A program with this description and answer.
fn saying(verbs: &str, answer: &str) -> String {
    format!(
        "#!/bin/sh\necho \"$1\" >> \"$HOME/called\"\ncase $1 in\ndescribe) echo '{{\"dcs\":1,\"kind\":\"odd\",\"version\":\"1\",\"about\":\"x\",\"verbs\":{verbs},\"config\":{{}},\"outputs\":{{}}}}';;\nvalidate) cat > \"$HOME/request\"; echo '{answer}';;\nesac\n"
    )
}

const FULL: &str = r#"["run","wait","check","cleanup","describe","validate"]"#;

#[tokio::test]
async fn each_instance_needs_a_verdict_and_a_plugin_is_not_a_full_stage() {
    let home = Home::new();
    let bin = Bin::new(&home);
    let stages = "  - odd: {}\n";
    for (verbs, answer, expected) in [
        (
            FULL,
            r#"{"dcs":1,"instances":[]}"#,
            "one per instance is required",
        ),
        (
            FULL,
            r#"{"dcs":1,"instances":[{"stage":"other"}]}"#,
            "one per instance is required",
        ),
        (
            FULL,
            r#"{"dcs":1,"instances":[{"stage":"odd"},{"stage":"odd"}]}"#,
            "one per instance is required",
        ),
        (
            FULL,
            r#"{"dcs":2,"instances":[{"stage":"odd"}]}"#,
            "protocol version 2",
        ),
        (FULL, "[]", "not an answer"),
        (r#"["describe","run"]"#, "", "has no verb `wait`"),
    ] {
        bin.put("devcluster-odd", &saying(verbs, answer));
        let (ok, text) = compile(&home, &bin.path(), stages).await;
        assert!(!ok && text.contains(expected), "{answer}: {text}");
    }
    bin.put(
        "devcluster-odd",
        &saying(FULL, r#"{"dcs":1,"instances":[{"stage":"odd"}]}"#),
    );
    let (ok, text) = compile(&home, &bin.path(), stages).await;
    assert!(ok, "{text}");
    for (body, expected) in [
        ("{run_dir: x}", "cannot be passed as a flag"),
        ("{name: taken}", "a second stage has the name `taken`"),
    ] {
        let stages = format!("  - odd: {body}\n  - custom: {{name: taken, cmd: [true]}}\n");
        let (ok, text) = compile(&home, &bin.path(), &stages).await;
        assert!(!ok && text.contains(expected), "{text}");
    }
}

/// A program of this kind with these verbs besides those of every stage, which explains a code.
fn explaining(kind: &str, verbs: &str) -> String {
    format!(
        r#"#!/bin/sh
case $1 in
describe) echo '{{"dcs":1,"kind":"{kind}","version":"1","about":"","verbs":["run","wait","check","cleanup"{verbs}]}}' ;;
explain) echo '[{{"code":"vpn.refused","meaning":"The server rejected the token.","hint":"get another","exit":1}}]' ;;
esac
"#
    )
}

#[tokio::test]
async fn a_code_of_another_project_is_explained_by_its_program_if_that_is_safe_to_run() {
    let home = Home::new();
    let bin = Bin::new(&home);
    let explain = async || output(&home, &bin.path(), &["explain", "vpn.refused"]).await;
    let refused = async |code: &str, exit: i32, says: &str| {
        let output = explain().await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (code_of(&stderr), output.status.code()),
            (code, Some(exit)),
            "{stderr}"
        );
        assert!(
            output.stdout.is_empty() && stderr.contains(says),
            "{stderr}"
        );
    };
    refused("protocol.usage", 2, "codes that begin with `vpn.`").await;
    bin.put("devcluster-vpn", &explaining("vpn", ""));
    refused("protocol.usage", 2, "cannot explain its error codes").await;
    bin.put("devcluster-vpn", &explaining("other", ""));
    refused("remote.other_program", 2, "describes itself as `other`").await;
    bin.put("devcluster-vpn", "#!/bin/sh\nexit 3\n");
    refused("protocol.program_failed", 1, "exit status: 3").await;
    let program = bin.put("devcluster-vpn", &explaining("vpn", r#","explain""#));
    let text = explain().await.stdout;
    let expected =
        "vpn.refused: The server rejected the token.\n  hint: get another\n  exit code: 1\n";
    assert_eq!(String::from_utf8_lossy(&text), expected);
    set_mode(&program, 0o777);
    refused("remote.unsafe_program", 1, "is writable by other users").await;
}

#[tokio::test]
async fn it_does_not_get_the_config_of_a_master() {
    let home = Home::new();
    let bin = Bin::new(&home);
    let odd = saying(FULL, r#"{"dcs":1,"instances":[{"stage":"odd"}]}"#);
    bin.put("devcluster-odd", &odd);
    let stages =
        "  - odd: {}\n  - config-emit: {}\n  - master: {config_file: {db: {password: hunter2}}}\n";
    let (ok, text) = compile(&home, &bin.path(), stages).await;
    assert!(ok, "{text}");
    let request = std::fs::read(home.path().join("request")).expect("it was called");
    let request: Value = serde_json::from_slice(&request).expect("a request is JSON");
    assert_eq!(request["instances"][0]["stage"], "odd");
    assert!(!request.to_string().contains("hunter2"), "{request}");
}

#[tokio::test]
async fn it_does_not_decide_on_which_port_the_master_listens() {
    let home = Home::new();
    let bin = Bin::new(&home);
    let answer = r#"{"dcs":1,"instances":[{"stage":"acme"}],"targets":[{"stage":"master","port":6666,"tls":false,"managers":[]}]}"#;
    let acme = saying(FULL, answer).replace("odd", "acme");
    bin.put("devcluster-acme", &acme);
    let stages = "  - acme: {}\n  - tunnel: {reverse_proxy_host: proxy}\n  - config-emit: {}\n  - master: {config_file: {port: 8088, resource_manager: {type: kubernetes}}}\n";
    let (ok, text) = compile(&home, &bin.path(), stages).await;
    assert!(ok && text.contains("--local-port=8088"), "{text}");
}

#[tokio::test]
async fn status_gc_and_completions_run_no_program_of_another_project() {
    let home = Home::new();
    let bin = Bin::new(&home);
    bin.put("devcluster-odd", &saying(FULL, ""));
    let file = file(&home, "  - odd: {}\n");
    let file = file.to_str().expect("text");
    for args in [
        &["status", "-c", file][..],
        &["gc", "--dry-run", "-c", file],
        &["gc", "-c", file],
        &["completions", "bash"],
    ] {
        let output = output(&home, &bin.path(), args).await;
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!home.path().join("called").exists(), "{args:?}");
    }
}
