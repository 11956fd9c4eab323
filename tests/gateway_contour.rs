//! devcluster-gateway and Contour itself on a real kube-apiserver: installed, used as Determined does, removed again.

use rustix::process::Signal;
use serde_json::{Value, json};
use support::contour::{Contour, accepted};
use support::kube::{gateway_command, write_kubeconfig};
use support::kube_infra::DEPLOYMENTS;
use support::kube_real::{GATEWAYS, LEASES, RealKube, STAGE, TCP_ROUTES, in_namespace, real_kube};
use support::{Home, StageClient};

fn start(kube: &RealKube, home: &Home, args: &[&str]) -> StageClient {
    let kubeconfig = write_kubeconfig(home, "kubeconfig", &kube.kubeconfig(STAGE));
    let mut command = gateway_command(home, "run", args);
    command.arg("--kubeconfig").arg(kubeconfig);
    StageClient::start(command)
}

/// Determined's own rules for the block, and the listener, Service and TCPRoute that it makes for a port of a task.
async fn use_as_determined_does(kube: &RealKube, block: &Value) {
    let text = |field: &str| block[field].as_str().expect("text").to_owned();
    let (name, namespace) = (text("gateway_name"), text("gateway_namespace"));
    for part in [&name, &namespace] {
        assert!(
            (1..=63).contains(&part.len())
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)),
            "{part}"
        );
    }
    assert!(!text("gateway_ip").is_empty());
    let (start, end) = (
        &block["gateway_port_range_start"],
        &block["gateway_port_range_end"],
    );
    let (start, end) = (
        start.as_u64().expect("a port"),
        end.as_u64().expect("a port"),
    );
    assert!(1025 <= start && start < end && end <= 65535, "{block:#}");

    let gateway = format!("{}/{name}", in_namespace(GATEWAYS, &namespace));
    let listener = json!({"name": format!("det-{start}"), "port": start, "protocol": "TCP", "allowedRoutes": {"namespaces": {"from": "All"}}});
    kube.json_patch(
        &gateway,
        &json!([{"op": "add", "path": "/spec/listeners/-", "value": listener}]),
    )
    .await;
    let service = json!({"metadata": {"name": "canary"}, "spec": {"ports": [{"port": 80}], "clusterIP": "None"}});
    kube.create("/api/v1/namespaces/default/services", &service)
        .await;
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1alpha2",
        "kind": "TCPRoute",
        "metadata": {"name": "canary", "labels": {"determined": "a.1"}},
        "spec": {
            "parentRefs": [{"name": name, "namespace": namespace, "port": start, "sectionName": format!("det-{start}")}],
            "rules": [{"backendRefs": [{"name": "canary", "kind": "Service", "port": 80}]}],
        },
    });
    kube.create(&in_namespace(TCP_ROUTES, "default"), &route)
        .await;
    let route = format!("{}/canary", in_namespace(TCP_ROUTES, "default"));
    kube.until("route that Contour takes", async || {
        accepted(&kube.get(&route).await) == Some("True")
    })
    .await;
    kube.until("listener that Contour opens", async || {
        let gateway = kube.get(&gateway).await;
        let listeners = gateway["status"]["listeners"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        listeners
            .iter()
            .any(|it| it["name"] == format!("det-{start}") && it["attachedRoutes"] == 1)
    })
    .await;
}

async fn outputs_of(kube: &RealKube, stage: &mut StageClient, address: &str) -> (Value, Contour) {
    stage
        .wait_until("a Gateway", |it| it["step"] == "wait")
        .await;
    let made = kube.items(GATEWAYS).await;
    let of_ours = |it: &&Value| it["status"]["addresses"].is_null();
    let name = made.iter().find(of_ours).expect("a Gateway")["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let serving = Contour::serve(kube, "default", &name, address).await;
    let outputs = stage.wait_for("outputs").await["outputs"].clone();
    stage.wait_for("ready").await;
    (outputs, serving)
}

#[tokio::test]
async fn contour_is_installed_serves_what_determined_asks_for_and_goes_with_the_last_one_out() {
    let Some(kube) = real_kube("contour_is_installed_serves_what_determined_asks_for").await else {
        return;
    };
    kube.uninstall().await;
    let before = kube.snapshot().await;
    let (one, two) = (Home::new(), Home::new());
    let manifests = kube.contour().display().to_string();
    let args = ["--provision", "auto", "--provision-manifests", &manifests];
    let mut first = start(&kube, &one, &args);
    kube.until("Deployment of Contour", async || {
        !kube.items(DEPLOYMENTS).await.is_empty()
    })
    .await;
    let provisioner = Contour::provisioner(&kube);
    let (outputs, serving) = outputs_of(&kube, &mut first, "127.0.0.9").await;
    assert_eq!(
        (&outputs["provisioned"], &outputs["controller"]),
        (&json!(true), &json!("projectcontour.io/gateway-controller"))
    );
    use_as_determined_does(&kube, &outputs["internal_task_gateway"]).await;

    // Another session gets a Gateway of the same controller.
    let mut second = start(&kube, &two, &args);
    let (others, serving_too) = outputs_of(&kube, &mut second, "127.0.0.10").await;
    assert_ne!(
        others["internal_task_gateway"]["gateway_name"],
        outputs["internal_task_gateway"]["gateway_name"]
    );
    drop((serving, serving_too));

    for (mut stage, home, said) in [
        (
            first,
            &one,
            "the controller of GatewayClass devcluster-gateway stays: Gateway default/",
        ),
        (
            second,
            &two,
            "removed what an earlier run left: the controller: GatewayClass devcluster-gateway, Deployment",
        ),
    ] {
        stage.signal(Signal::TERM);
        let (status, took) = stage.wait().await;
        assert!(
            status.success() && took.as_millis() < 500,
            "{took:?}: {}",
            stage.stderr()
        );
        let mut cleanup = StageClient::start(gateway_command(home, "cleanup", &[]));
        let (status, _) = cleanup.wait().await;
        assert!(
            status.success(),
            "{}\n{}",
            cleanup.stderr(),
            provisioner.said()
        );
        assert!(cleanup.stderr().contains(said), "{}", cleanup.stderr());
    }
    assert_eq!(kube.infrastructure().await, Vec::<String>::new());
    let ours = format!("{LEASES}?labelSelector=app.kubernetes.io/managed-by=devcluster-gateway");
    assert_eq!(kube.items(&ours).await, Vec::<Value>::new());
    assert_eq!(kube.items(TCP_ROUTES).await, Vec::<Value>::new());
    let mut after = kube.snapshot().await;
    after.retain(|(at, _)| !at.contains("customresourcedefinitions"));
    let mut before = before;
    before.retain(|(at, _)| !at.contains("customresourcedefinitions"));
    assert_eq!(after, before);
}

#[tokio::test]
async fn what_a_dead_controller_left_of_a_gateway_is_removed() {
    let Some(kube) = real_kube("what_a_dead_controller_left_of_a_gateway_is_removed").await else {
        return;
    };
    kube.uninstall().await;
    let home = Home::new();
    let manifests = kube.contour().display().to_string();
    let mut stage = start(
        &kube,
        &home,
        &["--provision", "auto", "--provision-manifests", &manifests],
    );
    kube.until("Deployment of Contour", async || {
        !kube.items(DEPLOYMENTS).await.is_empty()
    })
    .await;
    let provisioner = Contour::provisioner(&kube);
    stage
        .wait_until("a Gateway", |it| it["step"] == "wait")
        .await;
    kube.until("what Contour makes for it", async || {
        kube.items("/api/v1/services").await.len() == 3
    })
    .await;
    drop(provisioner);
    stage.signal(Signal::KILL);
    stage.wait().await;
    let mut cleanup = StageClient::start(gateway_command(&home, "cleanup", &[]));
    kube.until("end of cleanup", async || {
        kube.infrastructure().await.is_empty()
    })
    .await;
    let (status, _) = cleanup.wait().await;
    assert!(status.success(), "{}", cleanup.stderr());
    assert!(
        cleanup
            .stderr()
            .contains("Deployment default/contour-devcluster-"),
        "{}",
        cleanup.stderr()
    );
    for list in [
        "/api/v1/services",
        DEPLOYMENTS,
        "/apis/apps/v1/daemonsets",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    ] {
        let left = kube.items(list).await;
        let named = |it: &&Value| {
            it["metadata"]["name"]
                .as_str()
                .is_some_and(|name| name.contains("devcluster-"))
        };
        assert_eq!(left.iter().filter(named).count(), 0, "{list}: {left:#?}");
    }
}
