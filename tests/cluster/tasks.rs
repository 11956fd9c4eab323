//! Running tasks, while everything else ends under `up`.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::bed::{Bed, eventually};
use support::devcluster::python_program;
use support::terminal::Terminal;
use support::{Home, bin, build_dir, leaks};
use tokio::process::Command;

use crate::contour::{serving, shows, speaks};
use crate::stand_in::Master;

/// Every stage, in its order in the file, and what the command line of its process has.
const STAGES: [(&str, &str); 4] = [
    ("tunnel", "devcluster-tunnel run"),
    ("gateway", "devcluster-gateway run"),
    ("config-emit", "devcluster-config-emit run"),
    ("master", "determined-master -config-file"),
];

struct Laptop<'a> {
    bed: &'a Bed,
    home: Home,
    file: PathBuf,
}

impl<'a> Laptop<'a> {
    fn new(bed: &'a Bed) -> Laptop<'a> {
        let home = Home::new();
        let text = format!(
            "temp_dir: {home}/devcluster
stages:
  - tunnel: {{reverse_proxy_host: {server}, ssh_config_path: {ssh_config}, remote_port_range: 8000-8999}}
  - gateway: {{kubeconfig: {kubeconfig}, provision: auto, provision_manifests: {manifests}}}
  - config-emit: {{}}
  - master:
      cmdline: [{program}, -config-file, ':config', -database, {home}/database]
      config_file:
        port: 8080
        security: {{initial_user_password: Correct-Horse-7}}
        cache: {{cache_dir: {home}/cache}}
        resource_manager:
          type: kubernetes
          default_namespace: tasks
          max_slots_per_pod: 1
          slot_type: cpu
          slot_resource_requests: {{cpu: 0.25}}
",
            home = home.path().display(),
            server = bed.text("/addresses/ssh"),
            ssh_config = bed.text("/ssh_config"),
            kubeconfig = bed.text("/kubeconfig"),
            manifests = build_dir()
                .join("bed/contour/contour-gateway-provisioner.yaml")
                .display(),
            program = build_dir().join("bed/determined-master").display(),
        );
        let file = home.path().join("devcluster.yaml");
        fs::write(&file, text).expect("cannot write");
        Laptop { bed, home, file }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.home.command(Path::new(self.bed.text("/enter/laptop")));
        command
            .args(["env", "-u", "KUBECONFIG"])
            .arg(bin(program))
            .env("DEVCLUSTER", python_program("DEVCLUSTER", "devcluster"));
        command
    }

    fn up(&self) -> Terminal {
        let mut command = self.command("devcluster-remote");
        command.args(["up", "--no-preflight", "-c"]).arg(&self.file);
        Terminal::start(command)
    }

    async fn says(&self, program: &str, args: &[&str]) -> String {
        let mut command = self.command(program);
        let output = command.args(args).output().await.expect("cannot start it");
        let both = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&both).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        said
    }

    async fn gc(&self) {
        let said = self.says("devcluster-remote", &["gc"]).await;
        assert!(said.contains("keeps Gateway"), "{said}");
    }

    /// The process of this home with these words in its command line.
    fn process(&self, words: &str) -> Option<Pid> {
        let lines = leaks::processes(&self.home.mark());
        let line = lines.iter().find(|it| it.contains(words))?;
        Pid::from_raw(line.split_once(' ')?.0.parse().ok()?)
    }

    async fn replaced(&self, words: &str, first: Pid) {
        leaks::gone(words, || {
            let now = self.process(words);
            Vec::from_iter(now.is_none_or(|pid| pid == first).then_some(now))
        })
        .await;
    }

    fn file_of_outputs(&self, stage: &str) -> Option<Value> {
        let directory = self.home.path().join("devcluster/stages/outputs");
        let text = fs::read(directory.join(format!("{stage}.json"))).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn run(&self, stage: &str) -> Option<Value> {
        Some(self.file_of_outputs(stage)?["run"].clone())
    }

    /// What the task and its master depend on.
    fn facts(&self) -> Value {
        let outputs = |stage| {
            let file = self.file_of_outputs(stage).expect("no outputs");
            file["outputs"].clone()
        };
        let mut gateway = outputs("gateway");
        // What is free now.
        gateway["capacity"].take();
        let kinds = "gateways,leases,tcproutes.v1alpha2.gateway.networking.k8s.io,pods";
        let all = self.bed.kubectl(&["get", "-A", "-o", "json", kinds]);
        let all: Value = serde_json::from_str(&all).expect("no JSON");
        let all = all["items"].as_array().expect("a list").iter();
        let objects = all.filter_map(|it| {
            let metadata = &it["metadata"];
            let is_of_task = !metadata["labels"]["determined"].is_null();
            let name = metadata["name"].as_str()?;
            let counts = is_of_task || name.starts_with("devcluster-");
            let routed = &it["spec"]["parentRefs"];
            counts.then(|| json!([it["kind"], name, metadata["uid"], routed]))
        });
        json!({"tunnel": outputs("tunnel"), "gateway": gateway, "objects": Vec::from_iter(objects)})
    }

    /// Nothing of this home runs any more.
    async fn is_silent(&self) {
        leaks::gone("processes", || leaks::processes(&self.home.mark())).await;
    }
}

struct Task<'a> {
    laptop: &'a Laptop<'a>,
    master: Master<'a>,
    id: String,
    facts: Value,
}

impl Task<'_> {
    /// Its master proxies it, and nothing that it depends on has changed.
    fn is_well(&self, after: &str) {
        eventually(after, || self.master.answers());
        shows(&self.master, &self.id);
        assert_eq!(self.laptop.facts(), self.facts, "{after}");
    }

    /// A stage runs again, and has reported its outputs.
    async fn next_run(&self, stage: &str, words: &str, before: (Pid, Option<Value>)) {
        self.laptop.replaced(words, before.0).await;
        eventually(stage, || match &before.1 {
            None => true,
            run => self.laptop.run(stage).is_some_and(|it| Some(it) != *run),
        });
    }
}

/// Whatever ends, the task is proxied on the same port.
pub(crate) async fn stay_on_their_ports(bed: &Bed) {
    bed.kubectl(&["create", "namespace", "tasks"]);
    let laptop = &Laptop::new(bed);
    let mut up = laptop.up();
    let master = Master::of_up(bed, laptop.home.path(), 8080);
    eventually("the master answers", || master.answers());
    let id = serving(&master, 1);
    let keep = [
        "get",
        "leases",
        "-A",
        "-o",
        "jsonpath={.items[*].spec.leaseDurationSeconds}",
    ];
    eventually("the gateway stage sees the task", || {
        bed.kubectl(&keep).contains("43200")
    });
    let facts = laptop.facts();
    let task = Task {
        laptop,
        master,
        id,
        facts,
    };
    let count = task.facts["objects"].as_array().map(Vec::len);
    assert_eq!(count, Some(6), "{:#}", task.facts);

    let socket = laptop.home.path().join("devcluster/sock");
    let socket = socket.to_str().expect("text");
    for (stage, words) in STAGES {
        let before = || {
            let pid = laptop.process(words).expect("it runs");
            (pid, laptop.run(stage))
        };
        let killed = before();
        kill_process(killed.0, Signal::KILL).expect("cannot kill it");
        up.wait_for(&format!("{stage} ended unexpectedly; it is started again"))
            .await;
        task.next_run(stage, words, killed).await;
        task.is_well(&format!("SIGKILL of {stage}"));

        let restarted = before();
        let args = ["restart", "--control-socket", socket, stage];
        let said = laptop.says("devcluster-config-emit", &args).await;
        assert!(said.contains("restarted"), "{said}");
        task.next_run(stage, words, restarted).await;
        task.is_well(&format!("restart_stage of {stage}"));
        speaks(&task.master, &task.id);
    }

    let killed = laptop.process("devcluster-remote up");
    kill_process(killed.expect("it runs"), Signal::KILL).expect("cannot kill it");
    up.child.wait().await.expect("no end");
    laptop.is_silent().await;
    laptop.gc().await;
    up = laptop.up();
    task.is_well("SIGKILL of up");

    leaks::power_off(&leaks::processes(&laptop.home.mark()));
    up.child.wait().await.expect("no end");
    up = laptop.up();
    task.is_well("SIGKILL of everything");

    up.press("q");
    up.wait_for("keeps Gateway").await;
    up.wait_for("for the task that runs, until").await;
    assert!(up.child.wait().await.expect("no end").success());
    laptop.gc().await;
    up = laptop.up();
    task.is_well("a quit");
    speaks(&task.master, &task.id);

    leaks::power_off(&leaks::processes(&laptop.home.mark()));
    up.child.wait().await.expect("no end");
    laptop.is_silent().await;
}
