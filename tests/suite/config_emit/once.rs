//! devcluster-config-emit once: from a run directory to a file.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;

use serde_json::{Value, json};
use support::emit::{
    DEVCLUSTER, RENDERED, Upstream, assert_refused, command, finish, gateway_outputs, once, read,
    tunnel_and_gateway, tunnel_outputs, write,
};
use support::{Home, StageClient, bin, code_of};

#[tokio::test]
async fn a_devcluster_yaml_gets_the_values_and_keeps_every_other_byte() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    once(&home, &base, &out).await;
    assert_eq!(read(&out), RENDERED, "{}", read(&out));
    assert_eq!(read(&base), DEVCLUSTER);
    let mode = out.metadata().expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A rendered config renders to itself.
    let again = home.path().join("again.yaml");
    once(&home, &out, &again).await;
    assert_eq!(read(&again), RENDERED);
}

#[tokio::test]
async fn the_conf_that_devcluster_wrote_is_read_and_not_changed() {
    let home = Home::new();
    let _tunnel = Upstream::ready(&home, "tunnel", "tunnel", tunnel_outputs(8003)).await;
    let conf =
        "db: {host: localhost}\nresource_manager: {max_slots_per_pod: 1, type: kubernetes}\n";
    let (base, out) = (
        write(&home, "master.conf", conf),
        home.path().join("master.yaml"),
    );
    std::fs::set_permissions(&base, PermissionsExt::from_mode(0o400)).expect("read-only");
    once(&home, &base, &out).await;
    let expected = conf.replace(
        "kubernetes}",
        "kubernetes, determined_master_host: proxy.example.com, determined_master_port: 8003}",
    );
    assert_eq!((read(&base).as_str(), read(&out)), (conf, expected));
}

#[tokio::test]
async fn without_a_tunnel_the_masters_address_stays_as_it_is() {
    let home = Home::new();
    let _gateway = Upstream::ready(&home, "gateway", "gateway", gateway_outputs()).await;
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    once(&home, &base, &out).await;
    let text = read(&out);
    assert!(text.contains("determined_master_host: 10.0.0.1"), "{text}");
    assert!(!text.contains("determined_master_port"), "{text}");
}

#[tokio::test]
async fn values_are_picked_by_meaning_and_instances_may_have_any_name() {
    let home = Home::new();
    let _a = Upstream::ready(&home, "gateway", "tunnel", tunnel_outputs(8003)).await;
    let _b = Upstream::ready(&home, "east", "gateway", gateway_outputs()).await;
    let _c = Upstream::ready(
        &home,
        "vpn",
        "plugin",
        json!({"host": "10.9.9.9", "port": 1}),
    )
    .await;
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    once(&home, &base, &out).await;
    assert_eq!(read(&out), RENDERED);
}

#[tokio::test]
async fn an_unusable_base_is_refused_with_file_and_line() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let no_master = "stages:\n  - db: {}\n  - master: {name: other}\n";
    assert_refused(
        &home,
        no_master,
        "config_emit.no_master_stage",
        2,
        &["base.yaml:1:1", "`master`"],
    )
    .await;
    let agents = "stages:\n  - master:\n      config_file:\n        resource_manager:\n          type: agent\n";
    assert_refused(
        &home,
        agents,
        "config_emit.no_kubernetes",
        2,
        &["base.yaml:5:17"],
    )
    .await;
    assert_refused(
        &home,
        "log: {}\n",
        "config_emit.no_kubernetes",
        2,
        &["base.yaml:1:1"],
    )
    .await;
    let broken = "stages:\n  - master: {a: b\n";
    assert_refused(
        &home,
        broken,
        "config_emit.base_not_yaml",
        2,
        &["base.yaml:"],
    )
    .await;
    let twins = "a: 1\nb: 2\na: 3\n";
    assert_refused(
        &home,
        twins,
        "config_emit.base_not_yaml",
        2,
        &["base.yaml:3:1", "is a duplicate"],
    )
    .await;
    assert_refused(
        &home,
        "- 1\n",
        "config_emit.base_not_config",
        2,
        &["base.yaml:1:1"],
    )
    .await;
}

#[tokio::test]
async fn a_value_that_is_a_key_elsewhere_is_not_replaced() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let key = DEVCLUSTER
        .replace(
            "log: { level: debug }",
            "cluster_name: &k \"${{ tunnel.host }}\"",
        )
        .replace("agent: {}", "agent: {*k : 1}");
    assert_refused(&home, &key, "config_emit.cannot_edit", 2, &["base.yaml:"]).await;
}

#[tokio::test]
async fn what_determined_would_refuse_is_refused_with_its_line() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let below = DEVCLUSTER.replace(
        "gateway_port_range_end: 50000",
        "gateway_port_range_end: 39999",
    );
    let says = [
        "base.yaml:16:",
        "gateway_port_range_start",
        "40000 must be below",
        "39999",
    ];
    assert_refused(&home, &below, "config_emit.refused", 2, &says).await;
    let unknown = DEVCLUSTER.replace("gateway_port_range_end", "gateway_prot");
    assert_refused(
        &home,
        &unknown,
        "config_emit.refused",
        2,
        &["base.yaml:16:54", "gateway_prot: unknown"],
    )
    .await;
}

#[tokio::test]
async fn two_upstreams_with_the_same_value_are_ambiguous() {
    let home = Home::new();
    let _a = Upstream::ready(&home, "east", "tunnel", tunnel_outputs(1)).await;
    let _b = Upstream::ready(&home, "west", "tunnel", tunnel_outputs(8003)).await;
    assert_refused(
        &home,
        DEVCLUSTER,
        "config_emit.ambiguous_upstream",
        2,
        &["east, west"],
    )
    .await;
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    let mut west = command(&home, "once", &base, &out);
    west.args(["--upstreams", r#"["west"]"#]);
    // The base has no gateway, and Determined would refuse it.
    assert_eq!(finish(west).await.0, Some(2));
    std::fs::write(&base, DEVCLUSTER.replace("internal_task_gateway", "# ")).expect("written");
    let mut west = command(&home, "once", &base, &out);
    west.args(["--upstreams", r#"["west"]"#]);
    let (code, stderr) = finish(west).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        read(&out).contains("determined_master_port: 8003"),
        "{}",
        read(&out)
    );
}

#[tokio::test]
async fn missing_upstreams_and_wrong_outputs_are_upstream_errors() {
    let home = Home::new();
    assert_refused(
        &home,
        DEVCLUSTER,
        "config_emit.no_upstream",
        4,
        &["no stage runs in"],
    )
    .await;
    let _tunnel =
        Upstream::ready(&home, "tunnel", "tunnel", json!({"host": "h", "port": "x"})).await;
    assert_refused(
        &home,
        DEVCLUSTER,
        "config_emit.bad_outputs",
        4,
        &["tunnel", "port"],
    )
    .await;
}

#[tokio::test]
async fn a_missing_result_fails_the_check() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    let mut stage = StageClient::start(command(&home, "run", &base, &out));
    stage.wait_for("ready").await;
    let check = async || finish(command(&home, "check", &base, &out)).await;
    assert_eq!(check().await.0, Some(0));
    std::fs::remove_file(&out).expect("it was written");
    let (code, stderr) = check().await;
    assert_eq!((code_of(&stderr), code), ("config_emit.stale", Some(5)));
}

#[tokio::test]
async fn a_devcluster_that_does_not_listen_restarts_nothing() {
    let home = Home::new();
    let mut restart = home.command(&bin("devcluster-config-emit"));
    restart.args(["restart", "--control-socket", "/nowhere/sock", "master"]);
    let (code, stderr) = finish(restart).await;
    assert_eq!((code_of(&stderr), code), ("config_emit.control", Some(1)));
}

#[tokio::test]
async fn the_base_is_never_overwritten() {
    let home = Home::new();
    let base = write(&home, "base.yaml", DEVCLUSTER);
    symlink(&base, home.path().join("link")).expect("a link");
    for out in ["base.yaml", "link", "./base.yaml"] {
        let (code, stderr) = finish(command(&home, "once", &base, &home.path().join(out))).await;
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("out: is the base itself"), "{stderr}");
    }
    assert_eq!(read(&base), DEVCLUSTER);
}

#[tokio::test]
async fn a_symlink_in_place_of_the_result_is_replaced_not_followed() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let (base, out) = (
        write(&home, "base.yaml", DEVCLUSTER),
        home.path().join("out.yaml"),
    );
    let victim = write(&home, "victim", "mine");
    symlink(&victim, &out).expect("a link");
    once(&home, &base, &out).await;
    assert_eq!(
        (read(&victim).as_str(), read(&out).as_str()),
        ("mine", RENDERED)
    );
    assert!(!out.symlink_metadata().expect("metadata").is_symlink());
}

#[tokio::test]
async fn a_missing_directory_is_reported() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let base = write(&home, "base.yaml", DEVCLUSTER);
    let mut stage = StageClient::start(command(
        &home,
        "once",
        &base,
        &home.path().join("no/out.yaml"),
    ));
    let error = stage.wait_for("error").await["error"].clone();
    assert_eq!(error["code"], "config_emit.cannot_write");
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|m| m.contains("no/out.yaml")),
        "{error}"
    );
    assert_eq!(stage.wait().await.0.code(), Some(1));
}

#[tokio::test]
async fn stdout_has_the_document_alone_and_stderr_the_diff() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let base = write(&home, "base.yaml", DEVCLUSTER);
    let mut command = home.command(&bin("devcluster-config-emit"));
    command
        .args(["once", "--out", "-", "--diff"])
        .arg("--run-dir")
        .arg(home.run_dir());
    command.arg("--base").arg(&base).stdin(Stdio::null());
    let output = command.output().await.expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        RENDERED,
        "{stderr}"
    );
    for line in [
        "--- ",
        "-          determined_master_host: 10.0.0.1",
        "+          determined_master_port: 8003",
    ] {
        assert!(stderr.contains(line), "no {line:?} in\n{stderr}");
    }
    assert!(
        !stderr.contains("startup_input"),
        "more than the context\n{stderr}"
    );
}

#[tokio::test]
async fn describe_and_help_name_every_field() {
    let home = Home::new();
    let describe = home
        .command(&bin("devcluster-config-emit"))
        .arg("describe")
        .output();
    let described = describe.await.expect("it runs");
    let value: Value = serde_json::from_slice(&described.stdout).expect("JSON");
    assert_eq!(value["kind"], "config-emit", "{value:#}");
    let help = home
        .command(&bin("devcluster-config-emit"))
        .args(["run", "--help"])
        .output();
    let help = String::from_utf8(help.await.expect("it runs").stdout).expect("text");
    for flag in ["--base", "--out", "--upstreams", "--stage", "--diff"] {
        assert!(help.contains(flag), "no {flag} in\n{help}");
    }
}

#[tokio::test]
async fn more_ports_than_the_gateway_can_open_are_a_warning() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let wide = DEVCLUSTER.replace(
        "gateway_port_range_end: 50000",
        "gateway_port_range_start: 45000, gateway_port_range_end: 50000",
    );
    let (base, out) = (
        write(&home, "base.yaml", &wide),
        home.path().join("out.yaml"),
    );
    let (code, stderr) = finish(command(&home, "once", &base, &out)).await;
    assert_eq!(code, Some(0), "{stderr}");
    let says = "has 5001 ports, but the Gateway of gateway has room for 64";
    assert!(
        stderr.contains("warning: ") && stderr.contains(says),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_gateway_without_a_resource_manager_of_its_own_lists_the_choices() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let base = "resource_manager: {type: kubernetes, max_slots_per_pod: 1}\nadditional_resource_managers:\n  - resource_manager: \
        {type: kubernetes, name: east, max_slots_per_pod: 1}\n    resource_pools: [{pool_name: e}]\n";
    let says = [
        "base.yaml:2:1",
        "gateway: its resource manager is not specified",
        "default, east",
    ];
    assert_refused(&home, base, "config_emit.ambiguous_manager", 2, &says).await;
    let (base, out) = (
        write(&home, "base.yaml", base),
        home.path().join("out.yaml"),
    );
    let mut once = command(&home, "once", &base, &out);
    once.args(["--resource-managers", r#"{"gateway": "east"}"#]);
    let (code, stderr) = finish(once).await;
    assert_eq!(code, Some(0), "{stderr}");
    let value = protocol::yaml::Document::parse(&read(&out))
        .expect("YAML")
        .value();
    let east = &value["additional_resource_managers"][0]["resource_manager"];
    assert_eq!(east["internal_task_gateway"]["gateway_ip"], "10.1.2.3");
    for manager in [&value["resource_manager"], east] {
        assert_eq!(manager["determined_master_port"], 8003);
    }
    assert!(
        value["resource_manager"]
            .get("internal_task_gateway")
            .is_none()
    );
}
