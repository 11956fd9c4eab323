//! The tunnel against a real sshd, on the same machine: the server's ports are this machine's ports.

use std::net::Ipv4Addr;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use support::tunnel::{
    AT_PUBLIC, PUBLIC, Setup, any_listener, failure, no_gateway_ports, port_of, take,
};
use support::{Options, StageClient, leaks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What a stage may take from SIGTERM to its end.
const STOP: Duration = Duration::from_millis(500);

/// Answers every visitor of the local port in capitals.
async fn shout(listener: TcpListener) {
    let mut visitors = JoinSet::new();
    while let Ok((mut visitor, _)) = listener.accept().await {
        visitors.spawn(async move {
            let mut text = String::new();
            // A visitor that breaks off gets no answer.
            if visitor.read_to_string(&mut text).await.is_ok() {
                drop(visitor.write_all(text.to_uppercase().as_bytes()).await);
            }
        });
    }
}

async fn ask(port: u16, text: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_taken_port_is_passed_over_and_a_visitor_reaches_the_local_port() {
    let setup = Setup::new(Options::default()).await;
    let first = *setup.ports.start();
    let _taken = take([first]).await;
    let mut tunnel = setup.start(&[]);
    let outputs = tunnel.wait_for("outputs").await;
    tunnel.wait_for("ready").await;
    let port = port_of(&outputs);
    assert!(port != first && setup.ports.contains(&port), "{outputs}");
    let expected = json!({
        "host": "127.0.0.1", "port": port, "scheme": "http", "ssh_host": "127.0.0.1",
        "local_port": setup.local_port, "verified": "origin",
    });
    assert_eq!(
        outputs["outputs"], expected,
        "proven although nothing listens on the local port"
    );

    let mut master = JoinSet::new();
    master.spawn(shout(
        TcpListener::bind((Ipv4Addr::LOCALHOST, setup.local_port))
            .await
            .unwrap(),
    ));
    assert_eq!(
        ask(port, "hello through the tunnel").await.unwrap(),
        "HELLO THROUGH THE TUNNEL"
    );
}

#[tokio::test]
async fn a_port_that_the_server_grants_on_ipv6_alone_is_not_taken_for_ours() {
    let setup = Setup::new(Options {
        gateway_ports: "yes".into(),
        ..Options::default()
    })
    .await;
    let _taken = take(setup.ports.clone().take(2)).await;
    let mut tunnel = setup.start(&[]);
    assert_eq!(
        port_of(&tunnel.wait_for("outputs").await),
        *setup.ports.end()
    );

    let setup = Setup::new(Options {
        gateway_ports: "yes".into(),
        ..Options::default()
    })
    .await;
    let _taken = take(setup.ports.clone()).await;
    failure(&setup, setup.command(&[]), "tunnel.arrives_elsewhere", 75).await;
}

/// A relay in front of the server, as a load balancer or NAT: every source port is changed.
async fn relay(public: TcpListener, to: u16) {
    let mut visitors = JoinSet::new();
    while let Ok((mut visitor, _)) = public.accept().await {
        visitors.spawn(async move {
            if let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await {
                drop(tokio::io::copy_bidirectional(&mut visitor, &mut server).await);
            }
        });
    }
}

#[tokio::test]
async fn behind_nat_a_nonce_is_the_proof_or_it_stays_unverified() {
    let setup = Setup::new(no_gateway_ports()).await;
    let port = *setup.ports.start();
    let one = port.to_string();
    let flags = [AT_PUBLIC, ("remote-port-range", one.as_str())];
    let mut relays = JoinSet::new();
    relays.spawn(relay(
        TcpListener::bind((PUBLIC, port)).await.unwrap(),
        port,
    ));

    let mut tunnel = setup.start(&flags);
    assert_eq!(
        tunnel.wait_for("outputs").await["outputs"]["verified"],
        "nonce"
    );
    tunnel.wait_for("ready").await;
    let master = TcpListener::bind((Ipv4Addr::LOCALHOST, setup.local_port)).await;
    setup.sshd.drop_sessions().unwrap();
    let again = tunnel.wait_for("ready").await;
    assert_eq!(
        again["gen"], 1,
        "with the master in the way of another nonce"
    );
    drop(master);
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;

    let _master = TcpListener::bind((Ipv4Addr::LOCALHOST, setup.local_port))
        .await
        .unwrap();
    let mut tunnel = setup.start(&flags);
    assert_eq!(
        tunnel.wait_for("outputs").await["outputs"]["verified"],
        "unverified"
    );
    assert!(tunnel.has_said("log"), "{}", tunnel.stderr());
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;

    for proof in ["require", "nonce", "origin"] {
        let wanted = setup.command(&[flags[0], flags[1], ("verify", proof)]);
        failure(&setup, wanted, "tunnel.unverified", 1).await;
    }
    let mut tunnel = setup.start(&[flags[0], flags[1], ("verify", "tcp")]);
    assert_eq!(
        tunnel.wait_for("outputs").await["outputs"]["verified"],
        "tcp"
    );
}

#[tokio::test]
async fn a_way_that_closes_while_ready_is_told_and_so_is_its_return() {
    let setup = Setup::new(no_gateway_ports()).await;
    let port = *setup.ports.start();
    let one = port.to_string();
    let mut relays = JoinSet::new();
    relays.spawn(relay(
        TcpListener::bind((PUBLIC, port)).await.unwrap(),
        port,
    ));
    let flags = [
        AT_PUBLIC,
        ("remote-port-range", one.as_str()),
        ("probe-interval", "0.1"),
    ];
    let mut tunnel = setup.start(&flags);
    tunnel.wait_for("ready").await;
    relays.shutdown().await;
    let degraded = tunnel.wait_for("degraded").await;
    assert_eq!(
        degraded["error"]["code"], "tunnel.port_unreachable",
        "{degraded}"
    );
    relays.spawn(relay(
        TcpListener::bind((PUBLIC, port)).await.unwrap(),
        port,
    ));
    assert_eq!(tunnel.wait_for("ready").await["gen"], 1);
}

#[tokio::test]
async fn an_alias_of_ssh_config_is_enough() {
    let setup = Setup::new(Options::default()).await;
    let config = setup.sshd.file("ssh_config");
    let lines = [
        "Host proxy".to_owned(),
        "HostName 127.0.0.1".to_owned(),
        format!("Port {}", setup.sshd.port()),
        format!("User {}", setup.sshd.user()),
        format!("IdentityFile {}", setup.sshd.key().display()),
        format!("UserKnownHostsFile {}", setup.sshd.known_hosts().display()),
        // What a user may have there for shells, and what would get in the way.
        "ControlMaster auto".to_owned(),
        "ControlPath /nonexistent/%C".to_owned(),
        "ControlPersist 60".to_owned(),
        "RemoteCommand sleep 60".to_owned(),
        "RequestTTY yes".to_owned(),
        "ForkAfterAuthentication yes".to_owned(),
        "LogLevel QUIET".to_owned(),
        format!("RemoteForward {} 127.0.0.1:1", setup.ports.start()),
        "Ciphers aes256-ctr".to_owned(),
    ];
    std::fs::write(&config, lines.join("\n")).unwrap();
    let mut command = setup.verb("run");
    command.arg("--reverse-proxy-host=proxy");
    command.arg("--ssh-config-path").arg(config);
    let range = format!("{},{}", setup.ports.start(), setup.ports.end());
    command.arg("--remote-port-range").arg(range);
    command.args(["--local-port", &setup.local_port.to_string()]);
    let mut tunnel = StageClient::start(command);
    let outputs = tunnel.wait_for("outputs").await["outputs"].take();
    tunnel.wait_for("ready").await;
    let expected = json!(["127.0.0.1", "127.0.0.1", "origin"]);
    assert_eq!(
        json!([outputs["host"], outputs["ssh_host"], outputs["verified"]]),
        expected
    );
    tunnel.signal(Signal::TERM);
    let (status, took) = tunnel.wait().await;
    assert!(status.success() && took <= STOP, "{status} after {took:?}");
    leaks::gone("what it started", || setup.left()).await;
}

#[tokio::test]
async fn a_lost_connection_comes_back_on_the_same_port() {
    let mut setup = Setup::new(Options::default()).await;
    let mut tunnel = setup.start(&[]);
    let port = port_of(&tunnel.wait_for("outputs").await);
    tunnel.wait_for("ready").await;

    setup.sshd.drop_sessions().unwrap();
    assert_eq!(
        tunnel.wait_for("degraded").await["error"]["code"],
        "tunnel.connection_lost"
    );
    assert_eq!(tunnel.wait_for("ready").await["gen"], 1, "the same outputs");

    setup.sshd.stop().await.unwrap();
    assert_eq!(
        tunnel.wait_for("degraded").await["error"]["code"],
        "tunnel.connection_lost"
    );
    assert_eq!(
        tunnel.wait_for("degraded").await["error"]["code"],
        "tunnel.server_refused"
    );
    setup.sshd.resume().await.unwrap();
    assert_eq!(tunnel.wait_for("ready").await["gen"], 1);

    let mut master = JoinSet::new();
    master.spawn(shout(
        TcpListener::bind((Ipv4Addr::LOCALHOST, setup.local_port))
            .await
            .unwrap(),
    ));
    assert_eq!(ask(port, "again").await.unwrap(), "AGAIN");
}

#[tokio::test]
async fn a_port_that_stays_lost_is_replaced_and_the_outputs_say_so() {
    let mut setup = Setup::new(Options::default()).await;
    let mut tunnel = setup.start(&[("keep-port", "0.1")]);
    let before = port_of(&tunnel.wait_for("outputs").await);
    tunnel.wait_for("ready").await;
    setup.sshd.stop().await.unwrap();
    tunnel.wait_for("degraded").await;
    leaks::gone("the listener", || {
        if leaks::is_listening(before) {
            vec![before]
        } else {
            vec![]
        }
    })
    .await;
    let _taken = take([before]).await;
    setup.sshd.resume().await.unwrap();
    let outputs = tunnel.wait_for("outputs").await;
    assert_eq!(outputs["gen"], 2);
    assert_ne!(port_of(&outputs), before);
    tunnel.wait_for("ready").await;
    let why = format!("port {before} could not be had again, it is");
    assert!(tunnel.stderr().contains(&why), "{}", tunnel.stderr());
    assert!(tunnel.stderr().contains("somebody else listens there"));
}

#[tokio::test]
async fn a_pinned_port_is_never_replaced() {
    let mut setup = Setup::new(Options::default()).await;
    let flags = [("keep-port", "0.1"), ("port-policy", "pinned")];
    let mut tunnel = setup.start(&flags);
    let before = port_of(&tunnel.wait_for("outputs").await);
    tunnel.wait_for("ready").await;
    setup.sshd.stop().await.unwrap();
    tunnel.wait_for("degraded").await;
    let listening = || {
        leaks::is_listening(before)
            .then_some(before)
            .into_iter()
            .collect()
    };
    leaks::gone("the listener", listening).await;
    let taken = take([before]).await;
    setup.sshd.resume().await.unwrap();
    let error = tunnel.wait_for("error").await;
    assert_eq!(error["error"]["code"], "tunnel.pinned_port_lost", "{error}");
    assert_eq!(tunnel.wait().await.0.code(), Some(75));
    failure(&setup, setup.command(&flags), "tunnel.port_taken", 75).await;
    drop(taken);
    let mut tunnel = setup.start(&flags);
    assert_eq!(port_of(&tunnel.wait_for("outputs").await), before);
    tunnel.wait_for("ready").await;
}

#[tokio::test]
async fn a_port_on_all_addresses_is_said_to_be_open_to_all() {
    let setup = Setup::new(Options::default()).await;
    let open = "is open to whoever can reach it";
    let mut tunnel = setup.start(&[]);
    tunnel
        .wait_until("the warning", |m| {
            m["type"] == "log"
                && m["message"]
                    .as_str()
                    .is_some_and(|text| text.contains(open))
        })
        .await;
    tunnel.wait_for("ready").await;
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;
    let mut tunnel = setup.start(&[("bind-address", "127.0.0.1")]);
    tunnel.wait_for("ready").await;
    assert!(!tunnel.has_said("log"), "{}", tunnel.stderr());
}

#[tokio::test]
async fn the_next_run_asks_for_the_same_port_first() {
    let setup = Setup::new(Options::default()).await;
    let mut ports = Vec::new();
    for _ in 0..4 {
        let mut tunnel = setup.start(&[]);
        ports.push(port_of(&tunnel.wait_for("outputs").await));
        tunnel.signal(Signal::TERM);
        tunnel.wait().await;
    }
    assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
}

#[tokio::test]
async fn sigterm_ends_it_in_time_and_leaves_nothing() {
    let setup = Setup::new(Options::default()).await;
    let mut tunnel = setup.start(&[]);
    tunnel.wait_for("ready").await;
    tunnel.signal(Signal::TERM);
    let (status, took) = tunnel.wait().await;
    let left = setup.left();
    assert!(status.success() && took <= STOP, "{status} after {took:?}");
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(
        leaks::files(&setup.home.path().join("state")),
        Vec::<std::path::PathBuf>::new(),
        "the ledger is settled"
    );
}

#[tokio::test]
async fn sigterm_while_the_server_does_not_answer_ends_it_in_time_too() {
    let setup = Setup::new(Options::default()).await;
    let mut tunnel = setup.start(&[]);
    tunnel.wait_for("ready").await;
    let sessions = setup.sshd.sessions().unwrap();
    for pid in &sessions {
        rustix::process::kill_process(*pid, Signal::STOP).unwrap();
    }
    tunnel.signal(Signal::TERM);
    let (status, took) = tunnel.wait().await;
    assert!(status.success() && took <= STOP, "{status} after {took:?}");
    let left = leaks::processes(&setup.home.mark());
    assert!(left.is_empty(), "{left:?}");

    let silent = any_listener().await;
    let silent_port = silent.local_addr().unwrap().port().to_string();
    let mut tunnel = setup.start(&[("ssh-port", &silent_port)]);
    tunnel.wait_for("progress").await;
    tunnel.signal(Signal::TERM);
    let (status, took) = tunnel.wait().await;
    assert!(
        status.success() && took <= STOP,
        "while it connects: {status} after {took:?}"
    );
}

#[tokio::test]
async fn a_killed_tunnel_leaves_no_ssh_and_no_listener_and_the_next_run_works() {
    let setup = Setup::new(Options::default()).await;
    for moment in ["hello", "progress", "outputs", "ready"] {
        let mut tunnel = setup.start(&[]);
        tunnel.wait_for(moment).await;
        tunnel.signal(Signal::KILL);
        tunnel.wait().await;
        leaks::gone(&format!("what a tunnel killed at {moment} started"), || {
            setup.left()
        })
        .await;
    }
    let mut tunnel = setup.start(&[]);
    tunnel.wait_for("ready").await;
}

#[tokio::test]
async fn cleanup_removes_what_is_left_when_ssh_was_killed_too() {
    let setup = Setup::new(Options::default()).await;
    let mut tunnel = setup.start(&[]);
    tunnel.wait_for("ready").await;
    let ssh = leaks::processes(&setup.home.mark());
    let ssh = ssh
        .iter()
        .find(|process| process.contains(" -M "))
        .expect("no ssh");
    let ssh = ssh.split(' ').next().unwrap().parse().unwrap();
    tunnel.signal(Signal::STOP);
    rustix::process::kill_process(rustix::process::Pid::from_raw(ssh).unwrap(), Signal::KILL)
        .unwrap();
    tunnel.signal(Signal::KILL);
    tunnel.wait().await;
    assert!(
        setup.left().iter().any(|left| left.ends_with(".ssh")),
        "{:?}",
        setup.left()
    );
    for _ in 0..2 {
        let mut cleanup = StageClient::start(setup.verb("cleanup"));
        assert!(cleanup.wait().await.0.success(), "{}", cleanup.stderr());
    }
    leaks::gone("what a cleaned-up tunnel started", || setup.left()).await;
}

#[tokio::test]
async fn check_tells_whether_the_port_leads_here_now() {
    let mut setup = Setup::new(Options::default()).await;
    let exit = async |setup: &Setup| {
        StageClient::start(setup.verb("check"))
            .wait()
            .await
            .0
            .code()
    };
    assert_eq!(exit(&setup).await, Some(5), "before any run");
    let mut tunnel = setup.start(&[]);
    tunnel.wait_for("ready").await;
    assert_eq!(exit(&setup).await, Some(0), "with a free local port");
    let master = TcpListener::bind((Ipv4Addr::LOCALHOST, setup.local_port))
        .await
        .unwrap();
    assert_eq!(exit(&setup).await, Some(0), "with the master at home");
    drop(master);
    setup.sshd.stop().await.unwrap();
    assert_eq!(exit(&setup).await, Some(5), "with the server gone");
}

#[tokio::test]
async fn once_is_refused_because_a_tunnel_holds_only_while_it_runs() {
    let setup = Setup::new(Options::default()).await;
    let mut once = StageClient::start({
        let mut command = setup.verb("once");
        command.args(["--reverse-proxy-host", "127.0.0.1"]);
        command
    });
    assert_eq!(once.wait().await.0.code(), Some(2));
    assert!(
        once.stderr().contains("protocol.once_unsupported"),
        "{}",
        once.stderr()
    );
}
