//! A range of ports, in each form that users write.

use std::fmt;

use schemars::JsonSchema;
use serde::de;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl PortRange {
    fn new<E: de::Error>(first: i64, last: i64) -> Result<PortRange, E> {
        match (u16::try_from(first), u16::try_from(last)) {
            (Ok(first), Ok(last)) if first > 0 && first <= last => Ok(PortRange { first, last }),
            (Ok(_), Ok(_)) if first > last => Err(E::custom(format!(
                "{first}-{last} is empty: write the lower port first"
            ))),
            _ => Err(E::custom(format!("{first}-{last} is not within 1-65535"))),
        }
    }

    fn parse<E: de::Error>(text: &str) -> Result<PortRange, E> {
        let wrong = || E::custom(format!("{text:?} is not a port range; write 8000-9000"));
        // The Python tool shows its default as a tuple, so users write tuples.
        let bare = text.trim().trim_matches(['(', ')', '[', ']']);
        let numbers: Result<Vec<i64>, _> =
            bare.split([',', '-']).map(|n| n.trim().parse()).collect();
        match numbers.map_err(|_| wrong())?[..] {
            [first, last] => PortRange::new(first, last),
            [only] => PortRange::new(only, only),
            _ => Err(wrong()),
        }
    }

    /// Whether the port is one of these.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// How many ports there are.
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || de::Error::custom("expected a port range such as 8000-9000 or [8000, 9000]");
        let number = |value: &Value| value.as_i64().ok_or_else(wrong);
        match &Value::deserialize(deserializer)? {
            Value::String(text) => PortRange::parse(text),
            Value::Array(ends) => match &ends[..] {
                [first, last] => PortRange::new(number(first)?, number(last)?),
                _ => Err(de::Error::custom("a port range has two ends: [8000, 9000]")),
            },
            only => PortRange::new(number(only)?, number(only)?),
        }
    }
}

impl JsonSchema for PortRange {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PortRange".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let port = serde_json::json!({"type": "integer", "minimum": 1, "maximum": 65535});
        schemars::json_schema!({
            "anyOf": [
                {"type": "array", "items": port, "minItems": 2, "maxItems": 2},
                {"type": "string", "pattern": "^[(\\[]?\\s*[0-9]+(\\s*[,-]\\s*[0-9]+)?\\s*[)\\]]?$"},
                port,
            ]
        })
    }
}

#[cfg(test)]
mod tests;
