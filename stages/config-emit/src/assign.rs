//! Assigns gateways to resource managers.

use protocol::yaml::show;

use crate::determined::Manager;

/// A gateway that needs a resource manager.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// Instance name.
    pub(crate) instance: &'a str,
    /// The `name` or `cluster_name` that the user requests for it.
    pub(crate) requested: Option<&'a str>,
}

/// Assigns a gateway to each manager: by the requested name, else by the gateway's own name. If as many managers as
/// gateways remain, in order.
///
/// # Errors
/// The gateways without a manager, or with more than one, each with the reason and the choices.
pub(crate) fn assign<'a>(
    managers: &[Manager<'_>],
    gateways: &[Candidate<'a>],
) -> Result<Vec<Option<&'a str>>, Vec<(String, String)>> {
    let mut assigned = vec![None; managers.len()];
    let (mut left, mut wrong, mut twice) = (Vec::new(), Vec::new(), Vec::new());
    for gateway in gateways {
        let instance = gateway.instance;
        match by_name(managers, gateway) {
            Err(why) => wrong.push((instance, why)),
            Ok(None) => left.push(instance),
            Ok(Some(manager)) => {
                if let Some(first) = assigned[manager].replace(instance) {
                    let label = label(&managers[manager]);
                    twice.push((instance, format!("{first} is also for `{label}`")));
                }
            }
        }
    }
    if wrong.is_empty() {
        let free: Vec<_> = assigned.iter_mut().filter(|a| a.is_none()).collect();
        let why = match free.len() {
            0 => "no resource manager is left for it",
            _ => "its resource manager is not specified",
        };
        if free.len() == left.len() {
            for (manager, instance) in free.into_iter().zip(left) {
                *manager = Some(instance);
            }
        } else {
            wrong.extend(left.into_iter().map(|instance| (instance, why.to_owned())));
        }
    }
    wrong.extend(twice);
    if wrong.is_empty() {
        return Ok(assigned);
    }
    let names: Vec<String> = managers.iter().map(label).collect();
    let choices = format!("set `resource_manager:` {}", names.join(", "));
    let wrong = wrong.into_iter();
    Err(wrong
        .map(|(instance, why)| (instance.to_owned(), format!("{why}; {choices}")))
        .collect())
}

fn by_name(managers: &[Manager<'_>], gateway: &Candidate<'_>) -> Result<Option<usize>, String> {
    let name = gateway.requested.unwrap_or(gateway.instance);
    let mut found = (0..managers.len()).filter(|i| managers[*i].is_named(name));
    match (found.next(), found.next(), gateway.requested) {
        (Some(_), Some(_), _) => Err(format!("two resource managers have the name `{name}`")),
        (None, _, Some(name)) => Err(format!("there is no resource manager `{name}`")),
        (found, _, _) => Ok(found),
    }
}

fn label(manager: &Manager<'_>) -> String {
    let name = manager.name().map(str::to_owned);
    name.unwrap_or_else(|| show(&manager.path))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::determined::managers;

    #[test]
    fn a_gateway_finds_its_manager_by_name_then_by_its_own_name_then_by_order() {
        let manager = |name: &str| json!({"resource_manager": {"name": name, "cluster_name": format!("{name}-cluster")}});
        let config = json!({
            "resource_manager": {"type": "kubernetes"},
            "additional_resource_managers": [manager("west"), manager("east")],
        });
        let assigned = |requested: &[(&'static str, Option<&'static str>)]| {
            let gateways = requested.iter();
            let gateways = gateways.map(|(instance, requested)| Candidate {
                instance,
                requested: *requested,
            });
            assign(&managers(&config), &gateways.collect::<Vec<_>>())
        };
        let in_order = [("gateway", None), ("gateway-2", None), ("x", None)];
        let names = ["gateway", "gateway-2", "x"].map(Some);
        assert_eq!(assigned(&in_order), Ok(names.to_vec()));
        let named = [
            ("a", Some("east-cluster")),
            ("b", Some("default")),
            ("west", None),
        ];
        assert_eq!(assigned(&named), Ok(["b", "west", "a"].map(Some).to_vec()));
        let one = [("b", Some("west"))];
        assert_eq!(assigned(&one), Ok(vec![None, Some("b"), None]));
    }
}
