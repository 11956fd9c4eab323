//! `sandbox`: the whole way on one machine, through the very same stages and stock devcluster.

use std::io::IsTerminal;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures::future::BoxFuture;
use protocol::program::{self, say};
use protocol::rundir::RunDir;
use protocol::{Env, Exit, StageError, child, codes};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::signal::unix::SignalKind;
use tokio::time::timeout;

use super::kube_api::{self, KubeApi};
use super::sshd::{self, Sshd};
use super::{master, told_to_end};

/// How long a pod may take to get through, with everything on one machine.
const WAY: Duration = Duration::from_secs(60);

/// How long the sandbox's Gateway takes to be programmed: long enough to see the gateway stage wait.
const PROGRAMMED_AFTER: Duration = Duration::from_secs(1);

fn failed(what: &str) -> impl FnOnce(anyhow::Error) -> StageError {
    move |e| {
        StageError::new(
            codes::PROGRAM_FAILED,
            format!("the sandbox has no {what}: {e:#}"),
        )
    }
}

/// Everything that stands in for the cloud.
struct Cloud {
    dir: tempfile::TempDir,
    sshd: Sshd,
    _api: KubeApi,
    file: PathBuf,
}

/// Runs the sandbox by the driver's `up`. With `check`, proves the way and ends.
pub(crate) async fn run(check: bool, env: &Env) -> Result<u8, StageError> {
    let driver = program::find("devcluster-remote", env)?;
    let cloud = Cloud::start(env).await?;
    let mut up = Command::new(&driver);
    up.args(["up", "--no-preflight", "-c"]).arg(&cloud.file);
    let outcome = match check {
        true => prove(up, &cloud).await,
        false => look_around(up).await,
    };
    cloud.stop().await?;
    outcome
}

fn start(up: &mut Command) -> Result<Child, StageError> {
    child::spawn_inheriting(up).map_err(|e| StageError::io("cannot start devcluster-remote", &e))
}

/// The driver has the terminal, where Ctrl-C reaches it by itself.
async fn look_around(mut up: Command) -> Result<u8, StageError> {
    let mut kinds = vec![SignalKind::terminate(), SignalKind::hangup()];
    if !std::io::stdin().is_terminal() {
        kinds.push(SignalKind::interrupt());
    }
    let mut told_to_end = listen(&kinds)?;
    let mut child = start(&mut up)?;
    loop {
        tokio::select! {
            ended = child.wait() => return code_of(ended),
            () = &mut told_to_end => {
                told_to_end = listen(&kinds)?;
                end(&child);
            }
        }
    }
}

fn listen(kinds: &[SignalKind]) -> Result<BoxFuture<'static, ()>, StageError> {
    told_to_end(kinds).map_err(|e| StageError::io("cannot listen to signals", &e))
}

fn end(child: &Child) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id as i32)) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn code_of(ended: std::io::Result<ExitStatus>) -> Result<u8, StageError> {
    let status = ended.map_err(|e| StageError::io("cannot wait for devcluster-remote", &e))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(Exit::Failed as u8))
}

impl Cloud {
    /// Where devcluster says how it goes, without a terminal.
    fn log(&self) -> PathBuf {
        self.dir.path().join("devcluster.log")
    }

    /// Where the stages meet.
    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("devcluster/stages")
    }

    fn tail(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    async fn start(env: &Env) -> Result<Cloud, StageError> {
        let dir = tempfile::Builder::new()
            .prefix("dcs-sandbox-")
            .tempdir()
            .map_err(|e| StageError::io("cannot make a directory for the sandbox", &e))?;
        let program = find_sshd(env)?;
        let sshd = Sshd::start(
            &program,
            &dir.path().join("sshd"),
            &sshd::Options::default(),
        )
        .await
        .map_err(failed("sshd"))?;
        say(&format!(
            "sandbox: an ssh server of its own listens on 127.0.0.1:{}",
            sshd.port()
        ));
        let options = kube_api::Options {
            programmed_after: Some(PROGRAMMED_AFTER),
            ..kube_api::Options::default()
        };
        let written = async {
            let api = KubeApi::start(options).await?;
            let kubeconfig = dir.path().join("kubeconfig");
            std::fs::write(&kubeconfig, api.kubeconfig("sandbox").to_string())?;
            let file = dir.path().join("devcluster.yaml");
            std::fs::write(&file, devcluster_yaml(dir.path(), &sshd, &kubeconfig)?)?;
            Ok((api, file))
        };
        let (api, file) = written
            .await
            .map_err(|e: std::io::Error| StageError::io("cannot set up the sandbox", &e))?;
        say(&format!(
            "sandbox: a stand-in for the Kubernetes API answers at {}",
            api.url()
        ));
        Ok(Cloud {
            dir,
            sshd,
            _api: api,
            file,
        })
    }

    async fn stop(mut self) -> Result<(), StageError> {
        self.sshd
            .stop()
            .await
            .map_err(failed("orderly end of its sshd"))?;
        self.dir
            .close()
            .map_err(|e| StageError::io("cannot remove the sandbox's directory", &e))
    }
}

/// `$DEVCLUSTER_SSHD`, the machine's own, or Debian's, which is fetched once.
fn find_sshd(env: &Env) -> Result<PathBuf, StageError> {
    if let Some(given) = env.path("DEVCLUSTER_SSHD") {
        return Ok(given);
    }
    let cache = env
        .path("XDG_CACHE_HOME")
        .unwrap_or_else(|| env.home().join(".cache"))
        .join("devcluster-remote");
    let has_own = env.find_program("sshd").is_some() || Path::new("/usr/sbin/sshd").exists();
    if !has_own && !cache.join("sshd").exists() {
        say(&format!(
            "sandbox: this machine has no sshd; unpacking Debian's into {}",
            cache.display()
        ));
    }
    sshd::program(&cache).map_err(failed("sshd"))
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

fn devcluster_yaml(dir: &Path, sshd: &Sshd, kubeconfig: &Path) -> std::io::Result<String> {
    let own = std::env::current_exe()?.display().to_string();
    let temp_dir = dir.join("devcluster").display().to_string();
    let config = format!("{temp_dir}/stages/master.yaml");
    let q = protocol::yaml::quote;
    let path = |p: PathBuf| q(&p.display().to_string());
    Ok(format!(
        "# What a developer writes. `devcluster-remote compile` turns it into what stock devcluster reads.
temp_dir: {temp_dir}
stages:
  # Pods reach the master through this ssh server.
  - tunnel:
      reverse_proxy_host: 127.0.0.1
      ssh_port: {port}
      ssh_user: {user}
      ssh_key_path: {key}
      known_hosts_path: {known_hosts}
      ssh_config_path: none
      remote_port_range: 20000-29999
      bind_address: 127.0.0.1
  # The master reaches tasks in the cluster through a Gateway.
  - gateway:
      kubeconfig: {kubeconfig}
  # The master gets what these two find out.
  - config-emit: {{}}
  - master:
      cmdline: [{own}, master, --config-file, \":config\"]
      config_file:
        cluster_name: sandbox-{id}
        port: {master_port}
        security:
          initial_user_password: only-a-sandbox  # the tunnel's port is public
        resource_manager:
          type: kubernetes
          max_slots_per_pod: 1
  # A pod that calls the master at the address it was told.
  - custom:
      name: pod
      cmd: [{own}, pod, --config-file, {config}, --every, \"2\"]
      kill_signal: SIGTERM
      post:
        - custom: [{own}, pod, --config-file, {config}]
",
        temp_dir = q(&temp_dir),
        port = sshd.port(),
        user = q(sshd.user()),
        key = path(sshd.key()),
        known_hosts = path(sshd.known_hosts()),
        kubeconfig = path(kubeconfig.to_owned()),
        own = q(&own),
        id = protocol::run_id(),
        master_port = free_port()?,
        config = q(&config),
    ))
}

/// Brings everything up, shows what came about, and takes it down again.
async fn prove(mut up: Command, cloud: &Cloud) -> Result<u8, StageError> {
    let log = std::fs::File::create(cloud.log())
        .map_err(|e| StageError::io("cannot make a log for devcluster", &e))?;
    // In a group of its own: a Ctrl-C is ours to act upon.
    up.stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::piped())
        .process_group(0);
    let mut told_to_end = listen(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    let mut child = start(&mut up)?;
    let mut lines = child.stderr.take().map(|e| BufReader::new(e).lines());
    let proved = tokio::select! {
        proved = timeout(WAY, wait_until_up(&mut lines)) => proved.unwrap_or_else(|_| {
            let message = format!("no pod got through in {} s", WAY.as_secs());
            Err(StageError::new(codes::PROGRAM_FAILED, message))
        }),
        () = &mut told_to_end => {
            Err(StageError::new(codes::INTERRUPTED, "stopped before the way was proved"))
        }
    };
    let shown = proved.and_then(|up| match up {
        true => show(cloud).map(|()| true),
        false => Ok(false),
    });
    end(&child);
    while next_line(&mut lines).await.is_some() {}
    let code = code_of(child.wait().await)?;
    match shown.map_err(|e| e.cause(format!("the end of devcluster's log:\n{}", cloud.tail())))? {
        // Why it did not get up has been said.
        false if code == Exit::Ok as u8 => Ok(Exit::Failed as u8),
        _ => Ok(code),
    }
}

/// The next line that the driver says, which is passed on.
async fn next_line(lines: &mut Option<Lines<BufReader<ChildStderr>>>) -> Option<String> {
    let line = lines.as_mut()?.next_line().await.ok()??;
    say(&line);
    Some(line)
}

/// Whether every stage came up.
async fn wait_until_up(
    lines: &mut Option<Lines<BufReader<ChildStderr>>>,
) -> Result<bool, StageError> {
    while let Some(line) = next_line(lines).await {
        match line.as_str() {
            "devcluster is up" => return Ok(true),
            line if line.starts_with("devcluster is failing") => {
                let message = "a stage of the sandbox failed";
                return Err(StageError::new(codes::PROGRAM_FAILED, message));
            }
            _ => {}
        }
    }
    Ok(false)
}

/// What the stages found out, what the master was told, and what the pod saw.
fn show(cloud: &Cloud) -> Result<(), StageError> {
    let failed = |message: String| StageError::new(codes::PROGRAM_FAILED, message);
    let run_dir = RunDir::open(&cloud.run_dir())?;
    for instance in ["tunnel", "gateway"] {
        let file = run_dir.live_outputs(instance);
        let file = file.ok_or_else(|| failed(format!("{instance} is up and reports nothing")))?;
        say(&format!(
            "sandbox: {instance} found out\n{}",
            indent(&Value::Object(file.outputs))
        ));
    }
    let config = master::read(&run_dir.file("master.yaml"));
    let config = config.map_err(|e| failed(format!("{e:#}")))?;
    say(&format!(
        "sandbox: the master was told\n{}",
        indent(&config["resource_manager"])
    ));
    let log = std::fs::read_to_string(cloud.log()).unwrap_or_default();
    let mut lines = log.lines();
    let pod = lines
        .find(|l| l.starts_with("pod: ") && l.contains("reached the master") && l.ends_with(" ms"));
    let missing = "devcluster is up, and no pod reached the master".to_owned();
    say(&format!("sandbox: {}", pod.ok_or_else(|| failed(missing))?));
    Ok(())
}

/// A value as YAML, further to the right.
fn indent(value: &Value) -> String {
    let text = protocol::yaml::to_yaml(value);
    let lines = text.trim_end().lines().map(|l| format!("    {l}"));
    lines.collect::<Vec<_>>().join("\n")
}
