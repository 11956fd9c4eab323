//! Acquires a Gateway: survey, decision, Lease, readiness.

use std::time::Duration;

use cluster::Cluster;
use cluster::lease_expiry::has_expired;
use futures::future::OptionFuture;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use protocol::{Context, StageError, run_id};

use crate::Gateway;
use crate::codes;
use crate::config::Config;
use crate::crd::raise_listener_limit;
use crate::decide::{
    Abandoned, Action, Choice, Decision, NewGateway, choose, decide, is_fixed_by_provisioning,
};
use crate::dedicated;
use crate::gc;
use crate::lease::{self, GatewayLease};
use crate::leftovers;
use crate::objects::{self, GatewayObject};
use crate::owned::Memory;
use crate::permissions;
use crate::prompt;
use crate::provision::Infrastructure;
use crate::readiness::{self, Events};
use crate::session::Session;
use crate::survey::{Access, Survey};
use crate::task_namespace::TaskNamespace;
use crate::tasks::Tasks;

/// The selected Gateway, ready or not.
pub(crate) struct Selection {
    pub(crate) cluster: Cluster,
    pub(crate) gateway: GatewayObject,
    /// Whether this session created it.
    made: bool,
    pub(crate) controller: Option<String>,
    /// Whether devcluster-gateway installed its controller.
    pub(crate) provisioned: bool,
    pub(crate) max_listeners: u32,
}

impl Selection {
    fn from_choice(cluster: &Cluster, survey: &Survey, choice: Choice, made: bool) -> Self {
        Self {
            cluster: cluster.clone(),
            gateway: choice.gateway,
            made,
            controller: choice.controller,
            provisioned: choice.provisioned,
            max_listeners: survey.max_listeners,
        }
    }

    /// Waits until the Gateway is ready. Returns its address, and the watch if one was needed.
    pub(crate) async fn ready(
        &mut self,
        cx: &Context<Gateway>,
        config: &Config,
    ) -> Result<(String, Option<Events>), StageError> {
        let (cluster, gateway) = (&self.cluster, &self.gateway);
        let waits = async {
            if let Ok(address) = objects::address(gateway) {
                return Ok((gateway.clone(), address, None));
            }
            let mut events = readiness::events(cluster, gateway, config.lease_duration);
            let timeout = Duration::from_secs(config.timeout);
            let (gateway, context) = (gateway.clone(), &cluster.context);
            let tell = |line| cx.progress("wait", line);
            let waited = readiness::until_ready(&mut events, gateway, context, timeout, tell);
            match waited.await {
                Ok((gateway, address)) => Ok((gateway, address, Some(events))),
                Err(error) => Err(readiness::explain(cluster, &self.gateway, error).await),
            }
        };
        let namespace = objects::namespace(gateway);
        let may = permissions::review(cluster, namespace, &config.task_namespace, self.made);
        let ((gateway, address, events), ()) = tokio::try_join!(waits, may)?;
        self.gateway = gateway;
        Ok((address, events))
    }
}

/// Selects a Gateway without acquiring it: for a Gateway that another stage holds.
pub(crate) async fn discover(
    cx: &Context<Gateway>,
    config: &Config,
) -> Result<Selection, StageError> {
    let access = Access::connect(cx, config).await?;
    let survey = access.survey().await?;
    let choice = choose(&survey, config)?;
    choice.log(cx);
    Ok(Selection::from_choice(
        &access.cluster,
        &survey,
        choice,
        false,
    ))
}

/// What this run holds on the cluster and releases in the end.
#[derive(Default)]
pub(crate) struct Resources {
    pub(crate) session: Option<Session>,
    pub(crate) infrastructure: Option<Infrastructure>,
    pub(crate) tasks: Option<TaskNamespace>,
    /// The memory of the Gateway that our master uses.
    pub(crate) owned: Option<Memory>,
}

/// Time limit for a look at the tasks at a stop: the rest is for one round of requests.
const LOOK_TIMEOUT: Duration = Duration::from_millis(200);

impl Resources {
    /// The tasks, with one look unless there are known to be none. A run that no master has used has none.
    pub(crate) async fn tasks_at_the_end(&self, known: Tasks) -> Tasks {
        let (session, namespace) = (self.session.as_ref(), self.tasks.as_ref());
        let is_used =
            session.is_some_and(|it| it.used) || namespace.is_some_and(|it| it.is_resumed);
        let look = async {
            match (session, namespace) {
                (Some(session), _) if session.lease.keep > 0 => session.count_tasks().await,
                (None, Some(namespace)) => namespace.count_tasks().await,
                _ => known,
            }
        };
        match known {
            _ if !is_used => Tasks::None,
            Tasks::None => Tasks::None,
            // Known from ports, which a dead master leaves.
            _ => match tokio::time::timeout(LOOK_TIMEOUT, look).await {
                Ok(Tasks::Unknown) | Err(_) => known,
                Ok(now) => now,
            },
        }
    }

    /// Releases what takes one round of requests; the ledger keeps the rest.
    pub(crate) async fn release(
        mut self,
        cx: &Context<Gateway>,
        leave: bool,
        tasks: Tasks,
    ) -> Result<(), StageError> {
        // A copy of this machine takes both.
        if self.tasks.as_ref().is_some_and(|it| it.lost)
            && let Some(session) = &mut self.session
        {
            session.look().await;
        }
        let session = OptionFuture::from(self.session.map(|it| it.release(cx, leave, tasks)));
        let infrastructure = self.infrastructure.map(|it| it.release(cx, leave));
        let namespace = self.tasks.map(|it| it.release(tasks));
        let namespace = OptionFuture::from(namespace);
        let infrastructure = OptionFuture::from(infrastructure);
        let (session, namespace, infrastructure) = tokio::join!(session, namespace, infrastructure);
        let all = [session, namespace, infrastructure].into_iter().flatten();
        all.collect()
    }
}

/// How often the cluster may change before this is an error.
const ATTEMPTS: u32 = 4;

/// Acquires or creates a Gateway, and installs a controller if necessary. Whatever must be undone is in `resources`
/// before the first request for it.
pub(crate) async fn acquire(
    cx: &Context<Gateway>,
    config: &Config,
    resources: &mut Resources,
) -> Result<Selection, StageError> {
    let access = Access::connect(cx, config).await?;
    resources.session = resume(cx, config, &access.cluster).await?;
    let (mut attempts, mut installed) = (0, false);
    loop {
        let error = match access.try_acquire(resources).await {
            Ok(Some(selection)) => return Ok(selection),
            Ok(None) if attempts + 1 < ATTEMPTS => {
                attempts += 1;
                continue;
            }
            Ok(None) => {
                let message = "other sessions remove the GatewayClass again and again";
                return Err(StageError::new(codes::INFRASTRUCTURE_BUSY, message));
            }
            Err(error) => error,
        };
        if installed || !is_fixed_by_provisioning(&error, config) {
            return Err(error);
        }
        access
            .offer_install(&mut resources.infrastructure, error)
            .await?;
        installed = true;
    }
}

/// Resumes the session of an earlier run if we still hold its Lease. Sessions that cannot be resumed are released.
async fn resume(
    cx: &Context<Gateway>,
    config: &Config,
    cluster: &Cluster,
) -> Result<Option<Session>, StageError> {
    let mut resumed = None;
    let here = cluster.context.reference();
    for entry in cx.ledger.entries() {
        let is_here = leftovers::is_here(&entry, &here);
        let is_usable = leftovers::may_be_here(cx, &entry, &here)?;
        let Some(lease) = GatewayLease::from_entry(&entry).filter(|_| is_usable) else {
            continue;
        };
        if resumed.is_none() {
            let title = lease.title();
            let renewed = lease.clone().of_run(cx, config)?;
            match Session::resume(cx, cluster, &entry, &lease, renewed).await {
                Err(error) if is_here => return Err(error),
                other => resumed = other.ok().flatten(),
            }
            if resumed.is_some() {
                cx.info(format!("resuming the session on Gateway {title}"));
                continue;
            }
        }
        if !is_here {
            continue;
        }
        match release(cluster, &lease).await {
            Ok(()) => cx.ledger.adopt(&entry).settle()?,
            Err(error) => cx.warn(format!("an earlier session is not released yet: {error}")),
        }
    }
    Ok(resumed)
}

async fn release(cluster: &Cluster, lease: &GatewayLease) -> Result<(), StageError> {
    for leftover in leftovers::session_leftovers(cluster, lease).await? {
        leftover.remove().await?;
    }
    Ok(())
}

impl GatewayLease {
    /// The Lease as a run of this config writes it.
    fn of_run(self, cx: &Context<Gateway>, config: &Config) -> Result<Self, StageError> {
        Ok(Self {
            // Releases without identities wrote other holders.
            holder: cx.identity()?.as_str().to_owned(),
            duration: config.lease_duration,
            keep: if cx.is_lasting() { config.keep } else { 0 },
            task_namespace: config.task_namespace.clone(),
            run: Some(cx.run_id().to_owned()),
            user: lease::user(cx),
            ..self
        })
    }
}

/// The config asks for another Gateway while tasks depend on that of an earlier run.
fn tasks_run(lease: &GatewayLease, tasks: Tasks) -> StageError {
    let (title, tasks) = (lease.title(), tasks.describe());
    let message = format!("Gateway {title} stays for {tasks}, and the config asks for another one");
    StageError::new(codes::TASKS_RUN, message)
}

impl Access<'_> {
    /// `None`: the cluster changed meanwhile.
    async fn try_acquire(
        &self,
        resources: &mut Resources,
    ) -> Result<Option<Selection>, StageError> {
        let (cx, config, cluster) = (self.cx, self.config, &self.cluster);
        let mut survey = self.query().await?.into_survey(self)?;
        let session = resources.session.as_ref();
        if let Some(title) = session.map(|session| session.lease.title()) {
            survey.held = Some(title);
        }
        self.raise_limit(&mut survey).await?;
        let live = gc::collect(cx, cluster, survey.others()).await?;
        survey.set_usage(cluster, &live).await;
        loop {
            let Decision { action, abandoned } = decide(&survey, config);
            if let Some(title) = self.allowed(abandoned).await? {
                survey.usage.allow(title);
                continue;
            }
            let choice = match action {
                Action::Take(choice) => choice,
                Action::Make(make) => return self.make(&survey, *make, resources).await,
                Action::Install(error) | Action::Fail(error) => return Err(error),
            };
            if let Some(who) = self.take(&choice.gateway, resources).await? {
                let title = objects::title(&choice.gateway);
                cx.debug(format!("Gateway {title}: {who}"));
                let leases = lease::list(cluster, config.gateway_namespace.as_deref()).await?;
                survey.usage.record_loss(title, who, &leases);
                continue;
            }
            choice.log(cx);
            let made = resources.session.as_ref().is_some_and(|it| it.lease.made);
            let selection = Selection::from_choice(cluster, &survey, *choice, made);
            return Ok(Some(selection));
        }
    }

    async fn raise_limit(&self, survey: &mut Survey) -> Result<(), StageError> {
        let limit = self.config.raise_max_items;
        let Some(limit) = limit.filter(|it| *it > survey.max_listeners) else {
            return Ok(());
        };
        raise_listener_limit(&self.cluster, limit).await?;
        survey.max_listeners = limit;
        self.cx.warn(format!(
            "this changes the cluster for all its users: the CRD allows {limit} listeners on each Gateway now, until it is installed again"
        ));
        Ok(())
    }

    /// Asks a person at the terminal whether to take a Gateway that still has a dead master's ports.
    async fn allowed(&self, abandoned: Vec<Abandoned>) -> Result<Option<String>, StageError> {
        for gateway in abandoned {
            if prompt::confirm(self.cx, &gateway.question()).await? {
                return Ok(Some(gateway.title));
            }
        }
        Ok(None)
    }

    /// Acquires the Gateway's Lease, unless we hold it. The session is in the slot before the first request that must
    /// be undone. If another session holds the Lease, says which.
    async fn take(
        &self,
        gateway: &GatewayObject,
        resources: &mut Resources,
    ) -> Result<Option<String>, StageError> {
        let is_held = |it: &Session| it.lease.title() == objects::title(gateway);
        if resources.session.as_ref().is_some_and(is_held) {
            self.hold_task_namespace(resources).await?;
            return Ok(None);
        }
        let (namespace, name) = (objects::namespace(gateway), objects::name(gateway));
        let session = self.intend(resources, namespace, name, None).await?;
        let may_take = |it: &Lease| self.config.take_over || has_expired(it, &self.cx.env);
        let theirs = session.acquire(may_take).await?;
        if let Some(session) = resources.session.take_if(|_| theirs.is_some()) {
            session.discard()?;
        }
        Ok(theirs)
    }

    async fn hold_task_namespace(&self, resources: &mut Resources) -> Result<(), StageError> {
        if resources.tasks.is_some() {
            return Ok(());
        }
        TaskNamespace::acquire(self.cx, self.config, &self.cluster, &mut resources.tasks).await
    }

    /// Puts a session for this Gateway into the slot; releases one for another Gateway.
    async fn intend<'a>(
        &self,
        resources: &'a mut Resources,
        namespace: &str,
        gateway: &str,
        class: Option<&str>,
    ) -> Result<&'a mut Session, StageError> {
        self.hold_task_namespace(resources).await?;
        if let Some(other) = &resources.session
            && other.lease.keep > 0
        {
            let tasks = other.count_tasks().await;
            if tasks != Tasks::None {
                return Err(tasks_run(&other.lease, tasks));
            }
        }
        if let Some(other) = resources.session.take() {
            let title = other.lease.title();
            self.cx
                .info(format!("releasing Gateway {title} of an earlier run"));
            other.release(self.cx, false, Tasks::None).await?;
        }
        let lease = GatewayLease {
            namespace: namespace.to_owned(),
            gateway: gateway.to_owned(),
            holder: String::new(),
            duration: 0,
            keep: 0,
            task_namespace: String::new(),
            made: class.is_some(),
            class: class.map(str::to_owned),
            uid: None,
            before: None,
            run: None,
            user: String::new(),
        };
        let lease = lease.of_run(self.cx, self.config)?;
        let session = Session::intend(self.cx, &self.cluster, lease)?;
        Ok(resources.session.insert(session))
    }

    /// `None`: the class was removed meanwhile.
    async fn make(
        &self,
        survey: &Survey,
        make: NewGateway,
        resources: &mut Resources,
    ) -> Result<Option<Selection>, StageError> {
        let (cx, config, cluster) = (self.cx, self.config, &self.cluster);
        let NewGateway { class, rejected } = make;
        rejected.iter().for_each(|line| cx.info(line));
        let name = class.name_any();
        let provisioned = objects::is_installed(&class);
        if provisioned
            && !self
                .lock_class(&mut resources.infrastructure, &name)
                .await?
        {
            cx.info(format!(
                "the last session that used GatewayClass {name} has just removed it"
            ));
            return Ok(None);
        }
        let namespace = config.namespace(&cluster.context);
        let gateway = survey.new_name(&namespace, &run_id());
        let line = format!("creating Gateway {namespace}/{gateway} of GatewayClass {name}");
        cx.progress("make", line);
        let session = self
            .intend(resources, &namespace, &gateway, Some(&name))
            .await?;
        if let Some(who) = session.acquire(|_| false).await? {
            let message = format!("our own name is in use: {who}");
            return Err(StageError::internal(message));
        }
        let Some(owner) = &session.confirmed else {
            return Err(StageError::internal("the session was never acquired"));
        };
        let (lease, range) = (&session.lease, config.port_range);
        let gateway = dedicated::make(cluster, lease, owner, &name, range).await?;
        if let Some(infrastructure) = &mut resources.infrastructure {
            // From now on the Gateway keeps other sessions from removing its class.
            infrastructure.unlock().await?;
        }
        Ok(Some(Selection {
            cluster: cluster.clone(),
            gateway,
            made: true,
            controller: Some(class.spec.controller_name),
            provisioned,
            max_listeners: survey.max_listeners,
        }))
    }
}
