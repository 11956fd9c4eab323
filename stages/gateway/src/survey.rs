//! Reads what the cluster has, in one round of parallel requests.

use cluster::client::ANSWER;
use cluster::codes::FORBIDDEN;
use cluster::lease::LeaseState;
use cluster::{Attempt, Cluster, KubeContext, lease_expiry, status};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{ListParams, ObjectMeta};
use protocol::ledger::Entry;
use protocol::{Context, StageError};

use crate::Gateway;
use crate::codes;
use crate::config::Config;
use crate::crd::{Crd, MAX_LISTENERS};
use crate::lease::{self, GatewayLease};
use crate::leftovers;
use crate::objects::{self, CLASSES, ClassObject, GATEWAYS, GROUP, GatewayObject};
use crate::owned::{self, Owned};
use crate::usage::Usage;

/// What a decision needs to know.
pub(crate) struct Survey {
    /// The Gateways that match the config's name and namespace.
    pub(crate) gateways: Vec<GatewayObject>,
    /// `None`: the user may not list them.
    pub(crate) classes: Option<Vec<ClassObject>>,
    /// How many listeners a Gateway can have.
    pub(crate) max_listeners: u32,
    /// The Leases of all sessions, expired or not.
    pub(crate) leases: Vec<Lease>,
    /// What other sessions and masters use.
    pub(crate) usage: Usage,
    /// The Gateways of our earlier runs.
    pub(crate) previous: Vec<Owned>,
    /// The `namespace/name` of a Gateway of our own.
    pub(crate) own: String,
    /// The Gateway that our session holds.
    pub(crate) held: Option<String>,
}

/// The result of each request.
pub(crate) struct QueryResults {
    pub(crate) gateways: Result<Vec<GatewayObject>, StageError>,
    pub(crate) tcp_routes: Result<(), StageError>,
    classes: Result<Option<Vec<ClassObject>>, StageError>,
    /// `None`: the user may not read it, or it does not exist.
    pub(crate) crd: Option<Crd>,
    leases: Result<Vec<Lease>, StageError>,
}

/// Context, config and client, for everything that reads or changes the cluster.
pub(crate) struct Access<'a> {
    pub(crate) cx: &'a Context<Gateway>,
    pub(crate) config: &'a Config,
    pub(crate) cluster: Cluster,
}

impl<'a> Access<'a> {
    pub(crate) async fn connect(
        cx: &'a Context<Gateway>,
        config: &'a Config,
    ) -> Result<Self, StageError> {
        let (file, name) = (config.kubeconfig.as_deref(), config.k8s_context.as_deref());
        let context = KubeContext::load(file, name, &cx.env)?;
        let name = &context.name;
        let line = format!("reading the Gateways of context {name:?}");
        cx.progress("connect", line);
        Ok(Self {
            cx,
            config,
            cluster: Cluster::connect(context, config.timeouts(), &cx.env).await?,
        })
    }

    pub(crate) async fn query(&self) -> Result<QueryResults, StageError> {
        let (cluster, config) = (&self.cluster, self.config);
        let requests = async {
            tokio::join!(
                gateways(cluster, config),
                serves_tcp_routes(cluster),
                classes(cluster),
                Crd::get(cluster),
                lease::list(cluster, config.gateway_namespace.as_deref())
            )
        };
        let (gateways, tcp_routes, classes, crd, leases) = tokio::time::timeout(ANSWER, requests)
            .await
            .map_err(|_| cluster.context.no_answer())?;
        let tcp_routes = tcp_routes.and_then(|served| match served {
            true => Ok(()),
            false => Err(no_tcp_routes(cluster, crd.as_ref())),
        });
        Ok(QueryResults {
            gateways,
            tcp_routes,
            classes,
            crd,
            leases,
        })
    }

    /// Surveys without changing anything.
    pub(crate) async fn survey(&self) -> Result<Survey, StageError> {
        let mut survey = self.query().await?.into_survey(self)?;
        survey.load_usage(self).await;
        Ok(survey)
    }
}

impl QueryResults {
    pub(crate) fn into_survey(self, access: &Access<'_>) -> Result<Survey, StageError> {
        let gateways = self.gateways?;
        self.tcp_routes?;
        let (cx, context) = (access.cx, &access.cluster.context);
        let identity = cx.identity()?;
        let own = access.config.namespace(context);
        let leases = self.leases?;
        Ok(Survey {
            // By the ledger alone: others may write our identity on a Lease.
            held: None,
            previous: owned::all(cx, &context.reference()),
            own: format!("{own}/devcluster-{}", identity.short()),
            gateways,
            classes: self.classes?,
            max_listeners: self.crd.as_ref().map_or(MAX_LISTENERS, Crd::max_listeners),
            leases,
            usage: Usage::default(),
        })
    }
}

impl Survey {
    /// Loads the usage without changing anything: expired Leases do not count.
    pub(crate) async fn load_usage(&mut self, Access { cx, cluster, .. }: &Access<'_>) {
        let here = cluster.context.reference();
        let may_be_here =
            |it: &&Entry| leftovers::may_be_here(cx, it, &here).is_ok_and(|may_be| may_be);
        let entries = cx.ledger.entries();
        let ours = entries.iter().filter(may_be_here);
        // As a run does: it need not list Leases.
        for ours in ours.filter_map(GatewayLease::from_entry) {
            if let Ok(LeaseState::Ours(_)) = ours.lease_lock().get(cluster).await {
                self.held = Some(ours.title());
                break;
            }
        }
        let (_, live) = lease_expiry::preview(self.others(), &cx.env);
        self.set_usage(cluster, &live).await;
    }

    /// Leases of other sessions.
    pub(crate) fn others(&self) -> Vec<Lease> {
        let is_other = |lease: &&Lease| {
            let title = lease::title(lease);
            title.is_some() && title != self.held
        };
        self.leases.iter().filter(is_other).cloned().collect()
    }

    /// Loads the usage by live Leases and by masters.
    pub(crate) async fn set_usage(&mut self, cluster: &Cluster, live: &[Lease]) {
        self.usage = Usage::from_leases(live);
        let held = self.held.as_deref();
        self.usage.load(cluster, &self.gateways, held).await;
    }

    /// Whether this Gateway is ours from before: no session holds it since, and no tasks of another master use it.
    pub(crate) fn is_ours(&self, gateway: &GatewayObject) -> bool {
        let title = objects::title(gateway);
        if let Some(held) = &self.held {
            return *held == title;
        }
        let known = self.previous.iter().find(|it| it.title() == title);
        let is_known = known.is_some() || self.own == title;
        let tasks = known.map(|it| it.allocations.clone()).unwrap_or_default();
        is_known && !self.usage.is_leased(&title) && self.usage.has_only(gateway, &tasks)
    }

    /// The name for a Gateway of our own: always the same, unless another owner has it.
    pub(crate) fn new_name(&self, namespace: &str, run: &str) -> String {
        let name = self.own.rsplit('/').next().unwrap_or_default();
        let title = format!("{namespace}/{name}");
        let is_there = |it: &GatewayObject| {
            objects::title(it) == title && it.metadata.deletion_timestamp.is_none()
        };
        let is_used = self.gateways.iter().any(is_there) || self.usage.is_leased(&title);
        match is_used && self.held.as_deref() != Some(&*title) {
            true => format!("{name}-{}", run.get(..4).unwrap_or(run)),
            false => name.to_owned(),
        }
    }
}

async fn gateways(cluster: &Cluster, config: &Config) -> Result<Vec<GatewayObject>, StageError> {
    let namespace = config.gateway_namespace.as_deref();
    let api = objects::gateways(cluster, namespace);
    let mut listed = ListParams::default();
    listed.label_selector.clone_from(&config.selector);
    let (verb, answer) = match (&config.gateway, namespace) {
        // A user who may get this Gateway need not list Gateways.
        (Some(name), Some(_)) => ("get", api.get(name).await.map(|gateway| vec![gateway])),
        (Some(name), None) => {
            let named = listed.fields(&format!("metadata.name={name}"));
            ("list", api.list(&named).await.map(|list| list.items))
        }
        (None, _) => ("list", all(&api, listed).await),
    };
    match answer {
        Ok(gateways) => Ok(gateways),
        Err(kube::Error::Api(status)) if status.code == 404 && status.reason == "NotFound" => {
            Ok(Vec::new())
        }
        Err(error) if status(&error) == 404 => Err(no_gateway_api(cluster)),
        // A user without a role gets 403 for what does not exist, too.
        Err(error) if status(&error) == 403 && !is_served(cluster, "v1").await? => {
            Err(no_gateway_api(cluster))
        }
        Err(error) => {
            let mut error = cluster.failed(verb, GATEWAYS, namespace, &error);
            if error.is(FORBIDDEN) && verb == "list" && namespace.is_none() {
                let instead =
                    ", or set `gateway` and `gateway_namespace`: a single Gateway needs no list";
                error.hint = error.hint.map(|hint| hint + instead);
            }
            Err(error)
        }
    }
}

/// Gateways per page.
const PAGE: u32 = 500;

/// Lists page by page, and keeps only the fields that are read.
async fn all(api: &Api<GatewayObject>, mut listed: ListParams) -> kube::Result<Vec<GatewayObject>> {
    listed.limit = Some(PAGE);
    let mut gateways = Vec::new();
    loop {
        let page = api.list(&listed).await?;
        gateways.extend(page.items.into_iter().map(trimmed));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => listed.continue_token = Some(token),
            None => return Ok(gateways),
        }
    }
}

/// Drops `managedFields` and others, which are far longer than the rest.
fn trimmed(gateway: GatewayObject) -> GatewayObject {
    let mut annotations = gateway.metadata.annotations.unwrap_or_default();
    annotations.retain(|key, _| objects::is_port(key));
    GatewayObject {
        metadata: ObjectMeta {
            name: gateway.metadata.name,
            namespace: gateway.metadata.namespace,
            deletion_timestamp: gateway.metadata.deletion_timestamp,
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: gateway.metadata.owner_references,
            ..ObjectMeta::default()
        },
        ..gateway
    }
}

/// Determined uses v1alpha2 of TCPRoute and no other version.
async fn serves_tcp_routes(cluster: &Cluster) -> Result<bool, StageError> {
    let served = resources(cluster, "v1alpha2").await?;
    Ok(served.iter().any(|it| it == "tcproutes"))
}

async fn is_served(cluster: &Cluster, version: &str) -> Result<bool, StageError> {
    Ok(!resources(cluster, version).await?.is_empty())
}

/// The resources of a version of the Gateway API.
async fn resources(cluster: &Cluster, version: &str) -> Result<Vec<String>, StageError> {
    let version = format!("{GROUP}/{version}");
    match cluster.client.list_api_group_resources(&version).await {
        Ok(list) => Ok(list.resources.into_iter().map(|it| it.name).collect()),
        Err(error) if status(&error) == 404 => Ok(Vec::new()),
        Err(error) => {
            let attempt = Attempt::new("discover", version, None);
            Err(cluster.context.request_failed(&attempt, &error))
        }
    }
}

async fn classes(cluster: &Cluster) -> Result<Option<Vec<ClassObject>>, StageError> {
    match objects::classes(cluster).list(&ListParams::default()).await {
        Ok(list) => Ok(Some(list.items)),
        // A Gateway that works has a class that works: only the name of the controller is missing in the outputs.
        Err(error) if matches!(status(&error), 403 | 404) => Ok(None),
        Err(error) => Err(cluster.failed("list", CLASSES, None, &error)),
    }
}

fn no_gateway_api(cluster: &Cluster) -> StageError {
    let name = &cluster.context.name;
    let message = format!("the cluster of context {name:?} has no Gateway API");
    StageError::new(codes::API_MISSING, message)
}

fn no_tcp_routes(cluster: &Cluster, crd: Option<&Crd>) -> StageError {
    let name = &cluster.context.name;
    let installed = crd.and_then(Crd::bundle).map(|(version, channel)| {
        format!(" It has the Gateway API's {version}, {channel} channel.")
    });
    let message = format!(
        "the cluster of context {name:?} does not serve TCPRoute v1alpha2, which Determined uses.{}",
        installed.unwrap_or_default()
    );
    StageError::new(codes::TCPROUTE_MISSING, message)
}
