//! What is of others stays: names, labels and annotations that others may write prove nothing.

use serde_json::{Value, json};
use support::gateway::{SESSIONS, cleanup, kill, open_port, outputs, ready, run_as, start, stop};
use support::kube_infra::NAMESPACES;
use support::kube_real::{
    CLASSES, GATEWAYS, LEASES, RealKube, STAGE, TCP_ROUTES, in_namespace, real_kube,
};
use support::{Home, StageClient};

use super::{CONTOUR, with_gateway};

const SERVICES: &str = "/api/v1/services";

/// A Lease as one writes it who may write Leases and nothing else.
async fn forge(kube: &RealKube, gateway: &str) -> Value {
    let lease = json!({
        "metadata": {
            "name": format!("devcluster-gateway-{gateway}"),
            "labels": {"app.kubernetes.io/managed-by": "devcluster-gateway"},
            "annotations": {"devcluster-gateway/made": "true"},
        },
        "spec": {"holderIdentity": "eve", "leaseDurationSeconds": 1},
    });
    kube.create(&in_namespace(LEASES, "default"), &lease).await
}

#[tokio::test]
async fn a_forged_lease_deletes_no_gateway() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let gateways = in_namespace(GATEWAYS, "default");
    let production = kube.gateway("default", "production").await;
    // With our label on it, which anyone who may update it can write.
    let labelled = kube.gateway("default", "labelled").await;
    let labels = json!({"app.kubernetes.io/managed-by": "devcluster-gateway"});
    let labels = json!({"metadata": {"labels": labels}});
    kube.merge(&format!("{gateways}/labelled"), &labels).await;
    // Owned by a Lease that lives, whose name the forged one has.
    let owner = forge(&kube, "owner").await;
    let owned = kube.gateway("default", "owned").await;
    let owner = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "name": "devcluster-gateway-owner",
        "uid": owner["metadata"]["uid"]});
    let owner = json!({"metadata": {"ownerReferences": [owner]}});
    kube.merge(&format!("{gateways}/owned"), &owner).await;
    let renewed = json!({"spec": {"leaseDurationSeconds": 3600}});
    let lease = format!(
        "{}/devcluster-gateway-owner",
        in_namespace(LEASES, "default")
    );
    kube.merge(&lease, &renewed).await;
    let mut forged = Vec::new();
    for name in ["production", "labelled", "owned"] {
        forged.push(forge(&kube, name).await);
    }
    let home = Home::new();
    for lease in &forged {
        let name = lease["metadata"]["name"].as_str().expect("a name");
        let path = format!("{}/{name}", in_namespace(LEASES, "default"));
        kube.until("collection of the Lease", async || {
            let mut stage = start(&kube, &home, &["--gateway", "tcp-gateway"]);
            ready(&mut stage).await;
            stop(stage).await;
            kube.get(&path).await.is_null()
        })
        .await;
    }
    for (name, before) in [
        ("production", production),
        ("labelled", labelled),
        ("owned", owned),
    ] {
        let now = kube.get(&format!("{gateways}/{name}")).await;
        assert_eq!(now["metadata"]["uid"], before["metadata"]["uid"], "{name}");
        assert!(now["metadata"]["deletionTimestamp"].is_null(), "{now:#}");
    }
}

#[tokio::test]
async fn a_lease_with_our_identity_makes_no_gateway_ours() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    let mut stage = start(&kube, &home, &[]);
    ready(&mut stage).await;
    let ours = kube.items(SESSIONS).await.remove(0);
    stop(stage).await;
    // Before the other one by its name.
    kube.gateway("default", "production").await;
    kube.program("default", "production", "127.0.0.2").await;
    let mut forged = ours.clone();
    let metadata = json!({"name": "devcluster-gateway-production", "labels": ours["metadata"]["labels"],
        "annotations": ours["metadata"]["annotations"]});
    forged["metadata"] = metadata;
    let forged = kube.create(&in_namespace(LEASES, "default"), &forged).await;
    let mut stage = start(&kube, &home, &[]);
    assert_eq!(ready(&mut stage).await["gateway_name"], "tcp-gateway");
    stop(stage).await;
    cleanup(&home).await;
    let path = format!(
        "{}/devcluster-gateway-production",
        in_namespace(LEASES, "default")
    );
    assert_eq!(kube.get(&path).await, forged);
}

#[tokio::test]
async fn a_route_to_our_gateway_deletes_no_service() {
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.start_controller();
    let home = Home::new();
    let mut stage = start(&kube, &home, &["--prefer", "dedicated"]);
    let outputs = outputs(&mut stage).await;
    open_port(&outputs, "default").await;
    let block = &outputs["internal_task_gateway"];
    // Of one who may make routes, beside a Service of another user; and one that looks like Determined's.
    for (name, labels) in [
        ("victim", json!({})),
        ("disguised", json!({"determined": "canary.1"})),
    ] {
        let service = json!({"metadata": {"name": name, "labels": labels}, "spec": {"ports": [{"port": 80}], "clusterIP": "None"}});
        kube.create(&in_namespace(SERVICES, "default"), &service)
            .await;
        let parent =
            json!({"name": block["gateway_name"], "namespace": block["gateway_namespace"]});
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1alpha2", "kind": "TCPRoute",
            "metadata": {"name": name, "labels": labels},
            "spec": {"parentRefs": [parent], "rules": [{"backendRefs": [{"name": name, "port": 80}]}]},
        });
        kube.create(&in_namespace(TCP_ROUTES, "default"), &route)
            .await;
    }
    kill(stage).await;
    cleanup(&home).await;
    kube.until("Gateway to go", async || {
        kube.items(GATEWAYS).await.is_empty()
    })
    .await;
    for name in ["victim", "disguised", "canary"] {
        let service = kube
            .get(&format!("{}/{name}", in_namespace(SERVICES, "default")))
            .await;
        assert!(!service.is_null(), "{name}");
    }
}

/// A cluster on which our session has installed a controller.
async fn installed(home: &Home) -> Option<(RealKube, StageClient)> {
    let mut kube = real_kube().await?;
    kube.uninstall().await;
    kube.install("v1.2.1", "experimental").await;
    kube.start_provisioner();
    let mut command = run_as(&kube, STAGE, home, &["--provision", "auto"]);
    command.arg("--provision-manifests").arg(kube.contour());
    let mut stage = StageClient::start(command);
    outputs(&mut stage).await;
    Some((kube, stage))
}

#[tokio::test]
async fn a_forged_list_removes_no_class_in_use() {
    let home = Home::new();
    let Some((kube, stage)) = installed(&home).await else {
        return;
    };
    stop(stage).await;
    let gateways = in_namespace(GATEWAYS, "default");
    // A user's class of the same controller, with a Gateway.
    kube.class("theirs", CONTOUR).await;
    kube.gateway("default", "in-use").await;
    // A merge: the controller writes its status meanwhile.
    let in_use = format!("{gateways}/in-use");
    let class_of = async |class: &str| {
        let spec = json!({"spec": {"gatewayClassName": class}});
        kube.merge(&in_use, &spec).await;
    };
    class_of("theirs").await;
    let class = format!("{CLASSES}/devcluster-gateway");
    let stays = async || {
        cleanup(&home).await;
        let class = kube.get(&class).await;
        let there = !class.is_null() && class["metadata"]["deletionTimestamp"].is_null();
        assert!(there, "{class:#}");
    };
    stays().await;
    class_of("devcluster-gateway").await;
    let path = format!(
        "{}/devcluster-infrastructure",
        in_namespace(LEASES, "default")
    );
    let mut lease = kube.get(&path).await;
    let list = &mut lease["metadata"]["annotations"]["devcluster-gateway/installed"];
    let mut forged: Value = serde_json::from_str(list.as_str().expect("a list")).expect("JSON");
    forged["class"] = "unused".into();
    // And an object that is not ours.
    kube.create(
        "/api/v1/namespaces/default/configmaps",
        &json!({"metadata": {"name": "precious"}}),
    )
    .await;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "namespace": "default", "name": "precious"});
    forged["objects"]
        .as_array_mut()
        .expect("a list")
        .push(object);
    *list = forged.to_string().into();
    kube.put(&path, &lease).await;
    stays().await;

    kube.delete(&format!("{gateways}/in-use")).await;
    kube.delete(&format!("{CLASSES}/theirs")).await;
    cleanup(&home).await;
    assert!(kube.get(&class).await.is_null());
    let precious = "/api/v1/namespaces/default/configmaps/precious";
    assert!(!kube.get(precious).await.is_null());
    assert_eq!(kube.infrastructure().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_namespace_with_any_object_of_a_user_stays() {
    let home = Home::new();
    let Some((kube, stage)) = installed(&home).await else {
        return;
    };
    let namespace = format!("{NAMESPACES}/projectcontour");
    let cron = json!({"metadata": {"name": "nightly"}, "spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": {
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}});
    let ingress = json!({"metadata": {"name": "web"}, "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}});
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    // With an owner, which is not ours; with our Gateway's label; and of a kind that a CRD defines.
    let owner = json!({"apiVersion": "v1", "kind": "Namespace", "name": "projectcontour",
        "uid": kube.get(&namespace).await["metadata"]["uid"]});
    let owned = json!({"metadata": {"name": "owned", "ownerReferences": [owner]}});
    let labelled = json!({"metadata": {"name": "labelled", "labels": {"gateway.networking.k8s.io/gateway-name": "x"}}});
    let parent = json!({"name": "any"});
    let custom = json!({
        "apiVersion": "gateway.networking.k8s.io/v1alpha2", "kind": "TCPRoute", "metadata": {"name": "custom"},
        "spec": {"parentRefs": [parent], "rules": [{"backendRefs": [{"name": "any", "port": 80}]}]},
    });
    let theirs = [
        ("/apis/batch/v1/cronjobs", "nightly", cron),
        ("/apis/networking.k8s.io/v1/ingresses", "web", ingress),
        ("/api/v1/persistentvolumeclaims", "data", claim),
        ("/api/v1/configmaps", "labelled", labelled),
        ("/api/v1/secrets", "owned", owned),
        (TCP_ROUTES, "custom", custom),
    ];
    stop(stage).await;
    let lists = theirs.map(|(list, name, object)| {
        let list = in_namespace(list, "projectcontour");
        (format!("{list}/{name}"), list, object)
    });
    for (_, list, object) in &lists {
        kube.create(list, object).await;
    }
    // Its controller, which is not here, would remove it.
    let finalizers = json!({"metadata": {"finalizers": null}});
    kube.merge(&lists[2].0, &finalizers).await;
    let said = cleanup(&home).await;
    assert!(
        said.contains("Namespace projectcontour stays: it contains "),
        "{said}"
    );
    assert!(kube.get(&namespace).await["metadata"]["deletionTimestamp"].is_null());
    for (path, _, _) in &lists {
        assert!(!kube.get(path).await.is_null(), "{path}");
        kube.delete(path).await;
    }
    kube.delete(&namespace).await;
}

#[tokio::test]
async fn a_lease_without_a_holder_and_a_secret_like_a_token_are_a_users_too() {
    let lease = json!({"metadata": {"name": "idle"}, "spec": {"holderIdentity": ""}});
    let secret = json!({"metadata": {"name": "like-a-token"}});
    for (list, title, mut object) in [
        (LEASES, "Lease projectcontour/idle", lease),
        (
            "/api/v1/secrets",
            "Secret projectcontour/like-a-token",
            secret,
        ),
    ] {
        let home = Home::new();
        let Some((kube, stage)) = installed(&home).await else {
            return;
        };
        stop(stage).await;
        if title.starts_with("Secret") {
            let accounts = in_namespace("/api/v1/serviceaccounts", "projectcontour");
            let account = kube
                .get(&format!("{accounts}/contour-gateway-provisioner"))
                .await;
            let uid = &account["metadata"]["uid"];
            assert!(uid.is_string(), "{account:#}");
            object["metadata"]["annotations"] = json!({"kubernetes.io/service-account.uid": uid});
        }
        kube.create(&in_namespace(list, "projectcontour"), &object)
            .await;
        let said = cleanup(&home).await;
        let line = format!("Namespace projectcontour stays: it contains {title}");
        assert!(said.contains(&line), "{said}");
        kube.delete(&format!("{NAMESPACES}/projectcontour")).await;
    }
}
