//! What a user has to be allowed.

use serde_json::{Value, json};
use support::gateway::{SESSIONS, fail, run_as};
use support::kube_real::{CLASSES, LEASES, LIMITED, path, real_kube};
use support::{Home, StageClient};

use crate::CONTOUR;

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
            let stage = StageClient::start(run_as(&kube, LIMITED, &home, &[]));
            let error = fail(stage).await;
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
