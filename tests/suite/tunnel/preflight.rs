//! `check --preflight` of the tunnel: each missing thing is reported with its hint, and nothing is left.

use rustix::process::Signal;
use support::checks::{Checks, run_check};
use support::tunnel::{AT_PUBLIC, Setup, no_gateway_ports, take};
use support::{Options, leaks};

async fn preflight(setup: &Setup, flags: &[(&str, &str)]) -> Checks {
    run_check(setup, "--preflight", flags).await
}

const ALL: [&str; 8] = [
    "ssh",
    "ssh_config",
    "key",
    "host",
    "server",
    "login",
    "forwarding",
    "port",
];

#[tokio::test]
async fn an_open_port_passes_every_check_and_is_released() {
    let setup = Setup::new(Options::default()).await;
    let found = preflight(&setup, &[]).await;
    assert_eq!(
        found.statuses(),
        ALL.map(|id| (id, "ok")),
        "{}",
        found.stderr
    );
    assert_eq!(found.exit, Some(0));
    leaks::gone("what a preflight left", || setup.left()).await;
    assert!(found.stderr.contains("✓ "), "{}", found.stderr);
    assert!(!setup.home.run_dir().exists(), "looking makes no directory");
}

#[tokio::test]
async fn a_running_tunnel_is_not_disturbed() {
    let setup = Setup::new(Options::default()).await;
    let mut tunnel = setup.start(&[]);
    tunnel.wait_for("ready").await;
    let mut command = setup.with_config("check", &[]);
    let output = command.arg("--preflight").output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let check = setup.verb("check").output().await.unwrap();
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success(), "{said}");
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;
    assert!(!tunnel.has_said("degraded"), "{}", tunnel.stderr());
}

#[tokio::test]
async fn each_failed_check_has_the_code_of_the_run() {
    let setup = Setup::new(Options::default()).await;
    let unused = setup.local_port.to_string();
    let missing = setup.home.path().join("no-such-key").display().to_string();
    let open = setup.home.path().join("open");
    std::fs::copy(setup.sshd.key(), &open).unwrap();
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let nothing_known = setup.home.path().join("known").display().to_string();
    for (flags, id, code) in [
        (
            ("ssh-key-path", missing.as_str()),
            "key",
            "tunnel.key_missing",
        ),
        (
            ("ssh-key-path", open.to_str().unwrap()),
            "key",
            "tunnel.key_permissions",
        ),
        (
            ("reverse-proxy-host", "no-such-host.invalid"),
            "host",
            "tunnel.host_unknown",
        ),
        (
            ("ssh-port", unused.as_str()),
            "server",
            "tunnel.server_refused",
        ),
        (
            ("known-hosts-path", nothing_known.as_str()),
            "login",
            "tunnel.host_key_unknown",
        ),
    ] {
        let found = preflight(&setup, &[flags]).await;
        assert_eq!(found.code(id), code, "{}", found.stderr);
        assert_eq!(found.exit, Some(5));
        assert_eq!(found.checks.len(), ALL.len(), "{}", found.stderr);
        assert_eq!(found.status("port"), "skipped", "{}", found.stderr);
        assert_eq!(found.status("ssh"), "ok");
    }
}

#[tokio::test]
async fn a_missing_key_does_not_hide_an_unreachable_server() {
    let setup = Setup::new(Options::default()).await;
    let missing = setup.home.path().join("no-such-key").display().to_string();
    let unused = setup.local_port.to_string();
    let flags = [
        ("ssh-key-path", missing.as_str()),
        ("ssh-port", unused.as_str()),
    ];
    let found = preflight(&setup, &flags).await;
    assert_eq!(found.code("key"), "tunnel.key_missing");
    assert_eq!(found.code("server"), "tunnel.server_refused");
}

#[tokio::test]
async fn without_ssh_the_check_fails_and_the_dependent_ones_are_skipped() {
    let setup = Setup::new(Options::default()).await;
    let mut command = setup.verb("check");
    command
        .arg("--preflight")
        .args(["--reverse-proxy-host=127.0.0.1", "--events=none"])
        .env("PATH", setup.home.path());
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("✗ an ssh client is installed"), "{said}");
    assert!(said.contains("hint: install the OpenSSH client"), "{said}");
    assert!(
        said.contains("– the server accepts the login: needs ssh"),
        "{said}"
    );
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn each_missing_permission_of_the_server_has_its_code() {
    let setup = Setup::new(Options {
        allow_tcp_forwarding: "no".into(),
        ..Options::default()
    })
    .await;
    let found = preflight(&setup, &[]).await;
    assert_eq!(found.code("forwarding"), "tunnel.forwarding_forbidden");
    assert_eq!(found.status("port"), "skipped");

    let setup = Setup::new(no_gateway_ports()).await;
    let found = preflight(&setup, &[AT_PUBLIC]).await;
    assert_eq!(found.status("forwarding"), "ok");
    assert_eq!(found.code("port"), "tunnel.gateway_ports_off");

    let setup = Setup::new(Options::default()).await;
    let taken = take(setup.ports.clone()).await;
    let found = preflight(&setup, &[]).await;
    assert_eq!(found.code("port"), "tunnel.port_range_exhausted");
    drop(taken);
}

/// The block of docs/ssh-server.md, for this user and these ports.
fn documented(user: &str, ports: &std::ops::RangeInclusive<u16>) -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ssh-server.md");
    let page = std::fs::read_to_string(page).expect("no page");
    let block = page.split("```\n").nth(1).expect("no block");
    let ports: Vec<String> = ports.clone().map(|p| p.to_string()).collect();
    let block = block.replace("Match User tunnel", &format!("Match User {user}"));
    let block = block.replace("8000 8001 8002 8003", &ports.join(" "));
    assert!(block.contains("PermitListen"), "{block}");
    block.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_server_configured_as_documented_allows_the_tunnels_ports_only() {
    // The ports must be known before the server starts.
    let spare = Setup::new(Options::default()).await;
    let extra = documented(spare.sshd.user(), &spare.ports);
    let mut setup = Setup::new(Options {
        gateway_ports: "no".into(),
        allow_tcp_forwarding: "no".into(),
        extra,
    })
    .await;
    let other = setup.ports.clone();
    setup.ports = spare.ports.clone();
    let found = preflight(&setup, &[]).await;
    assert_eq!(
        found.statuses(),
        ALL.map(|id| (id, "ok")),
        "{}",
        found.stderr
    );
    let range = format!("{}-{}", other.start(), other.end());
    let found = preflight(&setup, &[("remote-port-range", &range)]).await;
    assert_eq!(found.code("forwarding"), "tunnel.ports_not_permitted");
}
