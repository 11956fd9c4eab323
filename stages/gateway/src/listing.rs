//! All Gateways of a cluster, page by page: of thousands, no more is kept than is looked at.

use kube::Api;
use kube::api::ListParams;
use kube::core::ObjectMeta;

use crate::objects::{self, GatewayObject};

/// How many Gateways come with one answer.
const PAGE: u32 = 500;

pub(crate) async fn all(
    api: &Api<GatewayObject>,
    mut listed: ListParams,
) -> kube::Result<Vec<GatewayObject>> {
    listed.limit = Some(PAGE);
    let mut gateways = Vec::new();
    loop {
        let page = api.list(&listed).await?;
        gateways.extend(page.items.into_iter().map(without_the_rest));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => listed.continue_token = Some(token),
            None => return Ok(gateways),
        }
    }
}

/// What managed it and when is far longer than all the rest.
fn without_the_rest(gateway: GatewayObject) -> GatewayObject {
    let mut annotations = gateway.metadata.annotations.unwrap_or_default();
    annotations.retain(|key, _| objects::is_port(key));
    GatewayObject {
        metadata: ObjectMeta {
            name: gateway.metadata.name,
            namespace: gateway.metadata.namespace,
            deletion_timestamp: gateway.metadata.deletion_timestamp,
            annotations: (!annotations.is_empty()).then_some(annotations),
            ..ObjectMeta::default()
        },
        ..gateway
    }
}
