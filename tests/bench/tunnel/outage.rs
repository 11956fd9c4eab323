//! A minute without network, for the tunnel and autossh at the same time.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::netns::Netns;
use support::traffic::{Echo, first_byte_through};
use support::{Options, start_sshd_by};
use tokio::task::JoinSet;

use super::peers::{Held, Peer, Server};

const LASTING: Duration = Duration::from_secs(60);
/// How long to wait for the return of the port.
const PATIENCE: Duration = Duration::from_secs(60);
const APART: Duration = Duration::from_secs(5);

pub(crate) struct Outage {
    pub(crate) what: &'static str,
    pub(crate) begin: fn(&Netns),
    pub(crate) end: fn(&Netns),
    /// Seconds from its end to the first byte.
    pub(crate) goal: f64,
}

/// In seconds.
pub(crate) struct Measured {
    pub(crate) noticed: f64,
    pub(crate) back: Vec<(Peer, f64)>,
}

/// All tools in parallel, each in its own network: they wait for most of the time.
pub(crate) async fn round([first, second, third]: &[Outage; 3]) -> [Measured; 3] {
    tokio::join!(run(0, first), run(1, second), run(2, third)).into()
}

async fn run(number: u8, outage: &Outage) -> Measured {
    let netns = Netns::claim();
    let options = Options {
        extra: vec![
            format!("ListenAddress {}", netns.far()),
            "ClientAliveInterval 60".into(),
            "ClientAliveCountMax 10".into(),
        ],
        ..Options::default()
    };
    let sshd = start_sshd_by(options, |program, dir| netns.wrapper(program, dir)).await;
    let master = Echo::start().await;
    let server = Server {
        sshd: &sshd,
        host: netns.far(),
        port: 22,
    };
    let mut all = Vec::new();
    let peers = Peer::all().into_iter();
    let lasting = peers.filter(|peer| matches!(peer, Peer::Ours | Peer::Autossh));
    for (peer, port) in lasting.zip(8000..) {
        all.push(server.hold(peer, port, master.port()).await);
    }
    let _visitors: Vec<Knocking> = all
        .iter()
        .map(|held| Knocking::at(&netns, held.port))
        .collect();

    // They do not reconnect in the same second.
    tokio::time::sleep(APART * number.into()).await;
    (outage.begin)(&netns);
    let began = Instant::now();
    let mut noticed = f64::INFINITY;
    for stage in all.iter_mut().filter_map(Held::stage) {
        stage.wait_for("degraded").await;
        noticed = began.elapsed().as_secs_f64();
    }
    // The outage is the purpose here: there is no event to wait for.
    tokio::time::sleep(LASTING.saturating_sub(began.elapsed())).await;
    (outage.end)(&netns);
    let mut returns = JoinSet::new();
    for held in &all {
        let (peer, host, port) = (held.peer, netns.far(), held.port);
        returns.spawn(async move {
            let back = first_byte_through(host, port, PATIENCE).await;
            (peer, back.map_or(f64::INFINITY, |back| back.as_secs_f64()))
        });
    }
    let back = returns.join_all().await;
    for held in all {
        held.end().await;
    }
    Measured { noticed, back }
}

/// A client near the server that connects twice a second.
struct Knocking(Child);

impl Knocking {
    fn at(netns: &Netns, port: u16) -> Knocking {
        let knock = r#"while :; do timeout 1 bash -c 'exec 3<>/dev/tcp/$0/$1 && printf x >&3 && head -c 1 <&3' "$0" "$1"; sleep 0.5; done"#;
        let mut command = netns.command("bash");
        command.args(["-c", knock, &netns.far().to_string(), &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Knocking(command.stderr(Stdio::null()).spawn().expect("no bash"))
    }
}

impl Drop for Knocking {
    fn drop(&mut self) {
        // `ip netns exec` execs the shell, whose current command ends by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
