//! devcluster-gateway installs a controller on a real kube-apiserver, shares it, and removes it, also after SIGKILL.
//!
//! Here the test acts as the controller through the API; contour.rs has Contour itself.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use support::gateway::{
    SESSIONS, assert_nothing_of_ours, cleanup, gc_with, kill, outputs, run_as, start_lasting, stop,
};
use support::kube::gateway_command;
use support::kube_infra::{CONTOUR, CRDS, DEPLOYMENTS, NAMESPACES};
use support::kube_real::{GATEWAYS, LEASES, RealKube, STAGE, in_namespace, path, real_kube};
use support::terminal::Terminal;
use support::{Home, StageClient, leaks};
use tokio::process::Command;

fn command(kube: &RealKube, home: &Home, args: &[&str]) -> Command {
    let mut command = run_as(kube, STAGE, home, args);
    command.arg("--provision-manifests").arg(kube.contour());
    command
}

fn auto(kube: &RealKube, home: &Home) -> StageClient {
    auto_for(kube, home, "default")
}

/// The same, beside a session that has the default namespace for tasks.
fn auto_for(kube: &RealKube, home: &Home, tasks: &str) -> StageClient {
    let args = ["--provision", "auto", "--task-namespace", tasks];
    StageClient::start(command(kube, home, &args))
}

/// A cluster with a Gateway API that was installed by others.
async fn cluster() -> Option<RealKube> {
    let mut kube = real_kube().await?;
    kube.uninstall().await;
    kube.install("v1.2.1", "experimental").await;
    kube.start_provisioner();
    Some(kube)
}

#[tokio::test]
async fn two_sessions_that_install_at_once_share_it_and_the_last_one_removes_it() {
    let Some(kube) = cluster().await else {
        return;
    };
    for namespace in ["tasks-2", "tasks-3"] {
        kube.namespace(namespace).await;
    }
    let before = kube.snapshot().await;
    let (one, two) = (Home::new(), Home::new());
    let (mut first, mut second) = (auto(&kube, &one), auto_for(&kube, &two, "tasks-2"));
    let (a, b) = (outputs(&mut first).await, outputs(&mut second).await);
    assert_ne!(
        a["internal_task_gateway"]["gateway_name"],
        b["internal_task_gateway"]["gateway_name"]
    );
    assert_eq!(
        (&a["provisioned"], &b["provisioned"]),
        (&json!(true), &json!(true))
    );
    let applies = kube
        .requests(STAGE)
        .iter()
        .filter(|it| it.starts_with("patch /apis/apps/v1"))
        .count();
    assert_eq!(applies, 1, "installed once");

    stop(first).await;
    let said = cleanup(&one).await;
    assert!(
        said.contains("stays: Gateway default/devcluster-"),
        "{said}"
    );
    assert_eq!(kube.items(DEPLOYMENTS).await.len(), 1);
    let ledgers = leaks::state(&one);
    let is_ledger = |it: &PathBuf| it.extension().is_some_and(|it| it == "jsonl");
    assert!(
        ledgers.iter().any(is_ledger),
        "it is still to be removed: {ledgers:?}"
    );

    // The last session ends while a new one starts.
    stop(second).await;
    let three = Home::new();
    let mut leaving = StageClient::start(gateway_command(&two, "cleanup", &[]));
    let mut third = auto_for(&kube, &three, "tasks-3");
    assert_eq!(outputs(&mut third).await["provisioned"], json!(true));
    assert!(leaving.wait().await.0.success(), "{}", leaving.stderr());
    let class = kube
        .get("/apis/gateway.networking.k8s.io/v1/gatewayclasses/devcluster-gateway")
        .await;
    assert!(
        class["metadata"]["deletionTimestamp"].is_null() && !class.is_null(),
        "{class:#}"
    );
    stop(third).await;
    cleanup(&three).await;
    assert_nothing_of_ours(&kube).await;
    let kept: Vec<_> = before.iter().map(|(at, _)| at).collect();
    let mut after = kube.snapshot().await;
    after.retain(|(at, _)| kept.contains(&at));
    assert_eq!(after, before, "CRDs of others included");
    assert_eq!(
        leaks::state(&three),
        [three
            .path()
            .join("state/devcluster-stages/leases-seen.json")]
        .into_iter()
        .filter(|it| it.exists())
        .collect::<Vec<PathBuf>>()
    );
}

#[tokio::test]
async fn the_controller_of_a_gateway_that_stays_for_tasks_stays_too_and_a_dry_run_says_so() {
    let Some(kube) = cluster().await else {
        return;
    };
    let home = Home::new();
    let manifests = kube.contour();
    let manifests = manifests.to_str().expect("text");
    let args = ["--provision", "auto", "--provision-manifests", manifests];
    let (stage, _) = start_lasting(&kube, &home, &args).await;
    let pods = in_namespace("/api/v1/pods", "default");
    let pod = json!({"metadata": {"name": "task", "labels": {"determined": "canary.1"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "automountServiceAccountToken": false}});
    kube.create(&pods, &pod).await;
    kill(stage).await;
    let stays = async |flags: &[&str]| {
        let said = gc_with(&home, flags).await;
        let line = "the controller of GatewayClass devcluster-gateway stays";
        assert!(
            said.contains(line) && !said.contains("the controller: "),
            "{flags:?}: {said}"
        );
    };
    // Before it is parked, and afterwards.
    stays(&["--dry-run"]).await;
    stays(&[]).await;
    stays(&["--dry-run"]).await;
    let said = gc_with(&home, &["--now", "--dry-run"]).await;
    assert!(said.contains("would remove the controller"), "{said}");
    kube.delete(&format!("{pods}/task?gracePeriodSeconds=0"))
        .await;
    let said = gc_with(&home, &["--dry-run"]).await;
    assert!(said.contains("would remove the controller"), "{said}");
    gc_with(&home, &[]).await;
    assert_nothing_of_ours(&kube).await;
}

/// Changes of the ledger and requests to the API; each is a moment for a kill. `DEVCLUSTER_ROUNDS` uses all of them.
fn moments() -> Vec<usize> {
    match std::env::var_os("DEVCLUSTER_ROUNDS") {
        Some(_) => (1..=32).collect(),
        None => vec![1, 4, 18, 22, 26],
    }
}

#[tokio::test]
async fn killed_at_any_step_of_installing_it_leaves_nothing_that_cleanup_does_not_remove() {
    let Some(kube) = cluster().await else {
        return;
    };
    // Objects of others, beside those to install.
    kube.class("other", "example.com/controller").await;
    kube.gateway("default", "others").await;
    let before = kube.snapshot().await;
    for moment in moments() {
        let home = Home::new();
        let mut stage = auto(&kube, &home);
        for _ in 0..moment {
            let step = stage
                .wait_until("the next step", |it| {
                    it["type"] == "progress" || it["type"] == "ready"
                })
                .await;
            if step["type"] == "ready" {
                break;
            }
        }
        stage.signal(Signal::KILL);
        stage.wait().await;
        cleanup(&home).await;
        assert_nothing_of_ours(&kube).await;
        let kept: Vec<_> = before.iter().map(|(at, _)| at).collect();
        let mut after = kube.snapshot().await;
        after.retain(|(at, _)| !at.contains("customresourcedefinitions") || kept.contains(&at));
        assert_eq!(after, before, "after step {moment}");
    }
}

#[tokio::test]
async fn a_partial_installation_is_completed_by_the_next_run_and_a_partial_cleanup_by_the_next_cleanup()
 {
    let Some(kube) = cluster().await else {
        return;
    };
    let home = Home::new();
    let mut stage = auto(&kube, &home);
    stage
        .wait_until("half of it", |it| {
            it["message"]
                .as_str()
                .is_some_and(|it| it.starts_with("applied ClusterRole "))
        })
        .await;
    stage.signal(Signal::KILL);
    stage.wait().await;
    assert!(!kube.infrastructure().await.is_empty());
    let mut next = auto(&kube, &home);
    assert_eq!(outputs(&mut next).await["provisioned"], json!(true));
    stop(next).await;
    for patience in [300, 900, 1800] {
        let mut cleanup = StageClient::start(gateway_command(&home, "cleanup", &[]));
        tokio::time::sleep(Duration::from_millis(patience)).await;
        cleanup.signal(Signal::KILL);
        cleanup.wait().await;
    }
    cleanup(&home).await;
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn objects_of_others_are_neither_changed_nor_removed() {
    let Some(kube) = cluster().await else {
        return;
    };
    let role = json!({"metadata": {"name": "contour-gateway-provisioner"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    kube.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role)
        .await;
    let before = kube.snapshot().await;
    let home = Home::new();
    let mut stage = auto(&kube, &home);
    outputs(&mut stage).await;
    assert!(
        stage
            .stderr()
            .contains("ClusterRole contour-gateway-provisioner: exists, and stays as it is"),
        "{}",
        stage.stderr()
    );
    let kept = "CustomResourceDefinition gateways.gateway.networking.k8s.io: exists, and stays as it is: it is v1.2.1, experimental channel; \
        the manifests have v1.3.0, experimental; it may be too old for this controller";
    assert!(stage.stderr().contains(kept), "{}", stage.stderr());
    // An object of others in our namespace keeps the namespace.
    kube.create(
        "/api/v1/namespaces/projectcontour/configmaps",
        &json!({"metadata": {"name": "precious"}, "data": {"a": "b"}}),
    )
    .await;
    stop(stage).await;
    let said = cleanup(&home).await;
    assert!(
        said.contains(
            "Namespace projectcontour stays: it contains ConfigMap projectcontour/precious, which is not ours"
        ),
        "{said}"
    );
    assert!(
        !kube
            .get("/api/v1/namespaces/projectcontour/configmaps/precious")
            .await
            .is_null()
    );
    let mut after = kube.snapshot().await;
    let there: Vec<_> = before.iter().map(|(at, _)| at).collect();
    after.retain(|(at, _)| there.contains(&at));
    assert_eq!(after, before);
    kube.delete("/apis/rbac.authorization.k8s.io/v1/clusterroles/contour-gateway-provisioner")
        .await;
    kube.delete(&format!("{NAMESPACES}/projectcontour")).await;
    kube.until("end of the namespace", async || {
        kube.get(&format!("{NAMESPACES}/projectcontour"))
            .await
            .is_null()
    })
    .await;
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn what_a_dead_session_left_is_collected_by_another_users_gc() {
    let Some(kube) = cluster().await else {
        return;
    };
    let (vanished, other) = (Home::new(), Home::new());
    let mut stage = auto(&kube, &vanished);
    outputs(&mut stage).await;
    // Of another controller, so that ours is not in use.
    kube.class("contour", "example.com/controller").await;
    kube.gateway("default", "tcp-gateway").await;
    kube.program("default", "tcp-gateway", "127.0.0.1").await;
    kube.namespace("tasks-2").await;
    let beside = ["--gateway", "tcp-gateway", "--task-namespace", "tasks-2"];
    let mut neighbour = StageClient::start(command(&kube, &other, &beside));
    outputs(&mut neighbour).await;
    stop(neighbour).await;
    stage.signal(Signal::KILL);
    stage.wait().await;
    // As after a very short session: a real one would barely notice an API that answers slowly.
    let moment = json!({"spec": {"leaseDurationSeconds": 2}});
    for lease in kube.items(SESSIONS).await {
        kube.merge(&path(LEASES, &lease), &moment).await;
    }
    // As `devcluster-remote gc` does, by the ledger of a session that only met the other one.
    kube.until("collection", async || {
        let said = cleanup(&other).await;
        said.contains("removed Gateway default/devcluster-")
            && said.contains("the controller: GatewayClass")
    })
    .await;
    assert_nothing_of_ours(&kube).await;
    cleanup(&vanished).await;
}

#[tokio::test]
async fn at_a_terminal_it_asks_before_it_installs_and_before_it_uses_an_abandoned_gateway() {
    let Some(kube) = cluster().await else {
        return;
    };
    let home = Home::new();
    let mut terminal = Terminal::start(command(&kube, &home, &[]));
    terminal
        .wait_for("Deployment projectcontour/contour-gateway-provisioner: would be created")
        .await;
    terminal
        .wait_for("on the cluster of context \"real\"? [y/N]")
        .await;
    terminal.answer("n");
    terminal.wait_for("gateway.none").await;
    assert_nothing_of_ours(&kube).await;

    kube.class("contour", CONTOUR).await;
    kube.gateway("default", "left").await;
    let annotations = json!({"determined.ai/det-gateway-port-40000": "dead.1"});
    kube.merge(
        &format!("{}/left", in_namespace(GATEWAYS, "default")),
        &json!({"metadata": {"annotations": annotations}}),
    )
    .await;
    let mut terminal = Terminal::start(command(&kube, &home, &[]));
    terminal.wait_for("Gateway default/left: a dead Determined master left 1 port (40000) on it. Use it? [y/N]").await;
    terminal.answer("y");
    terminal.wait_for("ready: Gateway default/left").await;
    let pid = terminal.child.id().expect("it runs");
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("0 is not a process id");
    rustix::process::kill_process(pid, Signal::TERM).expect("cannot signal the stage");
    let ended = tokio::time::timeout(support::DEADLINE, terminal.child.wait()).await;
    assert!(ended.is_ok(), "it does not end");

    kube.delete(&format!("{}/left", in_namespace(GATEWAYS, "default")))
        .await;
    kube.delete("/apis/gateway.networking.k8s.io/v1/gatewayclasses/contour")
        .await;
    let mut terminal = Terminal::start(command(&kube, &home, &[]));
    terminal.wait_for("[y/N]").await;
    terminal.answer("yes");
    terminal
        .wait_for("ready: Gateway default/devcluster-")
        .await;
    drop(terminal);
    kube.until("end of the stage", async || {
        leaks::processes(&home.mark()).is_empty()
    })
    .await;
    cleanup(&home).await;
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn a_dry_run_and_a_preflight_report_what_would_be_installed_and_change_nothing() {
    let Some(kube) = cluster().await else {
        return;
    };
    let home = Home::new();
    let before = kube.snapshot().await;
    let mut dry = StageClient::start(command(&kube, &home, &["--provision", "auto", "--dry-run"]));
    assert!(dry.wait().await.0.success(), "{}", dry.stderr());
    for line in [
        "CustomResourceDefinition httproutes.gateway.networking.k8s.io: would be created",
        "CustomResourceDefinition tcproutes.gateway.networking.k8s.io: exists, and stays as it is",
        "GatewayClass devcluster-gateway: would be created",
    ] {
        assert!(dry.stderr().contains(line), "{line}\n{}", dry.stderr());
    }
    let mut check = gateway_command(&home, "check", &["--preflight", "--provision", "auto"]);
    check
        .arg("--provision-manifests")
        .arg(kube.contour())
        .arg("--kubeconfig")
        .arg(home.path().join("kubeconfig"));
    let mut check = StageClient::start(check);
    let (status, _) = check.wait().await;
    assert!(status.success(), "{}", check.stderr());
    assert!(
        check
            .stderr()
            .contains("✓ a controller can be installed: 24 objects of"),
        "{}",
        check.stderr()
    );
    assert_eq!(kube.snapshot().await, before);
    assert_eq!(
        kube.items(LEASES)
            .await
            .iter()
            .filter(|it| it["metadata"]["namespace"] == "default")
            .count(),
        0
    );
    let changes = |it: &&String| {
        !["get ", "list ", "watch "]
            .iter()
            .any(|verb| it.starts_with(verb))
    };
    let mut changed = kube.requests(STAGE);
    changed.retain(|it| changes(&it) && !it.contains("selfsubjectaccessreviews"));
    assert_eq!(changed, Vec::<String>::new());
    assert_eq!(
        kube.items(CRDS)
            .await
            .iter()
            .filter(|it| path(CRDS, it).contains("projectcontour"))
            .count(),
        0
    );
}
