//! How long the tunnel takes to be ready, beside `ssh … true` in the same run.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::Options;
use support::tunnel::{Setup, take};

const ROUNDS: usize = 21;
const AT_MOST: f64 = 1.5;

async fn ssh_true(setup: &Setup) -> Duration {
    let mut command = setup.home.command("ssh".as_ref());
    command.args(["-F", "none", "-o", "BatchMode=yes", "-p"]);
    command.arg(setup.sshd.port().to_string());
    command.arg("-o").arg(format!(
        "UserKnownHostsFile={}",
        setup.sshd.known_hosts().display()
    ));
    command.arg("-i").arg(setup.sshd.key());
    command.arg(format!("{}@127.0.0.1", setup.sshd.user()));
    command.arg("true");
    let started = Instant::now();
    let status = command.status().await.expect("no ssh");
    assert!(status.success());
    started.elapsed()
}

async fn ready(setup: &Setup) -> Duration {
    let mut tunnel = setup.start(&[]);
    tunnel.wait_for("ready").await;
    let took = tunnel.last_message_after();
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
#[ignore = "a measurement: make bench"]
async fn ready_takes_little_longer_than_ssh_itself() {
    for gateway_ports in ["clientspecified", "yes", "no"] {
        let setup = Setup::new(Options {
            gateway_ports: gateway_ports.into(),
            ..Options::default()
        })
        .await;
        let _taken = take([*setup.ports.start()]).await;
        let (mut ssh, mut tunnel) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ssh.push(ssh_true(&setup).await);
            // The choice of the first port is part of what is measured.
            std::fs::remove_dir_all(setup.home.run_dir()).ok();
            tunnel.push(ready(&setup).await);
        }
        let (ssh, tunnel) = (median(ssh), median(tunnel));
        let ratio = tunnel.as_secs_f64() / ssh.as_secs_f64();
        eprintln!(
            "GatewayPorts {gateway_ports}: ssh true {ssh:.0?}, start to ready {tunnel:.0?}, ratio {ratio:.2}"
        );
        assert!(
            ratio <= AT_MOST,
            "GatewayPorts {gateway_ports}: {ratio:.2} times {ssh:?}"
        );
    }
}
