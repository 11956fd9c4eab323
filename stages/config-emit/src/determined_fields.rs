//! The fields that a Determined master is known to have. They need no references.

use protocol::yaml::{Seg, show};
use serde_json::Value;

use crate::assign::{Candidate, assign};
use crate::config::Config;
use crate::determined::{Manager, kubernetes};
use crate::render_error::RenderError;
use crate::stage_config::StageConfig;
use crate::values::{Field, TaskGateway, Values};

/// The fields to set, by their path in the config.
#[derive(Debug, Default)]
pub(crate) struct DeterminedFields {
    pub(crate) set: Vec<(Vec<Seg>, Value)>,
    pub(crate) warnings: Vec<String>,
}

/// The fields for the resource managers of a master. Their other keys stay.
pub(crate) fn determined_fields(
    target: &StageConfig<'_>,
    config: &Config,
    values: &Values,
) -> Result<DeterminedFields, RenderError> {
    let mut fields = DeterminedFields::default();
    let Values { master, gateways } = values;
    if (master.is_empty() && gateways.is_empty()) || !target.is_determined {
        return Ok(fields);
    }
    let value = target.value();
    let managers = kubernetes(&value);
    if managers.is_empty() {
        return Err(target.no_kubernetes());
    }
    let requested = &config.resource_managers;
    let candidates = gateways.iter().map(|gateway| Candidate {
        instance: &gateway.instance,
        requested: requested.get(&gateway.instance).and_then(Value::as_str),
    });
    let candidates: Vec<Candidate<'_>> = candidates.collect();
    let assigned = assign(&managers, &candidates).map_err(|wrong| target.ambiguous(wrong))?;
    let mut set = |manager: &Manager<'_>, add: &[Field]| {
        let add = add.iter();
        let add = add.map(|(path, value)| ([&manager.path, &path[..]].concat(), value.clone()));
        fields.set.extend(add);
    };
    for manager in &managers {
        set(manager, master);
    }
    for (manager, instance) in managers.iter().zip(assigned) {
        if let Some(gateway) = gateways.iter().find(|g| Some(&*g.instance) == instance) {
            set(manager, &gateway.fields);
            fields.warnings.extend(capacity_warning(manager, gateway));
        }
    }
    Ok(fields)
}

/// Warns if the base asks for more ports than the Gateway has room for.
fn capacity_warning(manager: &Manager<'_>, gateway: &TaskGateway) -> Option<String> {
    let range = &manager.config["internal_task_gateway"];
    let port = |key: &str| range[key].as_u64();
    let (first, last) = (
        port("gateway_port_range_start")?,
        port("gateway_port_range_end")?,
    );
    let (asked, capacity) = (last.saturating_sub(first) + 1, gateway.capacity?);
    (asked > capacity).then(|| {
        format!(
            "{}: its internal_task_gateway has {asked} ports, but the Gateway of {} has room for {capacity}: \
        further tasks will fail to start",
            show(&manager.path),
            gateway.instance,
        )
    })
}
