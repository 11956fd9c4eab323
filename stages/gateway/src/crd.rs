//! The CRD of Gateways. It is large, and little of it is read.

use std::collections::BTreeMap;

use cluster::client::Cluster;
use http::Request;
use serde::Deserialize;

use crate::objects::GROUP;

pub(crate) const CRD: &str =
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

#[cfg(test)]
mod tests {
    use serde_json::json;

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
