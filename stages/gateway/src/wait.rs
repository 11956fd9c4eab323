//! Waiting, by a watch on the one Gateway, until it is Programmed and has an address.

use std::pin::Pin;
use std::time::Duration;

use cluster::errors::is_refusal;
use cluster::lease::RENEWALS;
use cluster::{Attempt, Cluster, KubeContext};
use futures::{Stream, StreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use protocol::{Exit, StageError};
use tokio::time::{Instant, timeout_at};

use crate::objects::{self, GATEWAYS, GatewayObject, State, title};

/// A cloud's load balancer has an address by then, if it gets one without help.
const PATIENCE: Duration = Duration::from_secs(20);

/// Seconds that one watch takes at most.
const LONGEST: u32 = 30;

/// The Gateway as it is and becomes; `None` when it is gone.
pub(crate) type Events = Pin<Box<dyn Stream<Item = watcher::Result<Option<GatewayObject>>> + Send>>;

/// Goes on through broken connections and expired versions, with a growing pause. It is asked for anew as often as the
/// session's Lease is renewed: a connection that has died without a word is noticed by then.
pub(crate) fn watch(cluster: &Cluster, gateway: &GatewayObject, lease_duration: u32) -> Events {
    let api = objects::gateways(cluster, Some(objects::namespace(gateway)));
    let anew = (lease_duration / RENEWALS).clamp(1, LONGEST);
    let one = watcher::Config::default()
        .fields(&format!("metadata.name={}", objects::name(gateway)))
        .timeout(anew);
    watcher::watcher(api, one)
        .default_backoff()
        .scan(false, |seen, event| {
            std::future::ready(Some(of_one(event, seen)))
        })
        .filter_map(std::future::ready)
        .boxed()
}

/// What an event says of the only object that is watched. `seen` is whether it was in the list that is being read.
fn of_one(
    event: watcher::Result<watcher::Event<GatewayObject>>,
    seen: &mut bool,
) -> Option<watcher::Result<Option<GatewayObject>>> {
    match event {
        Ok(watcher::Event::Init) => {
            *seen = false;
            None
        }
        Ok(watcher::Event::InitApply(gateway)) => {
            *seen = true;
            Some(Ok(Some(gateway)))
        }
        Ok(watcher::Event::InitDone) if *seen => None,
        Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => Some(Ok(None)),
        Ok(watcher::Event::Apply(gateway)) => Some(Ok(Some(gateway))),
        Err(error) => Some(Err(error)),
    }
}

/// The Gateway once it works, and its address. `tell` gets a line whenever there is something new to say.
pub(crate) async fn until_ready(
    events: &mut Events,
    mut gateway: GatewayObject,
    context: &KubeContext,
    timeout: Duration,
    mut tell: impl FnMut(String),
) -> Result<(GatewayObject, String), StageError> {
    let start = Instant::now();
    let mut mend_at = Some(start + PATIENCE);
    let mut told = None;
    let mut interruption = None;
    loop {
        let state = objects::state(&gateway);
        if let State::Ready(address) = state {
            return Ok((gateway, address));
        }
        if told.as_ref() != Some(&state) {
            tell(format!(
                "waiting for Gateway {}: {}",
                title(&gateway),
                reason(&state)
            ));
            told = Some(state.clone());
        }
        let next = mend_at.map_or(start + timeout, |at| at.min(start + timeout));
        match timeout_at(next, events.next()).await {
            Ok(Some(Ok(Some(seen)))) => {
                gateway = seen;
                interruption = None;
            }
            Ok(Some(Ok(None))) => return Err(deleted(&title(&gateway))),
            Ok(Some(Err(error))) => interruption = Some(interrupted(context, &gateway, &error)?),
            // A watcher never ends by itself.
            Ok(None) => return Err(StageError::internal("the watch on the Gateway ended")),
            Err(_) if Instant::now() >= start + timeout => {
                return Err(
                    interruption.unwrap_or_else(|| late(&gateway, &state, context, timeout))
                );
            }
            Err(_) => {
                mend_at = None;
                tell(format!(
                    "Gateway {} still has no address: {}",
                    title(&gateway),
                    mend(&gateway, &state, context)
                ));
            }
        }
    }
}

/// An error from which the watch recovers by itself, as ours; one from which it cannot, as `Err`.
pub(crate) fn interrupted(
    context: &KubeContext,
    gateway: &GatewayObject,
    error: &watcher::Error,
) -> Result<StageError, StageError> {
    let attempt = |verb| Attempt::new(verb, GATEWAYS, gateway.metadata.namespace.as_deref());
    let ours = match error {
        watcher::Error::InitialListFailed(error) => context.request_failed(&attempt("list"), error),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            context.request_failed(&attempt("watch"), error)
        }
        watcher::Error::WatchError(status) => {
            context.request_failed(&attempt("watch"), &kube::Error::Api(status.clone()))
        }
        watcher::Error::NoResourceVersion => context.no_answer(),
    };
    if is_refusal(&ours) {
        return Err(ours);
    }
    Ok(ours)
}

fn reason(state: &State) -> &str {
    match state {
        State::Ready(_) => "it is ready",
        State::NoAddress(reason) | State::NotProgrammed(reason) => reason,
    }
}

pub(crate) fn deleted(title: &str) -> StageError {
    StageError::new(
        "gateway.deleted",
        format!("Gateway {title} has been deleted"),
    )
    .hint("make it again, or start the gateway stage anew to use another one")
}

/// What is wrong with a Gateway that does not work now.
pub(crate) fn not_ready(
    gateway: &GatewayObject,
    state: &State,
    context: &KubeContext,
) -> StageError {
    let code = match state {
        State::NoAddress(_) => "gateway.no_address",
        _ => "gateway.not_programmed",
    };
    StageError::new(
        code,
        format!(
            "Gateway {} cannot be used: {}",
            title(gateway),
            reason(state)
        ),
    )
    .hint(mend(gateway, state, context))
}

fn late(
    gateway: &GatewayObject,
    state: &State,
    context: &KubeContext,
    timeout: Duration,
) -> StageError {
    let mut error = not_ready(gateway, state, context)
        .retryable(true)
        .exit(Exit::Timeout);
    error.message = format!(
        "Gateway {} was not usable within {} s: {}",
        title(gateway),
        timeout.as_secs(),
        reason(state)
    );
    error
}

/// The likely mend.
fn mend(gateway: &GatewayObject, state: &State, context: &KubeContext) -> String {
    let namespace = objects::namespace(gateway);
    // Contour and others say Programmed=False, AddressNotAssigned, until the load balancer has an address.
    if matches!(state, State::NotProgrammed(reason) if !reason.contains("AddressNotAssigned")) {
        return format!(
            "is the controller of GatewayClass {} running? `kubectl -n {namespace} describe gateway {}` shows what it reports",
            gateway.spec.gateway_class_name,
            objects::name(gateway)
        );
    }
    match context.name.as_str() {
        name if name.contains("minikube") => {
            format!("run `minikube tunnel -p {name}` in another terminal and leave it running")
        }
        name if name.starts_with("kind-") => {
            "kind has no load balancers: run cloud-provider-kind".to_owned()
        }
        _ => format!(
            "its LoadBalancer Service waits for an external address: `kubectl -n {namespace} get services` shows it; \
             a local cluster needs `minikube tunnel`, MetalLB or the like"
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_an_address_the_hint_is_given_after_20_seconds_and_the_error_after_the_timeout()
    {
        let conditions = json!([{"type": "Programmed", "status": "True", "reason": "Programmed", "message": ""}]);
        let gateway = json!({
            "metadata": {"namespace": "n", "name": "g"},
            "spec": {"gatewayClassName": "contour", "listeners": []},
            "status": {"conditions": conditions},
        });
        let gateway = serde_json::from_value(gateway).unwrap();
        let context = KubeContext {
            name: "minikube".into(),
            server: "https://s".into(),
            plugin: None,
            files: Vec::new(),
            kubeconfig: kube::config::Kubeconfig::default(),
        };
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let mut lines = Vec::new();
        let tell = |line| lines.push((start.elapsed().as_secs(), line));
        let mut events = futures::stream::pending().boxed();
        let waited = until_ready(&mut events, gateway, &context, minute, tell).await;
        let error = waited.map(drop).unwrap_err();
        assert_eq!(error.code, "gateway.no_address");
        assert_eq!(error.exit_code(), Exit::Timeout);
        assert!(error.hint.is_some_and(|it| it.contains("minikube tunnel")));
        assert_eq!(start.elapsed().as_secs(), 60);
        assert_eq!(lines.len(), 2, "{lines:?}");
        let first = "waiting for Gateway n/g: it has no address".to_owned();
        assert_eq!(lines[0], (0, first));
        assert_eq!(lines[1].0, 20);
        assert!(lines[1].1.contains("minikube tunnel"));
    }
}
