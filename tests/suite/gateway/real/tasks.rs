//! While tasks run, what they depend on stays: after a quit, after SIGKILL and `gc`, and for the next run.

use serde_json::{Value, json};
use support::gateway::{
    SESSIONS, assert_nothing_of_ours, cleanup, close_port, gc, gc_with, kill, open_port, role,
    start_lasting, stop,
};
use support::kube::gateway_command;
use support::kube_real::{GATEWAYS, LIMITED, RealKube, in_namespace, real_kube};
use support::{Home, StageClient};

use super::{CONTOUR, with_gateway};

const DEDICATED: [&str; 4] = ["--prefer", "dedicated", "--lease-duration", "20"];
const KEEP: u64 = 12 * 3600;

/// A pod as Determined makes it for a task.
async fn start_task_in(kube: &RealKube, namespace: &str, allocation: &str) {
    let pod = json!({"metadata": {"name": "task", "labels": {"determined": allocation}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "automountServiceAccountToken": false}});
    kube.create(&in_namespace("/api/v1/pods", namespace), &pod)
        .await;
}

async fn end_task_in(kube: &RealKube, namespace: &str) {
    let pods = in_namespace("/api/v1/pods", namespace);
    kube.delete(&format!("{pods}/task?gracePeriodSeconds=0"))
        .await;
}

async fn start_task(kube: &RealKube) {
    start_task_in(kube, "default", "canary.1").await;
}

async fn end_task(kube: &RealKube) {
    end_task_in(kube, "default").await;
}

async fn lasts(kube: &RealKube, seconds: u64) {
    kube.until(&format!("Lease of {seconds} s"), async || {
        kube.items(SESSIONS).await[0]["spec"]["leaseDurationSeconds"] == seconds
    })
    .await;
}

fn name(outputs: &Value) -> &Value {
    &outputs["internal_task_gateway"]["gateway_name"]
}

async fn cluster() -> Option<RealKube> {
    let mut kube = real_kube().await?;
    kube.class("contour", CONTOUR).await;
    kube.start_controller();
    Some(kube)
}

/// A task runs, and the first session knows it.
async fn with_task() -> Option<(RealKube, Home, StageClient, Value)> {
    let kube = cluster().await?;
    let home = Home::new();
    start_task(&kube).await;
    let (stage, outputs) = start_lasting(&kube, &home, &DEDICATED).await;
    lasts(&kube, KEEP).await;
    Some((kube, home, stage, outputs))
}

#[tokio::test]
async fn a_quit_keeps_the_gateway_of_running_tasks_and_the_next_run_has_it_again() {
    let Some((kube, home, stage, first)) = with_task().await else {
        return;
    };
    let said = stop(stage).await;
    let line = format!(
        "keeps Gateway default/{} for the task that runs, until ",
        name(&first).as_str().expect("a name")
    );
    assert!(said.contains(&line) && said.contains("gc --now"), "{said}");
    let said = gc(&home).await;
    assert!(said.contains("keeps Gateway"), "{said}");
    let uid = kube.items(GATEWAYS).await[0]["metadata"]["uid"].clone();

    let (stage, second) = start_lasting(&kube, &home, &DEDICATED).await;
    assert_eq!(name(&second), name(&first));
    assert_eq!(kube.items(GATEWAYS).await[0]["metadata"]["uid"], uid);
    end_task(&kube).await;
    lasts(&kube, 20).await;
    let said = stop(stage).await;
    assert!(!said.contains("keeps"), "{said}");
    gc(&home).await;
    assert_nothing_of_ours(&kube).await;

    // The name is that of the instance, not of a run.
    let (stage, third) = start_lasting(&kube, &home, &DEDICATED).await;
    assert_eq!(name(&third), name(&first));
    stop(stage).await;
    cleanup(&home).await;
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn a_change_of_the_config_removes_no_gateway_of_running_tasks() {
    let Some((kube, home, stage, first)) = with_task().await else {
        return;
    };
    stop(stage).await;
    kube.gateway("default", "tcp-gateway").await;
    let named = ["--events", "none", "--gateway", "tcp-gateway"];
    let mut refused = support::gateway::start(&kube, &home, &named);
    assert_eq!(refused.wait().await.0.code(), Some(1));
    let said = refused.stderr();
    assert!(
        said.contains("stays for the task that runs, and the config asks for another one")
            && said.contains("gateway.tasks_run"),
        "{said}"
    );
    let (stage, again) = start_lasting(&kube, &home, &DEDICATED).await;
    assert_eq!(name(&again), name(&first));
    end_task(&kube).await;
    lasts(&kube, 20).await;
    stop(stage).await;
    cleanup(&home).await;
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn a_start_that_fails_locks_no_task_namespace() {
    let Some(kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.gateway("default", "slow").await;
    let home = Home::new();
    let mut rules = role("dedicated");
    rules.retain(|it| it["resources"] != json!(["pods"]));
    kube.grant(LIMITED, &rules).await;
    let limited = support::kube::write_kubeconfig(&home, "limited", &kube.kubeconfig(LIMITED));
    let args = ["--gateway", "slow", "--timeout", "2", "--events", "none"];
    let mut command = gateway_command(&home, "run", &args);
    command.arg("--kubeconfig").arg(limited);
    let mut stage = StageClient::start(command);
    assert!(!stage.wait().await.0.success());
    let held = in_namespace("/apis/coordination.k8s.io/v1/leases", "default") + "/devcluster-tasks";
    assert!(kube.get(&held).await.is_null(), "{}", stage.stderr());
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn gc_after_a_kill_keeps_it_too_and_gc_now_removes_it() {
    let Some((kube, home, stage, first)) = with_task().await else {
        return;
    };
    kill(stage).await;
    let renewed = async || kube.items(SESSIONS).await[0]["spec"]["renewTime"].clone();
    let before = renewed().await;
    let said = gc(&home).await;
    assert!(said.contains("keeps Gateway"), "{said}");
    let parked = renewed().await;
    assert_ne!(parked, before, "it lasts as long as the line says");
    let said = gc(&home).await;
    assert!(said.contains("keeps Gateway"), "{said}");
    assert_eq!(renewed().await, parked);
    let (stage, second) = start_lasting(&kube, &home, &DEDICATED).await;
    assert_eq!(name(&second), name(&first));
    kill(stage).await;
    gc(&home).await;
    let said = gc_with(&home, &["--now", "--dry-run"]).await;
    assert!(said.contains("would remove Gateway default/"), "{said}");
    let said = gc_with(&home, &["--now"]).await;
    assert!(said.contains("removed Gateway default/"), "{said}");
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn a_task_in_the_namespace_of_a_workspace_keeps_the_gateway_until_gc_sees_its_end() {
    let Some(kube) = cluster().await else {
        return;
    };
    kube.namespace("team-b").await;
    let home = Home::new();
    let (stage, outputs) = start_lasting(&kube, &home, &DEDICATED).await;
    // Of another master, for all that is known.
    start_task_in(&kube, "team-b", "canary.1").await;
    lasts(&kube, 20).await;
    open_port(&outputs, "team-b").await;
    lasts(&kube, KEEP).await;
    let said = stop(stage).await;
    assert!(said.contains("for the task that runs, until "), "{said}");
    let said = gc(&home).await;
    assert!(said.contains("keeps Gateway"), "{said}");
    // Its master is away, so its port stays.
    end_task_in(&kube, "team-b").await;
    let said = gc(&home).await;
    assert!(said.contains("removed Gateway default/"), "{said}");
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn a_gateway_that_another_masters_task_uses_since_is_not_ours() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    let (stage, outputs) = start_lasting(&kube, &home, &[]).await;
    start_task(&kube).await;
    open_port(&outputs, "default").await;
    lasts(&kube, KEEP).await;
    kill(stage).await;
    end_task(&kube).await;
    gc(&home).await;
    // Another master has used it meanwhile, and its task runs on.
    let gateway = in_namespace(GATEWAYS, "default") + "/tcp-gateway";
    let port =
        json!({"metadata": {"annotations": {"determined.ai/det-gateway-port-49999": "other.1"}}});
    kube.merge(&gateway, &port).await;
    start_task_in(&kube, "default", "other.1").await;
    let refused = support::gateway::start(&kube, &home, &["--gateway", "tcp-gateway"]);
    let error = support::gateway::fail(refused).await;
    assert_eq!(error["code"], "gateway.none_usable", "{error:#}");
    assert!(error.to_string().contains("1 of its 2 ports"), "{error:#}");
    end_task(&kube).await;
    let (stage, again) = start_lasting(&kube, &home, &[]).await;
    assert_eq!(name(&again), "tcp-gateway");
    close_port(&outputs, "default").await;
    stop(stage).await;
    cleanup(&home).await;
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn who_may_not_hold_the_task_namespace_sees_it_before_and_leaves_no_entry() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let mut rules = role("existing");
    rules.retain(|it| it["resources"] != json!(["leases"]));
    kube.grant(LIMITED, &rules).await;
    let home = Home::new();
    let limited = support::kube::write_kubeconfig(&home, "limited", &kube.kubeconfig(LIMITED));
    let limited = limited.to_str().expect("text");
    let args = ["--preflight", "--kubeconfig", limited];
    let mut check = StageClient::start(gateway_command(&home, "check", &args));
    assert_eq!(check.wait().await.0.code(), Some(5));
    let said = check.stderr();
    assert!(
        said.contains("✗ no other master runs tasks in that namespace"),
        "{said}"
    );
    let mut stage = StageClient::start(gateway_command(&home, "run", &["--kubeconfig", limited]));
    let error = stage.wait_for("error").await["error"].clone();
    assert_eq!(error["code"], "cluster.forbidden", "{error:#}");
    stage.wait().await;
    assert_eq!(gc(&home).await, "nothing was left behind\n");
}

#[tokio::test]
async fn gc_locks_no_one_out_of_their_own_gateway() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    let (stage, outputs) = start_lasting(&kube, &home, &[]).await;
    start_task(&kube).await;
    open_port(&outputs, "default").await;
    lasts(&kube, KEEP).await;
    kill(stage).await;
    gc(&home).await;
    let kubeconfig = home.path().join("kubeconfig");
    let kubeconfig = kubeconfig.to_str().expect("text");
    let ours = async || {
        let args = ["--preflight", "--kubeconfig", kubeconfig];
        let mut check = StageClient::start(gateway_command(&home, "check", &args));
        let ended = check.wait().await.0;
        assert!(ended.success(), "{}", check.stderr());
        let (stage, again) = start_lasting(&kube, &home, &[]).await;
        assert_eq!(name(&again), "tcp-gateway");
        stage
    };
    kill(ours().await).await;

    // The task has ended while the master was away, and left its port: it is still ours.
    end_task(&kube).await;
    let said = gc(&home).await;
    assert!(said.contains("removed the Lease on Gateway"), "{said}");
    let stage = ours().await;
    close_port(&outputs, "default").await;
    stop(stage).await;
    cleanup(&home).await;
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn tasks_that_cannot_be_seen_may_run() {
    let Some(kube) = cluster().await else {
        return;
    };
    let home = Home::new();
    let mut rules = role("dedicated");
    rules.retain(|it| it["resources"] != json!(["pods"]));
    kube.grant(LIMITED, &rules).await;
    let limited = support::kube::write_kubeconfig(&home, "limited", &kube.kubeconfig(LIMITED));
    let limited = limited.to_str().expect("text");
    // The last one counts.
    let args = [&DEDICATED[..], &["--keep", "3600"]].concat();
    let mut command = gateway_command(&home, "run", &args);
    command.args(["--events", "none", "--kubeconfig", limited]);
    let stage = StageClient::start(command);
    let mut wait = StageClient::start(gateway_command(&home, "wait", &["--timeout=60"]));
    assert!(wait.wait().await.0.success(), "{}", stage.stderr());
    lasts(&kube, 3600).await;
    let said = stop(stage).await;
    assert!(said.contains("for tasks that may run, until "), "{said}");
    assert_eq!(
        kube.items(&in_namespace(GATEWAYS, "default")).await.len(),
        1
    );
    // By hand everything goes.
    cleanup(&home).await;
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn with_a_command_and_in_a_pipe_nothing_stays() {
    let Some(kube) = cluster().await else {
        return;
    };
    start_task(&kube).await;
    let home = Home::new();
    let args = [&DEDICATED[..], &["--", "true"]].concat();
    let kubeconfig =
        support::kube::write_kubeconfig(&home, "kubeconfig", &kube.kubeconfig("stage"));
    let kubeconfig = kubeconfig.to_str().expect("text");
    let args = [&["--kubeconfig", kubeconfig], &args[..]].concat();
    let mut stage = StageClient::start(gateway_command(&home, "run", &args));
    assert!(stage.wait().await.0.success(), "{}", stage.stderr());
    assert_nothing_of_ours(&kube).await;
    let mut piped = support::gateway::start(&kube, &home, &DEDICATED);
    piped.wait_for("ready").await;
    lasts(&kube, 20).await;
    stop(piped).await;
    gc(&home).await;
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn one_master_has_a_task_namespace_and_the_stages_of_its_file_share_it() {
    let Some(kube) = cluster().await else {
        return;
    };
    let held = in_namespace("/apis/coordination.k8s.io/v1/leases", "default") + "/devcluster-tasks";
    let instances = async || {
        let lease = kube.get(&held).await;
        let all = lease["metadata"]["annotations"]["devcluster/instances"].as_str();
        // Each with its run.
        let all = all.expect("instances").split(',');
        let names = all.map(|it| it.split_once('=').expect("a run").0);
        names.collect::<Vec<_>>().join(",")
    };
    let (home, other) = (Home::new(), Home::new());
    let mut first = support::gateway::start(&kube, &home, &DEDICATED);
    first.wait_for("ready").await;
    let named = [&DEDICATED[..], &["--name", "west"]].concat();
    let mut second = support::gateway::start(&kube, &home, &named);
    second.wait_for("ready").await;
    assert_eq!(instances().await, "gateway,west");

    let refused = support::gateway::start(&kube, &other, &DEDICATED);
    let error = support::gateway::fail(refused).await;
    assert_eq!(error["code"], "gateway.task_namespace_held", "{error:#}");
    let kubeconfig = other.path().join("kubeconfig");
    let args = [
        "--preflight",
        "--kubeconfig",
        kubeconfig.to_str().expect("text"),
    ];
    let mut check = StageClient::start(gateway_command(&other, "check", &args));
    assert_eq!(check.wait().await.0.code(), Some(5));
    let said = check.stderr();
    assert!(
        said.contains("✗ no other master runs tasks in that namespace"),
        "{said}"
    );
    kube.namespace("tasks-2").await;
    let elsewhere = [&DEDICATED[..], &["--task-namespace", "tasks-2"]].concat();
    let mut beside = support::gateway::start(&kube, &other, &elsewhere);
    beside.wait_for("ready").await;
    stop(beside).await;

    stop(second).await;
    assert_eq!(instances().await, "gateway");
    kill(first).await;
    assert_eq!(instances().await, "gateway");
    gc(&home).await;
    assert!(kube.get(&held).await.is_null(), "the last one has left");
    let mut next = support::gateway::start(&kube, &other, &DEDICATED);
    next.wait_for("ready").await;
    stop(next).await;
    cleanup(&other).await;
    cleanup(&home).await;
    assert_nothing_of_ours(&kube).await;
}
