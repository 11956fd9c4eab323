//! The stage itself: acquire, report, watch, release.

use std::time::Duration;

use cluster::lease::LeaseState;
use cluster::{Cluster, KubeContext};
use protocol::ledger::Entry;
use protocol::provides::{KUBECONFIG, Provides, TASK_GATEWAY};
use protocol::validate::Gate;
use protocol::{Codes, Context, Leftover, PortRange, Problem, Stage, StageError};
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::acquire::{self, Resources, Selection};
use crate::codes;
use crate::config::{self, Config};
use crate::dry_run::dry_run;
use crate::kubeconfig_file::KubeconfigFile;
use crate::lease::{GatewayLease, SESSION};
use crate::objects::{self, GatewayObject};
use crate::outputs::{InternalTaskGateway, Outputs};
use crate::owned::Memory;
use crate::session::Session;
use crate::task_namespace::TaskNamespace;
use crate::tasks::{self, Tasks};
use crate::watch::{Health, follow_gateway};
use crate::{Gateway, gc, leftovers, owned, preflight, provision, readiness, task_namespace};

impl Stage for Gateway {
    const KIND: &'static str = "gateway";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CODES: &'static [Codes] = &[codes::ALL, cluster::codes::ALL];
    const ABOUT: &'static str = "Acquires or creates the Gateway through which a Determined master reaches tasks in a Kubernetes \
        cluster, waits until it is Programmed and has an address, and reports the master's internal_task_gateway block and a \
        kubeconfig for that one cluster. A Lease reserves the Gateway for this session; in the end everything is released.";
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
            None => format!("holds or creates a Gateway in {context}, for the master"),
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
        let mut resources = Resources::default();
        let tasks = watch::Sender::new(Tasks::Unknown);
        let selected = tokio::select! {
            selected = acquire::acquire(cx, &config, &mut resources) => selected.map(Some),
            () = cx.shutdown.cancelled() => Ok(None),
        };
        let served = match (selected, &mut resources.session) {
            (Ok(Some(selection)), Some(session)) => {
                let (owned, namespace) = (&mut resources.owned, &mut resources.tasks);
                let serves = serve(cx, &config, selection, session, owned, &tasks);
                tokio::select! {
                    served = serves => served,
                    lost = until_lost(&config, namespace, tasks.subscribe()) => Err(lost),
                }
            }
            (Ok(_), _) => Ok(()),
            (Err(error), _) => Err(error),
        };
        let tasks = resources.tasks_at_the_end(*tasks.borrow()).await;
        let released = resources.release(cx, config.leave, tasks).await;
        served.and(released)
    }

    /// Acquires nothing: another stage holds the Gateway, or the outputs are enough. The kubeconfig file stays; the
    /// next run or `cleanup` removes it by the ledger.
    async fn once(cx: &Context<Self>, config: Config) -> Result<Outputs, StageError> {
        if config.dry_run {
            let message = "`once` creates nothing: `dry_run` is for `run`";
            return Err(StageError::new(protocol::codes::CONFIG, message)
                .hint("use `devcluster-gateway run --dry-run`"));
        }
        let mut found = acquire::discover(cx, &config).await?;
        let (address, _) = found.ready(cx, &config).await?;
        let capacity = found.capacity(cx, &config)?;
        let file = KubeconfigFile::write(cx, &found.cluster.context)?;
        Ok(found.outputs(address, &file, config.port_range, capacity))
    }

    fn is_resumable(entry: &Entry) -> bool {
        let kinds = [
            SESSION,
            provision::KIND,
            gc::OTHERS,
            owned::KIND,
            task_namespace::KIND,
        ];
        kinds.contains(&entry.what.as_str())
    }

    async fn check(
        cx: &Context<Self>,
        config: Option<Config>,
        outputs: Outputs,
    ) -> Result<(), StageError> {
        let timeouts = config.as_ref().map(Config::timeouts).unwrap_or_default();
        let context = KubeContext::load(Some(&outputs.kubeconfig_path), None, &cx.env)?;
        let cluster = Cluster::connect(context, timeouts, &cx.env).await?;
        let InternalTaskGateway {
            gateway_name: name,
            gateway_namespace: namespace,
            gateway_ip: reported,
            ..
        } = &outputs.internal_task_gateway;
        let Some(gateway) = objects::gateway(&cluster, namespace, name).await? else {
            return Err(readiness::deleted(&format!("{namespace}/{name}")));
        };
        match objects::address(&gateway) {
            Ok(address) if address == *reported => {
                check_lease(cx, &cluster, &format!("{namespace}/{name}")).await
            }
            Ok(address) => Err(moved(&gateway, reported, &address)),
            Err(why) => Err(readiness::not_ready(&gateway, &why, &cluster.context)),
        }
    }

    async fn preflight(cx: &Context<Self>, config: Config) {
        preflight::preflight(cx, &config).await;
    }

    async fn is_needed(cx: &Context<Self>, entry: &Entry) -> bool {
        leftovers::is_needed(cx, entry).await
    }

    async fn leftovers<'a>(
        cx: &'a Context<Self>,
        entry: &'a Entry,
    ) -> Result<Vec<Leftover<'a>>, StageError> {
        leftovers::leftovers(cx, entry).await
    }
}

/// Whether the session still holds the Gateway.
async fn check_lease(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    gateway: &str,
) -> Result<(), StageError> {
    let entries = cx.ledger.entries();
    let mut ours = entries.iter().filter_map(GatewayLease::from_entry);
    let why = match ours.find(|it| it.title() == gateway) {
        Some(ours) => match ours.lease_lock().get(cluster).await? {
            LeaseState::Ours(_) => return Ok(()),
            LeaseState::Theirs(held) => cluster::lease::describe(&held),
            LeaseState::Missing => "its Lease has been deleted".to_owned(),
        },
        None => "its ledger lists no Lease on it".to_owned(),
    };
    let message = format!("this session has lost Gateway {gateway}: {why}");
    Err(StageError::new(codes::SESSION_LOST, message))
}

fn moved(gateway: &GatewayObject, reported: &str, address: &str) -> StageError {
    let message = format!(
        "the address of Gateway {} is now {address}, not {reported}",
        objects::title(gateway)
    );
    StageError::new(codes::ADDRESS_CHANGED, message)
}

/// Renews our part in the task namespace until it is lost.
async fn until_lost(
    config: &Config,
    namespace: &mut Option<TaskNamespace>,
    tasks: watch::Receiver<Tasks>,
) -> StageError {
    match namespace {
        Some(namespace) => namespace.renew_until_lost(config, tasks).await,
        None => std::future::pending().await,
    }
}

/// Waits for the Gateway, reports it, and watches it until the end.
async fn serve(
    cx: &Context<Gateway>,
    config: &Config,
    mut found: Selection,
    session: &mut Session,
    owned: &mut Option<Memory>,
    tasks: &watch::Sender<Tasks>,
) -> Result<(), StageError> {
    let mut known = tasks.subscribe();
    let lease_news = watch::Sender::new(None);
    let (cluster, lease) = (found.cluster.clone(), session.lease.clone());
    let ports = watch::Sender::new(objects::allocations(&found.gateway));
    let counts = async {
        match lease.keep {
            0 => std::future::pending().await,
            _ => tasks::follow(&cluster, &lease.task_namespace, ports.subscribe(), tasks).await,
        }
    };
    tokio::pin!(counts);
    let (address, events) = tokio::select! {
        ready = found.ready(cx, config) => ready?,
        never = &mut counts => match never {},
        lost = session.renew_until_lost(cx, &mut known, &lease_news) => return Err(lost),
        () = cx.shutdown.cancelled() => return Ok(()),
    };
    let capacity = found.capacity(cx, config)?;
    let file = KubeconfigFile::write(cx, &found.cluster.context)?;
    let outputs = found.outputs(address, &file, config.port_range, capacity);
    session.used = true;
    ports.send_replace(objects::allocations(&found.gateway));
    if lease.keep > 0 && (config.leave || !lease.made) {
        let allocations = ports.borrow().clone();
        *owned = Some(Memory::start(cx, &cluster, &lease, allocations)?);
    }
    let health = Health::new(cx, outputs, &ports);
    let held = async {
        health.ready().await?;
        follow_gateway(&health, config, found, events).await
    };
    let remembers = async {
        match owned.as_mut() {
            Some(memory) => memory.follow(ports.subscribe()).await,
            None => std::future::pending().await,
        }
    };
    let period = Duration::from_secs(config.lease_duration.into());
    let title = session.lease.title();
    let held = tokio::select! {
        held = held => held,
        held = health.follow_lease(lease_news.subscribe()) => held,
        never = gc::run_periodically(cx, &cluster, period, &title) => never,
        never = &mut counts => match never {},
        remembered = remembers => remembered,
        lost = session.renew_until_lost(cx, &mut known, &lease_news) => Err(lost),
        () = cx.shutdown.cancelled() => Ok(()),
    };
    if ports.borrow().is_empty()
        && let Some(unused) = owned.take()
    {
        unused.forget()?;
    }
    held.and(file.remove())
}

impl Selection {
    fn capacity(&self, cx: &Context<Gateway>, config: &Config) -> Result<u32, StageError> {
        let capacity = objects::capacity(&self.gateway, self.max_listeners, config.port_range);
        let title = objects::title(&self.gateway);
        if capacity < config.min_capacity {
            let message = format!(
                "Gateway {title} has room for {capacity} ports, fewer than `min_capacity` {}: it can have {} listeners and has {}, \
                 and the port range has {} ports",
                config.min_capacity,
                self.max_listeners,
                self.gateway.spec.listeners.len(),
                config.port_range.count()
            );
            return Err(StageError::new(codes::CAPACITY_LOW, message)
                .hint("widen `port_range`, free listeners, or lower `min_capacity`"));
        }
        if capacity == 0 {
            cx.warn(format!("Gateway {title} has no room for another port"));
        }
        Ok(capacity)
    }

    fn outputs(
        &self,
        address: String,
        file: &KubeconfigFile,
        range: PortRange,
        capacity: u32,
    ) -> Outputs {
        Outputs {
            internal_task_gateway: InternalTaskGateway {
                gateway_name: objects::name(&self.gateway).to_owned(),
                gateway_namespace: objects::namespace(&self.gateway).to_owned(),
                gateway_ip: address,
                gateway_port_range_start: range.first,
                gateway_port_range_end: range.last,
            },
            kubeconfig_path: file.path.clone(),
            context: self.cluster.context.name.clone(),
            controller: self.controller.clone(),
            capacity,
            provisioned: self.provisioned,
        }
    }
}
