//! The stage itself: find, wait, report, watch.

use std::time::Duration;

use protocol::ledger::Entry;
use protocol::{Context, Problem, Stage, StageError, Undone};

use crate::choose::choose;
use crate::client::Cluster;
use crate::config::{self, Config, PortRange};
use crate::fault::{self, Attempt};
use crate::file::{self, KubeconfigFile};
use crate::hold::hold;
use crate::kubeconfig;
use crate::minify::{Minified, minify};
use crate::objects::{self, GatewayObject, State};
use crate::outputs::{InternalTaskGateway, Outputs};
use crate::survey::{GATEWAYS, Wanted, review, survey};
use crate::wait::{self, Events};

/// Finds the Gateway and watches over it.
pub struct Gateway;

impl Stage for Gateway {
    const KIND: &'static str = "gateway";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Finds the Gateway through which a Determined master reaches tasks in a Kubernetes cluster, \
        waits until it is Programmed and has an address, and reports the master's internal_task_gateway block and a \
        kubeconfig for that one cluster. Nothing on the cluster is changed.";
    const EXAMPLES: &'static str = "Examples:
  devcluster-gateway --k8s-context my-gke
  devcluster-gateway once --gateway tcp-gateway --gateway-namespace default --port-range 40000-41000";

    type Config = Config;
    type Outputs = Outputs;

    fn validate(config: &Config) -> Vec<Problem> {
        config::validate(config)
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
        let found = tokio::select! {
            found = find(cx, &config) => found?,
            () = cx.shutdown.cancelled() => return Ok(()),
        };
        let file = KubeconfigFile::write(cx, &found.minified)?;
        let outputs = found.outputs(cx, &file, config.port_range);
        let held = async {
            cx.ready(outputs.clone()).await?;
            hold(
                cx,
                &found.cluster.peer,
                found.events,
                found.gateway,
                outputs.clone(),
            )
            .await
        };
        let held = tokio::select! {
            held = held => held,
            () = cx.shutdown.cancelled() => Ok(()),
        };
        held.and(file.remove())
    }

    /// The kubeconfig stays, for whoever asked; the ledger has it, and the next run or `cleanup` removes it.
    async fn once(cx: &Context<Self>, config: Config) -> Result<Outputs, StageError> {
        let found = find(cx, &config).await?;
        let file = KubeconfigFile::write(cx, &found.minified)?;
        Ok(found.outputs(cx, &file, config.port_range))
    }

    async fn check(
        cx: &Context<Self>,
        config: Option<Config>,
        outputs: Outputs,
    ) -> Result<(), StageError> {
        let kubeconfig = kubeconfig::load(Some(&outputs.kubeconfig_path), &cx.env)?;
        let connect = config.map_or(5, |config| config.connect_timeout);
        let minified = minify(&kubeconfig, None)?;
        let cluster = Cluster::connect(&minified, Duration::from_secs(connect), &cx.env).await?;
        let reported = &outputs.internal_task_gateway;
        let namespace = Some(reported.gateway_namespace.as_str());
        let gateway = cluster
            .gateways(namespace)
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

    async fn undo(_: &Context<Self>, entry: &Entry) -> Result<Undone, StageError> {
        match entry.what.as_str() {
            file::KIND => file::undo(&entry.data),
            _ => Ok(Undone::Nothing),
        }
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

/// A Gateway that works, and what is needed to watch over it.
struct Found {
    minified: Minified,
    cluster: Cluster,
    gateway: GatewayObject,
    address: String,
    controller: Option<String>,
    max_listeners: u32,
    events: Events,
}

async fn find(cx: &Context<Gateway>, config: &Config) -> Result<Found, StageError> {
    let minified = minify(
        &kubeconfig::load(config.kubeconfig.as_deref(), &cx.env)?,
        config.k8s_context.as_deref(),
    )?;
    cx.progress(
        "connect",
        format!(
            "asking the API of context {:?} for its Gateways",
            minified.context
        ),
    );
    let cluster = Cluster::connect(
        &minified,
        Duration::from_secs(config.connect_timeout),
        &cx.env,
    )
    .await?;
    let wanted = Wanted::of(config);
    let survey = survey(&cluster, &wanted).await?;
    let max_listeners = survey.max_listeners;
    let choice = choose(survey, &wanted, ours(cx, &minified.context).as_deref())?;
    choice.lines.iter().for_each(|line| cx.info(line));
    choice.warnings.iter().for_each(|line| cx.warn(line));
    let mut events = wait::watch(&cluster, &choice.gateway);
    let namespace = objects::namespace(&choice.gateway).to_owned();
    let timeout = Duration::from_secs(config.timeout);
    let tell = |line| cx.progress("wait", line);
    let ((gateway, address), ()) = tokio::try_join!(
        wait::until_ready(&mut events, choice.gateway, &cluster.peer, timeout, tell),
        review(&cluster, &namespace)
    )?;
    Ok(Found {
        minified,
        cluster,
        gateway,
        address,
        controller: choice.controller,
        max_listeners,
        events,
    })
}

/// The Gateway of our run before, if it was on this cluster.
fn ours(cx: &Context<Gateway>, context: &str) -> Option<String> {
    let previous = cx
        .previous()
        .filter(|previous| previous.context == context)?;
    let gateway = previous.internal_task_gateway;
    Some(format!(
        "{}/{}",
        gateway.gateway_namespace, gateway.gateway_name
    ))
}

impl Found {
    fn outputs(&self, cx: &Context<Gateway>, file: &KubeconfigFile, range: PortRange) -> Outputs {
        let capacity = capacity(&self.gateway, self.max_listeners, range);
        if capacity == 0 {
            cx.warn(format!(
                "Gateway {} has no room for another port",
                objects::title(&self.gateway)
            ));
        }
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
            provisioned: false,
        }
    }
}

/// How many listeners can be added: places on the Gateway and free ports in the range are both needed.
fn capacity(gateway: &GatewayObject, max_listeners: u32, range: PortRange) -> u32 {
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
