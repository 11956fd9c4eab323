//! `sandbox`: the whole way on one machine, through the very same stages and stock devcluster.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::rundir::RunDir;
use protocol::yaml::Document;
use protocol::{Env, Exit, StageError};
use serde_json::Value;

use super::kube_api::{self, KubeApi};
use super::sshd::{self, Sshd};
use super::{master as stand_in, pod as visitor, told_to_end};
use crate::compile::rendered;
use crate::devcluster::{self, Devcluster, Event, Log, Options};
use crate::gc;
use crate::input::{Asked, Job, load};
use crate::say::say;
use crate::up::{self, Site, Wishes};

/// How long a pod may take to get through, with everything on one machine.
const WAY: Duration = Duration::from_secs(60);

/// How long the sandbox's Gateway takes to be programmed: long enough to see the gateway stage wait.
const PROGRAMMED_AFTER: Duration = Duration::from_secs(1);

/// How long a pod of the sandbox tries.
const PATIENCE: Duration = Duration::from_secs(10);

fn failed(what: &str) -> impl FnOnce(anyhow::Error) -> StageError {
    move |e| {
        StageError::new(
            "remote.sandbox",
            format!("the sandbox has no {what}: {e:#}"),
        )
    }
}

/// Everything that stands in for the cloud.
struct Cloud {
    dir: tempfile::TempDir,
    sshd: Sshd,
    api: KubeApi,
    file: PathBuf,
}

/// Runs the sandbox. With `check`, proves the way and ends.
pub async fn run(check: bool, env: &Env, programs: &Path) -> Result<u8, StageError> {
    devcluster::find(env)?;
    let cloud = Cloud::start(env, programs).await?;
    let asked = Asked {
        file: Some(cloud.file.clone()),
        ..Asked::default()
    };
    let job = load(&asked, env, programs)?;
    let outcome = match check {
        true => prove(&job, env, programs).await,
        false => {
            let wishes = Wishes {
                no_preflight: true,
                ..Wishes::default()
            };
            up::up(job, wishes, env, programs).await
        }
    };
    cloud.stop().await?;
    outcome
}

impl Cloud {
    async fn start(env: &Env, programs: &Path) -> Result<Cloud, StageError> {
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
            api.write_kubeconfig(&kubeconfig, "sandbox")?;
            let file = dir.path().join("devcluster.yaml");
            std::fs::write(
                &file,
                devcluster_yaml(dir.path(), &sshd, &kubeconfig, programs)?,
            )?;
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
            api,
            file,
        })
    }

    async fn stop(mut self) -> Result<(), StageError> {
        self.api.close().await;
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

fn devcluster_yaml(
    dir: &Path,
    sshd: &Sshd,
    kubeconfig: &Path,
    programs: &Path,
) -> std::io::Result<String> {
    let remote = programs.join("devcluster-remote").display().to_string();
    let temp_dir = dir.join("devcluster").display().to_string();
    let config = rendered(&temp_dir, "master");
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
      cmdline: [{remote}, sandbox-master, --config-file, \":config\"]
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
      cmd: [{remote}, sandbox-pod, --config-file, {config}, --every, \"2\"]
      kill_signal: SIGTERM
      post:
        - custom: [{remote}, sandbox-pod, --config-file, {config}]
",
        temp_dir = q(&temp_dir),
        port = sshd.port(),
        user = q(sshd.user()),
        key = path(sshd.key()),
        known_hosts = path(sshd.known_hosts()),
        kubeconfig = path(kubeconfig.to_owned()),
        remote = q(&remote),
        id = protocol::run_id(),
        master_port = free_port()?,
        config = q(&config),
    ))
}

/// Brings everything up, shows what came about, and takes it down again.
async fn prove(job: &Job, env: &Env, programs: &Path) -> Result<u8, StageError> {
    let program = devcluster::find(env)?;
    up::check_programs(&job.compiled.plan, programs)?;
    let site = up::prepare(job, env)?;
    let names: Vec<_> = job
        .compiled
        .plan
        .stages
        .iter()
        .map(|s| s.name.as_str())
        .collect();
    say(&format!(
        "sandbox: compiled; stock devcluster runs {}, then the master, then a pod",
        names.join(", ")
    ));
    let options = Options {
        file: site.file.clone(),
        root: None,
        arguments: Vec::new(),
        oneshot: true,
        log: Log::Keep,
    };
    let mut devcluster = Devcluster::start(&program, &options)?;
    let proved = tokio::select! {
        proved = tokio::time::timeout(WAY, wait_until_up(&mut devcluster)) => proved.unwrap_or_else(|_| {
            Err(StageError::new("remote.sandbox_timeout", format!("no pod got through in {} s", WAY.as_secs()))
                .exit(Exit::Timeout))
        }),
        () = told_to_end() => Err(StageError::new("remote.interrupted", "stopped before the way was proved")),
    };
    let shown = proved.and_then(|()| show(&site));
    devcluster.terminate();
    while !matches!(devcluster.event().await?, Event::Ended(_)) {}
    let swept = gc::sweep(env, Some(site.run_dir.path()), programs).await?;
    shown.map_err(|e| e.cause(format!("the end of devcluster's log:\n{}", tail(&site))))?;
    say(&format!("sandbox: quit; {}", swept.report()));
    Ok(if swept.left.is_empty() {
        Exit::Ok
    } else {
        Exit::Failed
    } as u8)
}

async fn wait_until_up(devcluster: &mut Devcluster) -> Result<(), StageError> {
    match devcluster.event().await? {
        Event::Up => Ok(()),
        Event::Failing => Err(StageError::new(
            "remote.sandbox_failed",
            "a stage of the sandbox failed",
        )),
        Event::Ended(status) => Err(StageError::new(
            "remote.sandbox_failed",
            format!("devcluster ended too early ({status})"),
        )),
    }
}

/// What the stages found out, what the master was told, and what the pod saw.
fn show(site: &Site) -> Result<(), StageError> {
    for instance in ["tunnel", "gateway"] {
        let outputs = outputs(&site.run_dir, instance)?;
        say(&format!(
            "sandbox: {instance} found out\n{}",
            indent(&protocol::yaml::to_yaml(&outputs))
        ));
    }
    let config = read(&site.run_dir.file("master.yaml"))?;
    let told = protocol::yaml::to_yaml(&config["resource_manager"]);
    say(&format!("sandbox: the master was told\n{}", indent(&told)));
    let log = std::fs::read_to_string(site.file.with_extension("log")).unwrap_or_default();
    let pod = log
        .lines()
        .find(|l| l.starts_with("pod: ") && l.contains("reached the master") && l.ends_with(" ms"));
    match pod {
        Some(line) => {
            say(&format!("sandbox: {line}"));
            Ok(())
        }
        None => Err(StageError::new(
            "remote.sandbox_failed",
            "devcluster is up, and no pod reached the master",
        )),
    }
}

fn outputs(run_dir: &RunDir, instance: &str) -> Result<Value, StageError> {
    let file = run_dir.live_outputs(instance).ok_or_else(|| {
        StageError::new(
            "remote.sandbox_failed",
            format!("{instance} is up and reports nothing"),
        )
    })?;
    Ok(Value::Object(file.outputs))
}

fn read(path: &Path) -> Result<Value, StageError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| StageError::io(format!("cannot read {}", path.display()), &e))?;
    let document = Document::parse(&text).map_err(|e| {
        StageError::new(
            "remote.yaml",
            format!("{}:{}: {}", path.display(), e.line, e.message),
        )
    })?;
    Ok(document.value())
}

fn tail(site: &Site) -> String {
    let log = std::fs::read_to_string(site.file.with_extension("log")).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

fn indent(text: &str) -> String {
    text.trim_end()
        .lines()
        .map(|l| format!("    {l}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The hidden command that stands in for `determined-master`.
pub async fn master(config_file: &Path) -> Result<u8, StageError> {
    stand_in::run(config_file)
        .await
        .map_err(|e| StageError::new("remote.sandbox_master", e.to_string()))?;
    Ok(Exit::Ok as u8)
}

/// The hidden command that stands in for a pod: calls once, or every so often.
pub async fn pod(config_file: &Path, every: Option<Duration>) -> Result<u8, StageError> {
    let failed = |e: visitor::PodError| StageError::new("remote.sandbox_pod", e.to_string());
    if let Some(every) = every {
        visitor::run(config_file, every).await.map_err(failed)?;
        return Ok(Exit::Ok as u8);
    }
    let config = stand_in::read(config_file)
        .map_err(|e| StageError::new("remote.sandbox_pod", e.to_string()))?;
    let master = visitor::Master::of(&config).map_err(failed)?;
    let took = visitor::call(&master, PATIENCE).await.map_err(failed)?;
    crate::say::say(&format!(
        "reached the master at {} in {} ms",
        master.address(),
        took.as_millis()
    ));
    Ok(Exit::Ok as u8)
}
