//! The CRD of Gateways. It is large, so it is read as an untyped object.

use cluster::Cluster;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, ResourceExt};
use protocol::StageError;
use serde_json::{Value, json};

use crate::objects::{GATEWAYS, GROUP};

/// The CRD's limit since its first release, used if the CRD cannot be read.
pub(crate) const MAX_LISTENERS: u32 = 64;

/// The CRD, as the API returns it.
pub(crate) struct Crd(DynamicObject);

fn crds(cluster: &Cluster) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    Api::all_with(cluster.client.clone(), &ApiResource::from_gvk(&kind))
}

impl Crd {
    /// CRDs are cluster-wide, so many users may not read them.
    pub(crate) async fn get(cluster: &Cluster) -> Option<Self> {
        crds(cluster).get(GATEWAYS).await.ok().map(Self)
    }

    /// Release and channel of its Gateway API bundle.
    pub(crate) fn bundle(&self) -> Option<(&str, &str)> {
        bundle_of(&self.0)
    }

    /// How many listeners a Gateway can have: each needs an entry in the spec and one in the status.
    pub(crate) fn max_listeners(&self) -> u32 {
        let Some((_, v1)) = v1(&self.0.data) else {
            return MAX_LISTENERS;
        };
        let limit = |part: &str| {
            let limit = v1.pointer(&format!("/{}", max_items(part)))?.as_u64()?;
            u32::try_from(limit).ok()
        };
        let limits = ["spec", "status"].map(|part| limit(part).unwrap_or(u32::MAX));
        limits[0].min(limits[1])
    }
}

/// The version that Determined uses, with its index.
fn v1(crd: &Value) -> Option<(usize, &Value)> {
    let versions = crd["spec"]["versions"].as_array()?;
    let mut versions = versions.iter().enumerate();
    versions.find(|(_, version)| version["name"] == "v1")
}

/// The path of a version's limit.
fn max_items(part: &str) -> String {
    format!("schema/openAPIV3Schema/properties/{part}/properties/listeners/maxItems")
}

/// Release and channel of the Gateway API bundle, from a CRD's annotations.
pub(crate) fn bundle<'a>(
    annotation: impl Fn(&str) -> Option<&'a str>,
) -> Option<(&'a str, &'a str)> {
    let of = |name: &str| annotation(&format!("{GROUP}/{name}"));
    Some((of("bundle-version")?, of("channel")?))
}

/// The same for a CRD that the API returns.
pub(crate) fn bundle_of(crd: &DynamicObject) -> Option<(&str, &str)> {
    bundle(|name| crd.annotations().get(name).map(String::as_str))
}

const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Raises the limit of listeners on a Gateway, in spec and status of the version that Determined uses.
pub(crate) async fn raise_listener_limit(cluster: &Cluster, limit: u32) -> Result<(), StageError> {
    let failed = |verb| move |error: kube::Error| cluster.failed(verb, CRDS, None, &error);
    let crds = crds(cluster);
    let crd = crds.get(GATEWAYS).await.map_err(failed("get"))?;
    let patch = serde_json::from_value(patch(&crd.data, limit))
        .map_err(|error| StageError::internal("our own patch is not valid").source(&error))?;
    let (params, patch) = (PatchParams::default(), Patch::<()>::Json(patch));
    let patched = crds.patch(GATEWAYS, &params, &patch).await;
    patched.map(drop).map_err(failed("patch"))
}

fn patch(crd: &Value, limit: u32) -> Value {
    let at = v1(crd).map_or(0, |(at, _)| at);
    let version = format!("/spec/versions/{at}");
    let replace = |part: &str| {
        let path = format!("{version}/{}", max_items(part));
        json!({"op": "replace", "path": path, "value": limit})
    };
    json!([
        // The list may have changed since it was read.
        {"op": "test", "path": format!("{version}/name"), "value": "v1"},
        replace("spec"),
        replace("status"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_limit_on_listeners_counts() {
        let listeners = |limit: u32| json!({"properties": {"listeners": {"maxItems": limit}}});
        let parts = json!({"spec": listeners(200), "status": listeners(64)});
        let crd = |versions| json!({"metadata": {}, "spec": {"versions": versions}});
        let of = |crd| Crd(serde_json::from_value(crd).unwrap()).max_listeners();
        let v1 = json!({"name": "v1", "schema": {"openAPIV3Schema": {"properties": parts}}});
        assert_eq!(of(crd(json!([{"name": "v1beta1"}, v1]))), 64);
        assert_eq!(of(crd(json!([]))), MAX_LISTENERS);
    }
}
