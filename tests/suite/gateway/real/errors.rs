//! devcluster-gateway where it cannot succeed: each cause has its own code, exit code and hint.

use serde_json::{Value, json};
use support::gateway::{assert_error, fail_with, outputs, role, run_as, stop};
use support::kube::write_kubeconfig;
use support::kube_real::{LIMITED, RealKube, STAGE, real_kube};
use support::{Home, StageClient};

use super::{CONTOUR, with_gateway};

async fn fail_as(kube: &RealKube, user: &str, args: &[&str]) -> (Value, i32) {
    let home = Home::new();
    let path = write_kubeconfig(&home, "kubeconfig", &kube.kubeconfig(user));
    fail_with(&home, &path, args).await
}

#[tokio::test]
async fn a_cluster_without_the_gateway_api_is_an_error() {
    let Some(kube) = real_kube().await else {
        return;
    };
    kube.uninstall().await;
    let failed = fail_as(&kube, STAGE, &[]).await;
    assert_error(failed, "gateway.api_missing", 1, &["real"]);
    // Without a role the API forbids what does not exist, too.
    kube.grant(LIMITED, &[]).await;
    let failed = fail_as(&kube, LIMITED, &[]).await;
    assert_error(failed, "gateway.api_missing", 1, &["real"]);
}

#[tokio::test]
async fn a_gateway_that_never_works_ends_the_wait_with_the_reason() {
    let Some(kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.gateway("default", "tcp-gateway").await;
    let soon = ["--timeout", "1"];
    let words = [
        "Waiting for controller",
        "controller of GatewayClass contour",
    ];
    let unclaimed = fail_as(&kube, STAGE, &soon).await;
    assert_error(unclaimed, "gateway.not_programmed", 7, &words);
    kube.program("default", "tcp-gateway", "").await;
    let without_address = fail_as(&kube, STAGE, &soon).await;
    assert_error(
        without_address,
        "gateway.no_address",
        7,
        &["minikube tunnel"],
    );
}

fn without(rules: &[Value], resources: &[&str], verbs: &[&str]) -> Vec<Value> {
    let mut rules = rules.to_vec();
    for rule in &mut rules {
        let is_meant = resources.iter().any(|it| rule["resources"] == json!([it]));
        let given = rule["verbs"].as_array_mut().expect("verbs");
        given.retain(|verb| !is_meant || !verbs.iter().any(|it| verb == it));
    }
    rules
}

#[tokio::test]
async fn a_forbidden_watch_is_reported_when_it_is_needed() {
    let Some(kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.gateway("default", "tcp-gateway").await;
    let rules = without(&role("existing"), &["gateways"], &["watch"]);
    kube.grant(LIMITED, &rules).await;
    let failed = fail_as(&kube, LIMITED, &[]).await;
    let words = [
        "may not watch gateways.gateway.networking.k8s.io",
        "namespace default",
    ];
    assert_error(failed, "cluster.forbidden", 1, &words);
}

#[tokio::test]
async fn a_user_who_may_read_one_gateway_alone_can_use_it() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let rules = without(&role("existing"), &["gateways"], &["list", "watch"]);
    kube.grant(LIMITED, &rules).await;
    let home = Home::new();
    let named = ["--gateway", "tcp-gateway", "--gateway-namespace", "default"];
    let mut stage = StageClient::start(run_as(&kube, LIMITED, &home, &named));
    let outputs = outputs(&mut stage).await;
    let unknown = (&outputs["controller"], &outputs["capacity"]);
    assert_eq!(unknown, (&Value::Null, &json!(63)));
    stage
        .wait_until("a warning", |message| message["level"] == "warn")
        .await;
    stop(stage).await;
}

#[tokio::test]
async fn rejected_and_missing_credentials_have_their_codes() {
    let Some(kube) = real_kube().await else {
        return;
    };
    let home = Home::new();
    let mut kubeconfig = kube.kubeconfig(STAGE);
    kubeconfig["users"][0]["user"]["token"] = "wr0ng".into();
    let path = write_kubeconfig(&home, "kubeconfig", &kubeconfig);
    let refused = fail_with(&home, &path, &[]).await;
    assert!(!refused.0.to_string().contains("wr0ng"), "{}", refused.0);
    assert_error(refused, "cluster.credentials_refused", 1, &["Unauthorized"]);

    let plugin = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", "echo $SECRET; echo log in first >&2; exit 3"],
        "env": [{"name": "SECRET", "value": "t0ken"}]});
    kubeconfig["users"][0]["user"] = json!({"exec": plugin});
    let path = write_kubeconfig(&home, "kubeconfig", &kubeconfig);
    let missing = fail_with(&home, &path, &[]).await;
    assert!(!missing.0.to_string().contains("t0ken"), "{}", missing.0);
    assert_error(
        missing,
        "cluster.credentials_unavailable",
        1,
        &["log in first"],
    );
}
