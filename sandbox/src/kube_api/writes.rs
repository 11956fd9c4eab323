//! Writing, of the one kind that a session makes: Leases, with their conflicts.

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::kinds::{KINDS, Kind, LEASE_GROUP};
use super::review::{self, Access};
use super::routes::{Api, ok};
use super::status;
use super::store::{Inner, Store};
use crate::serve::{self, Body};

/// Why a write was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Exists,
    Missing,
    Conflict,
}

impl Store {
    /// Creates the object, unless there is one of that name.
    pub(super) fn create(&self, kind: &'static Kind, object: Value) -> Result<Value, Refusal> {
        self.change(|inner| match inner.like(kind, &object) {
            Some(_) => Err(Refusal::Exists),
            None => Ok(inner.put(kind, object)),
        })
    }

    /// Puts the object in the place of the one of that name, unless that has changed since it was read.
    pub(super) fn replace(&self, kind: &'static Kind, object: Value) -> Result<Value, Refusal> {
        self.change(|inner| {
            let before = inner.like(kind, &object).ok_or(Refusal::Missing)?;
            let same = |field: &str| {
                let wanted = &object["metadata"][field];
                wanted.is_null() || *wanted == before["metadata"][field]
            };
            if !same("uid") || !same("resourceVersion") {
                return Err(Refusal::Conflict);
            }
            Ok(inner.put(kind, object))
        })
    }

    /// Deletes the object if it is what the preconditions say.
    pub(super) fn remove(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        preconditions: &Value,
    ) -> Result<Value, Refusal> {
        self.change(|inner| {
            let object = inner
                .find(kind.plural, namespace, name)
                .ok_or(Refusal::Missing)?;
            let holds = |field: &str| {
                preconditions[field].is_null() || preconditions[field] == object["metadata"][field]
            };
            if !holds("uid") || !holds("resourceVersion") {
                return Err(Refusal::Conflict);
            }
            inner.take(kind, namespace, name);
            Ok(object)
        })
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Inner) -> Result<Value, Refusal>,
    ) -> Result<Value, Refusal> {
        let mut inner = self.inner();
        let changed = change(&mut inner);
        let revision = inner.revision;
        drop(inner);
        self.revision.send_replace(revision);
        changed
    }
}

impl Api {
    /// Leases can be made, renewed and deleted; everything else is the test's and the controller's.
    pub(super) async fn write(&self, path: &str, request: Request<Incoming>) -> Response<Body> {
        let method = request.method().clone();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let [
            "apis",
            LEASE_GROUP,
            "v1",
            "namespaces",
            namespace,
            "leases",
            name @ ..,
        ] = segments.as_slice()
        else {
            return status::method_not_allowed();
        };
        let kind = KINDS.iter().find(|kind| kind.group == LEASE_GROUP);
        let (verb, name) = match (&method, name) {
            (&Method::POST, []) => ("create", None),
            (&Method::PUT, [name]) => ("update", Some(*name)),
            (&Method::DELETE, [name]) => ("delete", Some(*name)),
            _ => return status::method_not_allowed(),
        };
        let access = Access {
            verb,
            group: LEASE_GROUP,
            resource: "leases",
            namespace,
        };
        if !review::allowed(&self.denied, &access) {
            return status::forbidden(&access, name);
        }
        let body = match request.into_body().collect().await {
            Ok(body) => serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
            Err(error) => return status::bad_request(error.to_string()),
        };
        match kind {
            Some(kind) => self.change(kind, verb, namespace, name, body),
            None => status::no_such_path(),
        }
    }

    fn change(
        &self,
        kind: &'static Kind,
        verb: &str,
        namespace: &str,
        name: Option<&str>,
        mut body: Value,
    ) -> Response<Body> {
        if verb == "delete" {
            let name = name.unwrap_or_default();
            let removed = self
                .store
                .remove(kind, namespace, name, &body["preconditions"]);
            return removed.map_or_else(|why| status::refused(kind, name, why), |it| ok(&it));
        }
        if let Some(missing) = self.missing_namespace(namespace) {
            return missing;
        }
        body["kind"] = kind.kind.into();
        body["apiVersion"] = kind.group_version().into();
        body["metadata"]["namespace"] = namespace.into();
        let name = body["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let (code, written) = match verb {
            "create" => (StatusCode::CREATED, self.store.create(kind, body)),
            _ => (StatusCode::OK, self.store.replace(kind, body)),
        };
        match written {
            Ok(object) => serve::json(code, &object),
            Err(why) => status::refused(kind, &name, why),
        }
    }

    fn missing_namespace(&self, namespace: &str) -> Option<Response<Body>> {
        let kind = KINDS.iter().find(|kind| kind.plural == "namespaces")?;
        match self.store.get(kind.plural, "", namespace) {
            Some(_) => None,
            None => Some(status::not_found(kind, namespace)),
        }
    }
}
