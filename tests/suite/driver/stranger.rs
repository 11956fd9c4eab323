//! A full stage of another project: listed by its kind, run from `$PATH`, and supported by every verb of the driver.

mod trust;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use support::devcluster::python_program;
use support::{DEADLINE, Home, bin};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// The reference stage under another name, with other fields and a rule.
const HELLO: &str = r#"#!/usr/bin/env python3
import importlib.util, sys
sys.dont_write_bytecode = True
spec = importlib.util.spec_from_file_location("stage", "REFERENCE")
stage = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stage)
stage.KIND, stage.__doc__ = "hello", "Greets everyone. Politely."
stage.FIELDS = {"value": {"type": "string"}, "times": {"type": "string", "pattern": "^[0-9]+$"}, "least": {"type": "integer"}}
stage.rules = lambda config, unknown: [("/times", "has to be a multiple of `value`")] if "times" in config and "value" in config and not {"/times", "/value"} & set(unknown) else []
sys.exit(stage.main())
"#;

/// A directory for programs, first on `$PATH`.
struct Bin(PathBuf);

impl Bin {
    fn new(home: &Home) -> Bin {
        let dir = home.path().join("bin");
        std::fs::create_dir(&dir).expect("cannot make a directory");
        Bin(dir)
    }

    fn with_hello(home: &Home) -> Bin {
        let bin = Bin::new(home);
        let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/stage.py");
        bin.put(
            "devcluster-hello",
            &HELLO.replace("REFERENCE", &reference.display().to_string()),
        );
        bin
    }

    fn put(&self, name: &str, script: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, script).expect("cannot write");
        set_mode(&path, 0o755);
        path
    }

    fn path(&self) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        format!("{}:{path}", self.0.display())
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("cannot chmod");
}

fn file(home: &Home, stages: &str) -> PathBuf {
    let path = home.path().join("devcluster.yaml");
    let temp_dir = home.path().join("devcluster");
    let text = format!("temp_dir: {}\nstages:\n{stages}", temp_dir.display());
    std::fs::write(&path, text).expect("cannot write");
    path
}

fn remote(home: &Home, path: &str, args: &[&str]) -> Command {
    let mut command = home.command(&bin("devcluster-remote"));
    command
        .args(args)
        .env("PATH", path)
        .env("DEVCLUSTER", python_program("DEVCLUSTER", "devcluster"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn output(home: &Home, path: &str, args: &[&str]) -> Output {
    let mut command = remote(home, path, args);
    let output = tokio::time::timeout(DEADLINE, command.output()).await;
    output.expect("no end").expect("no start")
}

async fn compile(home: &Home, path: &str, stages: &str) -> (bool, String) {
    let file = file(home, stages);
    let output = output(home, path, &["compile", "-c", file.to_str().expect("text")]).await;
    let both = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&both).into_owned(),
    )
}

const GREETED: &str = "  - hello: {value: hi}
  - custom: {name: greeted, cmd: [sh, -c, 'exec sleep 600', '${{ hello.value }}']}
";

#[tokio::test]
async fn it_is_listed_by_its_kind_and_referred_to() {
    let home = Home::new();
    let bin = Bin::with_hello(&home);
    let (ok, text) = compile(&home, &bin.path(), GREETED).await;
    assert!(ok, "{text}");
    let program = bin.0.join("devcluster-hello").display().to_string();
    assert!(text.contains(&program), "{text}");
    let (ok, text) = compile(
        &home,
        &bin.path(),
        &GREETED.replace("hello.value", "hello.valeu"),
    )
    .await;
    assert!(!ok && text.contains("did you mean `hello.value`"), "{text}");
}

#[tokio::test]
async fn a_file_without_a_master_follows_its_changes() {
    let home = Home::new();
    let bin = Bin::with_hello(&home);
    let stages = format!("  - config-emit: {{}}\n{GREETED}");
    let (ok, text) = compile(&home, &bin.path(), &stages).await;
    assert!(ok, "{text}");
    assert!(text.contains("--upstreams=[\"hello\"]"), "{text}");
    assert!(
        text.contains("/sock") && !text.contains("--base="),
        "{text}"
    );
    let (ok, text) = compile(&home, &bin.path(), "  - config-emit: {}\n  - hello: {}\n").await;
    assert!(!ok && text.contains("no command that refers to"), "{text}");
}

#[tokio::test]
async fn mistakes_are_shown_at_the_users_line() {
    let home = Home::new();
    let bin = Bin::with_hello(&home);
    let stages = "  - hello:\n      value: a\n      times: '7'\n      least: many\n";
    let (ok, text) = compile(&home, &bin.path(), stages).await;
    assert!(!ok, "{text}");
    for (place, expected) in [
        (
            "devcluster.yaml:5:14",
            "stages[0].hello.times: has to be a multiple of `value`",
        ),
        ("devcluster.yaml:6:14", "stages[0].hello.least: "),
    ] {
        assert!(
            text.contains(expected) && text.contains(place) && text.contains("^"),
            "{text}"
        );
    }
    // An unknown value is not a mistake.
    let stages = "  - hello: {value: $A, times: '${B}', least: $C}\n";
    let (ok, text) = compile(&home, &bin.path(), stages).await;
    assert!(ok, "{text}");
}

#[tokio::test]
async fn doctor_status_gc_and_schema_know_it() {
    let home = Home::new();
    let bin = Bin::with_hello(&home);
    let path = bin.path();
    let file = file(&home, "  - hello: {value: hi}\n");
    let file = file.to_str().expect("text");
    let report = output(&home, &path, &["doctor", "-c", file]).await;
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(
        report.contains("a port is available") && report.contains("devcluster-hello"),
        "{report}"
    );

    let schema = output(&home, &path, &["schema"]).await;
    let schema: Value = serde_json::from_slice(&schema.stdout).expect("JSON");
    assert_eq!(
        schema["definitions"]["hello"]["properties"]["times"]["type"],
        "string"
    );

    let mut up = remote(&home, &path, &["up", "-c", file])
        .stderr(Stdio::piped())
        .spawn()
        .expect("no driver");
    let stderr = up.stderr.take().expect("a pipe");
    let mut said = BufReader::new(stderr).lines();
    let is_up = async {
        while let Ok(Some(line)) = said.next_line().await {
            if line.contains("devcluster is up") {
                return;
            }
        }
        panic!("it ended before it was up");
    };
    tokio::time::timeout(DEADLINE, is_up).await.expect("not up");
    let run_dir = home.path().join("devcluster/stages");
    let run_dir = run_dir.to_str().expect("text");
    let status = output(
        &home,
        &path,
        &["status", "--format", "json", "--run-dir", run_dir],
    )
    .await;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        status.contains("\"hello\"") && status.contains("\"ready\""),
        "{status}"
    );
    let pid = rustix::process::Pid::from_raw(up.id().expect("a pid") as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("cannot signal");
    let rest = async { while let Ok(Some(_)) = said.next_line().await {} };
    let (ended, ()) = tokio::time::timeout(DEADLINE, async { tokio::join!(up.wait(), rest) })
        .await
        .expect("no end");
    let ended = ended.expect("no status");
    assert!(ended.success(), "{ended}");
    let swept = output(&home, &path, &["gc"]).await;
    assert!(
        swept.status.success(),
        "{}",
        String::from_utf8_lossy(&swept.stderr)
    );
}

#[tokio::test]
async fn an_unknown_value_hides_no_mistake_that_does_not_depend_on_it() {
    let home = Home::new();
    let path = std::env::var("PATH").unwrap_or_default();
    for (body, expected) in [
        (
            "tunnel: {reverse_proxy_host: h, ssh_usr: $USER}",
            "ssh_usr: unknown field",
        ),
        (
            "tunnel: {reverse_proxy_host: h, forwards: [{local_prot: $X, local_port: 1}]}",
            "local_prot",
        ),
        (
            "tunnel: {reverse_proxy_host: h, ssh_port: [$X]}",
            "tunnel.ssh_port: expected",
        ),
        (
            "tunnel: {reverse_proxy_host: {a: $X}}",
            "tunnel.reverse_proxy_host: expected",
        ),
        ("gateway: {k8s_contxt: $C}", "k8s_contxt: unknown field"),
    ] {
        let (ok, text) = compile(&home, &path, &format!("  - {body}\n")).await;
        assert!(!ok && text.contains(expected), "{body}: {text}");
    }
    let fine = "  - tunnel: {reverse_proxy_host: $H, ssh_port: $P, remote_port_range: [8000, $E], forwards: [{local_port: $L}]}\n";
    let (ok, text) = compile(&home, &path, fine).await;
    assert!(ok, "{text}");
}

#[tokio::test]
async fn the_tunnel_leads_to_the_masters_port_also_without_a_config_emit() {
    let home = Home::new();
    let path = std::env::var("PATH").unwrap_or_default();
    let stages = "  - tunnel: {reverse_proxy_host: h}\n  - master: {config_file: {port: 9090}}\n";
    let (ok, text) = compile(&home, &path, stages).await;
    assert!(ok && text.contains("--local-port=9090"), "{text}");
}
