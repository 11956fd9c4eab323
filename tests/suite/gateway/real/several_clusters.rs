//! One tunnel, several clusters: each resource manager gets its own gateway, on real API servers.

use serde_json::{Value, json};
use support::devcluster::TestDevcluster;
use support::emit::read;
use support::kube::write_kubeconfig;
use support::kube_real::{STAGE, three_real_kubes};
use support::site::Site;

const CONTOUR: &str = "projectcontour.io/gateway-controller";

/// The contexts, the names of the resource managers, and each cluster's Gateway.
const CLUSTERS: [(&str, &str, &str); 3] = [
    ("ctx-one", "default", "127.0.0.11"),
    ("ctx-two", "east", "127.0.0.12"),
    ("ctx-three", "west", "127.0.0.13"),
];

#[tokio::test]
async fn three_resource_managers_on_three_contexts_share_a_tunnel() {
    let Some(kubes) = three_real_kubes().await else {
        return;
    };
    let site = Site::new().await;
    let mut all =
        json!({"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": []});
    for (kube, (context, _, address)) in kubes.iter().zip(CLUSTERS) {
        kube.class("contour", CONTOUR).await;
        kube.gateway("default", "tcp-gateway").await;
        kube.program("default", "tcp-gateway", address).await;
        let one = kube.kubeconfig(STAGE);
        let mut add = |list: &str, mut item: Value| {
            item["name"] = context.into();
            all[list].as_array_mut().expect("a list").push(item);
        };
        add("clusters", one["clusters"][0].clone());
        add("users", one["users"][0].clone());
        add(
            "contexts",
            json!({"context": {"cluster": context, "user": context}}),
        );
    }
    write_kubeconfig(&site.home, "all", &all);
    // The first two are assigned by their fields, the last by its own name; the order differs from the managers'.
    let gateway = |name: &str, context: &str, more: &str| {
        let kubeconfig = site.home.path().join("all");
        format!(
            "  - gateway: {{name: {name}, kubeconfig: {}, k8s_context: {context}{more}}}\n",
            kubeconfig.display()
        )
    };
    let manager = |name: &str| {
        format!(
            "          - resource_manager: {{type: kubernetes, cluster_name: {name}, max_slots_per_pod: 1}}  # {name}
            resource_pools: [{{pool_name: {name}}}]\n"
        )
    };
    let text = format!(
        "temp_dir: {temp}\nstages:\n  - tunnel:\n      {tunnel}\n{gateways}  - config-emit: {{}}\n{master}        additional_resource_managers:\n{managers}",
        temp = site.home.path().join("devcluster").display(),
        tunnel = site.tunnel_fields().join("\n      "),
        gateways = gateway("west", "ctx-three", "")
            + &gateway("gw-a", "ctx-two", ", resource_manager: east")
            + &gateway("gw-b", "ctx-one", ", resource_manager: default"),
        master = site.master_stage(),
        managers = manager("east") + &manager("west"),
    );
    let file = site.compile(&text).await;
    let mut devcluster = TestDevcluster::start(&site.home, &file).await;
    devcluster.set_target("master").await;
    devcluster.wait_until("master", "UP").await;
    let rendered = read(&site.run_dir().join("master.yaml"));
    let config = protocol::yaml::Document::parse(&rendered)
        .expect("YAML")
        .value();
    let additional = &config["additional_resource_managers"];
    let managers = [
        &config["resource_manager"],
        &additional[0]["resource_manager"],
        &additional[1]["resource_manager"],
    ];
    for (manager, (context, name, address)) in managers.into_iter().zip(CLUSTERS) {
        let block = &manager["internal_task_gateway"];
        assert_eq!(block["gateway_ip"], address, "{name}: {rendered}");
        assert_eq!(block["gateway_name"], "tcp-gateway");
        assert_eq!(
            manager["determined_master_port"],
            managers[0]["determined_master_port"]
        );
        assert!(manager["determined_master_port"].is_u64(), "{rendered}");
        let kubeconfig = manager["kubeconfig_path"].as_str().expect("a path");
        let kubeconfig: Value = protocol::yaml::Document::parse(&read(kubeconfig.as_ref()))
            .expect("YAML")
            .value();
        assert_eq!(kubeconfig["current-context"], context, "{name}");
    }
    let code = devcluster.close().await;
    assert_eq!(code, 0);
    site.nothing_is_left().await;
}
