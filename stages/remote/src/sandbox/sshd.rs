//! An sshd of our own: on a free loopback port, with keys made on the spot, as whoever runs us.
//!
//! It shows the stages the server that a developer has in the cloud. The tests start theirs here too.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

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

/// A running sshd. Dropping it ends the server and its sessions.
#[derive(Debug)]
pub struct Sshd {
    program: PathBuf,
    dir: PathBuf,
    user: String,
    port: u16,
    child: Child,
    log: Arc<Log>,
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
    ensure!(output.status.success(), "no sshd to be had:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(PathBuf::from(path.trim_end()))
}

impl Sshd {
    /// Starts `program` with its keys, config and log in `dir`, which is made when it is not there.
    pub fn start(program: &Path, dir: &Path, options: &Options) -> Result<Sshd> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let user = output_of(Command::new("id").arg("-un"))?;
        for key in ["host_key", "user_key"] {
            make_key(&dir.join(key))?;
        }
        write_authorized_keys(dir, &options.authorized_keys)?;

        // sshd cannot be told port 0, so another may take the port that was free a moment ago.
        let mut attempts = 0;
        loop {
            attempts += 1;
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            write_config(dir, port, options)?;
            match launch(program, dir, port) {
                Ok((child, log)) => {
                    let sshd = Sshd { program: program.into(), dir: dir.into(), user, port, child, log };
                    sshd.write_known_hosts()?;
                    return Ok(sshd);
                }
                Err(error) if attempts < 20 && format!("{error}").contains("Address already in use") => {}
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
        self.log.text()
    }

    /// Waits until the server wrote a line that contains `text`.
    pub fn wait_for_log(&self, text: &str, within: Duration) -> Result<()> {
        self.log.wait(within, |line| line.contains(text)).map(drop)
    }

    /// The processes that serve a connection, and what those started.
    pub fn sessions(&self) -> Result<Vec<Pid>> {
        descendants(self.child.id())
    }

    /// Ends every connection as a crash would, without a word to the client. The server stays.
    pub fn drop_sessions(&self) -> Result<()> {
        for pid in self.sessions()? {
            // One may have ended since, often because the one before it did.
            kill_process(pid, Signal::KILL).or_else(|e| if e == rustix::io::Errno::SRCH { Ok(()) } else { Err(e) })?;
        }
        Ok(())
    }

    /// Ends the server and its connections. [`Sshd::resume`] brings it back.
    pub fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let sessions = self.sessions();
        self.child.kill()?;
        self.child.wait()?;
        for pid in sessions? {
            drop(kill_process(pid, Signal::KILL));
        }
        Ok(())
    }

    /// Starts a stopped server again, on the same port and with the same keys.
    pub fn resume(&mut self) -> Result<()> {
        self.stop()?;
        (self.child, self.log) = launch(&self.program, &self.dir, self.port)?;
        Ok(())
    }

    fn write_known_hosts(&self) -> Result<()> {
        let key = fs::read_to_string(self.dir.join("host_key.pub"))?;
        fs::write(self.known_hosts(), format!("[127.0.0.1]:{} {key}", self.port))?;
        Ok(())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        drop(self.stop());
    }
}

fn make_key(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    output_of(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "devcluster", "-f"]).arg(path))?;
    Ok(())
}

fn write_authorized_keys(dir: &Path, more: &[PathBuf]) -> Result<()> {
    let mut keys = fs::read_to_string(dir.join("user_key.pub"))?;
    for path in more {
        keys += &fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
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

fn launch(program: &Path, dir: &Path, port: u16) -> Result<(Child, Arc<Log>)> {
    match spawn(program, dir, port) {
        Err(error) if make_privilege_separation_directory(&format!("{error}"))? => spawn(program, dir, port),
        result => result,
    }
}

/// Root's sshd wants an empty directory that only a running service makes.
fn make_privilege_separation_directory(error: &str) -> Result<bool> {
    let Some((_, rest)) = error.split_once("Missing privilege separation directory: ") else { return Ok(false) };
    let path = rest.lines().next().unwrap_or_default().trim();
    ensure!(rustix::process::getuid().is_root(), "sshd needs the directory {path}");
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).with_context(|| format!("cannot make {path}"))?;
    Ok(true)
}

fn spawn(program: &Path, dir: &Path, port: u16) -> Result<(Child, Arc<Log>)> {
    let mut command = Command::new(program);
    command.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;

    let log = Arc::new(Log::default());
    let stderr = child.stderr.take().context("no stderr")?;
    std::thread::spawn({
        let log = log.clone();
        move || log.fill(BufReader::new(stderr))
    });
    if let Err(error) = log.wait(START, |line| line == format!("Server listening on 127.0.0.1 port {port}.")) {
        drop(child.kill());
        let status: ExitStatus = child.wait()?;
        bail!("{} did not start ({status}): {error:#}", program.display());
    }
    Ok((child, log))
}

/// Every line the server writes, for errors and for tests that wait for one.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

impl Log {
    fn fill(&self, reader: impl BufRead) {
        for line in reader.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.lines.lock().unwrap_or_else(PoisonError::into_inner).0.push(line);
            self.grown.notify_all();
        }
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.grown.notify_all();
    }

    fn wait(&self, within: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + within;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = lines.0.iter().find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!lines.1 && !left.is_zero(), "it wrote:\n{}", lines.0.join("\n"));
            lines = self.grown.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).0.join("\n")
    }
}

/// All processes below `ancestor`.
fn descendants(ancestor: u32) -> Result<Vec<Pid>> {
    let mut parents = Vec::new();
    if let Ok(entries) = fs::read_dir("/proc") {
        for entry in entries.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // "pid (name) state ppid", and the name may hold anything.
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
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
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(found[1..].iter().filter_map(|pid| Pid::from_raw(*pid as i32)).collect())
}

fn output_of(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed ({}): {}", output.status, errors.trim_end());
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
