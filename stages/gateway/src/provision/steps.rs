//! Plans the change to each object of the manifests, from the state of the cluster.

use cluster::Cluster;
use cluster::objects::{ApiKind, Discovery};
use futures::StreamExt;
use futures::stream;
use kube::core::DynamicObject;
use protocol::StageError;
use serde_json::{Value, json};

use super::manifest::{CRD, Object};
use crate::codes;
use crate::crd::bundle_of;
use crate::objects::{self, GROUP, INSTALLED};

/// Parallel requests.
const AT_ONCE: usize = 8;

/// The change to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It does not exist yet.
    Create,
    /// It is ours already.
    Apply,
    /// It is being deleted, and is created again afterwards.
    Recreate,
    /// It is not ours, and stays as it is; the text is a remark about it.
    Keep(Option<String>),
}

pub(crate) struct Step {
    pub(crate) object: Object,
    /// `None`: a CRD of the manifests must define it first.
    pub(crate) kind: Option<ApiKind>,
    pub(crate) action: Change,
    /// The Gateway API channel of the CRD on the cluster.
    channel: Option<String>,
}

impl Step {
    pub(crate) fn is_crd(&self) -> bool {
        self.object.reference.kind == CRD
    }

    pub(crate) fn applies(&self) -> bool {
        !matches!(self.action, Change::Keep(_))
    }

    /// The line for messages.
    pub(crate) fn line(&self) -> String {
        let title = self.object.reference.title();
        match &self.action {
            Change::Create => format!("{title}: would be created"),
            Change::Apply => format!("{title}: would be applied again"),
            Change::Recreate => {
                format!("{title}: is being deleted, and would be created afterwards")
            }
            Change::Keep(None) => format!("{title}: exists, and stays as it is"),
            Change::Keep(Some(why)) => {
                format!("{title}: exists, and stays as it is: {why}")
            }
        }
    }
}

/// Plans the change to each object. Objects with this mark are ours.
pub(crate) async fn plan(
    cluster: &Cluster,
    objects: Vec<Object>,
    mark: &str,
) -> Result<Vec<Step>, StageError> {
    let mut discovery = Discovery::new(cluster);
    let mut resolved = Vec::new();
    for mut object in objects {
        let kind = discovery.kind(&object.reference).await?;
        if let Some(kind) = &kind {
            set_namespace(&mut object, kind);
        }
        resolved.push((object, kind));
    }
    let planned = resolved.into_iter().map(async |(object, kind)| {
        let there = match &kind {
            Some(kind) => kind.get(&object.reference).await?,
            None => None,
        };
        let channel = there
            .as_ref()
            .and_then(|it| Some(bundle_of(it)?.1.to_owned()));
        let action = there.map_or(Change::Create, |there| judge(&object, &there, mark));
        Ok(Step {
            object,
            kind,
            action,
            channel,
        })
    });
    let planned: Vec<_> = stream::iter(planned).buffered(AT_ONCE).collect().await;
    let steps = planned.into_iter().collect::<Result<Vec<Step>, _>>()?;
    check_channels(cluster, &steps)?;
    Ok(steps)
}

/// Sets the namespace that the object goes to.
pub(crate) fn set_namespace(object: &mut Object, kind: &ApiKind) {
    object.reference.namespace = kind.namespace(&object.reference);
    if let Some(namespace) = &object.reference.namespace {
        object.body["metadata"]["namespace"] = json!(namespace);
    }
}

fn judge(object: &Object, there: &DynamicObject, mark: &str) -> Change {
    if object.reference.kind == CRD {
        return Change::Keep(crd_remark(object, there));
    }
    match there.metadata.deletion_timestamp {
        Some(_) => Change::Recreate,
        None if objects::install_mark(there) == Some(mark) => Change::Apply,
        None => Change::Keep(None),
    }
}

/// CRDs are shared: an existing one is never downgraded, upgraded or moved to another channel.
fn crd_remark(requested: &Object, there: &DynamicObject) -> Option<String> {
    let (release, channel) = requested.bundle()?;
    let (installed, installed_channel) = bundle_of(there)?;
    let warning = match version(installed) < version(release) {
        true => "; it may be too old for this controller",
        false => "",
    };
    (installed != release || installed_channel != channel).then(|| {
        format!("it is {installed}, {installed_channel} channel; the manifests have {release}, {channel}{warning}")
    })
}

/// The numbers of a release, `v1.3.0`. Other parts count as 0, so a preview is older than its release.
fn version(text: &str) -> Vec<u32> {
    let numbers = text.trim_start_matches('v').split(['.', '-']);
    numbers.map(|it| it.parse().unwrap_or(0)).collect()
}

/// TCPRoute v1alpha2 is in the experimental channel only, and we do not switch a cluster's channel.
fn check_channels(cluster: &Cluster, steps: &[Step]) -> Result<(), StageError> {
    let other = |step: &&Step| {
        let requested = step.object.bundle().map(|(_, channel)| channel);
        step.channel.is_some() && step.channel.as_deref() != requested
    };
    let routes = format!("tcproutes.{GROUP}");
    let missing = |step: &Step| {
        step.is_crd() && step.object.reference.name == routes && (step.applies() || other(&step))
    };
    let Some(kept) = steps.iter().find(other) else {
        return Ok(());
    };
    if !steps.iter().any(missing) {
        return Ok(());
    }
    let message = format!(
        "cannot install a controller on the cluster of context {:?}: its Gateway API is of the standard channel, and Determined \
        needs TCPRoute v1alpha2 of the experimental channel",
        cluster.context.name
    );
    Err(StageError::new(codes::CRD_CHANNEL, message).cause(kept.line()))
}

/// The object with our label.
pub(crate) fn marked(object: &Object, mark: &str) -> Value {
    let mut body = object.body.clone();
    if object.reference.kind != CRD {
        let labels = &mut body["metadata"]["labels"];
        if labels.is_null() {
            *labels = json!({});
        }
        labels[INSTALLED] = json!(mark);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        assert!(version("v1.10.0") > version("v1.9.4"));
        assert!(version("v1.3.0") > version("v1.2.1"));
        assert!(version("v1.3.0") == version("1.3.0"));
    }
}
