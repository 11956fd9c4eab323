//! What else the master of Determined 0.38 refuses at its start, or dies of. Other releases may differ, so only a check before
//! the run uses these rules; no render does.

use std::collections::HashMap;

use protocol::suggest::did_you_mean;
use protocol::yaml::Seg;
use serde_json::Value;

use super::{Manager, Violation, layout, managers, report, report_unknown, violations};

const ROOT: [&str; 31] = [
    "__internal",
    "additional_resource_managers",
    "cache",
    "checkpoint_storage",
    "cluster_name",
    "config_file",
    "db",
    "det_cloud",
    "enable_cors",
    "feature_switches",
    "integrations",
    "launch_error",
    "log",
    "logging",
    "notebook_timeout",
    "observability",
    "oidc",
    "port",
    "reserved_ports",
    "resource_manager",
    "resource_pools",
    "retention_policy",
    "root",
    "saml",
    "scim",
    "security",
    "task_container_defaults",
    "telemetry",
    "tensorboard_timeout",
    "ui_customization",
    "webhooks",
];
const SECURITY: [&str; 6] = [
    "authz",
    "default_task",
    "initial_user_password",
    "ssh",
    "tls",
    "token",
];
const MANAGER: [&str; 22] = [
    "cluster_name",
    "default_aux_resource_pool",
    "default_compute_resource_pool",
    "default_namespace",
    "default_scheduler",
    "determined_master_host",
    "determined_master_ip",
    "determined_master_port",
    "determined_master_scheme",
    "fluent",
    "internal_task_gateway",
    "kubeconfig_path",
    "leave_kubernetes_resources",
    "master_service_name",
    "max_slots_per_pod",
    "metadata",
    "name",
    "no_default_resource_pools",
    // Reported by the layout.
    "resource_pools",
    "slot_resource_requests",
    "slot_type",
    "type",
];
const LEVELS: [&str; 8] = [
    "panic", "fatal", "error", "warn", "warning", "info", "debug", "trace",
];
const STORAGES: [&str; 5] = ["shared_fs", "directory", "s3", "gcs", "azure"];
const SLOTS: [&str; 4] = ["cpu", "cuda", "gpu", "rocm"];
const SCHEDULERS: [&str; 2] = ["", "coscheduler"];

/// Everything for which the master of Determined 0.38 would not start.
pub(crate) fn refusals(config: &Value) -> Vec<Violation> {
    let mut found = violations(config);
    let managers = managers(config);
    check_keys(config, &[], &ROOT, &mut found);
    check_keys(
        &config["security"],
        &["security".into()],
        &SECURITY,
        &mut found,
    );
    check_word(config, &["log", "level"], &LEVELS, &mut found);
    if config["checkpoint_storage"].is_object() {
        let storage = ["checkpoint_storage", "type"];
        check_word(config, &storage, &STORAGES, &mut found);
        if config["checkpoint_storage"]["type"].is_null() {
            report(&mut found, path(&[], &storage), one_of(&STORAGES));
        }
    }
    check_tls(config, &mut found);
    for manager in managers.iter().filter(|m| m.is_kubernetes()) {
        check_keys(manager.config, &manager.path, &MANAGER, &mut found);
        check_manager(manager, &mut found);
    }
    if let [manager] = &managers[..] {
        check_single(config, manager, &mut found);
    }
    found
}

fn path(above: &[Seg], below: &[&str]) -> Vec<Seg> {
    let below = below.iter().map(|key| Seg::from(*key));
    above.iter().cloned().chain(below).collect()
}

fn one_of(words: &[&str]) -> String {
    let words: Vec<&str> = words.iter().copied().filter(|it| !it.is_empty()).collect();
    format!("must be one of {}", words.join(", "))
}

/// The master ignores the case of keys.
fn check_keys(mapping: &Value, at: &[Seg], known: &[&str], found: &mut Vec<Violation>) {
    for key in mapping.as_object().into_iter().flat_map(|it| it.keys()) {
        if known.contains(&key.to_lowercase().as_str()) {
            continue;
        }
        let instead = did_you_mean(key, known.iter().copied()).map_or_else(
            || "Determined 0.38 has no such key here".to_owned(),
            |meant| format!("did you mean `{meant}`?"),
        );
        report_unknown(found, path(at, &[key]), &instead);
    }
}

/// A value that is missing is the default.
fn check_word(config: &Value, at: &[&str], words: &[&str], found: &mut Vec<Violation>) {
    let value = at.iter().fold(config, |value, key| &value[*key]);
    let is_known = value
        .as_str()
        .is_some_and(|it| words.contains(&it.to_lowercase().as_str()));
    if !value.is_null() && !is_known {
        report(found, path(&[], at), format!("{value}: {}", one_of(words)));
    }
}

fn check_tls(config: &Value, found: &mut Vec<Violation>) {
    let tls = &config["security"]["tls"];
    let is_set = |key: &str| tls[key].as_str().is_some_and(|it| !it.is_empty());
    for (missing, given) in [("key", "cert"), ("cert", "key")] {
        if is_set(given) && !is_set(missing) {
            let why = format!("required with `{given}`");
            report(found, path(&[], &["security", "tls", missing]), why);
        }
    }
}

fn check_manager(manager: &Manager<'_>, found: &mut Vec<Violation>) {
    for (key, words) in [
        ("slot_type", &SLOTS[..]),
        ("default_scheduler", &SCHEDULERS),
    ] {
        let value = &manager.config[key];
        let is_known = value.as_str().is_some_and(|it| words.contains(&it));
        if !value.is_null() && !is_known {
            let why = format!("{value}: {}", one_of(words));
            report(found, manager.at(&[key]), why);
        }
    }
    let requested = &manager.config["slot_resource_requests"]["cpu"];
    if manager.config["slot_type"] == "cpu" && requested.as_f64().is_none_or(|cpu| cpu <= 0.0) {
        let why = "must be above 0 with `slot_type: cpu`";
        let at = manager.at(&["slot_resource_requests", "cpu"]);
        report(found, at, why);
    }
    let slots = &manager.config["max_slots_per_pod"];
    if !slots.is_null() && slots.as_u64().is_none() {
        let why = format!("{slots} is not a number of slots");
        report(found, manager.at(&["max_slots_per_pod"]), why);
    }
}

/// A config with one resource manager. The layout checks several.
fn check_single(config: &Value, manager: &Manager<'_>, found: &mut Vec<Violation>) {
    layout::check_pools(manager, &mut HashMap::new(), found);
    if manager
        .pools
        .is_some_and(|it| it.as_array().is_some_and(Vec::is_empty))
    {
        report(
            found,
            manager.pools_path.clone(),
            "must list at least one pool",
        );
    }
    if !manager.is_kubernetes() {
        return;
    }
    let defaults = ["task_container_defaults", "kubernetes", "max_slots_per_pod"];
    let default = defaults.iter().fold(config, |value, key| &value[*key]);
    let own = &manager.config["max_slots_per_pod"];
    if own.is_null() == default.is_null() {
        let why = match own.is_null() {
            true => "required, here or as task_container_defaults.kubernetes.max_slots_per_pod",
            false => "is set in task_container_defaults.kubernetes too; only one may be",
        };
        report(found, manager.at(&["max_slots_per_pod"]), why);
    }
}
