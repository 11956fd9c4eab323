//! Which groups, versions and resources there are. Clients that ask for aggregated discovery take the plain form too.

use serde_json::{Value, json};

use super::kinds::{KINDS, group_version};

const REVIEWS: &str = "authorization.k8s.io";

pub(super) fn version() -> Value {
    json!({
        "major": "1",
        "minor": "32",
        "gitVersion": "v1.32.0+devcluster.sandbox",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "2024-12-11T18:04:20Z",
        "goVersion": "",
        "compiler": "",
        "platform": "",
    })
}

pub(super) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

pub(super) fn groups(absent: &[String]) -> Value {
    let mut names: Vec<&str> = KINDS
        .iter()
        .map(|kind| kind.group)
        .filter(|group| !group.is_empty())
        .collect();
    names.dedup();
    names.push(REVIEWS);
    let groups: Vec<Value> = names
        .into_iter()
        .filter_map(|name| describe(name, absent))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

pub(super) fn group(name: &str, absent: &[String]) -> Option<Value> {
    let mut group = describe(name, absent)?;
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Some(group)
}

fn describe(name: &str, absent: &[String]) -> Option<Value> {
    let versions = versions(name, absent);
    let versions: Vec<Value> = versions
        .into_iter()
        .map(|version| json!({"groupVersion": group_version(name, version), "version": version}))
        .collect();
    let preferred = versions.first()?.clone();
    Some(json!({"name": name, "versions": versions, "preferredVersion": preferred}))
}

fn versions(group: &str, absent: &[String]) -> Vec<&'static str> {
    if group == REVIEWS {
        return vec!["v1"];
    }
    let mut versions: Vec<&str> = KINDS
        .iter()
        .filter(|kind| kind.group == group)
        .map(|kind| kind.version)
        .collect();
    versions.dedup();
    versions.retain(|version| !absent.contains(&group_version(group, version)));
    versions
}

pub(super) fn resources(group: &str, version: &str, absent: &[String]) -> Option<Value> {
    if !versions(group, absent).contains(&version) {
        return None;
    }
    let resources: Vec<Value> = if group == REVIEWS {
        vec![json!({
            "name": "selfsubjectaccessreviews",
            "singularName": "selfsubjectaccessreview",
            "namespaced": false,
            "kind": "SelfSubjectAccessReview",
            "verbs": ["create"],
        })]
    } else {
        KINDS
            .iter()
            .filter(|kind| kind.group == group && kind.version == version)
            .map(|kind| kind.discovery())
            .collect()
    };
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(group, version),
        "resources": resources,
    }))
}
