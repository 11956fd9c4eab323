//! After ready, while the API, the network or the credentials are gone: changes of the Gateway are reported afterwards,
//! and the session continues.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::gateway::{SESSIONS, ready, start, stop};
use support::kube::{gateway_command, write_kubeconfig};
use support::kube_real::{LEASES, RealKube, STAGE, path};
use support::random::asked_for;
use support::relay::Relay;
use support::{Home, StageClient, code_of};

use super::with_gateway;

/// Renewed, and watched again, once a second.
const LEASE: [&str; 2] = ["--lease-duration", "10"];

/// Sets the Gateway's address; the stage reports it in outputs of a higher generation.
async fn moves(kube: &RealKube, stage: &mut StageClient, address: &str) {
    kube.program("default", "tcp-gateway", address).await;
    is_reported(stage, address).await;
}

async fn is_reported(stage: &mut StageClient, address: &str) {
    let outputs = stage.wait_for("outputs").await;
    let block = &outputs["outputs"]["internal_task_gateway"];
    assert_eq!(block["gateway_ip"], address, "{outputs:#}");
    stage.wait_for("ready").await;
}

async fn renewed(kube: &RealKube) -> Value {
    kube.items(SESSIONS).await[0]["spec"]["renewTime"].clone()
}

async fn is_renewed_again(kube: &RealKube) {
    let before = renewed(kube).await;
    kube.until("renewal", async || renewed(kube).await != before)
        .await;
}

#[tokio::test]
async fn an_api_that_restarts_without_old_versions_is_watched_again() {
    let Some(mut kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    let mut stage = start(&kube, &home, &LEASE);
    ready(&mut stage).await;
    moves(&kube, &mut stage, "127.0.0.2").await;
    // The API no longer has the history of the watch's version: 410 Gone.
    kube.restart(async || {}).await;
    let from = kube.requests(STAGE).len();
    moves(&kube, &mut stage, "127.0.0.3").await;
    let since = kube.requests(STAGE).split_off(from);
    let listed = |it: &String| it.starts_with("list ") && it.contains("fieldSelector");
    assert!(since.iter().any(listed), "not listed again: {since:#?}");
    is_renewed_again(&kube).await;
    assert!(!stage.has_said("error"));
    stop(stage).await;
}

#[tokio::test]
async fn a_check_sees_an_address_that_the_stage_has_not_reported() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    let mut stage = start(&kube, &home, &[]);
    ready(&mut stage).await;
    stage.signal(Signal::STOP);
    kube.program("default", "tcp-gateway", "127.0.0.2").await;
    let mut check = StageClient::start(gateway_command(&home, "check", &[]));
    let (status, _) = check.wait().await;
    assert_eq!(
        (code_of(&check.stderr()), status.code()),
        ("gateway.address_changed", Some(5))
    );
    stage.signal(Signal::CONT);
    stop(stage).await;
}

#[tokio::test]
async fn a_check_sees_that_another_session_has_the_gateway() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    let mut stage = start(&kube, &home, &[]);
    ready(&mut stage).await;
    stage.signal(Signal::STOP);
    let lease = path(LEASES, &kube.items(SESSIONS).await[0]);
    let eve = json!({"spec": {"holderIdentity": "eve"}});
    kube.merge(&lease, &eve).await;
    let mut check = StageClient::start(gateway_command(&home, "check", &[]));
    let (status, _) = check.wait().await;
    assert_eq!(
        (code_of(&check.stderr()), status.code()),
        ("gateway.session_lost", Some(5))
    );
    stage.signal(Signal::CONT);
    stage.signal(Signal::KILL);
    stage.wait().await;
}

#[tokio::test]
async fn a_session_that_was_not_renewed_for_its_duration_is_degraded_until_it_is() {
    let Some(mut kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    let mut stage = start(&kube, &home, &["--lease-duration", "3"]);
    ready(&mut stage).await;
    kube.restart(async || {
        let error = stage.wait_for("degraded").await["error"].clone();
        assert_eq!(error["code"], "gateway.unrenewed", "{error:#}");
    })
    .await;
    stage.wait_for("ready").await;
    assert!(stage.stderr().contains("cannot renew the Lease on Gateway"));
    stop(stage).await;
}

async fn through(kube: &RealKube, home: &Home) -> (StageClient, Relay) {
    let relay = Relay::start(kube.port(), Duration::ZERO).await;
    let mut kubeconfig = kube.kubeconfig(STAGE);
    let server = format!("https://127.0.0.1:{}", relay.port());
    kubeconfig["clusters"][0]["cluster"]["server"] = server.into();
    let kubeconfig = write_kubeconfig(home, "kubeconfig", &kubeconfig);
    let mut command = gateway_command(home, "run", &LEASE);
    command.arg("--kubeconfig").arg(kubeconfig);
    (StageClient::start(command), relay)
}

/// `make soak` uses a longer partition.
#[tokio::test]
async fn after_a_partition_a_new_address_is_reported_and_the_session_is_still_ours() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    let (mut stage, relay) = through(&kube, &home).await;
    ready(&mut stage).await;
    relay.part(true);
    kube.program("default", "tcp-gateway", "127.0.0.2").await;
    // Nothing happens meanwhile; that is the point.
    tokio::time::sleep(Duration::from_secs(asked_for("DEVCLUSTER_PARTITION", 4))).await;
    relay.part(false);
    is_reported(&mut stage, "127.0.0.2").await;
    is_renewed_again(&kube).await;

    // Also on dead connections without any error, as on a laptop that changes networks.
    relay.cut();
    moves(&kube, &mut stage, "127.0.0.3").await;
    is_renewed_again(&kube).await;
    assert!(!stage.has_said("error"));
    stop(stage).await;
}

/// Prints the token from the file beside it, valid for a minute.
const LOGIN: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
[ -s token ] || { echo "log in first" >&2; exit 3; }
echo called >>calls
soon=$(date -u -d "+55 seconds" +%Y-%m-%dT%H:%M:%SZ)
echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"'$(cat token)'","expirationTimestamp":"'$soon'"}}'
"#;

fn write_login(home: &Home) {
    let login = home.path().join("login");
    std::fs::write(&login, LOGIN).expect("cannot write the plugin");
    let mode = PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&login, mode).expect("cannot make it executable");
}

fn has_token(home: &Home, token: &str) {
    std::fs::write(home.path().join("token"), token).expect("cannot write the token");
}

fn calls(home: &Path) -> usize {
    let calls = std::fs::read_to_string(home.join("calls"));
    calls.unwrap_or_default().lines().count()
}

#[tokio::test]
async fn plugin_credentials_are_refreshed_and_a_failure_is_reported() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    write_login(&home);
    has_token(&home, STAGE);
    let mut kubeconfig = kube.kubeconfig(STAGE);
    let plugin = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "./login", "interactiveMode": "Never"});
    kubeconfig["users"][0]["user"] = json!({"exec": plugin});
    let kubeconfig = write_kubeconfig(&home, "kubeconfig", &kubeconfig);
    let mut command = gateway_command(&home, "run", &LEASE);
    command.arg("--kubeconfig").arg(kubeconfig);
    let mut stage = StageClient::start(command);
    ready(&mut stage).await;
    let before = calls(home.path());
    is_renewed_again(&kube).await;
    is_renewed_again(&kube).await;
    assert!(calls(home.path()) > before, "an old token is used again");

    for (token, code) in [
        ("expired", "cluster.credentials_refused"),
        ("", "cluster.credentials_unavailable"),
    ] {
        has_token(&home, token);
        let degraded = stage.wait_for("degraded").await["error"].clone();
        assert_eq!(degraded["code"], code, "{degraded:#}");
        has_token(&home, STAGE);
        stage.wait_for("ready").await;
    }
    moves(&kube, &mut stage, "127.0.0.2").await;
    stop(stage).await;
}
