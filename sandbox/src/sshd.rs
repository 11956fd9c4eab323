//! An sshd on a free loopback port, with new keys, run by the current user.
//!
//! It stands in for the ssh server in the cloud. The tests use it too.

mod server;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use server::Server;

const GET_SSHD: &str = include_str!("../../scripts/get-sshd");

/// Options of the server.
#[derive(Clone, Debug)]
pub struct Options {
    /// sshd's `GatewayPorts`: `yes`, `no` or `clientspecified`.
    pub gateway_ports: String,
    /// sshd's `AllowTcpForwarding`: `yes`, `no`, `local` or `remote`.
    pub allow_tcp_forwarding: String,
    /// More lines for sshd_config.
    pub extra: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            gateway_ports: "clientspecified".into(),
            allow_tcp_forwarding: "yes".into(),
            extra: Vec::new(),
        }
    }
}

/// A running sshd. It ends with the thread that started it; dropping it ends the server and its sessions.
#[derive(Debug)]
pub struct Sshd {
    program: PathBuf,
    dir: PathBuf,
    user: String,
    port: u16,
    server: Server,
}

/// The path of a usable sshd: the machine's own, else Debian's, unpacked below `dir`.
pub fn program(dir: &Path) -> Result<PathBuf> {
    let output = Command::new("sh")
        .args(["-c", GET_SSHD, "get-sshd"])
        .arg(dir)
        .stdin(Stdio::null())
        .output()
        .context("cannot run sh")?;
    let path = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success(),
        "no usable sshd:\n{}",
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(PathBuf::from(path.trim_end()))
}

impl Sshd {
    /// Starts `program` with its keys and config in `dir`, which is created if it does not exist.
    pub async fn start(program: &Path, dir: &Path, options: &Options) -> Result<Sshd> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        let user = output_of(Command::new("id").arg("-un"))?;
        for key in ["host_key", "user_key"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "devcluster", "-f"]);
            output_of(keygen.arg(dir.join(key)))?;
        }
        fs::copy(dir.join("user_key.pub"), dir.join("authorized_keys"))?;

        // sshd does not support port 0, and another process may take the free port meanwhile.
        let mut attempts = 0;
        loop {
            attempts += 1;
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
                .local_addr()?
                .port();
            write_config(dir, port, options)?;
            match Server::launch(program, dir, port).await {
                Ok(server) => {
                    let sshd = Sshd {
                        program: program.into(),
                        dir: dir.into(),
                        user,
                        port,
                        server,
                    };
                    sshd.write_known_hosts()?;
                    return Ok(sshd);
                }
                Err(error)
                    if attempts < 20 && format!("{error:#}").contains("Address already in use") => {
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The user that can log in: the one that started the server.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The private key of the login.
    pub fn key(&self) -> PathBuf {
        self.dir.join("user_key")
    }

    /// A known_hosts file with the server's key.
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.join("known_hosts")
    }

    /// The log of the server so far.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// The processes that serve connections, and their descendants.
    pub fn sessions(&self) -> Result<Vec<Pid>> {
        self.server.descendants()
    }

    /// Kills every connection. The server stays.
    pub fn drop_sessions(&self) -> Result<()> {
        kill_all(&self.sessions()?);
        Ok(())
    }

    /// Ends the server and its connections. [`Sshd::resume`] restarts it.
    pub async fn stop(&mut self) -> Result<()> {
        let sessions = self.sessions()?;
        self.server.kill().await?;
        kill_all(&sessions);
        Ok(())
    }

    /// Starts a stopped server again, on the same port and with the same keys.
    pub async fn resume(&mut self) -> Result<()> {
        self.server = Server::launch(&self.program, &self.dir, self.port).await?;
        Ok(())
    }

    fn write_known_hosts(&self) -> Result<()> {
        let key = fs::read_to_string(self.dir.join("host_key.pub"))?;
        let line = format!("[127.0.0.1]:{} {key}", self.port);
        Ok(fs::write(self.known_hosts(), line)?)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // Dropping the child ends the server, but not its sessions.
        drop(self.drop_sessions());
    }
}

fn kill_all(pids: &[Pid]) {
    for pid in pids {
        // A process may have ended meanwhile, often because its parent did.
        let _ = kill_process(*pid, Signal::KILL);
    }
}

fn write_config(dir: &Path, port: u16, options: &Options) -> Result<()> {
    let dir = dir.display();
    let mut config = format!(
        "ListenAddress 127.0.0.1:{port}\n\
         HostKey \"{dir}/host_key\"\n\
         AuthorizedKeysFile \"{dir}/authorized_keys\"\n\
         GatewayPorts {}\n\
         AllowTcpForwarding {}\n\
         PidFile none\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\n\
         # The keys are in a temporary directory, perhaps below a sticky /tmp.\n\
         StrictModes no\n\
         PrintMotd no\n\
         # The user's shell start-up files may be slow, or prompt.\n\
         SetEnv HOME=\"{dir}\"\n\
         LogLevel VERBOSE\n",
        options.gateway_ports, options.allow_tcp_forwarding
    );
    for line in &options.extra {
        config += line;
        config.push('\n');
    }
    fs::write(format!("{dir}/sshd_config"), config)?;
    Ok(())
}

fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?} failed ({}): {}",
        output.status,
        errors.trim_end()
    );
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}
