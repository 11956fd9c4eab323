//! The config of a gateway stage.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use cluster::{KubeContext, Timeouts};
use protocol::{PortRange, Problem};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::manifests::{CONTOUR, Manifests, is_digest};
use crate::objects::is_label;

/// From the CRD's own limit plus one, to the highest value for which the API accepts the CRD's rules as cheap enough.
const RAISED: RangeInclusive<u32> = 65..=213;

/// 7 days.
const LONGEST_KEEP: u32 = 7 * 24 * 3600;

/// Determined refuses lower ports.
const LOWEST_PORT: u16 = 1025;

/// The config of a gateway stage.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The kubeconfig file. Default: the files in $KUBECONFIG, else ~/.kube/config.
    pub kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig. Default: its current one.
    pub k8s_context: Option<String>,
    /// The name of the Gateway to use. Default: the first usable one that is not in use.
    pub gateway: Option<String>,
    /// The namespace of the Gateway. Default: search all namespaces, and create a Gateway in that of the context.
    pub gateway_namespace: Option<String>,
    /// Use only Gateways of this GatewayClass, and create one of this class.
    pub gateway_class: Option<String>,
    /// Use only Gateways with these labels, written as for `kubectl get -l`.
    pub selector: Option<String>,
    /// `existing`: use a Gateway that is not in use, and create one only otherwise. `dedicated`: create one, and
    /// delete it in the end.
    pub prefer: Prefer,
    /// Use a Gateway even if another session or another master uses it, or if a dead master left its ports on it.
    pub take_over: bool,
    /// When the stage ends, keep the Gateway that it created and the controller that it installed.
    pub leave: bool,
    /// If no controller can provide a Gateway: `never` install one, `ask` at a terminal, or `auto`: install one, and
    /// remove it when the last session has ended.
    pub provision: Provision,
    /// What to install: URLs and files of manifests. Default: Contour's gateway provisioner, a pinned release.
    pub provision_manifests: Manifests,
    /// The SHA-256 of these manifests, as `cat FILE… | sha256sum` prints it. Other manifests are refused.
    pub provision_digest: Option<String>,
    /// The controller name in the GatewayClasses of the installed controller.
    pub provision_controller: String,
    /// Only print what would be acquired, created and installed.
    pub dry_run: bool,
    /// The namespace in which the master runs tasks: its `default_namespace`.
    pub task_namespace: String,
    /// The ports that the master may open on the Gateway, first and last: [32768, 57535] or 32768-57535.
    pub port_range: PortRange,
    /// Fail if the master could open fewer ports than this.
    pub min_capacity: u32,
    /// Raise the number of listeners that the cluster's CRD allows on a Gateway, 64 by default, to this: 65 to 213. It
    /// changes the CRD for every user of the cluster, until the CRD is installed again.
    pub raise_max_items: Option<u32>,
    /// Seconds without a renewal of the Lease after which other sessions may take the Gateway: how long a laptop may
    /// sleep.
    pub lease_duration: u32,
    /// Seconds for which Gateway and Lease stay without a renewal while tasks run: after a quit, a crash, or while the laptop
    /// sleeps. At most 604800, 7 days. With 0, and in a pipe or with a command, nothing stays.
    pub keep: u32,
    /// Seconds to wait until the Gateway is Programmed and has an address.
    pub timeout: u64,
    /// Seconds to wait for a connection to the Kubernetes API.
    pub connect_timeout: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            k8s_context: None,
            gateway: None,
            gateway_namespace: None,
            gateway_class: None,
            selector: None,
            prefer: Prefer::Existing,
            take_over: false,
            leave: false,
            provision: Provision::Ask,
            provision_manifests: Manifests::default(),
            provision_digest: None,
            provision_controller: CONTOUR.to_owned(),
            dry_run: false,
            task_namespace: "default".to_owned(),
            // From the start of Determined's default range to the highest port that works with Contour: Envoy's
            // container port is the port plus 8000.
            port_range: PortRange {
                first: 32768,
                last: 57535,
            },
            min_capacity: 0,
            raise_max_items: None,
            lease_duration: 900,
            keep: 12 * 3600,
            timeout: 300,
            connect_timeout: 5,
        }
    }
}

impl Config {
    /// The namespace for a new Gateway and its Lease.
    pub(crate) fn namespace(&self, context: &KubeContext) -> String {
        let set = self.gateway_namespace.as_deref();
        set.unwrap_or(context.namespace()).to_owned()
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        Timeouts::from_lease_duration(
            Duration::from_secs(self.connect_timeout),
            Duration::from_secs(self.lease_duration.into()),
        )
    }
}

/// Which Gateway to prefer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prefer {
    /// An existing one that is not in use.
    Existing,
    /// A new one for this session.
    Dedicated,
}

/// Whether to install a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Provision {
    /// Never: report what is missing, and end.
    Never,
    /// Ask at the terminal; without one, never.
    Ask,
    /// Install it.
    Auto,
}

/// Finds what Determined would refuse in the reported block, and what cannot work.
pub(crate) fn validate(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |field: &str, message: String| problems.push(Problem::new(field, message));
    for (field, name) in [
        ("gateway", config.gateway.as_ref()),
        ("gateway_namespace", config.gateway_namespace.as_ref()),
        ("task_namespace", Some(&config.task_namespace)),
    ] {
        if let Some(name) = name.filter(|name| !is_label(name)) {
            let message = format!("{name:?} is not a valid name in Kubernetes");
            refuse(field, message);
        }
    }
    let PortRange { first, last } = config.port_range;
    if first < LOWEST_PORT {
        let last = u16::MAX;
        let message = format!("starts at {first}; Determined accepts {LOWEST_PORT} to {last}");
        refuse("port_range", message);
    }
    if first == last {
        let message = format!("has only {first}; Determined needs two ports or more");
        refuse("port_range", message);
    }
    if let Some(limit) = config.raise_max_items.filter(|it| !RAISED.contains(it)) {
        let (lowest, highest) = (RAISED.start(), RAISED.end());
        let message = format!(
            "{limit} is not between {lowest} and {highest}: the CRD allows lower limits anyway, and the API rejects higher ones \
        as too costly"
        );
        refuse("raise_max_items", message);
    }
    if let Some(digest) = config.provision_digest.as_ref().filter(|it| !is_digest(it)) {
        let message = format!("{digest:?} is not a SHA-256 of 64 hexadecimal digits");
        refuse("provision_digest", message);
    }
    let unprotected = config.provision_manifests.unprotected();
    for url in unprotected.filter(|_| config.provision_digest.is_none()) {
        let message = format!(
            "{url:?} is not protected against changes on the way: set `provision_digest`, or use https"
        );
        refuse("provision_manifests", message);
    }
    let controller = &config.provision_controller;
    if !is_controller(controller) {
        let message = format!("{controller:?} is not a controller name, such as {CONTOUR}");
        refuse("provision_controller", message);
    }
    for (field, seconds) in [
        ("timeout", config.timeout),
        ("connect_timeout", config.connect_timeout),
        ("lease_duration", config.lease_duration.into()),
    ] {
        if seconds == 0 {
            refuse(field, "must be at least one second".to_owned());
        }
    }
    if config.keep > LONGEST_KEEP {
        let message = format!("{} s is longer than 7 days, {LONGEST_KEEP} s", config.keep);
        refuse("keep", message);
    }
    problems
}

/// `domain/path`
fn is_controller(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, path)| {
        domain.contains('.') && !path.is_empty() && !name.contains(' ')
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_determined_would_refuse_is_reported_at_once() {
        let config = json!({
            "gateway": "-x", "gateway_namespace": "", "port_range": [80, 80], "timeout": 0,
        });
        let problems = validate(&serde_json::from_value(config).unwrap());
        let fields: Vec<&str> = problems.iter().map(|it| it.path.as_str()).collect();
        let expected = "gateway gateway_namespace port_range port_range timeout";
        assert_eq!(fields.join(" "), expected);
    }
}
