//! A config that follows its upstreams in a running devcluster: stages with outdated values are restarted, and
//! devcluster survives.

mod cluster;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use support::devcluster::TestDevcluster;
use support::emit::{Upstream, read, write};
use support::site::Site;
use support::tunnel::take;
use support::{DEADLINE, Home, StageClient, bin, leaks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use cluster::{Cluster, outputs};

/// From the new outputs to the restarted master, on an idle machine.
const WITHIN: Duration = Duration::from_secs(3);

/// The same on a busy machine: devcluster's own restart shows how busy it is.
fn within(devclusters_own: Duration) -> Duration {
    WITHIN.max(devclusters_own * 5)
}

/// Restarts a stage as its user would, and returns the duration.
async fn restarted_by_hand(devcluster: &mut TestDevcluster, stage: &str) -> Duration {
    let began = Instant::now();
    devcluster.restart(stage).await;
    devcluster
        .wait_for("its end", |e| {
            e["stages"][stage].is_string() && e["stages"][stage] != "UP"
        })
        .await;
    devcluster.wait_until(stage, "UP").await;
    began.elapsed()
}

#[tokio::test]
async fn after_a_new_port_of_the_tunnel_the_master_runs_with_the_new_config() {
    let mut site = Site::new().await;
    let text = site.devcluster_yaml().replace(
        "ssh_config_path: none",
        "ssh_config_path: none\n      keep_port: 0.1",
    );
    let file = site.compile(&text).await;
    let mut devcluster = TestDevcluster::start(&site.home, &file).await;
    devcluster.set_target("pod").await;
    devcluster.wait_until("pod", "UP").await;
    let outputs = site.run_dir().join("outputs/tunnel.json");
    let port = || {
        let text = read(&outputs);
        let file: Value = serde_json::from_str(&text).expect("JSON");
        file["outputs"]["port"]
            .as_u64()
            .and_then(|p| u16::try_from(p).ok())
            .expect("a port")
    };
    let own = restarted_by_hand(&mut devcluster, "master").await;
    let before = port();
    site.sshd.stop().await.expect("stopped");
    leaks::gone("the listener", || {
        [before]
            .into_iter()
            .filter(|p| leaks::is_listening(*p))
            .collect()
    })
    .await;
    let taken = take([before]).await;
    site.sshd.resume().await.expect("resumed");
    let changed = async {
        while !outputs.exists() || port() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, changed)
        .await
        .expect("the port stays");
    let began = Instant::now();
    devcluster
        .wait_for("the master's end", |e| e["stages"]["master"] == "DOWN")
        .await;
    devcluster.wait_until("master", "UP").await;
    let took = began.elapsed();
    eprintln!(
        "the master was up on the new config after {took:?}; a restart by hand takes {own:?}"
    );
    assert!(took <= within(own), "{took:?}, by hand {own:?}");
    let config = read(&site.run_dir().join("master.yaml"));
    assert!(
        config.contains(&format!("determined_master_port: {}", port())),
        "{config}"
    );
    let code = devcluster.close().await;
    assert_eq!(code, 0);
    drop(taken);
    site.nothing_is_left().await;
}

#[tokio::test]
async fn new_values_restart_the_stages_that_use_them_and_the_same_values_restart_none() {
    let mut cluster = Cluster::start("").await;
    cluster.up().await;
    let before = cluster.restarts();
    cluster.report(2);
    let began = Instant::now();
    cluster.restarted(2).await;
    eprintln!("both were restarted after {:?}", began.elapsed());
    assert_eq!(
        cluster.restarts() - before,
        2,
        "{}",
        cluster.devcluster.log()
    );

    // Nothing new, and a config-emit that starts again.
    cluster.report(2);
    cluster.kill_config_emit().await;
    cluster.devcluster.restart("config-emit").await;
    cluster.devcluster.wait_until("config-emit", "UP").await;
    // The next change is handled after everything before it.
    cluster.report(3);
    cluster.restarted(3).await;
    assert_eq!(
        cluster.restarts() - before,
        5,
        "{}",
        cluster.devcluster.log()
    );
    cluster.end().await;
}

#[tokio::test]
async fn commands_are_restarted_also_without_a_config_to_write() {
    let mut cluster = Cluster::without_a_master().await;
    cluster.up().await;
    for port in [2, 3] {
        cluster.report(port);
        let line = format!("port {port}\n");
        cluster.devcluster.wait_for_log("app", &line).await;
        cluster.devcluster.wait_until("app", "UP").await;
        // A change while config-emit was down is noticed by the next one.
        cluster.kill_config_emit().await;
        cluster.report(port + 10);
        cluster.devcluster.restart("config-emit").await;
        let line = format!("port {}\n", port + 10);
        cluster.devcluster.wait_for_log("app", &line).await;
        cluster.devcluster.wait_until("app", "UP").await;
    }
    cluster.end().await;
}

#[tokio::test]
async fn a_value_that_returns_in_time_restarts_no_stage() {
    let mut cluster = Cluster::start("").await;
    cluster.up().await;
    cluster.report(2);
    cluster.restarted(2).await;
    let before = cluster.restarts();
    // Within the interval a restart has to wait; by then nothing is outdated.
    for port in [3, 2, 4, 2] {
        cluster.report(port);
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    cluster.report(5);
    cluster.restarted(5).await;
    assert_eq!(
        cluster.restarts() - before,
        2,
        "{}",
        cluster.devcluster.log()
    );
    cluster.end().await;
}

#[tokio::test]
async fn a_change_while_config_emit_was_down_is_noticed_by_the_next_one() {
    let mut cluster = Cluster::start("").await;
    cluster.up().await;
    cluster.kill_config_emit().await;
    cluster.report(2);
    cluster.devcluster.restart("config-emit").await;
    cluster.restarted(2).await;
    cluster.end().await;
}

#[tokio::test]
async fn a_stage_above_the_target_is_not_started() {
    let mut cluster = Cluster::start("").await;
    cluster.up().await;
    cluster.devcluster.set_target("master").await;
    cluster.devcluster.wait_until("app", "DOWN").await;
    let before = cluster.restarts();
    cluster.report(2);
    cluster
        .devcluster
        .wait_for("the master's end", |e| e["stages"]["master"] == "DOWN")
        .await;
    let up = cluster
        .devcluster
        .wait_for("the master", |e| e["stages"]["master"] == "UP")
        .await;
    assert_eq!(up["stages"]["app"], "DOWN");
    assert_eq!(
        cluster.restarts() - before,
        1,
        "{}",
        cluster.devcluster.log()
    );
    // Started later, it has the new value.
    cluster.devcluster.set_target("app").await;
    cluster.restarted(2).await;
    cluster.end().await;
}

#[tokio::test]
async fn with_on_change_warn_a_change_is_reported_and_nothing_is_restarted() {
    let mut cluster = Cluster::start(", --on-change=warn").await;
    cluster.up().await;
    cluster.report(2);
    for stage in ["app", "master"] {
        let says = format!("restart {stage} to use it");
        cluster.devcluster.wait_for_log("config-emit", &says).await;
    }
    assert!(
        cluster.rendered().contains("determined_master_port: 1\n"),
        "the master reads this"
    );
    restarted_by_hand(&mut cluster.devcluster, "master").await;
    assert!(cluster.rendered().contains("determined_master_port: 2\n"));
    cluster.end().await;
}

/// Changes the values several times, and kills config-emit at as many moments. devcluster must survive.
async fn survives(rounds: u16, kills: u32) {
    let mut cluster = Cluster::start("").await;
    cluster.up().await;
    cluster.changes(rounds).await;
    let step = Duration::from_millis(600) / kills.max(1);
    for kill in 0..kills {
        let port = u16::try_from(1000 + kill).expect("few");
        cluster.report(port);
        // The delays cover everything that config-emit does about a change.
        tokio::time::sleep(step * kill).await;
        cluster.kill_config_emit().await;
        cluster.devcluster.restart("config-emit").await;
        cluster.restarted(port).await;
    }
    cluster.end().await;
}

#[tokio::test]
async fn devcluster_survives_restarts_and_kills_of_config_emit() {
    survives(3, 6).await;
}

#[tokio::test]
#[ignore = "a measurement: make bench"]
async fn bench_a_change_is_used_within_three_seconds() {
    let mut cluster = Cluster::start("").await;
    cluster.up().await;
    cluster.changes(20).await;
    cluster.end().await;
}

#[tokio::test]
#[ignore = "100 restarts and 200 kills take minutes"]
async fn soak_devcluster_survives_a_hundred_restarts_and_two_hundred_kills() {
    survives(100, 200).await;
}

/// A resident config-emit with a control socket of the test.
async fn beside(home: &Home, socket: &PathBuf) -> (Upstream, StageClient) {
    let tunnel = Upstream::ready(home, "tunnel", "tunnel", outputs(1)).await;
    let base = write(
        home,
        "master.conf",
        "resource_manager: {type: kubernetes}\n",
    );
    let mut command = home.command(&bin("devcluster-config-emit"));
    command.args(["run", "--events", "all", "--restart-interval", "1"]);
    command
        .arg("--run-dir")
        .arg(home.run_dir())
        .arg("--base")
        .arg(base);
    command.arg("--out").arg(home.path().join("out.yaml"));
    command
        .arg("--control-socket")
        .arg(socket)
        .stdin(Stdio::null());
    let mut stage = StageClient::start(command);
    stage.wait_for("ready").await;
    (tunnel, stage)
}

async fn ends_on_sigterm(mut stage: StageClient) {
    stage.signal(Signal::TERM);
    assert!(stage.wait().await.0.success(), "{}", stage.stderr());
}

#[tokio::test]
async fn without_a_control_socket_it_prints_what_to_restart() {
    for stale in [false, true] {
        let home = Home::new();
        let socket = home.path().join("sock");
        if stale {
            drop(UnixListener::bind(&socket).expect("bound"));
        }
        let (tunnel, mut stage) = beside(&home, &socket).await;
        tunnel.report(2, outputs(2));
        let warning = stage
            .wait_until("a warning", |m| m["level"] == "warn")
            .await;
        let said = warning["message"].as_str().expect("text");
        assert!(said.contains("restart master to use it"), "{said}");
        assert!(
            said.contains("no control socket") && said.contains("--oneshot"),
            "{said}"
        );
        ends_on_sigterm(stage).await;
    }
}

#[tokio::test]
async fn a_file_of_a_previous_devcluster_is_rewritten_without_a_message() {
    let home = Home::new();
    let old = write(&home, "out.yaml", "# of a run before\n");
    let before = std::time::SystemTime::now() - Duration::from_secs(60);
    let file = std::fs::File::options().append(true).open(old);
    file.and_then(|f| f.set_modified(before))
        .expect("it is old");
    let _first = UnixListener::bind(home.path().join("sock")).expect("bound");
    let (_tunnel, stage) = beside(&home, &home.path().join("sock")).await;
    assert!(read(&home.path().join("out.yaml")).contains("determined_master_port: 1"));
    assert!(
        !stage.stderr().contains("has changed"),
        "{}",
        stage.stderr()
    );
    ends_on_sigterm(stage).await;
}

#[tokio::test]
async fn a_silent_or_dying_devcluster_does_not_block_config_emit() {
    for answer in [
        None,
        Some("{\"init\": \"x\"}\n"),
        Some("{\"init\": \"x\"}\n{\"log_cb\": {\"stream\": \"console\", \"msg\": \"!\"}}\n"),
    ] {
        let home = Home::new();
        let socket = home.path().join("sock");
        let listener = UnixListener::bind(&socket).expect("bound");
        let (tunnel, mut stage) = beside(&home, &socket).await;
        tunnel.report(2, outputs(2));
        let (mut connection, _) = tokio::time::timeout(DEADLINE, listener.accept())
            .await
            .expect("no client connects")
            .expect("accepted");
        if let Some(answer) = answer {
            connection
                .write_all(answer.as_bytes())
                .await
                .expect("written");
            drop(connection);
            let warning = stage
                .wait_until("a warning", |m| m["level"] == "warn")
                .await;
            let said = warning["message"].as_str().expect("text");
            assert!(
                said.contains("restart master") && said.contains("closed its control socket"),
                "{said}"
            );
            ends_on_sigterm(stage).await;
            continue;
        }
        // The socket is silent, and the stage is asked to end: the process with the connection outlives it, and closes
        // it when the other end does.
        ends_on_sigterm(stage).await;
        let mut one = [0];
        let early =
            tokio::time::timeout(Duration::from_millis(300), connection.read(&mut one)).await;
        assert!(
            early.is_err(),
            "a connection that devcluster may write to was let go: {early:?}"
        );
        assert_eq!(leaks::processes(&home.mark()).len(), 1);
        drop(connection);
        leaks::gone("processes", || leaks::processes(&home.mark())).await;
    }
}
