//! Objects of any kind, found by discovery.

use std::collections::BTreeMap;

use kube::Api;
use kube::core::{ApiResource, DynamicObject, GroupVersion};
use kube::discovery::{self, ApiGroup, Scope, pinned_group, verbs};
use protocol::StageError;
use serde::{Deserialize, Serialize};

use crate::client::Cluster;
use crate::errors::{Attempt, status};

/// A reference to an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    pub api_version: String,
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
}

impl ObjectRef {
    /// A reference to all objects of a kind, in the namespace if the kind has one.
    pub fn from_kind(api_version: &str, kind: &str, namespace: &str) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: Some(namespace.to_owned()),
            name: String::new(),
        }
    }

    /// `Kind namespace/name`
    pub fn title(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} {namespace}/{}", self.kind, self.name),
            None => format!("{} {}", self.kind, self.name),
        }
    }
}

/// A kind that the API serves.
#[derive(Clone)]
pub struct ApiKind {
    cluster: Cluster,
    resource: ApiResource,
    namespaced: bool,
}

impl ApiKind {
    /// A reference to all objects of this kind in a namespace.
    pub fn all_in(&self, namespace: &str) -> ObjectRef {
        ObjectRef::from_kind(&self.resource.api_version, &self.resource.kind, namespace)
    }

    /// `plural.group`, as in access reviews and messages.
    pub fn title(&self) -> String {
        match self.resource.group.as_str() {
            "" => self.resource.plural.clone(),
            group => format!("{}.{group}", self.resource.plural),
        }
    }

    /// The object's namespace. As in kubectl, the default is the context's.
    pub fn namespace(&self, reference: &ObjectRef) -> Option<String> {
        let own = || self.cluster.client.default_namespace().to_owned();
        let named = || reference.namespace.clone().unwrap_or_else(own);
        self.namespaced.then(named)
    }

    pub fn api(&self, reference: &ObjectRef) -> Api<DynamicObject> {
        let client = self.cluster.client.clone();
        match self.namespace(reference) {
            Some(namespace) => Api::namespaced_with(client, &namespace, &self.resource),
            None => Api::all_with(client, &self.resource),
        }
    }

    /// All namespaces.
    pub fn api_all(&self) -> Api<DynamicObject> {
        Api::all_with(self.cluster.client.clone(), &self.resource)
    }

    /// `None`: there is no such object.
    pub async fn get(&self, reference: &ObjectRef) -> Result<Option<DynamicObject>, StageError> {
        let answer = self.api(reference).get_opt(&reference.name).await;
        answer.map_err(|error| self.failed("get", reference, &error))
    }

    pub fn attempt(&self, verb: &'static str, reference: &ObjectRef) -> Attempt {
        Attempt::new(verb, self.title(), self.namespace(reference).as_deref())
    }

    /// Converts the error of a request.
    pub fn failed(
        &self,
        verb: &'static str,
        reference: &ObjectRef,
        error: &kube::Error,
    ) -> StageError {
        let attempt = self.attempt(verb, reference);
        self.cluster.context.request_failed(&attempt, error)
    }
}

/// Discovery with a cache: one request per group version.
pub struct Discovery<'a> {
    cluster: &'a Cluster,
    groups: BTreeMap<String, Option<ApiGroup>>,
}

impl<'a> Discovery<'a> {
    pub fn new(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            groups: BTreeMap::new(),
        }
    }

    /// The kind of this object; `None` if the API does not serve it.
    pub async fn kind(&mut self, reference: &ObjectRef) -> Result<Option<ApiKind>, StageError> {
        let version = &reference.api_version;
        if !self.groups.contains_key(version) {
            let group = discover(self.cluster, version).await?;
            self.groups.insert(version.clone(), group);
        }
        let group = self.groups.get(version).and_then(Option::as_ref);
        let found = group.and_then(|it| it.recommended_kind(&reference.kind));
        Ok(found.map(|(resource, capabilities)| ApiKind {
            cluster: self.cluster.clone(),
            resource,
            namespaced: capabilities.scope == Scope::Namespaced,
        }))
    }
}

/// Every kind of which a namespace can have objects that someone has made.
pub async fn namespaced_kinds(cluster: &Cluster) -> Result<Vec<ApiKind>, StageError> {
    let all = discovery::Discovery::new(cluster.client.clone());
    let all = all.run_aggregated().await.map_err(|error| {
        let attempt = Attempt::new("discover", "all kinds", None);
        cluster.context.request_failed(&attempt, &error)
    })?;
    let resources = all.groups().flat_map(ApiGroup::recommended_resources);
    let kept = resources.filter(|(_, can)| {
        can.scope == Scope::Namespaced
            && can.supports_operation(verbs::LIST)
            && can.supports_operation(verbs::DELETE)
    });
    let kind = |(resource, _)| ApiKind {
        cluster: cluster.clone(),
        resource,
        namespaced: true,
    };
    Ok(kept.map(kind).collect())
}

async fn discover(cluster: &Cluster, version: &str) -> Result<Option<ApiGroup>, StageError> {
    let Ok(parsed) = version.parse::<GroupVersion>() else {
        return Ok(None);
    };
    match pinned_group(&cluster.client, &parsed).await {
        Ok(group) => Ok(Some(group)),
        Err(error) if status(&error) == 404 => Ok(None),
        Err(error) => {
            let attempt = Attempt::new("discover", version.to_owned(), None);
            Err(cluster.context.request_failed(&attempt, &error))
        }
    }
}
