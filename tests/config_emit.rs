//! devcluster-config-emit from end to end: a run directory or a pipe on one side, a file on the other.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use protocol::files;
use protocol::rundir::{Lock, OutputsFile, RunDir};
use rustix::process::Signal;
use serde_json::{Map, Value, json};
use support::{DEADLINE, Home, StageClient, bin};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Spread over the life of one run.
const KILLS: u32 = 90;

const DEVCLUSTER: &str = r#"# How we start at our desks.
startup_input: "p"
stages:
  - db: {port: 5432}   # postgres

  # The master itself.
  - master:
      pre: [{sh: make}]
      config_file:
        log: { level: debug }   # noisy
        resource_manager:
          type: kubernetes   # in the cloud
          max_slots_per_pod: 0x4
          # found out by the stages
          determined_master_host: 10.0.0.1
          internal_task_gateway: {gateway_name: old, gateway_port_range_end: 50000}
  - agent: {}
"#;

const RENDERED: &str = r#"# How we start at our desks.
startup_input: "p"
stages:
  - db: {port: 5432}   # postgres

  # The master itself.
  - master:
      pre: [{sh: make}]
      config_file:
        log: { level: debug }   # noisy
        resource_manager:
          type: kubernetes   # in the cloud
          max_slots_per_pod: 0x4
          # found out by the stages
          determined_master_host: proxy.example.com
          internal_task_gateway: {gateway_name: tcp, gateway_port_range_end: 50000, gateway_namespace: default, gateway_ip: 10.1.2.3, gateway_port_range_start: 40000}
          determined_master_port: 8003
          kubeconfig_path: /run/stages/gateway.kubeconfig
  - agent: {}
"#;

fn tunnel_outputs(port: u16) -> Value {
    json!({
        "host": "proxy.example.com", "port": port, "scheme": "http", "ssh_host": "proxy.example.com",
        "local_port": 8080, "verified": "origin",
    })
}

fn gateway_outputs() -> Value {
    json!({
        "internal_task_gateway": {
            "gateway_name": "tcp", "gateway_namespace": "default", "gateway_ip": "10.1.2.3",
            "gateway_port_range_start": 40000,
        },
        "kubeconfig_path": "/run/stages/gateway.kubeconfig", "context": "gke", "controller": null,
        "capacity": 64, "provisioned": false,
    })
}

/// An instance that is alive in the run directory for as long as this lives.
struct Upstream {
    run_dir: RunDir,
    name: String,
    kind: String,
    _lock: Lock,
}

impl Upstream {
    async fn ready(home: &Home, name: &str, kind: &str, outputs: Value) -> Upstream {
        let run_dir = RunDir::open(&home.run_dir()).expect("a run directory");
        let lock = run_dir.lock(name, "1a2b").await.expect("a free lock");
        let upstream = Upstream {
            run_dir,
            name: name.into(),
            kind: kind.into(),
            _lock: lock,
        };
        upstream.report(1, outputs);
        upstream
    }

    fn report(&self, generation: u64, outputs: Value) {
        let Value::Object(outputs) = outputs else {
            panic!("outputs are a mapping");
        };
        let file = OutputsFile {
            dcs: 1,
            stage: self.name.clone(),
            kind: self.kind.clone(),
            run: "1a2b".into(),
            generation,
            outputs,
            secrets: Map::new(),
            prev: None,
        };
        let bytes = serde_json::to_vec(&file).expect("JSON");
        let path = self.run_dir.outputs_path(&self.name);
        files::replace(&path, &bytes, true).expect("outputs are written");
    }
}

async fn tunnel_and_gateway(home: &Home) -> [Upstream; 2] {
    [
        Upstream::ready(home, "tunnel", "tunnel", tunnel_outputs(8003)).await,
        Upstream::ready(home, "gateway", "gateway", gateway_outputs()).await,
    ]
}

fn write(home: &Home, name: &str, text: &str) -> PathBuf {
    let path = home.path().join(name);
    std::fs::write(&path, text).expect("a file is written");
    path
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// `devcluster-config-emit <verb> --base … --out …`
fn command(home: &Home, verb: &str, base: &Path, out: &Path) -> Command {
    let mut command = home.command(&bin("devcluster-config-emit"));
    command.arg(verb).arg("--run-dir").arg(home.run_dir());
    command.arg("--base").arg(base).arg("--out").arg(out);
    command.args(["--events", "all"]).stdin(Stdio::null());
    command
}

/// Runs it to its end, and returns the exit code and what it wrote for people.
async fn finish(command: Command) -> (Option<i32>, String) {
    let mut stage = StageClient::start(command);
    let (status, _) = stage.wait().await;
    (status.code(), stage.stderr())
}

async fn once(home: &Home, base: &Path, out: &Path) {
    let (code, stderr) = finish(command(home, "once", base, out)).await;
    assert_eq!(code, Some(0), "{stderr}");
}

/// Fails, with this code and exit code, says these words, and writes nothing.
async fn assert_refused(home: &Home, base: &str, code: &str, exit: i32, says: &[&str]) {
    let (base, out) = (write(home, "base.yaml", base), home.path().join("out.yaml"));
    let mut stage = StageClient::start(command(home, "once", &base, &out));
    let error = stage.wait_for("error").await["error"].clone();
    let (status, _) = stage.wait().await;
    assert_eq!(
        (error["code"].as_str(), status.code()),
        (Some(code), Some(exit)),
        "{error:#}"
    );
    for words in says {
        assert!(
            error.to_string().contains(words),
            "no {words:?} in {error:#}"
        );
    }
    assert!(error["hint"].is_string(), "no mend: {error:#}");
    assert!(!out.exists(), "{}", read(&out));
}

#[tokio::test]
async fn a_devcluster_yaml_gets_the_values_and_keeps_every_other_byte() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    once(&home, &base, &out).await;
    assert_eq!(read(&out), RENDERED, "{}", read(&out));
    assert_eq!(read(&base), DEVCLUSTER);
    let mode = out.metadata().expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // What was rendered renders to itself.
    let again = home.path().join("again.yaml");
    once(&home, &out, &again).await;
    assert_eq!(read(&again), RENDERED);
}

#[tokio::test]
async fn the_conf_that_devcluster_wrote_is_read_and_left_alone() {
    let home = Home::new();
    let _tunnel = Upstream::ready(&home, "tunnel", "tunnel", tunnel_outputs(8003)).await;
    let conf =
        "db: {host: localhost}\nresource_manager: {max_slots_per_pod: 1, type: kubernetes}\n";
    let (base, out) = (
        write(&home, "master.conf", conf),
        home.path().join("master.yaml"),
    );
    std::fs::set_permissions(&base, PermissionsExt::from_mode(0o400)).expect("read-only");
    once(&home, &base, &out).await;
    let expected = conf.replace(
        "kubernetes}",
        "kubernetes, determined_master_host: proxy.example.com, determined_master_port: 8003}",
    );
    assert_eq!((read(&base).as_str(), read(&out)), (conf, expected));
}

#[tokio::test]
async fn without_a_tunnel_the_masters_address_stays_as_it_is() {
    let home = Home::new();
    let _gateway = Upstream::ready(&home, "gateway", "gateway", gateway_outputs()).await;
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    once(&home, &base, &out).await;
    let text = read(&out);
    assert!(text.contains("determined_master_host: 10.0.0.1"), "{text}");
    assert!(!text.contains("determined_master_port"), "{text}");
}

#[tokio::test]
async fn the_kind_says_whose_values_they_are_and_names_are_free() {
    let home = Home::new();
    let _a = Upstream::ready(&home, "gateway", "tunnel", tunnel_outputs(8003)).await;
    let _b = Upstream::ready(&home, "east", "gateway", gateway_outputs()).await;
    let _c = Upstream::ready(
        &home,
        "vpn",
        "plugin",
        json!({"host": "10.9.9.9", "port": 1}),
    )
    .await;
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    once(&home, &base, &out).await;
    assert_eq!(read(&out), RENDERED);
}

#[tokio::test]
async fn a_base_that_cannot_serve_is_refused_with_file_and_line() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let no_master = "stages:\n  - db: {}\n  - master: {name: other}\n";
    assert_refused(
        &home,
        no_master,
        "config_emit.no_master_stage",
        2,
        &["base.yaml:1:1", "`master`"],
    )
    .await;
    let agents = "stages:\n  - master:\n      config_file:\n        resource_manager:\n          type: agent\n";
    assert_refused(
        &home,
        agents,
        "config_emit.no_kubernetes",
        2,
        &["base.yaml:5:17"],
    )
    .await;
    assert_refused(
        &home,
        "log: {}\n",
        "config_emit.no_kubernetes",
        2,
        &["base.yaml:1:1"],
    )
    .await;
    let broken = "stages:\n  - master: {a: b\n";
    assert_refused(
        &home,
        broken,
        "config_emit.base_not_yaml",
        2,
        &["base.yaml:"],
    )
    .await;
    let twins = "a: 1\nb: 2\na: 3\n";
    assert_refused(
        &home,
        twins,
        "config_emit.base_not_yaml",
        2,
        &["base.yaml:3:1", "twice"],
    )
    .await;
    assert_refused(
        &home,
        "- 1\n",
        "config_emit.base_not_config",
        2,
        &["base.yaml:1:1"],
    )
    .await;
}

#[tokio::test]
async fn what_determined_would_refuse_is_refused_with_its_line() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let below = DEVCLUSTER.replace(
        "gateway_port_range_end: 50000",
        "gateway_port_range_end: 39999",
    );
    let says = [
        "base.yaml:16:",
        "gateway_port_range_start",
        "40000 must be below",
        "39999",
    ];
    assert_refused(&home, &below, "config_emit.refused", 2, &says).await;
    let unknown = DEVCLUSTER.replace("gateway_port_range_end", "gateway_prot");
    assert_refused(
        &home,
        &unknown,
        "config_emit.refused",
        2,
        &["base.yaml:16:54", "gateway_prot: unknown"],
    )
    .await;
}

#[tokio::test]
async fn two_upstreams_of_a_kind_have_to_be_told_apart() {
    let home = Home::new();
    let _a = Upstream::ready(&home, "east", "tunnel", tunnel_outputs(1)).await;
    let _b = Upstream::ready(&home, "west", "tunnel", tunnel_outputs(8003)).await;
    assert_refused(
        &home,
        DEVCLUSTER,
        "config_emit.ambiguous_upstream",
        2,
        &["east, west"],
    )
    .await;
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    let mut west = command(&home, "once", &base, &out);
    west.args(["--upstreams", r#"["west"]"#]);
    // The base leaves the gateway to Determined, which would refuse it.
    assert_eq!(finish(west).await.0, Some(2));
    std::fs::write(&base, DEVCLUSTER.replace("internal_task_gateway", "# ")).expect("written");
    let mut west = command(&home, "once", &base, &out);
    west.args(["--upstreams", r#"["west"]"#]);
    let (code, stderr) = finish(west).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        read(&out).contains("determined_master_port: 8003"),
        "{}",
        read(&out)
    );
}

#[tokio::test]
async fn nobody_upstream_and_wrong_outputs_are_the_upstreams_fault() {
    let home = Home::new();
    assert_refused(
        &home,
        DEVCLUSTER,
        "config_emit.no_upstream",
        4,
        &["nobody runs in"],
    )
    .await;
    let _tunnel =
        Upstream::ready(&home, "tunnel", "tunnel", json!({"host": "h", "port": "x"})).await;
    assert_refused(
        &home,
        DEVCLUSTER,
        "config_emit.bad_outputs",
        4,
        &["tunnel", "port"],
    )
    .await;
}

#[tokio::test]
async fn the_base_is_never_the_result() {
    let home = Home::new();
    let base = write(&home, "base.yaml", DEVCLUSTER);
    symlink(&base, home.path().join("link")).expect("a link");
    for out in ["base.yaml", "link", "./base.yaml"] {
        let (code, stderr) = finish(command(&home, "once", &base, &home.path().join(out))).await;
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("out: is the base itself"), "{stderr}");
    }
    assert_eq!(read(&base), DEVCLUSTER);
}

#[tokio::test]
async fn a_link_in_the_place_of_the_result_is_replaced_not_followed() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    let victim = write(&home, "victim", "mine");
    symlink(&victim, &out).expect("a link");
    once(&home, &base, &out).await;
    assert_eq!(
        (read(&victim).as_str(), read(&out).as_str()),
        ("mine", RENDERED)
    );
    assert!(!out.symlink_metadata().expect("metadata").is_symlink());
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_named() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let base = write(&home, "base.yaml", DEVCLUSTER);
    let mut stage = StageClient::start(command(
        &home,
        "once",
        &base,
        &home.path().join("no/out.yaml"),
    ));
    let error = stage.wait_for("error").await["error"].clone();
    assert_eq!(error["code"], "config_emit.cannot_write");
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|m| m.contains("no/out.yaml")),
        "{error}"
    );
    assert_eq!(stage.wait().await.0.code(), Some(1));
}

#[tokio::test]
async fn on_stdout_there_is_the_document_alone_and_the_diff_is_for_people() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let base = write(&home, "base.yaml", DEVCLUSTER);
    let mut command = home.command(&bin("devcluster-config-emit"));
    command
        .args(["once", "--out", "-", "--diff"])
        .arg("--run-dir")
        .arg(home.run_dir());
    command.arg("--base").arg(&base).stdin(Stdio::null());
    let output = command.output().await.expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        RENDERED,
        "{stderr}"
    );
    for line in [
        "--- ",
        "-          determined_master_host: 10.0.0.1",
        "+          determined_master_port: 8003",
    ] {
        assert!(stderr.contains(line), "no {line:?} in\n{stderr}");
    }
    assert!(
        !stderr.contains("startup_input"),
        "more than the context\n{stderr}"
    );
}

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
    let (status, took) = stage.wait().await;
    assert_eq!(status.code(), Some(0), "{}", stage.stderr());
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[tokio::test]
async fn outputs_that_can_no_longer_be_used_degrade_it_until_they_can() {
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

/// The lines of an upstream, as they come over a pipe.
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
            json!({"kind": kind, "gen": 1, "outputs": outputs}),
        ),
        envelope("ready", json!({"gen": 1})),
        String::new(),
    ]
    .join("\n")
}

#[tokio::test]
async fn in_a_pipeline_the_command_runs_when_all_is_written_and_its_code_is_ours() {
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
    // Both say hello before the first is ready, as in a real pipe.
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
async fn a_pipe_that_ends_early_or_fails_starts_no_command() {
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
async fn killed_at_any_point_it_leaves_no_half_of_a_file_and_the_next_run_works() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    let old = "# of a run before\n";
    // The first run also builds the binary. The shortest of the others is the life without waiting for a busy machine.
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
        // The delay is the point of it: it walks over the life of the process, finer than tokio's milliseconds.
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
    // Else the sweep missed the process and has shown nothing.
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

#[tokio::test]
async fn describe_and_help_name_every_field() {
    let home = Home::new();
    let describe = home
        .command(&bin("devcluster-config-emit"))
        .arg("describe")
        .output();
    let described = describe.await.expect("it runs");
    let value: Value = serde_json::from_slice(&described.stdout).expect("JSON");
    assert_eq!(value["kind"], "config-emit", "{value:#}");
    let help = home
        .command(&bin("devcluster-config-emit"))
        .args(["run", "--help"])
        .output();
    let help = String::from_utf8(help.await.expect("it runs").stdout).expect("text");
    for flag in ["--base", "--out", "--upstreams", "--stage", "--diff"] {
        assert!(help.contains(flag), "no {flag} in\n{help}");
    }
}
