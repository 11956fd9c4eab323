//! The CRD of Gateways. It is large, and little of it is read.

use std::collections::BTreeMap;

use cluster::Cluster;
use http::Request;
use protocol::StageError;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::objects::GROUP;

const CRD: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gateways.gateway.networking.k8s.io";

/// What the CRD has allowed since its first release; taken when it may not be read.
pub(crate) const MAX_LISTENERS: u32 = 64;

#[derive(Debug, Deserialize)]
pub(crate) struct Crd {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Spec {
    versions: Vec<Version>,
}

#[derive(Debug, Deserialize)]
struct Version {
    name: String,
    schema: Option<Schema>,
}

#[derive(Debug, Deserialize)]
struct Schema {
    #[serde(rename = "openAPIV3Schema")]
    root: Properties<Parts>,
}

#[derive(Debug, Deserialize)]
struct Properties<T> {
    properties: T,
}

/// Each listener takes a place in the spec and one in the status.
#[derive(Debug, Deserialize)]
struct Parts {
    spec: Properties<Listeners>,
    status: Properties<Listeners>,
}

#[derive(Debug, Deserialize)]
struct Listeners {
    listeners: Limit,
}

#[derive(Debug, Deserialize)]
struct Limit {
    #[serde(rename = "maxItems")]
    max_items: Option<u32>,
}

impl Crd {
    /// Cluster-wide, so many users may not read it.
    pub(crate) async fn get(cluster: &Cluster) -> Option<Self> {
        let request = Request::get(CRD).body(Vec::new()).ok()?;
        cluster.client.request(request).await.ok()
    }

    /// The release and the channel of the Gateway API that it is of.
    pub(crate) fn bundle(&self) -> Option<(&str, &str)> {
        bundle(|name| self.metadata.annotations.get(name).map(String::as_str))
    }

    /// How many a Gateway can have.
    pub(crate) fn max_listeners(&self) -> u32 {
        let v1 = self.spec.versions.iter().find(|it| it.name == "v1");
        let Some(schema) = v1.and_then(|version| version.schema.as_ref()) else {
            return MAX_LISTENERS;
        };
        let Parts { spec, status } = &schema.root.properties;
        let limits = [spec, status].map(|part| part.properties.listeners.max_items);
        let limits = limits.map(|limit| limit.unwrap_or(u32::MAX));
        limits[0].min(limits[1])
    }
}

/// The release and the channel of the Gateway API that a CRD with these annotations is of.
pub(crate) fn bundle<'a>(
    annotation: impl Fn(&str) -> Option<&'a str>,
) -> Option<(&'a str, &'a str)> {
    let of = |name: &str| annotation(&format!("{GROUP}/{name}"));
    Some((of("bundle-version")?, of("channel")?))
}

const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Allows more listeners on a Gateway: raises both limits of the version that Determined uses, and touches nothing else.
pub(crate) async fn raise(cluster: &Cluster, limit: u32) -> Result<(), StageError> {
    let failed = |verb| move |error: kube::Error| cluster.failed(verb, CRDS, None, &error);
    let crd: Value = cluster
        .client
        .request(request(Request::get(CRD), Vec::new())?)
        .await
        .map_err(failed("get"))?;
    let patch = patch(&crd, limit).to_string().into_bytes();
    let builder = Request::patch(CRD).header("content-type", "application/json-patch+json");
    cluster
        .client
        .request::<Value>(request(builder, patch)?)
        .await
        .map(drop)
        .map_err(failed("patch"))
}

fn request(builder: http::request::Builder, body: Vec<u8>) -> Result<Request<Vec<u8>>, StageError> {
    builder
        .body(body)
        .map_err(|error| StageError::internal("a request of our own is not one").source(&error))
}

fn patch(crd: &Value, limit: u32) -> Value {
    let versions = crd["spec"]["versions"].as_array();
    let at = versions.and_then(|all| all.iter().position(|version| version["name"] == "v1"));
    let version = format!("/spec/versions/{}", at.unwrap_or_default());
    let schema = format!("{version}/schema/openAPIV3Schema/properties");
    let place = |part: &str| format!("{schema}/{part}/properties/listeners/maxItems");
    json!([
        // The list may have changed since it was read.
        {"op": "test", "path": format!("{version}/name"), "value": "v1"},
        {"op": "replace", "path": place("spec"), "value": limit},
        {"op": "replace", "path": place("status"), "value": limit},
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_of_both_limits_on_listeners_counts() {
        let listeners = |limit: u32| json!({"properties": {"listeners": {"maxItems": limit}}});
        let parts = json!({"spec": listeners(200), "status": listeners(64)});
        let crd = |versions| json!({"metadata": {}, "spec": {"versions": versions}});
        let of = |crd| serde_json::from_value::<Crd>(crd).unwrap().max_listeners();
        let v1 = json!({"name": "v1", "schema": {"openAPIV3Schema": {"properties": parts}}});
        assert_eq!(of(crd(json!([{"name": "v1beta1"}, v1]))), 64);
        assert_eq!(of(crd(json!([]))), MAX_LISTENERS);
    }
}
