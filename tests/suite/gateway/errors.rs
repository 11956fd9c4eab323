//! devcluster-gateway without an API: each cause has its own code, exit code and hint. real/errors.rs has the API's
//! errors.

use std::net::TcpListener;

use serde_json::{Value, json};
use support::Home;
use support::gateway::{assert_error, fail_with};
use support::kube::write_kubeconfig;

/// One context, `real`, of a server that does not exist.
fn kubeconfig(server: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "real",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "real", "context": {"cluster": "c", "user": "u"}}],
    })
}

#[tokio::test]
async fn unknown_context_missing_file_and_malformed_file_have_their_codes() {
    let home = Home::new();
    let server = TcpListener::bind("127.0.0.1:0").expect("no port");
    let url = format!("http://{}", server.local_addr().expect("an address"));
    let path = write_kubeconfig(&home, "kubeconfig", &kubeconfig(&url));
    let unknown = fail_with(&home, &path, &["--k8s-context", "reel"]).await;
    assert_error(
        unknown,
        "cluster.context_unknown",
        2,
        &["did you mean", "real"],
    );
    let missing = fail_with(&home, &home.path().join("none"), &[]).await;
    assert_error(missing, "cluster.kubeconfig_missing", 2, &["none"]);
    let unreadable = fail_with(&home, home.path(), &[]).await;
    assert_error(
        unreadable,
        "cluster.kubeconfig_unreadable",
        2,
        &["cannot read"],
    );
    std::fs::write(&path, "clusters: [\n").expect("cannot write");
    let malformed = fail_with(&home, &path, &[]).await;
    assert_error(
        malformed,
        "cluster.kubeconfig_malformed",
        2,
        &["kubeconfig:1:11"],
    );
    let mut without_current = kubeconfig(&url);
    without_current["current-context"] = "".into();
    let path = write_kubeconfig(&home, "kubeconfig", &without_current);
    let unset = fail_with(&home, &path, &[]).await;
    assert_error(unset, "cluster.context_unset", 2, &["real"]);
    let path = write_kubeconfig(&home, "kubeconfig", &kubeconfig(&url));
    let args = ["--port-range", "41000-40000", "--gateway=-x"];
    let refused = fail_with(&home, &path, &args).await;
    assert_error(refused, "protocol.config", 2, &["41000-40000", "--gateway"]);
    server.set_nonblocking(true).expect("no such mode");
    assert!(server.accept().is_err(), "the API was asked");
}

#[tokio::test]
async fn an_unreachable_api_is_reported_soon() {
    let home = Home::new();
    let closed = TcpListener::bind("127.0.0.1:0").expect("no port");
    let closed = format!("http://{}", closed.local_addr().expect("an address"));
    // The second address is reserved for documentation: no host has it.
    for server in [closed.as_str(), "http://192.0.2.1:6443"] {
        let path = write_kubeconfig(&home, "kubeconfig", &kubeconfig(server));
        let failed = fail_with(&home, &path, &["--connect-timeout", "1"]).await;
        assert_error(failed, "cluster.unreachable", 75, &[server]);
    }
}
