//! `check --preflight`: everything that a run will need, each thing by itself.

mod gateway;

use cluster::permissions::refuse_denied;
use cluster::{Attempt, Cluster};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use protocol::{Context, StageError, What};

use crate::Gateway;
use crate::config::{Config, Provision};
use crate::crd::Crd;
use crate::decide::is_fixed_by_provisioning;
use crate::permissions;
use crate::survey::{self, Answers, ask, connect};

const CLUSTER: What = ("cluster", "the API of the cluster answers");
const GATEWAY_API: What = ("gateway_api", "the Gateway API is installed");
const TCP_ROUTES: What = ("tcp_routes", "TCPRoute v1alpha2 is served");
const TASKS: What = ("task_namespace", "the namespace of tasks exists");
const NAMESPACE: What = ("gateway_namespace", "the namespace of the Gateway exists");
const SESSION: What = ("session", "a session can be held by a Lease");
const MASTER: What = ("master", "the master may do what it does for tasks");
const OWN: What = ("own_gateway", "a Gateway can be made and deleted");
const LEFTOVERS: What = (
    "leftovers",
    "no Gateway is passed over for what a dead master left",
);
const GATEWAY: What = ("gateway", "there is a Gateway for this master");
const CONTROLLER: What = ("controller", "a controller can be installed");
const CAPACITY: What = ("capacity", "the Gateway has room for the master's ports");

/// All that need the cluster.
const REST: [What; 11] = [
    GATEWAY_API,
    TCP_ROUTES,
    TASKS,
    NAMESPACE,
    SESSION,
    MASTER,
    OWN,
    LEFTOVERS,
    GATEWAY,
    CONTROLLER,
    CAPACITY,
];

pub(crate) async fn preflight(cx: &Context<Gateway>, config: &Config) {
    let answered = async {
        let cluster = connect(cx, config).await?;
        let version = async {
            let version = cluster.client.apiserver_version().await;
            version.map_err(|error| cluster.failed("get", "version", None, &error))
        };
        let (version, answers) = tokio::try_join!(version, ask(&cluster, config))?;
        Ok((cluster, version, answers))
    };
    let (cluster, version, answers) = match answered.await {
        Ok(all) => all,
        Err(error) => {
            cx.tell(CLUSTER, Err(error));
            return cx.skip(&REST, "needs the cluster");
        }
    };
    let (name, server) = (&cluster.context.name, &cluster.context.server);
    let version = version.git_version;
    let found = format!("context {name:?} at {server}, Kubernetes {version}");
    cx.tell(CLUSTER, Ok(found));
    let preflight = Preflight {
        cx,
        config,
        cluster: &cluster,
    };
    preflight.apis(&answers);
    tokio::join!(
        preflight.namespaces(),
        preflight.permissions(),
        preflight.gateway(answers)
    );
}

struct Preflight<'a> {
    cx: &'a Context<Gateway>,
    config: &'a Config,
    cluster: &'a Cluster,
}

impl Preflight<'_> {
    fn apis(&self, answers: &Answers) {
        let installed = answers.crd.as_ref().and_then(Crd::bundle);
        let found = installed
            .map(|(release, channel)| format!("{release}, {channel} channel"))
            .unwrap_or_default();
        let missing = |what: What, error: StageError| {
            if self.config.provision == Provision::Auto
                && is_fixed_by_provisioning(&error, self.config)
            {
                let why = "is missing, and is installed with a controller";
                self.cx.skip(&[what], why);
            } else {
                self.cx.tell(what, Err(error));
            }
        };
        match &answers.gateways {
            Ok(Some(_)) => self.cx.tell(GATEWAY_API, Ok(found)),
            Ok(None) => missing(GATEWAY_API, survey::no_gateway_api(self.cluster)),
            Err(error) => self.cx.tell(GATEWAY_API, Err(error.clone())),
        }
        match &answers.tcp_routes {
            Ok(true) => self.cx.tell(TCP_ROUTES, Ok(String::new())),
            Ok(false) => {
                let error = survey::no_tcp_routes(self.cluster, answers.crd.as_ref());
                missing(TCP_ROUTES, error);
            }
            Err(error) => self.cx.tell(TCP_ROUTES, Err(error.clone())),
        }
    }

    async fn namespaces(&self) {
        let look = async |what: What, name: &str, field: &str| {
            let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
            match namespaces.get_metadata_opt(name).await {
                Ok(Some(_)) => self.cx.tell(what, Ok(name.to_owned())),
                Ok(None) => {
                    let missing = self.cluster.context.namespace_missing(name, field);
                    self.cx.tell(what, Err(missing));
                }
                Err(_) => self.cx.skip(&[what], "namespaces may not be read"),
            }
        };
        let own = self.config.namespace(&self.cluster.context);
        tokio::join!(
            look(TASKS, &self.config.task_namespace, "task_namespace"),
            look(NAMESPACE, &own, "gateway_namespace")
        );
    }

    async fn permissions(&self) {
        let namespace = self.config.namespace(&self.cluster.context);
        let review = async |what: What, needed: Vec<Attempt>| {
            let may = refuse_denied(self.cluster, &needed).await;
            let may = may.map(|()| format!("{} verbs", needed.len()));
            match may {
                // Not needed where there is a Gateway: no failure then.
                Err(error) if what == OWN => {
                    let why = format!("{}; an existing one is needed then", error.message);
                    self.cx.skip(&[what], &why);
                }
                may => self.cx.tell(what, may),
            }
        };
        let tasks = &self.config.task_namespace;
        tokio::join!(
            review(SESSION, permissions::session(&namespace)),
            review(MASTER, permissions::master(&namespace, tasks)),
            review(OWN, permissions::own_gateway(&namespace))
        );
    }
}
