//! Converts errors of the API, and of the connection to it, to errors of the stage.

use std::borrow::Cow;
use std::error::Error;

use kube::client::AuthError;
use kube::core::Status;
use protocol::StageError;

use crate::codes;
use crate::kubeconfig::KubeContext;

/// What a request does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub verb: &'static str,
    pub resource: Cow<'static, str>,
    /// Empty for cluster-wide resources, and for all namespaces at once.
    pub namespace: String,
}

impl Attempt {
    pub fn new(
        verb: &'static str,
        resource: impl Into<Cow<'static, str>>,
        namespace: Option<&str>,
    ) -> Self {
        Self {
            verb,
            resource: resource.into(),
            namespace: namespace.unwrap_or_default().to_owned(),
        }
    }

    pub fn describe(&self) -> String {
        match self.namespace.as_str() {
            "" => format!("{} {}", self.verb, self.resource),
            namespace => format!("{} {} in namespace {namespace}", self.verb, self.resource),
        }
    }
}

/// The HTTP status of an API error; 0 if the API did not answer.
pub fn status(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// Whether the API answered and refused, so that a retry does not help.
pub fn is_refusal(error: &StageError) -> bool {
    error.is_any(&[
        codes::FORBIDDEN,
        codes::CREDENTIALS_REFUSED,
        codes::CREDENTIALS_UNAVAILABLE,
    ])
}

impl KubeContext {
    /// Converts an error of the connection or the credentials.
    pub(crate) fn connection_failed(&self, error: &kube::Error) -> StageError {
        match sources(error).find_map(|error| error.downcast_ref()) {
            Some(auth) => self.credentials_unavailable(auth),
            None => self.unreachable(error),
        }
    }

    /// Converts the error of a request.
    pub fn request_failed(&self, attempt: &Attempt, error: &kube::Error) -> StageError {
        let (name, attempted) = (&self.name, attempt.describe());
        match error {
            kube::Error::Api(status) if status.code == 401 => self.credentials_refused(status),
            kube::Error::Api(status) if status.code == 403 => {
                self.forbidden(attempt).cause(server_text(status))
            }
            kube::Error::Api(status) => {
                let status_code = status.code;
                let message =
                    format!("the API of context {name:?} answered {status_code} to {attempted}");
                let code = match status_code {
                    429 | 500.. => codes::API_UNAVAILABLE,
                    _ => codes::API_ERROR,
                };
                StageError::new(code, message).cause(server_text(status))
            }
            kube::Error::SerdeError(error) => {
                let message = format!(
                    "the API of context {name:?} sent an unexpected object as the response to {attempted}"
                );
                StageError::new(codes::API_ERROR, message).source(error)
            }
            error => self.connection_failed(error),
        }
    }

    /// The error for a verb that the user's roles do not grant.
    pub fn forbidden(&self, attempt: &Attempt) -> StageError {
        let Attempt {
            verb,
            resource,
            namespace,
        } = attempt;
        let message = format!(
            "the user of context {:?} may not {}",
            self.name,
            attempt.describe()
        );
        let flag = match namespace.as_str() {
            "" => String::new(),
            namespace => format!(" -n {namespace}"),
        };
        StageError::new(codes::FORBIDDEN, message).hint(format!(
            "ask the cluster's admin for the verb `{verb}` on `{resource}`; `kubectl auth can-i {verb} {resource}{flag}` checks it"
        ))
    }

    fn credentials_refused(&self, status: &Status) -> StageError {
        let Self { name, server, .. } = self;
        let message =
            format!("the API at {server} does not accept the credentials of context {name:?}");
        StageError::new(codes::CREDENTIALS_REFUSED, message)
            .cause(server_text(status))
            .hint(format!(
                "log in again, until `kubectl --context {name} auth whoami` works"
            ))
    }

    /// Shows the plugin's stderr alone: its output and environment may hold tokens.
    fn credentials_unavailable(&self, error: &AuthError) -> StageError {
        let name = &self.name;
        let source = self.plugin.as_deref().unwrap_or("the kubeconfig");
        let message =
            format!("credentials for context {name:?} could not be obtained from {source}");
        let cause = match error {
            AuthError::AuthExecRun { out, .. } => {
                let stderr = String::from_utf8_lossy(&out.stderr);
                format!("it ended with {}: {}", out.status, tail(stderr.trim()))
            }
            AuthError::AuthExecParse(_) => "it did not print an ExecCredential".to_owned(),
            error => error.to_string(),
        };
        StageError::new(codes::CREDENTIALS_UNAVAILABLE, message)
            .cause(cause)
            .hint(format!(
                "run `kubectl --context {name} auth whoami` at a prompt; it says what is missing"
            ))
    }

    fn unreachable(&self, error: &kube::Error) -> StageError {
        let text = in_one_line(error);
        if !text.contains("certificate") {
            return self.no_answer().cause(text);
        }
        let Self { name, server, .. } = self;
        let message =
            format!("the kubeconfig does not trust the certificate of the API at {server}");
        StageError::new(codes::CERTIFICATE_REFUSED, message)
            .cause(text)
            .hint(format!(
                "get a new kubeconfig for context {name:?}: the cluster may have been recreated"
            ))
    }

    /// The error for an API that does not answer in time.
    pub fn no_answer(&self) -> StageError {
        let Self { name, server, .. } = self;
        let message = format!("the API of context {name:?} at {server} cannot be reached");
        StageError::new(codes::UNREACHABLE, message)
            .hint(format!(
                "check with `kubectl --context {name} version` that the cluster runs, and that a VPN is up if it needs one"
            ))
    }

    /// The error for a missing namespace; `field` is the config field that names it.
    pub fn namespace_missing(&self, namespace: &str, field: &str) -> StageError {
        let message = format!(
            "there is no namespace {namespace} on the cluster of context {:?}",
            self.name
        );
        StageError::new(codes::NAMESPACE_MISSING, message).hint(format!(
            "`kubectl create namespace {namespace}`, or set `{field}` to one that exists"
        ))
    }
}

fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The error and its sources, without repetitions.
pub fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for more in sources(error).map(|error| error.to_string()) {
        if text.is_empty() {
            text = more;
        } else if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
    }
    tail(&text).to_owned()
}

fn server_text(status: &Status) -> String {
    let text = if status.message.is_empty() {
        &status.reason
    } else {
        &status.message
    };
    format!("the API said: {}", tail(text.trim()))
}

/// The end of a long text, such as a proxy's HTML page.
fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(400);
    let start = (start..text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_server_and_a_wrong_certificate_have_different_errors() {
        let context = KubeContext {
            name: "c".into(),
            ..KubeContext::default()
        };
        let failed = |text: &str| {
            let error = std::io::Error::other(text.to_owned());
            let error = context.connection_failed(&kube::Error::Service(Box::new(error)));
            (error.code, error.retryable)
        };
        let dead = failed("tcp connect error");
        assert_eq!(dead, ("cluster.unreachable".to_owned(), true));
        let foreign = failed("invalid peer certificate: UnknownIssuer");
        assert_eq!(foreign, ("cluster.certificate_refused".to_owned(), false));
    }

    #[test]
    fn an_api_that_is_overloaded_is_worth_a_retry_and_one_that_rejects_a_request_is_not() {
        let context = KubeContext::default();
        let attempt = Attempt::new("list", "gateways", None);
        for (status, code, exit) in [
            (400, "cluster.api_error", 1),
            (429, "cluster.api_unavailable", 75),
            (503, "cluster.api_unavailable", 75),
        ] {
            let answer = Status {
                code: status,
                ..Status::default()
            };
            let error = context.request_failed(&attempt, &kube::Error::Api(Box::new(answer)));
            assert_eq!((&*error.code, error.exit_code() as u8), (code, exit));
        }
    }
}
