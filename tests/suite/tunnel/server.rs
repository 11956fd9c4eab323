//! `check --server`: what it reports to an admin, from the server's behaviour.

use rustix::process::Signal;
use support::checks::{Checks, read_checks, run_check};
use support::netns::{self, Netns};
use support::tunnel::{AT_PUBLIC, Setup, no_gateway_ports, take};
use support::{Home, Options, StageClient, bin, leaks, start_sshd_by};

/// The server soon sends a keepalive, and the check ends with it.
const ASKS_SOON: &str = "ClientAliveInterval 1";

const ALL: [&str; 13] = [
    "ssh",
    "ssh_config",
    "key",
    "host",
    "server",
    "login",
    "forwarding",
    "gateway_ports",
    "ports",
    "latency",
    "commands",
    "keepalive",
    "sshd_config",
];

fn asking(options: Options) -> Options {
    let mut extra = options.extra;
    extra.insert(0, ASKS_SOON.into());
    Options { extra, ..options }
}

async fn server(setup: &Setup, flags: &[(&str, &str)]) -> Checks {
    run_check(setup, "--server", flags).await
}

#[tokio::test]
async fn a_well_configured_server_passes_and_nothing_stays() {
    let setup = Setup::new(asking(Options::default())).await;
    let found = server(&setup, &[]).await;
    let mut ids: Vec<_> = found
        .checks
        .iter()
        .filter_map(|c| c["id"].as_str())
        .collect();
    let mut all = ALL.to_vec();
    ids.sort_unstable();
    all.sort_unstable();
    assert_eq!(ids, all, "{}", found.stderr);
    assert!(
        found.statuses().iter().all(|(_, status)| *status == "ok"),
        "{}",
        found.stderr
    );
    assert_eq!(found.exit, Some(0));
    assert!(
        found
            .message("gateway_ports")
            .starts_with("GatewayPorts clientspecified")
    );
    assert_eq!(found.message("ports"), "3 ports: 3 free and open");
    assert!(
        found
            .message("keepalive")
            .starts_with("it sent a keepalive after ")
    );
    leaks::gone("what a look left", || setup.left()).await;
    assert!(!setup.home.run_dir().exists(), "looking makes no directory");
}

#[tokio::test]
async fn ports_are_reported_by_number() {
    let setup = Setup::new(asking(Options::default())).await;
    let (first, last) = (*setup.ports.start(), *setup.ports.end());
    let taken = take([first]).await;
    let found = server(&setup, &[]).await;
    let expected = format!("3 ports: 2 free and open, 1 in use ({first})");
    assert_eq!(found.message("ports"), expected);
    assert_eq!(found.status("ports"), "ok");
    drop(taken);

    let taken = take(setup.ports.clone()).await;
    let found = server(&setup, &[]).await;
    assert_eq!(found.code("ports"), "tunnel.port_range_exhausted");
    let cause = format!("3 ports: 3 in use ({first}-{last})");
    assert_eq!(
        found.check("ports")["caused_by"][1],
        cause,
        "{}",
        found.stderr
    );
    assert_eq!(found.status("latency"), "skipped");
    drop(taken);

    let mut permitting = Setup::new(asking(Options {
        extra: vec![format!("PermitListen {last}")],
        ..Options::default()
    }))
    .await;
    permitting.ports = setup.ports.clone();
    let found = server(&permitting, &[]).await;
    let refused = format!("2 not permitted to this account ({first}-{})", last - 1);
    assert_eq!(
        found.message("ports"),
        format!("3 ports: 1 free and open, {refused}")
    );
    assert!(found.hint("ports").contains("PermitListen"));
}

#[tokio::test]
async fn each_value_of_gateway_ports_is_detected_by_its_effect() {
    let setup = Setup::new(asking(no_gateway_ports())).await;
    let found = server(&setup, &[AT_PUBLIC]).await;
    assert_eq!(found.code("gateway_ports"), "tunnel.gateway_ports_off");
    assert_eq!(found.message("ports"), "3 ports: 3 free");
    assert_eq!(found.exit, Some(5));
    let found = server(&setup, &[("bind-address", "127.0.0.1")]).await;
    assert_eq!(found.status("gateway_ports"), "ok");

    let setup = Setup::new(asking(Options {
        gateway_ports: "yes".into(),
        ..Options::default()
    }))
    .await;
    let found = server(&setup, &[]).await;
    assert!(
        found
            .message("gateway_ports")
            .starts_with("GatewayPorts yes")
    );
    let _stranger = take([*setup.ports.start()]).await;
    let found = server(&setup, &[]).await;
    let elsewhere = "1 in use on the public address";
    assert!(
        found.message("ports").contains(elsewhere),
        "{}",
        found.stderr
    );
}

#[tokio::test]
async fn a_server_that_forbids_forwarding_gets_the_lines_to_add() {
    let setup = Setup::new(asking(Options {
        allow_tcp_forwarding: "no".into(),
        ..Options::default()
    }))
    .await;
    let found = server(&setup, &[]).await;
    assert_eq!(found.code("forwarding"), "tunnel.forwarding_forbidden");
    for id in ["gateway_ports", "ports", "latency"] {
        assert_eq!(found.status(id), "skipped", "{id}");
    }
    assert_eq!(found.status("keepalive"), "ok");
    let block = found.message("sshd_config");
    assert!(block.contains("\n    AllowTcpForwarding remote"), "{block}");

    let gone = setup.home.path().join("gone").display().to_string();
    let found = server(&setup, &[("ssh-key-path", gone.as_str())]).await;
    assert_eq!(found.code("key"), "tunnel.key_missing");
    assert_eq!(found.status("keepalive"), "skipped");
    assert!(found.message("sshd_config").contains("Match User"));
}

#[tokio::test]
async fn what_allows_forwarding_already_is_not_changed() {
    for allowed in ["remote", "yes"] {
        let setup = Setup::new(asking(Options {
            allow_tcp_forwarding: allowed.into(),
            ..Options::default()
        }))
        .await;
        let found = server(&setup, &[]).await;
        assert_eq!(found.status("forwarding"), "ok");
        let block = found.message("sshd_config");
        let mut active = block.lines().filter(|line| !line.trim().starts_with('#'));
        assert!(
            !active.any(|line| line.contains("AllowTcpForwarding")),
            "{block}"
        );
        assert!(block.contains("# AllowTcpForwarding remote"), "{block}");
    }
}

/// The lines for sshd_config from a terminal, including those for a dedicated account.
fn pasted(stderr: &str) -> Vec<String> {
    let lines = stderr
        .lines()
        .skip_while(|line| line.trim_start() != line.trim() || !line.contains("Match User"));
    let block = lines.take_while(|line| line.starts_with("    "));
    let block = block.filter(|line| !line.contains("For an account"));
    block.map(|line| line.replace("# ", "")).collect()
}

#[tokio::test]
async fn the_printed_lines_correct_the_server_that_they_are_pasted_into() {
    let closed = Options {
        allow_tcp_forwarding: "no".into(),
        ..no_gateway_ports()
    };
    let before = Setup::new(asking(closed.clone())).await;
    let found = server(&before, &[]).await;
    assert_eq!(found.status("forwarding"), "failed");
    let extra = pasted(&found.stderr);
    assert!(extra.len() > 5, "{}", found.stderr);

    let mut after = Setup::new(Options { extra, ..closed }).await;
    after.ports = before.ports.clone();
    let found = server(&after, &[]).await;
    assert!(
        found.statuses().iter().all(|(_, status)| *status == "ok"),
        "{}",
        found.stderr
    );
}

#[tokio::test]
async fn a_firewall_and_an_account_without_commands_are_detected() {
    if netns::are_missing() {
        return;
    }
    let netns = Netns::claim();
    let options = asking(Options {
        extra: vec![
            "ForceCommand /bin/false".into(),
            format!("ListenAddress {}", netns.far()),
        ],
        ..Options::default()
    });
    let sshd = start_sshd_by(options, |program, dir| netns.wrapper(program, dir)).await;
    netns.close_port(8001);
    let home = Home::new();
    let mut command = home.command(&bin("devcluster-tunnel"));
    command.args([
        "check",
        "--server",
        "--ssh-config-path=none",
        "--host-key-policy=off",
    ]);
    command.args(["--reverse-proxy-host", &netns.far().to_string()]);
    command.arg("--ssh-key-path").arg(sshd.key());
    command.args(["--ssh-user", sshd.user(), "--remote-port-range=8000-8003"]);
    let found = read_checks(command).await;
    let policy = found.message("gateway_ports");
    assert!(
        policy.starts_with("GatewayPorts clientspecified"),
        "{}",
        found.stderr
    );
    let closed = "4 ports: 3 free and open, 1 blocked between here and the server (8001)";
    assert_eq!(found.message("ports"), closed, "{}", found.stderr);
    assert!(found.hint("ports").contains("firewall"));
    assert_eq!(found.status("commands"), "skipped");
    assert_eq!(found.status("keepalive"), "ok");
}

#[tokio::test]
async fn an_interrupted_check_leaves_nothing() {
    let setup = Setup::new(Options::default()).await;
    let mut command = setup.with_config("check", &[]);
    command.arg("--server");
    let mut look = StageClient::start(command);
    look.wait_until("the latency", |m| m["id"] == "latency")
        .await;
    look.signal(Signal::TERM);
    let (status, _) = look.wait().await;
    assert!(!status.success());
    leaks::gone("what a look left", || setup.left()).await;

    let mut both = setup.with_config("check", &[]);
    both.args(["--server", "--preflight"]);
    assert_eq!(both.output().await.unwrap().status.code(), Some(2));
}
