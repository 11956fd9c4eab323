//! A range of ports, in every way that users write one.

use std::fmt;

use schemars::JsonSchema;
use serde::de;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl Default for PortRange {
    fn default() -> Self {
        PortRange {
            first: 8000,
            last: 9000,
        }
    }
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
        let wrong = || E::custom(format!("{text:?} is no port range; write 8000-9000"));
        // The Python tool showed its default as a tuple, so people write one.
        let bare = text.trim().trim_matches(['(', ')', '[', ']']);
        let numbers: Result<Vec<i64>, _> =
            bare.split([',', '-']).map(|n| n.trim().parse()).collect();
        match numbers.map_err(|_| wrong())?[..] {
            [first, last] => PortRange::new(first, last),
            [only] => PortRange::new(only, only),
            _ => Err(wrong()),
        }
    }

    /// Every port of the range in random order, `first_choice` before all others.
    pub(crate) fn shuffled(self, first_choice: Option<u16>) -> Result<Vec<u16>, getrandom::Error> {
        let mut ports: Vec<u16> = (self.first..=self.last).collect();
        for i in (1..ports.len()).rev() {
            ports.swap(i, getrandom::u32()? as usize % (i + 1));
        }
        if let Some(at) = ports.iter().position(|p| Some(*p) == first_choice) {
            ports.swap(0, at);
        }
        Ok(ports)
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
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_write_a_range_is_read() {
        for value in [
            json!([8000, 9000]),
            json!("8000,9000"),
            json!("8000-9000"),
            json!(" 8000 - 9000 "),
            json!("(8000, 9000)"),
            json!("[8000, 9000]"),
        ] {
            let range: PortRange = serde_json::from_value(value.clone()).unwrap();
            assert_eq!((range.first, range.last), (8000, 9000), "{value}");
        }
        for value in [json!("8000"), json!(8000)] {
            let range: PortRange = serde_json::from_value(value.clone()).unwrap();
            assert_eq!((range.first, range.last), (8000, 8000), "{value}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_what_is_wrong() {
        for (value, expected) in [
            (json!("9000-8000"), "empty"),
            (json!([0, 9000]), "within 1-65535"),
            (json!([8000, 65536]), "within 1-65535"),
            (json!(-1), "within 1-65535"),
            (json!("many"), "no port range"),
            (json!("1-2-3"), "no port range"),
            (json!([8000]), "two ends"),
            (json!([1, 2, 3]), "two ends"),
        ] {
            let error = serde_json::from_value::<PortRange>(value.clone())
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{value}: {error}");
        }
    }

    #[test]
    fn the_last_port_comes_first_and_every_port_comes_once() {
        let range = PortRange {
            first: 9300,
            last: 9400,
        };
        let ports = range.shuffled(Some(9317)).unwrap();
        assert_eq!(ports[0], 9317);
        let mut sorted = ports.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (9300..=9400).collect::<Vec<_>>());
        assert_ne!(ports[1..], sorted[1..]);
        assert!(
            range
                .shuffled(Some(1))
                .unwrap()
                .iter()
                .all(|port| sorted.contains(port))
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = serde_json::from_value::<PortRange>(json!(text));
        }
    }
}
