//! What the cluster holds.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::seed;

/// A kind that is served: the path of its group and version, its plural, and its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) root: &'static str,
    pub(super) plural: &'static str,
    pub(super) name: &'static str,
}

const fn kind(root: &'static str, plural: &'static str, name: &'static str) -> Kind {
    Kind { root, plural, name }
}

const KINDS: [Kind; 8] = [
    kind("/api/v1", "namespaces", "Namespace"),
    kind("/api/v1", "services", "Service"),
    kind("/api/v1", "pods", "Pod"),
    kind("/apis/coordination.k8s.io/v1", "leases", "Lease"),
    kind(
        "/apis/apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
    ),
    kind(
        "/apis/gateway.networking.k8s.io/v1",
        "gatewayclasses",
        "GatewayClass",
    ),
    kind("/apis/gateway.networking.k8s.io/v1", "gateways", "Gateway"),
    kind(
        "/apis/gateway.networking.k8s.io/v1alpha2",
        "tcproutes",
        "TCPRoute",
    ),
];

impl Kind {
    /// As objects of it say: `v1`, `coordination.k8s.io/v1`.
    pub(super) fn api_version(&self) -> &'static str {
        let group = self.root.strip_prefix("/apis/");
        group.unwrap_or(self.root.trim_start_matches("/api/"))
    }

    pub(super) fn of_path(root: &str, plural: &str) -> Option<&'static Kind> {
        KINDS.iter().find(|k| k.root == root && k.plural == plural)
    }

    /// All of this group and version.
    pub(super) fn of_version(root: &str) -> impl Iterator<Item = &'static Kind> {
        KINDS.iter().filter(move |kind| kind.root == root)
    }
}

/// Which objects of a kind; an empty namespace means all of them.
#[derive(Clone)]
pub(super) struct Selection {
    pub(super) kind: &'static Kind,
    pub(super) namespace: String,
    pub(super) name: Option<String>,
    /// Each label with the values that it may have.
    pub(super) labels: Vec<(String, Vec<String>)>,
}

impl Selection {
    fn holds(&self, (plural, namespace, name): &Key, object: &Value) -> bool {
        let has_label = |(key, values): &(String, Vec<String>)| {
            let value = object["metadata"]["labels"][key].as_str();
            value.is_some_and(|value| values.iter().any(|one| one == value))
        };
        *plural == self.kind.plural
            && (self.namespace.is_empty() || *namespace == self.namespace)
            && self.name.as_ref().is_none_or(|wanted| wanted == name)
            && self.labels.iter().all(has_label)
    }
}

/// Plural, namespace and name.
pub(super) type Key = (&'static str, String, String);

fn key(object: &Value) -> Key {
    let kind = KINDS.iter().find(|kind| object["kind"] == kind.name);
    let kind = kind.unwrap_or_else(|| panic!("{}: not a kind this API serves", object["kind"]));
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let [namespace, name] = ["namespace", "name"].map(|field| text(field).to_owned());
    (kind.plural, namespace, name)
}

#[derive(Default)]
pub(super) struct Objects {
    all: BTreeMap<Key, Value>,
    revision: u64,
}

impl Objects {
    /// Puts the object there as the apiserver does, which writes some metadata itself.
    fn put(&mut self, mut object: Value) -> Value {
        let key = key(&object);
        self.revision += 1;
        let before = self.all.get(&key);
        let same = before.is_some_and(|it| it["spec"] == object["spec"]);
        let kept = |field: &str| before.map(|it| it["metadata"][field].clone());
        let uid = kept("uid")
            .unwrap_or_else(|| json!(format!("5a5a5a5a-0000-4000-8000-{:012x}", self.revision)));
        let generation = kept("generation").and_then(|g| g.as_u64()).unwrap_or(0);
        let metadata = &mut object["metadata"];
        metadata["uid"] = uid;
        metadata["resourceVersion"] = self.revision.to_string().into();
        metadata["creationTimestamp"] = seed::LONG_AGO.into();
        metadata["generation"] = json!(generation + u64::from(!same));
        self.all.insert(key, object.clone());
        object
    }
}

/// Why a write was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Exists,
    Missing,
    Conflict,
}

/// The cluster's objects, and what was asked of them.
pub struct Store {
    objects: watch::Sender<Objects>,
    requests: watch::Sender<Vec<String>>,
}

impl Store {
    pub(super) fn new(objects: Vec<Value>) -> Self {
        let store = Self {
            objects: watch::Sender::default(),
            requests: watch::Sender::default(),
        };
        objects.into_iter().for_each(|object| store.apply(object));
        store
    }

    /// Creates the object, or puts it in the place of the one of that name.
    ///
    /// # Panics
    /// If it is of a kind that is not served.
    pub fn apply(&self, object: Value) {
        self.objects
            .send_modify(|objects| drop(objects.put(object)));
    }

    /// Plays the controller: every Gateway works now, at this address.
    pub fn program_gateways(&self, address: &str) {
        self.objects.send_modify(|objects| {
            let all = objects.all.values();
            let mut gateways: Vec<Value> =
                all.filter(|it| it["kind"] == "Gateway").cloned().collect();
            for gateway in &mut gateways {
                seed::program(gateway, address);
                objects.put(gateway.take());
            }
        });
    }

    /// Every request so far: `GET /version`.
    pub fn requests(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }

    /// Waits until there was a request with this text in it.
    pub async fn requested(&self, text: &str) {
        let mut requests = self.requests.subscribe();
        let has_text = |all: &Vec<String>| all.iter().any(|one| one.contains(text));
        // The sender is ours, so this ends only with the request.
        drop(requests.wait_for(has_text).await);
    }

    pub(super) fn note_request(&self, request: String) {
        self.requests.send_modify(|all| all.push(request));
    }

    /// The objects by their keys, and the revision from which a watch goes on.
    pub(super) fn list(&self, selection: &Selection) -> (BTreeMap<Key, Value>, u64) {
        let objects = self.objects.borrow();
        let all = objects.all.iter();
        let selected = all.filter(|(key, object)| selection.holds(key, object));
        let selected = selected.map(|(key, object)| (key.clone(), object.clone()));
        (selected.collect(), objects.revision)
    }

    /// Hears of every change.
    pub(super) fn changes(&self) -> watch::Receiver<Objects> {
        self.objects.subscribe()
    }

    /// Creates the object, unless there is one of that name.
    pub(super) fn create(&self, object: Value) -> Result<Value, Refusal> {
        self.write(|objects| match objects.all.contains_key(&key(&object)) {
            true => Err(Refusal::Exists),
            false => Ok(objects.put(object)),
        })
    }

    /// Puts the object in the place of the one of that name, if that is what was read.
    pub(super) fn replace(&self, object: Value) -> Result<Value, Refusal> {
        self.write(|objects| {
            let before = objects.all.get(&key(&object)).ok_or(Refusal::Missing)?;
            is_as_read(before, &object["metadata"])?;
            Ok(objects.put(object))
        })
    }

    /// Deletes the object, if it is what the preconditions say.
    pub(super) fn remove(&self, key: &Key, preconditions: &Value) -> Result<Value, Refusal> {
        self.write(|objects| {
            let object = objects.all.get(key).ok_or(Refusal::Missing)?;
            is_as_read(object, preconditions)?;
            objects.revision += 1;
            objects.all.remove(key).ok_or(Refusal::Missing)
        })
    }

    fn write(
        &self,
        change: impl FnOnce(&mut Objects) -> Result<Value, Refusal>,
    ) -> Result<Value, Refusal> {
        let mut written = Err(Refusal::Missing);
        self.objects
            .send_modify(|objects| written = change(objects));
        written
    }
}

fn is_as_read(object: &Value, read: &Value) -> Result<(), Refusal> {
    let same = |field: &str| read[field].is_null() || read[field] == object["metadata"][field];
    match same("uid") && same("resourceVersion") {
        true => Ok(()),
        false => Err(Refusal::Conflict),
    }
}
