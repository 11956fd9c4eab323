//! All Gateways of a cluster, page by page: of thousands, no more is kept than is looked at.

use std::collections::BTreeMap;

use cluster::Cluster;
use kube::Api;
use kube::api::ListParams;
use kube::core::{ObjectMeta, Request};
use serde::Deserialize;

use crate::objects::{self, GatewayObject, GatewaySpec, GatewayStatus};

/// How many Gateways come with one answer.
const PAGE: u32 = 500;

#[derive(Deserialize)]
struct Page {
    metadata: PageMetadata,
    items: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    #[serde(default)]
    r#continue: String,
    #[serde(default)]
    remaining_item_count: usize,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
    spec: GatewaySpec,
    #[serde(default)]
    status: Option<GatewayStatus>,
}

/// What managed it and when is far longer than all the rest.
#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

pub(crate) async fn all(
    cluster: &Cluster,
    api: &Api<GatewayObject>,
    mut listed: ListParams,
) -> kube::Result<Vec<GatewayObject>> {
    listed.limit = Some(PAGE);
    let mut gateways = Vec::new();
    loop {
        let request = Request::new(api.resource_url()).list(&listed);
        let request = request.map_err(kube::Error::BuildRequest)?;
        let page: Page = cluster.client.request(request).await?;
        gateways.reserve_exact(page.items.len() + page.metadata.remaining_item_count);
        gateways.extend(page.items.into_iter().map(Item::whole));
        if page.metadata.r#continue.is_empty() {
            return Ok(gateways);
        }
        listed.continue_token = Some(page.metadata.r#continue);
    }
}

impl Item {
    fn whole(self) -> GatewayObject {
        let mut annotations = self.metadata.annotations;
        annotations.retain(|key, _| objects::is_port(key));
        GatewayObject {
            types: None,
            metadata: ObjectMeta {
                name: Some(self.metadata.name),
                namespace: Some(self.metadata.namespace),
                annotations: (!annotations.is_empty()).then_some(annotations),
                ..ObjectMeta::default()
            },
            spec: self.spec,
            status: self.status,
        }
    }
}
