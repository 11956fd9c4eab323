//! Whether the user may do what is going to be done: one access review for each verb, side by side.

use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use protocol::StageError;

use crate::client::Cluster;
use crate::errors::Attempt;

/// The first of these that the user may not do is the error, the others its causes.
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

/// Not knowing is no reason to refuse: whoever tries will see.
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
