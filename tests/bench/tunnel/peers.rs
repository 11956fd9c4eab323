//! The tunnel and comparable tools, each started to forward one port.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use support::{DEADLINE, Home, StageClient, TestSshd, bin, build_dir};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// The cipher that the tunnel prefers.
const OUR_CIPHER: &str = "aes128-gcm@openssh.com";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Ours,
    /// The tunnel with a guard in front of the master.
    Guarded,
    /// `ssh -N -R` with the cipher of the tunnel.
    SameCipher,
    /// `ssh -N -R` with its default cipher.
    Ssh,
    Autossh,
}

impl Peer {
    /// All tools that this machine has.
    pub(crate) fn all() -> Vec<Peer> {
        let mut all = vec![Peer::Ours, Peer::Guarded, Peer::SameCipher, Peer::Ssh];
        all.extend(autossh().map(|_| Peer::Autossh));
        all
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Ours => "ours",
            Peer::Guarded => "ours, guarded",
            Peer::SameCipher => "ssh -R, same cipher",
            Peer::Ssh => "ssh -R",
            Peer::Autossh => "autossh",
        }
    }
}

/// The machine's autossh, else that of scripts/get-autossh.
fn autossh() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("autossh"))
        .chain([build_dir().join("autossh/usr/lib/autossh/autossh")])
        .find(|program| program.exists())
}

/// The address of an ssh server, and its login.
pub(crate) struct Server<'a> {
    pub(crate) sshd: &'a TestSshd,
    pub(crate) host: Ipv4Addr,
    /// The port of the server, or of a relay to it.
    pub(crate) port: u16,
}

/// The ports at both ends of a tunnel.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    /// As a range: `8000-8001`.
    pub(crate) remote: String,
    pub(crate) local: u16,
}

impl Ends {
    pub(crate) fn one(remote: u16, local: u16) -> Ends {
        Ends {
            remote: format!("{remote}-{remote}"),
            local,
        }
    }
}

impl Server<'_> {
    /// The tunnel, with defaults as users have them.
    pub(crate) fn ours(&self, home: &Home, ends: &Ends) -> StageClient {
        StageClient::start(self.tunnel(home, ends))
    }

    fn tunnel(&self, home: &Home, ends: &Ends) -> Command {
        let mut command = home.command(&bin("devcluster-tunnel"));
        command.arg("run").arg("--run-dir").arg(home.run_dir());
        command.args(["--ssh-config-path=none", "--host-key-policy=off"]);
        command.arg("--ssh-key-path").arg(self.sshd.key());
        for (flag, value) in [
            ("--reverse-proxy-host", self.host.to_string()),
            ("--ssh-port", self.port.to_string()),
            ("--ssh-user", self.sshd.user().to_owned()),
            ("--remote-port-range", ends.remote.clone()),
            ("--local-port", ends.local.to_string()),
        ] {
            command.arg(flag).arg(value);
        }
        command.stdin(Stdio::null());
        command
    }

    /// The command line of ssh, or of its wrapper, up to the host's name.
    fn ssh(&self, home: &Home, program: &Path, options: &[&str]) -> Command {
        let mut command = home.command(program);
        command.args(["-F", "none", "-o", "BatchMode=yes"]);
        command.args(["-o", "StrictHostKeyChecking=no", "-o"]);
        command.args(["UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]);
        command.args(options).arg("-i").arg(self.sshd.key());
        command.arg("-p").arg(self.port.to_string());
        command.arg(format!("{}@{}", self.sshd.user(), self.host));
        command.stdin(Stdio::null());
        command
    }

    /// How long `ssh host true` takes.
    pub(crate) async fn ssh_true(&self, home: &Home) -> Duration {
        let mut command = self.ssh(home, "ssh".as_ref(), &[]);
        let from = Instant::now();
        let status = command.arg("true").status().await.expect("no ssh");
        assert!(status.success(), "ssh true: {status}");
        from.elapsed()
    }

    /// Forwards one port.
    pub(crate) async fn hold(&self, peer: Peer, port: u16, local: u16) -> Held {
        let home = Home::new();
        if let Peer::Ours | Peer::Guarded = peer {
            let mut command = self.tunnel(&home, &Ends::one(port, local));
            if peer == Peer::Guarded {
                command.arg("--guard=determined");
            }
            let mut stage = StageClient::start(command);
            stage.wait_for("ready").await;
            return Held {
                peer,
                port,
                process: Process::Stage(Box::new(stage)),
                _home: home,
            };
        }
        let forward = format!("0.0.0.0:{port}:127.0.0.1:{local}");
        // As the tunnel does.
        let mut options = vec!["-o", "ServerAliveInterval=3", "-o", "ServerAliveCountMax=2"];
        options.extend(["-o", "ConnectTimeout=10", "-o", "ExitOnForwardFailure=yes"]);
        options.extend(["-N", "-R", &forward]);
        let program = match peer {
            Peer::Autossh => {
                options.splice(0..0, ["-M", "0"]);
                autossh().expect("no autossh")
            }
            _ => "ssh".into(),
        };
        if peer == Peer::SameCipher {
            options.extend(["-c", OUR_CIPHER]);
        }
        let mut command = self.ssh(&home, &program, &options);
        command.env("AUTOSSH_GATETIME", "0");
        // autossh and its ssh end together.
        command.process_group(0).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().expect("no ssh");
        let held = Held {
            peer,
            port,
            process: Process::Group(child),
            _home: home,
        };
        let from = Instant::now();
        while TcpStream::connect((self.host, port)).await.is_err() {
            assert!(from.elapsed() < DEADLINE, "{peer:?} has no port");
            // Only root can see that sshd listens.
            sleep(Duration::from_millis(2)).await;
        }
        held
    }

    /// How long `ssh -N -R` takes until its port is open.
    pub(crate) async fn ssh_listening(&self, port: u16, local: u16) -> Duration {
        let from = Instant::now();
        let held = self.hold(Peer::Ssh, port, local).await;
        let took = from.elapsed();
        held.end().await;
        took
    }
}

/// A port, and the process that forwards it.
pub(crate) struct Held {
    pub(crate) peer: Peer,
    pub(crate) port: u16,
    process: Process,
    _home: Home,
}

enum Process {
    Stage(Box<StageClient>),
    Group(Child),
}

impl Held {
    pub(crate) fn pid(&self) -> Pid {
        match &self.process {
            Process::Stage(stage) => stage.pid(),
            Process::Group(child) => group(child).expect("it has ended"),
        }
    }

    pub(crate) fn stage(&mut self) -> Option<&mut StageClient> {
        match &mut self.process {
            Process::Stage(stage) => Some(stage),
            Process::Group(..) => None,
        }
    }

    pub(crate) async fn end(mut self) {
        match &mut self.process {
            Process::Stage(stage) => {
                stage.signal(Signal::TERM);
                stage.wait().await;
            }
            Process::Group(child) => {
                signal(child, Signal::TERM);
                timeout(DEADLINE, child.wait())
                    .await
                    .expect("it does not end")
                    .expect("no status");
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Process::Group(child) = self {
            signal(child, Signal::KILL);
        }
    }
}

fn group(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id()? as i32)
}

fn signal(child: &Child, signal: Signal) {
    if let Some(group) = group(child) {
        // It may have ended already.
        let _ = kill_process_group(group, signal);
    }
}
