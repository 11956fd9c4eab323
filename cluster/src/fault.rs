//! Foreign errors, of the API and of the way to it, turned into ours.

use std::borrow::Cow;
use std::error::Error;

use kube::client::AuthError;
use kube::core::Status;
use protocol::StageError;

/// Whom we talk to, for messages.
#[derive(Debug, Clone)]
pub struct Peer {
    pub context: String,
    pub server: String,
    /// The credential plugin, where the user has one.
    pub plugin: Option<String>,
}

/// What was asked of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub verb: &'static str,
    pub resource: Cow<'static, str>,
    /// Empty for what has no namespace, and for all namespaces at once.
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

/// An error met while getting ready to talk.
pub fn of_connecting(peer: &Peer, error: &kube::Error) -> StageError {
    match auth_error(error) {
        Some(auth) => credentials_unavailable(peer, auth),
        None => unreachable(peer, error),
    }
}

/// An error met by a request.
pub fn of_request(peer: &Peer, attempt: &Attempt, error: &kube::Error) -> StageError {
    match error {
        kube::Error::Api(status) => of_status(peer, attempt, status),
        kube::Error::SerdeError(error) => {
            let message = format!(
                "what the API of context {:?} answered to {} is no such object",
                peer.context,
                attempt.describe()
            );
            StageError::new("gateway.api_error", message).source(error)
        }
        error => of_connecting(peer, error),
    }
}

pub fn of_status(peer: &Peer, attempt: &Attempt, status: &Status) -> StageError {
    match status.code {
        401 => credentials_refused(peer, status),
        403 => forbidden(peer, attempt).cause(server_text(status)),
        code => {
            let message = format!(
                "the API of context {:?} answered {code} to {}",
                peer.context,
                attempt.describe()
            );
            StageError::new("gateway.api_error", message)
                .cause(server_text(status))
                .retryable(code == 429 || code >= 500)
        }
    }
}

/// The user may not do this.
pub fn forbidden(peer: &Peer, attempt: &Attempt) -> StageError {
    let message = format!(
        "the user of context {:?} may not {}",
        peer.context,
        attempt.describe()
    );
    let namespace = match attempt.namespace.as_str() {
        "" => String::new(),
        namespace => format!(" -n {namespace}"),
    };
    let check = format!(
        "`kubectl auth can-i {} {}{namespace}`",
        attempt.verb, attempt.resource
    );
    let hint = format!(
        "ask the cluster's admin for the verb `{}` on `{}`; {check} shows it",
        attempt.verb, attempt.resource
    );
    StageError::new("gateway.forbidden", message).hint(hint)
}

fn credentials_refused(peer: &Peer, status: &Status) -> StageError {
    let message = format!(
        "the API at {} does not accept the credentials of context {:?}",
        peer.server, peer.context
    );
    StageError::new("gateway.credentials_refused", message)
        .cause(server_text(status))
        .hint(format!(
            "log in again, until `kubectl --context {} get gateways -A` works",
            peer.context
        ))
}

/// A plugin's output and its environment may hold tokens, so only its stderr is shown.
fn credentials_unavailable(peer: &Peer, error: &AuthError) -> StageError {
    let plugin = peer.plugin.as_deref().unwrap_or("the kubeconfig");
    let message = format!(
        "no credentials for context {:?} could be had from {plugin}",
        peer.context
    );
    let cause = match error {
        AuthError::AuthExecRun { out, .. } => {
            let stderr = String::from_utf8_lossy(&out.stderr);
            format!("it ended with {}: {}", out.status, tail(stderr.trim()))
        }
        AuthError::AuthExecParse(_) => "it printed no ExecCredential".to_owned(),
        error => error.to_string(),
    };
    StageError::new("gateway.credentials_unavailable", message)
        .cause(cause)
        .hint(format!(
            "run `kubectl --context {} get gateways -A` at a prompt; it says what is missing",
            peer.context
        ))
}

fn unreachable(peer: &Peer, error: &kube::Error) -> StageError {
    let causes = chain(error);
    let text = causes.join(": ");
    if text.contains("certificate") {
        let message = format!(
            "the certificate of the API at {} is not one that the kubeconfig trusts",
            peer.server
        );
        return StageError::new("gateway.certificate_refused", message)
            .cause(text)
            .hint(format!(
                "get the kubeconfig of context {:?} anew: the cluster may have been made again",
                peer.context
            ));
    }
    no_answer(peer).cause(text)
}

/// Nobody there, or nobody who answers in time.
pub fn no_answer(peer: &Peer) -> StageError {
    let message = format!(
        "the API of context {:?} at {} cannot be reached",
        peer.context, peer.server
    );
    StageError::new("gateway.unreachable", message)
        .hint(format!("is the cluster running, and a VPN up if it needs one? `kubectl --context {} version` tells", peer.context))
        .retryable(true)
}

fn auth_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a AuthError> {
    sources(error).find_map(|error| error.downcast_ref())
}

fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The error and its sources. kube's own words repeat their source: only the innermost of such a run are kept.
fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let texts: Vec<String> = sources(error).map(|error| error.to_string()).collect();
    let repeated = |at: usize| {
        texts
            .get(at + 1)
            .is_some_and(|next| texts[at].contains(next.as_str()))
    };
    (0..texts.len())
        .filter(|at| !repeated(*at))
        .map(|at| texts[at].clone())
        .collect()
}

/// The error and its sources, for a message of ours.
pub fn in_one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = next.source();
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

/// A page of HTML from some proxy says no more than its end.
fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(400);
    let start = (start..text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    &text[start..]
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn peer() -> Peer {
        Peer {
            context: "c".into(),
            server: "https://s".into(),
            plugin: Some("login".into()),
        }
    }

    fn status(code: u16) -> Status {
        Status {
            code,
            message: "words".into(),
            ..Status::default()
        }
    }

    #[test]
    fn each_answer_of_the_api_has_its_own_code() {
        let attempt = Attempt::new("list", "gateways.gateway.networking.k8s.io", None);
        for (code, expected, retryable) in [
            (401, "gateway.credentials_refused", false),
            (403, "gateway.forbidden", false),
            (500, "gateway.api_error", true),
            (422, "gateway.api_error", false),
        ] {
            let error = of_status(&peer(), &attempt, &status(code));
            assert_eq!(
                (error.code.as_str(), error.retryable),
                (expected, retryable)
            );
            assert_eq!(error.caused_by, ["the API said: words"]);
        }
        let error = of_status(&peer(), &attempt, &status(403));
        assert!(
            error
                .message
                .contains("may not list gateways.gateway.networking.k8s.io"),
            "{error}"
        );
    }

    #[test]
    fn what_a_plugin_printed_and_was_given_is_never_shown() {
        let out = std::process::Output {
            status: std::process::ExitStatus::from_raw(256),
            stdout: b"secret-token".to_vec(),
            stderr: b"please log in".to_vec(),
        };
        let auth = AuthError::AuthExecRun {
            cmd: "PASSWORD=secret login".into(),
            out: Box::new(out),
        };
        let error = of_connecting(
            &peer(),
            &kube::Error::Service(Box::new(kube::Error::Auth(auth))),
        );
        assert_eq!(error.code, "gateway.credentials_unavailable");
        let shown = error.render("x");
        assert!(
            shown.contains("please log in") && !shown.contains("secret"),
            "{shown}"
        );
    }

    #[test]
    fn a_dead_server_and_a_wrong_certificate_are_told_apart() {
        let service =
            |text: &str| kube::Error::Service(Box::new(std::io::Error::other(text.to_owned())));
        let dead = of_connecting(&peer(), &service("tcp connect error"));
        assert_eq!(
            (dead.code.as_str(), dead.retryable),
            ("gateway.unreachable", true)
        );
        let foreign = of_connecting(&peer(), &service("invalid peer certificate: UnknownIssuer"));
        assert_eq!(
            (foreign.code.as_str(), foreign.retryable),
            ("gateway.certificate_refused", false)
        );
    }
}
