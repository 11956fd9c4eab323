//! `devcluster-remote up` on the bed's laptop, with the stand-in for Determined's master.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;
use support::bed::{self, Bed, eventually, known_fault};
use support::devcluster::python_program;
use support::terminal::Terminal;
use support::{Home, bin, build_dir};
use tokio::process::Command;

use crate::network::curl;

/// A database of before there were passwords: `initial_user_password` changes nothing in it.
fn old_database(home: &Home) -> PathBuf {
    let path = home.path().join("database");
    let users = json!({"admin": "", "determined": ""});
    let database = json!({"Cluster": "old", "Passwords": users, "Tasks": {}, "Bindings": {}});
    fs::write(&path, database.to_string()).expect("cannot write");
    path
}

fn devcluster_yaml(bed: &Bed, home: &Home) -> PathBuf {
    let text = format!(
        "temp_dir: {home}/devcluster
stages:
  - tunnel: {{reverse_proxy_host: {server}, ssh_config_path: {ssh_config}, remote_port_range: 8000-8000}}
  - config-emit: {{}}
  - master:
      cmdline: [{program}, -config-file, ':config', -database, {database}]
      config_file:
        port: 8080
        security: {{initial_user_password: Correct-Horse-7}}
        cache: {{cache_dir: {home}/cache}}
        resource_manager:
          type: kubernetes
          default_namespace: default
          max_slots_per_pod: 1
          slot_type: cpu
          slot_resource_requests: {{cpu: 0.25}}
          kubeconfig_path: {kubeconfig}
",
        home = home.path().display(),
        server = bed.text("/addresses/ssh"),
        ssh_config = bed.text("/ssh_config"),
        program = build_dir().join("bed/determined-master").display(),
        database = old_database(home).display(),
        kubeconfig = bed.text("/kubeconfig"),
    );
    let path = home.path().join("devcluster.yaml");
    fs::write(&path, text).expect("cannot write");
    path
}

fn up(bed: &Bed, home: &Home) -> Terminal {
    let mut command: Command = home.command(Path::new(bed.text("/enter/laptop")));
    command
        .arg(bin("devcluster-remote"))
        .args(["up", "-c"])
        .arg(devcluster_yaml(bed, home))
        .env("DEVCLUSTER", python_program("DEVCLUSTER", "devcluster"));
    Terminal::start(command)
}

/// Whether a login from the cluster's side needs no password.
fn lets_anyone_in(bed: &Bed, master: &str) -> bool {
    let mut curl = bed.on("cloud", "curl");
    curl.args([
        "-sf",
        "-m",
        "5",
        "-d",
        r#"{"username":"admin","password":""}"#,
    ]);
    curl.arg(format!("{master}/api/v1/auth/login"))
        .stdout(Stdio::null());
    curl.status().expect("cannot run curl").success()
}

#[tokio::test]
async fn up_brings_a_master_to_the_cluster_and_takes_it_back() {
    if bed::is_missing() {
        return;
    }
    let bed = Bed::start();
    let home = Home::new();
    let mut terminal = up(&bed, &home);
    let master = format!("http://{}:8000", bed.text("/addresses/ssh"));
    let answers = || curl(&bed, "cloud", &format!("{master}/api/v1/master"));
    eventually("the master answers the cluster", answers);
    let closed = !lets_anyone_in(&bed, &master);
    known_fault(1, "a master without passwords is not exposed", closed);

    bed.tell("restart kube-apiserver");
    terminal.wait_for("stopped unexpectedly").await;
    eventually("its watches end the master", || !answers());
    terminal
        .wait_for("master ended unexpectedly; it is started again")
        .await;
    eventually("the master answers the cluster again", answers);

    terminal.press("q");
    assert!(terminal.child.wait().await.expect("no end").success());
    assert!(!curl(&bed, "ssh", &master), "the port is closed");
}
