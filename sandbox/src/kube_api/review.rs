//! Who may do what, asked by a request itself or by a SelfSubjectAccessReview.

use http::{Response, StatusCode};
use serde_json::Value;

use super::status;
use crate::serve::{self, Body};

/// One thing the user may not do.
#[derive(Debug, Clone)]
pub struct Denied {
    /// `get`, `list`, …, or `*`.
    pub verb: String,
    /// Plural, without its group: `gateways`.
    pub resource: String,
    /// `None`: anywhere. An empty string: in all namespaces at once, as an administrator would.
    pub namespace: Option<String>,
}

impl Denied {
    /// Denies this verb on this resource everywhere.
    pub fn everywhere(verb: &str, resource: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            namespace: None,
        }
    }

    fn covers(&self, access: &Access<'_>) -> bool {
        (self.verb == "*" || self.verb == access.verb)
            && self.resource == access.resource
            && self
                .namespace
                .as_deref()
                .is_none_or(|namespace| namespace == access.namespace)
    }
}

pub(super) struct Access<'a> {
    pub(super) verb: &'a str,
    pub(super) group: &'a str,
    pub(super) resource: &'a str,
    /// Empty for the cluster scope.
    pub(super) namespace: &'a str,
}

pub(super) fn allowed(denied: &[Denied], access: &Access<'_>) -> bool {
    !denied.iter().any(|denied| denied.covers(access))
}

/// Answers `POST …/selfsubjectaccessreviews`.
pub(super) fn review(denied: &[Denied], body: &[u8]) -> Response<Body> {
    let mut review: Value = match serde_json::from_slice(body) {
        Ok(review) => review,
        Err(error) => {
            return status::bad_request(format!("the object provided is unrecognized: {error}"));
        }
    };
    let attribute = |name: &str| {
        review["spec"]["resourceAttributes"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let (verb, group, resource, namespace) = (
        attribute("verb"),
        attribute("group"),
        attribute("resource"),
        attribute("namespace"),
    );
    let access = Access {
        verb: &verb,
        group: &group,
        resource: &resource,
        namespace: &namespace,
    };
    let answer = allowed(denied, &access);
    review["status"] = serde_json::json!({"allowed": answer});
    serve::json(StatusCode::CREATED, &review)
}
