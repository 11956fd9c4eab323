//! Watches a Gateway until it is Programmed and has an address.

use std::pin::Pin;
use std::time::Duration;

use cluster::errors::is_refusal;
use cluster::lease::RENEWALS;
use cluster::{Attempt, Cluster, KubeContext};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use protocol::StageError;
use tokio::time::{Instant, timeout_at};

use crate::codes;
use crate::objects::{self, GATEWAY_NAME, GATEWAYS, GatewayObject, NotReady, title};

/// A cloud's load balancer has an address by then.
const HINT_AFTER: Duration = Duration::from_secs(20);

/// Longest duration of one watch, in seconds.
const LONGEST: u32 = 30;

/// Changes of the Gateway; `None` when it is deleted.
pub(crate) type Events = Pin<Box<dyn Stream<Item = watcher::Result<Option<GatewayObject>>> + Send>>;

/// Recovers from broken connections and expired versions, with growing pauses. The watch is renewed as often as the
/// session's Lease, so that a dead connection is noticed by then.
pub(crate) fn events(cluster: &Cluster, gateway: &GatewayObject, lease_duration: u32) -> Events {
    let api = objects::gateways(cluster, Some(objects::namespace(gateway)));
    let again = (lease_duration / RENEWALS).clamp(1, LONGEST);
    let one = watcher::Config::default()
        .fields(&format!("metadata.name={}", objects::name(gateway)))
        .timeout(again);
    watcher::watcher(api, one)
        .default_backoff()
        .scan(false, |seen, event| {
            std::future::ready(Some(single_event(event, seen)))
        })
        .filter_map(std::future::ready)
        .boxed()
}

/// Converts an event on the watched object. `seen`: whether it was in the list that is being read.
fn single_event(
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

/// Waits until the Gateway works, and returns it with its address. `tell` gets a line for each news.
pub(crate) async fn until_ready(
    events: &mut Events,
    mut gateway: GatewayObject,
    context: &KubeContext,
    timeout: Duration,
    mut tell: impl FnMut(String),
) -> Result<(GatewayObject, String), StageError> {
    let start = Instant::now();
    let mut hint_at = Some(start + HINT_AFTER);
    let mut reported = None;
    let mut interruption = None;
    loop {
        let why = match objects::address(&gateway) {
            Ok(address) => return Ok((gateway, address)),
            Err(why) => why,
        };
        if reported.as_ref() != Some(&why) {
            let (title, reason) = (title(&gateway), &why.reason);
            tell(format!("waiting for Gateway {title}: {reason}"));
            reported = Some(why.clone());
        }
        let next = hint_at.map_or(start + timeout, |at| at.min(start + timeout));
        match timeout_at(next, events.next()).await {
            Ok(Some(Ok(Some(seen)))) => {
                gateway = seen;
                interruption = None;
            }
            Ok(Some(Ok(None))) => return Err(deleted(&title(&gateway))),
            Ok(Some(Err(error))) => interruption = Some(interrupted(context, &gateway, &error)?),
            // A watcher does not end by itself.
            Ok(None) => return Err(StageError::internal("the watch on the Gateway ended")),
            Err(_) if Instant::now() >= start + timeout => {
                return Err(interruption.unwrap_or_else(|| late(&gateway, &why, context, timeout)));
            }
            Err(_) => {
                hint_at = None;
                let (title, hint) = (title(&gateway), hint(&gateway, &why, context));
                tell(format!("Gateway {title} still has no address: {hint}"));
            }
        }
    }
}

/// Converts a watch's error: `Ok` if the watch recovers by itself, else `Err`.
pub(crate) fn interrupted(
    context: &KubeContext,
    gateway: &GatewayObject,
    error: &watcher::Error,
) -> Result<StageError, StageError> {
    let failed = |verb, error: &kube::Error| {
        let namespace = gateway.metadata.namespace.as_deref();
        context.request_failed(&Attempt::new(verb, GATEWAYS, namespace), error)
    };
    let ours = match error {
        watcher::Error::InitialListFailed(error) => failed("list", error),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            failed("watch", error)
        }
        watcher::Error::WatchError(status) => failed("watch", &kube::Error::Api(status.clone())),
        watcher::Error::NoResourceVersion => context.no_answer(),
    };
    match is_refusal(&ours) {
        true => Err(ours),
        false => Ok(ours),
    }
}

pub(crate) fn deleted(title: &str) -> StageError {
    StageError::new(codes::DELETED, format!("Gateway {title} has been deleted"))
}

/// The error for a Gateway that is not ready.
pub(crate) fn not_ready(
    gateway: &GatewayObject,
    why: &NotReady,
    context: &KubeContext,
) -> StageError {
    let (title, reason) = (title(gateway), &why.reason);
    let message = format!("Gateway {title} cannot be used: {reason}");
    StageError::new(why.code, message).hint(hint(gateway, why, context))
}

fn late(
    gateway: &GatewayObject,
    why: &NotReady,
    context: &KubeContext,
    timeout: Duration,
) -> StageError {
    let mut error = not_ready(gateway, why, context);
    let (title, seconds, reason) = (title(gateway), timeout.as_secs(), &why.reason);
    error.message = format!("Gateway {title} was not usable within {seconds} s: {reason}");
    error
}

/// Adds what the Service of the Gateway shows about a missing address.
pub(crate) async fn explain(
    cluster: &Cluster,
    gateway: &GatewayObject,
    error: StageError,
) -> StageError {
    if !error.is_any(&[codes::NO_ADDRESS, codes::NOT_PROGRAMMED]) {
        return error;
    }
    let (namespace, name) = (objects::namespace(gateway), objects::name(gateway));
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
    let services = services.list(&ListParams::default()).await;
    let services = services.map(|list| list.items).unwrap_or_default();
    let is_its = |it: &Service| {
        let labelled = it.labels().get(GATEWAY_NAME);
        labelled.is_some_and(|it| it == name) || it.name_any().ends_with(&format!("-{name}"))
    };
    let mut its = services.iter().filter(|it| is_its(it)).peekable();
    let is_balanced = |it: &Service| {
        let spec = it.spec.as_ref();
        spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
    };
    // Some controllers make it in a namespace of their own.
    match its.peek().is_some() && !its.any(is_balanced) {
        true => error.hint(format!(
            "its controller made no Service of type LoadBalancer for it, and one of type NodePort gets no address: \
             use a GatewayClass that makes one (`kubectl -n {namespace} get services`)"
        )),
        false => error,
    }
}

fn hint(gateway: &GatewayObject, why: &NotReady, context: &KubeContext) -> String {
    let namespace = objects::namespace(gateway);
    // Contour and others say Programmed=False, AddressNotAssigned, until the load balancer has an address.
    if why.code == codes::NOT_PROGRAMMED && !why.reason.contains("AddressNotAssigned") {
        return format!(
            "check that the controller of GatewayClass {} runs, and see `kubectl -n {namespace} describe gateway {}`",
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
        let gateway = serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "g"},
            "spec": {"gatewayClassName": "contour"},
            "status": {"conditions": [{"type": "Programmed", "status": "True"}]},
        }))
        .unwrap();
        let context = KubeContext {
            name: "minikube".into(),
            ..KubeContext::default()
        };
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let mut lines = Vec::new();
        let tell = |line| lines.push((start.elapsed().as_secs(), line));
        let mut events = futures::stream::pending().boxed();
        let waited = until_ready(&mut events, gateway, &context, minute, tell).await;
        let error = waited.map(drop).unwrap_err();
        assert_eq!(error.code, "gateway.no_address");
        assert_eq!(error.exit_code(), protocol::Exit::Timeout);
        assert!(error.hint.is_some_and(|it| it.contains("minikube tunnel")));
        assert_eq!(start.elapsed().as_secs(), 60);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].0 == 0 && lines[0].1 == "waiting for Gateway n/g: it has no address");
        assert!(lines[1].0 == 20 && lines[1].1.contains("minikube tunnel"));
    }
}
