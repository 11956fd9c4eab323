//! A real kube-apiserver with etcd, the garbage collector and the namespace controller; the test is every other controller.
//!
//! One serves all tests of a program, one test at a time: each finds it without Gateways, classes and Leases.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use protocol::yaml::Document;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;

use crate::{DEADLINE, build_dir};

/// The user that stages are, so that the audit log tells their requests from the test's.
pub const STAGE: &str = "stage";

/// A user who may do nothing until a test lets him.
pub const LIMITED: &str = "limited";

pub const GATEWAYS: &str = "/apis/gateway.networking.k8s.io/v1/gateways";
pub const CLASSES: &str = "/apis/gateway.networking.k8s.io/v1/gatewayclasses";
pub const TCP_ROUTES: &str = "/apis/gateway.networking.k8s.io/v1alpha2/tcproutes";
pub const LEASES: &str = "/apis/coordination.k8s.io/v1/leases";

struct Server {
    files: PathBuf,
    dir: TempDir,
    /// The server ends when its stdin is closed, which is when the test program ends, however that happens.
    _server: Child,
    use_: Mutex<()>,
}

/// The API, for one test.
pub struct RealKube {
    server: &'static Server,
    pub(crate) client: Client,
    audit_from: u64,
    _turn: MutexGuard<'static, ()>,
    pub(crate) controllers: JoinSet<()>,
}

/// `None`, and a line on stderr, when there is no such API to be had and nobody insists.
pub async fn real_kube(test: &str) -> Option<RealKube> {
    nth_real_kube(test, 0).await
}

/// Three clusters, each with an API server of its own.
pub async fn three_real_kubes(test: &str) -> Option<[RealKube; 3]> {
    Some([
        nth_real_kube(test, 0).await?,
        nth_real_kube(test, 1).await?,
        nth_real_kube(test, 2).await?,
    ])
}

async fn nth_real_kube(test: &str, n: usize) -> Option<RealKube> {
    static SERVERS: [OnceLock<Option<Server>>; 3] =
        [OnceLock::new(), OnceLock::new(), OnceLock::new()];
    let Some(server) = SERVERS[n].get_or_init(start) else {
        assert!(
            std::env::var_os("DEVCLUSTER_REQUIRE_KUBE").is_none(),
            "no kube-apiserver; mend: scripts/get-kube-apiserver, which needs Go 1.24"
        );
        // Written past the test harness, which would keep it to itself.
        drop(writeln!(
            std::io::stderr(),
            "SKIPPED {test}: no kube-apiserver; mend: scripts/get-kube-apiserver, which needs Go 1.24"
        ));
        return None;
    };
    let turn = server.use_.lock().await;
    let mut kube = RealKube {
        client: client(&server.dir.path().join("kubeconfig")).await,
        server,
        audit_from: 0,
        _turn: turn,
        controllers: JoinSet::new(),
    };
    kube.install("v1.2.1", "experimental").await;
    kube.wipe().await;
    kube.audit_from =
        std::fs::metadata(server.dir.path().join("audit.log")).map_or(0, |it| it.len());
    Some(kube)
}

fn start() -> Option<Server> {
    let files = build_dir().join("kube");
    let program = files.join("kube-apiserver");
    if !program.exists() {
        return None;
    }
    let dir = tempfile::tempdir().expect("no temporary directory");
    let tokens = dir.path().join("tokens.csv");
    let lines = format!("{STAGE},{STAGE},1,\"system:masters\"\n{LIMITED},{LIMITED},2\n");
    std::fs::write(&tokens, lines).expect("cannot write the tokens");
    let log = std::fs::File::create(dir.path().join("log")).expect("cannot make a log");
    let mut child = Command::new(program)
        .arg("--dir")
        .arg(dir.path())
        .arg("--tokens")
        .arg(tokens)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("cannot start kube-apiserver");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("no stdout"));
    stdout
        .read_line(&mut line)
        .expect("kube-apiserver says nothing");
    assert!(
        line.starts_with('{'),
        "kube-apiserver does not start: {line}"
    );
    Some(Server {
        files,
        dir,
        _server: child,
        use_: Mutex::new(()),
    })
}

async fn client(kubeconfig: &Path) -> Client {
    client_of(Kubeconfig::read_from(kubeconfig).expect("no kubeconfig")).await
}

async fn client_of(kubeconfig: Kubeconfig) -> Client {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("a kubeconfig that cannot be used")).expect("no client")
}

impl RealKube {
    /// A kubeconfig of this user, with one context, `real`.
    pub fn kubeconfig(&self, user: &str) -> Value {
        let admin = std::fs::read_to_string(self.server.dir.path().join("kubeconfig"));
        let admin = Document::parse(&admin.expect("no kubeconfig")).expect("not YAML");
        let cluster = admin.value()["clusters"][0].clone();
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "real",
            "clusters": [cluster],
            "users": [{"name": user, "user": {"token": user}}],
            "contexts": [{"name": "real", "context": {"cluster": "real", "user": user}}],
        })
    }

    /// Where the server keeps its files; the admin's kubeconfig is `kubeconfig`.
    pub fn directory(&self) -> &Path {
        self.server.dir.path()
    }

    /// A file of the Gateway API's or Contour's module.
    pub fn file(&self, path: &str) -> PathBuf {
        self.server.files.join(path)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: &Value,
    ) -> kube::Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .body(body.to_string().into_bytes())
            .expect("a request");
        self.client.request(request).await
    }

    /// What there is at this path; null when there is nothing.
    pub async fn get(&self, path: &str) -> Value {
        let request = Request::get(path).body(Vec::new()).expect("a request");
        match self.client.request(request).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Value::Null,
            answer => answer.unwrap_or_else(|error| panic!("GET {path}: {error}")),
        }
    }

    pub async fn items(&self, path: &str) -> Vec<Value> {
        self.get(path).await["items"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    pub async fn create(&self, path: &str, body: &Value) -> Value {
        let answer = self
            .send(Method::POST, path, "application/json", body)
            .await;
        answer.unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Value {
        let answer = self
            .send(Method::PATCH, path, "application/merge-patch+json", body)
            .await;
        answer.unwrap_or_else(|error| panic!("PATCH {path}: {error}"))
    }

    pub async fn json_patch(&self, path: &str, body: &Value) -> Value {
        let answer = self
            .send(Method::PATCH, path, "application/json-patch+json", body)
            .await;
        answer.unwrap_or_else(|error| panic!("PATCH {path}: {error}"))
    }

    /// From now on the user may do this everywhere, and nothing else.
    pub async fn grant(&self, user: &str, rules: &[Value]) {
        const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
        let (roles, bindings) = (
            format!("{RBAC}/clusterroles"),
            format!("{RBAC}/clusterrolebindings"),
        );
        let role = format!("{roles}/{user}");
        if self.get(&role).await.is_null() {
            self.create(&roles, &json!({"metadata": {"name": user}}))
                .await;
            let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user});
            let subject =
                json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user});
            let binding =
                json!({"metadata": {"name": user}, "roleRef": reference, "subjects": [subject]});
            self.create(&bindings, &binding).await;
        }
        self.merge(&role, &json!({"rules": rules})).await;
        let kubeconfig = serde_json::from_value(self.kubeconfig(user)).expect("a kubeconfig");
        let client = client_of(kubeconfig).await;
        self.until("the rights to be as granted", async || {
            rules_of(&client).await == total(rules)
        })
        .await;
    }

    pub async fn delete(&self, path: &str) {
        match self
            .send(Method::DELETE, path, "application/json", &json!({}))
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            answer => drop(answer.unwrap_or_else(|error| panic!("DELETE {path}: {error}"))),
        }
    }

    /// Installs the CRDs of a release of the Gateway API. Those of another release go first, with all their objects.
    pub async fn install(&self, version: &str, channel: &str) {
        const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let directory = self.file(&format!("gateway-api/{version}/{channel}"));
        for kind in ["gatewayclasses", "gateways", "tcproutes"] {
            let path = directory.join(format!("gateway.networking.k8s.io_{kind}.yaml"));
            let Ok(text) = std::fs::read_to_string(path) else {
                continue;
            };
            let crd = Document::parse(&text).expect("not YAML").value();
            let path = format!("{CRDS}/{kind}.gateway.networking.k8s.io");
            let installed = self.get(&path).await;
            let annotations = |crd: &Value| crd["metadata"]["annotations"].clone();
            let kept = ["bundle-version", "channel"].iter().all(|it| {
                let key = format!("gateway.networking.k8s.io/{it}");
                annotations(&installed)[&key] == annotations(&crd)[&key]
            });
            if !kept {
                // In place, a version that objects were stored in cannot be dropped.
                self.delete(&path).await;
                self.until("the old CRD to go", async || {
                    self.get(&path).await.is_null()
                })
                .await;
            }
            let apply = format!("{path}?fieldManager=test&force=true");
            let applied = self
                .send(Method::PATCH, &apply, "application/apply-patch+yaml", &crd)
                .await;
            applied.unwrap_or_else(|error| panic!("{path}: {error}"));
            self.until(&format!("{kind} to be served"), async || {
                let crd = self.get(&path).await;
                let conditions = crd["status"]["conditions"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let established =
                    |it: &Value| it["type"] == "Established" && it["status"] == "True";
                conditions.iter().any(established)
            })
            .await;
        }
        self.until("the Gateway API", async || {
            !self.get(GATEWAYS).await.is_null()
        })
        .await;
    }

    async fn wipe(&self) {
        for list in [GATEWAYS, CLASSES, TCP_ROUTES, LEASES, "/api/v1/pods"] {
            self.until("empty cluster", async || {
                let mut left = self.items(list).await;
                left.retain(|it| it["metadata"]["namespace"] != "kube-system");
                let collections: BTreeSet<String> = left
                    .iter()
                    .map(|it| match it["metadata"]["namespace"].as_str() {
                        Some(namespace) => in_namespace(list, namespace),
                        None => list.to_owned(),
                    })
                    .collect();
                for collection in &collections {
                    self.delete(collection).await;
                }
                left.is_empty()
            })
            .await;
        }
    }

    /// Waits until this holds.
    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while !holds().await {
            assert!(
                tokio::time::Instant::now() < deadline,
                "no {what} within {DEADLINE:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A namespace, if it is not there yet.
    pub async fn namespace(&self, name: &str) {
        let path = format!("/api/v1/namespaces/{name}");
        if self.get(&path).await.is_null() {
            self.create("/api/v1/namespaces", &json!({"metadata": {"name": name}}))
                .await;
        }
    }

    /// A GatewayClass that its controller has accepted.
    pub async fn class(&self, name: &str, controller: &str) {
        self.create(
            CLASSES,
            &remote::sandbox::kube_api::seed::gateway_class(name, controller),
        )
        .await;
        let accepted = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1});
        let status = json!({"status": {"conditions": [accepted]}});
        self.merge(&format!("{CLASSES}/{name}/status"), &status)
            .await;
    }

    /// A Gateway of the class `contour`, which nobody has looked at yet.
    pub async fn gateway(&self, namespace: &str, name: &str) -> Value {
        let mut gateway = remote::sandbox::kube_api::seed::gateway(namespace, name, "contour");
        gateway.as_object_mut().expect("an object").remove("status");
        self.create(&in_namespace(GATEWAYS, namespace), &gateway)
            .await
    }

    /// Does to a Gateway what its controller does in the end.
    pub async fn program(&self, namespace: &str, name: &str, address: &str) {
        let path = format!("{}/{name}", in_namespace(GATEWAYS, namespace));
        program(&self.client, &path, address).await;
    }

    /// From now on every Gateway is programmed as soon as it is there.
    pub fn start_controller(&mut self) {
        let client = self.client.clone();
        self.controllers.spawn(async move {
            loop {
                let request = Request::get(GATEWAYS).body(Vec::new()).expect("a request");
                let list: Value = client.request(request).await.unwrap_or_default();
                for gateway in list["items"].as_array().into_iter().flatten() {
                    if gateway["status"]["addresses"].is_null() {
                        program(&client, &path(GATEWAYS, gateway), "127.0.0.1").await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }

    /// What stages have asked since the test began, by the audit log: `create /apis/…`.
    pub fn requests(&self, user: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.server.dir.path().join("audit.log"));
        let text = text.expect("no audit log");
        let events = text[self.audit_from as usize..]
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        events
            .filter(|event: &Value| {
                event["user"]["username"] == user && event["stage"] == "RequestReceived"
            })
            .map(|event| {
                let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
                format!("{} {}", text("verb"), text("requestURI"))
            })
            .collect()
    }
}

/// How many verbs the user has been given, as the authorizer itself sees it by now.
async fn rules_of(client: &Client) -> usize {
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}});
    let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews")
        .header("content-type", "application/json")
        .body(review.to_string().into_bytes())
        .expect("a request");
    let answer: Value = client.request(request).await.unwrap_or_default();
    let rules = answer["status"]["resourceRules"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let given = |rule: &&Value| {
        rule["resources"][0]
            .as_str()
            .is_some_and(|it| !it.starts_with("self"))
    };
    total(&rules.iter().filter(given).cloned().collect::<Vec<_>>())
}

fn total(rules: &[Value]) -> usize {
    rules
        .iter()
        .filter_map(|rule| rule["verbs"].as_array())
        .map(Vec::len)
        .sum()
}

pub(crate) async fn program(client: &Client, path: &str, address: &str) {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let body = json!({"status": {
        "addresses": [{"type": "IPAddress", "value": address}],
        "conditions": [condition("Accepted"), condition("Programmed")],
    }});
    let request = Request::patch(format!("{path}/status"))
        .header("content-type", "application/merge-patch+json")
        .body(body.to_string().into_bytes())
        .expect("a request");
    // It may have been deleted meanwhile.
    drop(client.request::<Value>(request).await);
}

/// The path of the objects of this kind in one namespace.
pub fn in_namespace(list: &str, namespace: &str) -> String {
    let (group, plural) = list.rsplit_once('/').expect("a path");
    format!("{group}/namespaces/{namespace}/{plural}")
}

/// The path of this object, of the kind that `list` lists.
pub fn path(list: &str, object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str();
    let list = text("namespace").map_or(list.to_owned(), |namespace| in_namespace(list, namespace));
    format!("{list}/{}", text("name").unwrap_or_default())
}
