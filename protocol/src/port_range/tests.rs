use serde_json::json;

use super::*;

#[test]
fn every_form_of_a_range_is_read() {
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
fn an_invalid_range_is_refused_with_the_reason() {
    for (value, expected) in [
        (json!("9000-8000"), "empty"),
        (json!([0, 9000]), "within 1-65535"),
        (json!([8000, 65536]), "within 1-65535"),
        (json!(-1), "within 1-65535"),
        (json!("many"), "not a port range"),
        (json!("1-2-3"), "not a port range"),
        (json!([8000]), "two ends"),
        (json!([1, 2, 3]), "two ends"),
    ] {
        let error = serde_json::from_value::<PortRange>(value.clone())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{value}: {error}");
    }
}
