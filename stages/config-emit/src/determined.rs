//! What a Determined master makes of its config, as far as clusters and gateways go: the rules of its own check.

use std::collections::HashMap;

use protocol::yaml::{Seg, show};
use serde_json::{Map, Value};

const GATEWAY_KEYS: [&str; 5] = [
    "gateway_name",
    "gateway_namespace",
    "gateway_ip",
    "gateway_port_range_start",
    "gateway_port_range_end",
];

/// What Determined takes when the block names no range.
const DEFAULT_RANGE: (u64, u64) = (32_768, 65_535);

/// Something for which Determined would not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where in the master's config.
    pub path: Vec<Seg>,
    /// What is wrong there.
    pub message: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", show(&self.path), self.message)
    }
}

/// A resource manager in a master's config.
#[derive(Clone, Debug)]
pub struct Manager<'a> {
    /// Where its mapping is.
    pub path: Vec<Seg>,
    config: &'a Value,
    pools: Option<&'a Value>,
    pools_path: Vec<Seg>,
}

impl Manager<'_> {
    /// The one that is not in `additional_resource_managers`.
    pub fn is_primary(&self) -> bool {
        self.path.len() == 1
    }

    /// Whether it runs its tasks on Kubernetes.
    pub fn is_kubernetes(&self) -> bool {
        self.config["type"] == "kubernetes"
    }

    /// The name under which pools and users know it; `None` where Determined wants one and there is none.
    pub fn name(&self) -> Option<&str> {
        let named = |key: &str| self.config[key].as_str().filter(|name| !name.is_empty());
        let default = self.is_primary().then_some("default");
        named("cluster_name").or_else(|| named("name")).or(default)
    }

    /// Whether a user would call it that.
    pub fn goes_by(&self, name: &str) -> bool {
        let is = |key: &str| self.config[key] == *name;
        is("cluster_name") || is("name") || self.name() == Some(name)
    }

    /// Its mapping.
    pub fn config(&self) -> &Value {
        self.config
    }

    fn at(&self, below: &[&str]) -> Vec<Seg> {
        let below = below.iter().map(|key| Seg::from(*key));
        self.path.iter().cloned().chain(below).collect()
    }
}

/// Every resource manager of a master's config, the primary first.
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
    for (i, item) in additional.into_iter().flatten().enumerate() {
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

/// Everything for which Determined would refuse this master's config.
pub fn violations(config: &Value) -> Vec<Violation> {
    let managers = managers(config);
    let mut found = Vec::new();
    for manager in managers.iter().filter(|m| m.is_kubernetes()) {
        check_gateway(manager, &mut found);
        check_master_address(manager, &mut found);
    }
    if managers.iter().any(|m| !m.is_primary()) {
        check_several(&managers, &mut found);
    }
    found
}

fn report(found: &mut Vec<Violation>, path: Vec<Seg>, message: impl Into<String>) {
    let message = message.into();
    found.push(Violation { path, message });
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
    let block = match &manager.config["internal_task_gateway"] {
        Value::Null => return,
        Value::Object(block) => block,
        _ => {
            let at = manager.at(&["internal_task_gateway"]);
            return report(found, at, "must be a mapping");
        }
    };
    let at = |key: &str| manager.at(&["internal_task_gateway", key]);
    for key in block.keys().filter(|k| !GATEWAY_KEYS.contains(&k.as_str())) {
        let known = GATEWAY_KEYS.join(", ");
        report(found, at(key), format!("unknown; there are {known}"));
    }
    for key in ["gateway_name", "gateway_namespace"] {
        if let Err(why) = kubernetes_name(block.get(key)) {
            report(found, at(key), why);
        }
    }
    if block
        .get("gateway_ip")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .is_empty()
    {
        report(found, at("gateway_ip"), "must not be empty");
    }
    let start = port(block, "gateway_port_range_start", DEFAULT_RANGE.0);
    let end = port(block, "gateway_port_range_end", DEFAULT_RANGE.1);
    for (key, port) in [
        ("gateway_port_range_start", &start),
        ("gateway_port_range_end", &end),
    ] {
        if let Err(why) = port {
            report(found, at(key), why.as_str());
        }
    }
    if let (Ok(start), Ok(end)) = (start, end)
        && start >= end
    {
        let why = format!("{start} must be below gateway_port_range_end, which is {end}");
        report(found, at("gateway_port_range_start"), why);
    }
}

/// `^[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$`, at most 63 characters
fn kubernetes_name(value: Option<&Value>) -> Result<(), String> {
    let name = match value {
        None | Some(Value::Null) => "",
        Some(Value::String(name)) => name,
        Some(other) => return Err(format!("{other} is not a string")),
    };
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() {
        Err("must not be empty".into())
    } else if name.len() > 63 {
        Err(format!("`{name}` is longer than 63 characters"))
    } else if !(edge(name.chars().next()) && edge(name.chars().last()) && name.chars().all(inner)) {
        Err(format!(
            "`{name}` must be letters, digits, `-`, `_` and `.`, with a letter or digit at both ends"
        ))
    } else {
        Ok(())
    }
}

fn port(block: &Map<String, Value>, key: &str, default: u64) -> Result<u64, String> {
    match block.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => match value.as_u64() {
            Some(port @ 1025..=65_535) => Ok(port),
            _ => Err(format!("{value} is not a port between 1025 and 65535")),
        },
    }
}

fn check_several(managers: &[Manager<'_>], found: &mut Vec<Violation>) {
    let mut names = HashMap::new();
    let mut pools = HashMap::new();
    for manager in managers {
        if !manager.is_primary() && !manager.is_kubernetes() {
            let why = "an additional resource manager must be of type kubernetes";
            report(found, manager.at(&["type"]), why);
        }
        match manager.name() {
            None => report(found, manager.at(&["cluster_name"]), "must not be empty"),
            Some(name) => {
                if let Some(first) = names.insert(name, show(&manager.path)) {
                    let why = format!("`{name}` is the name of {first} too");
                    report(found, manager.at(&["cluster_name"]), why);
                }
            }
        }
        if manager.is_kubernetes() && manager.config["max_slots_per_pod"].is_null() {
            let why = "required with more than one resource manager";
            report(found, manager.at(&["max_slots_per_pod"]), why);
        }
        check_pools(manager, &mut pools, found);
    }
}

fn check_pools<'a>(
    manager: &Manager<'a>,
    seen: &mut HashMap<&'a str, String>,
    found: &mut Vec<Violation>,
) {
    let pools = manager.pools.and_then(Value::as_array);
    let pools = pools.map(Vec::as_slice).unwrap_or_default();
    if pools.is_empty() && !manager.is_primary() {
        report(
            found,
            manager.pools_path.clone(),
            "must list at least one pool",
        );
    }
    for (i, pool) in pools.iter().enumerate() {
        let Some(name) = pool["pool_name"].as_str() else {
            continue;
        };
        let mut path = manager.pools_path.clone();
        path.extend([i.into(), "pool_name".into()]);
        if let Some(first) = seen.insert(name, show(&path)) {
            report(found, path, format!("`{name}` is the name of {first} too"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gateway() -> Value {
        json!({
            "gateway_name": "tcp",
            "gateway_namespace": "default",
            "gateway_ip": "10.0.0.1",
            "gateway_port_range_start": 40000,
            "gateway_port_range_end": 41000,
        })
    }

    fn with_gateway(key: &str, value: Value) -> Vec<String> {
        let mut block = gateway();
        block[key] = value;
        let config =
            json!({"resource_manager": {"type": "kubernetes", "internal_task_gateway": block}});
        violations(&config)
            .iter()
            .map(Violation::to_string)
            .collect()
    }

    #[test]
    fn a_gateway_that_determined_takes_has_no_violation() {
        assert_eq!(with_gateway("gateway_ip", json!("example.com")), [""; 0]);
        assert_eq!(with_gateway("gateway_port_range_end", json!(null)), [""; 0]);
    }

    #[test]
    fn each_rule_of_the_gateway_names_its_key() {
        for (key, value) in [
            ("gateway_name", json!("")),
            ("gateway_name", json!("-tcp")),
            ("gateway_name", json!("t".repeat(64))),
            ("gateway_namespace", json!(null)),
            ("gateway_namespace", json!(7)),
            ("gateway_ip", json!("")),
            ("gateway_port_range_start", json!(1024)),
            ("gateway_port_range_start", json!(41000)),
            ("gateway_port_range_end", json!(70000)),
            ("gateway_port_range_end", json!("41000")),
            ("gateway_prot", json!(1)),
        ] {
            let found = with_gateway(key, value);
            assert_eq!(found.len(), 1, "{found:?}");
            let prefix = format!("resource_manager.internal_task_gateway.{key}: ");
            assert!(found[0].starts_with(&prefix), "{found:?}");
        }
    }

    #[test]
    fn several_managers_need_names_pools_and_slots_of_their_own() {
        let pools = |name: &str| json!([{"pool_name": name}]);
        let manager = |name: &str| json!({"type": "kubernetes", "cluster_name": name, "max_slots_per_pod": 1});
        let mut config = json!({
            "resource_manager": {"type": "kubernetes", "max_slots_per_pod": 1},
            "resource_pools": pools("a"),
            "additional_resource_managers": [
                {"resource_manager": manager("west"), "resource_pools": pools("b")},
            ],
        });
        assert_eq!(violations(&config), []);
        config["additional_resource_managers"]
            .as_array_mut()
            .unwrap()
            .push(json!({"resource_manager": {"type": "agent", "name": "west"}, "resource_pools": pools("a")}));
        config["additional_resource_managers"][0]["resource_pools"] = json!([]);
        config["resource_manager"]["max_slots_per_pod"] = Value::Null;
        let found: Vec<String> = violations(&config).iter().map(|v| show(&v.path)).collect();
        let expected = [
            "resource_manager.max_slots_per_pod",
            "additional_resource_managers[0].resource_pools",
            "additional_resource_managers[1].resource_manager.type",
            "additional_resource_managers[1].resource_manager.cluster_name",
            "additional_resource_managers[1].resource_pools[0].pool_name",
        ];
        assert_eq!(found, expected);
    }
}
