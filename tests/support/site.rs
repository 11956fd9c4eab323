//! A developer's laptop and cloud for a test: an ssh server, a Kubernetes API, and the file that connects them.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use sandbox::kube_api::KubeApi;
use tokio::process::Command;

use crate::devcluster::python_program;
use crate::kube::{programmed, start_kube, write_kubeconfig};
use crate::{Home, Options, StageClient, TestSshd, bin, free_ports, leaks, start_sshd};

/// Everything that the whole way needs.
pub struct Site {
    pub home: Home,
    pub sshd: TestSshd,
    pub api: KubeApi,
    /// The port that the stand-in master listens on.
    pub master_port: u16,
    /// The ports that the tunnel may take.
    pub range: (u16, u16),
}

impl Site {
    /// With a Gateway that works already.
    pub async fn new() -> Site {
        Site::with(programmed()).await
    }

    pub async fn with(options: sandbox::kube_api::Options) -> Site {
        let home = Home::new();
        let sshd = start_sshd(Options::default()).await;
        let api = start_kube(options).await;
        write_kubeconfig(&home, "kubeconfig", &api.kubeconfig("sandbox"));
        let ports = free_ports(9);
        let (first, last) = (*ports.start(), *ports.end());
        Site {
            home,
            sshd,
            api,
            master_port: first,
            range: (first + 1, last),
        }
    }

    /// The run directory of the compiled file.
    pub fn run_dir(&self) -> PathBuf {
        self.home.path().join("devcluster/stages")
    }

    /// The fields of a tunnel to this site's ssh server, as `key: value` lines.
    pub fn tunnel_fields(&self) -> Vec<String> {
        vec![
            "reverse_proxy_host: 127.0.0.1".into(),
            format!("ssh_port: {}", self.sshd.port()),
            format!("ssh_user: {}", self.sshd.user()),
            format!("ssh_key_path: {}", self.sshd.key().display()),
            format!("known_hosts_path: {}", self.sshd.known_hosts().display()),
            "ssh_config_path: none".into(),
            format!("remote_port_range: {}-{}", self.range.0, self.range.1),
            "bind_address: 127.0.0.1".into(),
        ]
    }

    /// A `master` stage that the stand-in plays.
    pub fn master_stage(&self) -> String {
        format!(
            "  - master:
      cmdline: [{sandbox}, master, --config-file, \":config\"]
      config_file:
        cluster_name: test  # the pod knows it by this
        port: {port}
        security: {{initial_user_password: only-a-test}}
        resource_manager:
          type: kubernetes
          max_slots_per_pod: 1
",
            sandbox = bin("devcluster-sandbox").display(),
            port = self.master_port,
        )
    }

    /// A pod that calls the master once it is up.
    pub fn pod_stage(&self) -> String {
        format!(
            "  - custom:
      name: pod
      cmd: [sleep, infinity]
      kill_signal: SIGTERM
      post:
        - custom: [{sandbox}, pod, --config-file, {config}]
",
            sandbox = bin("devcluster-sandbox").display(),
            config = self.run_dir().join("master.yaml").display(),
        )
    }

    /// The whole way: tunnel, gateway, config-emit, master, pod.
    pub fn devcluster_yaml(&self) -> String {
        let fields = self.tunnel_fields().join("\n      ");
        format!(
            "# a comment of the user's
temp_dir: {temp}
stages:
  - tunnel:
      {fields}
  - gateway:
      kubeconfig: {kubeconfig}
  - config-emit: {{}}
{master}{pod}",
            temp = self.home.path().join("devcluster").display(),
            kubeconfig = self.home.path().join("kubeconfig").display(),
            master = self.master_stage(),
            pod = self.pod_stage(),
        )
    }

    /// Writes a file into the home.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).expect("cannot write");
        path
    }

    /// `devcluster-remote …` in this home, without a terminal.
    pub fn remote(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(&bin("devcluster-remote"));
        command
            .args(args)
            .env("DEVCLUSTER", python_program("DEVCLUSTER", "devcluster"))
            .stdin(Stdio::null());
        command
    }

    /// `devcluster-remote up` on a file, until it says that devcluster is up.
    pub async fn up(&self, file: &Path) -> StageClient {
        let mut driver = StageClient::start(self.remote(&["up", "-c", path(file)]));
        driver.wait_for_line("devcluster is up").await;
        driver
    }

    /// Waits until no process and no remote listener of this site is left, and no half-written file is there.
    pub async fn nothing_is_left(&self) {
        self.nothing_runs().await;
        let half_written: Vec<_> = leaks::files(self.home.path())
            .into_iter()
            .filter(|f| f.extension().is_some_and(|e| e == "tmp"))
            .collect();
        assert!(half_written.is_empty(), "{half_written:?}");
    }

    /// Waits until no process and no remote listener of this site is left.
    pub async fn nothing_runs(&self) {
        leaks::gone("processes", || leaks::processes(&self.home.mark())).await;
        let ports = self.range.0..=self.range.1;
        leaks::gone("remote listeners", || {
            ports.clone().filter(|p| leaks::is_listening(*p)).collect()
        })
        .await;
    }

    /// Compiles a file and returns the path of the result.
    pub async fn compile(&self, text: &str) -> PathBuf {
        let source = self.write("source.yaml", text);
        let compiled = self.home.path().join("compiled.yaml");
        let arguments = ["compile", "-c", path(&source), "--out", path(&compiled)];
        let output = self.remote(&arguments).output().await.expect("no driver");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        std::fs::create_dir_all(self.home.path().join("devcluster")).expect("cannot make temp_dir");
        compiled
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}
