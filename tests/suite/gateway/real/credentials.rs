//! Contexts with different kinds of users: the master gets access by what the stage wrote for it.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use support::Home;
use support::StageClient;
use support::gateway::{assert_nothing_of_ours, open_port, outputs, stop};
use support::kube::{gateway_command, write_kubeconfig};
use support::kube_real::{STAGE, real_kube};

use super::CONTOUR;

#[tokio::test]
async fn a_token_a_plugin_and_a_certificate_each_work_from_the_minified_kubeconfig() {
    let Some(kube) = real_kube().await else {
        return;
    };
    kube.class("contour", CONTOUR).await;
    let home = Home::new();
    let clouds = home.path().join("clouds");
    std::fs::create_dir(&clouds).expect("cannot make a directory");
    for file in ["ca.crt", "admin.crt", "admin.key"] {
        std::fs::copy(kube.directory().join(file), clouds.join(file)).expect("cannot copy");
    }
    let credential = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": STAGE}});
    let login = clouds.join("login");
    std::fs::write(&login, format!("#!/bin/sh\necho '{credential}'\n")).expect("cannot write");
    std::fs::set_permissions(&login, PermissionsExt::from_mode(0o755)).expect("cannot chmod");

    // All in one file, with paths relative to it, and none of them the current context.
    let users = [
        ("token", json!({"token": STAGE})),
        (
            "plugin",
            json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./login", "interactiveMode": "Never"}}),
        ),
        (
            "certificate",
            json!({"client-certificate": "admin.crt", "client-key": "admin.key"}),
        ),
    ];
    let server = format!("https://127.0.0.1:{}", kube.port());
    let mut all = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "", "users": [], "contexts": [],
        "clusters": [{"name": "real", "cluster": {"server": server, "certificate-authority": "ca.crt"}}],
    });
    for (name, user) in &users {
        let mut add = |list: &str, item| all[list].as_array_mut().expect("a list").push(item);
        add("users", json!({"name": name, "user": user}));
        let context = json!({"cluster": "real", "user": name});
        add("contexts", json!({"name": name, "context": context}));
    }
    let kubeconfig = write_kubeconfig(&home, "clouds/kubeconfig", &all);

    let mut stages = Vec::new();
    for (name, _) in &users {
        kube.namespace(name).await;
        kube.gateway(name, "tcp-gateway").await;
        kube.program(name, "tcp-gateway", "127.0.0.1").await;
        let args = [
            "--name",
            name,
            "--k8s-context",
            name,
            "--gateway-namespace",
            name,
            "--task-namespace",
            name,
        ];
        let mut command = gateway_command(&home, "run", &args);
        command.arg("--kubeconfig").arg(&kubeconfig);
        stages.push((*name, StageClient::start(command)));
    }
    for (name, stage) in &mut stages {
        let outputs = outputs(stage).await;
        assert_eq!(outputs["context"], *name);
        open_port(&outputs, name).await;
    }
    for (_, stage) in stages {
        stop(stage).await;
    }
    assert_nothing_of_ours(&kube).await;
}
