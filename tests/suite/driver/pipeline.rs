//! A CI job: tunnel, gateway and config-emit in a pipe, with the job's command at its end, by the script of the example.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use support::site::Site;
use support::{DEADLINE, bin, leaks};

const BASE: &str =
    "# kept\ncluster_name: test\nresource_manager:\n  type: kubernetes  # kept too\n";

struct Job {
    site: Site,
    script: PathBuf,
}

impl Job {
    async fn new() -> Job {
        let site = Site::new().await;
        site.write("tunnel.yaml", &site.tunnel_fields().join("\n"));
        let kubeconfig = site.home.path().join("kubeconfig");
        site.write(
            "gateway.yaml",
            &format!("kubeconfig: {}\n", kubeconfig.display()),
        );
        site.write("base.yaml", BASE);
        let example = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../devcluster-examples/ci/pipeline.sh"
        );
        Job {
            site,
            script: example.into(),
        }
    }

    fn command(&self, tests: &[&str]) -> tokio::process::Command {
        let mut command = self.site.home.command(&self.script);
        command
            .current_dir(self.site.home.path())
            .env("PATH", path())
            .env("OUT", "out.yaml")
            .args(["tunnel.yaml", "gateway.yaml", "base.yaml"])
            .args(tests)
            .stdin(Stdio::null());
        command
    }

    async fn run(&self, tests: &[&str]) -> Output {
        let output = self.command(tests).kill_on_drop(true).output();
        tokio::time::timeout(DEADLINE, output)
            .await
            .expect("no end")
            .expect("no start")
    }

    async fn nothing_is_left(&self) {
        self.site.nothing_is_left().await;
        assert!(!self.path("devcluster-stages").exists());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.home.path().join(name)
    }
}

/// $PATH with the programs of this project.
fn path() -> String {
    let bin = bin("devcluster-tunnel");
    let programs = bin.parent().expect("a directory").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{programs}:{path}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn the_tunnel_stays_up_while_the_tests_run_and_their_exit_code_is_the_pipelines() {
    let job = Job::new().await;
    let sandbox = bin("devcluster-sandbox").display().to_string();
    // The job's master, and a pod that reaches it through the tunnel.
    let tests = "sed \"s/^cluster_name/port: $2\\n&/\" out.yaml >master.yaml
        $1 master --config-file master.yaml & master=$!
        until $1 pod --config-file master.yaml 2>pod.log; do :; done
        kill $master; wait $master; exit 7";
    let port = job.site.master_port.to_string();
    let mut lines = job.site.tunnel_fields();
    lines.push(format!("local_port: {port}"));
    job.site.write("tunnel.yaml", &lines.join("\n"));
    let output = job.run(&["sh", "-c", tests, "sh", &sandbox, &port]).await;
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let seen = std::fs::read_to_string(job.path("pod.log")).expect("no pod");
    assert!(seen.contains("reached the master"), "{seen}");
    let rendered = std::fs::read_to_string(job.path("out.yaml")).expect("not rendered");
    for kept in [
        "# kept\n",
        "# kept too\n",
        "determined_master_host",
        "internal_task_gateway:",
        "kubeconfig_path:",
    ] {
        assert!(rendered.contains(kept), "no {kept} in\n{rendered}");
    }
    assert_eq!(
        std::fs::read_to_string(job.path("base.yaml")).expect("no base"),
        BASE
    );
    job.nothing_is_left().await;
}

#[tokio::test]
async fn a_failed_stage_ends_the_pipeline_before_the_tests_start() {
    for (file, broken) in [
        ("tunnel.yaml", "ssh_port: 1"),
        ("gateway.yaml", "k8s_context: nowhere"),
    ] {
        let job = Job::new().await;
        let config = std::fs::read_to_string(job.path(file)).expect("a config");
        let without = config.lines().filter(|l| !l.starts_with("ssh_port"));
        let lines: Vec<&str> = without.chain([broken]).collect();
        job.site.write(file, &lines.join("\n"));
        let output = job.run(&["touch", "began"]).await;
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{file}: {stderr}");
        assert!(
            !job.path("began").exists() && !job.path("out.yaml").exists(),
            "{stderr}"
        );
        assert!(stderr.contains("hint: "), "{stderr}");
        job.nothing_is_left().await;
    }
}

#[tokio::test]
async fn a_permanent_loss_of_the_tunnel_ends_the_tests() {
    let job = Job::new().await;
    let mut child = job
        .command(&["sh", "-c", "touch began; exec sleep 600"])
        .kill_on_drop(true)
        .spawn()
        .expect("no start");
    let began = job.path("began");
    leaks::gone("wait for the tests", || {
        if began.exists() {
            vec![]
        } else {
            vec!["not begun"]
        }
    })
    .await;
    let tunnel = pid_of(&job, "devcluster-tunnel");
    rustix::process::kill_process(tunnel, rustix::process::Signal::KILL).expect("cannot kill");
    let status = tokio::time::timeout(DEADLINE, child.wait())
        .await
        .expect("it keeps running")
        .expect("no status");
    assert_eq!(status.code(), Some(4));
    job.nothing_is_left().await;
}

fn pid_of(job: &Job, program: &str) -> rustix::process::Pid {
    let found = leaks::processes(&job.site.home.mark());
    let line = found
        .iter()
        .find(|p| p.contains(&format!("{program} run")))
        .expect("it runs");
    let pid = line
        .split(' ')
        .next()
        .and_then(|p| p.parse().ok())
        .and_then(rustix::process::Pid::from_raw);
    pid.expect("a pid")
}

#[tokio::test]
async fn a_chain_without_an_upstream_is_refused() {
    let job = Job::new().await;
    let output = job
        .site
        .home
        .command(&bin("devcluster-config-emit"))
        .args([
            "run",
            "--stdin",
            "chain",
            "--base",
            "base.yaml",
            "--out",
            "out.yaml",
        ])
        .current_dir(Path::new(job.site.home.path()))
        .stdin(Stdio::null())
        .output()
        .await
        .expect("no start");
    assert_eq!(output.status.code(), Some(4));
    assert!(
        text(&output.stderr).contains("protocol.no_upstream"),
        "{}",
        text(&output.stderr)
    );
}

/// A step of a job: its script, and its environment.
struct Step {
    script: String,
    env: Vec<(String, String)>,
}

/// The steps with a script of the job in a file, in order.
fn steps(file: &Path, run: &str, env: &str) -> Vec<Step> {
    let text = std::fs::read_to_string(file).expect("no file");
    let document = protocol::yaml::Document::parse(&text).expect("it is YAML");
    let job = &document.value()["jobs"]["cluster"];
    let steps = job["steps"].as_array().expect("no steps").iter();
    let steps = steps.filter_map(|step| {
        // CircleCI has one more level.
        let step = if step["run"].is_object() {
            &step["run"]
        } else {
            step
        };
        let env = step[env].as_object().into_iter().flatten();
        let text = |v: &serde_json::Value| v.as_str().map(str::to_owned);
        Some(Step {
            script: text(&step[run])?,
            env: env
                .filter_map(|(k, v)| Some((k.clone(), text(v)?)))
                .collect(),
        })
    });
    steps.collect()
}

/// Base64, as users store a secret in CircleCI.
fn encoded(text: &str) -> String {
    let mut base64 = std::process::Command::new("base64");
    base64
        .arg("-w0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = base64.spawn().expect("no base64");
    std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), text.as_bytes())
        .expect("taken");
    String::from_utf8(child.wait_with_output().expect("its end").stdout).expect("text")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

impl Job {
    /// The files of the example, with other server names.
    fn check_out(&self, ci: &Path) {
        std::fs::copy(ci.join("pipeline.sh"), self.path("pipeline.sh")).expect("copied");
        let tunnel = read(&ci.join("tunnel.yaml"));
        let kept = tunnel.lines().find(|l| l.starts_with("ssh_key_path"));
        let fields = self.site.tunnel_fields().into_iter();
        let fields =
            fields.filter(|f| !f.starts_with("ssh_key_path") && !f.starts_with("known_hosts_path"));
        let fields = fields.chain([kept.expect("a key").to_owned()]);
        let fields = fields.chain(["known_hosts_path: ~/.ssh/known_hosts".to_owned()]);
        self.site
            .write("tunnel.yaml", &fields.collect::<Vec<_>>().join("\n"));
        let gateway = read(&ci.join("gateway.yaml")).replace("ci-cluster", "sandbox");
        self.site.write("gateway.yaml", &gateway);
        self.site.write("base.yaml", &read(&ci.join("base.yaml")));
        let tests = "#!/bin/sh\ngrep -q determined_master_host master.yaml && touch tested\n";
        let tests = self.site.write("tests.sh", tests);
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(tests, executable).expect("ours");
        std::fs::create_dir(self.path("devcluster-remote")).expect("a directory");
        let makefile = "install:\n\ttouch installed\n";
        self.site.write("devcluster-remote/Makefile", makefile);
    }

    /// Runs a step as both services do, with their secrets.
    async fn step(&self, step: &Step) {
        let key = read(&self.site.sshd.key());
        let known_hosts = read(&self.site.sshd.known_hosts());
        let kubeconfig = read(&self.path("kubeconfig"));
        let secrets = [
            ("CI_SSH_KEY", "CI_SSH_KEY_TEXT", key),
            ("CI_KNOWN_HOSTS", "CI_KNOWN_HOSTS", known_hosts),
            ("CI_KUBECONFIG", "CI_KUBECONFIG", kubeconfig),
        ];
        let mut command = self.site.home.command("bash".as_ref());
        command.args(["-eo", "pipefail", "-c", &step.script]);
        command
            .current_dir(self.site.home.path())
            .env("PATH", path());
        for (_, variable, secret) in &secrets {
            command.env(variable, encoded(secret));
        }
        for (name, value) in &step.env {
            let value = secrets
                .iter()
                .fold(value.clone(), |value, (name, _, secret)| {
                    value.replace(&format!("${{{{ secrets.{name} }}}}"), secret.trim_end())
                });
            command.env(name, value);
        }
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(DEADLINE, output).await;
        let output = output.expect("no end").expect("no bash");
        let stderr = text(&output.stderr);
        assert!(output.status.success(), "{}\n{stderr}", step.script);
    }
}

#[tokio::test]
async fn the_jobs_of_both_services_run_step_by_step() {
    let ci = Path::new(env!("CARGO_MANIFEST_DIR")).join("../devcluster-examples/ci");
    for (file, run, env) in [
        ("github-actions.yml", "run", "env"),
        ("circleci.yml", "command", "environment"),
    ] {
        let job = Job::new().await;
        job.check_out(&ci);
        let steps = steps(&ci.join(file), run, env);
        assert_eq!(steps.len(), 4, "{file}");
        for step in &steps {
            job.step(step).await;
        }
        let installed = job.path("devcluster-remote/installed");
        assert!(job.path("tested").exists() && installed.exists(), "{file}");
        job.site.nothing_is_left().await;
    }
}
