//! The fields that a Determined master is known to have: no reference is needed for them.

use protocol::Problem;
use protocol::yaml::{Seg, show};
use serde_json::Value;

use crate::assign::{Candidate, assign};
use crate::base::{Base, Request};
use crate::determined::{Manager, managers};
use crate::refusal::Refusal;
use crate::target::{Target, no_kubernetes};
use crate::values::{Field, GatewayValues};

/// What is set, by its path in the base.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) set: Vec<(Vec<Seg>, Value)>,
    pub(crate) warnings: Vec<String>,
}

/// What the resource managers of a master are told. Keys of theirs that are not among these stay.
pub(crate) fn fields(
    base: &Base,
    target: &Target,
    request: &Request<'_>,
) -> Result<Known, Refusal> {
    let values = request.values;
    if values.is_empty() || !target.is_determined {
        return Ok(Known::default());
    }
    let config = base.document.get(&target.config).unwrap_or_default();
    let managers: Vec<_> = managers(&config)
        .into_iter()
        .filter(Manager::is_kubernetes)
        .collect();
    if managers.is_empty() {
        return Err(no_kubernetes(base, target));
    }
    let (mut known_set, mut warnings) = (Vec::new(), Vec::new());
    let mut set = |manager: &Manager<'_>, fields: &[Field]| {
        let fields = fields.iter();
        known_set.extend(fields.map(|(path, value)| {
            let path = [&target.config[..], &manager.path, path].concat();
            (path, value.clone())
        }));
    };
    for manager in &managers {
        set(manager, &values.master);
    }
    for (chosen, (name, gateway)) in chosen(base, target, &managers, request)?.zip(&values.gateways)
    {
        let manager = &managers[chosen];
        set(manager, &gateway.fields);
        warnings.extend(narrow(manager, name, gateway));
    }
    Ok(Known {
        set: known_set,
        warnings,
    })
}

fn chosen(
    base: &Base,
    target: &Target,
    managers: &[Manager<'_>],
    request: &Request<'_>,
) -> Result<impl Iterator<Item = usize>, Refusal> {
    let wanted = request.resource_managers;
    let candidates = request.values.gateways.iter().map(|(name, _)| Candidate {
        instance: name,
        wanted: wanted.get(name).and_then(Value::as_str),
    });
    let candidates: Vec<Candidate<'_>> = candidates.collect();
    let assigned = assign(managers, &candidates);
    let assigned = assigned.map_err(|unassigned| ambiguous(base, target, unassigned))?;
    Ok(assigned.into_iter())
}

/// Gateways of which nobody can tell what they are for.
pub(crate) fn ambiguous(
    base: &Base,
    target: &Target,
    unassigned: Vec<(String, String)>,
) -> Refusal {
    let path = target.path(&["additional_resource_managers".into()]);
    let span = base.document.nearest_span(&path, true);
    let problems = unassigned.into_iter().map(|(instance, why)| {
        let message = format!("{instance}: {why}");
        Problem::new("", message).at(&base.source, span.clone())
    });
    Refusal::new(
        "config_emit.ambiguous_manager",
        "say in each gateway stage which resource manager it is for, or with --resource-managers",
        problems,
    )
}

/// The base may ask for more ports than there are.
fn narrow(manager: &Manager<'_>, name: &str, gateway: &GatewayValues) -> Option<String> {
    let range = &manager.config()["internal_task_gateway"];
    let port = |key: &str| range[key].as_u64();
    let (first, last) = (
        port("gateway_port_range_start")?,
        port("gateway_port_range_end")?,
    );
    let (asked, capacity) = (last.saturating_sub(first) + 1, gateway.capacity?);
    (asked > capacity).then(|| {
        format!(
            "{}: its internal_task_gateway asks for {asked} ports, the Gateway of {name} can open {capacity}: \
             a task beyond that will fail to start",
            show(&manager.path)
        )
    })
}
