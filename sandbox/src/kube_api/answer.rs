//! Answers requests in the form of a real apiserver.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::store::{KINDS, Kind, LEASE, Selection, Store, WriteError};
use crate::serve::{self, Body};

/// An apiserver ends a watch without a timeout after half an hour or more.
const WATCH: Duration = Duration::from_secs(1800);

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

pub(super) async fn answer(store: Arc<Store>, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let noted = format!("{} {target}", head.method);
    store.requests.send_modify(|all| all.push(noted));
    let path = head.uri.path();
    if head.method == Method::GET {
        return read(&store, path, head.uri.query().unwrap_or_default());
    }
    let body = body.collect().await.map(|body| body.to_bytes());
    let mut body: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    if head.method == Method::POST && path == REVIEWS {
        body["status"] = json!({"allowed": true});
        return serve::json(StatusCode::CREATED, &body);
    }
    write(&store, &head.method, path, body)
}

/// The objects of a path, `…/v1/namespaces/<namespace>/<plural>/<name>`.
fn selection(path: &str) -> Option<Selection> {
    let (version, rest) = split_version(path)?;
    let rest: Vec<&str> = rest.split('/').collect();
    let (namespace, rest) = match rest.as_slice() {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let (plural, name) = match rest {
        [plural] => (plural, None),
        [plural, name] => (plural, Some((*name).to_owned())),
        _ => return None,
    };
    let mut kinds = KINDS.iter();
    Some(Selection {
        kind: kinds.find(|it| it.version == version && it.plural == *plural)?,
        namespace: namespace.to_owned(),
        name,
    })
}

/// `/api/v1/pods` is `v1` and `pods`, `/apis/apps/v1/deployments` is `apps/v1` and `deployments`.
fn split_version(path: &str) -> Option<(&str, &str)> {
    if let Some(core) = path.strip_prefix("/api/") {
        return core.split_once('/');
    }
    let grouped = path.strip_prefix("/apis/")?;
    let end = grouped.match_indices('/').nth(1)?.0;
    Some((&grouped[..end], &grouped[end + 1..]))
}

fn read(store: &Arc<Store>, path: &str, query: &str) -> Response<Body> {
    if path == "/version" {
        let version = json!({"major": "1", "minor": "32", "gitVersion": "v1.32.0+devcluster.sandbox",
            "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
        return serve::json(StatusCode::OK, &version);
    }
    let version = path.strip_prefix("/apis/").unwrap_or_default();
    let kinds = KINDS.iter().filter(|kind| kind.version == version);
    let kinds: Vec<Value> = kinds.map(discovered).collect();
    if !kinds.is_empty() {
        let list = json!({"kind": "APIResourceList", "groupVersion": version, "resources": kinds});
        return serve::json(StatusCode::OK, &list);
    }
    let Some(mut selection) = selection(path) else {
        return failure(StatusCode::NOT_FOUND, "NotFound", "not here");
    };
    let is_one = selection.name.is_some();
    let query: HashMap<_, _> = form_urlencoded::parse(query.as_bytes()).collect();
    if let Some(fields) = query.get("fieldSelector") {
        selection.name = fields.strip_prefix("metadata.name=").map(str::to_owned);
    }
    if query.get("watch").is_some_and(|it| it == "true") {
        let number = |key: &str| query.get(key).and_then(|it| it.parse().ok());
        let time = number("timeoutSeconds").map_or(WATCH, Duration::from_secs);
        let from = number("resourceVersion").unwrap_or_default();
        return watch(store, selection, from, time);
    }
    let objects = store.objects.borrow();
    let mut found = objects.all.iter().filter(|it| selection.holds(it));
    let kind = selection.kind;
    if !is_one {
        let list = json!({
            "kind": format!("{}List", kind.name),
            "apiVersion": kind.version,
            "metadata": {"resourceVersion": objects.revision.to_string()},
            "items": found.collect::<Vec<_>>(),
        });
        return serve::json(StatusCode::OK, &list);
    }
    match found.next() {
        Some(object) => serve::json(StatusCode::OK, object),
        None => refused(
            kind,
            &selection.name.unwrap_or_default(),
            WriteError::Missing,
        ),
    }
}

fn discovered(kind: &Kind) -> Value {
    let singular = kind.name.to_lowercase();
    json!({"name": kind.plural, "singularName": singular, "namespaced": true, "kind": kind.name, "verbs": ["get", "list", "watch"]})
}

/// Objects that are created or changed after this revision, until the client disconnects or the timeout has passed.
fn watch(store: &Store, selection: Selection, from: u64, time: Duration) -> Response<Body> {
    let deadline = Instant::now() + time;
    let start = (store.objects.subscribe(), selection, from);
    let frames = stream::unfold(start, move |(mut changes, selection, from)| async move {
        loop {
            let next = changes.borrow_and_update().next(&selection, from);
            if let Some((at, object)) = next {
                let line = format!("{}\n", json!({"type": "MODIFIED", "object": object}));
                let frame = Frame::data(Bytes::from(line));
                return Some((Ok::<_, Infallible>(frame), (changes, selection, at)));
            }
            timeout_at(deadline, changes.changed()).await.ok()?.ok()?;
        }
    });
    Response::new(StreamBody::new(frames).boxed_unsync())
}

/// Creates, renews and deletes Leases. Only the controller writes other objects.
fn write(store: &Store, method: &Method, path: &str, mut body: Value) -> Response<Body> {
    let Some(place) = selection(path).filter(|place| *place.kind == LEASE) else {
        let code = StatusCode::METHOD_NOT_ALLOWED;
        return failure(code, "MethodNotAllowed", "not here");
    };
    let named = body["metadata"]["name"].as_str().map(str::to_owned);
    let name = place.name.or(named).unwrap_or_default();
    let preconditions = body["preconditions"].take();
    body["kind"] = LEASE.name.into();
    body["apiVersion"] = LEASE.version.into();
    body["metadata"]["name"] = name.as_str().into();
    body["metadata"]["namespace"] = place.namespace.into();
    let (code, written) = match *method {
        Method::DELETE => (StatusCode::OK, store.remove(&body, &preconditions)),
        Method::POST => (StatusCode::CREATED, store.create(body)),
        _ => (StatusCode::OK, store.replace(body)),
    };
    match written {
        Ok(object) => serve::json(code, &object),
        Err(why) => refused(&LEASE, &name, why),
    }
}

fn refused(kind: &Kind, name: &str, why: WriteError) -> Response<Body> {
    let (code, reason, what) = match why {
        WriteError::Missing => (StatusCode::NOT_FOUND, "NotFound", "not found"),
        WriteError::Exists => (StatusCode::CONFLICT, "AlreadyExists", "already exists"),
        WriteError::Conflict => (StatusCode::CONFLICT, "Conflict", "has been modified"),
    };
    failure(code, reason, &format!("{} {name:?} {what}", kind.plural))
}

fn failure(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16()});
    serve::json(code, &status)
}
