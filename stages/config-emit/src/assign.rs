//! Which resource manager each gateway is for.

use std::collections::HashMap;

use protocol::yaml::show;

use crate::determined::Manager;

/// A gateway that looks for its resource manager.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// Instance name.
    pub(crate) instance: &'a str,
    /// The `name` or `cluster_name` that its user gave.
    pub(crate) wanted: Option<&'a str>,
}

/// For each gateway the index of its manager: by the name that its user gave; else by its own name; else, where as many
/// are left of both, by order.
///
/// # Errors
/// Those that have none, or not one alone, each with why and with the choices.
pub(crate) fn assign(
    managers: &[Manager<'_>],
    gateways: &[Candidate<'_>],
) -> Result<Vec<usize>, Vec<(String, String)>> {
    let mut chosen: Vec<Option<usize>> = vec![None; gateways.len()];
    let mut wrong = Vec::new();
    for (gateway, chosen) in gateways.iter().zip(&mut chosen) {
        match by_name(managers, gateway) {
            Ok(found) => *chosen = found,
            Err(message) => wrong.push((gateway.instance.to_owned(), message)),
        }
    }
    if wrong.is_empty() {
        by_order(managers, gateways, &mut chosen, &mut wrong);
    }
    let mut owners = HashMap::new();
    for (gateway, manager) in gateways.iter().zip(&chosen) {
        let Some(manager) = manager else { continue };
        if let Some(first) = owners.insert(*manager, gateway.instance) {
            let label = label(&managers[*manager]);
            let message = format!("{first} is for `{label}` too; {}", choices(managers));
            wrong.push((gateway.instance.to_owned(), message));
        }
    }
    match wrong.is_empty() {
        true => Ok(chosen.into_iter().flatten().collect()),
        false => Err(wrong),
    }
}

fn by_name(managers: &[Manager<'_>], gateway: &Candidate<'_>) -> Result<Option<usize>, String> {
    let name = gateway.wanted.unwrap_or(gateway.instance);
    let mut found = managers.iter().enumerate().filter(|(_, m)| m.goes_by(name));
    match (found.next(), found.next(), gateway.wanted) {
        (Some((only, _)), None, _) => Ok(Some(only)),
        (None, _, None) => Ok(None),
        (None, _, Some(name)) => Err(format!(
            "no resource manager `{name}`; {}",
            choices(managers)
        )),
        (Some(_), Some(_), _) => Err(format!(
            "two resource managers go by `{name}`; {}",
            choices(managers)
        )),
    }
}

fn by_order(
    managers: &[Manager<'_>],
    gateways: &[Candidate<'_>],
    chosen: &mut [Option<usize>],
    wrong: &mut Vec<(String, String)>,
) {
    let free: Vec<usize> = (0..managers.len())
        .filter(|i| !chosen.contains(&Some(*i)))
        .collect();
    let left: Vec<usize> = (0..chosen.len()).filter(|i| chosen[*i].is_none()).collect();
    if left.len() == free.len() {
        for (gateway, manager) in left.into_iter().zip(free) {
            chosen[gateway] = Some(manager);
        }
        return;
    }
    for gateway in left {
        let message = match free.is_empty() {
            true => "no resource manager is left for it".to_owned(),
            false => "it is not said for which resource manager it is".to_owned(),
        };
        let message = format!("{message}; {}", choices(managers));
        wrong.push((gateways[gateway].instance.to_owned(), message));
    }
}

fn choices(managers: &[Manager<'_>]) -> String {
    let names: Vec<String> = managers.iter().map(label).collect();
    format!("say `resource_manager:` {}", names.join(", "))
}

fn label(manager: &Manager<'_>) -> String {
    manager
        .name()
        .map_or_else(|| show(&manager.path), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::determined::managers;

    fn config(names: &[&str]) -> Value {
        let manager = |name: &&str| json!({"resource_manager": {"type": "kubernetes", "name": name, "cluster_name": format!("{name}-cluster")}});
        let additional: Vec<Value> = names.iter().map(manager).collect();
        json!({"resource_manager": {"type": "kubernetes"}, "additional_resource_managers": additional})
    }

    fn assigned(names: &[&str], gateways: &[(&str, Option<&str>)]) -> Result<Vec<usize>, String> {
        let config = config(names);
        let gateways = gateways.iter().map(|(instance, wanted)| Candidate {
            instance,
            wanted: *wanted,
        });
        let gateways: Vec<_> = gateways.collect();
        assign(&managers(&config), &gateways).map_err(|w| {
            let lines = w.iter().map(|(instance, why)| format!("{instance}: {why}"));
            lines.collect::<Vec<_>>().join("\n")
        })
    }

    #[test]
    fn a_gateway_finds_its_manager_by_name_then_by_its_own_name_then_by_order() {
        assert_eq!(assigned(&[], &[("gateway", None)]), Ok(vec![0]));
        let two = [("gateway", None), ("gateway-2", None)];
        assert_eq!(assigned(&["east"], &two), Ok(vec![0, 1]));
        let named = [
            ("a", Some("east-cluster")),
            ("b", Some("default")),
            ("west", None),
        ];
        assert_eq!(assigned(&["west", "east"], &named), Ok(vec![2, 0, 1]));
        assert_eq!(
            assigned(&["west", "east"], &[("b", Some("west"))]),
            Ok(vec![1])
        );
    }
}
