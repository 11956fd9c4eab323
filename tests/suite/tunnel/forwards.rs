//! Several ports of this machine on one connection.

use std::net::Ipv4Addr;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::tunnel::{Setup, any_listener, ask, failure, port_of, shout, take};
use support::{Options, StageClient, free_ports, leaks};
use tokio::task::JoinSet;

/// Two more local servers, and the flag that forwards to them.
struct More {
    local_ports: [u16; 2],
    flag: String,
    _servers: JoinSet<()>,
}

async fn two_more() -> More {
    let mut servers = JoinSet::new();
    let mut local_ports = [0; 2];
    for port in &mut local_ports {
        let listener = any_listener().await;
        *port = listener.local_addr().expect("no address").port();
        servers.spawn(shout(listener));
    }
    let flag = json!([
        {"name": "ui", "local_port": local_ports[0]},
        {"local_port": local_ports[1]},
    ]);
    More {
        local_ports,
        flag: flag.to_string(),
        _servers: servers,
    }
}

/// The server's ports in the outputs: the tunnel's own, then those of `forwards`.
fn ports_of(outputs: &Value) -> Vec<u16> {
    let beside = outputs["outputs"]["forwards"].as_object();
    let port = |f: &Value| f["port"].as_u64().and_then(|port| port.try_into().ok());
    let beside = beside.expect("no forwards").values();
    let beside = beside.map(|f| port(f).expect("no port"));
    std::iter::once(port_of(outputs)).chain(beside).collect()
}

#[tokio::test]
async fn each_forward_has_a_port_of_its_own_that_is_proven_and_carries_bytes() {
    let setup = Setup::new(Options::default()).await;
    let more = two_more().await;
    let mut tunnel = setup.start(&[("forwards", &more.flag)]);
    let outputs = tunnel.wait_for("outputs").await;
    tunnel.wait_for("ready").await;
    let mut ports = ports_of(&outputs);
    let forwards = &outputs["outputs"]["forwards"];
    for (name, local_port) in [
        ("ui".to_owned(), more.local_ports[0]),
        (more.local_ports[1].to_string(), more.local_ports[1]),
    ] {
        let forward = &forwards[&name];
        assert_eq!(
            (&forward["local_port"], &forward["verified"]),
            (&json!(local_port), &json!("origin")),
            "{outputs}"
        );
        let port = forward["port"].as_u64().unwrap() as u16;
        assert_eq!(ask(port, "hello").await.unwrap(), "HELLO");
    }
    ports.sort_unstable();
    assert_eq!(ports, setup.ports.clone().collect::<Vec<_>>(), "all three");

    let mut check = StageClient::start(setup.verb("check"));
    assert!(check.wait().await.0.success(), "{}", check.stderr());
    tunnel.signal(Signal::TERM);
    assert!(tunnel.wait().await.0.success());
    leaks::gone("what it started", || setup.left()).await;
}

#[tokio::test]
async fn all_forwards_come_back_on_their_ports_with_the_connection_and_with_the_next_run() {
    let setup = Setup::new(Options::default()).await;
    let more = two_more().await;
    let mut ports = Vec::new();
    for _ in 0..2 {
        let mut tunnel = setup.start(&[("forwards", &more.flag)]);
        let outputs = tunnel.wait_for("outputs").await;
        ports.push(ports_of(&outputs));
        let generation = tunnel.wait_for("ready").await["gen"].take();
        setup.sshd.drop_sessions().unwrap();
        tunnel.wait_for("degraded").await;
        assert_eq!(tunnel.wait_for("ready").await["gen"], generation);
        for port in &ports[0][1..] {
            assert_eq!(ask(*port, "again").await.unwrap(), "AGAIN");
        }
        tunnel.signal(Signal::TERM);
        tunnel.wait().await;
    }
    assert_eq!(ports[0], ports[1]);
}

#[tokio::test]
async fn a_lost_port_of_an_extra_forward_is_replaced_at_once_and_the_tunnels_own_stays() {
    let mut setup = Setup::new(Options::default()).await;
    let (range, more) = (free_ports(2), two_more().await);
    let flag = json!([{
        "name": "ui", "local_port": more.local_ports[0],
        "remote_port_range": format!("{}-{}", range.start(), range.end()),
    }]);
    let mut tunnel = setup.start(&[("forwards", &flag.to_string())]);
    let before = tunnel.wait_for("outputs").await;
    tunnel.wait_for("ready").await;
    let lost = ports_of(&before)[1];
    assert!(range.contains(&lost), "{before}");
    setup.sshd.stop().await.unwrap();
    tunnel.wait_for("degraded").await;
    leaks::gone("the listener", || {
        leaks::is_listening(lost)
            .then_some(lost)
            .into_iter()
            .collect()
    })
    .await;
    let _taken = take([lost]).await;
    setup.sshd.resume().await.unwrap();
    let why = format!("port {lost} is not available again; the port is");
    tunnel.wait_for_log(&why).await;
    let after = tunnel.wait_for("outputs").await;
    assert_eq!(port_of(&after), port_of(&before));
    assert_ne!(ports_of(&after)[1], lost);
    assert_eq!(after["gen"], 2);
    tunnel.wait_for("ready").await;
}

#[tokio::test]
async fn a_range_with_too_few_ports_for_the_forwards_is_an_error_and_leaves_nothing() {
    let setup = Setup::new(Options::default()).await;
    let more = two_more().await;
    let _taken = take([*setup.ports.start()]).await;
    let command = setup.command(&[("forwards", &more.flag)]);
    failure(&setup, command, "tunnel.port_range_exhausted", 75).await;
    let others = || {
        let mut left = setup.left();
        left.retain(|l| *l != format!("port {}", setup.ports.start()));
        left
    };
    leaks::gone("what it started", others).await;
}

#[tokio::test]
async fn all_mistakes_in_forwards_are_reported() {
    let setup = Setup::new(Options::default()).await;
    let flag = json!([
        {"local_port": setup.local_port},
        {"name": "a b", "local_port": 7},
        {"name": "x", "local_port": 8},
        {"name": "x", "local_port": 0},
    ]);
    let mut tunnel = setup.start(&[("forwards", &flag.to_string())]);
    let causes = tunnel.wait_for("error").await["error"]["caused_by"].to_string();
    for expected in [
        "forwards[0].local_port",
        "forwards[1].name",
        "forwards[3].name",
        "forwards[3].local_port",
    ] {
        assert!(causes.contains(expected), "{expected} is not in {causes}");
    }
    assert_eq!(tunnel.wait().await.0.code(), Some(2));
}

#[tokio::test]
async fn a_blocked_port_of_one_forward_is_reported() {
    let setup = Setup::new(Options::default()).await;
    let more = two_more().await;
    let mut tunnel = setup.start(&[("forwards", &more.flag), ("probe-interval", "0.1")]);
    let outputs = tunnel.wait_for("outputs").await;
    tunnel.wait_for("ready").await;
    let sockets = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, ports_of(&outputs)[2]));
    assert!(sockets.await.is_ok());
    // A stopped server keeps its listeners: they accept connections and forward none.
    for pid in setup.sshd.sessions().unwrap() {
        rustix::process::kill_process(pid, Signal::STOP).unwrap();
    }
    let degraded = tunnel.wait_for("degraded").await;
    assert_eq!(
        degraded["error"]["code"], "tunnel.arrives_elsewhere",
        "{degraded}"
    );
    for pid in setup.sshd.sessions().unwrap() {
        rustix::process::kill_process(pid, Signal::CONT).unwrap();
    }
    assert_eq!(tunnel.wait_for("ready").await["gen"], 1);
}
