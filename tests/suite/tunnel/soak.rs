//! The tunnel over and over: killed at any moment, visited without end, on a flapping link. `make soak` asks for long
//! rounds.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use support::netns;
use support::random::{asked_for, moment_within};
use support::traffic::{Echo, a_byte_through};
use support::tunnel::{FarTunnel, Setup, port_of};
use support::{DEADLINE, Options, StageClient, leaks};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn whenever_it_is_killed_the_next_start_is_ready_and_nothing_is_left() {
    let setup = Setup::new(Options::default()).await;
    let mut first = setup.start(&[]);
    first.wait_for("ready").await;
    let start = first.last_message_after();
    first.signal(Signal::TERM);
    first.wait().await;
    for round in 0..asked_for("DEVCLUSTER_ROUNDS", 20) {
        let mut killed = setup.start(&[]);
        // Most of them before it is ready.
        let moment = moment_within(start.mul_f64(1.5));
        // The moment matters here: there is no event to wait for.
        sleep(moment).await;
        killed.signal(Signal::KILL);
        killed.wait().await;
        let mut next = setup.start(&[]);
        next.wait_for("ready").await;
        next.signal(Signal::TERM);
        next.wait().await;
        let what = format!("round {round}, killed after {moment:.0?}");
        leaks::gone(&what, || setup.left()).await;
        leaks::gone(&what, || setup.sshd.sessions().expect("no /proc")).await;
        let state = leaks::state(&setup.home);
        assert!(state.is_empty(), "{what}: the ledger lists {state:?}");
    }
}

/// Descriptors, and memory in KiB.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    resident: u64,
}

impl Held {
    fn by(pid: Pid) -> Held {
        let proc = std::path::PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        let status = std::fs::read_to_string(proc.join("status")).expect("it has ended");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        let descriptors = std::fs::read_dir(proc.join("fd")).expect("it has ended");
        Held {
            descriptors: descriptors.count(),
            resident: kib.expect("no VmRSS"),
        }
    }

    /// Waits until it holds no more than before: a visitor's connection closes a moment after they left.
    async fn no_more_than(before: &Held, pid: Pid) {
        leaks::gone("descriptors", || {
            let now = Held::by(pid);
            let more = now.descriptors > before.descriptors;
            more.then(|| format!("{now:?}, before {before:?}"))
                .into_iter()
                .collect()
        })
        .await;
        let now = Held::by(pid);
        // The allocator keeps pages that were used once.
        assert!(
            now.resident <= before.resident + 1024,
            "{now:?}, before {before:?}"
        );
    }
}

/// The process and its ssh.
fn with_its_ssh(tunnel: &StageClient) -> Vec<Pid> {
    let pid = tunnel.pid();
    let raw = pid.as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{raw}/task/{raw}/children"));
    let children = children.expect("it has ended");
    let children = children.split_whitespace().filter_map(|child| {
        let child = child.parse().ok()?;
        Pid::from_raw(child)
    });
    [pid].into_iter().chain(children).collect()
}

async fn visit(port: u16, times: u64, side_by_side: u64) {
    let mut visitors = JoinSet::new();
    for _ in 0..side_by_side {
        visitors.spawn(async move {
            for number in 0..times / side_by_side {
                timeout(DEADLINE, a_byte_through(Ipv4Addr::LOCALHOST, port))
                    .await
                    .unwrap_or_else(|_| panic!("visit {number} stalls"))
                    .unwrap_or_else(|e| panic!("visit {number}: {e}"));
            }
        });
    }
    visitors.join_all().await;
}

#[tokio::test]
async fn none_of_very_many_visitors_waits_and_they_leave_nothing() {
    const SIDE_BY_SIDE: u64 = 8;
    let setup = Setup::new(Options::default()).await;
    let master = Echo::start().await;
    let local_port = master.port().to_string();
    let mut tunnel = setup.start(&[("local-port", &local_port)]);
    let port = port_of(&tunnel.wait_for("outputs").await);
    tunnel.wait_for("ready").await;
    visit(port, 500, SIDE_BY_SIDE).await;
    let processes = with_its_ssh(&tunnel);
    assert_eq!(processes.len(), 2, "it and its ssh");
    let before: Vec<Held> = processes.iter().map(|pid| Held::by(*pid)).collect();
    visit(port, asked_for("DEVCLUSTER_VISITS", 2000), SIDE_BY_SIDE).await;
    for (pid, before) in processes.iter().zip(&before) {
        Held::no_more_than(before, *pid).await;
    }
    assert!(!tunnel.stderr().contains("degraded"), "{}", tunnel.stderr());
    tunnel.signal(Signal::TERM);
    assert!(tunnel.wait().await.0.success());
    leaks::gone("what it started", || setup.left()).await;
}

#[tokio::test]
async fn a_flapping_link_leaves_the_tunnel_on_its_first_port_without_leaks() {
    if netns::are_missing() {
        return;
    }
    const LONGEST: Duration = Duration::from_secs(5);
    let keepalives = ["--keepalive-interval=1", "--keepalive-count=1"];
    let mut far = FarTunnel::start(&keepalives).await;
    // One outage that is certainly noticed, so that reconnecting has allocated what it needs.
    far.netns.pull();
    far.stage.wait_for("degraded").await;
    far.netns.plug();
    far.stage.wait_for("ready").await;
    let before = Held::by(far.stage.pid());
    let (from, lasting) = (Instant::now(), asked_for("DEVCLUSTER_FLAPPING", 12));
    while from.elapsed() < Duration::from_secs(lasting) {
        far.netns.pull();
        sleep(moment_within(LONGEST)).await;
        far.netns.plug();
        sleep(moment_within(LONGEST)).await;
    }
    far.first_byte_through().await;
    let outputs = std::fs::read_to_string(far.home.run_dir().join("outputs/tunnel.json"));
    let outputs: serde_json::Value =
        serde_json::from_str(&outputs.expect("no outputs")).expect("no JSON");
    assert_eq!(port_of(&outputs), far.port, "{outputs}");
    assert_eq!(outputs["gen"], 1, "{outputs}");
    Held::no_more_than(&before, far.stage.pid()).await;
    far.stage.signal(Signal::TERM);
    assert!(far.stage.wait().await.0.success());
}
