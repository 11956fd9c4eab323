//! What a user sets.

use std::path::PathBuf;

use protocol::Problem;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The highest port at which Contour's Envoy does not wrap: its container port is the port plus 8000.
const LAST_PORT: u16 = 57535;

/// Where Determined's own default range starts.
const FIRST_PORT: u16 = 32768;

/// Determined refuses ports below this one.
const LOWEST_PORT: u16 = 1025;

/// What a user sets.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The kubeconfig file. Default: the files in $KUBECONFIG, else ~/.kube/config.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig. Default: its current one.
    #[serde(default)]
    pub k8s_context: Option<String>,
    /// The name of the Gateway to use. Default: the first that is usable.
    #[serde(default)]
    pub gateway: Option<String>,
    /// The namespace to look in. Default: all of them.
    #[serde(default)]
    pub gateway_namespace: Option<String>,
    /// Use only Gateways of this GatewayClass.
    #[serde(default)]
    pub gateway_class: Option<String>,
    /// The ports that the master may open on the Gateway, first and last: [32768, 57535] or 32768-57535.
    #[serde(default)]
    pub port_range: PortRange,
    /// Seconds to wait until the Gateway is Programmed and has an address.
    #[serde(default = "default_timeout")]
    pub timeout: u64,
    /// Seconds to wait for a connection to the Kubernetes API.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: u64,
}

fn default_timeout() -> u64 {
    300
}

fn default_connect_timeout() -> u64 {
    5
}

/// First and last port, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port.
    pub start: u16,
    /// The highest port.
    pub end: u16,
}

impl Default for PortRange {
    fn default() -> Self {
        Self {
            start: FIRST_PORT,
            end: LAST_PORT,
        }
    }
}

impl PortRange {
    pub(crate) fn holds(self, port: u16) -> bool {
        (self.start..=self.end).contains(&port)
    }

    pub(crate) fn len(self) -> u32 {
        u32::from(self.end) - u32::from(self.start) + 1
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "two ports: [32768, 57535], 32768-57535 or 32768,57535"
        )]
        enum Written {
            Pair(u16, u16),
            Text(String),
        }
        let (start, end) = match Written::deserialize(deserializer)? {
            Written::Pair(start, end) => (start, end),
            Written::Text(text) => parse(&text).ok_or_else(|| {
                de::Error::custom(format!("{text:?} is not two ports, such as 32768-57535"))
            })?,
        };
        Ok(Self { start, end })
    }
}

fn parse(text: &str) -> Option<(u16, u16)> {
    let inner = text
        .trim()
        .trim_start_matches(['[', '('])
        .trim_end_matches([']', ')']);
    let (start, end) = inner.split_once([',', '-'])?;
    Some((start.trim().parse().ok()?, end.trim().parse().ok()?))
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.start, self.end].serialize(serializer)
    }
}

impl JsonSchema for PortRange {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PortRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let port = json_schema!({"type": "integer", "minimum": LOWEST_PORT, "maximum": u16::MAX});
        json_schema!({
            "anyOf": [
                {"type": "array", "items": port, "minItems": 2, "maxItems": 2},
                {"type": "string", "description": "first-last"},
            ],
        })
    }
}

/// What Determined would refuse in the block that we are going to report, and what cannot work.
pub(crate) fn validate(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (field, name) in [
        ("gateway", &config.gateway),
        ("gateway_namespace", &config.gateway_namespace),
    ] {
        if let Some(name) = name.as_deref().filter(|name| !is_name(name)) {
            problems.push(Problem::new(
                field,
                format!("{name:?} is no name of an object in Kubernetes"),
            ));
        }
    }
    let range = config.port_range;
    if range.start < LOWEST_PORT {
        let message = format!(
            "starts at {}; Determined takes {LOWEST_PORT} to {}",
            range.start,
            u16::MAX
        );
        problems.push(Problem::new("port_range", message));
    }
    if range.start >= range.end {
        let message = format!(
            "{} to {} is no range: the first port has to be below the last",
            range.start, range.end
        );
        problems.push(Problem::new("port_range", message));
    }
    for (field, seconds) in [
        ("timeout", config.timeout),
        ("connect_timeout", config.connect_timeout),
    ] {
        if seconds == 0 {
            problems.push(Problem::new(field, "has to be at least one second"));
        }
    }
    problems
}

/// Determined's own rule for both names.
fn is_name(name: &str) -> bool {
    let edge = |at: Option<char>| at.is_some_and(|c| c.is_ascii_alphanumeric());
    (1..=63).contains(&name.len())
        && edge(name.chars().next())
        && edge(name.chars().next_back())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(value: Value) -> Config {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_port_range_can_be_written_as_a_list_or_as_text() {
        for written in [
            json!([9000, 9100]),
            json!("9000-9100"),
            json!("9000,9100"),
            json!("[9000, 9100]"),
        ] {
            assert_eq!(
                config(json!({"port_range": written})).port_range,
                PortRange {
                    start: 9000,
                    end: 9100
                }
            );
        }
        assert!(serde_json::from_value::<PortRange>(json!("9000")).is_err());
        assert!(serde_json::from_value::<PortRange>(json!([9000, 90000])).is_err());
    }

    #[test]
    fn the_default_range_ends_where_contour_wraps() {
        let config = config(json!({}));
        assert_eq!(
            config.port_range,
            PortRange {
                start: 32768,
                end: 57535
            }
        );
        assert!(validate(&config).is_empty());
    }

    #[test]
    fn what_determined_would_refuse_is_named_all_at_once() {
        let config = config(json!({
            "gateway": "-x", "gateway_namespace": "", "port_range": [80, 80], "timeout": 0,
        }));
        let fields: Vec<String> = validate(&config)
            .into_iter()
            .map(|problem| problem.path)
            .collect();
        assert_eq!(
            fields,
            [
                "gateway",
                "gateway_namespace",
                "port_range",
                "port_range",
                "timeout"
            ]
        );
    }
}
