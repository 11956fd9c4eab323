//! Reading a cluster, and what follows from it.

use sandbox::kube_api::seed;
use serde_json::{Value, json};
use support::gateway::{fail, outputs, start, stop};
use support::kube::gateway_command;
use support::kube_real::{GATEWAYS, RealKube, STAGE, in_namespace, path, real_kube};
use support::{Home, StageClient};

use super::CONTOUR;

/// The class `contour` and no Gateway; nothing changes by itself.
async fn cluster() -> Option<RealKube> {
    let kube = real_kube().await?;
    kube.class("contour", CONTOUR).await;
    Some(kube)
}

/// Creates a Gateway, with a controller's status if it has one.
async fn put(kube: &RealKube, gateway: &Value) {
    let at = path(GATEWAYS, gateway);
    if kube.get(&at).await.is_null() {
        let mut bare = gateway.clone();
        bare.as_object_mut().expect("an object").remove("status");
        let namespace = gateway["metadata"]["namespace"].as_str().expect("one");
        kube.create(&in_namespace(GATEWAYS, namespace), &bare).await;
    }
    let status = json!({"status": gateway["status"]});
    kube.merge(&format!("{at}/status"), &status).await;
}

fn programmed(name: &str, class: &str, address: &str) -> Value {
    let mut gateway = seed::gateway("default", name, class);
    seed::program(&mut gateway, address);
    gateway
}

#[tokio::test]
async fn it_waits_by_one_watch_until_the_gateway_works() {
    let Some(kube) = cluster().await else {
        return;
    };
    put(&kube, &seed::gateway("default", "tcp-gateway", "contour")).await;
    let home = Home::new();
    let mut stage = start(&kube, &home, &["--port-range", "40000-40009"]);
    stage
        .wait_until("the wait", |message| message["step"] == "wait")
        .await;
    let watches = || {
        let requests = kube.requests(STAGE);
        requests
            .into_iter()
            .filter(|it| it.contains("watch=true"))
            .count()
    };
    kube.until("watch", async || watches() > 0).await;
    assert!(!stage.has_said("ready"));
    put(&kube, &programmed("tcp-gateway", "contour", "127.0.0.1")).await;
    let outputs = outputs(&mut stage).await;
    assert_eq!(watches(), 1, "{:#?}", kube.requests(STAGE));
    assert_eq!(
        outputs["internal_task_gateway"],
        json!({
            "gateway_name": "tcp-gateway",
            "gateway_namespace": "default",
            "gateway_ip": "127.0.0.1",
            "gateway_port_range_start": 40000,
            "gateway_port_range_end": 40009,
        })
    );
    assert_eq!(outputs["controller"], CONTOUR);
    stop(stage).await;
}

#[tokio::test]
async fn an_existing_gateway_takes_seven_requests_and_the_access_reviews() {
    let Some(kube) = cluster().await else {
        return;
    };
    put(&kube, &programmed("tcp-gateway", "contour", "127.0.0.1")).await;
    let home = Home::new();
    let mut stage = start(&kube, &home, &[]);
    stage.wait_for("ready").await;
    let mut requests = kube.requests(STAGE);
    // The watch starts once the stage is ready.
    requests.retain(|request| !request.contains("fieldSelector=metadata.name"));
    let is_review = |it: &String| it.contains("selfsubjectaccessreviews");
    let (reviews, others): (Vec<_>, Vec<_>) = requests.iter().partition(|it| is_review(it));
    assert_eq!((reviews.len(), others.len()), (12, 7), "{requests:#?}");
    stop(stage).await;
    let last = kube.requests(STAGE).pop().expect("a request");
    assert!(
        last.to_lowercase().starts_with("delete") && last.contains("/leases/"),
        "{last}"
    );
}

#[tokio::test]
async fn every_candidate_is_listed_with_its_reason_and_the_first_usable_one_is_selected() {
    let Some(kube) = cluster().await else {
        return;
    };
    kube.class("traefik", "traefik.io/gateway-controller").await;
    let mut without_address = programmed("b", "contour", "10.1.1.1");
    without_address["status"]["addresses"] = json!([]);
    for gateway in [
        programmed("a", "traefik", "10.1.1.1"),
        without_address,
        programmed("c", "none", "10.1.1.1"),
        programmed("tcp-gateway", "contour", "127.0.0.1"),
    ] {
        put(&kube, &gateway).await;
    }
    let home = Home::new();
    let mut stage = start(&kube, &home, &[]);
    let outputs = outputs(&mut stage).await;
    assert_eq!(
        outputs["internal_task_gateway"]["gateway_name"],
        "tcp-gateway"
    );
    let stderr = stop(stage).await;
    for line in [
        "Gateway default/a: skipped: Traefik opens only the ports of its static entryPoints",
        "Gateway default/b: skipped: it has no address",
        "Gateway default/c: skipped: there is no GatewayClass none",
        "Gateway default/tcp-gateway: selected",
    ] {
        assert!(stderr.contains(line), "{line}\n{stderr}");
    }
}

#[tokio::test]
async fn a_lost_gateway_its_return_and_a_new_address_are_reported() {
    let Some(kube) = cluster().await else {
        return;
    };
    let gateway = programmed("tcp-gateway", "contour", "127.0.0.1");
    put(&kube, &gateway).await;
    let home = Home::new();
    let mut stage = start(&kube, &home, &[]);
    let first = stage.wait_for("ready").await["gen"].clone();

    kube.delete(&path(GATEWAYS, &gateway)).await;
    let lost = stage.wait_for("degraded").await;
    assert_eq!(lost["error"]["code"], "gateway.deleted");
    let mut check = StageClient::start(gateway_command(&home, "check", &[]));
    assert_eq!(check.wait().await.0.code(), Some(5), "{}", check.stderr());
    put(&kube, &gateway).await;
    assert_eq!(
        stage.wait_for("ready").await["gen"],
        first,
        "nothing has changed"
    );

    put(
        &kube,
        &programmed("tcp-gateway", "contour", "lb.example.com"),
    )
    .await;
    let moved = stage.wait_for("outputs").await;
    let block = &moved["outputs"]["internal_task_gateway"];
    assert_eq!(block["gateway_ip"], "lb.example.com");
    let generation = stage.wait_for("ready").await["gen"].as_u64();
    assert_eq!(generation, first.as_u64().map(|first| first + 1));

    let mut without_address = gateway;
    without_address["status"]["addresses"] = json!([]);
    put(&kube, &without_address).await;
    let lost = stage.wait_for("degraded").await;
    assert_eq!(lost["error"]["code"], "gateway.no_address");
    stop(stage).await;
}

#[tokio::test]
async fn missing_and_broken_gateways_have_their_codes() {
    let Some(kube) = cluster().await else {
        return;
    };
    let refused = async |args: &[&str]| {
        let home = Home::new();
        fail(start(&kube, &home, args)).await
    };
    put(&kube, &seed::gateway("default", "tcp-gateway", "contour")).await;
    for (args, code, says) in [
        (
            &["--gateway", "gone"][..],
            "gateway.not_found",
            "no Gateway gone in any namespace",
        ),
        (
            &["--gateway", "gone", "--gateway-namespace", "default"],
            "gateway.not_found",
            "no Gateway gone in namespace default",
        ),
        (
            &["--gateway-namespace", "empty"],
            "cluster.namespace_missing",
            "no namespace empty",
        ),
        (
            &["--timeout", "1"],
            "gateway.not_programmed",
            "Waiting for controller",
        ),
        (
            &["--gateway-class", "istio"],
            "gateway.none_usable",
            "its class is contour, not istio",
        ),
    ] {
        let error = refused(args).await;
        assert_eq!(error["code"], code, "{args:?}: {error:#}");
        assert!(error.to_string().contains(says), "{args:?}: {error:#}");
    }
}
