//! The client that sends every request. It is replaced when its connections are dead, and when a credential plugin has
//! to run again.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use kube::{Client, Config};
use tokio::sync::Mutex;

/// Certificates of a plugin are replaced this long before they expire.
const EXPIRY_MARGIN: SignedDuration = SignedDuration::from_secs(60);

struct Connection {
    config: Config,
    /// Time limit of an answer.
    answer: Duration,
    /// Locked while a new client is made.
    current: Mutex<Current>,
}

#[derive(Clone)]
struct Current {
    client: Client,
    number: u64,
}

/// Runs the user's credential plugin, if there is one. Makes no request.
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

/// Making a client waits for the credential plugin. It runs on a thread of its own, so that a shutdown is not held up.
async fn new_client(config: Config) -> Result<Client, kube::Error> {
    let runtime = tokio::runtime::Handle::current();
    let (done, client) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _entered = runtime.enter();
        // A stage that has shut down no longer waits for it.
        drop(done.send(Client::try_from(config)));
    });
    let gone = || kube::Error::Service("the thread that makes the client died".into());
    client.await.unwrap_or_else(|_| Err(gone()))
}

impl Connection {
    /// Waits for the whole response. The body of a watch may arrive at any time.
    async fn send(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let query = request.uri().query().unwrap_or_default();
        let is_watch = query.split('&').any(|it| it == "watch=true");
        let mut used = self.current.lock().await.clone();
        if expires_soon(&used.client) {
            used = self.replace_client(used.number).await;
        }
        let answer = async {
            let response = used.client.send(request).await?;
            match is_watch {
                true => Ok(response),
                false => whole(response).await,
            }
        };
        let answer = tokio::time::timeout(self.answer, answer).await;
        let by_plugin = self.config.auth_info.exec.is_some();
        match answer {
            // A lost network reports no error, and all open connections are dead with it.
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

    /// Replaces this client, once. If no new client can be made, the old one stays and its next request shows the
    /// error.
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

/// The response once all of it is there: a body that stalls counts as no answer.
async fn whole(response: Response<Body>) -> Result<Response<Body>, kube::Error> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Response::from_parts(head, Body::from(body)))
}

fn expires_soon(client: &Client) -> bool {
    client
        .valid_until()
        .is_some_and(|until| until < Timestamp::now() + EXPIRY_MARGIN)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that announces ten bytes and sends two.
    async fn stalls(listener: TcpListener) {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = client.read(&mut request).await.unwrap();
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{}";
            client.write_all(head).await.unwrap();
            std::mem::forget(client);
        }
    }

    #[tokio::test]
    async fn a_body_that_stalls_ends_in_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let config = Config::new(url.parse().unwrap());
        let client = connect(config, Duration::from_millis(200)).await.unwrap();
        let asks = async {
            let request = Request::get("/version").body(Vec::new()).unwrap();
            client.request_text(request).await.unwrap_err().to_string()
        };
        tokio::select! {
            error = asks => assert!(error.contains("no answer within"), "{error}"),
            () = stalls(listener) => {}
        }
    }
}
