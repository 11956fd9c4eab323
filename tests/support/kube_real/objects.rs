//! What a test asks of the API. What is refused fails the test.

use std::path::Path;

use http::{Method, Request};
use serde_json::{Value, json};

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// The API, as one user sees it.
pub struct Api {
    client: Client,
}

impl Api {
    /// As the current context of this file.
    pub async fn by(kubeconfig: impl AsRef<Path>) -> Api {
        Api::of(Kubeconfig::read_from(kubeconfig).expect("no kubeconfig")).await
    }

    pub(super) async fn of(kubeconfig: Kubeconfig) -> Api {
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let config = config.expect("a kubeconfig that cannot be used");
        let client = Client::try_from(config).expect("no client");
        Api { client }
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    pub(super) async fn send(
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

    pub async fn put(&self, path: &str, body: &Value) -> Value {
        let answer = self.send(Method::PUT, path, "application/json", body).await;
        answer.unwrap_or_else(|error| panic!("PUT {path}: {error}"))
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

    pub async fn delete(&self, path: &str) {
        match self
            .send(Method::DELETE, path, "application/json", &json!({}))
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            answer => drop(answer.unwrap_or_else(|error| panic!("DELETE {path}: {error}"))),
        }
    }
}
