//! The network goes and comes back: how soon that is noticed, and how soon the port carries bytes again.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::netns::Netns;
use support::tunnel::port_of;
use support::{DEADLINE, Home, Options, StageClient, bin, start_sshd_by};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

const NOTICED: Duration = Duration::from_secs(10);
/// From the return of the link to the first byte through.
const BACK: Duration = Duration::from_secs(4);

/// Seconds of silence. `make bench` asks for 60.
fn outage() -> Duration {
    let asked = std::env::var("DEVCLUSTER_OUTAGE").ok();
    Duration::from_secs(asked.and_then(|s| s.parse().ok()).unwrap_or(14))
}

async fn echo(listener: TcpListener) {
    let mut visitors = JoinSet::new();
    while let Ok((mut visitor, _)) = listener.accept().await {
        visitors.spawn(async move {
            let (mut read, mut write) = visitor.split();
            drop(tokio::io::copy(&mut read, &mut write).await);
        });
    }
}

async fn a_byte_through(host: Ipv4Addr, port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.write_all(b"x").await?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await.map(drop)
}

async fn until_a_byte_is_through(host: Ipv4Addr, port: u16) {
    let from = Instant::now();
    let patience = Duration::from_millis(300);
    while !matches!(
        timeout(patience, a_byte_through(host, port)).await,
        Ok(Ok(()))
    ) {
        assert!(from.elapsed() < DEADLINE, "no byte through");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn survives(number: u8, what: &str, go: fn(&Netns), come: fn(&Netns)) {
    let netns = Netns::new(number);
    let options = Options {
        // Beside the loopback address, on ssh's own port: nobody else is in this network.
        extra: vec![format!("ListenAddress {}", netns.far())],
        ..Options::default()
    };
    let sshd = start_sshd_by(options, |program, dir| netns.wrapper(program, dir)).await;
    let home = Home::new();
    let local = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("no port at all is free");
    let mut command = home.command(&bin("devcluster-tunnel"));
    command.arg("run").arg("--run-dir").arg(home.run_dir());
    let far = netns.far().to_string();
    command.args(["--ssh-config-path=none", "--host-key-policy=off"]);
    command.args(["--reverse-proxy-host", &far]);
    command.arg("--ssh-key-path").arg(sshd.key());
    command.args(["--ssh-user", sshd.user(), "--remote-port-range=8000-9000"]);
    let local_port = local.local_addr().expect("no address").port();
    command.arg("--local-port").arg(local_port.to_string());
    let mut master = JoinSet::new();
    master.spawn(echo(local));

    let mut tunnel = StageClient::start(command);
    let port = port_of(&tunnel.wait_for("outputs").await);
    tunnel.wait_for("ready").await;
    until_a_byte_is_through(netns.far(), port).await;

    go(&netns);
    let gone = Instant::now();
    let lost = tunnel.wait_for("degraded").await;
    let noticed = gone.elapsed();
    assert_eq!(lost["error"]["code"], "tunnel.connection_lost", "{lost}");
    // The outage is the point here: there is no event to wait for.
    tokio::time::sleep(outage().saturating_sub(gone.elapsed())).await;
    come(&netns);
    let back = Instant::now();
    until_a_byte_is_through(netns.far(), port).await;
    let back = back.elapsed();
    eprintln!("{what}: noticed after {noticed:.2?}, bytes flow {back:.2?} after the return");
    assert_eq!(tunnel.wait_for("ready").await["gen"], 1, "the same port");
    assert!(noticed <= NOTICED, "{what}: noticed after {noticed:?}");
    assert!(back <= BACK, "{what}: back after {back:?}");
    tunnel.signal(Signal::TERM);
    assert!(tunnel.wait().await.0.success());
}

#[tokio::test]
async fn a_pulled_cable_is_noticed_and_the_port_is_back_when_it_is_plugged_in() {
    survives(0, "a pulled cable", Netns::pull, Netns::plug).await;
}

#[tokio::test]
async fn an_outage_far_away_is_noticed_and_the_port_is_back_when_it_ends() {
    survives(1, "an outage far away", Netns::silence, Netns::unsilence).await;
}
