//! A stand-in for the Kubernetes API, with as much of it as the gateway stage asks for in the demo: get, list and watch of a
//! few kinds, Leases, and access reviews, in which everything is allowed.

mod answer;
pub mod seed;
mod store;
mod watch;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use store::Store;

use super::serve::serve;
use answer::answer;

/// What the cluster holds, and what its controller does.
pub struct Options {
    /// What is there at the start.
    pub objects: Vec<Value>,
    /// When every Gateway is programmed; `None`: never by itself.
    pub programmed_after: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            objects: seed::cluster(),
            programmed_after: Some(Duration::from_millis(500)),
        }
    }
}

/// A running stand-in. Dropping it closes the port and every connection.
pub struct KubeApi {
    address: SocketAddr,
    store: Arc<Store>,
    tasks: JoinSet<()>,
}

impl KubeApi {
    /// Listens on a free loopback port.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let store = Arc::new(Store::new(options.objects));
        let mut tasks = JoinSet::new();
        let answering = Arc::clone(&store);
        tasks.spawn(serve(listener, move |request| {
            answer(Arc::clone(&answering), request)
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
            store,
            tasks,
        })
    }

    /// What the cluster holds: a test plays the controller through this.
    pub fn store(&self) -> &Store {
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
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": {"server": self.url()}}],
            "users": [{"name": name, "user": {}}],
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
