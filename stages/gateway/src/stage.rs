//! The stage itself: take, report, watch, give back.

use std::time::Duration;

use cluster::client::Cluster;
use cluster::fault::{self, Attempt};
use cluster::kubeconfig;
use cluster::minify::minify;
use protocol::ledger::Entry;
use protocol::provides::{KUBECONFIG, Provides, TASK_GATEWAY};
use protocol::validate::Gate;
use protocol::{Context, Exit, Problem, Stage, StageError, Undone};
use serde_json::{Map, Value};

use crate::collect;
use crate::config::{self, Config};
use crate::dry_run::dry_run;
use crate::file::{self, KubeconfigFile};
use crate::foresee;
use crate::hold::hold;
use crate::objects::{self, GatewayObject, State};
use crate::outputs::{InternalTaskGateway, Outputs};
use crate::ports::PortRange;
use crate::preflight;
use crate::provision;
use crate::session::{self, Session};
use crate::survey::GATEWAYS;
use crate::take::{self, Found, Held, Taken};
use crate::wait;

/// Finds the Gateway and watches over it.
pub struct Gateway;

impl Stage for Gateway {
    const KIND: &'static str = "gateway";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Takes the Gateway through which a Determined master reaches tasks in a Kubernetes cluster, or \
        makes one, waits until it is Programmed and has an address, and reports the master's internal_task_gateway block and \
        a kubeconfig for that one cluster. A Lease keeps others off the Gateway; in the end everything is given back.";
    const EXAMPLES: &'static str = "Examples:
  devcluster-gateway --k8s-context my-gke
  devcluster-gateway once --gateway tcp-gateway --gateway-namespace default --port-range 40000-41000";

    type Config = Config;
    type Outputs = Outputs;

    fn validate(config: &Config) -> Vec<Problem> {
        config::validate(config)
    }

    fn provides() -> Provides {
        Provides::from_iter([
            (TASK_GATEWAY.to_owned(), "/internal_task_gateway".into()),
            (KUBECONFIG.to_owned(), "/kubeconfig_path".into()),
        ])
    }

    const GATE: Gate = Gate::Consumer;

    fn outline(fields: &Map<String, Value>) -> String {
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let context = text("k8s_context").map(|c| format!("context {c}"));
        let context = context.unwrap_or_else(|| "the current context".to_owned());
        match text("gateway") {
            Some(gateway) => format!("holds Gateway {gateway} in {context}, for the master"),
            None => format!("holds a Gateway in {context}, or makes one, for the master"),
        }
    }

    fn summary(outputs: &Outputs) -> String {
        let gateway = &outputs.internal_task_gateway;
        format!(
            "Gateway {}/{} at {}, ports {} to {}, context {}",
            gateway.gateway_namespace,
            gateway.gateway_name,
            gateway.gateway_ip,
            gateway.gateway_port_range_start,
            gateway.gateway_port_range_end,
            outputs.context
        )
    }

    async fn run(cx: &Context<Self>, config: Config) -> Result<(), StageError> {
        if config.dry_run {
            return tokio::select! {
                done = dry_run(cx, &config) => done,
                () = cx.shutdown.cancelled() => Ok(()),
            };
        }
        let mut held = Held::default();
        let taken = tokio::select! {
            taken = take::take(cx, &config, &mut held) => taken.map(Some),
            () = cx.shutdown.cancelled() => Ok(None),
        };
        let served = match (taken, &mut held.session) {
            (Ok(Some(taken)), Some(session)) => serve(cx, &config, taken, session).await,
            (Ok(_), _) => Ok(()),
            (Err(error), _) => Err(error),
        };
        let given_back = held.release(cx, config.leave).await;
        served.and(given_back)
    }

    /// Takes nothing: another stage holds the Gateway up, or somebody for whom it is enough to know. The kubeconfig stays; the
    /// ledger has it, and the next run or `cleanup` removes it.
    async fn once(cx: &Context<Self>, config: Config) -> Result<Outputs, StageError> {
        if config.dry_run {
            let message = "`once` makes nothing anyway: `dry_run` is for `run`";
            return Err(StageError::new("protocol.config", message)
                .hint("`devcluster-gateway run --dry-run`")
                .exit(Exit::Usage));
        }
        let found = take::find(cx, &config).await?;
        let capacity = found.capacity(cx, &config)?;
        let file = KubeconfigFile::write(cx, &found.minified)?;
        Ok(found.outputs(&file, config.port_range, capacity))
    }

    fn goes_on(entry: &Entry) -> bool {
        [session::KIND, provision::KIND, collect::KIND].contains(&entry.what.as_str())
    }

    async fn check(
        cx: &Context<Self>,
        config: Option<Config>,
        outputs: Outputs,
    ) -> Result<(), StageError> {
        let kubeconfig = kubeconfig::load(Some(&outputs.kubeconfig_path), &cx.env)?;
        let patience = config.as_ref().map(Config::patience).unwrap_or_default();
        let minified = minify(&kubeconfig, None)?;
        let cluster = Cluster::connect(&minified, patience, &cx.env).await?;
        let reported = &outputs.internal_task_gateway;
        let namespace = Some(reported.gateway_namespace.as_str());
        let gateway = objects::gateways(&cluster, namespace)
            .get_opt(&reported.gateway_name)
            .await
            .map_err(|error| {
                fault::of_request(
                    &cluster.peer,
                    &Attempt::new("get", GATEWAYS, namespace),
                    &error,
                )
            })?;
        let Some(gateway) = gateway else {
            return Err(wait::deleted(&format!(
                "{}/{}",
                reported.gateway_namespace, reported.gateway_name
            )));
        };
        match objects::state(&gateway) {
            State::Ready(address) if address == reported.gateway_ip => Ok(()),
            State::Ready(address) => Err(moved(&gateway, &reported.gateway_ip, &address)),
            state => Err(wait::not_ready(&gateway, &state, &cluster.peer)),
        }
    }

    async fn preflight(cx: &Context<Self>, config: Config) {
        preflight::preflight(cx, &config).await;
    }

    async fn undo(cx: &Context<Self>, entry: &Entry) -> Result<Undone, StageError> {
        match entry.what.as_str() {
            session::KIND => session::undo(entry, &cx.env).await,
            provision::KIND => provision::undo(cx, entry).await,
            collect::KIND => collect::undo(cx, entry).await,
            file::KIND => file::undo(&entry.data),
            _ => Ok(Undone::Nothing),
        }
    }

    async fn foresee(cx: &Context<Self>, entry: &Entry) -> Result<Option<String>, StageError> {
        foresee::foresee(cx, entry).await
    }
}

fn moved(gateway: &GatewayObject, reported: &str, address: &str) -> StageError {
    let message = format!(
        "the address of Gateway {} is {address}, not {reported} any more",
        objects::title(gateway)
    );
    StageError::new("gateway.address_changed", message)
        .hint("restart the gateway stage, then the master")
}

/// Waits for the Gateway, reports it, and watches over it until the end.
async fn serve(
    cx: &Context<Gateway>,
    config: &Config,
    taken: Taken,
    session: &mut Session,
) -> Result<(), StageError> {
    let found = tokio::select! {
        found = taken.ready(cx, config) => found?,
        lost = session.keep(cx) => return Err(lost),
        () = cx.shutdown.cancelled() => return Ok(()),
    };
    let capacity = found.capacity(cx, config)?;
    let file = KubeconfigFile::write(cx, &found.minified)?;
    let outputs = found.outputs(&file, config.port_range, capacity);
    let cluster = found.cluster.clone();
    let held = async {
        cx.ready(outputs.clone()).await?;
        hold(cx, config, found, outputs.clone()).await
    };
    let period = Duration::from_secs(config.lease_duration.into());
    let title = session.claim.title();
    let held = tokio::select! {
        held = held => held,
        never = collect::from_time_to_time(cx, &cluster, period, &title) => never,
        lost = session.keep(cx) => Err(lost),
        () = cx.shutdown.cancelled() => Ok(()),
    };
    held.and(file.remove())
}

impl Found {
    fn capacity(&self, cx: &Context<Gateway>, config: &Config) -> Result<u32, StageError> {
        let capacity = capacity(&self.gateway, self.max_listeners, config.port_range);
        let title = objects::title(&self.gateway);
        if capacity < config.min_capacity {
            let message = format!(
                "Gateway {title} has room for {capacity} ports, fewer than `min_capacity` {}: it can have {} listeners and has {}, \
                 and the port range has {} ports",
                config.min_capacity,
                self.max_listeners,
                self.gateway.spec.listeners.len(),
                config.port_range.len()
            );
            return Err(StageError::new("gateway.capacity_low", message)
                .hint("widen `port_range`, free listeners, or lower `min_capacity`"));
        }
        if capacity == 0 {
            cx.warn(format!("Gateway {title} has no room for another port"));
        }
        Ok(capacity)
    }

    fn outputs(&self, file: &KubeconfigFile, range: PortRange, capacity: u32) -> Outputs {
        Outputs {
            internal_task_gateway: InternalTaskGateway {
                gateway_name: objects::name(&self.gateway).to_owned(),
                gateway_namespace: objects::namespace(&self.gateway).to_owned(),
                gateway_ip: self.address.clone(),
                gateway_port_range_start: range.start,
                gateway_port_range_end: range.end,
            },
            kubeconfig_path: file.path.clone(),
            context: self.minified.context.clone(),
            controller: self.controller.clone(),
            capacity,
            provisioned: self.provisioned,
        }
    }
}

/// How many listeners can be added: places on the Gateway and free ports in the range are both needed.
pub(crate) fn capacity(gateway: &GatewayObject, max_listeners: u32, range: PortRange) -> u32 {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let listeners = &gateway.spec.listeners;
    let inside = listeners
        .iter()
        .filter(|listener| range.holds(listener.port))
        .count();
    max_listeners
        .saturating_sub(count(listeners.len()))
        .min(range.len().saturating_sub(count(inside)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn capacity_is_bounded_by_listeners_and_by_ports() {
        let gateway = serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "g"},
            "spec": {"gatewayClassName": "c", "listeners": [{"port": 80}, {"port": 9000}, {"port": 9001}]},
        }))
        .unwrap();
        assert_eq!(
            capacity(
                &gateway,
                64,
                PortRange {
                    start: 9000,
                    end: 9999
                }
            ),
            61
        );
        assert_eq!(
            capacity(
                &gateway,
                64,
                PortRange {
                    start: 9000,
                    end: 9004
                }
            ),
            3
        );
        assert_eq!(
            capacity(
                &gateway,
                2,
                PortRange {
                    start: 9000,
                    end: 9999
                }
            ),
            0
        );
    }
}
