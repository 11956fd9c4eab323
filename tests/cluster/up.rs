//! `devcluster-remote up` on the bed's laptop, with the stand-in for Determined's master.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::bed::{self, Bed, eventually};
use support::devcluster::python_program;
use support::terminal::Terminal;
use support::{Home, bin, build_dir, leaks};
use tokio::process::Command;

use crate::network::curl;

/// An existing database, in which `initial_user_password` changes nothing.
fn old_database(home: &Home, password: &str) -> PathBuf {
    let path = home.path().join("database");
    let users = json!({"admin": password, "determined": password});
    let database = json!({"Cluster": "old", "Passwords": users, "Tasks": {}, "Bindings": {}});
    fs::write(&path, database.to_string()).expect("cannot write");
    path
}

fn devcluster_yaml(bed: &Bed, home: &Home, password: &str) -> PathBuf {
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
        database = old_database(home, password).display(),
        kubeconfig = bed.text("/kubeconfig"),
    );
    let path = home.path().join("devcluster.yaml");
    fs::write(&path, text).expect("cannot write");
    path
}

fn up(bed: &Bed, home: &Home, password: &str) -> Terminal {
    let mut command: Command = home.command(Path::new(bed.text("/enter/laptop")));
    command
        .arg(bin("devcluster-remote"))
        .args(["up", "-c"])
        .arg(devcluster_yaml(bed, home, password))
        .env("DEVCLUSTER", python_program("DEVCLUSTER", "devcluster"));
    Terminal::start(command)
}

/// Logs in from the cluster's side without a password while the file exists. Each login that succeeds is a line.
fn burglar(bed: &Bed, master: &str, during: &Path) -> Child {
    fs::write(during, "").expect("cannot write");
    let login = r#"{"username":"admin","password":""}"#;
    let url = format!("{master}/api/v1/auth/login");
    let script = format!(
        "while [ -e {} ]; do curl -sf -m 5 -o /dev/null -d '{login}' {url} && echo in; done",
        during.display()
    );
    let mut burglar = bed.on("cloud", "sh");
    burglar.args(["-c", &script]).stdout(Stdio::piped());
    burglar.spawn().expect("cannot run sh")
}

/// Whether it never got in.
fn got_nothing(burglar: Child, during: &Path) -> bool {
    fs::remove_file(during).expect("no file");
    let output = burglar.wait_with_output().expect("no end");
    output.stdout.is_empty()
}

/// Kills the master, which `up` starts again.
async fn restart_master(terminal: &mut Terminal, home: &Home) {
    let all = leaks::processes(&home.mark());
    let master = all
        .iter()
        .find(|it| it.contains("determined-master -config-file"));
    let pid = master.and_then(|it| it.split(' ').next()?.parse().ok());
    let pid = pid.and_then(Pid::from_raw).expect("no master");
    kill_process(pid, Signal::KILL).expect("cannot kill it");
    terminal
        .wait_for("nothing listens on local port 8080")
        .await;
    terminal.wait_for("tunnel.open_master").await;
}

#[tokio::test]
async fn up_brings_a_master_to_the_cluster_and_takes_it_back() {
    if bed::is_missing() {
        return;
    }
    let bed = Bed::start();
    let home = Home::new();
    let master = format!("http://{}:8000", bed.text("/addresses/ssh"));
    let during = home.path().join("during");
    let mut terminal = up(&bed, &home, "");
    let clients = burglar(&bed, &master, &during);
    terminal.wait_for("tunnel.open_master").await;
    for _ in 0..3 {
        restart_master(&mut terminal, &home).await;
    }
    assert!(got_nothing(clients, &during), "a login without a password");
    terminal.press("q");
    assert!(terminal.child.wait().await.expect("no end").success());

    let mut terminal = up(&bed, &home, "Correct-Horse-7");
    let answers = || curl(&bed, "cloud", &format!("{master}/api/v1/master"));
    eventually("the master answers the cluster", answers);

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

    crate::tasks::stay_on_their_ports(&bed).await;
}
