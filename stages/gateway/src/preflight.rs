//! `check --preflight`: each thing that a run needs, as a check of its own.

mod gateway;

use cluster::permissions::require;
use cluster::{Attempt, KubeContext};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use protocol::{CheckTitle, Context, StageError};

use crate::Gateway;
use crate::config::{Config, Provision};
use crate::crd::Crd;
use crate::decide::is_fixed_by_provisioning;
use crate::permissions;
use crate::survey::{Access, QueryResults};
use crate::task_namespace;

const CLUSTER: CheckTitle = ("cluster", "the API of the cluster answers");
const GATEWAY_API: CheckTitle = ("gateway_api", "the Gateway API is installed");
const TCP_ROUTES: CheckTitle = ("tcp_routes", "TCPRoute v1alpha2 is served");
const TASKS: CheckTitle = ("task_namespace", "the namespace for tasks exists");
const ONE_MASTER: CheckTitle = ("one_master", "no other master runs tasks in that namespace");
const NAMESPACE: CheckTitle = ("gateway_namespace", "the namespace of the Gateway exists");
const SESSION: CheckTitle = ("session", "the user may hold a session by a Lease");
const MASTER: CheckTitle = ("master", "the master may use Gateway, routes and Services");
const OWN: CheckTitle = ("own_gateway", "the user may create and delete a Gateway");
const LEFTOVERS: CheckTitle = (
    "leftovers",
    "no Gateway is skipped because of a dead master's ports",
);
const GATEWAY: CheckTitle = ("gateway", "the master has a Gateway");
const CONTROLLER: CheckTitle = ("controller", "a controller can be installed");
const CAPACITY: CheckTitle = ("capacity", "the Gateway has room for the master's ports");

/// The checks that need the cluster.
const REST: [CheckTitle; 12] = [
    GATEWAY_API,
    TCP_ROUTES,
    TASKS,
    ONE_MASTER,
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
        let access = Access::connect(cx, config).await?;
        let version = async {
            let version = access.cluster.client.apiserver_version().await;
            version.map_err(|error| access.cluster.failed("get", "version", None, &error))
        };
        let (version, results) = tokio::try_join!(version, access.query())?;
        Ok((access, version, results))
    };
    let (access, version, results) = match answered.await {
        Ok(all) => all,
        Err(error) => {
            cx.report_result(CLUSTER, Err(error));
            return cx.skip(&REST, "needs the cluster");
        }
    };
    let KubeContext { name, server, .. } = &*access.cluster.context;
    let version = version.git_version;
    let found = format!("context {name:?} at {server}, Kubernetes {version}");
    cx.report_result(CLUSTER, Ok(found));
    access.check_apis(&results);
    tokio::join!(
        access.check_namespaces(),
        access.check_one_master(),
        access.check_rights(),
        access.check_gateway(results)
    );
}

impl Access<'_> {
    fn check_apis(&self, results: &QueryResults) {
        let installed = results.crd.as_ref().and_then(Crd::bundle);
        let found = installed.map(|(release, channel)| format!("{release}, {channel} channel"));
        let gateways = results.gateways.as_ref().map(|_| found.unwrap_or_default());
        let tcp_routes = results.tcp_routes.as_ref().map(|()| String::new());
        let installs = self.config.provision == Provision::Auto;
        for (what, answer) in [(GATEWAY_API, gateways), (TCP_ROUTES, tcp_routes)] {
            match answer {
                Err(missing) if installs && is_fixed_by_provisioning(missing, self.config) => {
                    let why = "missing; will be installed with a controller";
                    self.cx.skip(&[what], why);
                }
                answer => self
                    .cx
                    .report_result(what, answer.map_err(StageError::clone)),
            }
        }
    }

    async fn check_namespaces(&self) {
        let check = async |what: CheckTitle, name: &str, field: &str| {
            let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
            match namespaces.get_metadata_opt(name).await {
                Ok(Some(_)) => self.cx.report_result(what, Ok(name.to_owned())),
                Ok(None) => {
                    let missing = self.cluster.context.namespace_missing(name, field);
                    self.cx.report_result(what, Err(missing));
                }
                Err(_) => self.cx.skip(&[what], "the user may not read namespaces"),
            }
        };
        let own = self.config.namespace(&self.cluster.context);
        tokio::join!(
            check(TASKS, &self.config.task_namespace, "task_namespace"),
            check(NAMESPACE, &own, "gateway_namespace")
        );
    }

    async fn check_one_master(&self) {
        let held = task_namespace::check(self.cx, self.config, &self.cluster).await;
        self.cx.report_result(ONE_MASTER, held);
    }

    async fn check_rights(&self) {
        let namespace = self.config.namespace(&self.cluster.context);
        let review = async |what: CheckTitle, needed: Vec<Attempt>| {
            let may = require(&self.cluster, &needed).await;
            match may.map(|()| format!("{} verbs", needed.len())) {
                // No failure: an existing Gateway does not need these.
                Err(StageError { message, .. }) if what == OWN => {
                    let why = format!("{message}; an existing Gateway is needed");
                    self.cx.skip(&[what], &why);
                }
                may => self.cx.report_result(what, may),
            }
        };
        let tasks = &self.config.task_namespace;
        tokio::join!(
            review(SESSION, permissions::leases(&namespace, tasks)),
            review(MASTER, permissions::master(&namespace, tasks)),
            review(OWN, permissions::own_gateway(&namespace))
        );
    }
}
