//! Benchmarks of devcluster-tunnel, compared with `ssh -R` and autossh, run by `make bench BENCH=tunnel`.
//!
//! The tools are measured alternately, round by round, so that a busy machine slows all of them equally. `cargo test
//! --release --test bench -- --ignored --nocapture tunnel::streams` runs only the benchmark of streams.

mod load;
mod outage;
mod peers;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::master::{Master, visit};
use support::netns::Netns;
use support::relay::Relay;
use support::traffic::Echo;
use support::tunnel::take;
use support::{Home, Options, TestSshd, free_ports, leaks, start_sshd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::report::{Row, median, report, say};
use load::{HangsUp, Source, throughput, visits};
use peers::{Ends, Held, Peer, Server};

const MIB: u64 = 1024 * 1024;

/// A server on this machine, with the given latency.
struct Bed {
    sshd: TestSshd,
    relay: Relay,
    master: Source,
}

impl Bed {
    async fn new(round_trip: Duration) -> Bed {
        let sshd = start_sshd(Options::default()).await;
        Bed {
            relay: Relay::start(sshd.port(), round_trip / 2).await,
            master: Source::start().await,
            sshd,
        }
    }

    /// Without the relay, unless it adds the latency.
    fn server(&self, round_trip: Duration) -> Server<'_> {
        Server {
            sshd: &self.sshd,
            host: std::net::Ipv4Addr::LOCALHOST,
            port: if round_trip.is_zero() {
                self.sshd.port()
            } else {
                self.relay.port()
            },
        }
    }

    /// All tools, each with its own port.
    async fn all(&self, round_trip: Duration) -> Vec<Held> {
        let peers = Peer::all();
        let mut held = Vec::new();
        for (peer, port) in peers.iter().zip(free_ports(peers.len() as u16)) {
            let server = self.server(round_trip);
            held.push(server.hold(*peer, port, self.master.port).await);
        }
        held
    }
}

async fn end(all: Vec<Held>) {
    for held in all {
        held.end().await;
    }
}

fn at(round_trip: Duration, what: &str) -> String {
    match round_trip.as_millis() {
        0 => what.to_owned(),
        ms => format!("{what}, {ms} ms round trip"),
    }
}

fn round_trips() -> [Duration; 3] {
    [0, 50, 100].map(Duration::from_millis)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Milliseconds from the start until `ready`, and the number of ports that the server refused before.
async fn start_to_ready(server: &Server<'_>, ends: &Ends) -> (f64, usize) {
    // A new home: the tunnel would try a port of an earlier run first.
    let home = Home::new();
    let refused = || server.sshd.log().matches("Address already in use").count();
    let before = refused();
    let mut tunnel = server.ours(&home, ends);
    tunnel.wait_for("ready").await;
    let took = ms(tunnel.last_message_after());
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;
    leaks::gone("its ssh", || leaks::processes(&home.mark())).await;
    (took, refused() - before)
}

/// Milliseconds that a byte takes through a relay and back: timers round up.
async fn true_round_trip(round_trip: Duration) -> f64 {
    let echo = Echo::start().await;
    if round_trip.is_zero() {
        return 0.0;
    }
    let relay = Relay::start(echo.port(), round_trip / 2).await;
    let way = TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, relay.port())).await;
    let mut way = way.expect("no relay");
    let mut times = Vec::new();
    for _ in 0..11 {
        let from = Instant::now();
        way.write_u8(1).await.expect("cannot connect to the relay");
        way.read_u8().await.expect("cannot accept from the relay");
        times.push(ms(from.elapsed()));
    }
    median(&times)
}

async fn start(round_trip: Duration, rounds: usize, ports: u16) -> [Row; 3] {
    let bed = Bed::new(round_trip).await;
    let server = bed.server(round_trip);
    let free = free_ports(ports);
    let crowded = free_ports(ports);
    let full = free_ports(ports);
    let ends = |range: &std::ops::RangeInclusive<u16>| Ends {
        remote: format!("{}-{}", range.start(), range.end()),
        local: bed.master.port,
    };
    let nine_in_ten = crowded.clone().filter(|port| port % 10 != 0);
    let _taken = take(nine_in_ten.chain(full.clone().skip(1))).await;
    let home = Home::new();
    let mut ready = Row::new(at(round_trip, "start to ready"), "ms").ratio_at_most(1.3, "ssh true");
    let mut among = Row::new(at(round_trip, "range 90 % full"), "ms");
    let mut each = Row::new(at(round_trip, "each taken port"), "ms")
        .at_most(true_round_trip(round_trip).await + 1.0);
    let (mut unhindered, mut hindered) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ready.sample("ssh true", ms(server.ssh_true(&home).await));
        let port = free_ports(1);
        let plain = server.ssh_listening(*port.start(), bed.master.port);
        ready.sample("ssh -R", ms(plain.await));
        let (took, _) = start_to_ready(&server, &ends(&free)).await;
        ready.sample("ours", took);
        unhindered.push(took);
        among.sample("ours", start_to_ready(&server, &ends(&crowded)).await.0);
        hindered.push(start_to_ready(&server, &ends(&full)).await);
    }
    let unhindered = median(&unhindered);
    for (took, refused) in hindered.iter().filter(|(_, refused)| *refused > 0) {
        each.sample("ours", (took - unhindered) / *refused as f64);
    }
    [ready, among, each]
}

#[tokio::test]
#[ignore = "a measurement: make bench"]
async fn a_start_takes_little_longer_than_ssh_itself() {
    let mut rows = Vec::new();
    for (round_trip, rounds, ports) in round_trips()
        .into_iter()
        .zip([21, 5, 5])
        .zip([300, 20, 20])
        .map(|((round_trip, rounds), ports)| (round_trip, rounds, ports))
    {
        rows.extend(start(round_trip, rounds, ports).await);
    }
    report("tunnel", "start", &rows);
}

#[tokio::test]
#[ignore = "a measurement: make bench"]
async fn streams_are_as_fast_as_ssh_can_be_made() {
    let mut rows = Vec::new();
    for (round_trip, rounds, sizes) in [(0, 9, [512, 512]), (50, 3, [64, 256]), (100, 3, [32, 128])]
    {
        let round_trip = Duration::from_millis(round_trip);
        let bed = Bed::new(round_trip).await;
        let all = bed.all(round_trip).await;
        for (streams, size) in [1, 16].into_iter().zip(sizes) {
            let what = match streams {
                1 => "one stream".to_owned(),
                n => format!("{n} streams"),
            };
            let mut row = Row::new(at(round_trip, &what), "Mbit/s")
                .ratio_at_least(0.97, Peer::SameCipher.name());
            if round_trip.is_zero() {
                row = row.ratio_at_least(1.3, Peer::Ssh.name());
            }
            for _ in 0..rounds {
                for held in &all {
                    let speed = throughput(held.port, streams, size * MIB).await;
                    row.sample(held.peer.name(), speed);
                }
            }
            rows.push(row);
        }
        end(all).await;
    }
    report("tunnel", "throughput", &rows);
}

#[tokio::test]
#[ignore = "a measurement: make bench"]
async fn new_connections_do_not_wait() {
    let mut rows = Vec::new();
    for round_trip in round_trips() {
        let bed = Bed::new(round_trip).await;
        let all = bed.all(round_trip).await;
        for (way, side_by_side, hangs_up) in [
            ("in sequence", 1, HangsUp::Visitor),
            ("the same, the master closes first", 1, HangsUp::Master),
            ("16 in parallel", 16, HangsUp::Visitor),
        ] {
            let mut rate = Row::new(at(round_trip, way), "1/s");
            let mut latency = Row::new(at(round_trip, &format!("{way}: latency")), "ms");
            if round_trip.is_zero() && (side_by_side, hangs_up) == (1, HangsUp::Visitor) {
                latency = latency.ratio_at_most(0.05, Peer::Ssh.name());
            }
            for _ in 0..5 {
                for held in &all {
                    let second = Duration::from_secs(1);
                    let visits = visits(held.port, hangs_up, side_by_side, second).await;
                    rate.sample(held.peer.name(), visits.per_second);
                    latency.sample(held.peer.name(), visits.latency);
                }
            }
            rows.extend([rate, latency]);
        }
        end(all).await;
    }
    report("tunnel", "new connections", &rows);
}

/// Milliseconds from the first answer of a master until a visitor that waits for it gets through.
async fn first_visit(port: u16, local: u16) -> f64 {
    let master = Master::start(local, &[]);
    master.set_answers(false);
    let visitor = async {
        while visit(port).await.is_err() {}
        Instant::now()
    };
    let answers = async {
        master.is_asked().await;
        let from = Instant::now();
        master.set_answers(true);
        from
    };
    let (through, from) = tokio::join!(visitor, answers);
    master.stop().await;
    ms(through - from)
}

#[tokio::test]
#[ignore = "a measurement: make bench"]
async fn a_guard_lets_visitors_through_with_the_masters_first_answer() {
    let bed = Bed::new(Duration::ZERO).await;
    let ports = free_ports(2);
    let (port, local) = (*ports.start(), *ports.end());
    let held = bed
        .server(Duration::ZERO)
        .hold(Peer::Guarded, port, local)
        .await;
    let mut row = Row::new("first answer to first visitor", "ms").at_most(100.0);
    for _ in 0..21 {
        row.sample("ours", first_visit(port, local).await);
    }
    held.end().await;
    report("tunnel", "guard", &[row]);
}

/// Resident memory in MiB, and CPU time in ms since it started.
fn usage(pid: &str) -> (f64, f64) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
    let status = read("status").expect("it has ended");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it has ended");
    let nanoseconds = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    (
        kib.expect("no VmRSS") / 1024.0,
        nanoseconds.sum::<f64>() / 1e6,
    )
}

/// The ssh that a process started.
fn ssh_of(pid: &str) -> Option<String> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().next().map(str::to_owned)
}

#[tokio::test]
#[ignore = "a measurement: make bench"]
async fn an_idle_tunnel_costs_next_to_nothing() {
    const MINUTE: Duration = Duration::from_secs(60);
    // One tick of the kernel's accounting clock: smaller values are not visible.
    const TICK: f64 = 10.0;
    let bed = Bed::new(Duration::ZERO).await;
    let all = bed.all(Duration::ZERO).await;
    let mut memory = Row::new("resident, itself", "MiB").at_most(10.0);
    let mut cpu = Row::new("CPU over an idle minute, itself", "ms").at_most(TICK);
    let mut ssh_memory = Row::new("resident, ssh", "MiB");
    let mut ssh_cpu = Row::new("CPU over an idle minute, ssh", "ms");
    let mut before = Vec::new();
    for held in &all {
        let pid = held.pid().as_raw_nonzero().to_string();
        let ssh = ssh_of(&pid);
        match held.peer {
            Peer::Ours | Peer::Guarded | Peer::Autossh => {
                before.push((held.peer.name(), ssh.expect("no ssh"), false));
                before.push((held.peer.name(), pid, true));
            }
            Peer::SameCipher | Peer::Ssh => before.push((held.peer.name(), pid, false)),
        }
    }
    // One visit each, so that all memory is allocated that a visit needs.
    for held in &all {
        visits(held.port, HangsUp::Visitor, 1, Duration::from_millis(100)).await;
    }
    let used: Vec<f64> = before.iter().map(|(_, pid, _)| usage(pid).1).collect();
    tokio::time::sleep(MINUTE).await;
    for ((name, pid, itself), before) in before.iter().zip(used) {
        let (resident, used) = usage(pid);
        let (memory, cpu) = match itself {
            true => (&mut memory, &mut cpu),
            false => (&mut ssh_memory, &mut ssh_cpu),
        };
        memory.sample(name, resident);
        cpu.sample(name, used - before);
    }
    end(all).await;
    report("tunnel", "idle", &[memory, cpu, ssh_memory, ssh_cpu]);
}

#[tokio::test]
#[ignore = "a measurement: make bench"]
async fn after_an_outage_bytes_flow_at_once() {
    let outages = [
        outage::Outage {
            what: "cable pulled",
            begin: Netns::pull,
            end: Netns::plug,
            goal: 2.0,
        },
        outage::Outage {
            what: "far outage",
            begin: Netns::silence,
            end: Netns::unsilence,
            goal: 2.0,
        },
        outage::Outage {
            what: "ghost on the server",
            begin: Netns::silence,
            end: Netns::move_elsewhere,
            goal: 4.0,
        },
    ];
    let rounds = 3;
    let mut tables = Vec::new();
    for round in 0..rounds {
        say(&format!(
            "outages of a minute, round {} of {rounds}",
            round + 1
        ));
        tables.push(outage::round(&outages).await);
    }
    let mut rows = Vec::new();
    for (number, outage) in outages.iter().enumerate() {
        let mut noticed = Row::new(format!("{}: noticed", outage.what), "s").at_most(10.0);
        let mut back =
            Row::new(format!("{}: first byte after it", outage.what), "s").at_most(outage.goal);
        for measured in tables.iter().map(|table| &table[number]) {
            noticed.sample(Peer::Ours.name(), measured.noticed);
            for (peer, seconds) in &measured.back {
                back.sample(peer.name(), *seconds);
            }
        }
        rows.extend([noticed, back]);
    }
    report("tunnel", "outages of 60 s", &rows);
}
