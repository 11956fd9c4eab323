//! `check --preflight` of config-emit: reports mistakes in a base before any stage has reported values.

use std::path::Path;

use support::checks::{Checks, read_checks};
use support::emit::{DEVCLUSTER, Upstream, command, tunnel_outputs, write};
use support::{Home, leaks};

const ALL: [&str; 7] = [
    "base",
    "config",
    "references",
    "managers",
    "layout",
    "out",
    "control_socket",
];

async fn preflight(home: &Home, base: &str, flags: &[&str]) -> Checks {
    let (base, out) = (write(home, "base.yaml", base), home.path().join("out.yaml"));
    run_check(home, &base, &out, flags).await
}

async fn run_check(home: &Home, base: &Path, out: &Path, flags: &[&str]) -> Checks {
    let mut command = command(home, "check", base, out);
    command.arg("--preflight").args(flags);
    let before = leaks::files(home.path());
    let found = read_checks(command).await;
    assert_eq!(leaks::files(home.path()), before, "looking left something");
    found
}

#[tokio::test]
async fn a_usable_base_passes_every_check_while_no_stage_runs() {
    let home = Home::new();
    let flags = [
        r#"--upstreams=["tunnel","gateway"]"#,
        "--control-socket=sock",
    ];
    let found = preflight(&home, DEVCLUSTER, &flags).await;
    let all = ALL.map(|id| (id, "ok"));
    assert_eq!(found.statuses(), all, "{}", found.stderr);
    assert_eq!(found.exit, Some(0));
}

const MISTAKES: &str = r#"port: 99999
log: {level: "${{ tunel.port }}", color: "${{ tunnel.port"}
resource_manager:
  type: kubernetes
  resource_pools: []
  internal_task_gateway: {gateway_nam: x, gateway_name: ""}
additional_resource_managers:
  - resource_manager: {type: kubernetes, name: east, max_slots_per_pod: 1}
    resource_pools: [{pool_name: a}, {pool_name: a}]
"#;

#[tokio::test]
async fn every_mistake_in_a_base_has_its_line_and_the_code_of_the_run() {
    let home = Home::new();
    let long = format!("--control-socket=/{}/sock", "x".repeat(120));
    let flags = [
        r#"--upstreams=["tunnel","gateway"]"#,
        r#"--resource-managers={"gateway": "eats"}"#,
        &long,
    ];
    let found = preflight(&home, MISTAKES, &flags).await;
    assert_eq!(found.exit, Some(5), "{}", found.stderr);
    let refused = [
        "1:7: port: 99999 is not a port",
        "3:1: resource_manager.max_slots_per_pod: required",
        "5:3: resource_manager.resource_pools: unknown",
        "6:27: resource_manager.internal_task_gateway.gateway_nam: unknown",
        "9:50: additional_resource_managers[0].resource_pools[1].pool_name: `a` is also the name of",
    ];
    let references = [
        "2:15: log.level: no instance `tunel`; did you mean `tunnel`?",
        "2:43: log.color: a reference without its `}}`",
    ];
    let managers = ["7:1: gateway: there is no resource manager `eats`"];
    for (id, code, lines) in [
        ("references", "config_emit.bad_reference", &references[..]),
        ("managers", "config_emit.ambiguous_manager", &managers),
        ("layout", "config_emit.refused", &refused),
        ("control_socket", "config_emit.socket_path_long", &[]),
    ] {
        assert_eq!(found.code(id), code, "{}", found.stderr);
        let causes = found.check(id)["caused_by"].to_string();
        let expected = lines.iter().map(|l| format!("base.yaml:{l}"));
        let missing: Vec<_> = expected.filter(|l| !causes.contains(l)).collect();
        assert!(missing.is_empty(), "{missing:#?}\n{causes}");
    }
    // The gateway sets the name.
    let layout = found.check("layout").to_string();
    assert!(!layout.contains("gateway_name:"), "{layout}");
}

#[tokio::test]
async fn the_outputs_of_running_instances_are_checked_too() {
    let home = Home::new();
    let _tunnel = Upstream::ready(&home, "tunnel", "tunnel", tunnel_outputs(8003)).await;
    let base = DEVCLUSTER.replace("level: debug", "level: \"${{ tunnel.prot }}\"");
    let found = preflight(&home, &base, &[r#"--upstreams=["tunnel"]"#]).await;
    assert_eq!(found.code("references"), "config_emit.bad_reference");
    let causes = found.check("references").to_string();
    assert!(causes.contains("did you mean `tunnel.port`?"), "{causes}");
}

#[tokio::test]
async fn a_base_that_devcluster_will_write_may_be_missing_and_any_other_may_not() {
    let home = Home::new();
    let (base, out) = (
        home.path().join("master.conf"),
        home.path().join("out.yaml"),
    );
    let found = run_check(&home, &base, &out, &["--control-socket=sock"]).await;
    assert_eq!(found.exit, Some(0), "{}", found.stderr);
    assert_eq!(found.status("base"), "skipped");
    let found = run_check(&home, &base, &out, &[]).await;
    assert_eq!(found.code("base"), "config_emit.base_unreadable");
    assert_eq!(found.status("layout"), "skipped");
}

#[tokio::test]
async fn each_unusable_base_has_its_code() {
    let home = Home::new();
    let local = DEVCLUSTER.replace("type: kubernetes", "type: agent");
    for (base, id, code) in [
        ("a: [\n", "base", "config_emit.base_not_yaml"),
        ("- a\n", "config", "config_emit.base_not_config"),
        (
            "stages:\n- db: {}\n",
            "config",
            "config_emit.no_master_stage",
        ),
        (&local, "managers", "config_emit.no_kubernetes"),
    ] {
        let found = preflight(&home, base, &[]).await;
        assert_eq!(found.code(id), code, "{}", found.stderr);
        let ids = found.statuses().into_iter().map(|(id, _)| id);
        assert_eq!(ids.collect::<Vec<_>>(), ALL, "{}", found.stderr);
    }
    let base = write(&home, "base.yaml", DEVCLUSTER);
    let found = run_check(&home, &base, Path::new("/proc/nowhere/out.yaml"), &[]).await;
    assert_eq!(found.code("out"), "config_emit.cannot_write");
}

/// Accepts every config without `refuse_me`, as the master does: it says so, then would connect to its database.
const MASTER: &str = r#"#!/bin/sh
grep -q '"host":"127.0.0.1","port":"1"' "$2" || exit 9
if grep -q refuse_me "$2"; then
    printf '%s\n' 'time="x" level=error msg="json: unknown field \"refuse_me\"\nmain.getConfig"' >&2
    exit 1
fi
echo 'time="x" level=info msg="master configuration: {}"' >&2
exec sleep 600
"#;

#[tokio::test]
async fn the_program_of_the_master_decides_if_it_is_at_hand() {
    let home = Home::new();
    let base = |program: &str, key: &str| {
        let path = write(&home, program, MASTER);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("cannot chmod");
        let cmdline = format!("cmdline: [{}, --config-file, \":config\"]", path.display());
        DEVCLUSTER
            .replace("pre: [{sh: make}]", &cmdline)
            .replace("log: {", &format!("{key}: 1\n        log: {{"))
    };
    let flags = [r#"--upstreams=["tunnel","gateway"]"#];
    let accepted = preflight(&home, &base("determined-master", "newer"), &flags).await;
    assert_eq!(accepted.status("layout"), "ok", "{}", accepted.stderr);
    let by = accepted.message("layout");
    assert!(by.contains("determined-master accepts it"), "{by}");
    let refused = preflight(&home, &base("determined-master", "refuse_me"), &flags).await;
    assert_eq!(refused.code("layout"), "config_emit.refused");
    let causes = refused.check("layout")["caused_by"].to_string();
    assert!(
        causes.contains(r#"unknown field \"refuse_me\""#),
        "{causes}"
    );
    assert!(causes.contains("base.yaml:10:9: refuse_me"), "{causes}");
    let other = preflight(&home, &base("start-master", "newer"), &flags).await;
    assert_eq!(other.code("layout"), "config_emit.refused");
    let rules = preflight(&home, &base("start-master", "root"), &flags).await;
    assert!(
        rules.message("layout").contains("was not asked"),
        "{}",
        rules.stderr
    );
    leaks::gone("what a look left", || leaks::processes(&home.mark())).await;
}
