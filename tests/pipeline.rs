//! A CI job: tunnel, gateway and config-emit in a pipe, with the job's command at its end. The script is the example's.

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
        let bin = bin("devcluster-tunnel");
        let programs = bin.parent().expect("a directory").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .current_dir(self.site.home.path())
            .env("PATH", format!("{programs}:{path}"))
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

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn the_tunnel_holds_while_the_tests_run_and_their_exit_code_is_the_pipelines() {
    let job = Job::new().await;
    let remote = bin("devcluster-remote").display().to_string();
    // The job's own master, and a pod that comes to it through the tunnel.
    let tests = "sed \"s/^cluster_name/port: $2\\n&/\" out.yaml >master.yaml
        $1 sandbox-master --config-file master.yaml & master=$!
        until $1 sandbox-pod --config-file master.yaml 2>pod.log; do :; done
        kill $master; wait $master; exit 7";
    let port = job.site.master_port.to_string();
    let mut lines = job.site.tunnel_fields();
    lines.push(format!("local_port: {port}"));
    job.site.write("tunnel.yaml", &lines.join("\n"));
    let output = job.run(&["sh", "-c", tests, "sh", &remote, &port]).await;
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
async fn a_stage_that_fails_ends_the_pipeline_before_the_tests_begin() {
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
        assert!(stderr.contains("mend: "), "{stderr}");
        job.nothing_is_left().await;
    }
}

#[tokio::test]
async fn losing_the_tunnel_for_good_ends_the_tests() {
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
        .expect("it goes on")
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
async fn a_chain_without_an_upstream_says_so() {
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

#[test]
fn the_jobs_of_both_services_run_the_pipeline_with_files_that_are_there() {
    let ci = concat!(env!("CARGO_MANIFEST_DIR"), "/../devcluster-examples/ci");
    for (file, steps, run) in [
        ("github-actions.yml", "steps", "run"),
        ("circleci.yml", "steps", "command"),
    ] {
        let text = std::fs::read_to_string(Path::new(ci).join(file)).expect("no file");
        let value = protocol::yaml::Document::parse(&text)
            .expect("it is YAML")
            .value();
        let steps = value["jobs"]["cluster"][steps]
            .as_array()
            .expect("no steps")
            .clone();
        let commands = steps.iter().filter_map(|step| {
            let step = if step[run].is_string() {
                step
            } else {
                &step["run"]
            };
            step[run].as_str()
        });
        let commands: Vec<&str> = commands.collect();
        let call = commands.iter().find(|c| c.starts_with("./pipeline.sh "));
        let call = call.unwrap_or_else(|| panic!("{file}: no call in {commands:?}"));
        for word in call.split(' ').filter(|w| *w != "./tests.sh") {
            assert!(Path::new(ci).join(word).is_file(), "{file}: no {word}");
        }
        assert!(commands.contains(&"devcluster-remote gc"), "{file}");
    }
}
