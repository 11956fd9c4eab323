//! Sessions of the release before identities, whose ledgers and Leases have format 1.

use std::os::unix::fs::DirBuilderExt;

use serde_json::json;
use support::gateway::{SESSIONS, assert_nothing_of_ours, cleanup, gc, ready, start, stop};
use support::kube_real::{GATEWAYS, LEASES, RealKube, STAGE, in_namespace, real_kube};
use support::{Home, kube::write_kubeconfig};

use super::CONTOUR;

const RUN: &str = "0123456789abcdef";
const HOLDER: &str = "ada/gateway/fedcba9876543210";

fn gateway_name() -> String {
    format!("devcluster-{RUN}")
}

fn lease_path() -> String {
    let name = format!("devcluster-gateway-{}", gateway_name());
    format!("{}/{name}", in_namespace(LEASES, "default"))
}

fn gateway_path() -> String {
    format!("{}/{}", in_namespace(GATEWAYS, "default"), gateway_name())
}

/// A cluster with the Gateway and the Lease that such a session has made.
async fn with_older() -> Option<RealKube> {
    let mut kube = real_kube().await?;
    kube.class("contour", CONTOUR).await;
    kube.start_controller();
    let labels = json!({"app.kubernetes.io/managed-by": "devcluster-gateway"});
    let now = "2026-11-25T10:00:00.000000Z";
    let lease = json!({
        "metadata": {
            "name": format!("devcluster-gateway-{}", gateway_name()), "namespace": "default",
            "labels": labels, "annotations": {"devcluster-gateway/made": "true"},
        },
        "spec": {"holderIdentity": HOLDER, "leaseDurationSeconds": 3600, "acquireTime": now, "renewTime": now},
    });
    let lease = kube.create(&in_namespace(LEASES, "default"), &lease).await;
    let owner = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "name": lease["metadata"]["name"],
        "uid": lease["metadata"]["uid"]});
    let listener = json!({"name": "devcluster", "port": 7999, "protocol": "TCP", "allowedRoutes": {"namespaces": {"from": "All"}}});
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {
            "name": gateway_name(), "namespace": "default", "labels": labels,
            "annotations": {"devcluster-gateway/session": HOLDER}, "ownerReferences": [owner],
        },
        "spec": {"gatewayClassName": "contour", "listeners": [listener]},
    });
    kube.create(&in_namespace(GATEWAYS, "default"), &gateway)
        .await;
    Some(kube)
}

/// The ledger that it left in this home when it was killed.
fn leave_ledger(kube: &RealKube, home: &Home) {
    let run_dir = home.run_dir();
    let hash = run_dir.as_os_str().as_encoded_bytes().iter();
    let hash = hash.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let kubeconfig = write_kubeconfig(home, "kubeconfig", &kube.kubeconfig(STAGE));
    let owner = json!({"owner": {"kind": "gateway", "instance": "gateway", "run_dir": run_dir}});
    let data = json!({
        "kubeconfig": [kubeconfig], "context": "real", "namespace": "default", "gateway": gateway_name(),
        "holder": HOLDER, "duration": 3600, "made": true,
    });
    let intend = json!({"intend": {"id": 0, "run": RUN, "what": "session", "data": data}});
    let directory = home.path().join("state/devcluster-stages");
    let mut private = std::fs::DirBuilder::new();
    let made = private.recursive(true).mode(0o700).create(&directory);
    made.expect("cannot make a directory");
    let path = directory.join(format!("gateway@{hash:016x}.jsonl"));
    std::fs::write(path, format!("{owner}\n{intend}\n")).expect("cannot write");
}

#[tokio::test]
async fn an_older_releases_session_and_ours_leave_each_other_alone_until_one_is_dead() {
    let Some(kube) = with_older().await else {
        return;
    };
    let home = Home::new();
    let theirs = async || {
        let gateway = kube.get(&gateway_path()).await;
        let live = gateway["metadata"]["deletionTimestamp"].is_null();
        assert!(live, "{gateway:#}");
        (
            kube.get(&lease_path()).await,
            gateway["metadata"]["uid"].clone(),
        )
    };
    let before = theirs().await;
    for args in [&[][..], &["--prefer", "dedicated"]] {
        let mut stage = start(&kube, &home, args);
        let block = ready(&mut stage).await;
        assert_ne!(block["gateway_name"], gateway_name());
        // What such a release reads, which leaves ours alone by it.
        let mut leases = kube.items(SESSIONS).await;
        leases.retain(|it| it["spec"]["holderIdentity"] != HOLDER);
        let [ours] = &leases[..] else {
            panic!("{leases:#?}");
        };
        let name = block["gateway_name"].as_str().expect("a name");
        assert_eq!(
            ours["metadata"]["name"],
            format!("devcluster-gateway-{name}")
        );
        let made = &ours["metadata"]["annotations"]["devcluster-gateway/made"];
        assert_eq!(made, "true");
        for field in ["leaseDurationSeconds", "acquireTime", "renewTime"] {
            assert!(!ours["spec"][field].is_null(), "{field}: {ours:#}");
        }
        stop(stage).await;
        cleanup(&home).await;
        gc(&home).await;
        assert_eq!(theirs().await, before);
    }
    // It has died, and its Lease is short.
    let short = json!({"spec": {"leaseDurationSeconds": 1}});
    kube.merge(&lease_path(), &short).await;
    kube.until("collection of the older session", async || {
        let mut stage = start(&kube, &home, &["--prefer", "dedicated"]);
        ready(&mut stage).await;
        stop(stage).await;
        kube.get(&lease_path()).await.is_null()
    })
    .await;
    cleanup(&home).await;
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn a_session_of_an_older_release_is_resumed_by_the_next_run() {
    let Some(kube) = with_older().await else {
        return;
    };
    let home = Home::new();
    leave_ledger(&kube, &home);
    let uid = kube.get(&gateway_path()).await["metadata"]["uid"].clone();
    let mut stage = start(&kube, &home, &["--prefer", "dedicated"]);
    let block = ready(&mut stage).await;
    assert_eq!(block["gateway_name"], gateway_name(), "{}", stage.stderr());
    let gateway = kube.get(&gateway_path()).await;
    assert_eq!(gateway["metadata"]["uid"], uid);
    let lease = kube.get(&lease_path()).await;
    let holder = lease["spec"]["holderIdentity"].as_str().expect("a holder");
    assert_eq!(holder.len(), 32, "the identity: {lease:#}");
    stop(stage).await;
    cleanup(&home).await;
    assert_nothing_of_ours(&kube).await;
}

#[tokio::test]
async fn gc_removes_what_an_older_release_left() {
    let Some(kube) = with_older().await else {
        return;
    };
    let home = Home::new();
    leave_ledger(&kube, &home);
    let said = gc(&home).await;
    let gateway = format!("removed Gateway default/{}", gateway_name());
    assert!(said.contains(&gateway), "{said}");
    assert_nothing_of_ours(&kube).await;
    assert!(support::leaks::state(&home).is_empty());
}
