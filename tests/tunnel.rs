//! The tunnel against a real sshd, on the same machine: the server's ports are this machine's ports.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Home, Options, StageClient, TestSshd, bin, free_ports, leaks, start_sshd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;

/// What a stage may take from SIGTERM to its end.
const STOP: Duration = Duration::from_millis(500);

struct Setup {
    sshd: TestSshd,
    home: Home,
    ports: RangeInclusive<u16>,
    local_port: u16,
}

impl Setup {
    async fn new(options: Options) -> Setup {
        let ports = free_ports(4);
        let local_port = *ports.end();
        let ports = *ports.start()..=local_port - 1;
        Setup {
            sshd: start_sshd(options).await,
            home: Home::new(),
            ports,
            local_port,
        }
    }

    /// The tunnel's command line, with the server's key known and three ports to choose from; `flags` win.
    fn command(&self, flags: &[(&str, &str)]) -> Command {
        let (key, known_hosts) = (self.sshd.key(), self.sshd.known_hosts());
        let mut all = BTreeMap::from([
            ("reverse-proxy-host", "127.0.0.1".to_owned()),
            ("ssh-config-path", "none".to_owned()),
            ("ssh-port", self.sshd.port().to_string()),
            ("ssh-user", self.sshd.user().to_owned()),
            ("ssh-key-path", key.display().to_string()),
            ("known-hosts-path", known_hosts.display().to_string()),
            (
                "remote-port-range",
                format!("{}-{}", self.ports.start(), self.ports.end()),
            ),
            ("local-port", self.local_port.to_string()),
        ]);
        all.extend(
            flags
                .iter()
                .map(|(flag, value)| (*flag, (*value).to_owned())),
        );
        let mut command = self.verb("run");
        command.args(
            all.into_iter()
                .map(|(flag, value)| format!("--{flag}={value}")),
        );
        command
    }

    fn verb(&self, verb: &str) -> Command {
        let mut command = self.home.command(&bin("devcluster-tunnel"));
        command.arg(verb).arg("--run-dir").arg(self.home.run_dir());
        command
    }

    fn start(&self, flags: &[(&str, &str)]) -> StageClient {
        StageClient::start(self.command(flags))
    }

    /// Everything that a tunnel may leave on the machine, besides the run directory's own files.
    fn left(&self) -> Vec<String> {
        let mut left = leaks::processes(&self.home.mark());
        left.extend(
            self.ports
                .clone()
                .filter(|p| leaks::is_listening(*p))
                .map(|p| format!("port {p}")),
        );
        let sockets = leaks::files(self.home.path()).into_iter();
        left.extend(
            sockets
                .filter(|f| f.extension().is_some_and(|e| e == "ssh"))
                .map(|f| f.display().to_string()),
        );
        left
    }
}

fn port_of(outputs: &Value) -> u16 {
    u16::try_from(outputs["outputs"]["port"].as_u64().unwrap()).unwrap()
}

/// Starts the tunnel, which has to fail in this way, and returns its error.
async fn failure(setup: &Setup, command: Command, code: &str, exit: i32) -> Value {
    let mut tunnel = StageClient::start(command);
    let error = tunnel.wait_for("error").await["error"].take();
    let (status, _) = tunnel.wait().await;
    assert_eq!(
        (error["code"].as_str(), status.code()),
        (Some(code), Some(exit)),
        "{error}"
    );
    assert!(!tunnel.has_said("ready"), "{}", tunnel.stderr());
    assert!(
        error["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
        "no mend: {error}"
    );
    leaks::gone("processes of a failed tunnel", || {
        leaks::processes(&setup.home.mark())
    })
    .await;
    error
}

/// Takes ports as another program on the server would.
async fn take(ports: impl IntoIterator<Item = u16>) -> Vec<TcpListener> {
    let mut taken = Vec::new();
    for port in ports {
        taken.push(
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
                .await
                .unwrap(),
        );
    }
    taken
}

/// Answers every visitor of the local port in capitals.
async fn shout(listener: TcpListener) {
    let mut visitors = JoinSet::new();
    while let Ok((mut visitor, _)) = listener.accept().await {
        visitors.spawn(async move {
            let mut text = String::new();
            visitor.read_to_string(&mut text).await.unwrap();
            visitor
                .write_all(text.to_uppercase().as_bytes())
                .await
                .unwrap();
        });
    }
}

async fn ask(port: u16, text: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
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
        ask(port, "hello through the tunnel").await,
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

#[tokio::test]
async fn an_exhausted_range_says_so() {
    let setup = Setup::new(Options::default()).await;
    let _taken = take(setup.ports.clone()).await;
    let error = failure(
        &setup,
        setup.command(&[]),
        "tunnel.port_range_exhausted",
        75,
    )
    .await;
    let range = format!("{}-{}", setup.ports.start(), setup.ports.end());
    assert!(
        error["message"].as_str().unwrap().contains(&range),
        "{error}"
    );
}

async fn make_key(path: &Path, passphrase: &str) {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", passphrase, "-f"])
        .arg(path);
    assert!(command.status().await.unwrap().success());
}

#[tokio::test]
async fn a_key_that_cannot_be_used_says_why() {
    let home = Home::new();
    let (wrong, locked) = (home.path().join("wrong"), home.path().join("locked"));
    make_key(&wrong, "").await;
    make_key(&locked, "secret").await;
    let authorized_keys = vec![locked.with_extension("pub")];
    let setup = Setup::new(Options {
        authorized_keys,
        ..Options::default()
    })
    .await;
    let open = setup.sshd.file("open");
    std::fs::copy(setup.sshd.key(), &open).unwrap();
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let junk = setup.sshd.file("junk");
    std::fs::copy(setup.sshd.known_hosts(), &junk).unwrap();
    std::fs::set_permissions(&junk, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

    for (key, code) in [
        (wrong.clone(), "tunnel.key_refused"),
        (locked, "tunnel.key_locked"),
        (open, "tunnel.key_permissions"),
        (junk, "tunnel.key_invalid"),
        (wrong.with_extension("pub"), "tunnel.key_invalid"),
        (home.path().join("none"), "tunnel.key_missing"),
    ] {
        let key = key.to_str().unwrap();
        let command = setup.command(&[("ssh-key-path", key)]);
        let error = failure(&setup, command, code, 1).await;
        assert!(error["message"].as_str().unwrap().contains(key), "{error}");
    }
}

#[tokio::test]
async fn a_host_key_that_is_unknown_or_changed_is_refused() {
    let setup = Setup::new(Options::default()).await;
    let known_hosts = setup.home.path().join("known_hosts");
    let with = |policy| {
        let path = known_hosts.to_str().unwrap();
        setup.command(&[("known-hosts-path", path), ("host-key-policy", policy)])
    };
    failure(&setup, with("strict"), "tunnel.host_key_unknown", 1).await;
    assert!(!known_hosts.exists(), "strict learns nothing");

    let mut tunnel = StageClient::start(with("accept-new"));
    tunnel.wait_for("ready").await;
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;

    let learnt = std::fs::read_to_string(&known_hosts).unwrap();
    let place = learnt.split_whitespace().next().unwrap();
    let other = std::fs::read_to_string(setup.sshd.key().with_extension("pub")).unwrap();
    std::fs::write(&known_hosts, format!("{place} {other}")).unwrap();
    let error = failure(&setup, with("accept-new"), "tunnel.host_key_changed", 1).await;
    assert!(
        error["hint"].as_str().unwrap().contains("ssh-keygen"),
        "{error}"
    );

    let mut tunnel = StageClient::start(with("off"));
    tunnel.wait_for("ready").await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_says_why() {
    let setup = Setup::new(Options::default()).await;
    let closed = setup.ports.start().to_string();
    let (no_ssh, silent) = (any_listener().await, any_listener().await);
    let no_ssh_port = no_ssh.local_addr().unwrap().port().to_string();
    let silent_port = silent.local_addr().unwrap().port().to_string();
    let mut hangs_up = JoinSet::new();
    hangs_up.spawn(async move { while no_ssh.accept().await.is_ok() {} });

    for (flag, value, code) in [
        ("ssh-port", closed.as_str(), "tunnel.server_refused"),
        ("ssh-port", &no_ssh_port, "tunnel.server_hung_up"),
        ("ssh-port", &silent_port, "tunnel.server_unreachable"),
        (
            "reverse-proxy-host",
            "no-such-host.invalid",
            "tunnel.host_unknown",
        ),
    ] {
        let command = setup.command(&[(flag, value), ("connect-timeout", "1")]);
        failure(&setup, command, code, 75).await;
    }
}

#[tokio::test]
async fn a_machine_without_ssh_says_what_to_install() {
    let setup = Setup::new(Options::default()).await;
    let mut command = setup.command(&[]);
    command.env("PATH", "/nonexistent");
    let error = failure(&setup, command, "tunnel.ssh_missing", 1).await;
    assert!(
        error["hint"].as_str().unwrap().contains("openssh-client"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_forwards_nothing_or_not_these_ports_says_so() {
    let forbidden = Options {
        allow_tcp_forwarding: "no".into(),
        ..Options::default()
    };
    let setup = Setup::new(forbidden).await;
    failure(&setup, setup.command(&[]), "tunnel.forwarding_forbidden", 1).await;

    let other_ports = Options {
        extra: vec!["PermitListen 1".into()],
        ..Options::default()
    };
    let setup = Setup::new(other_ports).await;
    failure(&setup, setup.command(&[]), "tunnel.ports_not_permitted", 1).await;
}

async fn any_listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

/// Leads to this machine as 127.0.0.1 does, and a port bound to 127.0.0.1 is closed there: a public side.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const AT_PUBLIC: (&str, &str) = ("public-host", "127.0.0.2");

fn no_gateway_ports() -> Options {
    Options {
        gateway_ports: "no".into(),
        ..Options::default()
    }
}

#[tokio::test]
async fn gateway_ports_off_is_told_from_a_closed_way() {
    let setup = Setup::new(no_gateway_ports()).await;
    let error = failure(
        &setup,
        setup.command(&[AT_PUBLIC]),
        "tunnel.gateway_ports_off",
        1,
    )
    .await;
    assert!(
        error["hint"].as_str().unwrap().contains("GatewayPorts"),
        "{error}"
    );

    // A server that runs no command for us cannot say where it listens.
    let silent = Options {
        extra: vec!["ForceCommand /bin/false".into()],
        ..no_gateway_ports()
    };
    let setup = Setup::new(silent).await;
    failure(
        &setup,
        setup.command(&[AT_PUBLIC]),
        "tunnel.port_unreachable",
        75,
    )
    .await;
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

    let required = setup.command(&[flags[0], flags[1], ("verify", "require")]);
    failure(&setup, required, "tunnel.unverified", 1).await;
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
    assert_eq!(ask(port, "again").await, "AGAIN");
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
