//! From a request to its answer, in the shape that a real apiserver gives it.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::store::{Kind, Refusal, Selection, Store};
use super::watch;
use crate::serve::{self, Body};

/// An apiserver ends a watch that names no end after half an hour or more.
const WATCH: Duration = Duration::from_secs(1800);

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

const LEASES: &str = "/apis/coordination.k8s.io/v1";

pub(super) async fn answer(store: Arc<Store>, request: Request<Incoming>) -> Response<Body> {
    let target = request.uri().path_and_query();
    let target = target.map_or("/", |it| it.as_str());
    store.note_request(format!("{} {target}", request.method()));
    let path = request.uri().path().to_owned();
    if request.method() == Method::GET {
        let query = Query::of(request.uri().query().unwrap_or_default());
        return read(&store, &path, query);
    }
    let method = request.method().clone();
    let body = request.into_body().collect().await;
    let body = body.map_or_else(|_| Vec::new(), |body| body.to_bytes().to_vec());
    let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if method == Method::POST && path == REVIEWS {
        body["status"] = json!({"allowed": true});
        return serve::json(StatusCode::CREATED, &body);
    }
    write(&store, &method, &path, body)
}

/// The objects that a path is of: `…/v1/namespaces/<namespace>/<plural>/<name>`.
struct Place {
    kind: &'static Kind,
    namespace: String,
    name: Option<String>,
}

impl Place {
    fn of(path: &str) -> Option<Place> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let of_root = if parts[0] == "api" { 2 } else { 3 };
        let (root, rest) = parts.split_at_checked(of_root)?;
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, name) = match rest {
            [plural] => (plural, None),
            [plural, name] => (plural, Some((*name).to_owned())),
            _ => return None,
        };
        Some(Place {
            kind: Kind::of_path(&format!("/{}", root.join("/")), plural)?,
            namespace: namespace.to_owned(),
            name,
        })
    }
}

fn read(store: &Arc<Store>, path: &str, query: Query) -> Response<Body> {
    if path == "/version" {
        let version = json!({"major": "1", "minor": "32", "gitVersion": "v1.32.0+devcluster.sandbox",
            "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
        return serve::json(StatusCode::OK, &version);
    }
    let kinds: Vec<Value> = Kind::of_version(path).map(discovered).collect();
    if !kinds.is_empty() {
        let version = path.trim_start_matches("/apis/");
        let list = json!({"kind": "APIResourceList", "groupVersion": version, "resources": kinds});
        return serve::json(StatusCode::OK, &list);
    }
    let Some(place) = Place::of(path) else {
        return serve::text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    let (kind, is_one) = (place.kind, place.name.is_some());
    let selection = Selection {
        kind,
        namespace: place.namespace,
        name: place.name.or(query.name),
        labels: query.labels,
    };
    if query.watch {
        return watch::respond(Arc::clone(store), selection, query.revision, query.time);
    }
    let (mut objects, revision) = store.list(&selection);
    if !is_one {
        let list = json!({
            "kind": format!("{}List", kind.name),
            "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": revision.to_string()},
            "items": objects.into_values().collect::<Vec<_>>(),
        });
        return serve::json(StatusCode::OK, &list);
    }
    match objects.pop_first() {
        Some((_, object)) => serve::json(StatusCode::OK, &object),
        None => refused(kind, &selection.name.unwrap_or_default(), Refusal::Missing),
    }
}

fn discovered(kind: &Kind) -> Value {
    let singular = kind.name.to_lowercase();
    json!({"name": kind.plural, "singularName": singular, "namespaced": true, "kind": kind.name, "verbs": ["get", "list", "watch"]})
}

/// Leases can be made, renewed and deleted; everything else is the controller's.
fn write(store: &Store, method: &Method, path: &str, mut body: Value) -> Response<Body> {
    let place = Place::of(path).filter(|place| place.kind.root == LEASES);
    let Some(Place {
        kind,
        namespace,
        name,
    }) = place
    else {
        return failure(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "not here",
        );
    };
    let named = body["metadata"]["name"].as_str().map(str::to_owned);
    let name = name.or(named).unwrap_or_default();
    let key = (kind.plural, namespace.clone(), name.clone());
    body["kind"] = kind.name.into();
    body["apiVersion"] = kind.api_version().into();
    let (code, written) = match *method {
        Method::DELETE => (StatusCode::OK, store.remove(&key, &body["preconditions"])),
        _ => {
            body["metadata"]["namespace"] = namespace.into();
            match *method {
                Method::POST => (StatusCode::CREATED, store.create(body)),
                _ => (StatusCode::OK, store.replace(body)),
            }
        }
    };
    match written {
        Ok(object) => serve::json(code, &object),
        Err(why) => refused(kind, &name, why),
    }
}

fn refused(kind: &Kind, name: &str, why: Refusal) -> Response<Body> {
    let (code, reason, what) = match why {
        Refusal::Missing => (StatusCode::NOT_FOUND, "NotFound", "not found"),
        Refusal::Exists => (StatusCode::CONFLICT, "AlreadyExists", "already exists"),
        Refusal::Conflict => (StatusCode::CONFLICT, "Conflict", "has been modified"),
    };
    failure(code, reason, &format!("{} {name:?} {what}", kind.plural))
}

fn failure(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16()});
    serve::json(code, &status)
}

struct Query {
    watch: bool,
    revision: u64,
    time: Duration,
    name: Option<String>,
    labels: Vec<(String, Vec<String>)>,
}

impl Query {
    fn of(text: &str) -> Self {
        let mut query = Query {
            watch: false,
            revision: 0,
            time: WATCH,
            name: None,
            labels: Vec::new(),
        };
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*key {
                "watch" => query.watch = value == "true",
                "resourceVersion" => query.revision = value.parse().unwrap_or_default(),
                "timeoutSeconds" => query.time = value.parse().map_or(WATCH, Duration::from_secs),
                "fieldSelector" => {
                    query.name = value.strip_prefix("metadata.name=").map(str::to_owned);
                }
                "labelSelector" => query.labels = labels(&value),
                _ => {}
            }
        }
        query
    }
}

/// The two forms that our own programs write: `key=value` and `key in (one,other)`.
fn labels(selector: &str) -> Vec<(String, Vec<String>)> {
    if let Some((key, values)) = selector.split_once(" in (") {
        let values = values.trim_end_matches(')').split(',').map(str::to_owned);
        return vec![(key.to_owned(), values.collect())];
    }
    let terms = selector.split(',').filter_map(|term| term.split_once('='));
    terms
        .map(|(key, value)| (key.to_owned(), vec![value.to_owned()]))
        .collect()
}
