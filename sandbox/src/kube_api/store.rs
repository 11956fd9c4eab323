//! The objects of the cluster.

use serde_json::{Value, json};
use tokio::sync::watch;

use super::seed;

/// A served kind: its group and version, its plural, and its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) name: &'static str,
}

const fn kind(version: &'static str, plural: &'static str, name: &'static str) -> Kind {
    Kind {
        version,
        plural,
        name,
    }
}

pub(super) const LEASE: Kind = kind("coordination.k8s.io/v1", "leases", "Lease");

pub(super) const KINDS: [Kind; 8] = [
    kind("v1", "namespaces", "Namespace"),
    kind("v1", "services", "Service"),
    kind("v1", "pods", "Pod"),
    LEASE,
    kind(
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
    ),
    kind("gateway.networking.k8s.io/v1", "gateways", "Gateway"),
    kind(
        "gateway.networking.k8s.io/v1",
        "gatewayclasses",
        "GatewayClass",
    ),
    kind(
        "gateway.networking.k8s.io/v1alpha2",
        "tcproutes",
        "TCPRoute",
    ),
];

/// Selects objects of a kind; an empty namespace means all namespaces.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub(super) kind: &'static Kind,
    pub(super) namespace: String,
    pub(super) name: Option<String>,
}

impl Selection {
    pub(super) fn holds(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        object["kind"] == self.kind.name
            && (self.namespace.is_empty() || metadata["namespace"] == *self.namespace)
            && self
                .name
                .as_ref()
                .is_none_or(|name| metadata["name"] == **name)
    }
}

#[derive(Default)]
pub(super) struct Objects {
    pub(super) all: Vec<Value>,
    pub(super) revision: u64,
}

impl Objects {
    /// The index of the object with the same kind, namespace and name.
    fn find(&self, object: &Value) -> Option<usize> {
        let place = |it: &Value| {
            let metadata = &it["metadata"];
            [&it["kind"], &metadata["namespace"], &metadata["name"]].map(Value::clone)
        };
        let wanted = place(object);
        self.all.iter().position(|it| place(it) == wanted)
    }

    /// The first selected object that is newer than this revision, and its revision.
    pub(super) fn next(&self, selection: &Selection, from: u64) -> Option<(u64, Value)> {
        let selected = self.all.iter().filter(|it| selection.holds(it));
        let new = selected.filter_map(|it| {
            let revision = it["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
            (revision > from).then_some((revision, it))
        });
        let first = new.min_by_key(|(revision, _)| *revision)?;
        Some((first.0, first.1.clone()))
    }

    /// Stores an object and sets its metadata as the apiserver does.
    fn put(&mut self, mut object: Value) -> Value {
        self.revision += 1;
        let at = self.find(&object);
        let metadata = &mut object["metadata"];
        metadata["uid"] = match at {
            Some(at) => self.all[at]["metadata"]["uid"].clone(),
            None => json!(format!("5a5a5a5a-0000-4000-8000-{:012x}", self.revision)),
        };
        metadata["resourceVersion"] = self.revision.to_string().into();
        metadata["creationTimestamp"] = seed::LONG_AGO.into();
        // No spec changes here, so the generation stays.
        metadata["generation"] = 1.into();
        match at {
            Some(at) => self.all[at] = object.clone(),
            None => self.all.push(object.clone()),
        }
        object
    }
}

/// Why a write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteError {
    Exists,
    Missing,
    Conflict,
}

/// The cluster's objects, and the requests so far.
#[derive(Default)]
pub(super) struct Store {
    pub(super) objects: watch::Sender<Objects>,
    pub(super) requests: watch::Sender<Vec<String>>,
}

impl Store {
    pub(super) fn new(objects: Vec<Value>) -> Self {
        let store = Self::default();
        store.objects.send_modify(|all| {
            for object in objects {
                all.put(object);
            }
        });
        store
    }

    pub(super) fn program_gateways(&self, address: &str) {
        self.objects.send_modify(|objects| {
            let mut gateways = objects.all.clone();
            gateways.retain(|it| it["kind"] == "Gateway");
            for mut gateway in gateways {
                seed::program(&mut gateway, address);
                objects.put(gateway);
            }
        });
    }

    /// Creates an object, unless one of this name exists.
    pub(super) fn create(&self, object: Value) -> Result<Value, WriteError> {
        self.write(|objects| match objects.find(&object) {
            Some(_) => Err(WriteError::Exists),
            None => Ok(objects.put(object)),
        })
    }

    /// Replaces the object of this name, if its resourceVersion matches.
    pub(super) fn replace(&self, object: Value) -> Result<Value, WriteError> {
        self.write(|objects| {
            let at = objects.find(&object).ok_or(WriteError::Missing)?;
            is_as_read(&objects.all[at], &object["metadata"])?;
            Ok(objects.put(object))
        })
    }

    /// Deletes an object, if it matches the preconditions.
    pub(super) fn remove(
        &self,
        object: &Value,
        preconditions: &Value,
    ) -> Result<Value, WriteError> {
        self.write(|objects| {
            let at = objects.find(object).ok_or(WriteError::Missing)?;
            is_as_read(&objects.all[at], preconditions)?;
            objects.revision += 1;
            Ok(objects.all.remove(at))
        })
    }

    fn write(
        &self,
        change: impl FnOnce(&mut Objects) -> Result<Value, WriteError>,
    ) -> Result<Value, WriteError> {
        let mut written = Err(WriteError::Missing);
        self.objects
            .send_modify(|objects| written = change(objects));
        written
    }
}

fn is_as_read(object: &Value, read: &Value) -> Result<(), WriteError> {
    let same = |field: &str| read[field].is_null() || read[field] == object["metadata"][field];
    match same("uid") && same("resourceVersion") {
        true => Ok(()),
        false => Err(WriteError::Conflict),
    }
}
