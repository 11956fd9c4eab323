//! Every choice of a Gateway ends in a block that Determined accepts, with a Gateway on which it can open a port.

use serde_json::json;
use support::Home;
use support::gateway::{
    assert_determined_takes, assert_nothing_of_ours, cleanup, close_port, open_port, outputs,
    start, stop,
};
use support::kube_real::{GATEWAYS, TCP_ROUTES, in_namespace, path, real_kube};

use super::CONTOUR;

#[tokio::test]
async fn named_existing_and_dedicated_each_end_in_a_gateway_that_determined_can_use() {
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.namespace("gateways").await;
    kube.namespace("tasks").await;
    kube.gateway("gateways", "tcp-gateway").await;
    kube.start_controller();
    let (inside, tasks) = (
        ["--gateway-namespace", "gateways"],
        ["--task-namespace", "tasks"],
    );
    let before = kube.snapshot().await;
    for (way, own) in [
        (&["--gateway", "tcp-gateway"][..], false),
        (&["--prefer", "existing"], false),
        (&["--prefer", "dedicated"], true),
    ] {
        let home = Home::new();
        let range = ["--port-range", "40000-40001"];
        let mut stage = start(&kube, &home, &[way, &inside, &tasks, &range].concat());
        let outputs = outputs(&mut stage).await;
        let block = &outputs["internal_task_gateway"];
        assert_determined_takes(block);
        assert_eq!(block["gateway_name"] != "tcp-gateway", own, "{block:#}");
        assert_eq!(
            (&outputs["capacity"], &outputs["provisioned"]),
            (&json!(2), &json!(false))
        );
        open_port(&outputs, "tasks").await;
        let gateway = kube
            .items(GATEWAYS)
            .await
            .into_iter()
            .find(|it| it["metadata"]["name"] == block["gateway_name"])
            .expect("the Gateway");
        let listeners = gateway["spec"]["listeners"].as_array().expect("listeners");
        let opened = listeners.iter().find(|it| it["port"] == 40000);
        assert!(
            opened.is_some(),
            "{}: {listeners:#?}",
            path(GATEWAYS, &gateway)
        );
        let route = format!("{}/canary", in_namespace(TCP_ROUTES, "tasks"));
        assert!(!kube.get(&route).await.is_null());
        close_port(&outputs, "tasks").await;
        stop(stage).await;
        cleanup(&home).await;
        assert_nothing_of_ours(&kube).await;
        assert_eq!(kube.snapshot().await, before, "{way:?}");
    }
}
