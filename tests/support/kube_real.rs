//! A real kube-apiserver with etcd, the garbage collector and the namespace controller; the test is every other controller.
//!
//! Two serve all tests of a run, each one test at a time, which finds it without Gateways, classes and Leases.

mod cluster;
mod grants;
mod objects;
mod server;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::yaml::Document;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::DEADLINE;
use crate::skip::skip;
pub(crate) use cluster::program;
pub use objects::Api;
use server::Server;

const HINT: &str = "scripts/get-bed --api, which needs Go 1.24";

/// The user that stages are, so that the audit log tells their requests from the test's.
pub const STAGE: &str = "stage";

/// A user who may do nothing until a test lets him.
pub const LIMITED: &str = "limited";

pub const GATEWAYS: &str = "/apis/gateway.networking.k8s.io/v1/gateways";
pub const CLASSES: &str = "/apis/gateway.networking.k8s.io/v1/gatewayclasses";
pub const TCP_ROUTES: &str = "/apis/gateway.networking.k8s.io/v1alpha2/tcproutes";
pub const LEASES: &str = "/apis/coordination.k8s.io/v1/leases";

/// The API, for one test.
pub struct RealKube {
    admin: Api,
    audit_from: u64,
    pub(crate) controllers: JoinSet<()>,
    server: Server,
}

/// `None`, with a line on stderr, if this API is not built and no variable requires it.
pub async fn real_kube() -> Option<RealKube> {
    of_server(Server::any()).await
}

/// Three clusters, each with an API server of its own.
pub async fn three_real_kubes() -> Option<[RealKube; 3]> {
    Some([
        of_server(Server::take(0)).await?,
        of_server(Server::take(1)).await?,
        of_server(Server::take(2)).await?,
    ])
}

async fn of_server(server: Option<Server>) -> Option<RealKube> {
    let Some(server) = server else {
        skip("kube-apiserver", HINT, "DEVCLUSTER_REQUIRE_KUBE");
        return None;
    };
    let mut kube = RealKube {
        admin: Api::by(server.dir().join("kubeconfig")).await,
        audit_from: 0,
        controllers: JoinSet::new(),
        server,
    };
    kube.install("v1.2.1", "experimental").await;
    kube.wipe().await;
    kube.audit_from =
        std::fs::metadata(kube.directory().join("audit.log")).map_or(0, |it| it.len());
    Some(kube)
}

impl Deref for RealKube {
    type Target = Api;

    /// As its admin.
    fn deref(&self) -> &Api {
        &self.admin
    }
}

impl RealKube {
    /// A kubeconfig of this user, with one context, `real`.
    pub fn kubeconfig(&self, user: &str) -> Value {
        let admin = std::fs::read_to_string(self.server.dir().join("kubeconfig"));
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

    pub async fn as_user(&self, user: &str) -> Api {
        let kubeconfig = serde_json::from_value(self.kubeconfig(user));
        Api::of(kubeconfig.expect("a kubeconfig")).await
    }

    /// Where the server keeps its files; the admin's kubeconfig is `kubeconfig`.
    pub fn directory(&self) -> &Path {
        self.server.dir()
    }

    /// A file of the Gateway API's or Contour's module.
    pub fn file(&self, path: &str) -> PathBuf {
        self.server.files.join(path)
    }

    /// The port of the API, on loopback.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Kills the API and its etcd, and starts them again with their data.
    pub async fn restart(&mut self, meanwhile: impl AsyncFnOnce()) {
        self.server.kill();
        meanwhile().await;
        self.server.revive();
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

    /// What stages have asked since the test began, by the audit log: `create /apis/…`.
    pub fn requests(&self, user: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.server.dir().join("audit.log"));
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
