//! `sandbox`: runs everything on one machine, with the real stages and stock devcluster.

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
use super::{master, shutdown_signal};

/// How long a pod may take to reach the master.
const WAY: Duration = Duration::from_secs(60);

/// When the sandbox's Gateway is programmed: late enough to see the gateway stage wait.
const PROGRAMMED_AFTER: Duration = Duration::from_secs(1);

fn failed(what: &str) -> impl FnOnce(anyhow::Error) -> StageError {
    move |e| {
        StageError::new(
            codes::PROGRAM_FAILED,
            format!("the sandbox cannot start {what}: {e:#}"),
        )
    }
}

/// The stand-ins for the cloud.
struct Cloud {
    dir: tempfile::TempDir,
    sshd: Sshd,
    _api: KubeApi,
    file: PathBuf,
}

/// Runs the sandbox with the driver's `up`. With `check`, proves that a pod can reach the master, and ends.
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

/// Runs until the user quits. The driver uses the terminal, and gets Ctrl-C from it.
async fn look_around(mut up: Command) -> Result<u8, StageError> {
    let mut kinds = vec![SignalKind::terminate(), SignalKind::hangup()];
    if !std::io::stdin().is_terminal() {
        kinds.push(SignalKind::interrupt());
    }
    let mut shutdown_signal = listen(&kinds)?;
    let mut child = start(&mut up)?;
    loop {
        tokio::select! {
            ended = child.wait() => return code_of(ended),
            () = &mut shutdown_signal => {
                shutdown_signal = listen(&kinds)?;
                end(&child);
            }
        }
    }
}

fn listen(kinds: &[SignalKind]) -> Result<BoxFuture<'static, ()>, StageError> {
    shutdown_signal(kinds).map_err(|e| StageError::io("cannot listen for signals", &e))
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
    /// The log of devcluster without a terminal.
    fn log(&self) -> PathBuf {
        self.dir.path().join("devcluster.log")
    }

    /// The run directory of the stages.
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
            .map_err(|e| StageError::io("cannot create a directory for the sandbox", &e))?;
        let program = find_sshd(env)?;
        let sshd = Sshd::start(
            &program,
            &dir.path().join("sshd"),
            &sshd::Options::default(),
        )
        .await
        .map_err(failed("sshd"))?;
        say(&format!(
            "sandbox: an ssh server listens on 127.0.0.1:{}",
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
            "sandbox: a stand-in for the Kubernetes API listens at {}",
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
            .map_err(failed("a clean end of its sshd"))?;
        self.dir
            .close()
            .map_err(|e| StageError::io("cannot remove the sandbox's directory", &e))
    }
}

/// `$DEVCLUSTER_SSHD`, the machine's own sshd, or Debian's, which is downloaded once.
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
        "# A file as a developer writes it. `devcluster-remote compile` turns it into one that stock devcluster reads.
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
  # The master's config gets the outputs of these two.
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
  # A pod that calls the master at the address in the master's config.
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

/// Starts everything, shows the result, and stops it.
async fn prove(mut up: Command, cloud: &Cloud) -> Result<u8, StageError> {
    let log = std::fs::File::create(cloud.log())
        .map_err(|e| StageError::io("cannot create a log for devcluster", &e))?;
    // In a separate process group, so that only this process gets Ctrl-C.
    up.stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::piped())
        .process_group(0);
    let mut shutdown_signal = listen(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    let mut child = start(&mut up)?;
    let mut lines = child.stderr.take().map(|e| BufReader::new(e).lines());
    let proved = tokio::select! {
        proved = timeout(WAY, wait_until_up(&mut lines)) => proved.unwrap_or_else(|_| {
            let message = format!("no pod reached the master within {} s", WAY.as_secs());
            Err(StageError::new(codes::PROGRAM_FAILED, message).exit(Exit::Timeout))
        }),
        () = &mut shutdown_signal => {
            Err(StageError::new(codes::INTERRUPTED, "stopped before a pod reached the master"))
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
        // The reason is printed above.
        false if code == Exit::Ok as u8 => Ok(Exit::Failed as u8),
        _ => Ok(code),
    }
}

/// Passes on the next line of the driver and returns it.
async fn next_line(lines: &mut Option<Lines<BufReader<ChildStderr>>>) -> Option<String> {
    let line = lines.as_mut()?.next_line().await.ok()??;
    say(&line);
    Some(line)
}

/// Waits until every stage is up or one has failed.
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

/// Shows the outputs of the stages, the values in the master's config, and the pod's report.
fn show(cloud: &Cloud) -> Result<(), StageError> {
    let failed = |message: String| StageError::new(codes::PROGRAM_FAILED, message);
    let run_dir = RunDir::open(&cloud.run_dir())?;
    for instance in ["tunnel", "gateway"] {
        let file = run_dir.live_outputs(instance);
        let file = file.ok_or_else(|| failed(format!("{instance} is up and has no outputs")))?;
        say(&format!(
            "sandbox: outputs of {instance}\n{}",
            indent(&Value::Object(file.reported.outputs))
        ));
    }
    let config = master::read(&run_dir.file("master.yaml"));
    let config = config.map_err(|e| failed(format!("{e:#}")))?;
    say(&format!(
        "sandbox: values in the master's config\n{}",
        indent(&config["resource_manager"])
    ));
    let log = std::fs::read_to_string(cloud.log()).unwrap_or_default();
    let mut lines = log.lines();
    let pod = lines
        .find(|l| l.starts_with("pod: ") && l.contains("reached the master") && l.ends_with(" ms"));
    let missing = "devcluster is up, but no pod reached the master".to_owned();
    say(&format!("sandbox: {}", pod.ok_or_else(|| failed(missing))?));
    Ok(())
}

/// A value as indented YAML.
fn indent(value: &Value) -> String {
    let text = protocol::yaml::to_yaml(value);
    let lines = text.trim_end().lines().map(|l| format!("    {l}"));
    lines.collect::<Vec<_>>().join("\n")
}
