//! A Kubernetes API for a test, and the hand of the controller in it.

use std::path::PathBuf;

pub use sandbox::kube_api::{KubeApi, Options};
use serde_json::Value;
use tokio::process::Command;

use crate::{Home, bin};

/// An API in which nothing happens by itself: the test is the controller.
pub fn idle() -> Options {
    Options {
        programmed_after: None,
        ..Options::default()
    }
}

/// The same, and its Gateway works already.
pub fn programmed() -> Options {
    let mut options = idle();
    for object in &mut options.objects {
        if object["kind"] == "Gateway" {
            sandbox::kube_api::seed::program(object, "127.0.0.1");
        }
    }
    options
}

/// The same cluster, with neither a GatewayClass nor a Gateway.
pub fn without_controller(mut options: Options) -> Options {
    let of_controller = |it: &Value| it["kind"] == "Gateway" || it["kind"] == "GatewayClass";
    options.objects.retain(|it| !of_controller(it));
    options
}

pub async fn start_kube(options: Options) -> KubeApi {
    KubeApi::start(options).await.expect("no free port")
}

/// Writes a kubeconfig, this one or another, into the home.
pub fn write_kubeconfig(home: &Home, name: &str, kubeconfig: &Value) -> PathBuf {
    let path = home.path().join(name);
    std::fs::create_dir_all(path.parent().expect("a file has a directory"))
        .expect("cannot make a directory");
    std::fs::write(&path, kubeconfig.to_string()).expect("cannot write the kubeconfig");
    path
}

/// `devcluster-gateway <verb> …` in this home, on its run directory, with every message on stdout.
pub fn gateway_command(home: &Home, verb: &str, args: &[&str]) -> Command {
    let mut command = home.command(&bin("devcluster-gateway"));
    command
        .arg(verb)
        .arg("--run-dir")
        .arg(home.run_dir())
        .args(args);
    for inherited in [
        "KUBECONFIG",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "http_proxy",
        "https_proxy",
    ] {
        command.env_remove(inherited);
    }
    command.stdin(std::process::Stdio::null());
    command
}
