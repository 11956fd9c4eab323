//! Applies the objects of a plan, with our label.

use std::time::Duration;

use cluster::Cluster;
use cluster::objects::{ApiKind, Discovery, ObjectRef};
use futures::StreamExt;
use futures::stream;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::runtime::wait::{await_condition, conditions::is_crd_established};
use protocol::{Context, StageError};

use super::manifest::Object;
use super::steps::{Change, Step, marked, set_namespace};
use crate::Gateway;
use crate::codes;
use crate::lease::MANAGER;

/// The API takes about a second for a CRD, a busy one a few.
const ESTABLISHED: Duration = Duration::from_secs(60);

/// Time limit of a deletion: a namespace takes its contents along.
const DELETION_TIMEOUT: Duration = Duration::from_secs(90);

/// CRDs applied in parallel.
const AT_ONCE: usize = 4;

/// Applies CRDs and waits until the API serves them, then the other objects in order.
pub(crate) async fn apply(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    steps: &[Step],
    mark: &str,
) -> Result<(), StageError> {
    let applied = steps.iter().filter(|it| it.applies());
    let (crds, rest): (Vec<&Step>, Vec<&Step>) = applied.partition(|it| it.is_crd());
    let total = (crds.len() + rest.len()) as u64;
    let tell = |line, done| cx.progress_count("provision", line, done, total);
    let mut done = 0;
    let mut under_way = stream::iter(crds.iter().map(|step| apply_crd(cluster, step, mark)))
        .buffer_unordered(AT_ONCE);
    while let Some(name) = under_way.next().await {
        let name = name?;
        done += 1;
        tell(format!("applied {name}"), done);
    }
    drop(under_way);
    let mut discovery = Discovery::new(cluster);
    for step in rest {
        let mut object = step.object.clone();
        let kind = match &step.kind {
            Some(kind) => kind.clone(),
            None => resolve_kind(&mut discovery, &mut object).await?,
        };
        let title = object.reference.title();
        if step.action == Change::Recreate {
            tell(format!("waiting until {title} is deleted"), done);
            until_deleted(&kind, &object.reference).await?;
        }
        let ours = step.action == Change::Apply;
        apply_object(&kind, &object, mark, ours).await?;
        done += 1;
        tell(format!("applied {title}"), done);
    }
    Ok(())
}

/// The kind of an object that the API did not serve when the plan was made.
async fn resolve_kind(
    discovery: &mut Discovery<'_>,
    object: &mut Object,
) -> Result<ApiKind, StageError> {
    let kind = discovery.kind(&object.reference).await?.ok_or_else(|| {
        let message = format!(
            "the API does not serve {} of {}, and no CRD of the manifests defines it",
            object.reference.kind, object.reference.api_version
        );
        StageError::new(codes::MANIFEST_UNKNOWN_KIND, message)
    })?;
    set_namespace(object, &kind);
    Ok(kind)
}

async fn apply_crd(cluster: &Cluster, step: &Step, mark: &str) -> Result<String, StageError> {
    let reference = &step.object.reference;
    let (title, name) = (reference.title(), &reference.name);
    let Some(kind) = &step.kind else {
        return Err(StageError::internal("the API does not serve CRDs"));
    };
    if step.action == Change::Recreate {
        until_deleted(kind, reference).await?;
    }
    apply_object(kind, &step.object, mark, false).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let established = await_condition(crds, name, is_crd_established());
    match tokio::time::timeout(ESTABLISHED, established).await {
        Ok(Ok(_)) => Ok(title),
        Ok(Err(error)) => {
            let message = format!("cannot {}", kind.attempt("watch", reference).describe());
            Err(StageError::new(cluster::codes::API_UNAVAILABLE, message).source(&error))
        }
        Err(_) => {
            let seconds = ESTABLISHED.as_secs();
            let message =
                format!("{title} was applied, but the API does not serve it after {seconds} s");
            let error = StageError::new(codes::INFRASTRUCTURE_TIMEOUT, message);
            Err(error.hint(format!(
                "see its conditions: `kubectl get crd {name} -o yaml`"
            )))
        }
    }
}

/// Our own objects are forced; a new object has no fields to conflict with.
async fn apply_object(
    kind: &ApiKind,
    object: &Object,
    mark: &str,
    ours: bool,
) -> Result<(), StageError> {
    let mut params = PatchParams::apply(MANAGER);
    params.force = ours;
    let body = marked(object, mark);
    let reference = &object.reference;
    let patch = Patch::Apply(&body);
    let applied = kind
        .api(reference)
        .patch(&reference.name, &params, &patch)
        .await;
    applied.map(drop).map_err(|error| {
        let failed = kind.failed("patch", reference, &error);
        failed.cause(format!("the object is {}", reference.title()))
    })
}

pub(crate) async fn until_deleted(kind: &ApiKind, reference: &ObjectRef) -> Result<(), StageError> {
    let (api, name) = (kind.api(reference), &reference.name);
    let absent = await_condition(api, name, |it: Option<&DynamicObject>| it.is_none());
    match tokio::time::timeout(DELETION_TIMEOUT, absent).await {
        Ok(Ok(_)) => Ok(()),
        _ => {
            let (title, kind) = (reference.title(), kind.title());
            let seconds = DELETION_TIMEOUT.as_secs();
            let message = format!("{title} is being deleted, but still exists after {seconds} s");
            let hint = format!("see what it waits for: `kubectl get {kind} {name} -o yaml`");
            let error = StageError::new(codes::INFRASTRUCTURE_TIMEOUT, message);
            Err(error.hint(hint))
        }
    }
}
