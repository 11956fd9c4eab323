//! A stand-in for the Kubernetes API with the requests of the gateway stage in the demo: get, list and watch of a few kinds,
//! Leases, and access reviews, which allow everything.

mod answer;
pub mod seed;
mod store;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::serve::serve;
use answer::answer;
use store::Store;

/// The objects of the cluster, and the behaviour of its controller.
pub struct Options {
    /// The objects at the start.
    pub objects: Vec<Value>,
    /// When the controller programs every Gateway; `None`: only on request.
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

/// A running stand-in. Dropping it closes the port and all connections.
pub struct KubeApi {
    address: SocketAddr,
    store: Arc<Store>,
    _tasks: JoinSet<()>,
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
            _tasks: tasks,
        })
    }

    /// Acts as the controller: programs every Gateway with this address.
    pub fn program_gateways(&self, address: &str) {
        self.store.program_gateways(address);
    }

    /// Every request so far, such as `GET /version`.
    pub fn requests(&self) -> Vec<String> {
        self.store.requests.borrow().clone()
    }

    /// Waits until a request contains this text.
    pub async fn requested(&self, text: &str) {
        let mut requests = self.store.requests.subscribe();
        let has_text = |all: &Vec<String>| all.iter().any(|one| one.contains(text));
        // The sender lives as long as this value, so this ends only with the request.
        drop(requests.wait_for(has_text).await);
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig with one context, `name`, for this stand-in. JSON, which every YAML parser accepts.
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
}
