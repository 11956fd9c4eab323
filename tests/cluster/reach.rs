//! The product on the cluster: pods reach a listener on the laptop through the tunnel.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::bed::{self, Bed};
use support::bin;

/// A stage on the laptop, in a run directory.
struct Stage(Child, BufReader<std::process::ChildStdout>);

impl Stage {
    fn start(bed: &Bed, kind: &str, run_dir: &Path, args: &[&str]) -> Stage {
        let mut stage = bed
            .on("laptop", bin(&format!("devcluster-{kind}")))
            .args(["run", "--events", "all", "--run-dir"])
            .arg(run_dir)
            .args(args)
            .env("HOME", run_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cannot start the stage");
        let lines = BufReader::new(stage.stdout.take().expect("no stdout"));
        Stage(stage, lines)
    }

    /// The next message of that type.
    fn wait_for(&mut self, kind: &str) -> Value {
        let mut line = String::new();
        while self.1.read_line(&mut line).expect("cannot read") > 0 {
            let message: Value = serde_json::from_str(&line).expect("no JSON");
            if message["type"] == kind {
                return message;
            }
            line.clear();
        }
        panic!("the stage ended without {kind}");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).ok();
        drop(self.0.wait());
    }
}

#[test]
fn a_pod_reaches_the_laptop_through_the_tunnel_and_again_after_an_outage() {
    if bed::is_missing() {
        return;
    }
    let mut bed = Bed::start();
    let dir = tempfile::tempdir().expect("no temporary directory");
    std::fs::write(dir.path().join("index.html"), "from the laptop").expect("cannot write");
    let mut listener = bed
        .on("laptop", "python3")
        .args([
            "-m",
            "http.server",
            "8080",
            "--bind",
            "127.0.0.1",
            "--directory",
        ])
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("cannot start a listener");
    let server = bed.text("/addresses/ssh").to_owned();
    let config = bed.text("/ssh_config").to_owned();
    let options = [
        "--reverse-proxy-host",
        &server,
        "--ssh-config-path",
        &config,
        "--remote-port-range",
        "8000-8000",
        "--local-port",
        "8080",
    ];
    let mut tunnel = Stage::start(&bed, "tunnel", dir.path(), &options);
    tunnel.wait_for("ready");
    bed.pod("default", "client", &["sleep", "3600"]);
    let url = format!("http://{server}:8000/");
    let wget = ["exec", "client", "--", "wget", "-qO-", &url];
    assert_eq!(bed.kubectl(&wget), "from the laptop");

    bed.tell("pull laptop");
    tunnel.wait_for("degraded");
    bed.tell("plug laptop");
    tunnel.wait_for("ready");
    assert_eq!(bed.kubectl(&wget), "from the laptop");
    drop(tunnel);
    assert!(bed.try_kubectl(&wget).is_err(), "the port is closed");
    listener.kill().expect("cannot end the listener");
    listener.wait().expect("cannot wait for the listener");
}
