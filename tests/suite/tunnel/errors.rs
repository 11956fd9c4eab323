//! Every failed start of a tunnel: each has its own code, exit code and hint.

use std::path::Path;

use rustix::process::Signal;
use support::tunnel::{AT_PUBLIC, Setup, any_listener, failure, no_gateway_ports, take};
use support::{Home, Options, StageClient};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::task::JoinSet;

#[tokio::test]
async fn a_range_without_a_free_port_is_an_error() {
    let setup = Setup::new(Options::default()).await;
    let _taken = take(setup.ports.clone()).await;
    let error = failure(
        &setup,
        setup.command(&[]),
        "tunnel.port_range_exhausted",
        75,
    )
    .await;
    let range = format!("{}-{}", setup.ports.start(), setup.ports.end());
    assert!(
        error["message"].as_str().unwrap().contains(&range),
        "{error}"
    );
}

async fn make_key(path: &Path, passphrase: &str) {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", passphrase, "-f"])
        .arg(path);
    let status = command.status().await.expect("no ssh-keygen");
    assert!(status.success());
}

#[tokio::test]
async fn each_unusable_key_has_its_error() {
    let home = Home::new();
    let (wrong, locked) = (home.path().join("wrong"), home.path().join("locked"));
    make_key(&wrong, "").await;
    make_key(&locked, "secret").await;
    let setup = Setup::new(Options::default()).await;
    // The server accepts the locked key besides its own.
    let authorized = setup.sshd.file("sshd/authorized_keys");
    let keys = [setup.sshd.key(), locked.clone()].map(|key| key.with_extension("pub"));
    let keys = keys.map(|key| std::fs::read_to_string(key).unwrap());
    std::fs::write(authorized, keys.concat()).unwrap();
    let open = setup.sshd.file("open");
    std::fs::copy(setup.sshd.key(), &open).unwrap();
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let junk = setup.sshd.file("junk");
    std::fs::copy(setup.sshd.known_hosts(), &junk).unwrap();
    std::fs::set_permissions(&junk, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

    for (key, code) in [
        (wrong.clone(), "tunnel.key_refused"),
        (locked, "tunnel.key_locked"),
        (open, "tunnel.key_permissions"),
        (junk, "tunnel.key_invalid"),
        (wrong.with_extension("pub"), "tunnel.key_invalid"),
        (home.path().join("none"), "tunnel.key_missing"),
    ] {
        let key = key.to_str().unwrap();
        let command = setup.command(&[("ssh-key-path", key)]);
        let error = failure(&setup, command, code, 1).await;
        assert!(error["message"].as_str().unwrap().contains(key), "{error}");
    }
}

#[tokio::test]
async fn a_host_key_that_is_unknown_or_changed_is_refused() {
    let setup = Setup::new(Options::default()).await;
    let known_hosts = setup.home.path().join("known hosts, 100%");
    let with = |policy| {
        let path = known_hosts.to_str().unwrap();
        setup.command(&[("known-hosts-path", path), ("host-key-policy", policy)])
    };
    failure(&setup, with("strict"), "tunnel.host_key_unknown", 1).await;
    assert!(!known_hosts.exists(), "strict learns nothing");

    let mut tunnel = StageClient::start(with("accept-new"));
    tunnel.wait_for("ready").await;
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;

    let learnt = std::fs::read_to_string(&known_hosts).unwrap();
    let place = learnt.split_whitespace().next().unwrap();
    let other = std::fs::read_to_string(setup.sshd.key().with_extension("pub")).unwrap();
    std::fs::write(&known_hosts, format!("{place} {other}")).unwrap();
    let error = failure(&setup, with("accept-new"), "tunnel.host_key_changed", 1).await;
    assert!(
        error["hint"].as_str().unwrap().contains("ssh-keygen"),
        "{error}"
    );

    std::fs::write(&known_hosts, format!("@revoked {learnt}")).unwrap();
    failure(&setup, with("strict"), "tunnel.host_key_revoked", 1).await;

    let mut tunnel = StageClient::start(with("off"));
    tunnel.wait_for("ready").await;
}

#[tokio::test]
async fn an_ssh_config_that_hangs_is_an_error() {
    let setup = Setup::new(Options::default()).await;
    let hangs = setup.home.path().join("ssh_config");
    let until_ssh_ends = "while kill -0 $PPID; do sleep 0.1; done";
    std::fs::write(&hangs, format!("Match exec \"{until_ssh_ends}\"\n")).unwrap();
    let command = setup.command(&[("ssh-config-path", hangs.to_str().unwrap())]);
    let error = failure(&setup, command, "tunnel.ssh_config_slow", 1).await;
    assert!(
        error["hint"].as_str().unwrap().contains("Match exec"),
        "{error}"
    );
}

#[tokio::test]
async fn each_unreachable_server_has_its_error() {
    let setup = Setup::new(Options::default()).await;
    let closed = setup.ports.start().to_string();
    let (no_ssh, silent, greets) = (
        any_listener().await,
        any_listener().await,
        any_listener().await,
    );
    let no_ssh_port = no_ssh.local_addr().unwrap().port().to_string();
    let silent_port = silent.local_addr().unwrap().port().to_string();
    let mut hangs_up = JoinSet::new();
    hangs_up.spawn(async move { while no_ssh.accept().await.is_ok() {} });
    let greets_port = greets.local_addr().unwrap().port().to_string();
    let mut greeted = JoinSet::new();
    greeted.spawn(async move {
        let mut connections = Vec::new();
        while let Ok((mut connection, _)) = greets.accept().await {
            connection.write_all(b"SSH-2.0-x\r\n").await.unwrap();
            connections.push(connection);
        }
    });

    for (flag, value, code) in [
        ("ssh-port", closed.as_str(), "tunnel.server_refused"),
        ("ssh-port", &no_ssh_port, "tunnel.server_hung_up"),
        ("ssh-port", &silent_port, "tunnel.server_unreachable"),
        ("ssh-port", &greets_port, "tunnel.server_timeout"),
        (
            "reverse-proxy-host",
            "no-such-host.invalid",
            "tunnel.host_unknown",
        ),
    ] {
        let command = setup.command(&[(flag, value), ("connect-timeout", "1")]);
        failure(&setup, command, code, 75).await;
    }
}

#[tokio::test]
async fn without_ssh_the_hint_is_the_package_to_install() {
    let setup = Setup::new(Options::default()).await;
    let mut command = setup.command(&[]);
    command.env("PATH", "/nonexistent");
    let error = failure(&setup, command, "tunnel.ssh_missing", 1).await;
    assert!(
        error["hint"].as_str().unwrap().contains("openssh-client"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_forbids_forwarding_or_these_ports_has_its_error() {
    let forbidden = Options {
        allow_tcp_forwarding: "no".into(),
        ..Options::default()
    };
    let setup = Setup::new(forbidden).await;
    failure(&setup, setup.command(&[]), "tunnel.forwarding_forbidden", 1).await;

    let other_ports = Options {
        extra: vec!["PermitListen 1".into()],
        ..Options::default()
    };
    let setup = Setup::new(other_ports).await;
    failure(&setup, setup.command(&[]), "tunnel.ports_not_permitted", 1).await;
}

#[tokio::test]
async fn gateway_ports_off_and_a_blocked_port_are_different_errors() {
    let setup = Setup::new(no_gateway_ports()).await;
    let error = failure(
        &setup,
        setup.command(&[AT_PUBLIC]),
        "tunnel.gateway_ports_off",
        1,
    )
    .await;
    assert!(
        error["hint"].as_str().unwrap().contains("GatewayPorts"),
        "{error}"
    );

    // A server without commands cannot show where it listens.
    let silent = Options {
        extra: vec!["ForceCommand /bin/false".into()],
        ..no_gateway_ports()
    };
    let setup = Setup::new(silent).await;
    failure(
        &setup,
        setup.command(&[AT_PUBLIC]),
        "tunnel.port_unreachable",
        75,
    )
    .await;
}
