//! A complete run: what exists meanwhile, and that nothing is left afterwards.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::gateway::{kill, outputs, start, stop};
use support::kube::{gateway_command, write_kubeconfig};
use support::kube_real::{STAGE, real_kube};
use support::{Home, StageClient, leaks};

use super::{CONTOUR, with_gateway};

fn nothing_is_left(home: &Home) {
    assert!(!home.run_dir().join("gateway.kubeconfig").exists());
    assert_eq!(leaks::state(home), Vec::<PathBuf>::new());
    assert_eq!(leaks::processes(&home.mark()), Vec::<String>::new());
}

#[tokio::test]
async fn it_uses_its_context_alone_and_leaves_nothing() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    let mut kubeconfig = kube.kubeconfig(STAGE);
    for (list, inner) in [
        ("clusters", "cluster"),
        ("users", "user"),
        ("contexts", "context"),
    ] {
        let other = json!({"name": "other", inner: {"cluster": "other", "user": "other", "server": "https://x", "token": "s3cret"}});
        kubeconfig[list].as_array_mut().expect("a list").push(other);
    }
    kubeconfig["current-context"] = "other".into();
    let kubeconfig = write_kubeconfig(&home, "kubeconfig", &kubeconfig);
    let mut command = gateway_command(&home, "run", &["--k8s-context", "real"]);
    command.arg("--kubeconfig").arg(kubeconfig);
    let mut stage = StageClient::start(command);
    let outputs = outputs(&mut stage).await;
    let path = home.run_dir().join("gateway.kubeconfig");
    assert_eq!(outputs["kubeconfig_path"], json!(path));
    assert_eq!(
        (&outputs["context"], &outputs["controller"]),
        (&json!("real"), &json!(CONTOUR))
    );
    let text = std::fs::read_to_string(&path).expect("the kubeconfig");
    let written: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        written["users"].as_array().map(Vec::len),
        Some(1),
        "{written:#}"
    );
    let mode = path
        .metadata()
        .expect("the kubeconfig")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut check = StageClient::start(gateway_command(&home, "check", &[]));
    assert!(check.wait().await.0.success(), "{}", check.stderr());
    let stderr = stop(stage).await;
    assert!(!stderr.contains("s3cret"), "{stderr}");
    nothing_is_left(&home);
}

#[tokio::test]
async fn a_stop_ends_the_wait() {
    let Some(kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    kube.gateway("default", "tcp-gateway").await;
    let home = Home::new();
    let mut stage = start(&kube, &home, &[]);
    stage
        .wait_until("the wait", |message| message["step"] == "wait")
        .await;
    stop(stage).await;
    assert!(!home.run_dir().join("gateway.kubeconfig").exists());
}

#[tokio::test]
async fn once_prints_the_outputs_and_leaves_a_kubeconfig_that_cleanup_removes() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    let kubeconfig = write_kubeconfig(&home, "kubeconfig", &kube.kubeconfig(STAGE));
    let named = ["--gateway", "tcp-gateway", "--gateway-namespace", "default"];
    let mut command = gateway_command(&home, "once", &named);
    command.arg("--kubeconfig").arg(&kubeconfig);
    let mut once = StageClient::start(command);
    let outputs = once.wait_for("outputs").await["outputs"].clone();
    assert!(once.wait().await.0.success(), "{}", once.stderr());
    let path = Path::new(outputs["kubeconfig_path"].as_str().expect("a path"));
    assert!(path.exists());
    let requests = kube.requests(STAGE);
    let lists_gateways = |it: &String| it.starts_with("list ") && it.contains("/gateways");
    assert!(
        !requests.iter().any(lists_gateways),
        "one is got by its name: {requests:#?}"
    );

    for expected in ["removed the kubeconfig", "nothing was left"] {
        let mut cleanup = StageClient::start(gateway_command(&home, "cleanup", &[]));
        assert!(cleanup.wait().await.0.success(), "{}", cleanup.stderr());
        assert!(cleanup.stderr().contains(expected), "{}", cleanup.stderr());
    }
    assert!(!path.exists());
}

#[tokio::test]
async fn after_a_kill_the_next_run_works_and_leaves_nothing() {
    let Some(kube) = with_gateway().await else {
        return;
    };
    let home = Home::new();
    let mut killed = start(&kube, &home, &[]);
    killed.wait_for("ready").await;
    kill(killed).await;
    assert!(home.run_dir().join("gateway.kubeconfig").exists());
    let mut next = start(&kube, &home, &[]);
    next.wait_for("ready").await;
    stop(next).await;
    nothing_is_left(&home);
}
