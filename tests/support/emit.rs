//! devcluster-config-emit under test: instances that stand before it, and calls of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use protocol::files;
use protocol::message::Outputs;
use protocol::rundir::{Lock, OutputsFile, RunDir};
use serde_json::{Map, Value, json};
use tokio::process::Command;

use crate::{DEADLINE, Home, StageClient, bin};

/// A file as people have it.
pub const DEVCLUSTER: &str = r#"# How we start at our desks.
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

/// What it becomes with [`tunnel_outputs`] at port 8003 and [`gateway_outputs`].
pub const RENDERED: &str = r#"# How we start at our desks.
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

pub fn tunnel_outputs(port: u16) -> Value {
    json!({
        "host": "proxy.example.com", "port": port, "scheme": "http", "ssh_host": "proxy.example.com",
        "local_port": 8080, "verified": "origin",
    })
}

pub fn gateway_outputs() -> Value {
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
pub struct Upstream {
    run_dir: RunDir,
    name: String,
    kind: String,
    _lock: Lock,
}

impl Upstream {
    pub async fn ready(home: &Home, name: &str, kind: &str, outputs: Value) -> Upstream {
        Upstream::ready_in(&home.run_dir(), name, kind, outputs).await
    }

    /// The same in another run directory.
    pub async fn ready_in(run_dir: &Path, name: &str, kind: &str, outputs: Value) -> Upstream {
        let run_dir = RunDir::open(run_dir).expect("a run directory");
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

    pub fn report(&self, generation: u64, outputs: Value) {
        let Value::Object(outputs) = outputs else {
            panic!("outputs are a mapping");
        };
        let file = OutputsFile {
            dcs: 1,
            reported: Outputs {
                stage: self.name.clone(),
                kind: self.kind.clone(),
                run: "1a2b".into(),
                generation,
                provides: provides(&self.kind),
                outputs,
            },
            secrets: Map::new(),
            prev: None,
        };
        let bytes = serde_json::to_vec(&file).expect("JSON");
        let path = self.run_dir.outputs_path(&self.name);
        files::replace(&path, &bytes, true).expect("outputs are written");
    }
}

/// What the outputs of the real ones mean.
pub fn provides(kind: &str) -> Map<String, Value> {
    let provides = match kind {
        "tunnel" => json!({"determined.master_address": {"host": "/host", "port": "/port"}}),
        "gateway" => json!({
            "determined.task_gateway": "/internal_task_gateway",
            "kubeconfig": "/kubeconfig_path",
        }),
        _ => json!({}),
    };
    provides.as_object().cloned().unwrap_or_default()
}

pub async fn tunnel_and_gateway(home: &Home) -> [Upstream; 2] {
    [
        Upstream::ready(home, "tunnel", "tunnel", tunnel_outputs(8003)).await,
        Upstream::ready(home, "gateway", "gateway", gateway_outputs()).await,
    ]
}

pub fn write(home: &Home, name: &str, text: &str) -> PathBuf {
    let path = home.path().join(name);
    std::fs::write(&path, text).expect("a file is written");
    path
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// `devcluster-config-emit <verb> --base … --out …`
pub fn command(home: &Home, verb: &str, base: &Path, out: &Path) -> Command {
    let mut command = home.command(&bin("devcluster-config-emit"));
    command.arg(verb).arg("--run-dir").arg(home.run_dir());
    command.arg("--base").arg(base).arg("--out").arg(out);
    command.args(["--events", "all"]).stdin(Stdio::null());
    command
}

/// Runs it to its end, and returns the exit code and what it wrote for people.
pub async fn finish(mut command: Command) -> (Option<i32>, String) {
    command.kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output()).await;
    let output = output.expect("it does not end").expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), stderr)
}

pub async fn once(home: &Home, base: &Path, out: &Path) {
    let (code, stderr) = finish(command(home, "once", base, out)).await;
    assert_eq!(code, Some(0), "{stderr}");
}

/// Fails, with this code and exit code, says these words, and writes nothing.
pub async fn assert_refused(home: &Home, base: &str, code: &str, exit: i32, says: &[&str]) {
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
    assert!(error["hint"].is_string(), "no hint: {error:#}");
    assert!(!out.exists(), "{}", read(&out));
}
