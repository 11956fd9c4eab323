//! The cluster's objects and their recent history, from which watches are served.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::kinds::Kind;
use super::seed;

/// How many events a watch may be behind before it is told to list again.
const HISTORY: usize = 1000;

/// What the cluster holds.
pub struct Store {
    inner: Mutex<Inner>,
    pub(super) revision: watch::Sender<u64>,
    requests: watch::Sender<Vec<String>>,
}

pub(super) struct Inner {
    /// By plural, namespace and name.
    objects: BTreeMap<(&'static str, String, String), Value>,
    history: VecDeque<Event>,
    pub(super) revision: u64,
    /// A watch from before this revision has missed something.
    oldest: u64,
}

#[derive(Clone)]
pub(super) struct Event {
    pub(super) revision: u64,
    pub(super) change: &'static str,
    pub(super) plural: &'static str,
    pub(super) object: Value,
}

pub(super) struct TooOld {
    pub(super) oldest: u64,
}

/// Which objects of a kind; an empty namespace means all of them.
#[derive(Clone)]
pub(super) struct Selection {
    pub(super) kind: &'static Kind,
    pub(super) namespace: String,
    pub(super) name: Option<String>,
    /// Each key with the values that it may have.
    pub(super) labels: Vec<(String, Vec<String>)>,
}

impl Selection {
    pub(super) fn holds(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        (self.namespace.is_empty() || metadata["namespace"] == self.namespace.as_str())
            && self
                .name
                .as_deref()
                .is_none_or(|name| metadata["name"] == name)
            && self.labels.iter().all(|(key, values)| {
                let value = metadata["labels"][key.as_str()].as_str();
                value.is_some_and(|value| values.iter().any(|one| one == value))
            })
    }
}

impl Store {
    pub(super) fn new(objects: Vec<Value>) -> Self {
        let inner = Inner {
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            revision: 100,
            oldest: 100,
        };
        let store = Self {
            inner: Mutex::new(inner),
            revision: watch::Sender::new(100),
            requests: watch::Sender::default(),
        };
        for object in objects {
            store.apply(object);
        }
        store
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the object, or puts it in the place of the one of that name.
    ///
    /// # Panics
    /// If it is of a kind that is not served.
    pub fn apply(&self, object: Value) {
        let kind = Kind::of(&object)
            .unwrap_or_else(|| panic!("{}: not a kind this API serves", object["kind"]));
        let mut inner = self.inner();
        inner.put(kind, object);
        let revision = inner.revision;
        drop(inner);
        self.revision.send_replace(revision);
    }

    /// Changes one object as its controller would; false if there is none.
    pub fn edit(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> bool {
        let found = self.inner().find(plural, namespace, name);
        let Some(mut object) = found else {
            return false;
        };
        change(&mut object);
        self.apply(object);
        true
    }

    /// Deletes one object; false if there is none.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) -> bool {
        let mut inner = self.inner();
        let Some(kind) = inner
            .find(plural, namespace, name)
            .and_then(|object| Kind::of(&object))
        else {
            return false;
        };
        inner.take(kind, namespace, name);
        let revision = inner.revision;
        drop(inner);
        self.revision.send_replace(revision);
        true
    }

    /// Does to every Gateway what its controller does in the end.
    pub fn program_gateways(&self, address: &str) {
        let gateways: Vec<Value> = self
            .inner()
            .objects
            .iter()
            .filter(|(key, _)| key.0 == "gateways")
            .map(|(_, object)| object.clone())
            .collect();
        for mut gateway in gateways {
            seed::program(&mut gateway, address);
            self.apply(gateway);
        }
    }

    /// Forgets every change so far, as a restarted apiserver does: watches get 410 Gone, those under way too.
    pub fn forget_history(&self) {
        let mut inner = self.inner();
        inner.history.clear();
        inner.revision += 1;
        inner.oldest = inner.revision;
        let revision = inner.revision;
        drop(inner);
        self.revision.send_replace(revision);
    }

    /// Every request so far: `GET /version`.
    pub fn requests(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }

    /// Waits until there was a request with this text in it.
    pub async fn requested(&self, text: &str) {
        let mut requests = self.requests.subscribe();
        // The sender is ours, so this ends only with the request.
        drop(
            requests
                .wait_for(|all| all.iter().any(|one| one.contains(text)))
                .await,
        );
    }

    pub(super) fn note_request(&self, request: String) {
        self.requests.send_modify(|all| all.push(request));
    }

    pub(super) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.inner().find(plural, namespace, name)
    }

    /// The objects, and the revision from which a watch goes on.
    pub(super) fn list(&self, selection: &Selection) -> (Vec<Value>, u64) {
        let inner = self.inner();
        let items = inner
            .objects
            .iter()
            .filter(|(key, object)| key.0 == selection.kind.plural && selection.holds(object))
            .map(|(_, object)| object.clone())
            .collect();
        (items, inner.revision)
    }

    pub(super) fn events_after(
        &self,
        revision: u64,
        selection: &Selection,
    ) -> Result<(Vec<Event>, u64), TooOld> {
        let inner = self.inner();
        if revision < inner.oldest {
            return Err(TooOld {
                oldest: inner.oldest,
            });
        }
        let events = inner
            .history
            .iter()
            .filter(|event| event.revision > revision)
            .filter(|event| event.plural == selection.kind.plural && selection.holds(&event.object))
            .cloned()
            .collect();
        Ok((events, inner.revision))
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

impl Inner {
    pub(super) fn like(&self, kind: &Kind, object: &Value) -> Option<Value> {
        let (_, namespace, name) = key(kind, object);
        self.find(kind.plural, &namespace, &name)
    }

    pub(super) fn put(&mut self, kind: &'static Kind, mut object: Value) -> Value {
        let key = key(kind, &object);
        let revision = self.revision + 1;
        let before = self.objects.get(&key);
        stamp(&mut object, before, revision);
        let change = if before.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        self.objects.insert(key, object.clone());
        self.record(Event {
            revision,
            change,
            plural: kind.plural,
            object: object.clone(),
        });
        object
    }

    pub(super) fn take(&mut self, kind: &'static Kind, namespace: &str, name: &str) {
        let key = (kind.plural, namespace.to_owned(), name.to_owned());
        let Some(mut object) = self.objects.remove(&key) else {
            return;
        };
        let revision = self.revision + 1;
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        self.record(Event {
            revision,
            change: "DELETED",
            plural: kind.plural,
            object,
        });
    }

    pub(super) fn find(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.objects
            .iter()
            .find(|(key, _)| key.0 == plural && key.1 == namespace && key.2 == name)
            .map(|(_, object)| object.clone())
    }

    fn record(&mut self, event: Event) {
        self.revision = event.revision;
        self.history.push_back(event);
        if self.history.len() > HISTORY
            && let Some(forgotten) = self.history.pop_front()
        {
            self.oldest = forgotten.revision;
        }
    }
}

fn key(kind: &Kind, object: &Value) -> (&'static str, String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (
        kind.plural,
        text("namespace").to_owned(),
        text("name").to_owned(),
    )
}

/// What the apiserver itself writes into an object's metadata.
fn stamp(object: &mut Value, before: Option<&Value>, revision: u64) {
    let metadata = &mut object["metadata"];
    metadata["resourceVersion"] = revision.to_string().into();
    match before {
        Some(before) => {
            metadata["uid"] = before["metadata"]["uid"].clone();
            metadata["creationTimestamp"] = before["metadata"]["creationTimestamp"].clone();
        }
        None => {
            metadata["uid"] = format!("5a5a5a5a-0000-4000-8000-{revision:012x}").into();
            metadata["creationTimestamp"] = Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string()
                .into();
        }
    }
    if object["spec"].is_null() {
        return;
    }
    let generation = before
        .and_then(|before| before["metadata"]["generation"].as_u64())
        .unwrap_or(0);
    let changed = before.is_none_or(|before| before["spec"] != object["spec"]);
    object["metadata"]["generation"] = json!(generation + u64::from(changed));
}
