//! The ports that the master may open.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The highest port at which Contour's Envoy does not wrap: its container port is the port plus 8000.
const LAST_PORT: u16 = 57535;

/// Where Determined's own default range starts.
const FIRST_PORT: u16 = 32768;

/// Determined refuses ports below this one.
pub(crate) const LOWEST_PORT: u16 = 1025;

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_range_can_be_written_as_a_list_or_as_text() {
        for written in [
            json!([9000, 9100]),
            json!("9000-9100"),
            json!("9000,9100"),
            json!("[9000, 9100]"),
        ] {
            assert_eq!(
                serde_json::from_value::<PortRange>(written).unwrap(),
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
        let range = PortRange::default();
        assert_eq!((range.start, range.end), (32768, 57535));
    }
}
