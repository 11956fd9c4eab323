//! The devcluster of these tests.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::devcluster::TestDevcluster;
use support::emit::{Upstream, read, write};
use support::{DEADLINE, Home, bin, free_ports, leaks};

use super::{restarted_by_hand, within};

/// A devcluster whose stages use the test's values: a master with a rendered config, and a command with a reference.
pub(crate) struct Cluster {
    pub(crate) home: Home,
    pub(crate) devcluster: TestDevcluster,
    pub(crate) tunnel: Upstream,
    pub(crate) generation: u64,
}

impl Cluster {
    pub(crate) async fn start(flags: &str) -> Cluster {
        Cluster::begin(flags, true).await
    }

    /// With the command alone, without a config to write.
    pub(crate) async fn without_a_master() -> Cluster {
        Cluster::begin("", false).await
    }

    async fn begin(flags: &str, has_master: bool) -> Cluster {
        let home = Home::new();
        let temp = home.path().join("devcluster");
        std::fs::create_dir(&temp).expect("a directory");
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&temp, PermissionsExt::from_mode(0o700)).expect("ours alone");
        let run_dir = temp.join("stages");
        let tunnel = Upstream::ready_in(&run_dir, "tunnel", "tunnel", outputs(1)).await;
        let (emit, sandbox) = (bin("devcluster-config-emit"), bin("devcluster-sandbox"));
        let [emit, sandbox] = [emit.display(), sandbox.display()];
        let (temp, run) = (temp.display(), run_dir.display());
        let port = *free_ports(1).start();
        let mut shared = format!("--run-dir={run}, '--upstreams=[\"tunnel\"]'");
        if has_master {
            shared +=
                &format!(", --stage=master, --base={temp}/master.conf, --out={run}/master.yaml");
        }
        let master = format!(
            "  - master:
      pre: [{{custom: [{emit}, once, --name=config-emit.master, --events=none, {shared}]}}]
      cmdline: [{sandbox}, master, --config-file, {run}/master.yaml]
      config_file: {{port: {port}, resource_manager: {{type: kubernetes, max_slots_per_pod: 1}}}}
"
        );
        let master = if has_master { &master } else { "" };
        let text = format!(
            "temp_dir: {temp}
stages:
  - custom:
      name: config-emit
      kill_signal: SIGTERM
      cmd: [{emit}, run, --events=none, {shared}, --control-socket={temp}/sock, --restart-interval=1{flags}]
      post: [{{custom: [{emit}, wait, --run-dir={run}]}}]
{master}  - custom:
      name: app
      cmd: [{emit}, exec, --run-dir={run}, --for=app.cmd, --, sh, -c, \"echo port ${{{{ tunnel.port }}}}; exec sleep 1000\"]
      post: [{{logcheck: {{regex: ^port}}}}]
"
        );
        let file = write(&home, "devcluster.yaml", &text);
        let devcluster = TestDevcluster::start(&home, &file).await;
        Cluster {
            home,
            devcluster,
            tunnel,
            generation: 1,
        }
    }

    pub(crate) async fn up(&mut self) {
        self.devcluster.set_target("app").await;
        self.devcluster.wait_until("app", "UP").await;
    }

    pub(crate) async fn kill_config_emit(&mut self) {
        self.devcluster.kill("config-emit", "SIGKILL").await;
        let gone = |e: &Value| {
            ["DOWN", "CRASHED"]
                .iter()
                .any(|s| e["stages"]["config-emit"] == *s)
        };
        self.devcluster
            .wait_for("the end of config-emit", gone)
            .await;
    }

    pub(crate) fn report(&mut self, port: u16) {
        self.generation += 1;
        self.tunnel.report(self.generation, outputs(port));
    }

    /// Changes the values several times; each is used in time.
    pub(crate) async fn changes(&mut self, rounds: u16) {
        let own = restarted_by_hand(&mut self.devcluster, "master").await
            + restarted_by_hand(&mut self.devcluster, "app").await;
        let mut took = Vec::new();
        for port in 2..2 + rounds {
            self.report(port);
            let began = Instant::now();
            self.restarted(port).await;
            took.push(began.elapsed());
        }
        took.sort_unstable();
        let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
        eprintln!(
            "{rounds} changes, both stages on the new values: median {median:?}, slowest {slowest:?}; \
             a restart of both by hand takes {own:?}"
        );
        assert!(slowest <= within(own), "{slowest:?}, by hand {own:?}");
    }

    pub(crate) fn rendered(&self) -> String {
        read(&self.home.path().join("devcluster/stages/master.yaml"))
    }

    pub(crate) async fn restarted(&mut self, port: u16) {
        let line = format!("port {port}\n");
        // The message may have arrived during another wait.
        if !self.devcluster.log().contains(&format!("app| {line}")) {
            self.devcluster.wait_for_log("app", &line).await;
        }
        if self.devcluster.state("app").as_deref() != Some("UP") {
            self.devcluster.wait_until("app", "UP").await;
        }
        let text = format!("determined_master_port: {port}\n");
        let rendered = async {
            while !self.rendered().contains(&text) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, rendered)
            .await
            .expect("the master has the old config");
    }

    pub(crate) fn restarts(&self) -> usize {
        self.devcluster
            .log()
            .matches("console| resetting stage")
            .count()
    }

    pub(crate) async fn end(self) {
        let log = self.devcluster.log().to_owned();
        let code = self.devcluster.close().await;
        assert_eq!(code, 0, "{log}");
        leaks::gone("processes", || leaks::processes(&self.home.mark())).await;
    }
}

pub(crate) fn outputs(port: u16) -> Value {
    json!({"host": "proxy", "port": port, "scheme": "http"})
}
