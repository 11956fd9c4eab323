//! Sessions: each has a Lease, and no two share a Gateway.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use support::gateway::{
    SESSIONS, assert_nothing_of_ours, cleanup, fail, gc, kill, open_port, outputs, ready, start,
    stop,
};
use support::kube::gateway_command;
use support::kube_real::{GATEWAYS, LEASES, STAGE, TCP_ROUTES, in_namespace, path, real_kube};
use support::{Home, StageClient};

use super::{CONTOUR, with_gateway};

#[tokio::test]
async fn an_existing_gateway_is_held_by_a_lease_and_released_unchanged() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let path = format!("{}/tcp-gateway", in_namespace(GATEWAYS, "default"));
    let before = kube.get(&path).await;

    let home = Home::new();
    let mut stage = start(&kube, &home, &["--lease-duration", "10"]);
    let outputs = outputs(&mut stage).await;
    assert_eq!(
        outputs["internal_task_gateway"]["gateway_name"],
        "tcp-gateway"
    );
    let requests = kube.requests(STAGE);
    let watches =
        |it: &&String| it.contains("fieldSelector") || it.contains("selfsubjectaccessreviews");
    assert_eq!(
        requests.iter().filter(|it| !watches(it)).count(),
        7,
        "{requests:#?}"
    );

    let lease = kube.items(SESSIONS).await.pop().expect("a Lease");
    assert_eq!(lease["metadata"]["name"], "devcluster-gateway-tcp-gateway");
    kube.until("renewal", async || {
        kube.items(SESSIONS).await[0]["spec"]["renewTime"] != lease["spec"]["renewTime"]
    })
    .await;

    // A master's changes, and what it leaves when it dies, are its own.
    open_port(&outputs, "default").await;

    stop(stage).await;
    assert_nothing_of_ours(&kube).await;
    let mut after = kube.get(&path).await;
    after["spec"]["listeners"]
        .as_array_mut()
        .expect("listeners")
        .pop();
    assert_eq!(after["spec"], before["spec"]);
}

#[tokio::test]
async fn two_sessions_never_share_and_the_second_creates_a_gateway_and_deletes_it() {
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.gateway("default", "tcp-gateway").await;
    kube.start_controller();
    let (one, two) = (Home::new(), Home::new());
    let mut first = start(&kube, &one, &[]);
    assert_eq!(ready(&mut first).await["gateway_name"], "tcp-gateway");
    kube.namespace("tasks-2").await;
    let mut second = start(&kube, &two, &["--task-namespace", "tasks-2"]);
    let outputs = outputs(&mut second).await;
    let name = outputs["internal_task_gateway"]["gateway_name"].as_str();
    let name = name.expect("a name").to_owned();
    assert!(name.starts_with("devcluster-"), "{name}");
    let gateway = kube
        .get(&format!("{}/{name}", in_namespace(GATEWAYS, "default")))
        .await;
    assert_eq!(
        gateway["metadata"]["ownerReferences"][0]["kind"], "Lease",
        "{gateway:#}"
    );
    open_port(&outputs, "default").await;

    let said = stop(second).await;
    assert!(said.contains("tcp-gateway: skipped: session"), "{said}");
    kube.until("Gateway to go", async || {
        kube.items(GATEWAYS).await.len() == 1
    })
    .await;
    // What the master has made is the master's: its next start removes it.
    cleanup(&two).await;
    assert_eq!(kube.items(TCP_ROUTES).await.len(), 1);
    // The other session's Gateway is not reported while that session is alive.
    assert_eq!(gc(&two).await, "nothing was left behind\n");
    stop(first).await;
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn a_killed_session_is_resumed_and_cleanup_releases_its_gateway() {
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.start_controller();
    let home = Home::new();
    let args = ["--prefer", "dedicated"];
    let mut stage = start(&kube, &home, &args);
    let block = ready(&mut stage).await;
    kill(stage).await;
    let mut again = start(&kube, &home, &args);
    assert_eq!(ready(&mut again).await, block, "the same Gateway");
    kill(again).await;
    let (gateways, leases) = (kube.items(GATEWAYS).await, kube.items(SESSIONS).await);
    let mut look = StageClient::start(gateway_command(&home, "cleanup", &["--dry-run"]));
    assert!(look.wait().await.0.success(), "{}", look.stderr());
    let said = look.stderr();
    assert!(
        said.contains("would remove Gateway default/devcluster-"),
        "{said}"
    );
    let after = (kube.items(GATEWAYS).await, kube.items(SESSIONS).await);
    assert_eq!(after, (gateways, leases), "looking changed something");
    let said = cleanup(&home).await;
    assert!(
        said.contains("the Lease on Gateway default/devcluster-"),
        "{said}"
    );
    assert_nothing_of_ours(&kube).await;
    assert!(cleanup(&home).await.contains("nothing was left"));
}

#[tokio::test]
async fn an_expired_session_is_collected_and_a_live_one_is_taken_over_only_on_request() {
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.start_controller();
    let (dead, eve, next) = (Home::new(), Home::new(), Home::new());
    let mut killed = start(&kube, &dead, &["--lease-duration", "1"]);
    let gateway = ready(&mut killed).await["gateway_name"].clone();
    kill(killed).await;
    // Observed once, and again unchanged after more than its second on the observer's own clock.
    for namespace in ["tasks-2", "tasks-3"] {
        kube.namespace(namespace).await;
    }
    let dedicated = [
        "--prefer",
        "dedicated",
        "--lease-duration",
        "5",
        "--task-namespace",
        "tasks-2",
    ];
    let mut observer = start(&kube, &eve, &dedicated);
    ready(&mut observer).await;
    stop(observer).await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let mut stage = start(&kube, &eve, &dedicated);
    let own = ready(&mut stage).await["gateway_name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let path = format!(
        "{}/{}",
        in_namespace(GATEWAYS, "default"),
        gateway.as_str().expect("a name")
    );
    kube.until("collection", async || kube.get(&path).await.is_null())
        .await;

    let mut refused = start(
        &kube,
        &next,
        &["--gateway", &own, "--task-namespace", "tasks-3"],
    );
    let error = refused.wait_for("error").await["error"].clone();
    assert_eq!(error["code"], "gateway.none_usable");
    assert!(error.to_string().contains("holds its Lease"), "{error:#}");
    refused.wait().await;

    let take_over = [
        "--gateway",
        &own,
        "--take-over",
        "--task-namespace",
        "tasks-3",
    ];
    let mut thief = start(&kube, &next, &take_over);
    assert_eq!(ready(&mut thief).await["gateway_name"], json!(own));
    assert_eq!(
        stage.wait_for("error").await["error"]["code"],
        "gateway.session_lost"
    );
    assert_eq!(stage.wait().await.0.code(), Some(1));
    stop(thief).await;
}

#[tokio::test]
async fn another_run_with_the_same_identity_ends_the_first_which_deletes_nothing() {
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.start_controller();
    let home = Home::new();
    let args = ["--prefer", "dedicated", "--lease-duration", "20"];
    let mut stage = start(&kube, &home, &args);
    ready(&mut stage).await;
    // As a copy of this machine does.
    let lease = path(LEASES, &kube.items(SESSIONS).await[0]);
    let tasks = in_namespace(LEASES, "default") + "/devcluster-tasks";
    let run = json!({"metadata": {"annotations": {"devcluster/run": "another"}}});
    kube.merge(&lease, &run).await;
    let run = json!({"metadata": {"annotations": {"devcluster/instances": "gateway=another"}}});
    kube.merge(&tasks, &run).await;
    let error = fail(stage).await;
    assert_eq!(error["code"], "gateway.session_lost", "{error:#}");
    assert_eq!(kube.items(GATEWAYS).await.len(), 1);
    assert_eq!(kube.items(SESSIONS).await.len(), 1);
    // The copy runs: the next run of this instance takes nothing from it.
    let held = fail(start(&kube, &home, &args)).await;
    assert_eq!(held["code"], "gateway.task_namespace_held", "{held:#}");
    kube.namespace("tasks-2").await;
    let args = [&args[..], &["--task-namespace", "tasks-2"]].concat();
    let mut next = start(&kube, &home, &args);
    ready(&mut next).await;
    assert_eq!(kube.items(GATEWAYS).await.len(), 2);
    stop(next).await;
    cleanup(&home).await;
    kube.until("Gateway to go", async || {
        kube.items(GATEWAYS).await.len() == 1
    })
    .await;
    let run = &kube.get(&lease).await["metadata"]["annotations"]["devcluster/run"];
    assert_eq!(run, "another");
    assert!(!kube.get(&tasks).await.is_null(), "it is the copy's too");
}

#[tokio::test]
async fn gc_on_a_copy_of_the_machine_leaves_all_leases_of_the_live_one() {
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.start_controller();
    let home = Home::new();
    let args = ["--prefer", "dedicated"];
    let mut stage = start(&kube, &home, &args);
    ready(&mut stage).await;
    kill(stage).await;
    let ledger = state_files(&home, "jsonl").pop().expect("a ledger");
    let copy = std::fs::read(&ledger).expect("cannot read");
    let mut stage = start(&kube, &home, &args);
    ready(&mut stage).await;
    kill(stage).await;
    let live = std::fs::read(&ledger).expect("cannot read");
    let leases = kube.items(LEASES).await;
    // On the copy.
    std::fs::write(&ledger, copy).expect("cannot write");
    gc(&home).await;
    assert_eq!(kube.items(LEASES).await, leases);
    std::fs::write(&ledger, live).expect("cannot write");
    gc(&home).await;
    assert_nothing_of_ours(&kube).await;
    let tasks = in_namespace(LEASES, "default") + "/devcluster-tasks";
    assert!(kube.get(&tasks).await.is_null());
}

#[tokio::test]
async fn a_session_that_an_older_release_began_is_valid() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    let mut stage = start(&kube, &home, &[]);
    ready(&mut stage).await;
    kill(stage).await;
    // It wrote another holder.
    let session = kube.items(SESSIONS).await.remove(0);
    let holder = session["spec"]["holderIdentity"].as_str().expect("text");
    let ledger = state_files(&home, "jsonl").pop().expect("a ledger");
    let text = std::fs::read_to_string(&ledger).expect("cannot read");
    std::fs::write(&ledger, text.replace(holder, "me@here/gateway")).expect("cannot write");
    let older = json!({"spec": {"holderIdentity": "me@here/gateway"}});
    kube.merge(&path(LEASES, &session), &older).await;
    let mut stage = start(&kube, &home, &[]);
    ready(&mut stage).await;
    let mut check = StageClient::start(gateway_command(&home, "check", &[]));
    assert!(check.wait().await.0.success(), "{}", check.stderr());
    stop(stage).await;
    cleanup(&home).await;
    assert_nothing_of_ours(&kube).await;
}

/// The files of the state directory of this kind.
fn state_files(home: &Home, extension: &str) -> Vec<PathBuf> {
    let directory = home.path().join("state/devcluster-stages");
    let entries = std::fs::read_dir(directory).expect("no state");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|it| it.extension().is_some_and(|it| it == extension))
        .collect()
}

#[tokio::test]
async fn files_of_another_machine_take_no_session_from_it() {
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.start_controller();
    kube.namespace("tasks-2").await;
    let home = Home::new();
    let args = ["--prefer", "dedicated"];
    let mut stage = start(&kube, &home, &args);
    ready(&mut stage).await;
    kill(stage).await;
    let (theirs, gateways) = (kube.items(SESSIONS).await, kube.items(GATEWAYS).await);
    // As on another machine, which has other identities.
    for path in state_files(&home, "id") {
        let text = std::fs::read_to_string(&path).expect("cannot read");
        let mut identity: Value = serde_json::from_str(&text).expect("not JSON");
        let id: String = identity["id"]
            .as_str()
            .expect("an id")
            .chars()
            .rev()
            .collect();
        identity["id"] = id.into();
        std::fs::write(&path, identity.to_string()).expect("cannot write");
    }
    for _ in 0..2 {
        let said = cleanup(&home).await;
        assert!(said.contains("is that of another machine"), "{said}");
        let there = (kube.items(SESSIONS).await, kube.items(GATEWAYS).await);
        assert_eq!(there, (theirs.clone(), gateways.clone()));
    }
    let args = [&args[..], &["--task-namespace", "tasks-2"]].concat();
    let mut next = start(&kube, &home, &args);
    ready(&mut next).await;
    assert_eq!(kube.items(GATEWAYS).await.len(), 2);
    stop(next).await;
    cleanup(&home).await;
    assert_eq!(kube.items(SESSIONS).await, theirs);
}

/// Hides the identities of this machine, and shows those of another one: each has files of its own.
fn become_machine(home: &Home, machine: &str) {
    let with = |extension: &str| state_files(home, extension);
    let there: Vec<PathBuf> = with(machine);
    for path in with("id") {
        let other = if machine == "one" { "two" } else { "one" };
        std::fs::rename(&path, path.with_extension(other)).expect("cannot move");
    }
    for path in there {
        std::fs::rename(&path, path.with_extension("id")).expect("cannot move");
    }
}

#[tokio::test]
async fn two_laptops_with_one_home_have_a_gateway_each() {
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.start_controller();
    let home = Home::new();
    let mut names = Vec::new();
    for (namespace, machine) in [("tasks-1", "one"), ("tasks-2", "two")] {
        kube.namespace(namespace).await;
        if machine == "two" {
            become_machine(&home, machine);
        }
        let args = ["--prefer", "dedicated", "--task-namespace", namespace];
        let mut stage = start(&kube, &home, &args);
        names.push(ready(&mut stage).await["gateway_name"].clone());
        kill(stage).await;
    }
    assert_ne!(names[0], names[1]);
    for (namespace, machine, name) in [("tasks-1", "one", &names[0]), ("tasks-2", "two", &names[1])]
    {
        become_machine(&home, machine);
        let args = ["--prefer", "dedicated", "--task-namespace", namespace];
        let mut stage = start(&kube, &home, &args);
        assert_eq!(ready(&mut stage).await["gateway_name"], *name);
        kill(stage).await;
        assert_eq!(kube.items(SESSIONS).await.len(), 2);
    }
    // Each removes its own.
    for (machine, left) in [("one", &names[1..]), ("two", &[])] {
        become_machine(&home, machine);
        cleanup(&home).await;
        let gateways = kube.items(GATEWAYS).await;
        let gateways = gateways.iter().map(|it| it["metadata"]["name"].clone());
        assert_eq!(gateways.collect::<Vec<_>>(), left, "{machine}");
    }
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn another_cluster_of_the_same_name_is_not_the_one_in_the_ledger() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    let mut stage = start(&kube, &home, &[]);
    ready(&mut stage).await;
    kill(stage).await;
    let lease = path(LEASES, &kube.items(SESSIONS).await[0]);
    let (first, second) = (home.path().join("kubeconfig"), home.path().join("second"));
    std::fs::copy(&first, &second).expect("cannot copy");
    let start_second = || {
        let mut command = gateway_command(&home, "run", &[]);
        command.arg("--kubeconfig").arg(&second);
        StageClient::start(command)
    };
    // Another kubeconfig of the same cluster: it has the very Lease.
    let mut again = start_second();
    ready(&mut again).await;
    kill(again).await;
    assert_eq!(kube.items(SESSIONS).await.len(), 1);
    // As on another cluster, which has not.
    std::fs::rename(&second, home.path().join("third")).expect("cannot move");
    kube.delete(&lease).await;
    let mut other = start(&kube, &home, &[]);
    ready(&mut other).await;
    stop(other).await;
    let ledger = state_files(&home, "jsonl").pop().expect("a ledger");
    let ledger = std::fs::read_to_string(ledger).expect("cannot read");
    let second = second.to_str().expect("text");
    assert!(ledger.contains(second), "{ledger}");
}

#[tokio::test]
async fn a_gateway_that_is_left_is_used_again_by_the_next_run() {
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.start_controller();
    let home = Home::new();
    for _ in 0..3 {
        let mut stage = start(&kube, &home, &["--prefer", "dedicated", "--leave"]);
        ready(&mut stage).await;
        stop(stage).await;
        // Already when the stage has ended: a garbage collector that does not know the Gateway yet cannot do it.
        let all = kube.items(GATEWAYS).await;
        assert_eq!(all.len(), 1, "{all:#?}");
        assert!(all[0]["metadata"]["ownerReferences"].is_null(), "{all:#?}");
    }
    cleanup(&home).await;
    assert_eq!(kube.items(SESSIONS).await.len(), 0);
    assert_eq!(kube.items(GATEWAYS).await.len(), 1);
}

#[tokio::test]
async fn a_session_of_a_newer_release_is_left_alone_and_named() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let lease = json!({
        "metadata": {
            "name": "devcluster-gateway-tcp-gateway",
            "labels": {"app.kubernetes.io/managed-by": "devcluster-gateway"},
            "annotations": {"devcluster/format": "9"},
        },
        "spec": {"holderIdentity": "newer", "leaseDurationSeconds": 1},
    });
    let list = in_namespace(LEASES, "default");
    kube.create(&list, &lease).await;
    let home = Home::new();
    for _ in 0..2 {
        let error = fail(start(
            &kube,
            &home,
            &["--gateway", "tcp-gateway", "--take-over"],
        ))
        .await;
        assert_eq!(error["code"], "protocol.format_newer", "{error:#}");
        let message = error["message"].as_str().expect("a message");
        assert!(
            message.contains("has format 9") && message.contains("up to 2"),
            "{message}"
        );
        // Longer than it lasts.
        tokio::time::sleep(Duration::from_millis(2100)).await;
    }
    let lease = format!("{list}/devcluster-gateway-tcp-gateway");
    assert!(!kube.get(&lease).await.is_null());
}

#[tokio::test]
async fn a_kubeconfig_that_is_away_for_a_moment_loses_nothing() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    let mut stage = start(&kube, &home, &[]);
    ready(&mut stage).await;
    kill(stage).await;
    let (there, away) = (home.path().join("kubeconfig"), home.path().join("away"));
    let without_context = json!({"apiVersion": "v1", "kind": "Config"}).to_string();
    for instead in [None, Some(without_context)] {
        std::fs::rename(&there, &away).expect("cannot move it");
        if let Some(text) = instead {
            std::fs::write(&there, text).expect("cannot write");
        }
        let said = gc(&home).await;
        assert!(
            said.contains("the kubeconfig has no context \"real\" at the moment"),
            "{said}"
        );
        assert_eq!(kube.items(SESSIONS).await.len(), 1);
        std::fs::rename(&away, &there).expect("cannot move it back");
    }
    let said = gc(&home).await;
    assert!(said.contains("removed the Lease on Gateway"), "{said}");
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn a_lease_that_was_deleted_ends_the_stage() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    let mut stage = start(&kube, &home, &["--lease-duration", "2"]);
    ready(&mut stage).await;
    kube.delete(&path(LEASES, &kube.items(SESSIONS).await[0]))
        .await;
    assert_eq!(
        stage.wait_for("error").await["error"]["code"],
        "gateway.session_lost"
    );
    assert_eq!(stage.wait().await.0.code(), Some(1));
}

#[tokio::test]
async fn a_gateway_of_an_earlier_session_that_does_not_go_is_an_error() {
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.start_controller();
    let home = Home::new();
    let mut stage = start(&kube, &home, &["--prefer", "dedicated"]);
    let name = ready(&mut stage).await["gateway_name"].clone();
    let name = name.as_str().expect("a name");
    let path = format!("{}/{name}", in_namespace(GATEWAYS, "default"));
    let finalizers = |list| json!({"metadata": {"finalizers": list}});
    kube.merge(&path, &finalizers(json!(["example.com/slow"])))
        .await;
    stop(stage).await;
    let again = start(&kube, &home, &["--prefer", "dedicated"]);
    let error = fail(again).await;
    assert_eq!(error["code"], "gateway.name_in_use", "{error:#}");
    kube.merge(&path, &finalizers(json!(null))).await;
    cleanup(&home).await;
    assert_nothing_of_ours(&kube).await;
}
