//! The stand-in master and the stand-in pod.

use std::path::PathBuf;
use std::time::Duration;

use sandbox::master;
use sandbox::pod::{self, Master};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(30);

fn config(dir: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("master.conf");
    std::fs::write(&path, text).expect("writing a config");
    path
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("binding");
    listener
        .local_addr()
        .expect("the address of a listener")
        .port()
}

async fn call_until_up(master: &Master) -> anyhow::Result<Duration> {
    loop {
        match pod::call(master, DEADLINE).await {
            Err(error) if error.to_string().starts_with("connecting to ") => {
                tokio::task::yield_now().await;
            }
            answer => return answer,
        }
    }
}

#[tokio::test]
async fn a_pod_finds_its_master_by_the_config_and_knows_it_from_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = free_port();
    let path = config(
        &dir,
        &format!(
            "port: {port}\ncluster_name: sandbox-5f\nresource_manager:\n  type: kubernetes\n  \
             determined_master_host: 127.0.0.1\n  determined_master_port: {port}\n"
        ),
    );
    let mine = Master::from_config(&master::read(&path).expect("the config")).expect("an address");
    let other = Master {
        cluster_name: "sandbox-60".into(),
        ..mine.clone()
    };
    let calls = async {
        call_until_up(&mine).await.expect("an answer");
        let error = pod::call(&other, DEADLINE)
            .await
            .expect_err("another master's pod");
        let error = error.to_string();
        assert!(
            error.contains("is the master of cluster \"sandbox-5f\""),
            "{error}"
        );
    };
    tokio::select! {
        ended = master::run(&path) => panic!("the master ended: {ended:?}"),
        done = tokio::time::timeout(DEADLINE, calls) => done.expect("answers in time"),
    }
}

#[tokio::test]
async fn a_config_without_an_address_of_the_master_is_refused_by_a_pod() {
    let config = json!({"resource_manager": {"determined_master_host": "h"}});
    let error = Master::from_config(&config).expect_err("no port");
    assert!(
        error
            .to_string()
            .contains("resource_manager.determined_master_port"),
        "{error}"
    );
}

#[tokio::test]
async fn a_master_refuses_an_invalid_config_with_the_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let error = master::run(&config(&dir, "port: 80800\n"))
        .await
        .expect_err("no such port");
    let error = error.to_string();
    assert!(error.contains("is refused:\nport: 80800"), "{error}");
    let gateway =
        "resource_manager:\n  type: kubernetes\n  internal_task_gateway:\n    gateway_name: g\n";
    let error = master::run(&config(&dir, gateway))
        .await
        .expect_err("half a gateway");
    assert!(error.to_string().contains("gateway_ip"), "{error}");
    let error = master::run(&config(&dir, "port: [\n"))
        .await
        .expect_err("no YAML");
    assert!(error.to_string().contains("is not YAML"), "{error}");
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("binding");
    let port = taken
        .local_addr()
        .expect("the address of a listener")
        .port();
    let error = master::run(&config(&dir, &format!("port: {port}\n")))
        .await
        .expect_err("a taken port");
    let expected = format!("listening on port {port} failed");
    assert!(error.to_string().starts_with(&expected), "{error}");
}
