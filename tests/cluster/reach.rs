//! The product on the cluster: pods reach a listener on the laptop through the tunnel.

use std::process::Stdio;

use rustix::process::Signal;
use support::Home;
use support::bed::{self, Bed};

use crate::stages;

#[tokio::test]
async fn a_pod_reaches_the_laptop_through_the_tunnel_and_again_after_an_outage() {
    if bed::is_missing() {
        return;
    }
    let bed = Bed::start();
    let dir = Home::new();
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
    let mut tunnel = stages::tunnel(&bed, &dir);
    tunnel.wait_for("ready").await;
    bed.pod("default", "client", &["sleep", "3600"]);
    let url = format!("http://{}:8000/", bed.text("/addresses/ssh"));
    let wget = ["exec", "client", "--", "wget", "-qO-", &url];
    assert_eq!(bed.kubectl(&wget), "from the laptop");

    bed.tell("pull laptop");
    tunnel.wait_for("degraded").await;
    bed.tell("plug laptop");
    tunnel.wait_for("ready").await;
    assert_eq!(bed.kubectl(&wget), "from the laptop");
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;
    assert!(bed.try_kubectl(&wget).is_err(), "the port is closed");
    listener.kill().expect("cannot end the listener");
    listener.wait().expect("cannot wait for the listener");
}
