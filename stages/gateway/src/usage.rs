//! Who uses a Gateway: sessions by their Leases, masters by their open ports.

use std::collections::{BTreeMap, BTreeSet};

use cluster::Cluster;
use cluster::lease::describe;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::lease;
use crate::objects::{self, GatewayObject, is_label, title};

/// Determined's label on the pods of an allocation.
pub(crate) const ALLOCATION: &str = "determined";

/// A selector is part of a URL, so its length is limited.
const AT_ONCE: usize = 50;

/// Usage of Gateways by others.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// The holder of a Gateway, by the Gateway's `namespace/name`.
    leased: BTreeMap<String, String>,
    /// Allocations that have pods; `None` if the user may not list pods.
    live: Option<BTreeSet<String>>,
    /// Gateways that another session acquired first.
    lost: BTreeMap<String, String>,
    /// Gateways that a person allows in spite of a dead master's ports.
    allowed: BTreeSet<String>,
}

/// How others use one Gateway.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Use {
    None,
    /// In use; the text says by whom.
    Live(String),
    /// It still has a dead master's ports.
    Leftovers(String),
    /// Another session was faster; the text says which.
    Lost(String),
}

impl Usage {
    pub(crate) fn from_leases<'a>(leases: impl IntoIterator<Item = &'a Lease>) -> Self {
        let leases = leases.into_iter();
        let leased = leases.filter_map(|lease| Some((lease::title(lease)?, describe(lease))));
        Self {
            leased: leased.collect(),
            live: Some(BTreeSet::new()),
            ..Self::default()
        }
    }

    /// Finds out which allocations on these Gateways have pods. Makes no request if there are no allocations.
    pub(crate) async fn load(
        &mut self,
        cluster: &Cluster,
        gateways: &[GatewayObject],
        ours: Option<&str>,
    ) {
        let others = gateways
            .iter()
            .filter(|it| ours != Some(title(it).as_str()));
        let ports = others.flat_map(objects::determined_ports);
        let allocations = ports.map(|(_, id)| id.to_owned()).collect();
        self.live = live(cluster, &allocations, ListParams::default()).await;
    }

    /// Whether all of its ports that have pods are of these allocations.
    pub(crate) fn has_only(&self, gateway: &GatewayObject, known: &BTreeSet<String>) -> bool {
        let mut others = objects::determined_ports(gateway).filter(|(_, id)| !known.contains(*id));
        match &self.live {
            Some(live) => !others.any(|(_, id)| live.contains(id)),
            None => others.next().is_none(),
        }
    }

    /// Records that another session was faster; `leases` are the current ones.
    pub(crate) fn record_loss(&mut self, title: String, who: String, leases: &[Lease]) {
        self.lost.insert(title, who);
        self.leased.extend(Self::from_leases(leases).leased);
    }

    pub(crate) fn allow(&mut self, title: String) {
        self.allowed.insert(title);
    }

    /// Sessions that start together choose the same Gateway first. The loser of a race picks any other one.
    pub(crate) fn lost_a_race(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Whether another session holds this Gateway.
    pub(crate) fn is_leased(&self, title: &str) -> bool {
        self.leased.contains_key(title) || self.lost.contains_key(title)
    }

    pub(crate) fn of(&self, gateway: &GatewayObject) -> Use {
        let title = title(gateway);
        if let Some(who) = self.lost.get(&title) {
            return Use::Lost(who.clone());
        }
        if let Some(who) = self.leased.get(&title) {
            return Use::Live(who.clone());
        }
        let ports: Vec<(&str, &str)> = objects::determined_ports(gateway).collect();
        if ports.is_empty() || self.allowed.contains(&title) {
            return Use::None;
        }
        let Some(live) = &self.live else {
            return Use::Live(format!(
                "a Determined master has {} ports on it, and the user may not list pods to see whether it is alive",
                ports.len()
            ));
        };
        let used = ports.iter().filter(|(_, id)| live.contains(*id)).count();
        if used == 0 {
            let ports = describe_ports(&ports);
            return Use::Leftovers(format!("a dead Determined master left {ports} on it"));
        }
        Use::Live(format!(
            "another Determined master uses it: {used} of its {} ports belong to tasks with pods",
            ports.len()
        ))
    }
}

/// Those of these allocations that have pods of this kind, in any namespace; `None` if the user may not list pods. Makes no
/// request without allocations.
pub(crate) async fn live(
    cluster: &Cluster,
    allocations: &BTreeSet<String>,
    kind: ListParams,
) -> Option<BTreeSet<String>> {
    let labels = allocations.iter().map(String::as_str);
    let labels: Vec<&str> = labels.filter(|id| is_label(id)).collect();
    let mut live = BTreeSet::new();
    for some in labels.chunks(AT_ONCE) {
        let selector = format!("{ALLOCATION} in ({})", some.join(","));
        let params = kind.clone().labels(&selector);
        let pods: Api<Pod> = Api::all(cluster.client.clone());
        let pods = pods.list_metadata(&params).await.ok()?.items.into_iter();
        live.extend(pods.filter_map(|mut pod| pod.labels_mut().remove(ALLOCATION)));
    }
    Some(live)
}

fn describe_ports(ports: &[(&str, &str)]) -> String {
    const SHOWN: usize = 5;
    let (shown, rest) = ports.split_at(ports.len().min(SHOWN));
    let mut shown: Vec<&str> = shown.iter().map(|(port, _)| *port).collect();
    shown.extend((!rest.is_empty()).then_some("…"));
    let count = match ports.len() {
        1 => "1 port".to_owned(),
        n => format!("{n} ports"),
    };
    format!("{count} ({})", shown.join(", "))
}
