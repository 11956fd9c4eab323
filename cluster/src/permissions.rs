//! Checks permissions before they are needed: one access review per verb, in parallel.

use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use protocol::StageError;

use crate::client::Cluster;
use crate::errors::Attempt;

/// Fails with the first verb that the user may not use; the others are causes.
pub async fn require(cluster: &Cluster, needed: &[Attempt]) -> Result<(), StageError> {
    let denied = async |attempt| denies(cluster, attempt).await.then_some(attempt);
    let denied = join_all(needed.iter().map(denied)).await;
    let mut denied = denied.into_iter().flatten();
    let Some(first) = denied.next() else {
        return Ok(());
    };
    let mut error = cluster.context.forbidden(first);
    let others = denied.map(|other| format!("nor may it {}", other.describe()));
    error.caused_by.extend(others);
    Err(error)
}

/// A review that fails does not count as denied: the request itself will show.
async fn denies(cluster: &Cluster, attempt: &Attempt) -> bool {
    let (resource, group) = attempt
        .resource
        .split_once('.')
        .unwrap_or((&attempt.resource, ""));
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some(attempt.verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                namespace: Some(attempt.namespace.clone()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await;
    matches!(answer.map(|review| review.status), Ok(Some(status)) if !status.allowed)
}
