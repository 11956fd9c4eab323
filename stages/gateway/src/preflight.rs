//! `check --preflight`: everything that a run will need, each thing by itself.

mod leftovers;

use cluster::fault::{self, Attempt};
use cluster::permissions::refuse_denied;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use protocol::{Check, Context, StageError, What};

use crate::config::{Config, Provision};
use crate::crd::Crd;
use crate::dry_run::{Outlook, Plan, plan};
use crate::lease;
use crate::objects::{self, State};
use crate::permissions;
use crate::provision::{self, Offer};
use crate::stage::{Gateway, capacity};
use crate::survey::{self, Answers, Survey, Wanted};
use crate::take::{self, Place};

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

struct Preflight<'a> {
    cx: &'a Context<Gateway>,
    config: &'a Config,
}

pub(crate) async fn preflight(cx: &Context<Gateway>, config: &Config) {
    Preflight { cx, config }.all().await;
}

impl Preflight<'_> {
    async fn all(&self) {
        let place = match take::connect(self.cx, self.config).await {
            Ok(place) => place,
            Err(error) => return self.unreachable(&error),
        };
        let wanted = Wanted::of(self.config);
        let version = async {
            let version = place.cluster.client.apiserver_version().await;
            version.map_err(|error| {
                fault::of_request(
                    &place.cluster.peer,
                    &Attempt::new("get", "version", None),
                    &error,
                )
            })
        };
        let (version, answers) = tokio::join!(version, survey::ask(&place.cluster, &wanted));
        let (version, answers) = match (version, answers) {
            (Ok(version), Ok(answers)) => (version, answers),
            (Err(error), _) | (_, Err(error)) => return self.unreachable(&error),
        };
        let peer = &place.cluster.peer;
        let found = format!(
            "context {:?} at {}, Kubernetes {}",
            peer.context, peer.server, version.git_version
        );
        self.cx.tell(CLUSTER, Ok(found));
        self.apis(&place, &answers);
        tokio::join!(
            self.namespaces(&place),
            self.permissions(&place),
            self.gateway(&place, answers)
        );
    }

    fn unreachable(&self, error: &StageError) {
        self.cx.tell(CLUSTER, Err(error.clone()));
        let rest = [
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
        self.cx.skip(&rest, "needs the cluster");
    }

    fn apis(&self, place: &Place, answers: &Answers) {
        let installed = answers.crd.as_ref().and_then(Crd::bundle);
        let found = installed
            .map(|(release, channel)| format!("{release}, {channel} channel"))
            .unwrap_or_default();
        // A controller that is installed brings these along.
        let missing = |what: What, error: StageError| match self.config.provision == Provision::Auto
            && provision::mends(self.config, &error)
        {
            true => self
                .cx
                .skip(&[what], "is missing, and is installed with a controller"),
            false => self.cx.tell(what, Err(error)),
        };
        match &answers.gateways {
            Ok(Some(_)) => self.cx.tell(GATEWAY_API, Ok(found)),
            Ok(None) => missing(GATEWAY_API, survey::no_gateway_api(&place.cluster)),
            Err(error) => self.cx.tell(GATEWAY_API, Err(error.clone())),
        }
        match &answers.tcp_routes {
            Ok(true) => self.cx.tell(TCP_ROUTES, Ok(String::new())),
            Ok(false) => missing(
                TCP_ROUTES,
                survey::no_tcp_routes(&place.cluster, answers.crd.as_ref()),
            ),
            Err(error) => self.cx.tell(TCP_ROUTES, Err(error.clone())),
        }
    }

    async fn namespaces(&self, place: &Place) {
        let look = async |what: What, name: &str, field: &str| {
            let namespaces: Api<Namespace> = Api::all(place.cluster.client.clone());
            match namespaces.get_metadata_opt(name).await {
                Ok(Some(_)) => self.cx.tell(what, Ok(name.to_owned())),
                Ok(None) => self.cx.tell(
                    what,
                    Err(lease::namespace_missing(&place.cluster, name, field)),
                ),
                Err(_) => self.cx.skip(&[what], "namespaces may not be read"),
            }
        };
        let own = place.gateway_namespace(self.config);
        tokio::join!(
            look(TASKS, &self.config.task_namespace, "task_namespace"),
            look(NAMESPACE, &own, "gateway_namespace")
        );
    }

    async fn permissions(&self, place: &Place) {
        let namespace = place.gateway_namespace(self.config);
        let review = async |what: What, needed: Vec<Attempt>| {
            let may = refuse_denied(&place.cluster, &needed).await;
            self.cx
                .tell(what, may.map(|()| format!("{} verbs", needed.len())));
        };
        tokio::join!(
            review(SESSION, permissions::session(&namespace)),
            review(
                MASTER,
                permissions::master(&namespace, &self.config.task_namespace)
            ),
            self.own_gateway(place, &namespace)
        );
    }

    /// Not needed where there is a Gateway: no failure then.
    async fn own_gateway(&self, place: &Place, namespace: &str) {
        let needed = permissions::own_gateway(namespace);
        match refuse_denied(&place.cluster, &needed).await {
            Ok(()) => self.cx.tell(OWN, Ok(format!("{} verbs", needed.len()))),
            Err(error) => self.cx.skip(
                &[OWN],
                &format!("{}; an existing one is needed then", error.message),
            ),
        }
    }

    async fn gateway(&self, place: &Place, answers: Answers) {
        let survey = match answers.survey(&place.cluster) {
            Ok(survey) => survey,
            Err(error) => {
                self.cx.skip(&[LEFTOVERS], "needs the Gateway API");
                if provision::mends(self.config, &error) {
                    return self.controller(place, error).await;
                }
                self.cx.tell(GATEWAY, Err(error));
                return [CONTROLLER, CAPACITY]
                    .into_iter()
                    .for_each(|what| self.cx.skip(&[what], "needs the Gateway API"));
            }
        };
        let outlook = plan(self.cx, self.config, place, &survey).await;
        // Before the Gateway itself: who takes one needs no controller.
        self.leftovers(&outlook, &survey);
        match outlook.map(|Outlook { plan, .. }| plan) {
            Ok(Plan::Take(choice)) => {
                let gateway = &choice.gateway;
                let state = match objects::state(gateway) {
                    State::Ready(address) => format!("at {address}"),
                    State::NoAddress(reason) | State::NotProgrammed(reason) => {
                        format!("though not usable yet: {reason}")
                    }
                };
                let mut check = Check::ok(
                    GATEWAY.0,
                    GATEWAY.1,
                    format!("{}, {state}", objects::title(gateway)),
                );
                if !choice.warnings.is_empty() {
                    check = check.hint(choice.warnings.join("\n"));
                }
                self.cx.report(check);
                self.cx.skip(&[CONTROLLER], "not needed");
                self.capacity(&survey, gateway);
            }
            Ok(Plan::Make(class, _)) => {
                self.cx
                    .tell(GATEWAY, Ok(format!("one is made of GatewayClass {class}")));
                self.cx.skip(&[CONTROLLER], "not needed");
                self.cx.tell(
                    CAPACITY,
                    Ok(format!("{} listeners at most", survey.max_listeners)),
                );
            }
            Ok(Plan::Install(missing)) => self.controller(place, missing).await,
            Err(error) => {
                self.cx.tell(GATEWAY, Err(error));
                [CONTROLLER, CAPACITY]
                    .into_iter()
                    .for_each(|what| self.cx.skip(&[what], "needs the Gateway"));
            }
        }
    }

    async fn controller(&self, place: &Place, missing: StageError) {
        if self.config.provision == Provision::Never || !provision::mends(self.config, &missing) {
            self.cx.tell(GATEWAY, Err(missing));
            self.cx.skip(&[CONTROLLER], "`provision` is `never`");
            return self.cx.skip(&[CAPACITY], "needs the Gateway");
        }
        if self.config.provision == Provision::Ask {
            let hint = "say yes when you are asked at a terminal, or set `provision: auto`";
            let question = format!(
                "Install a controller on the cluster of context {:?}, and remove it in the end?",
                place.minified.context
            );
            let check = Check::failed(GATEWAY.0, GATEWAY.1, &missing.hint(hint));
            self.cx.report(check.offer(question, "provision", "auto"));
        } else {
            self.cx
                .skip(&[GATEWAY], "one is made once a controller is installed");
        }
        let offer = async {
            let offer = Offer::prepare(self.cx, self.config).await?;
            offer.forbidden(&place.cluster).await?;
            Ok(offer.summary())
        };
        self.cx.tell(CONTROLLER, offer.await);
        self.cx.skip(&[CAPACITY], "needs the Gateway");
    }

    fn capacity(&self, survey: &Survey, gateway: &objects::GatewayObject) {
        let limit = self
            .config
            .raise_max_items
            .unwrap_or(0)
            .max(survey.max_listeners);
        let free = capacity(gateway, limit, self.config.port_range);
        let found = format!("{free} more, of {limit} listeners");
        match free < self.config.min_capacity.max(1) {
            false => self.cx.tell(CAPACITY, Ok(found)),
            true => {
                let error =
                    StageError::new("gateway.capacity_low", format!("it has room for {found}"));
                let hint = "widen `port_range`, free listeners, lower `min_capacity`, or set `raise_max_items`";
                self.cx.tell(CAPACITY, Err(error.hint(hint)));
            }
        }
    }
}
