//! Picks the values to set from the outputs of the upstreams, by their meaning.

use protocol::provides::{KUBECONFIG, MASTER_ADDRESS, TASK_GATEWAY};
use protocol::yaml::Seg;
use protocol::{Reports, StageError, Upstream};
use serde_json::Value;

use crate::codes;

/// The values for a master's config.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    /// The master's address for pods: fields of every resource manager. Determined uses both or ignores both.
    pub(crate) master: Vec<Field>,
    /// The Gateways by which the master reaches tasks.
    pub(crate) gateways: Vec<TaskGateway>,
}

/// The path of a field in a resource manager, and its value.
pub(crate) type Field = (Vec<Seg>, Value);

/// A Gateway by which the master reaches tasks.
#[derive(Clone, Debug)]
pub(crate) struct TaskGateway {
    pub(crate) instance: String,
    /// Fields of its resource manager.
    pub(crate) fields: Vec<Field>,
    /// How many ports the master can open on it.
    pub(crate) capacity: Option<u64>,
}

impl Values {
    /// Picks the values from reports, gateways in the order of these names.
    ///
    /// # Errors
    /// `config_emit.ambiguous_upstream` for two master addresses, `config_emit.bad_outputs` for outputs without promised values.
    pub(crate) fn from_reports(reports: &Reports, order: &[String]) -> Result<Values, StageError> {
        let providers_of = |meaning: &'static str| {
            let all = reports.iter();
            all.filter(move |(_, upstream)| upstream.provides.contains_key(meaning))
        };
        let masters: Vec<_> = providers_of(MASTER_ADDRESS).collect();
        let master = match masters[..] {
            [] => Vec::new(),
            [(name, upstream)] => address(name, upstream)?,
            _ => {
                let names: Vec<&str> = masters.iter().map(|(name, _)| name.as_str()).collect();
                let names = names.join(", ");
                let message =
                    format!("more than one upstream provides the master's address: {names}");
                return Err(StageError::new(codes::AMBIGUOUS_UPSTREAM, message));
            }
        };
        let mut gateways: Vec<_> = providers_of(TASK_GATEWAY).collect();
        gateways.sort_by_key(|(name, _)| order.iter().position(|n| n == *name));
        let gateways = gateways.into_iter().map(|(name, u)| gateway(name, u));
        Ok(Values {
            master,
            gateways: gateways.collect::<Result<_, _>>()?,
        })
    }
}

fn address(name: &str, upstream: &Upstream) -> Result<Vec<Field>, StageError> {
    let part = |part| upstream.find(MASTER_ADDRESS, Some(part));
    let host = part("host").and_then(Value::as_str);
    let port = part("port").and_then(Value::as_u64);
    let port = port.and_then(|p| u16::try_from(p).ok());
    let (Some(host), Some(port @ 1..)) = (host.filter(|host| !host.is_empty()), port) else {
        return Err(bad_outputs(name, "a `host` and a `port`"));
    };
    Ok(vec![
        (vec!["determined_master_host".into()], url_host(host).into()),
        (vec!["determined_master_port".into()], port.into()),
    ])
}

/// Determined inserts the host between `://` and `:` unchanged.
fn url_host(host: &str) -> String {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(_) => format!("[{host}]"),
        Err(_) => host.to_owned(),
    }
}

fn gateway(name: &str, upstream: &Upstream) -> Result<TaskGateway, StageError> {
    let Some(Value::Object(block)) = upstream.find(TASK_GATEWAY, None) else {
        return Err(bad_outputs(name, "a mapping `internal_task_gateway`"));
    };
    let field = |(key, value): (&String, &Value)| {
        let path = vec!["internal_task_gateway".into(), key.as_str().into()];
        (path, value.clone())
    };
    let mut fields: Vec<Field> = block.iter().map(field).collect();
    match upstream.find(KUBECONFIG, None) {
        None | Some(Value::Null) => {}
        Some(Value::String(path)) => {
            fields.push((vec!["kubeconfig_path".into()], path.as_str().into()));
        }
        Some(_) => return Err(bad_outputs(name, "a path as `kubeconfig_path`")),
    }
    Ok(TaskGateway {
        instance: name.to_owned(),
        fields,
        capacity: upstream.outputs.get("capacity").and_then(Value::as_u64),
    })
}

fn bad_outputs(name: &str, required: &str) -> StageError {
    StageError::new(
        codes::BAD_OUTPUTS,
        format!("the outputs of {name} do not have {required}"),
    )
    .hint(format!(
        "see the `outputs` message of {name}, or its file in the run directory"
    ))
}
