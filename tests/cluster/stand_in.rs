//! The stand-in for Determined's master, started by a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};

use serde_json::{Value, json};
use support::bed::{self, Bed, eventually};
use support::build_dir;

/// A stand-in on the laptop, with a database of its own.
pub(crate) struct Master<'a> {
    bed: &'a Bed,
    pub(crate) dir: PathBuf,
    port: u16,
    /// None if `up` has started it.
    child: Option<Child>,
}

impl<'a> Master<'a> {
    /// Starts it with this port, task namespace and `internal_task_gateway`.
    pub(crate) fn start(
        bed: &'a Bed,
        dir: &Path,
        port: u16,
        namespace: &str,
        gateway: &Value,
    ) -> Master<'a> {
        let mut config = config(dir, bed.text("/kubeconfig"), gateway);
        let manager = json!({
            "default_namespace": namespace,
            "determined_master_host": bed.text("/addresses/ssh"), "determined_master_port": 8000,
        });
        merge(
            &mut config,
            &json!({"port": port, "resource_manager": manager}),
        );
        fs::write(dir.join("master.yaml"), config.to_string()).expect("cannot write");
        drop(fs::remove_file(dir.join("requests")));
        let log = fs::File::create(dir.join("log"));
        let child = bed
            .on("laptop", build_dir().join("bed/determined-master"))
            .arg("-config-file")
            .arg(dir.join("master.yaml"))
            .arg("-database")
            .arg(dir.join("database"))
            .arg("-requests")
            .arg(dir.join("requests"))
            .stderr(log.expect("cannot make a log"))
            .spawn()
            .expect("cannot start the master");
        let dir = dir.to_owned();
        let master = Master {
            bed,
            dir,
            port,
            child: Some(child),
        };
        eventually("the master answers", || master.answers());
        master
    }

    /// The one that `up` starts.
    pub(crate) fn of_up(bed: &'a Bed, dir: &Path, port: u16) -> Master<'a> {
        let (dir, child) = (dir.to_owned(), None);
        Master {
            bed,
            dir,
            port,
            child,
        }
    }

    pub(crate) fn answers(&self) -> bool {
        self.try_ask("GET", "master", &json!(null)).is_some()
    }

    pub(crate) fn try_ask(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let mut curl = self.bed.on("laptop", "curl");
        curl.args(["-sf", "-X", method, "-d", &body.to_string()]);
        curl.arg(format!("http://127.0.0.1:{}/api/v1/{path}", self.port));
        let done = curl.stderr(Stdio::null()).output().expect("no curl");
        let succeeded = done.status.success();
        succeeded.then(|| serde_json::from_slice(&done.stdout).unwrap_or_default())
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_ask(method, path, body)
            .unwrap_or_else(|| panic!("{method} {path} is refused: {}", self.log()))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub(crate) fn launch(&self, command: &str, ports: &[u16], workspace: &str) -> String {
        let task = json!({
            "kind": "COMMAND", "command": command, "image": "bed.invalid/busybox:1", "ports": ports, "workspace": workspace,
        });
        let id = self.ask("POST", "commands", &task)["id"].clone();
        id.as_str().expect("no id").to_owned()
    }

    pub(crate) fn wait_for(&self, id: &str, state: &str) {
        eventually(&format!("{id} is {state}: {}", self.log()), || {
            let task = self.try_ask("GET", &format!("commands/{id}"), &json!(null));
            task.is_some_and(|task| task["state"] == state)
        });
    }

    /// Waits until this run has restored a task of the previous one, whose state is RUNNING before that, too.
    pub(crate) fn wait_for_restore(&self, id: &str) {
        let line = format!("restored {id}");
        eventually(&line, || self.log().contains(&line));
    }

    /// What the task's container has sent.
    pub(crate) fn lines(&self, id: &str) -> usize {
        let task = self.ask("GET", &format!("commands/{id}"), &json!(null));
        task["logs"].as_array().map_or(0, Vec::len)
    }

    /// Whether a page of the task is served through the master and the Gateway.
    pub(crate) fn shows(&self, id: &str, port: u16) -> bool {
        let mut curl = self.bed.on("laptop", "curl");
        let url = format!("http://127.0.0.1:{}/proxy/{id}/{port}/", self.port);
        curl.args(["-sf", "-m", "5", "-o", "/dev/null", &url]);
        curl.status().expect("no curl").success()
    }

    pub(crate) fn kill_task(&self, id: &str) {
        self.ask("POST", &format!("commands/{id}/kill"), &json!(null));
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(mut self) {
        let child = self.child.as_mut().expect("it is of `up`");
        child.kill().expect("cannot kill the master");
        child.wait().expect("cannot wait");
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it is of `up`");
        child.wait().expect("cannot wait for the master")
    }
}

/// Configurations that a real master refuses, by what differs from one that it takes, and the stand-in's words.
const REFUSED: [(&str, &str); 19] = [
    (r#"{"typo": 1}"#, "typo"),
    (r#"{"security": {"typo": 1}}"#, "security.typo"),
    (r#"{"security": {"tls": {"cert": "c.pem"}}}"#, "together"),
    (r#"{"log": {"level": "loud"}}"#, "log level"),
    (
        r#"{"checkpoint_storage": {"type": "tape"}}"#,
        "storage type",
    ),
    (
        r#"{"cache": {"cache_dir": "/proc/cache"}}"#,
        "cache directory",
    ),
    (r#"{"resource_pools": [{"pool_name": ""}]}"#, "pool name"),
    (
        r#"{"resource_pools": [{"pool_name": "a"}, {"pool_name": "a"}]}"#,
        "pool name",
    ),
    (
        r#"{"additional_resource_managers": [{"resource_manager": {"type": "kubernetes"}}]}"#,
        "needs a resource pool",
    ),
    (
        r#"{"resource_manager": {"typo": 1}}"#,
        "resource_manager.typo",
    ),
    (
        r#"{"resource_manager": {"max_slots_per_pod": null}}"#,
        "max_slots_per_pod",
    ),
    (r#"{"resource_manager": {"slot_type": "tpu"}}"#, "slot_type"),
    (
        r#"{"resource_manager": {"slot_resource_requests": null}}"#,
        "slot_resource_requests.cpu",
    ),
    (
        r#"{"resource_manager": {"default_scheduler": "x"}}"#,
        "default_scheduler",
    ),
    (
        r#"{"resource_manager": {"internal_task_gateway": {"typo": 1}}}"#,
        "typo",
    ),
    (
        r#"{"resource_manager": {"internal_task_gateway": {"gateway_name": "-x"}}}"#,
        "invalid name",
    ),
    (
        r#"{"resource_manager": {"internal_task_gateway": {"gateway_ip": ""}}}"#,
        "gateway_ip",
    ),
    (
        r#"{"resource_manager": {"internal_task_gateway": {"gateway_port_range_start": 80}}}"#,
        "1025",
    ),
    (
        r#"{"resource_manager": {"internal_task_gateway": {"gateway_port_range_end": 20000}}}"#,
        "less than",
    ),
];

/// What it says to a configuration, and how it ends.
fn refusal(dir: &Path, config: &Value) -> (Option<i32>, String) {
    fs::write(dir.join("master.yaml"), config.to_string()).expect("cannot write");
    let ended = std::process::Command::new(build_dir().join("bed/determined-master"))
        .arg("-config-file")
        .arg(dir.join("master.yaml"))
        .arg("-database")
        .arg(dir.join("database"))
        .output()
        .expect("cannot start the master");
    (
        ended.status.code(),
        String::from_utf8_lossy(&ended.stderr).into_owned(),
    )
}

/// A config that a master accepts.
fn config(dir: &Path, kubeconfig: &str, gateway: &Value) -> Value {
    json!({
        "cache": {"cache_dir": dir.join("cache")},
        "resource_manager": {
            "type": "kubernetes", "max_slots_per_pod": 1, "slot_type": "cpu", "slot_resource_requests": {"cpu": 0.25},
            "kubeconfig_path": kubeconfig, "internal_task_gateway": gateway,
        },
    })
}

fn merge(into: &mut Value, what: &Value) {
    match (into, what) {
        (Value::Object(fields), Value::Object(more)) => {
            for (name, value) in more {
                merge(fields.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, what) => *into = what.clone(),
    }
}

#[test]
fn it_refuses_what_a_real_master_refuses() {
    if bed::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().expect("no temporary directory");
    let gateway = json!({
        "gateway_name": "det", "gateway_namespace": "gw", "gateway_ip": "10.0.0.1",
        "gateway_port_range_start": 20000, "gateway_port_range_end": 20009,
    });
    let accepted = config(dir.path(), "/dev/null", &gateway);
    // As far as to the kubeconfig, which is read last.
    let (code, said) = refusal(dir.path(), &accepted);
    assert!(
        code == Some(1) && said.contains("no configuration"),
        "{said}"
    );
    for (difference, expected) in REFUSED {
        let mut config = accepted.clone();
        merge(
            &mut config,
            &serde_json::from_str(difference).expect("JSON"),
        );
        let (code, said) = refusal(dir.path(), &config);
        assert!(
            code == Some(1) && said.contains(expected),
            "{difference}: {said}"
        );
    }
}

impl Drop for Master<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
