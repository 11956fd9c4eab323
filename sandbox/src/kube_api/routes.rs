//! From a request to its answer: who asks, for what, and may they.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::discovery;
use super::kinds::{KINDS, Kind, group_version};
use super::review::{self, Access, Denied};
use super::status;
use super::store::{Selection, Store};
use super::watch::{self, Watch};
use crate::serve::{self, Body};

/// An apiserver ends a watch that names no end after half an hour or more.
const WATCH: Duration = Duration::from_secs(1800);

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

pub(super) struct Api {
    pub(super) store: Arc<Store>,
    pub(super) token: Option<String>,
    pub(super) denied: Vec<Denied>,
    pub(super) absent: Vec<String>,
}

impl Api {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let query = request.uri().query().unwrap_or_default();
        self.store.note_request(match query {
            "" => format!("{} {}", request.method(), request.uri().path()),
            query => format!("{} {}?{query}", request.method(), request.uri().path()),
        });
        if !self.lets_in(&request) {
            return status::unauthorized();
        }
        let path = request.uri().path().trim_end_matches('/').to_owned();
        if request.method() == Method::POST && path == REVIEWS {
            if request
                .headers()
                .get(header::CONTENT_TYPE)
                .is_none_or(|kind| kind != "application/json")
            {
                return status::unsupported_media_type();
            }
            return match request.into_body().collect().await {
                Ok(body) => review::review(&self.denied, &body.to_bytes()),
                Err(error) => status::bad_request(error.to_string()),
            };
        }
        if request.method() != Method::GET {
            return self.write(&path, request).await;
        }
        let query = Query::of(&request);
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match segments.as_slice() {
            ["version"] => ok(&discovery::version()),
            ["healthz" | "livez" | "readyz"] => serve::text(StatusCode::OK, "ok"),
            ["api"] => ok(&discovery::core_versions()),
            ["apis"] => ok(&discovery::groups(&self.absent)),
            ["apis", group] => found(discovery::group(group, &self.absent)),
            ["api", version] => found(discovery::resources("", version, &self.absent)),
            ["apis", group, version] => found(discovery::resources(group, version, &self.absent)),
            ["api", version, rest @ ..] => self.objects("", version, rest, &query),
            ["apis", group, version, rest @ ..] => self.objects(group, version, rest, &query),
            _ => status::no_such_path(),
        }
    }

    fn lets_in(&self, request: &Request<Incoming>) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let header = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        header.and_then(|value| value.strip_prefix("Bearer ")) == Some(token)
    }

    fn objects(&self, group: &str, version: &str, rest: &[&str], query: &Query) -> Response<Body> {
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, name) = match rest {
            [plural] => (*plural, None),
            [plural, name] => (*plural, Some(*name)),
            _ => return status::no_such_path(),
        };
        let kind = KINDS
            .iter()
            .find(|kind| kind.group == group && kind.version == version && kind.plural == plural);
        let served = !self.absent.contains(&group_version(group, version));
        let Some(kind) = kind.filter(|kind| served && (kind.namespaced || namespace.is_empty()))
        else {
            return status::no_such_path();
        };
        let verb = match name {
            Some(_) => "get",
            None if query.watch => "watch",
            None => "list",
        };
        let access = Access {
            verb,
            group,
            resource: plural,
            namespace,
        };
        if !review::allowed(&self.denied, &access) {
            return status::forbidden(&access, name);
        }
        match name {
            Some(name) => self.one(kind, namespace, name),
            None => self.many(kind, namespace, query),
        }
    }

    fn one(&self, kind: &'static Kind, namespace: &str, name: &str) -> Response<Body> {
        match self.store.get(kind.plural, namespace, name) {
            Some(object) => ok(&object),
            None => status::not_found(kind, name),
        }
    }

    fn many(&self, kind: &'static Kind, namespace: &str, query: &Query) -> Response<Body> {
        let selection = match query.select(kind, namespace) {
            Ok(selection) => selection,
            Err(message) => return status::bad_request(message),
        };
        if query.watch {
            if query.initial_events {
                return status::unsupported_watch_list();
            }
            let (timeout, bookmarks) = (query.timeout.unwrap_or(WATCH), query.bookmarks);
            let from = query.revision.filter(|revision| *revision != 0);
            return watch::respond(
                Arc::clone(&self.store),
                Watch {
                    selection,
                    from,
                    timeout,
                    bookmarks,
                },
            );
        }
        let (items, revision) = self.store.list(&selection);
        ok(&json!({
            "kind": format!("{}List", kind.kind),
            "apiVersion": kind.group_version(),
            "metadata": {"resourceVersion": revision.to_string()},
            "items": items,
        }))
    }
}

#[derive(Default)]
struct Query {
    watch: bool,
    initial_events: bool,
    bookmarks: bool,
    revision: Option<u64>,
    timeout: Option<Duration>,
    field_selector: Option<String>,
    label_selector: Option<String>,
}

impl Query {
    fn of(request: &Request<Incoming>) -> Self {
        let mut query = Self::default();
        for (key, value) in
            form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
        {
            let on = matches!(&*value, "true" | "1");
            match &*key {
                "watch" => query.watch = on,
                "sendInitialEvents" => query.initial_events = on,
                "allowWatchBookmarks" => query.bookmarks = on,
                "resourceVersion" => query.revision = value.parse().ok(),
                "timeoutSeconds" => query.timeout = value.parse().ok().map(Duration::from_secs),
                "fieldSelector" => query.field_selector = Some(value.into_owned()),
                "labelSelector" => query.label_selector = Some(value.into_owned()),
                _ => {}
            }
        }
        query
    }

    /// Custom resources can be selected by two fields, name and namespace, and by no other.
    fn select(&self, kind: &'static Kind, namespace: &str) -> Result<Selection, String> {
        let mut selection = Selection {
            kind,
            namespace: namespace.to_owned(),
            name: None,
            labels: labels(self.label_selector.as_deref().unwrap_or_default())?,
        };
        for term in self
            .field_selector
            .iter()
            .flat_map(|terms| terms.split(','))
            .filter(|term| !term.is_empty())
        {
            match term
                .split_once('=')
                .map(|(field, value)| (field, value.trim_start_matches('=')))
            {
                Some(("metadata.name", value)) => selection.name = Some(value.to_owned()),
                Some(("metadata.namespace", value))
                    if namespace.is_empty() || namespace == value =>
                {
                    selection.namespace = value.to_owned();
                }
                _ => return Err(format!("field label not supported: {term}")),
            }
        }
        Ok(selection)
    }
}

/// The two forms that our own programs write: `key=value` and `key in (one,other)`.
fn labels(selector: &str) -> Result<Vec<(String, Vec<String>)>, String> {
    if selector.is_empty() {
        return Ok(Vec::new());
    }
    if let Some((key, values)) = selector.split_once(" in (") {
        let values = values.trim_end_matches(')').split(',').map(str::to_owned);
        return Ok(vec![(key.trim().to_owned(), values.collect())]);
    }
    let terms = selector.split(',').map(|term| {
        let (key, value) = term
            .split_once('=')
            .ok_or_else(|| format!("label selector not supported: {term}"))?;
        let value = value.trim_start_matches('=').to_owned();
        Ok((key.to_owned(), vec![value]))
    });
    terms.collect()
}

pub(super) fn ok(value: &Value) -> Response<Body> {
    serve::json(StatusCode::OK, value)
}

fn found(value: Option<Value>) -> Response<Body> {
    value.map_or_else(status::no_such_path, |value| ok(&value))
}
