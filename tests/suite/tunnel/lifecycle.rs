//! The tunnel against a real sshd on the same machine: the server's ports are this machine's ports.

use std::net::Ipv4Addr;

use rustix::process::Signal;
use serde_json::json;
use support::tunnel::{Setup, any_listener, ask, failure, port_of, shout, take};
use support::{Options, StageClient, free_ports, leaks};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[tokio::test]
async fn a_port_in_use_is_skipped_and_a_visitor_reaches_the_local_port() {
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
async fn after_sigkill_and_gc_the_next_run_asks_for_the_same_port_first() {
    let setup = Setup::new(Options::default()).await;
    let wide = free_ports(60);
    let range = format!("{}-{}", wide.start(), wide.end());
    let start = async || {
        let mut tunnel = setup.start(&[("remote-port-range", &range)]);
        let port = port_of(&tunnel.wait_for("outputs").await);
        tunnel.wait_for("ready").await;
        (tunnel, port)
    };
    let end = async |mut tunnel: StageClient, signal: Signal| {
        tunnel.signal(signal);
        tunnel.wait().await;
    };
    let outputs = setup.home.run_dir().join("outputs");
    let clean_tmp = || std::fs::remove_dir_all(&outputs).expect("no outputs");

    let (tunnel, first) = start().await;
    end(tunnel, Signal::TERM).await;
    clean_tmp();
    let (tunnel, again) = start().await;
    assert_eq!(again, first, "the first choice is that of the instance");
    end(tunnel, Signal::TERM).await;
    // Another program has the first choice, so that only a memory leads to the next one.
    let taken = take([first]).await;
    let (tunnel, second) = start().await;
    assert_ne!(second, first);
    end(tunnel, Signal::KILL).await;
    drop(taken);
    let mut gc = setup.verb("cleanup");
    assert!(
        gc.arg("--keep")
            .status()
            .await
            .expect("no tunnel")
            .success()
    );
    assert!(!outputs.join("tunnel.json").exists());
    let (tunnel, again) = start().await;
    assert_eq!(again, second, "after gc");
    end(tunnel, Signal::KILL).await;
    clean_tmp();
    let (tunnel, again) = start().await;
    assert_eq!(again, second, "without outputs");
    end(tunnel, Signal::KILL).await;
    let by_hand = setup.verb("cleanup").status().await.expect("no tunnel");
    assert!(by_hand.success());
    let state = leaks::files(&setup.home.path().join("state"));
    assert!(state.is_empty(), "{state:?}");
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
        // A user's settings for interactive sessions, and settings that could interfere.
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
    assert!(tunnel.wait().await.0.success(), "{}", tunnel.stderr());
    leaks::gone("what it started", || setup.left()).await;
}

#[tokio::test]
async fn after_a_lost_connection_it_reconnects_on_the_same_port() {
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
async fn a_port_that_stays_lost_is_replaced_in_the_outputs() {
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
    let why = format!("port {before} is not available again; the port is");
    assert!(tunnel.stderr().contains(&why), "{}", tunnel.stderr());
    assert!(tunnel.stderr().contains("another program listens there"));
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
async fn the_next_run_requests_the_same_port_first() {
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
async fn sigterm_ends_it_and_leaves_nothing() {
    let setup = Setup::new(Options::default()).await;
    let mut tunnel = setup.start(&[]);
    tunnel.wait_for("ready").await;
    tunnel.signal(Signal::TERM);
    let (status, _) = tunnel.wait().await;
    let left = setup.left();
    assert!(status.success(), "{}", tunnel.stderr());
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(
        leaks::state(&setup.home),
        Vec::<std::path::PathBuf>::new(),
        "the ledger is settled"
    );
}

#[tokio::test]
async fn sigterm_while_the_server_does_not_answer_ends_it_too() {
    let setup = Setup::new(Options::default()).await;
    // ssh's own timeout is longer than this test waits.
    let patient = [("keepalive-interval", "600"), ("connect-timeout", "600")];
    let mut tunnel = setup.start(&patient);
    tunnel.wait_for("ready").await;
    let sessions = setup.sshd.sessions().unwrap();
    for pid in &sessions {
        rustix::process::kill_process(*pid, Signal::STOP).unwrap();
    }
    tunnel.signal(Signal::TERM);
    assert!(tunnel.wait().await.0.success(), "{}", tunnel.stderr());
    let left = leaks::processes(&setup.home.mark());
    assert!(left.is_empty(), "{left:?}");

    let silent = any_listener().await;
    let silent_port = silent.local_addr().unwrap().port().to_string();
    let mut tunnel = setup.start(&[&patient[..], &[("ssh-port", &silent_port)]].concat());
    tunnel.wait_for("progress").await;
    tunnel.signal(Signal::TERM);
    assert!(tunnel.wait().await.0.success(), "{}", tunnel.stderr());
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
async fn cleanup_also_removes_what_a_killed_ssh_left() {
    let setup = Setup::new(Options::default()).await;
    let mut tunnel = setup.start(&[]);
    tunnel.wait_for("ready").await;
    let ssh = setup.ssh();
    tunnel.signal(Signal::STOP);
    rustix::process::kill_process(ssh, Signal::KILL).unwrap();
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
async fn check_shows_whether_the_port_leads_here_now() {
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
async fn once_is_refused_because_a_tunnel_exists_only_while_it_runs() {
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
