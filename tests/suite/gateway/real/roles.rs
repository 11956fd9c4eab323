//! The user's permissions: the roles of docs/gateway.md suffice, and each of their verbs is needed.

use serde_json::{Value, json};
use support::gateway::{
    SESSIONS, assert_nothing_of_ours, cleanup, close_port, fail, open_port, outputs, role, run_as,
    stop,
};
use support::kube_real::{GATEWAYS, LEASES, LIMITED, RealKube, in_namespace, path, real_kube};
use support::{Home, StageClient};

use super::{CONTOUR, with_gateway};

fn without(rules: &[Value], resource: &str, verb: &str) -> Vec<Value> {
    let mut rules = rules.to_vec();
    for rule in &mut rules {
        if rule["resources"] == json!([resource])
            && let Some(verbs) = rule["verbs"].as_array_mut()
        {
            verbs.retain(|it| it != verb);
        }
    }
    rules.retain(|rule| rule["verbs"] != json!([]));
    rules
}

/// With all verbs the run succeeds, and a master can use the Gateway.
async fn suffices(kube: &RealKube, rules: &[Value], args: &[&str]) {
    kube.grant(LIMITED, rules).await;
    let home = Home::new();
    let mut stage = StageClient::start(run_as(kube, LIMITED, &home, args));
    let outputs = outputs(&mut stage).await;
    open_port(&outputs, "default").await;
    close_port(&outputs, "default").await;
    stop(stage).await;
    cleanup(&home).await;
    assert_nothing_of_ours(kube).await;
}

/// Without one verb it ends with an error that has these words.
async fn lacks(kube: &RealKube, rules: &[Value], args: &[&str], words: &str) {
    kube.grant(LIMITED, rules).await;
    let home = Home::new();
    let stage = StageClient::start(run_as(kube, LIMITED, &home, args));
    let error = fail(stage).await;
    assert!(error.to_string().contains(words), "{words}: {error:#}");
    // What it may not release stays.
    let tasks = in_namespace(LEASES, "default") + "/devcluster-tasks";
    kube.delete(&tasks).await;
    for list in [SESSIONS, GATEWAYS] {
        for left in kube.items(list).await {
            if left["metadata"]["name"] != "tcp-gateway" {
                let list = if list == SESSIONS { LEASES } else { list };
                kube.delete(&path(list, &left)).await;
            }
        }
    }
}

fn named(group: &str, resource: &str) -> String {
    match group {
        "" => resource.to_owned(),
        group => format!("{resource}.{group}"),
    }
}

#[tokio::test]
async fn the_role_for_an_existing_gateway_suffices_and_exactly_the_missing_verb_is_reported() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let rules = role("existing");
    for rule in &rules {
        let text = |field: &str| rule[field][0].as_str().expect("text");
        let resource = named(text("apiGroups"), text("resources"));
        for verb in rule["verbs"].as_array().expect("verbs") {
            let verb = verb.as_str().expect("text");
            let less = without(&rules, text("resources"), verb);
            // Without pods it works too.
            if verb != "watch" && resource != "pods" {
                lacks(&kube, &less, &[], &format!("may not {verb} {resource}")).await;
            }
        }
    }
    suffices(&kube, &rules, &[]).await;
}

#[tokio::test]
async fn the_role_for_a_dedicated_gateway_suffices_and_needs_its_additional_verbs() {
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.start_controller();
    let rules = role("dedicated");
    let dedicated = ["--prefer", "dedicated"];
    for (resource, verb, words) in [
        ("gateways", "create", "may not create gateways"),
        ("gateways", "delete", "may not delete gateways"),
        (
            "gatewayclasses",
            "list",
            "the user may not list GatewayClasses",
        ),
    ] {
        lacks(&kube, &without(&rules, resource, verb), &dedicated, words).await;
    }
    suffices(&kube, &rules, &dedicated).await;
}
