//! A gateway stage on a real Kubernetes API, from its start to what it leaves.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::kube::{gateway_command, write_kubeconfig};
use crate::kube_real::{Api, GATEWAYS, RealKube, STAGE, TCP_ROUTES, in_namespace};
use crate::{Home, StageClient, bin};

/// Where the Leases of all sessions are.
pub const SESSIONS: &str = "/apis/coordination.k8s.io/v1/leases?labelSelector=app.kubernetes.io/managed-by=devcluster-gateway";

/// The allocation of the task that `open_port` is for.
const CANARY: &str = "canary.1";

/// `devcluster-gateway run …` as this user.
pub fn run_as(kube: &RealKube, user: &str, home: &Home, args: &[&str]) -> Command {
    run_with(&kube.kubeconfig(user), home, args)
}

/// The same on any cluster.
pub fn run_with(kubeconfig: &Value, home: &Home, args: &[&str]) -> Command {
    let kubeconfig = write_kubeconfig(home, "kubeconfig", kubeconfig);
    let mut command = gateway_command(home, "run", args);
    command.arg("--kubeconfig").arg(kubeconfig);
    command
}

pub fn start(kube: &RealKube, home: &Home, args: &[&str]) -> StageClient {
    StageClient::start(run_as(kube, STAGE, home, args))
}

/// Starts a session that the next run resumes, as under devcluster: nothing reads its messages. Its outputs, once it is ready.
pub async fn start_lasting(kube: &RealKube, home: &Home, args: &[&str]) -> (StageClient, Value) {
    let args = [&["--events", "none"], args].concat();
    let stage = start(kube, home, &args);
    let mut wait = StageClient::start(gateway_command(home, "wait", &["--timeout=60"]));
    let (status, _) = wait.wait().await;
    assert!(status.success(), "{}{}", wait.stderr(), stage.stderr());
    let path = home.run_dir().join("outputs/gateway.json");
    let text = std::fs::read(path).expect("no outputs");
    let file: Value = serde_json::from_slice(&text).expect("not JSON");
    (stage, file["outputs"].clone())
}

/// Its outputs, once it is ready.
pub async fn outputs(stage: &mut StageClient) -> Value {
    let outputs = stage.wait_for("outputs").await["outputs"].clone();
    stage.wait_for("ready").await;
    outputs
}

/// The block for the master, once it is ready.
pub async fn ready(stage: &mut StageClient) -> Value {
    outputs(stage).await["internal_task_gateway"].clone()
}

/// Ends it by SIGTERM, within the half second that a stage has. What it wrote for people.
pub async fn stop(mut stage: StageClient) -> String {
    stage.signal(Signal::TERM);
    let (status, took) = stage.wait().await;
    assert!(status.success(), "{status}\n{}", stage.stderr());
    assert!(took.as_millis() < 500, "it took {took:?} to stop");
    stage.stderr()
}

pub async fn kill(mut stage: StageClient) {
    stage.signal(Signal::KILL);
    stage.wait().await;
}

/// The error that it ends with.
pub async fn fail(mut stage: StageClient) -> Value {
    let error = stage.wait_for("error").await["error"].clone();
    stage.wait().await;
    error
}

/// Runs with this kubeconfig until it fails: the error and the exit code.
pub async fn fail_with(home: &Home, kubeconfig: &Path, args: &[&str]) -> (Value, i32) {
    let mut command = gateway_command(home, "run", args);
    command.arg("--kubeconfig").arg(kubeconfig);
    let mut stage = StageClient::start(command);
    let error = stage.wait_for("error").await["error"].clone();
    let (status, _) = stage.wait().await;
    let left = home.run_dir().join("gateway.kubeconfig");
    assert!(!left.exists(), "{error}");
    (error, status.code().expect("an exit code"))
}

/// It has this code and exit code, a hint, and these words.
#[track_caller]
pub fn assert_error((error, exit): (Value, i32), code: &str, expected_exit: i32, says: &[&str]) {
    let found = (error["code"].as_str(), exit);
    assert_eq!(found, (Some(code), expected_exit), "{error:#}");
    let hint = error["hint"].as_str().unwrap_or_default();
    assert!(!hint.is_empty(), "no hint: {error:#}");
    for words in says {
        let said = error.to_string().contains(words);
        assert!(said, "{words:?} is not in {error:#}");
    }
}

/// What `cleanup` did, in its own words.
pub async fn cleanup(home: &Home) -> String {
    let mut cleanup = StageClient::start(gateway_command(home, "cleanup", &[]));
    let (status, _) = cleanup.wait().await;
    assert!(status.success(), "{}", cleanup.stderr());
    cleanup.stderr()
}

/// What `devcluster-remote gc` did, which `up` runs after devcluster.
pub async fn gc(home: &Home) -> String {
    gc_with(home, &[]).await
}

/// The same with flags.
pub async fn gc_with(home: &Home, flags: &[&str]) -> String {
    let mut gc = home.command(&bin("devcluster-remote"));
    let output = gc
        .arg("gc")
        .args(flags)
        .output()
        .await
        .expect("cannot run gc");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// No Lease, nothing that carries our mark, and no Gateway that a session made.
pub async fn assert_nothing_of_ours(kube: &RealKube) {
    assert_eq!(kube.infrastructure().await, Vec::<String>::new());
    assert_eq!(kube.items(SESSIONS).await, Vec::<Value>::new());
    kube.until("Gateway of ours to go", async || {
        let all = kube.items(GATEWAYS).await;
        !all.iter().any(|it| {
            let name = it["metadata"]["name"].as_str();
            name.is_some_and(|name| name.starts_with("devcluster-"))
        })
    })
    .await;
}

/// The rules of a ClusterRole of docs/gateway.md.
pub fn role(name: &str) -> Vec<Value> {
    let path = format!("../docs/gateway-role-{name}.yaml");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&path);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let role = protocol::yaml::Document::parse(&text).expect("YAML");
    role.value()["rules"].as_array().cloned().expect("rules")
}

/// Holds the block against what Determined's own config check refuses.
#[track_caller]
pub fn assert_determined_takes(block: &Value) {
    for field in ["gateway_name", "gateway_namespace"] {
        let text = block[field].as_str().expect("text");
        let ends = |it: Option<char>| it.is_some_and(|it| it.is_ascii_alphanumeric());
        let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        assert!(
            text.len() <= 63
                && ends(text.chars().next())
                && ends(text.chars().last())
                && text.chars().all(inner),
            "{field}: {text:?}"
        );
    }
    let ip = block["gateway_ip"].as_str();
    assert!(ip.is_some_and(|ip| !ip.is_empty()), "{block:#}");
    let port = |field: &str| block[field].as_u64().expect("a port");
    let (start, end) = (
        port("gateway_port_range_start"),
        port("gateway_port_range_end"),
    );
    assert!(1025 <= start && start < end && end <= 65535, "{block:#}");
    assert_eq!(block.as_object().map(|it| it.len()), Some(5), "{block:#}");
}

/// What a Determined master does for one port of a task, by the kubeconfig that it is given: a listener by get and full
/// update, with the annotation of its allocation; a Service and a TCPRoute in the namespace of tasks.
pub async fn open_port(outputs: &Value, task_namespace: &str) {
    let api = Api::by(outputs["kubeconfig_path"].as_str().expect("a path")).await;
    let block = &outputs["internal_task_gateway"];
    let text = |field: &str| block[field].as_str().expect("text");
    let (name, namespace) = (text("gateway_name"), text("gateway_namespace"));
    let port = &block["gateway_port_range_start"];
    let listener = format!("det-{port}");
    let path = format!("{}/{name}", in_namespace(GATEWAYS, namespace));
    let mut gateway = api.get(&path).await;
    let listeners = gateway["spec"]["listeners"].as_array_mut();
    listeners
        .expect("listeners")
        .push(json!({"name": listener, "port": port, "protocol": "TCP",
        "allowedRoutes": {"namespaces": {"from": "All"}}}));
    let annotation = format!("determined.ai/det-gateway-port-{port}");
    gateway["metadata"]["annotations"][annotation] = CANARY.into();
    api.put(&path, &gateway).await;

    let metadata = json!({"name": "canary", "labels": {"determined": CANARY}});
    let spec = json!({"ports": [{"port": 80}], "clusterIP": "None"});
    let service = json!({"metadata": metadata, "spec": spec});
    let services = in_namespace("/api/v1/services", task_namespace);
    api.create(&services, &service).await;
    let parent =
        json!({"name": name, "namespace": namespace, "port": port, "sectionName": listener});
    let backend = json!({"name": "canary", "kind": "Service", "port": 80});
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1alpha2",
        "kind": "TCPRoute",
        "metadata": metadata,
        "spec": {"parentRefs": [parent], "rules": [{"backendRefs": [backend]}]},
    });
    let routes = in_namespace(TCP_ROUTES, task_namespace);
    api.create(&routes, &route).await;
}

/// What it does when the task has ended.
pub async fn close_port(outputs: &Value, task_namespace: &str) {
    let api = Api::by(outputs["kubeconfig_path"].as_str().expect("a path")).await;
    for list in ["/api/v1/services", TCP_ROUTES] {
        api.delete(&format!("{}/canary", in_namespace(list, task_namespace)))
            .await;
    }
    let block = &outputs["internal_task_gateway"];
    let text = |field: &str| block[field].as_str().expect("text");
    let path = format!(
        "{}/{}",
        in_namespace(GATEWAYS, text("gateway_namespace")),
        text("gateway_name")
    );
    let mut gateway = api.get(&path).await;
    let listeners = gateway["spec"]["listeners"].as_array_mut();
    listeners
        .expect("listeners")
        .retain(|it| it["port"] != block["gateway_port_range_start"]);
    let annotations = gateway["metadata"]["annotations"].as_object_mut();
    annotations
        .expect("annotations")
        .retain(|_, it| it != CANARY);
    api.put(&path, &gateway).await;
}
