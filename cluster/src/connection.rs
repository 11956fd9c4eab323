//! The client that every request goes through. It is made again when its connections lead nowhere any more, and when a
//! credential plugin has to be asked again.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use kube::{Client, Config};
use tokio::sync::Mutex;

/// How long before their end the certificates of a plugin are not used any more.
const EXPIRY_MARGIN: SignedDuration = SignedDuration::from_secs(60);

struct Connection {
    config: Config,
    /// How long an answer may take.
    answer: Duration,
    /// Locked while another one is made.
    current: Mutex<Current>,
}

#[derive(Clone)]
struct Current {
    client: Client,
    number: u64,
}

/// Runs the user's credential plugin, where there is one. No request is made yet.
pub(crate) async fn connect(config: Config, answer: Duration) -> Result<Client, kube::Error> {
    let namespace = config.default_namespace.clone();
    let client = new_client(config.clone()).await?;
    let connection = Arc::new(Connection {
        config,
        answer,
        current: Mutex::new(Current { client, number: 0 }),
    });
    let service = tower::service_fn(move |request| connection.clone().send(request));
    Ok(Client::new(service, namespace))
}

/// Making a client runs the credential plugin and waits for it: on a thread of its own, so that a stop is heard meanwhile.
async fn new_client(config: Config) -> Result<Client, kube::Error> {
    let runtime = tokio::runtime::Handle::current();
    let (done, client) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _entered = runtime.enter();
        // Nobody waits for it any more when the stage has been stopped.
        drop(done.send(Client::try_from(config)));
    });
    let gone = || kube::Error::Service("the thread that makes the client died".into());
    client.await.unwrap_or_else(|_| Err(gone()))
}

impl Connection {
    /// Waits for the head of the answer; what a watch says after it may come at any time.
    async fn send(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let mut used = self.current.lock().await.clone();
        if expires_soon(&used.client) {
            used = self.replace_client(used.number).await;
        }
        let answer = tokio::time::timeout(self.answer, used.client.send(request)).await;
        let by_plugin = self.config.auth_info.exec.is_some();
        match answer {
            // A network that is gone tells nobody, and whatever was connected before is no use.
            Err(_) => {
                self.replace_client(used.number).await;
                let text = format!("no answer within {:?}", self.answer);
                Err(kube::Error::Service(text.into()))
            }
            Ok(Ok(refused)) if by_plugin && refused.status() == StatusCode::UNAUTHORIZED => {
                self.replace_client(used.number).await;
                Ok(refused)
            }
            Ok(answer) => answer,
        }
    }

    /// Makes a client in the place of this one, once. Where none can be made the old one stays, and its next request tells
    /// why.
    async fn replace_client(&self, number: u64) -> Current {
        let mut current = self.current.lock().await;
        if current.number == number
            && let Ok(Ok(client)) =
                tokio::time::timeout(self.answer, new_client(self.config.clone())).await
        {
            let number = number + 1;
            *current = Current { client, number };
        }
        current.clone()
    }
}

fn expires_soon(client: &Client) -> bool {
    client
        .valid_until()
        .is_some_and(|until| until < Timestamp::now() + EXPIRY_MARGIN)
}
