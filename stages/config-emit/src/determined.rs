//! The rules by which a Determined master checks its config, as far as clusters and gateways go.

use protocol::yaml::{Seg, show};
use serde_json::Value;

mod layout;
mod rules;

pub(crate) use rules::refusals;

const GATEWAY_KEYS: [&str; 5] = [
    "gateway_name",
    "gateway_namespace",
    "gateway_ip",
    "gateway_port_range_start",
    "gateway_port_range_end",
];

/// Determined's default port range.
const DEFAULT_RANGE: (u64, u64) = (32_768, 65_535);

/// A rule that the config violates, so that Determined would not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its path in the master's config.
    pub path: Vec<Seg>,
    /// What is wrong.
    pub message: String,
    /// The key is not known to Determined.
    pub(crate) is_unknown: bool,
}

impl Violation {
    pub(crate) fn new(path: &[&str], message: String) -> Violation {
        Violation {
            path: path.iter().map(|key| Seg::from(*key)).collect(),
            message,
            is_unknown: false,
        }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", show(&self.path), self.message)
    }
}

/// A resource manager in a master's config.
#[derive(Clone, Debug)]
pub struct Manager<'a> {
    /// The path of its mapping.
    pub path: Vec<Seg>,
    /// Its mapping.
    pub config: &'a Value,
    pools: Option<&'a Value>,
    pools_path: Vec<Seg>,
}

impl Manager<'_> {
    /// Whether it is the one outside of `additional_resource_managers`.
    pub fn is_primary(&self) -> bool {
        self.path.len() == 1
    }

    /// Whether it runs its tasks on Kubernetes.
    pub fn is_kubernetes(&self) -> bool {
        self.config["type"] == "kubernetes"
    }

    /// The name for pools and users; `None` if Determined requires one and it is missing.
    pub fn name(&self) -> Option<&str> {
        let named = |key: &str| self.config[key].as_str().filter(|name| !name.is_empty());
        let default = self.is_primary().then_some("default");
        named("cluster_name").or_else(|| named("name")).or(default)
    }

    /// Whether the user may call it by this name.
    pub fn is_named(&self, name: &str) -> bool {
        let is = |key: &str| self.config[key] == *name;
        is("cluster_name") || is("name") || self.name() == Some(name)
    }

    fn at(&self, below: &[&str]) -> Vec<Seg> {
        let below = below.iter().map(|key| Seg::from(*key));
        self.path.iter().cloned().chain(below).collect()
    }
}

/// All resource managers of a master's config, the primary first.
pub fn managers(config: &Value) -> Vec<Manager<'_>> {
    let mut all = Vec::new();
    if config["resource_manager"].is_object() {
        all.push(Manager {
            path: vec!["resource_manager".into()],
            config: &config["resource_manager"],
            pools: config.get("resource_pools"),
            pools_path: vec!["resource_pools".into()],
        });
    }
    let additional = config["additional_resource_managers"].as_array();
    let items = additional.into_iter().flatten().enumerate();
    for (i, item) in items.filter(|(_, item)| item.is_object()) {
        let at = |key: &str| vec!["additional_resource_managers".into(), i.into(), key.into()];
        all.push(Manager {
            path: at("resource_manager"),
            config: &item["resource_manager"],
            pools: item.get("resource_pools"),
            pools_path: at("resource_pools"),
        });
    }
    all
}

/// The resource managers of type kubernetes, which use the outputs of tunnel and gateway.
pub(crate) fn kubernetes(config: &Value) -> Vec<Manager<'_>> {
    let mut managers = managers(config);
    managers.retain(Manager::is_kubernetes);
    managers
}

/// Everything for which Determined would refuse this master's config.
pub fn violations(config: &Value) -> Vec<Violation> {
    let managers = managers(config);
    let mut found = Vec::new();
    for manager in managers.iter().filter(|m| m.is_kubernetes()) {
        check_gateway(manager, &mut found);
        check_master_address(manager, &mut found);
    }
    let port = &config["port"];
    if !port.is_null() && !port.as_u64().is_some_and(|p| (1..=65_535).contains(&p)) {
        let why = format!("{port} is not a port between 1 and 65535");
        report(&mut found, vec!["port".into()], why);
    }
    layout::check_shape(config, &mut found);
    if managers.iter().any(|m| !m.is_primary()) {
        layout::check_several(&managers, &mut found);
    }
    found
}

fn report(found: &mut Vec<Violation>, path: Vec<Seg>, message: impl Into<String>) {
    found.push(Violation {
        path,
        message: message.into(),
        is_unknown: false,
    });
}

/// Reports an unknown key; `instead` lists the known ones.
fn report_unknown(found: &mut Vec<Violation>, path: Vec<Seg>, instead: &str) {
    found.push(Violation {
        path,
        message: format!("unknown; {instead}"),
        is_unknown: true,
    });
}

fn check_master_address(manager: &Manager<'_>, found: &mut Vec<Violation>) {
    let (host, port) = ("determined_master_host", "determined_master_port");
    let is_text = |v: &Value| v.is_null() || v.is_string();
    if !is_text(&manager.config[host]) {
        report(found, manager.at(&[host]), "must be a string");
    }
    let value = &manager.config[port];
    if !value.is_null() && value.as_u64().is_none_or(|p| p > 65_535) {
        report(found, manager.at(&[port]), format!("{value} is not a port"));
    }
}

fn check_gateway(manager: &Manager<'_>, found: &mut Vec<Violation>) {
    let block = &manager.config["internal_task_gateway"];
    let keys = match block {
        Value::Null => return,
        Value::Object(block) => block.keys(),
        _ => {
            let at = manager.at(&["internal_task_gateway"]);
            return report(found, at, "must be a mapping");
        }
    };
    let at = |key: &str| manager.at(&["internal_task_gateway", key]);
    for key in keys.filter(|k| !GATEWAY_KEYS.contains(&k.as_str())) {
        let known = GATEWAY_KEYS.join(", ");
        report_unknown(found, at(key), &format!("there are {known}"));
    }
    for key in ["gateway_name", "gateway_namespace"] {
        if let Err(why) = kubernetes_name(&block[key]) {
            report(found, at(key), why);
        }
    }
    if block["gateway_ip"].as_str().is_none_or(str::is_empty) {
        report(found, at("gateway_ip"), "must not be empty");
    }
    let mut port = |key: &str, default| match &block[key] {
        Value::Null => Some(default),
        value => {
            let port = value.as_u64().filter(|p| (1025..=65_535).contains(p));
            if port.is_none() {
                let why = format!("{value} is not a port between 1025 and 65535");
                report(found, at(key), why);
            }
            port
        }
    };
    let start = port("gateway_port_range_start", DEFAULT_RANGE.0);
    let end = port("gateway_port_range_end", DEFAULT_RANGE.1);
    if let (Some(start), Some(end)) = (start, end)
        && start >= end
    {
        let why = format!("{start} must be below gateway_port_range_end, which is {end}");
        report(found, at("gateway_port_range_start"), why);
    }
}

/// `^[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$`, at most 63 characters
fn kubernetes_name(value: &Value) -> Result<(), String> {
    let name = match value {
        Value::Null => "",
        Value::String(name) => name,
        other => return Err(format!("{other} is not a string")),
    };
    let edge = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() {
        Err("must not be empty".into())
    } else if name.len() > 63 {
        Err(format!("`{name}` is longer than 63 characters"))
    } else if !(name.starts_with(edge) && name.ends_with(edge) && name.chars().all(inner)) {
        Err(format!(
            "`{name}` must be letters, digits, `-`, `_` and `.`, with a letter or digit at both ends"
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
