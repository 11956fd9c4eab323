//! The errors of an apiserver, each with its Status object.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::kinds::Kind;
use super::review::Access;
use super::writes::Refusal;
use crate::serve::{self, Body};

pub(super) fn unauthorized() -> Response<Body> {
    failure(
        StatusCode::UNAUTHORIZED,
        "Unauthorized",
        "Unauthorized".to_owned(),
        None,
    )
}

pub(super) fn forbidden(access: &Access<'_>, name: Option<&str>) -> Response<Body> {
    let qualified = super::kinds::qualified(access.resource, access.group);
    let object = name.map_or(qualified.clone(), |name| format!("{qualified} {name:?}"));
    let scope = match access.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let message = format!(
        "{object} is forbidden: User \"sandbox\" cannot {} resource {:?} in API group {:?} {scope}",
        access.verb, access.resource, access.group
    );
    let mut details = json!({"group": access.group, "kind": access.resource});
    if let Some(name) = name {
        details["name"] = name.into();
    }
    failure(StatusCode::FORBIDDEN, "Forbidden", message, Some(details))
}

pub(super) fn not_found(kind: &Kind, name: &str) -> Response<Body> {
    let details = json!({"name": name, "group": kind.group, "kind": kind.plural});
    failure(
        StatusCode::NOT_FOUND,
        "NotFound",
        format!("{} {name:?} not found", kind.qualified()),
        Some(details),
    )
}

pub(super) fn refused(kind: &Kind, name: &str, refusal: Refusal) -> Response<Body> {
    let (reason, message) = match refusal {
        Refusal::Missing => return not_found(kind, name),
        Refusal::Exists => (
            "AlreadyExists",
            format!("{} {name:?} already exists", kind.qualified()),
        ),
        Refusal::Conflict => (
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {} {name:?}: the object has been modified; please apply your changes to \
                 the latest version and try again",
                kind.qualified()
            ),
        ),
    };
    let details = json!({"name": name, "group": kind.group, "kind": kind.plural});
    failure(StatusCode::CONFLICT, reason, message, Some(details))
}

/// A path that no API has: an apiserver answers that one with plain text.
pub(super) fn no_such_path() -> Response<Body> {
    serve::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

pub(super) fn method_not_allowed() -> Response<Body> {
    let message = "the server does not allow this method on the requested resource".to_owned();
    failure(
        StatusCode::METHOD_NOT_ALLOWED,
        "MethodNotAllowed",
        message,
        None,
    )
}

/// kubectl writes a review as protobuf, which only an apiserver's own kinds have.
pub(super) fn unsupported_media_type() -> Response<Body> {
    let message = "the body of the request was in an unknown format - accepted media types include: application/json";
    failure(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UnsupportedMediaType",
        message.to_owned(),
        None,
    )
}

pub(super) fn bad_request(message: String) -> Response<Body> {
    failure(StatusCode::BAD_REQUEST, "BadRequest", message, None)
}

pub(super) fn unsupported_watch_list() -> Response<Body> {
    let message = "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: \
                   sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
    failure(
        StatusCode::UNPROCESSABLE_ENTITY,
        "Invalid",
        message.to_owned(),
        None,
    )
}

/// Sent as an ERROR event: the watch itself was answered with 200 by then.
pub(super) fn expired(from: u64, oldest: u64) -> Value {
    let message = format!("too old resource version: {from} ({oldest})");
    status(StatusCode::GONE, "Expired", message, None)
}

fn failure(
    code: StatusCode,
    reason: &str,
    message: String,
    details: Option<Value>,
) -> Response<Body> {
    serve::json(code, &status(code, reason, message, details))
}

fn status(code: StatusCode, reason: &str, message: String, details: Option<Value>) -> Value {
    let mut status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code.as_u16(),
    });
    if let Some(details) = details {
        status["details"] = details;
    }
    status
}
