//! An sshd of our own: on a free loopback port, with keys made on the spot, as whoever runs us.
//!
//! It shows the stages the server that a developer has in the cloud. The tests start theirs here too.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use protocol::child::{self, Leashed};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStderr;
use tokio::sync::watch;
use tokio::task::JoinSet;

const GET_SSHD: &str = include_str!("../../../../scripts/get-sshd");

/// sshd is up in well under a second; a machine that is busy building may need longer.
const START: Duration = Duration::from_secs(20);

/// What a test or a user may want of the server.
#[derive(Clone, Debug)]
pub struct Options {
    /// sshd's own word: `yes`, `no` or `clientspecified`.
    pub gateway_ports: String,
    /// sshd's own word: `yes`, `no`, `local` or `remote`.
    pub allow_tcp_forwarding: String,
    /// More lines for sshd_config.
    pub extra: Vec<String>,
    /// Public keys that may log in besides the server's own user key.
    pub authorized_keys: Vec<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            gateway_ports: "clientspecified".into(),
            allow_tcp_forwarding: "yes".into(),
            extra: Vec::new(),
            authorized_keys: Vec::new(),
        }
    }
}

/// A running sshd. It dies with the thread that started it; dropping it ends the server and its sessions.
#[derive(Debug)]
pub struct Sshd {
    program: PathBuf,
    dir: PathBuf,
    user: String,
    port: u16,
    server: Server,
}

/// The listening process and what it writes.
#[derive(Debug)]
struct Server {
    process: Leashed,
    log: watch::Receiver<Log>,
    _reader: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Log {
    lines: Vec<String>,
    ended: bool,
}

/// The path of a usable sshd: the machine's own, else Debian's unpacked below `dir`.
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
        "no sshd to be had:\n{}",
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(PathBuf::from(path.trim_end()))
}

impl Sshd {
    /// Starts `program` with its keys and config in `dir`, which is made when it is not there.
    pub async fn start(program: &Path, dir: &Path, options: &Options) -> Result<Sshd> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        let user = output_of(Command::new("id").arg("-un"))?;
        for key in ["host_key", "user_key"] {
            make_key(&dir.join(key))?;
        }
        write_authorized_keys(dir, &options.authorized_keys)?;

        // sshd cannot be told port 0, and another may take the port that was free a moment ago.
        let mut attempts = 0;
        loop {
            attempts += 1;
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
                .local_addr()?
                .port();
            write_config(dir, port, options)?;
            match launch(program, dir, port).await {
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

    /// Who may log in: whoever started the server.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The private key that may log in.
    pub fn key(&self) -> PathBuf {
        self.dir.join("user_key")
    }

    /// A known_hosts file that holds the server's key.
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.join("known_hosts")
    }

    /// What the server wrote so far.
    pub fn log(&self) -> String {
        self.server.log.borrow().lines.join("\n")
    }

    /// Waits until the server wrote a line that contains `text`.
    pub async fn wait_for_log(&mut self, text: &str, within: Duration) -> Result<()> {
        self.server.wait(within, |line| line.contains(text)).await
    }

    /// The processes that serve a connection, and what those started.
    pub fn sessions(&self) -> Result<Vec<Pid>> {
        self.server
            .process
            .child
            .id()
            .map_or_else(|| Ok(Vec::new()), descendants)
    }

    /// Ends every connection as a crash would. The server stays.
    pub fn drop_sessions(&self) -> Result<()> {
        kill_all(&self.sessions()?);
        Ok(())
    }

    /// Ends the server and its connections. [`Sshd::resume`] brings it back.
    pub async fn stop(&mut self) -> Result<()> {
        let sessions = self.sessions()?;
        self.server.process.child.kill().await?;
        kill_all(&sessions);
        Ok(())
    }

    /// Starts a stopped server again, on the same port and with the same keys.
    pub async fn resume(&mut self) -> Result<()> {
        self.server = launch(&self.program, &self.dir, self.port).await?;
        Ok(())
    }

    fn write_known_hosts(&self) -> Result<()> {
        let key = fs::read_to_string(self.dir.join("host_key.pub"))?;
        fs::write(
            self.known_hosts(),
            format!("[127.0.0.1]:{} {key}", self.port),
        )?;
        Ok(())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // The leash ends the server, and only it.
        drop(self.drop_sessions());
    }
}

fn kill_all(pids: &[Pid]) {
    for pid in pids {
        // One may have ended since, often because the one before it did.
        let _ = kill_process(*pid, Signal::KILL);
    }
}

fn make_key(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    output_of(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "devcluster", "-f"])
            .arg(path),
    )?;
    Ok(())
}

fn write_authorized_keys(dir: &Path, more: &[PathBuf]) -> Result<()> {
    let mut keys = fs::read_to_string(dir.join("user_key.pub"))?;
    for path in more {
        keys +=
            &fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    fs::write(dir.join("authorized_keys"), keys)?;
    Ok(())
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
         # The keys are in a directory of our own making, perhaps below a sticky /tmp.\n\
         StrictModes no\n\
         PrintMotd no\n\
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

async fn launch(program: &Path, dir: &Path, port: u16) -> Result<Server> {
    match Server::spawn(program, dir, port).await {
        Err(error) if make_privilege_separation_directory(&format!("{error:#}"))? => {
            Server::spawn(program, dir, port).await
        }
        result => result,
    }
}

/// Root's sshd wants an empty directory that only a running service makes.
fn make_privilege_separation_directory(error: &str) -> Result<bool> {
    let Some((_, rest)) = error.split_once("Missing privilege separation directory: ") else {
        return Ok(false);
    };
    let path = rest.lines().next().unwrap_or_default().trim();
    ensure!(
        rustix::process::geteuid().is_root(),
        "sshd needs the directory {path}"
    );
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .with_context(|| format!("cannot make {path}"))?;
    Ok(true)
}

impl Server {
    async fn spawn(program: &Path, dir: &Path, port: u16) -> Result<Server> {
        let config = dir.join("sshd_config");
        let mut process = child::spawn(
            program,
            [
                "-D".as_ref(),
                "-e".as_ref(),
                "-f".as_ref(),
                config.as_os_str(),
            ],
        )
        .with_context(|| format!("cannot run {}", program.display()))?;
        let stderr = process.child.stderr.take().context("no stderr")?;
        let (lines, log) = watch::channel(Log::default());
        let mut reader = JoinSet::new();
        reader.spawn(read_log(stderr, lines));

        let mut server = Server {
            process,
            log,
            _reader: reader,
        };
        let up = format!("Server listening on 127.0.0.1 port {port}.");
        if let Err(error) = server.wait(START, |line| line == up).await {
            bail!("{} did not start: {error:#}", program.display());
        }
        Ok(server)
    }

    async fn wait(&mut self, within: Duration, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let seen = |log: &Log| log.lines.iter().any(|line| wanted(line));
        let waited =
            tokio::time::timeout(within, self.log.wait_for(|log| log.ended || seen(log))).await;
        drop(waited);
        let log = self.log.borrow();
        if seen(&log) {
            Ok(())
        } else {
            Err(anyhow!("it wrote:\n{}", log.lines.join("\n")))
        }
    }
}

async fn read_log(stderr: ChildStderr, log: watch::Sender<Log>) {
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        log.send_modify(|log| log.lines.push(line));
    }
    log.send_modify(|log| log.ended = true);
}

/// All processes below `ancestor`.
fn descendants(ancestor: u32) -> Result<Vec<Pid>> {
    let mut parents = Vec::new();
    if let Ok(entries) = fs::read_dir("/proc") {
        for entry in entries.flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
            else {
                continue;
            };
            // "pid (name) state ppid", and the name may hold anything.
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let after_name = stat
                .rsplit_once(')')
                .map(|(_, rest)| rest)
                .unwrap_or_default();
            if let Some(Ok(parent)) = after_name.split_whitespace().nth(1).map(str::parse) {
                parents.push((pid, parent));
            }
        }
    } else {
        for line in output_of(Command::new("ps").args(["-A", "-o", "pid=,ppid="]))?.lines() {
            let mut numbers = line.split_whitespace().map(str::parse);
            if let (Some(Ok(pid)), Some(Ok(parent))) = (numbers.next(), numbers.next()) {
                parents.push((pid, parent));
            }
        }
    }
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(
            parents
                .iter()
                .filter(|(_, p)| *p == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    Ok(found[1..]
        .iter()
        .filter_map(|pid| Pid::from_raw(*pid as i32))
        .collect())
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
