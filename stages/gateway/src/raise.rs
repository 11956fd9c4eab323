//! More listeners on a Gateway than its CRD allows: the limit stands in two places, and both have to be raised.

use cluster::client::Cluster;
use cluster::fault::{self, Attempt};
use http::Request;
use protocol::StageError;
use serde_json::{Value, json};

use crate::crd::CRD;

const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Raises both limits of the version that Determined uses, and touches nothing else of the CRD.
pub(crate) async fn raise(cluster: &Cluster, limit: u32) -> Result<(), StageError> {
    let failed = |verb| {
        move |error: kube::Error| {
            fault::of_request(&cluster.peer, &Attempt::new(verb, CRDS, None), &error)
        }
    };
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
        .map_err(|error| StageError::internal("a request of our own is none").source(&error))
}

fn patch(crd: &Value, limit: u32) -> Value {
    let versions = crd["spec"]["versions"].as_array();
    let at = versions.and_then(|all| all.iter().position(|version| version["name"] == "v1"));
    let version = format!("/spec/versions/{}", at.unwrap_or_default());
    let schema = format!("{version}/schema/openAPIV3Schema/properties");
    let place = |part: &str| format!("{schema}/{part}/properties/listeners/maxItems");
    json!([
        // Somebody may have changed the list since it was read.
        {"op": "test", "path": format!("{version}/name"), "value": "v1"},
        {"op": "replace", "path": place("spec"), "value": limit},
        {"op": "replace", "path": place("status"), "value": limit},
    ])
}
