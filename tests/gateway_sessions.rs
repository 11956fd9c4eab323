//! devcluster-gateway on a real kube-apiserver: sessions by Leases, Gateways taken and made, all of it given back.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::kube::{gateway_command, write_kubeconfig};
use support::kube_real::{
    CLASSES, GATEWAYS, LEASES, LIMITED, RealKube, STAGE, TCP_ROUTES, in_namespace, path, real_kube,
};
use support::{Home, StageClient, leaks};

const CONTOUR: &str = "projectcontour.io/gateway-controller";
const SESSIONS: &str = "/apis/coordination.k8s.io/v1/leases?labelSelector=app.kubernetes.io/managed-by=devcluster-gateway";

fn start(kube: &RealKube, home: &Home, args: &[&str]) -> StageClient {
    let kubeconfig = write_kubeconfig(home, "kubeconfig", &kube.kubeconfig(STAGE));
    let mut command = gateway_command(home, "run", args);
    command.arg("--kubeconfig").arg(kubeconfig);
    StageClient::start(command)
}

async fn ready(stage: &mut StageClient) -> Value {
    let outputs = stage.wait_for("outputs").await["outputs"].clone();
    stage.wait_for("ready").await;
    outputs["internal_task_gateway"].clone()
}

async fn stop(mut stage: StageClient) -> String {
    stage.signal(Signal::TERM);
    let (status, took) = stage.wait().await;
    assert!(status.success(), "{status}\n{}", stage.stderr());
    assert!(took.as_millis() < 500, "it took {took:?} to stop");
    stage.stderr()
}

async fn kill(mut stage: StageClient) {
    stage.signal(Signal::KILL);
    stage.wait().await;
}

async fn cleanup(home: &Home) -> String {
    let mut cleanup = StageClient::start(gateway_command(home, "cleanup", &[]));
    let (status, _) = cleanup.wait().await;
    assert!(status.success(), "{}", cleanup.stderr());
    cleanup.stderr()
}

async fn assert_nothing_of_ours(kube: &RealKube) {
    kube.until("Lease to go", async || {
        kube.items(SESSIONS).await.is_empty()
    })
    .await;
    kube.until("Gateway of ours to go", async || {
        let all = kube.items(GATEWAYS).await;
        !all.iter().any(|it| {
            it["metadata"]["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("devcluster-"))
        })
    })
    .await;
}

#[tokio::test]
async fn an_existing_gateway_is_held_by_a_lease_and_given_back_as_it_was() {
    let Some(kube) =
        real_kube("an_existing_gateway_is_held_by_a_lease_and_given_back_as_it_was").await
    else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.gateway("default", "tcp-gateway").await;
    kube.program("default", "tcp-gateway", "127.0.0.1").await;
    let path = format!("{}/tcp-gateway", in_namespace(GATEWAYS, "default"));
    let before = kube.get(&path).await;

    let home = Home::new();
    let mut stage = start(&kube, &home, &["--lease-duration", "10"]);
    let block = ready(&mut stage).await;
    assert_eq!(block["gateway_name"], "tcp-gateway");
    let requests = kube.requests(STAGE);
    let watches =
        |it: &&String| it.contains("fieldSelector") || it.contains("selfsubjectaccessreviews");
    assert_eq!(
        requests.iter().filter(|it| !watches(it)).count(),
        6,
        "{requests:#?}"
    );

    let lease = kube.items(SESSIONS).await.pop().expect("a Lease");
    assert_eq!(lease["metadata"]["name"], "devcluster-gateway-tcp-gateway");
    kube.until("renewal", async || {
        kube.items(SESSIONS).await[0]["spec"]["renewTime"] != lease["spec"]["renewTime"]
    })
    .await;

    // What the master does, the API accepts: a listener, and a route to it.
    let listener = json!([{"op": "add", "path": "/spec/listeners/-", "value": {"name": "det-32768", "port": 32768, "protocol": "TCP"}}]);
    kube.json_patch(&path, &listener).await;
    kube.create(
        &in_namespace(TCP_ROUTES, "default"),
        &tcp_route("canary", &block),
    )
    .await;

    stop(stage).await;
    assert_nothing_of_ours(&kube).await;
    let mut after = kube.get(&path).await;
    after["spec"]["listeners"]
        .as_array_mut()
        .expect("listeners")
        .pop();
    assert_eq!(after["spec"], before["spec"]);
}

fn tcp_route(name: &str, block: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1alpha2",
        "kind": "TCPRoute",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "parentRefs": [{"name": block["gateway_name"], "namespace": block["gateway_namespace"], "port": 32768}],
            "rules": [{"backendRefs": [{"name": name, "port": 80}]}],
        },
    })
}

#[tokio::test]
async fn two_sessions_never_share_and_the_second_gets_a_gateway_of_its_own_that_goes_with_it() {
    let Some(mut kube) = real_kube("two_sessions_never_share").await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.gateway("default", "tcp-gateway").await;
    kube.start_controller();
    let (one, two) = (Home::new(), Home::new());
    let mut first = start(&kube, &one, &[]);
    assert_eq!(ready(&mut first).await["gateway_name"], "tcp-gateway");
    let mut second = start(&kube, &two, &[]);
    let block = ready(&mut second).await;
    let name = block["gateway_name"].as_str().expect("a name").to_owned();
    assert!(name.starts_with("devcluster-"), "{name}");
    let gateway = kube
        .get(&format!("{}/{name}", in_namespace(GATEWAYS, "default")))
        .await;
    assert_eq!(
        gateway["metadata"]["ownerReferences"][0]["kind"], "Lease",
        "{gateway:#}"
    );
    kube.create(
        &in_namespace(TCP_ROUTES, "default"),
        &tcp_route("left", &block),
    )
    .await;

    let said = stop(second).await;
    assert!(said.contains("tcp-gateway: passed over: session"), "{said}");
    kube.until("Gateway to go", async || {
        kube.items(GATEWAYS).await.len() == 1
    })
    .await;
    assert!(
        cleanup(&two)
            .await
            .contains("TCPRoute and Service default/left")
    );
    assert!(kube.items(TCP_ROUTES).await.is_empty());
    stop(first).await;
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn a_killed_session_takes_its_own_gateway_back_and_cleanup_gives_it_back() {
    let Some(mut kube) = real_kube("a_killed_session_takes_its_own_gateway_back").await else {
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
async fn killed_at_any_moment_it_leaves_nothing_that_cleanup_does_not_remove() {
    let Some(mut kube) =
        real_kube("killed_at_any_moment_it_leaves_nothing_that_cleanup_does_not_remove").await
    else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.gateway("default", "tcp-gateway").await;
    kube.program("default", "tcp-gateway", "127.0.0.1").await;
    kube.start_controller();
    let there = format!("{}/tcp-gateway", in_namespace(GATEWAYS, "default"));
    let before = kube.get(&there).await["spec"].clone();
    let (dedicated, existing) = (["--prefer", "dedicated"], ["--prefer", "existing"]);
    for round in 0..16 {
        let home = Home::new();
        let stage = start(
            &kube,
            &home,
            if round % 2 == 0 {
                &dedicated
            } else {
                &existing
            },
        );
        tokio::time::sleep(Duration::from_millis(10 * round)).await;
        kill(stage).await;
        cleanup(&home).await;
        assert!(kube.items(SESSIONS).await.is_empty(), "round {round}");
        assert_nothing_of_ours(&kube).await;
        assert_eq!(
            leaks::files(&home.path().join("state")),
            Vec::<std::path::PathBuf>::new()
        );
    }
    assert_eq!(kube.get(&there).await["spec"], before);
}

#[tokio::test]
async fn capacity_is_refused_below_the_minimum_and_raised_on_request() {
    let Some(kube) = real_kube("capacity_is_refused_below_the_minimum_and_raised_on_request").await
    else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.gateway("default", "tcp-gateway").await;
    kube.program("default", "tcp-gateway", "127.0.0.1").await;
    let home = Home::new();
    let mut stage = start(&kube, &home, &["--min-capacity", "64"]);
    let error = stage.wait_for("error").await["error"].clone();
    assert_eq!(error["code"], "gateway.capacity_low", "{error:#}");
    assert!(
        error.to_string().contains("has room for 63 ports"),
        "{error:#}"
    );
    stage.wait().await;

    let args = ["--min-capacity", "212", "--raise-max-items", "213"];
    let mut stage = start(&kube, &home, &args);
    let outputs = stage.wait_for("outputs").await["outputs"].clone();
    assert_eq!(outputs["capacity"], 212);
    stage.wait_for("ready").await;
    // The API takes as many: in the spec, and in the status.
    let path = format!("{}/tcp-gateway", in_namespace(GATEWAYS, "default"));
    let port = |i: u16| json!({"name": format!("det-{i}"), "port": 40000 + i, "protocol": "TCP"});
    let listeners: Vec<Value> = (0..213).map(port).collect();
    kube.merge(&path, &json!({"spec": {"listeners": listeners}}))
        .await;
    let condition = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = |i: u16| json!({"name": format!("det-{i}"), "attachedRoutes": 0, "supportedKinds": [{"kind": "TCPRoute"}], "conditions": [condition]});
    let listeners: Vec<Value> = (0..213).map(status).collect();
    kube.merge(
        &format!("{path}/status"),
        &json!({"status": {"listeners": listeners}}),
    )
    .await;
    assert!(stop(stage).await.contains("allows 213 listeners now"));
}

#[tokio::test]
async fn crds_of_every_release_are_told_apart() {
    let Some(kube) = real_kube("crds_of_every_release_are_told_apart").await else {
        return;
    };
    for (version, channel, served) in [
        ("v1.0.0", "experimental", true),
        ("v1.5.1", "experimental", true),
        ("v1.6.1", "standard", false),
        ("v1.6.1", "experimental", true),
    ] {
        kube.install(version, channel).await;
        kube.class("contour", CONTOUR).await;
        kube.gateway("default", "tcp-gateway").await;
        kube.program("default", "tcp-gateway", "127.0.0.1").await;
        let home = Home::new();
        let mut stage = start(&kube, &home, &[]);
        if served {
            assert_eq!(ready(&mut stage).await["gateway_name"], "tcp-gateway");
            stop(stage).await;
            continue;
        }
        let error = stage.wait_for("error").await["error"].clone();
        assert_eq!(
            error["code"], "gateway.tcproute_missing",
            "{version} {channel}: {error:#}"
        );
        assert!(
            error
                .to_string()
                .contains(&format!("{version}, {channel} channel")),
            "{error:#}"
        );
        stage.wait().await;
    }
}

#[tokio::test]
async fn an_expired_session_is_collected_and_a_live_one_is_taken_over_only_on_request() {
    let Some(mut kube) = real_kube("an_expired_session_is_collected").await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.start_controller();
    let (dead, eve, next) = (Home::new(), Home::new(), Home::new());
    let mut killed = start(&kube, &dead, &["--lease-duration", "1"]);
    let gateway = ready(&mut killed).await["gateway_name"].clone();
    kill(killed).await;
    // Seen first, and seen again unchanged after more than its second on the observer's own clock.
    let dedicated = ["--prefer", "dedicated", "--lease-duration", "5"];
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

    let mut refused = start(&kube, &next, &["--gateway", &own]);
    let error = refused.wait_for("error").await["error"].clone();
    assert_eq!(error["code"], "gateway.none_usable");
    assert!(
        error.to_string().contains("holds it by a Lease"),
        "{error:#}"
    );
    refused.wait().await;

    let mut thief = start(&kube, &next, &["--gateway", &own, "--take-over"]);
    assert_eq!(ready(&mut thief).await["gateway_name"], json!(own));
    assert_eq!(
        stage.wait_for("error").await["error"]["code"],
        "gateway.session_lost"
    );
    assert_eq!(stage.wait().await.0.code(), Some(1));
    stop(thief).await;
}

#[tokio::test]
async fn a_lease_that_was_deleted_ends_the_stage() {
    let Some(kube) = real_kube("a_lease_that_was_deleted_ends_the_stage").await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.gateway("default", "tcp-gateway").await;
    kube.program("default", "tcp-gateway", "127.0.0.1").await;
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
async fn a_gateway_of_another_master_is_left_alone_and_one_of_a_dead_master_is_listed() {
    let Some(mut kube) = real_kube("a_gateway_of_another_master_is_left_alone").await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.start_controller();
    for (name, allocation) in [("a-used", "alive.1"), ("b-left", "dead.1"), ("c-free", "")] {
        kube.gateway("default", name).await;
        if !allocation.is_empty() {
            let annotations = json!({"determined.ai/det-gateway-port-40000": allocation});
            let path = format!("{}/{name}", in_namespace(GATEWAYS, "default"));
            kube.merge(&path, &json!({"metadata": {"annotations": annotations}}))
                .await;
        }
    }
    let pod = json!({"metadata": {"name": "task", "labels": {"determined": "alive.1"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "automountServiceAccountToken": false}});
    kube.create("/api/v1/namespaces/default/pods", &pod).await;
    kube.until("programmed Gateways", async || {
        kube.items(GATEWAYS)
            .await
            .iter()
            .all(|it| !it["status"]["addresses"].is_null())
    })
    .await;
    let home = Home::new();
    let mut stage = start(&kube, &home, &[]);
    assert_eq!(ready(&mut stage).await["gateway_name"], "c-free");
    let said = stop(stage).await;
    for line in [
        "default/a-used: passed over: another Determined master uses it: 1 of its 1 ports belong to tasks with pods",
        "default/b-left: passed over: a dead Determined master left 1 ports (40000) on it; `take_over` takes it",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}

#[tokio::test]
async fn a_role_that_lacks_one_verb_is_told_exactly_that_verb_and_resource() {
    let Some(kube) = real_kube("a_role_that_lacks_one_verb").await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.gateway("default", "tcp-gateway").await;
    kube.program("default", "tcp-gateway", "127.0.0.1").await;
    let needed = [
        (
            "gateway.networking.k8s.io",
            "gateways",
            &["get", "list", "update"][..],
        ),
        (
            "gateway.networking.k8s.io",
            "tcproutes",
            &["list", "create", "delete"],
        ),
        ("", "services", &["list", "create", "delete"]),
        (
            "coordination.k8s.io",
            "leases",
            &["get", "create", "update", "delete"],
        ),
    ];
    for (group, resource, verbs) in needed {
        for lacking in verbs {
            let rules: Vec<Value> = needed
                .iter()
                .map(|(g, r, verbs)| {
                    let mut verbs = verbs.to_vec();
                    verbs.retain(|verb| (*r, verb) != (resource, lacking));
                    verbs.extend((*r == "gateways").then_some("watch"));
                    json!({"apiGroups": [g], "resources": [r], "verbs": verbs})
                })
                .collect();
            kube.grant(LIMITED, &rules).await;
            let home = Home::new();
            let kubeconfig = write_kubeconfig(&home, "kubeconfig", &kube.kubeconfig(LIMITED));
            let mut command = gateway_command(&home, "run", &[]);
            command.arg("--kubeconfig").arg(kubeconfig);
            let mut stage = StageClient::start(command);
            let error = stage.wait_for("error").await["error"].clone();
            assert_eq!(error["code"], "gateway.forbidden", "{error:#}");
            let resource = if group.is_empty() {
                resource.to_owned()
            } else {
                format!("{resource}.{group}")
            };
            let words = format!("may not {lacking} {resource}");
            assert!(
                error["message"]
                    .as_str()
                    .is_some_and(|it| it.contains(&words)),
                "{words}: {error:#}"
            );
            stage.wait().await;
            if lacking != &"delete" {
                kube.until("Lease to go", async || {
                    kube.items(SESSIONS).await.is_empty()
                })
                .await;
            }
            for lease in kube.items(SESSIONS).await {
                kube.delete(&path(LEASES, &lease)).await;
            }
        }
    }
    kube.delete(&format!("{CLASSES}/contour")).await;
}
