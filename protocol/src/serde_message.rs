//! Messages of serde, reworded for users.

use crate::suggest::did_you_mean;

/// Rewords a message of serde without the names of Rust's types.
pub(crate) fn humanize(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or_default();
    if let Some(rest) = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        && let Some((found, expected)) = rest.rsplit_once(", expected ")
    {
        return format!("expected {}; this is {}", kind(expected), value(found));
    }
    if let Some(rest) = message.strip_prefix("unknown variant ")
        && let Some((found, expected)) = rest.split_once(", expected ")
    {
        return format!("unknown value {found}; expected {expected}");
    }
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let (found, expected) = rest.split_once(", expected ").unwrap_or((rest, ""));
        let names = expected.split('`').skip(1).step_by(2);
        let meant = did_you_mean(found.trim_matches('`'), names);
        let meant = meant.map(|m| format!("; did you mean `{m}`?"));
        return format!("unknown field {found}{}", meant.unwrap_or_default());
    }
    match message.strip_prefix("missing field ") {
        Some(field) => format!("{field} is missing"),
        None => message.to_owned(),
    }
}

fn kind(expected: &str) -> String {
    let bits = |text: &str| text[1..].parse::<u32>().ok();
    match expected {
        "u8" | "u16" => {
            let most = (1u64 << bits(expected).unwrap_or_default()) - 1;
            format!("a whole number from 0 to {most}")
        }
        "u32" | "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "path string" => "a path".to_owned(),
        "unit" => "nothing".to_owned(),
        _ if expected == "a map" || expected.starts_with("struct ") => "a mapping".to_owned(),
        _ if expected.starts_with("enum ") => "one of its values".to_owned(),
        _ => expected.to_owned(),
    }
}

fn value(found: &str) -> String {
    match found.split_once(' ') {
        Some(("string", text)) => format!("the text {text}"),
        Some(("integer" | "boolean" | "number", text)) => text.to_owned(),
        Some(("floating", text)) => text.trim_start_matches("point ").to_owned(),
        _ => match found {
            "sequence" => "a list".to_owned(),
            "map" => "a mapping".to_owned(),
            "null" | "unit value" => "empty".to_owned(),
            _ => found.to_owned(),
        },
    }
}
