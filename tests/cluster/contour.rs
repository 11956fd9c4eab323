//! The complete path: Contour installed by a user of the documented role, the stand-in for the master, and a task
//! behind it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::bed::{self, Bed, eventually, known_fault};
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

fn gateway(bed: &Bed, home: &Home, kubeconfig: &Path, args: &[&str]) -> StageClient {
    let manifests = build_dir().join("bed/contour/contour-gateway-provisioner.yaml");
    let kubeconfig = ["--kubeconfig", &kubeconfig.to_string_lossy()];
    let manifests = ["--provision-manifests", &manifests.to_string_lossy()];
    let args = [&kubeconfig, &["--provision", "auto"], &manifests, args].concat();
    stages::start(bed, home, "gateway", &args)
}

/// Ends the session and removes what it installed. Returns its messages.
async fn end(bed: &Bed, home: &Home, mut stage: StageClient) -> String {
    stage.signal(Signal::TERM);
    assert!(stage.wait().await.0.success(), "{}", stage.stderr());
    cleanup(bed, home).await
}

async fn cleanup(bed: &Bed, home: &Home) -> String {
    let cleanup = stages::command(bed, home, "gateway", "cleanup", &[]);
    let mut cleanup = StageClient::start(cleanup);
    assert!(cleanup.wait().await.0.success(), "{}", cleanup.stderr());
    cleanup.stderr()
}

fn shows(master: &Master, task: &str) {
    eventually(&format!("{task} answers by the Gateway"), || {
        master.shows(task, PORT)
    });
}

/// Starts a task with this many ports, and waits until it answers at the last one.
fn serving(master: &Master, count: u16) -> String {
    let ports: Vec<u16> = (PORT + 1 - count..=PORT).collect();
    let task = master.launch(SERVER, &ports, "Uncategorized");
    master.wait_for(&task, "RUNNING");
    shows(master, &task);
    task
}

/// The task's lines arrive through the tunnel.
fn speaks(master: &Master, task: &str) {
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

/// After so much time the API has forgotten what a master's watches saw last; that ends the master.
const WATCHED: Duration = Duration::from_secs(300);

/// The names of Contour's objects and of sessions.
fn names(bed: &Bed) -> Vec<String> {
    let kinds = "deployments,daemonsets,services,namespaces,serviceaccounts,clusterroles,clusterrolebindings,roles,rolebindings";
    let all = bed.kubectl(&["get", "-A", "-o", "name", kinds]);
    let theirs = all
        .lines()
        .filter(|it| it.contains("contour") || it.contains("devcluster-"));
    theirs.map(str::to_owned).collect()
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

/// A third session gets as far as waiting for an address, although the namespace of its tasks is the first session's.
async fn node_ports_give_no_address(bed: &Bed, kubeconfig: &Path) {
    let home = Home::new();
    bed.apply(NODE_PORTS);
    let args = [
        "--gateway-class",
        "node-ports",
        "--port-range",
        "30000-30009",
        "--timeout",
        "10",
        "--task-namespace",
        "tasks",
    ];
    let mut third = gateway(bed, &home, kubeconfig, &args);
    let error = third.wait_for("error").await["error"].clone();
    third.wait().await;
    let refused = error["code"] != "gateway.no_address";
    known_fault(2, "the first session's namespace is refused", refused);
    let blames_balancer = error.to_string().contains("LoadBalancer");
    known_fault(9, "the address of a node would do", !blames_balancer);
    cleanup(bed, &home).await;
}

#[tokio::test]
async fn contour_leads_the_master_to_its_tasks_until_it_is_removed_again() {
    if bed::is_missing() {
        return;
    }
    let bed = Bed::start();
    let home = Home::new();
    let kubeconfig = installer(&bed, &home);
    for namespace in ["tasks", "team-b"] {
        bed.kubectl(&["create", "namespace", namespace]);
    }

    let before = names(&bed);
    let (first, outputs) = installed(&bed, &home, &kubeconfig).await;
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
    let degraded = first.has_said("degraded");
    known_fault(
        13,
        "a session whose Lease may have expired is degraded",
        degraded,
    );
    bed.tell("plug laptop");
    tunnel.wait_for("ready").await;
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

    bed.tell("reboot");
    master.wait_for(&task, "ERROR");
    let task = serving(&master, 1);
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

    let port = format!("http://{}:8000/api/v1/master", bed.text("/addresses/ssh"));
    assert!(curl(&bed, "ssh", &port));
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;
    assert!(!curl(&bed, "ssh", &port), "the port is closed");

    end(&bed, &home, first).await;
    known_fault(
        3,
        "a quit leaves running tasks their Gateway",
        master.shows(&task, PORT),
    );
    assert_eq!(names(&bed), before);
    let leases = bed.kubectl(&["get", "leases", "-A", "-o", "name"]);
    known_fault(
        14,
        "Contour's Leases go",
        !leases.contains("leader-elect-devcluster-"),
    );
    bed.kubectl(&["get", "crd", "gateways.gateway.networking.k8s.io"]);
}
