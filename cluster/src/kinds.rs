//! Objects of any kind: where the API has them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Api;
use kube::core::{ApiResource, DynamicObject};
use protocol::StageError;
use serde::{Deserialize, Serialize};

use crate::client::Cluster;
use crate::fault::{self, Attempt};

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    pub api_version: String,
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
}

impl Reference {
    /// `Kind namespace/name`
    pub fn title(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} {namespace}/{}", self.kind, self.name),
            None => format!("{} {}", self.kind, self.name),
        }
    }
}

/// A kind as the API serves it.
#[derive(Debug, Clone)]
pub struct Kind {
    pub resource: ApiResource,
    pub namespaced: bool,
}

impl Kind {
    /// `plural.group`, as access reviews and messages have it.
    pub fn title(&self) -> String {
        match self.resource.group.as_str() {
            "" => self.resource.plural.clone(),
            group => format!("{}.{group}", self.resource.plural),
        }
    }

    pub fn api(&self, cluster: &Cluster, reference: &Reference) -> Api<DynamicObject> {
        let client = cluster.client.clone();
        match (self.namespaced, &reference.namespace) {
            (true, Some(namespace)) => Api::namespaced_with(client, namespace, &self.resource),
            (true, None) => Api::default_namespaced_with(client, &self.resource),
            (false, _) => Api::all_with(client, &self.resource),
        }
    }

    pub fn attempt(&self, verb: &'static str, reference: &Reference) -> Attempt {
        let namespace = reference.namespace.as_deref().filter(|_| self.namespaced);
        Attempt::new(verb, self.title(), namespace)
    }
}

/// What the API serves, asked once for each version of a group.
pub struct Kinds<'a> {
    cluster: &'a Cluster,
    known: BTreeMap<String, Option<APIResourceList>>,
}

impl<'a> Kinds<'a> {
    pub fn new(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            known: BTreeMap::new(),
        }
    }

    /// The kind of this object; `None` when the API does not serve it.
    pub async fn of(&mut self, reference: &Reference) -> Result<Option<Kind>, StageError> {
        let version = &reference.api_version;
        if !self.known.contains_key(version) {
            let list = ask(self.cluster, version).await?;
            self.known.insert(version.clone(), list);
        }
        let list = self.known.get(version).and_then(Option::as_ref);
        let found = list
            .into_iter()
            .flat_map(|list| &list.resources)
            .find(|it| it.kind == reference.kind && !it.name.contains('/'));
        Ok(found.map(|it| {
            let (group, short) = version.split_once('/').unwrap_or(("", version));
            Kind {
                resource: ApiResource {
                    group: group.to_owned(),
                    version: short.to_owned(),
                    api_version: version.clone(),
                    kind: it.kind.clone(),
                    plural: it.name.clone(),
                },
                namespaced: it.namespaced,
            }
        }))
    }
}

async fn ask(cluster: &Cluster, version: &str) -> Result<Option<APIResourceList>, StageError> {
    let answer = match version.contains('/') {
        true => cluster.client.list_api_group_resources(version).await,
        false => cluster.client.list_core_api_resources(version).await,
    };
    match answer {
        Ok(list) => Ok(Some(list)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => {
            let attempt = Attempt::new("discover", version.to_owned(), None);
            Err(fault::of_request(&cluster.peer, &attempt, &error))
        }
    }
}
