//! devcluster-gateway with Contour on a real kube-apiserver: installed, used as Determined does, removed.

use rustix::process::Signal;
use serde_json::{Value, json};
use support::contour::{Contour, accepted};
use support::gateway::{SESSIONS, assert_determined_takes, close_port, open_port, outputs, start};
use support::kube::gateway_command;
use support::kube_infra::DEPLOYMENTS;
use support::kube_real::{GATEWAYS, RealKube, TCP_ROUTES, in_namespace, real_kube};
use support::{Home, StageClient, code_of};

/// Creates what Determined creates for a port of a task, and checks what Contour does with it.
async fn use_as_determined_does(kube: &RealKube, outputs: &Value) {
    let block = &outputs["internal_task_gateway"];
    assert_determined_takes(block);
    open_port(outputs, "default").await;
    let route = format!("{}/canary", in_namespace(TCP_ROUTES, "default"));
    kube.until("route that Contour takes", async || {
        accepted(&kube.get(&route).await) == Some("True")
    })
    .await;
    let text = |field: &str| block[field].as_str().expect("text");
    let gateways = in_namespace(GATEWAYS, text("gateway_namespace"));
    let path = format!("{gateways}/{}", text("gateway_name"));
    kube.until("listener that Contour opens", async || {
        let gateway = kube.get(&path).await;
        let listeners = gateway["status"]["listeners"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let name = format!("det-{}", block["gateway_port_range_start"]);
        listeners
            .iter()
            .any(|it| it["name"] == name.as_str() && it["attachedRoutes"] == 1)
    })
    .await;
    close_port(outputs, "default").await;
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
    (outputs(stage).await, serving)
}

#[tokio::test]
async fn contour_is_installed_serves_determined_and_is_removed_by_the_last_session() {
    let Some(kube) = real_kube().await else {
        return;
    };
    kube.uninstall().await;
    kube.namespace("tasks-2").await;
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
    use_as_determined_does(&kube, &outputs).await;

    // Another session gets a Gateway of the same controller.
    let args = [&args[..], &["--task-namespace", "tasks-2"]].concat();
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
            "removed the controller: GatewayClass devcluster-gateway, Deployment",
        ),
    ] {
        stage.signal(Signal::TERM);
        assert!(stage.wait().await.0.success(), "{}", stage.stderr());
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
    assert_eq!(kube.items(SESSIONS).await, Vec::<Value>::new());
    assert_eq!(kube.items(TCP_ROUTES).await, Vec::<Value>::new());
    let mut after = kube.snapshot().await;
    after.retain(|(at, _)| !at.contains("customresourcedefinitions"));
    let mut before = before;
    before.retain(|(at, _)| !at.contains("customresourcedefinitions"));
    assert_eq!(after, before);
}

#[tokio::test]
async fn what_a_dead_controller_left_stays_with_it_until_it_runs_again() {
    let Some(kube) = real_kube().await else {
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
    // As after a reboot of its node.
    let mut cleanup = StageClient::start(gateway_command(&home, "cleanup", &[]));
    let (status, _) = cleanup.wait().await;
    let said = cleanup.stderr();
    assert_eq!(
        (code_of(&said), status.code()),
        ("gateway.infrastructure_timeout", Some(7)),
        "{said}"
    );
    assert!(said.contains("its controller has not removed "), "{said}");
    assert!(
        said.contains("the controller stays until it has removed "),
        "{said}"
    );
    let _provisioner = Contour::provisioner(&kube);
    let said = support::gateway::cleanup(&home).await;
    assert!(said.contains("the controller: GatewayClass"), "{said}");
    assert_eq!(kube.infrastructure().await, Vec::<String>::new());
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
