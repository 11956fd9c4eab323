//! From `up` to the master's start, compared with `ssh host true` and then plain devcluster with the same master: what a
//! person would do without this project, and before a pod could reach the master. `make bench BENCH=way`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::devcluster::python_program;
use support::site::Site;
use support::{StageClient, bin};

use crate::report::{Row, report};

const ROUNDS: usize = 11;

const PEER: &str = "ssh true + devcluster";

struct Way {
    site: Site,
    /// The master creates it when it starts.
    started: PathBuf,
    plain: PathBuf,
    whole: PathBuf,
    with_gateway: PathBuf,
}

impl Way {
    async fn new() -> Way {
        let site = Site::new().await;
        let home = site.home.path();
        let started = home.join("started");
        let script = format!("touch {}; exec \"$@\"", started.display());
        let script = site.write("master.sh", &script);
        let word = bin("devcluster-sandbox").display().to_string();
        let through = format!("sh, {}, {word}", script.display());
        let master = site.master_stage().replace(&word, &through);
        let temp_dir = format!("temp_dir: {}\nstages:\n", home.join("devcluster").display());
        let fields = site.tunnel_fields().join("\n      ");
        let tunnel = format!("  - tunnel:\n      {fields}\n");
        let kubeconfig = home.join("kubeconfig");
        let gateway = format!("  - gateway:\n      kubeconfig: {}\n", kubeconfig.display());
        let emit = "  - config-emit: {}\n";
        Way {
            plain: site.write("plain.yaml", &format!("{temp_dir}{master}")),
            whole: site.write("whole.yaml", &format!("{temp_dir}{tunnel}{emit}{master}")),
            with_gateway: site.write(
                "with-gateway.yaml",
                &format!("{temp_dir}{tunnel}{gateway}{emit}{master}"),
            ),
            site,
            started,
        }
    }

    /// Until the master starts, in milliseconds since `began`. Then everything is ended.
    async fn until_master(&self, began: Instant, mut running: StageClient) -> f64 {
        let started = async {
            while !self.started.exists() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(support::DEADLINE, started)
            .await
            .expect("the master does not start");
        let took = began.elapsed().as_secs_f64() * 1000.0;
        running.signal(Signal::TERM);
        running.wait().await;
        std::fs::remove_file(&self.started).expect("cannot remove the mark");
        took
    }

    async fn ours(&self, file: &Path) -> f64 {
        let file = file.to_str().expect("a text");
        let began = Instant::now();
        let up = StageClient::start(self.site.remote(&["up", "--no-preflight", "-c", file]));
        self.until_master(began, up).await
    }

    async fn peer(&self) -> f64 {
        let sshd = &self.site.sshd;
        let mut ssh = self.site.home.command(Path::new("ssh"));
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-i"])
            .arg(sshd.key())
            .arg("-o")
            .arg(format!(
                "UserKnownHostsFile={}",
                sshd.known_hosts().display()
            ))
            .args(["-p", &sshd.port().to_string()])
            .arg(format!("{}@127.0.0.1", sshd.user()))
            .arg("true");
        let began = Instant::now();
        let status = ssh.status().await.expect("no ssh");
        assert!(status.success(), "{status}");
        let program = python_program("DEVCLUSTER", "devcluster");
        let mut devcluster = self.site.home.command(&program);
        devcluster.arg("--oneshot").arg("-c").arg(&self.plain);
        self.until_master(began, StageClient::start(devcluster))
            .await
    }
}

#[tokio::test]
#[ignore = "a benchmark: make bench"]
async fn from_up_to_the_masters_start() {
    let way = Way::new().await;
    std::fs::create_dir_all(way.site.home.path().join("devcluster")).expect("cannot make temp_dir");
    let mut whole = Row::new("tunnel, config-emit", "ms").ratio_at_most(1.3, PEER);
    let mut with_gateway = Row::new("tunnel, gateway, config-emit", "ms");
    for _ in 0..ROUNDS {
        let peer = way.peer().await;
        whole.sample(PEER, peer);
        with_gateway.sample(PEER, peer);
        whole.sample("ours", way.ours(&way.whole).await);
        with_gateway.sample("ours", way.ours(&way.with_gateway).await);
    }
    report(
        "way",
        "from `up` to the master's start",
        &[whole, with_gateway],
    );
}
