//! SIGKILL at every step and at any moment: `gc` releases everything, and existing objects are unchanged.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::gate::{Gate, Side};
use support::gateway::{assert_nothing_of_ours, gc, kill, start};
use support::kube::{gateway_command, write_kubeconfig};
use support::kube_real::{GATEWAYS, RealKube, TCP_ROUTES, in_namespace, real_kube};
use support::random::{asked_for, moment_within};
use support::{Home, StageClient, leaks};

use super::CONTOUR;

/// The runs without installing a controller; provision.rs has the others.
const WAYS: [&[&str]; 3] = [
    &["--gateway", "tcp-gateway", "--gateway-namespace", "default"],
    &["--prefer", "existing"],
    &["--prefer", "dedicated"],
];

/// A cluster with objects of others.
struct World {
    kube: RealKube,
    before: Vec<(String, Value)>,
}

impl World {
    async fn new() -> Option<World> {
        let mut kube = real_kube().await?;
        kube.class("contour", CONTOUR).await;
        kube.class("other", "example.com/controller").await;
        kube.gateway("default", "tcp-gateway").await;
        kube.program("default", "tcp-gateway", "127.0.0.1").await;
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1alpha2",
            "kind": "TCPRoute",
            "metadata": {"name": "theirs"},
            "spec": {"parentRefs": [{"name": "tcp-gateway"}], "rules": [{"backendRefs": [{"name": "theirs", "port": 80}]}]},
        });
        kube.create(&in_namespace(TCP_ROUTES, "default"), &route)
            .await;
        kube.start_controller();
        let before = kube.snapshot().await;
        assert!(
            before
                .iter()
                .any(|(at, _)| at.starts_with(GATEWAYS.rsplit_once('/').expect("a path").0))
        );
        Some(World { kube, before })
    }

    /// Everything is undone after `what`.
    async fn is_as_before(&self, home: &Home, what: &str) {
        assert_nothing_of_ours(&self.kube).await;
        assert_eq!(self.kube.snapshot().await, self.before, "{what}");
        let left = leaks::state(home);
        let left: Vec<String> = left
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap_or_default())
            // One that was killed while it made the file has printed nothing yet.
            .filter(|text| !text.is_empty())
            .collect();
        assert!(left.is_empty(), "{what}: the ledger lists {left:?}");
    }
}

fn through(gate: &Gate, kube: &RealKube, home: &Home, args: &[&str]) -> StageClient {
    let kubeconfig = write_kubeconfig(home, "kubeconfig", &gate.kubeconfig(kube));
    let mut command = gateway_command(home, "run", args);
    command.arg("--kubeconfig").arg(kubeconfig);
    StageClient::start(command)
}

/// Runs until SIGTERM, or until a SIGKILL at the gate. Returns whether it was killed.
async fn dies_at(gate: &Gate, mut stage: StageClient) -> bool {
    tokio::select! {
        biased;
        () = gate.reached() => {
            kill(stage).await;
            true
        }
        () = async {
            stage.wait_for("ready").await;
            stage.signal(Signal::TERM);
            stage.wait().await;
        } => false,
    }
}

#[tokio::test]
async fn killed_before_and_after_every_change_it_leaves_nothing_to_gc() {
    let Some(world) = World::new().await else {
        return;
    };
    let gate = Gate::start(&world.kube).await;
    for (way, changes) in WAYS.iter().zip([4, 4, 6]) {
        for side in [Side::Before, Side::After] {
            let mut killed = 0;
            for number in 1.. {
                let home = Home::new();
                gate.hold(Some((number, side)));
                let stage = through(&gate, &world.kube, &home, way);
                let was_killed = dies_at(&gate, stage).await;
                let what = format!("{way:?}, {side:?} the last of {:?}", gate.changes());
                gate.hold(None);
                gc(&home).await;
                world.is_as_before(&home, &what).await;
                if !was_killed {
                    break;
                }
                killed += 1;
            }
            assert_eq!(killed, changes, "{way:?}");
        }
    }
}

#[tokio::test]
async fn killed_at_every_message_it_leaves_nothing_to_gc() {
    let Some(world) = World::new().await else {
        return;
    };
    for way in WAYS {
        for number in 1.. {
            let home = Home::new();
            let mut stage = start(&world.kube, &home, way);
            let mut said = Value::Null;
            for _ in 0..number {
                said = stage.wait_until("the next message", |_| true).await;
                if said["type"] == "ready" {
                    break;
                }
            }
            kill(stage).await;
            gc(&home).await;
            world.is_as_before(&home, &format!("{way:?}, {said}")).await;
            if said["type"] == "ready" {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_cleanup_that_is_killed_at_every_change_is_finished_by_gc() {
    let Some(world) = World::new().await else {
        return;
    };
    let gate = Gate::start(&world.kube).await;
    for side in [Side::Before, Side::After] {
        for number in 1.. {
            let home = Home::new();
            gate.hold(None);
            let mut stage = through(&gate, &world.kube, &home, &["--prefer", "dedicated"]);
            stage.wait_for("ready").await;
            kill(stage).await;
            gate.hold(Some((number, side)));
            let mut cleanup = StageClient::start(gateway_command(&home, "cleanup", &[]));
            let was_killed = tokio::select! {
                biased;
                () = gate.reached() => true,
                _ = cleanup.wait() => false,
            };
            let what = format!("{side:?} the last of {:?}", gate.changes());
            if was_killed {
                kill(cleanup).await;
            }
            gate.hold(None);
            gc(&home).await;
            world.is_as_before(&home, &what).await;
            if !was_killed {
                assert_eq!(number, 4, "its changes: {what}");
                break;
            }
        }
    }
}

/// `make soak` asks for long rounds.
#[tokio::test]
async fn killed_again_and_again_at_any_moment_it_leaves_nothing_to_gc() {
    let Some(world) = World::new().await else {
        return;
    };
    let home = Home::new();
    let mut first = start(&world.kube, &home, WAYS[2]);
    first.wait_for("ready").await;
    let latest = first.last_message_after().mul_f64(1.5);
    first.signal(Signal::TERM);
    first.wait().await;
    for round in 0..asked_for("DEVCLUSTER_ROUNDS", 8) {
        let home = Home::new();
        let mut moments: Vec<Duration> = Vec::new();
        // The next run resumes the previous session, whatever it was about.
        for life in 0..3 {
            let way = WAYS[(round as usize + life) % WAYS.len()];
            let stage = start(&world.kube, &home, way);
            let moment = moment_within(latest);
            moments.push(moment);
            // The moment matters here: there is no event to wait for.
            tokio::time::sleep(moment).await;
            if life == 1 {
                stage.signal(Signal::TERM);
                tokio::time::sleep(moment_within(Duration::from_millis(100))).await;
            }
            kill(stage).await;
        }
        let cleanup = StageClient::start(gateway_command(&home, "cleanup", &[]));
        tokio::time::sleep(moment_within(latest)).await;
        kill(cleanup).await;
        gc(&home).await;
        let what = format!("round {round}, killed after {moments:.0?}");
        world.is_as_before(&home, &what).await;
    }
}
