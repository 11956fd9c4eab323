//! The complete path: Contour installed by a user of the documented role, the stand-in for the master, and a task
//! behind it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::bed::{self, Bed, eventually};
use support::gateway::{assert_determined_takes, outputs};
use support::{Home, StageClient, build_dir};

use crate::network::curl;
use crate::stages;
use crate::stand_in::Master;

const PORT: u16 = 3389;
const SERVER: &str = "mkdir /tmp/pages; echo page >/tmp/pages/index.html; httpd -p 3389 -h /tmp/pages; \
                      while sleep 1; do echo line; done";

/// A class of Contour's whose Envoys have a Service of type NodePort.
const NODE_PORTS: &str = "
apiVersion: projectcontour.io/v1alpha1
kind: ContourDeployment
metadata: {name: node-ports, namespace: projectcontour}
spec: {envoy: {networkPublishing: {type: NodePortService}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: node-ports}
spec:
  controllerName: projectcontour.io/gateway-controller
  parametersRef: {group: projectcontour.io, kind: ContourDeployment, name: node-ports, namespace: projectcontour}
";

/// A kubeconfig of a user with the permissions of docs/gateway-role-install.yaml, and no others.
fn installer(bed: &Bed, home: &Home) -> PathBuf {
    let role = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gateway-role-install.yaml");
    bed.kubectl(&["apply", "-f", &role.to_string_lossy()]);
    bed.kubectl(&["create", "serviceaccount", "installer"]);
    let binding = ["create", "clusterrolebinding", "installer"];
    let grant = [
        "--clusterrole=devcluster-gateway-install",
        "--serviceaccount=default:installer",
    ];
    bed.kubectl(&[binding.as_slice(), &grant].concat());
    let token = bed.kubectl(&["create", "token", "installer", "--duration=2h"]);
    let admin = bed.kubectl(&["config", "view", "--raw", "-o", "json"]);
    let mut kubeconfig: Value = serde_json::from_str(&admin).expect("no JSON");
    kubeconfig["users"][0]["user"] = json!({"token": token.trim()});
    let path = home.path().join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).expect("cannot write");
    path
}

/// How long a session's Lease lasts, in seconds: less than the longest outage.
const LEASE: &str = "30";

fn gateway(bed: &Bed, home: &Home, kubeconfig: &Path, args: &[&str]) -> StageClient {
    let manifests = build_dir().join("bed/contour/contour-gateway-provisioner.yaml");
    let kubeconfig = ["--kubeconfig", &kubeconfig.to_string_lossy()];
    let manifests = ["--provision-manifests", &manifests.to_string_lossy()];
    let lease = ["--provision", "auto", "--lease-duration", LEASE];
    let args = [&kubeconfig[..], &lease, &manifests, args].concat();
    stages::start(bed, home, "gateway", &args)
}

/// Ends the session and removes what it installed. Returns its messages.
async fn end(bed: &Bed, home: &Home, mut stage: StageClient) -> String {
    stage.signal(Signal::TERM);
    assert!(stage.wait().await.0.success(), "{}", stage.stderr());
    cleanup(bed, home).await
}

/// The same session as under devcluster: it may be resumed, and nothing reads its messages. Returns when it is ready.
async fn lasting(bed: &Bed, home: &Home, kubeconfig: &Path) -> StageClient {
    let args = ["--task-namespace", "tasks", "--events", "none"];
    let stage = gateway(bed, home, kubeconfig, &args);
    let wait = stages::command(bed, home, "gateway", "wait", &["--timeout", "60"]);
    let mut wait = StageClient::start(wait);
    assert!(wait.wait().await.0.success(), "{}", stage.stderr());
    stage
}

async fn cleanup(bed: &Bed, home: &Home) -> String {
    cleanup_with(bed, home, &[]).await
}

async fn cleanup_with(bed: &Bed, home: &Home, flags: &[&str]) -> String {
    let cleanup = stages::command(bed, home, "gateway", "cleanup", flags);
    let mut cleanup = StageClient::start(cleanup);
    assert!(cleanup.wait().await.0.success(), "{}", cleanup.stderr());
    cleanup.stderr()
}

pub(crate) fn shows(master: &Master, task: &str) {
    eventually(&format!("{task} answers by the Gateway"), || {
        master.shows(task, PORT)
    });
}

/// Starts a task with this many ports, and waits until it answers at the last one.
pub(crate) fn serving(master: &Master, count: u16) -> String {
    let ports: Vec<u16> = (PORT + 1 - count..=PORT).collect();
    let task = master.launch(SERVER, &ports, "Uncategorized");
    master.wait_for(&task, "RUNNING");
    shows(master, &task);
    task
}

/// The task's lines arrive through the tunnel.
pub(crate) fn speaks(master: &Master, task: &str) {
    let before = master.lines(task);
    eventually(&format!("{task} sends lines"), || {
        master.lines(task) > before + 1
    });
}

/// How long the laptop is without a network: a minute, or what `make soak` says.
fn outage() -> Duration {
    let seconds = std::env::var("DEVCLUSTER_OUTAGE").map(|s| s.parse().expect("seconds"));
    Duration::from_secs(seconds.unwrap_or(60))
}

/// After so much time newer events make the API forget what a master's watches saw last; that ends the master.
const WATCHED: Duration = Duration::from_secs(300);

/// More events than the API keeps of a kind.
fn change_nodes(bed: &Bed) {
    for i in 0..150 {
        let annotation = format!("devcluster/change={i}");
        // The laptop has no network.
        let mut kubectl = bed.on("cloud", "kubectl");
        kubectl.args(["annotate", "--overwrite", "node", "--all", &annotation]);
        assert!(kubectl.status().expect("cannot run kubectl").success());
    }
}

/// The names of Contour's objects and of sessions.
fn names(bed: &Bed) -> Vec<String> {
    let kinds = "deployments,daemonsets,services,namespaces,serviceaccounts,clusterroles,clusterrolebindings,roles,rolebindings";
    let all = bed.kubectl(&["get", "-A", "-o", "name", kinds]);
    let theirs = all
        .lines()
        .filter(|it| it.contains("contour") || it.contains("devcluster-"));
    theirs.map(str::to_owned).collect()
}

/// The Gateways and Leases of sessions, and the ports of tasks.
fn session(bed: &Bed) -> String {
    let label = "app.kubernetes.io/managed-by=devcluster-gateway";
    let shown =
        "jsonpath={range .items[*]}{.kind} {.metadata.uid} {.spec.listeners[*].port}, {end}";
    bed.kubectl(&["get", "gateways,leases", "-A", "-l", label, "-o", shown])
}

/// A session whose load balancer is late.
async fn installed(bed: &Bed, home: &Home, kubeconfig: &Path) -> (StageClient, Value) {
    bed.tell("balancer off");
    let mut first = gateway(bed, home, kubeconfig, &["--task-namespace", "tasks"]);
    first
        .wait_until("a Gateway", |it| it["step"] == "wait")
        .await;
    let envoy = || bed.kubectl(&["get", "service", "-o", "name"]);
    eventually("Envoy has a Service", || {
        envoy().contains("service/envoy-devcluster-")
    });
    assert!(!first.has_said("ready"), "there is no address");
    bed.tell("balancer on");
    let outputs = outputs(&mut first).await;
    let block = &outputs["internal_task_gateway"];
    assert_determined_takes(block);
    let name = block["gateway_name"].as_str().expect("a name");
    let service = format!("service/envoy-{name}");
    let address = "jsonpath={.status.loadBalancer.ingress[0].ip}";
    let address = bed.kubectl(&["get", &service, "-o", address]);
    assert_eq!(block["gateway_ip"], address);
    (first, outputs)
}

/// A third session may not have the namespace of the first one's tasks, and its Service of type NodePort has no address.
async fn node_ports_give_no_address(bed: &Bed, kubeconfig: &Path) {
    let home = Home::new();
    bed.apply(NODE_PORTS);
    let class = ["--gateway-class", "node-ports"];
    let ports = ["--port-range", "30000-30009", "--timeout", "30"];
    let fails = async |namespace: &str| {
        let args = [&class[..], &ports, &["--task-namespace", namespace]].concat();
        let mut third = gateway(bed, &home, kubeconfig, &args);
        let error = third.wait_for("error").await["error"].clone();
        third.wait().await;
        error
    };
    let error = fails("tasks").await;
    assert_eq!(error["code"], "gateway.task_namespace_held", "{error:#}");
    let error = fails("team-c").await;
    let hint = error["hint"].as_str().unwrap_or_default();
    assert!(
        hint.contains("made no Service of type LoadBalancer"),
        "{error:#}"
    );
    cleanup(bed, &home).await;
    bed.kubectl(&["delete", "gatewayclass", "node-ports"]);
    let deployment = ["delete", "contourdeployment", "node-ports"];
    bed.kubectl(&[&deployment[..], &["-n", "projectcontour"]].concat());
}

/// A quit, a kill and a cleanup after each leave running tasks their Gateway.
async fn tasks_survive(bed: &Bed, home: &Home, kubeconfig: &Path, master: &Master<'_>, task: &str) {
    let mut stage = lasting(bed, home, kubeconfig).await;
    shows(master, task);
    stage.signal(Signal::TERM);
    assert!(stage.wait().await.0.success(), "{}", stage.stderr());
    let said = stage.stderr();
    assert!(said.contains("for the task that runs, until "), "{said}");
    for _ in 0..2 {
        let said = cleanup_with(bed, home, &["--keep"]).await;
        assert!(said.contains("keeps Gateway"), "{said}");
        shows(master, task);
        let mut stage = lasting(bed, home, kubeconfig).await;
        stage.signal(Signal::KILL);
        stage.wait().await;
    }
    shows(master, task);
    speaks(master, task);
}

#[tokio::test]
async fn contour_leads_the_master_to_its_tasks_until_it_is_removed_again() {
    if bed::is_missing() {
        return;
    }
    let bed = Bed::start();
    let home = Home::new();
    let kubeconfig = installer(&bed, &home);
    for namespace in ["tasks", "team-b", "team-c"] {
        bed.kubectl(&["create", "namespace", namespace]);
    }

    let before = names(&bed);
    let (mut first, outputs) = installed(&bed, &home, &kubeconfig).await;
    let block = &outputs["internal_task_gateway"];
    let mut tunnel = stages::tunnel(&bed, &home);
    tunnel.wait_for("ready").await;
    let start = || Master::start(&bed, home.path(), 8080, "tasks", block);
    let master = start();
    let task = serving(&master, 1);
    speaks(&master, &task);

    master.kill();
    let master = start();
    master.wait_for_restore(&task);
    shows(&master, &task);

    bed.tell("pull laptop");
    tunnel.wait_for("degraded").await;
    bed.tell("plug laptop");
    tunnel.wait_for("ready").await;
    shows(&master, &task);
    speaks(&master, &task);

    // Longer than the session's Lease lasts.
    let outage = outage();
    bed.tell("pull laptop");
    tunnel.wait_for("degraded").await;
    tokio::time::sleep(outage).await;
    if outage > WATCHED {
        change_nodes(&bed);
    }
    let degraded = first.wait_for("degraded").await["error"].clone();
    assert_eq!(degraded["code"], "gateway.unrenewed", "{degraded:#}");
    bed.tell("plug laptop");
    tunnel.wait_for("ready").await;
    first.wait_for("ready").await;
    let mut master = master;
    if outage > WATCHED {
        assert_eq!(master.wait().code(), Some(2), "{}", master.log());
        master = start();
        master.wait_for_restore(&task);
    }
    master.wait_for(&task, "RUNNING");
    shows(&master, &task);
    speaks(&master, &task);

    bed.tell("restart kube-apiserver");
    shows(&master, &task);
    eventually("the API serves again", || {
        bed.try_kubectl(&["get", "nodes"]).is_ok()
    });
    assert_eq!(master.wait().code(), Some(2), "{}", master.log());
    let master = start();
    master.wait_for_restore(&task);
    shows(&master, &task);
    speaks(&master, &task);

    let before_reboot = session(&bed);
    bed.tell("reboot");
    master.wait_for(&task, "ERROR");
    let task = serving(&master, 1);
    assert_eq!(session(&bed), before_reboot);
    speaks(&master, &task);

    // Another master, with its own Gateway and namespace, and more ports than a Gateway has by default. Its Gateway
    // works only if Contour's provisioner is the leader again after the reboot.
    let other_home = Home::new();
    let mut second = gateway(
        &bed,
        &other_home,
        &kubeconfig,
        &["--task-namespace", "team-b", "--raise-max-items", "100"],
    );
    let others = support::gateway::outputs(&mut second).await;
    let others = &others["internal_task_gateway"];
    assert_ne!(others["gateway_name"], block["gateway_name"]);
    let other = Master::start(&bed, other_home.path(), 8081, "team-b", others);
    serving(&other, 70);
    shows(&master, &task);

    node_ports_give_no_address(&bed, &kubeconfig).await;
    drop(other);
    let said = end(&bed, &other_home, second).await;
    assert!(
        said.contains("the controller of GatewayClass devcluster-gateway stays"),
        "{said}"
    );
    shows(&master, &task);

    first.signal(Signal::KILL);
    first.wait().await;
    tasks_survive(&bed, &home, &kubeconfig, &master, &task).await;
    let last = lasting(&bed, &home, &kubeconfig).await;
    master.kill_task(&task);

    let port = format!("http://{}:8000/api/v1/master", bed.text("/addresses/ssh"));
    assert!(curl(&bed, "ssh", &port));
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;
    assert!(!curl(&bed, "ssh", &port), "the port is closed");

    let running = [
        "get",
        "pods",
        "-n",
        "tasks",
        "-l",
        "determined",
        "-o",
        "name",
    ];
    eventually("no task runs", || bed.kubectl(&running).is_empty());
    end(&bed, &home, last).await;
    assert_eq!(names(&bed), before);
    let leases = bed.kubectl(&["get", "leases", "-A", "-o", "name"]);
    assert!(!leases.contains("devcluster-"), "{leases}");
    bed.kubectl(&["get", "crd", "gateways.gateway.networking.k8s.io"]);
}
