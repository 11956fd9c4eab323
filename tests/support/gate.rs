//! A gate in front of a Kubernetes API that holds up one change: right before the API gets it, or right before the
//! stage gets the answer. There a test kills.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::kube_real::{RealKube, STAGE};

/// Where one change is held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The API has not received it.
    Before,
    /// The API has done it, and the stage does not know.
    After,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the change, counted from 1.
    held: Option<(usize, Side)>,
    changes: Vec<String>,
}

#[derive(Clone)]
struct Door {
    client: Client,
    state: Arc<Mutex<State>>,
    reached: Arc<Notify>,
}

/// The gate. Everything else passes.
pub struct Gate {
    port: u16,
    door: Door,
    _tasks: JoinSet<()>,
}

impl Gate {
    pub async fn start(kube: &RealKube) -> Gate {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("no port at all is free");
        let port = listener.local_addr().expect("no address").port();
        let door = Door {
            client: kube.as_user(STAGE).await.client(),
            state: Arc::default(),
            reached: Arc::default(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, door.clone()));
        Gate {
            port,
            door,
            _tasks: tasks,
        }
    }

    /// A kubeconfig that leads through it.
    pub fn kubeconfig(&self, kube: &RealKube) -> Value {
        let mut kubeconfig = kube.kubeconfig(STAGE);
        let server = format!("http://127.0.0.1:{}", self.port);
        kubeconfig["clusters"][0]["cluster"] = serde_json::json!({"server": server});
        kubeconfig
    }

    /// Counts from now on, and holds up the change of this number; `None`: none.
    pub fn hold(&self, change: Option<(usize, Side)>) {
        *self.state() = State {
            held: change,
            changes: Vec::new(),
        };
    }

    /// Returns once a change is held up.
    pub async fn reached(&self) {
        self.door.reached.notified().await;
    }

    /// What was asked for since, the last one being what is held up.
    pub fn changes(&self) -> Vec<String> {
        self.state().changes.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.door
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, door: Door) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let door = door.clone();
        let answer = service_fn(move |request| {
            let door = door.clone();
            async move { Ok::<_, Infallible>(door.pass(request).await) }
        });
        let http = hyper::server::conn::http1::Builder::new();
        let connection = http.serve_connection(TokioIo::new(stream), answer);
        connections.spawn(async move { drop(connection.await) });
    }
}

impl Door {
    async fn pass(&self, request: Request<Incoming>) -> Response<Body> {
        let held = self.count(&request);
        if held == Some(Side::Before) {
            self.stand_still().await;
        }
        let (mut parts, body) = request.into_parts();
        // The client writes its own.
        for header in ["host", "authorization"] {
            parts.headers.remove(header);
        }
        let body = http_body_util::BodyExt::collect(body).await;
        let body = body.map(|it| it.to_bytes().to_vec()).unwrap_or_default();
        let answer = self
            .client
            .send(Request::from_parts(parts, body.into()))
            .await;
        if held == Some(Side::After) {
            self.stand_still().await;
        }
        answer.unwrap_or_else(|error| {
            let response = Response::builder().status(502);
            let text = error.to_string().into_bytes();
            response.body(text.into()).expect("a response")
        })
    }

    /// The side on which this request is to be held up.
    fn count(&self, request: &Request<Incoming>) -> Option<Side> {
        let path = request.uri().path();
        if request.method() == Method::GET || path.ends_with("accessreviews") {
            return None;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.changes.push(format!("{} {path}", request.method()));
        let number = state.changes.len();
        state
            .held
            .filter(|(n, _)| *n == number)
            .map(|(_, side)| side)
    }

    async fn stand_still(&self) {
        self.reached.notify_one();
        std::future::pending().await
    }
}
