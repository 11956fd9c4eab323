//! Which Gateway it selects, and whether cluster and Gateway are suitable.

use serde_json::{Value, json};
use support::Home;
use support::gateway::{ready, start, stop};
use support::kube_real::{GATEWAYS, in_namespace, real_kube};

use super::{CONTOUR, with_gateway};

#[tokio::test]
async fn a_gateway_of_another_master_is_left_alone_and_one_of_a_dead_master_is_listed() {
    let Some(mut kube) = real_kube().await else {
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
        "default/a-used: skipped: another Determined master uses it: 1 of its 1 ports belong to tasks with pods",
        "default/b-left: skipped: a dead Determined master left 1 port (40000) on it; set `take_over` to use it",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}

#[tokio::test]
async fn crds_of_every_release_are_recognized() {
    let Some(kube) = real_kube().await else {
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
async fn capacity_is_refused_below_the_minimum_and_raised_on_request() {
    let Some(kube) = with_gateway().await else {
        return;
    };
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
    // The API accepts as many, in the spec and in the status.
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
    assert!(stop(stage).await.contains("allows 213 listeners"));
}
