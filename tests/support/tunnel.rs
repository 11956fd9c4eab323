//! What the tests of the tunnel share.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use rustix::process::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::netns::Netns;
use crate::traffic::{Echo, first_byte_through};
use crate::{
    DEADLINE, Home, Options, StageClient, TestSshd, bin, free_ports, leaks, start_sshd,
    start_sshd_by,
};

/// A server, a user's home, and the ports that they may use.
#[derive(Debug)]
pub struct Setup {
    pub sshd: TestSshd,
    pub home: Home,
    /// Three ports of the server to choose from.
    pub ports: RangeInclusive<u16>,
    /// Where the tunnel ends. Nothing listens there.
    pub local_port: u16,
}

impl Setup {
    pub async fn new(options: Options) -> Setup {
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

    /// The tunnel's config, with the server's key known and three ports to choose from.
    pub fn config(&self) -> Value {
        json!({
            "reverse_proxy_host": "127.0.0.1",
            "ssh_config_path": "none",
            "ssh_port": self.sshd.port(),
            "ssh_user": self.sshd.user(),
            "ssh_key_path": self.sshd.key(),
            "known_hosts_path": self.sshd.known_hosts(),
            "remote_port_range": format!("{}-{}", self.ports.start(), self.ports.end()),
            "local_port": self.local_port,
        })
    }

    /// The tunnel's command line, with the server's key known and three ports to choose from; `flags` win.
    pub fn command(&self, flags: &[(&str, &str)]) -> Command {
        self.with_config("run", flags)
    }

    /// The same for another verb that takes a config.
    pub fn with_config(&self, verb: &str, flags: &[(&str, &str)]) -> Command {
        let config = self.config();
        let fields = config.as_object().into_iter().flatten();
        let mut all: BTreeMap<String, String> = fields
            .map(|(field, value)| {
                let text = value.as_str().map_or(value.to_string(), str::to_owned);
                (field.replace('_', "-"), text)
            })
            .collect();
        all.extend(
            flags
                .iter()
                .map(|(f, v)| ((*f).to_owned(), (*v).to_owned())),
        );
        let mut command = self.verb(verb);
        command.args(
            all.into_iter()
                .map(|(flag, value)| format!("--{flag}={value}")),
        );
        command
    }

    /// Another verb for the same instance.
    pub fn verb(&self, verb: &str) -> Command {
        let mut command = self.home.command(&bin("devcluster-tunnel"));
        command.arg(verb).arg("--run-dir").arg(self.home.run_dir());
        command
    }

    pub fn start(&self, flags: &[(&str, &str)]) -> StageClient {
        StageClient::start(self.command(flags))
    }

    /// The ssh that holds the tunnel.
    pub fn ssh(&self) -> Pid {
        let all = leaks::processes(&self.home.mark());
        let ssh = all.iter().find(|process| process.contains(" -M "));
        let pid = ssh.and_then(|process| process.split(' ').next()?.parse().ok());
        pid.and_then(Pid::from_raw).expect("no ssh")
    }

    /// Everything that a tunnel may leave on the machine, besides the run directory's own files.
    pub fn left(&self) -> Vec<String> {
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
                .filter(|f| {
                    let extension = f.extension().and_then(|e| e.to_str());
                    extension.is_some_and(|e| e == "ssh" || e.starts_with("guard"))
                })
                .map(|f| f.display().to_string()),
        );
        left
    }
}

/// A tunnel that is ready, and the cable that it goes through. Needs root.
pub struct FarTunnel {
    pub netns: Netns,
    pub home: Home,
    pub stage: StageClient,
    pub port: u16,
    _sshd: TestSshd,
    _master: Echo,
}

impl FarTunnel {
    pub async fn start(flags: &[&str]) -> FarTunnel {
        let netns = Netns::claim();
        let options = Options {
            // Beside the loopback address, on ssh's own port: this network has no other hosts.
            extra: vec![format!("ListenAddress {}", netns.far())],
            ..Options::default()
        };
        let sshd = start_sshd_by(options, |program, dir| netns.wrapper(program, dir)).await;
        let (home, master) = (Home::new(), Echo::start().await);
        let mut command = home.command(&bin("devcluster-tunnel"));
        command.arg("run").arg("--run-dir").arg(home.run_dir());
        command.args(["--ssh-config-path=none", "--host-key-policy=off"]);
        command.args(["--reverse-proxy-host", &netns.far().to_string()]);
        command.arg("--ssh-key-path").arg(sshd.key());
        command.args(["--ssh-user", sshd.user(), "--remote-port-range=8000-9000"]);
        command.args(["--local-port", &master.port().to_string()]);
        let mut stage = StageClient::start({
            command.args(flags);
            command
        });
        let port = port_of(&stage.wait_for("outputs").await);
        stage.wait_for("ready").await;
        let far = FarTunnel {
            netns,
            home,
            stage,
            port,
            _sshd: sshd,
            _master: master,
        };
        far.first_byte_through().await;
        far
    }

    /// How long it takes from now on until a byte is through.
    pub async fn first_byte_through(&self) -> Duration {
        first_byte_through(self.netns.far(), self.port, DEADLINE)
            .await
            .expect("no byte through")
    }
}

/// The port in an `outputs` message.
pub fn port_of(outputs: &Value) -> u16 {
    let port = outputs["outputs"]["port"].as_u64();
    port.and_then(|port| port.try_into().ok())
        .expect("no port in the outputs")
}

/// Starts the tunnel, which has to fail in this way, and returns its error.
pub async fn failure(setup: &Setup, command: Command, code: &str, exit: i32) -> Value {
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
        "no hint: {error}"
    );
    leaks::gone("processes of a failed tunnel", || {
        leaks::processes(&setup.home.mark())
    })
    .await;
    error
}

/// Listens on ports as another program on the server would.
pub async fn take(ports: impl IntoIterator<Item = u16>) -> Vec<TcpListener> {
    let mut taken = Vec::new();
    for port in ports {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
        taken.push(listener.expect("the port is not free"));
    }
    taken
}

/// A listener on an unused port.
pub async fn any_listener() -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    listener.expect("no port at all is free")
}

/// Answers every visitor of the local port in capitals.
pub async fn shout(listener: TcpListener) {
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

pub async fn ask(port: u16, text: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Leads to this machine as 127.0.0.1 does, but a port bound to 127.0.0.1 is closed there: a public side.
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Makes the tunnel prove its arrival there.
pub const AT_PUBLIC: (&str, &str) = ("public-host", "127.0.0.2");

/// A server that listens for its users on loopback only.
pub fn no_gateway_ports() -> Options {
    Options {
        gateway_ports: "no".into(),
        ..Options::default()
    }
}
