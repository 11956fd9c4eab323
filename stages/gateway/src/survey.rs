//! What there is on the cluster: one round of requests, side by side.

use cluster::client::{ANSWER, Cluster};
use cluster::fault::{self, Attempt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use protocol::StageError;

use crate::config::Config;
use crate::crd::{Crd, MAX_LISTENERS};
use crate::lease;
use crate::listing;
use crate::objects::{self, ClassObject, GROUP, GatewayObject};

pub(crate) const GATEWAYS: &str = "gateways.gateway.networking.k8s.io";
pub(crate) const CLASSES: &str = "gatewayclasses.gateway.networking.k8s.io";

/// What the user's config asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) name: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) class: Option<String>,
    pub(crate) selector: Option<String>,
    pub(crate) take_over: bool,
}

impl Wanted {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            name: config.gateway.clone(),
            namespace: config.gateway_namespace.clone(),
            class: config.gateway_class.clone(),
            selector: config.selector.clone(),
            take_over: config.take_over,
        }
    }

    pub(crate) fn place(&self) -> String {
        self.namespace.as_ref().map_or_else(
            || "any namespace".to_owned(),
            |namespace| format!("namespace {namespace}"),
        )
    }
}

/// What there is.
pub(crate) struct Survey {
    /// Those that the config's name and namespace leave.
    pub(crate) gateways: Vec<GatewayObject>,
    /// `None`: the user may not see them.
    pub(crate) classes: Option<Vec<ClassObject>>,
    /// How many listeners a Gateway can have.
    pub(crate) max_listeners: u32,
    /// Those of all sessions, expired or not.
    pub(crate) leases: Vec<Lease>,
}

/// What each request of the round was answered.
pub(crate) struct Answers {
    /// `None`: there is no Gateway API.
    pub(crate) gateways: Result<Option<Vec<GatewayObject>>, StageError>,
    pub(crate) tcp_routes: Result<bool, StageError>,
    classes: Result<Option<Vec<ClassObject>>, StageError>,
    /// `None`: the user may not read it, or it is not there.
    pub(crate) crd: Option<Crd>,
    leases: Result<Vec<Lease>, StageError>,
}

pub(crate) async fn ask(cluster: &Cluster, wanted: &Wanted) -> Result<Answers, StageError> {
    let requests = async {
        tokio::join!(
            gateways(cluster, wanted),
            serves_tcp_routes(cluster),
            classes(cluster),
            Crd::get(cluster),
            lease::list(cluster, wanted.namespace.as_deref())
        )
    };
    let (gateways, tcp_routes, classes, crd, leases) = tokio::time::timeout(ANSWER, requests)
        .await
        .map_err(|_| fault::no_answer(&cluster.peer))?;
    Ok(Answers {
        gateways,
        tcp_routes,
        classes,
        crd,
        leases,
    })
}

pub(crate) async fn survey(cluster: &Cluster, wanted: &Wanted) -> Result<Survey, StageError> {
    ask(cluster, wanted).await?.survey(cluster)
}

impl Answers {
    pub(crate) fn survey(self, cluster: &Cluster) -> Result<Survey, StageError> {
        let Some(gateways) = self.gateways? else {
            return Err(no_gateway_api(cluster));
        };
        if !self.tcp_routes? {
            return Err(no_tcp_routes(cluster, self.crd.as_ref()));
        }
        Ok(Survey {
            gateways,
            classes: self.classes?,
            max_listeners: self.crd.as_ref().map_or(MAX_LISTENERS, Crd::max_listeners),
            leases: self.leases?,
        })
    }
}

/// `None`: there is no such API.
async fn gateways(
    cluster: &Cluster,
    wanted: &Wanted,
) -> Result<Option<Vec<GatewayObject>>, StageError> {
    let api = objects::gateways(cluster, wanted.namespace.as_deref());
    let mut listed = ListParams::default();
    listed.label_selector.clone_from(&wanted.selector);
    let (verb, answer) = match (&wanted.name, &wanted.namespace) {
        // One Gateway by its name: what a user may get need not be listed.
        (Some(name), Some(_)) => ("get", api.get(name).await.map(|gateway| vec![gateway])),
        (Some(name), None) => {
            let named = listed.fields(&format!("metadata.name={name}"));
            ("list", api.list(&named).await.map(|list| list.items))
        }
        (None, _) => ("list", listing::all(cluster, &api, listed).await),
    };
    match answer {
        Ok(gateways) => Ok(Some(gateways)),
        Err(kube::Error::Api(status)) if status.code == 404 && status.reason == "NotFound" => {
            Ok(Some(Vec::new()))
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => {
            let attempt = Attempt::new(verb, GATEWAYS, wanted.namespace.as_deref());
            let mut error = fault::of_request(&cluster.peer, &attempt, &error);
            if error.code == "gateway.forbidden" && verb == "list" && wanted.namespace.is_none() {
                let instead =
                    ", or set `gateway` and `gateway_namespace`: one Gateway needs no list";
                error.hint = error.hint.map(|hint| hint + instead);
            }
            Err(error)
        }
    }
}

/// Determined speaks v1alpha2 of TCPRoute and no other version.
async fn serves_tcp_routes(cluster: &Cluster) -> Result<bool, StageError> {
    match cluster
        .client
        .list_api_group_resources(&format!("{GROUP}/v1alpha2"))
        .await
    {
        Ok(list) => Ok(list
            .resources
            .iter()
            .any(|resource| resource.name == "tcproutes")),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => {
            let attempt = Attempt::new("discover", "gateway.networking.k8s.io/v1alpha2", None);
            Err(fault::of_request(&cluster.peer, &attempt, &error))
        }
    }
}

async fn classes(cluster: &Cluster) -> Result<Option<Vec<ClassObject>>, StageError> {
    match objects::classes(cluster).list(&ListParams::default()).await {
        Ok(list) => Ok(Some(list.items)),
        // A Gateway that works has a class that works: not seeing it costs a name in the outputs.
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(None),
        Err(error) => Err(fault::of_request(
            &cluster.peer,
            &Attempt::new("list", CLASSES, None),
            &error,
        )),
    }
}

pub(crate) fn no_gateway_api(cluster: &Cluster) -> StageError {
    StageError::new("gateway.api_missing", format!("the cluster of context {:?} has no Gateway API", cluster.peer.context)).hint(
        "have an admin install the Gateway API's experimental channel and a controller that takes TCPRoutes, such as \
         Contour's gateway provisioner",
    )
}

pub(crate) fn no_tcp_routes(cluster: &Cluster, crd: Option<&Crd>) -> StageError {
    let context = &cluster.peer.context;
    let installed = match crd.and_then(Crd::bundle) {
        Some((version, channel)) => {
            format!(" It has the Gateway API's {version}, {channel} channel.")
        }
        None => String::new(),
    };
    StageError::new(
        "gateway.tcproute_missing",
        format!("the cluster of context {context:?} does not serve TCPRoute v1alpha2, which Determined uses.{installed}"),
    )
    .hint("have an admin install the experimental channel of the Gateway API: the standard one does not serve that version")
}
