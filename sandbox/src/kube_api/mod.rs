//! A stand-in for the Kubernetes API: what the gateway stage reads, and the Leases of its sessions.
//!
//! Served: discovery, get, list and watch of Gateway API objects, their CRDs, namespaces, services, pods and Leases, writes
//! of Leases, and access reviews. Paging is not: a list is always whole. Objects and errors have the shape that a real
//! apiserver gives, so that whoever passes here passes there.

mod discovery;
mod kinds;
mod review;
mod routes;
pub mod seed;
mod status;
mod store;
mod watch;
mod writes;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use review::Denied;
pub use store::Store;

use super::serve::serve;
use routes::Api;

/// How this API differs from a healthy one with a Gateway that is not Programmed yet.
pub struct Options {
    /// The one bearer token that is let in; without one, everybody is.
    pub token: Option<String>,
    /// What the user may not do.
    pub denied: Vec<Denied>,
    /// Group versions that are not served, such as `gateway.networking.k8s.io/v1alpha2`.
    pub absent: Vec<String>,
    /// What the cluster holds at the start.
    pub objects: Vec<Value>,
    /// When the stand-in for a controller programs every Gateway; `None`: never by itself.
    pub programmed_after: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: None,
            denied: Vec::new(),
            absent: Vec::new(),
            objects: seed::cluster(),
            programmed_after: Some(Duration::from_millis(500)),
        }
    }
}

/// A running stand-in. Dropping it closes the port and every connection.
pub struct KubeApi {
    address: SocketAddr,
    token: Option<String>,
    store: Arc<Store>,
    tasks: JoinSet<()>,
}

impl KubeApi {
    /// Listens on a free loopback port.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let store = Arc::new(Store::new(options.objects));
        let api = Arc::new(Api {
            store: Arc::clone(&store),
            token: options.token.clone(),
            denied: options.denied,
            absent: options.absent,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, move |request| {
            let api = Arc::clone(&api);
            async move { api.answer(request).await }
        }));
        if let Some(delay) = options.programmed_after {
            let store = Arc::clone(&store);
            tasks.spawn(async move {
                tokio::time::sleep(delay).await;
                store.program_gateways("127.0.0.1");
            });
        }
        Ok(Self {
            address,
            token: options.token,
            store,
            tasks,
        })
    }

    /// What the cluster holds: a test plays the controller through this.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes the port and waits until it is closed.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
    }

    /// A kubeconfig whose only context, `name`, leads here. JSON, which every reader of YAML takes.
    pub fn kubeconfig(&self, name: &str) -> Value {
        let user = match &self.token {
            Some(token) => json!({"token": token}),
            None => json!({}),
        };
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": {"server": self.url()}}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
        })
    }

    /// Writes that kubeconfig, for its owner's eyes only.
    pub fn write_kubeconfig(&self, path: &Path, name: &str) -> io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(format!("{:#}\n", self.kubeconfig(name)).as_bytes())
    }
}
