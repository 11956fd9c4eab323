//! Benchmarks of devcluster-gateway on a real kube-apiserver, run by `make bench`.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use support::gateway::start;
use support::kube::gateway_command;
use support::kube_real::{GATEWAYS, LEASES, RealKube, STAGE, in_namespace, real_kube};
use support::{Home, StageClient};

const CONTOUR: &str = "projectcontour.io/gateway-controller";

fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Runs one session until `ready` and stops it. Returns the time until ready, and the peak memory.
async fn once(kube: &RealKube, args: &[&str]) -> (Duration, u64) {
    let home = Home::new();
    let mut stage = start(kube, &home, args);
    stage.wait_for("ready").await;
    let took = stage.last_message_after();
    let memory = peak_kib(&stage);
    stage.signal(Signal::TERM);
    stage.wait().await;
    (took, memory)
}

fn peak_kib(stage: &StageClient) -> u64 {
    let path = format!("/proc/{}/status", stage.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

async fn measure(kube: &RealKube, what: &str, args: &[&str]) {
    let mut times = Vec::new();
    let mut memory = 0;
    for _ in 0..11 {
        let (took, peak) = once(kube, args).await;
        times.push(took);
        memory = memory.max(peak);
    }
    times.sort();
    say(&format!(
        "gateway, {what}: ready after {:.0} ms (median of 11, {:.0} to {:.0}), at most {:.1} MiB resident",
        times[5].as_secs_f64() * 1000.0,
        times[0].as_secs_f64() * 1000.0,
        times[10].as_secs_f64() * 1000.0,
        memory as f64 / 1024.0
    ));
}

#[tokio::test]
#[ignore = "a benchmark: make bench"]
async fn an_existing_gateway_alone_and_among_thousands() {
    let Some(kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.gateway("default", "tcp-gateway").await;
    kube.program("default", "tcp-gateway", "127.0.0.1").await;
    measure(&kube, "one Gateway", &[]).await;
    for i in 0..5000 {
        kube.gateway("default", &format!("zz-{i:04}")).await;
    }
    for i in 0..500 {
        let lease = json!({
            "metadata": {"name": format!("devcluster-gateway-zz-{i:04}"), "labels": {"app.kubernetes.io/managed-by": "devcluster-gateway"}},
            "spec": {"holderIdentity": format!("user/{i}"), "leaseDurationSeconds": 900},
        });
        kube.create(&in_namespace(LEASES, "default"), &lease).await;
    }
    measure(&kube, "5,001 Gateways and 500 Leases", &[]).await;
    let named = ["--gateway", "tcp-gateway", "--gateway-namespace", "default"];
    measure(&kube, "the same, named", &named).await;
}

#[tokio::test]
#[ignore = "a benchmark: make bench"]
async fn two_hundred_sessions_at_once_never_share() {
    const SESSIONS: usize = 200;
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    // Half of them find an existing Gateway, half have to create one.
    for i in 0..SESSIONS / 2 {
        let name = format!("shared-{i:03}");
        kube.gateway("default", &name).await;
        kube.program("default", &name, "127.0.0.1").await;
    }
    kube.start_controller();
    let homes: Vec<Home> = (0..SESSIONS).map(|_| Home::new()).collect();
    let started = Instant::now();
    let mut stages: Vec<StageClient> = homes.iter().map(|home| start(&kube, home, &[])).collect();
    let mut taken = BTreeSet::new();
    for stage in &mut stages {
        let outputs = stage.wait_for("outputs").await["outputs"].clone();
        let name = outputs["internal_task_gateway"]["gateway_name"].to_string();
        assert!(taken.insert(name.clone()), "two sessions use {name}");
    }
    say(&format!(
        "gateway, {SESSIONS} sessions at once: all ready after {:.1} s, on {} Gateways, with {} requests",
        started.elapsed().as_secs_f64(),
        taken.len(),
        kube.requests(STAGE).len()
    ));
    for stage in &stages {
        stage.signal(Signal::TERM);
    }
    for stage in &mut stages {
        stage.wait().await;
    }
    // The ledgers list the deletions that the busy API could not complete within half a second.
    for some in homes.chunks(8) {
        let cleanups = some
            .iter()
            .map(|home| StageClient::start(gateway_command(home, "cleanup", &[])));
        for mut cleanup in cleanups.collect::<Vec<_>>() {
            cleanup.wait().await;
        }
    }
    kube.until("Gateways to be deleted", async || {
        kube.items(GATEWAYS).await.len() == SESSIONS / 2
    })
    .await;
}
