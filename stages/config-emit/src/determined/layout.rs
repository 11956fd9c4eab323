//! Checks the layout of several resource managers and their pools, and that names are unique.

use std::collections::HashMap;

use protocol::yaml::{Seg, show};
use serde_json::Value;

use super::{Manager, Violation, report, report_unknown};

/// Checks that everything is where Determined expects it.
pub(super) fn check_shape(config: &Value, found: &mut Vec<Violation>) {
    let (one, several) = ("resource_manager", "additional_resource_managers");
    check_no_pools_within(&config[one], vec![one.into()], found);
    let items = match &config[several] {
        Value::Null => return,
        Value::Array(items) => items,
        _ => return report(found, vec![several.into()], "must be a list"),
    };
    for (i, item) in items.iter().enumerate() {
        let at = |key: &str| vec![Seg::from(several), i.into(), key.into()];
        let Some(item) = item.as_object() else {
            let path = vec![several.into(), i.into()];
            report(
                found,
                path,
                "must be a mapping of resource_manager and resource_pools",
            );
            continue;
        };
        for key in item
            .keys()
            .filter(|k| ![one, "resource_pools"].contains(&k.as_str()))
        {
            report_unknown(found, at(key), "there are resource_manager, resource_pools");
        }
        match &item.get(one) {
            Some(manager @ Value::Object(_)) => check_no_pools_within(manager, at(one), found),
            _ => report(found, at(one), "must be a mapping"),
        }
    }
}

/// An example in Determined's own documentation has it so.
fn check_no_pools_within(manager: &Value, mut path: Vec<Seg>, found: &mut Vec<Violation>) {
    if manager.get("resource_pools").is_some() {
        path.push("resource_pools".into());
        report_unknown(
            found,
            path,
            "it belongs beside resource_manager, not inside",
        );
    }
}

pub(super) fn check_several(managers: &[Manager<'_>], found: &mut Vec<Violation>) {
    let mut names = HashMap::new();
    let mut pools = HashMap::new();
    for manager in managers {
        check_pools(manager, &mut pools, found);
        if !manager.config.is_object() {
            continue;
        }
        if !manager.is_primary() && !manager.is_kubernetes() {
            let why = "an additional resource manager must be of type kubernetes";
            report(found, manager.at(&["type"]), why);
        }
        match manager.name() {
            None => report(found, manager.at(&["cluster_name"]), "must not be empty"),
            Some(name) => {
                if let Some(first) = names.insert(name, show(&manager.path)) {
                    let why = format!("`{name}` is also the name of {first}");
                    report(found, manager.at(&["cluster_name"]), why);
                }
            }
        }
        if manager.is_kubernetes() && manager.config["max_slots_per_pod"].is_null() {
            let why = "required with more than one resource manager";
            report(found, manager.at(&["max_slots_per_pod"]), why);
        }
    }
}

pub(super) fn check_pools<'a>(
    manager: &Manager<'a>,
    seen: &mut HashMap<&'a str, String>,
    found: &mut Vec<Violation>,
) {
    if manager.is_primary() && manager.pools.is_none_or(Value::is_null) {
        seen.insert(
            "default",
            "the pool that Determined creates here".to_owned(),
        );
    }
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
        let mut path = manager.pools_path.clone();
        path.extend([i.into(), "pool_name".into()]);
        let Some(name) = pool["pool_name"].as_str().filter(|name| !name.is_empty()) else {
            report(found, path, "must not be empty");
            continue;
        };
        if let Some(first) = seen.insert(name, show(&path)) {
            report(found, path, format!("`{name}` is also the name of {first}"));
        }
    }
}
