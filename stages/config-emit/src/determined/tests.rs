use serde_json::json;

use super::*;

fn gateway() -> Value {
    json!({
        "gateway_name": "tcp",
        "gateway_namespace": "default",
        "gateway_ip": "10.0.0.1",
        "gateway_port_range_start": 40000,
        "gateway_port_range_end": 41000,
    })
}

fn with_gateway(key: &str, value: Value) -> Vec<String> {
    let mut block = gateway();
    block[key] = value;
    let config =
        json!({"resource_manager": {"type": "kubernetes", "internal_task_gateway": block}});
    violations(&config)
        .iter()
        .map(Violation::to_string)
        .collect()
}

#[test]
fn a_gateway_that_determined_accepts_has_no_violation() {
    assert_eq!(with_gateway("gateway_ip", json!("example.com")), [""; 0]);
    assert_eq!(with_gateway("gateway_port_range_end", json!(null)), [""; 0]);
}

#[test]
fn each_rule_of_the_gateway_names_its_key() {
    for (key, value) in [
        ("gateway_name", json!("")),
        ("gateway_name", json!("-tcp")),
        ("gateway_name", json!("t".repeat(64))),
        ("gateway_namespace", json!(null)),
        ("gateway_namespace", json!(7)),
        ("gateway_ip", json!("")),
        ("gateway_port_range_start", json!(1024)),
        ("gateway_port_range_start", json!(41000)),
        ("gateway_port_range_end", json!(70000)),
        ("gateway_port_range_end", json!("41000")),
        ("gateway_prot", json!(1)),
    ] {
        let found = with_gateway(key, value);
        assert_eq!(found.len(), 1, "{found:?}");
        let prefix = format!("resource_manager.internal_task_gateway.{key}: ");
        assert!(found[0].starts_with(&prefix), "{found:?}");
    }
}

#[test]
fn several_managers_need_names_pools_and_slots_of_their_own() {
    let pools = |name: &str| json!([{"pool_name": name}]);
    let manager =
        |name: &str| json!({"type": "kubernetes", "cluster_name": name, "max_slots_per_pod": 1});
    let mut config = json!({
        "resource_manager": {"type": "kubernetes", "max_slots_per_pod": 1},
        "resource_pools": pools("a"),
        "additional_resource_managers": [
            {"resource_manager": manager("west"), "resource_pools": pools("b")},
        ],
    });
    assert_eq!(violations(&config), []);
    config["additional_resource_managers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"resource_manager": {"type": "agent", "name": "west"}, "resource_pools": pools("a")}));
    config["additional_resource_managers"][0]["resource_pools"] = json!([]);
    config["resource_manager"]["max_slots_per_pod"] = Value::Null;
    let found: Vec<String> = violations(&config).iter().map(|v| show(&v.path)).collect();
    let expected = [
        "resource_manager.max_slots_per_pod",
        "additional_resource_managers[0].resource_pools",
        "additional_resource_managers[1].resource_pools[0].pool_name",
        "additional_resource_managers[1].resource_manager.type",
        "additional_resource_managers[1].resource_manager.cluster_name",
    ];
    assert_eq!(found, expected);
}

#[test]
fn each_layout_violation_has_its_path() {
    let config = json!({
        "resource_manager": {"type": "kubernetes", "max_slots_per_pod": 1, "resource_pools": []},
        "additional_resource_managers": [
            {"resource_manager": {"type": "kubernetes", "name": "a", "max_slots_per_pod": 1, "resource_pools": [{"pool_name": "x"}]}},
            {"resource_pools": [{"pool_name": "default"}, {"pool": "y"}], "pools": []},
            7,
        ],
    });
    let found: Vec<String> = violations(&config).iter().map(|v| show(&v.path)).collect();
    let expected = [
        "resource_manager.resource_pools",
        "additional_resource_managers[0].resource_manager.resource_pools",
        "additional_resource_managers[1].pools",
        "additional_resource_managers[1].resource_manager",
        "additional_resource_managers[2]",
        "additional_resource_managers[0].resource_pools",
        "additional_resource_managers[1].resource_pools[0].pool_name",
        "additional_resource_managers[1].resource_pools[1].pool_name",
    ];
    assert_eq!(found, expected);
    let flat = json!({"resource_manager": {"type": "kubernetes"}, "additional_resource_managers": {"a": 1}});
    assert_eq!(violations(&flat).len(), 1);
}

#[test]
fn what_the_master_refuses_at_its_start_is_named() {
    let good = json!({
        "log": {"level": "Debug"},
        "checkpoint_storage": {"type": "shared_fs"},
        "security": {"tls": {"cert": "a", "key": "b"}},
        "resource_manager": {"type": "kubernetes", "max_slots_per_pod": 1, "slot_type": "cuda"},
        "resource_pools": [{"pool_name": "a"}, {"pool_name": "b"}],
    });
    assert_eq!(refusals(&good), []);
    for (pointer, key, value, path) in [
        ("", "prot", json!(1), "prot"),
        (
            "/security",
            "initial_password",
            json!("x"),
            "security.initial_password",
        ),
        (
            "/resource_manager",
            "slots",
            json!(1),
            "resource_manager.slots",
        ),
        (
            "/resource_manager",
            "namespace",
            json!("x"),
            "resource_manager.namespace",
        ),
        (
            "/resource_manager",
            "slot_type",
            json!("tpu"),
            "resource_manager.slot_type",
        ),
        (
            "/resource_manager",
            "slot_type",
            json!("cpu"),
            "resource_manager.slot_resource_requests.cpu",
        ),
        (
            "/resource_manager",
            "default_scheduler",
            json!("preemption"),
            "resource_manager.default_scheduler",
        ),
        (
            "/resource_manager",
            "max_slots_per_pod",
            json!(null),
            "resource_manager.max_slots_per_pod",
        ),
        (
            "/resource_manager",
            "max_slots_per_pod",
            json!(-1),
            "resource_manager.max_slots_per_pod",
        ),
        (
            "",
            "task_container_defaults",
            json!({"kubernetes": {"max_slots_per_pod": 1}}),
            "resource_manager.max_slots_per_pod",
        ),
        ("/log", "level", json!("loud"), "log.level"),
        (
            "/checkpoint_storage",
            "type",
            json!("nfs"),
            "checkpoint_storage.type",
        ),
        (
            "/checkpoint_storage",
            "type",
            json!(null),
            "checkpoint_storage.type",
        ),
        ("/security/tls", "key", json!(""), "security.tls.key"),
        ("/security/tls", "cert", json!(null), "security.tls.cert"),
        (
            "/resource_pools/1",
            "pool_name",
            json!("a"),
            "resource_pools[1].pool_name",
        ),
        (
            "/resource_pools/1",
            "pool_name",
            json!(null),
            "resource_pools[1].pool_name",
        ),
        ("", "resource_pools", json!([]), "resource_pools"),
    ] {
        let mut config = good.clone();
        config.pointer_mut(pointer).unwrap()[key] = value;
        let found: Vec<String> = refusals(&config).iter().map(|v| show(&v.path)).collect();
        assert_eq!(found, [path], "{config}");
    }
    let mut default = good.clone();
    default["resource_manager"]["max_slots_per_pod"] = Value::Null;
    default["task_container_defaults"] = json!({"kubernetes": {"max_slots_per_pod": 1}});
    assert_eq!(refusals(&default), []);
}
