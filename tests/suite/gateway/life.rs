//! devcluster-gateway against a Kubernetes API: the way to ready, and what happens after it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;
use sandbox::kube_api::{KubeApi, seed};
use serde_json::{Value, json};
use support::gateway::stop;
use support::kube::{gateway_command, idle, programmed, start_kube, write_kubeconfig};
use support::{DEADLINE, Home, StageClient, leaks};

fn start(home: &Home, kubeconfig: &Path, args: &[&str]) -> StageClient {
    let mut command = gateway_command(home, "run", args);
    command.arg("--kubeconfig").arg(kubeconfig);
    StageClient::start(command)
}

fn sandbox(home: &Home, api: &KubeApi) -> std::path::PathBuf {
    write_kubeconfig(home, "kubeconfig", &api.kubeconfig("sandbox"))
}

fn requests(api: &KubeApi, of: &str) -> Vec<String> {
    api.store()
        .requests()
        .into_iter()
        .filter(|request| request.contains(of))
        .collect()
}

#[tokio::test]
async fn it_waits_by_a_watch_until_the_gateway_works_and_takes_its_kubeconfig_with_it() {
    let (home, api) = (Home::new(), start_kube(idle()).await);
    let mut kubeconfig = api.kubeconfig("sandbox");
    for (list, inner) in [
        ("clusters", "cluster"),
        ("users", "user"),
        ("contexts", "context"),
    ] {
        let other = json!({"name": "other", inner: {"cluster": "other", "user": "other", "server": "https://x", "token": "s3cret"}});
        kubeconfig[list].as_array_mut().expect("a list").push(other);
    }
    kubeconfig["current-context"] = "other".into();
    let kubeconfig = write_kubeconfig(&home, "kubeconfig", &kubeconfig);
    let mut stage = start(
        &home,
        &kubeconfig,
        &["--k8s-context", "sandbox", "--port-range", "40000-40009"],
    );
    stage
        .wait_until("the wait", |message| message["step"] == "wait")
        .await;
    tokio::time::timeout(DEADLINE, api.store().requested("watch=true"))
        .await
        .expect("no watch");
    assert!(!stage.has_said("ready"));
    api.store().program_gateways("127.0.0.1");
    let outputs = stage.wait_for("outputs").await["outputs"].clone();
    stage.wait_for("ready").await;

    let path = home.run_dir().join("gateway.kubeconfig");
    assert_eq!(
        outputs,
        json!({
            "internal_task_gateway": {
                "gateway_name": "tcp-gateway",
                "gateway_namespace": "default",
                "gateway_ip": "127.0.0.1",
                "gateway_port_range_start": 40000,
                "gateway_port_range_end": 40009,
            },
            "kubeconfig_path": path,
            "context": "sandbox",
            "controller": seed::CONTOUR,
            "capacity": 10,
            "provisioned": false,
        })
    );
    assert_eq!(
        requests(&api, "watch=true").len(),
        1,
        "{:#?}",
        api.store().requests()
    );
    let text = std::fs::read_to_string(&path).expect("the kubeconfig");
    assert_eq!(
        serde_json::from_str::<Value>(&text).expect("JSON"),
        api.kubeconfig("sandbox")
    );
    let mode = path
        .metadata()
        .expect("the kubeconfig")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let stderr = stop(stage).await;
    assert!(!stderr.contains("s3cret") && !path.exists(), "{stderr}");
    assert_eq!(
        leaks::files(&home.path().join("state")),
        Vec::<std::path::PathBuf>::new()
    );
    assert_eq!(leaks::processes(&home.mark()), Vec::<String>::new());
}

#[tokio::test]
async fn a_watch_whose_history_is_forgotten_begins_anew() {
    let (home, api) = (Home::new(), start_kube(programmed()).await);
    let mut stage = start(&home, &sandbox(&home, &api), &[]);
    stage.wait_for("ready").await;
    api.store().forget_history();
    api.store()
        .edit("gateways", "default", "tcp-gateway", |gateway| {
            seed::program(gateway, "lb.example.com")
        });
    // The first are those of the start.
    stage
        .wait_until("the new address", |message| {
            message["outputs"]["internal_task_gateway"]["gateway_ip"] == "lb.example.com"
        })
        .await;
    stage.wait_for("ready").await;
    stop(stage).await;
}

#[tokio::test]
async fn a_stop_is_heard_during_the_wait() {
    let (home, api) = (Home::new(), start_kube(idle()).await);
    let mut stage = start(&home, &sandbox(&home, &api), &[]);
    stage
        .wait_until("the wait", |message| message["step"] == "wait")
        .await;
    stop(stage).await;
    assert!(!home.run_dir().join("gateway.kubeconfig").exists());
}

#[tokio::test]
async fn check_compares_the_cluster_with_what_was_reported() {
    let (home, api) = (Home::new(), start_kube(programmed()).await);
    let mut stage = start(&home, &sandbox(&home, &api), &[]);
    stage.wait_for("ready").await;
    let mut check = StageClient::start(gateway_command(&home, "check", &[]));
    let (status, _) = check.wait().await;
    assert!(status.success(), "{}", check.stderr());
    stop(stage).await;
}

#[tokio::test]
async fn once_prints_the_outputs_and_leaves_a_kubeconfig_that_cleanup_removes() {
    let (home, api) = (Home::new(), start_kube(programmed()).await);
    let kubeconfig = sandbox(&home, &api);
    let mut once = gateway_command(
        &home,
        "once",
        &["--gateway", "tcp-gateway", "--gateway-namespace", "default"],
    );
    once.arg("--kubeconfig").arg(&kubeconfig);
    let mut once = StageClient::start(once);
    let outputs = once.wait_for("outputs").await["outputs"].clone();
    assert!(once.wait().await.0.success(), "{}", once.stderr());
    let path = Path::new(outputs["kubeconfig_path"].as_str().expect("a path"));
    assert!(path.exists());
    assert_eq!(
        requests(&api, "GET /apis/gateway.networking.k8s.io/v1/gateways"),
        Vec::<String>::new(),
        "one is got by its name"
    );

    for expected in [
        "removed what an earlier run left: the kubeconfig",
        "nothing was left to undo",
    ] {
        let mut cleanup = StageClient::start(gateway_command(&home, "cleanup", &[]));
        assert!(cleanup.wait().await.0.success(), "{}", cleanup.stderr());
        assert!(cleanup.stderr().contains(expected), "{}", cleanup.stderr());
    }
    assert!(!path.exists());
}

#[tokio::test]
async fn after_a_kill_the_next_run_works_and_leaves_nothing() {
    let (home, api) = (Home::new(), start_kube(programmed()).await);
    let kubeconfig = sandbox(&home, &api);
    let mut killed = start(&home, &kubeconfig, &[]);
    killed.wait_for("ready").await;
    killed.signal(Signal::KILL);
    killed.wait().await;
    assert!(home.run_dir().join("gateway.kubeconfig").exists());
    let mut next = start(&home, &kubeconfig, &[]);
    next.wait_for("ready").await;
    stop(next).await;
    assert!(!home.run_dir().join("gateway.kubeconfig").exists());
    assert_eq!(
        leaks::files(&home.path().join("state")),
        Vec::<std::path::PathBuf>::new()
    );
}

#[tokio::test]
async fn a_credential_plugin_beside_its_kubeconfig_works_from_the_minified_one_too() {
    let home = Home::new();
    let api = start_kube(support::kube::Options {
        token: Some("t0ken".into()),
        ..programmed()
    })
    .await;
    let mut kubeconfig = api.kubeconfig("cloud");
    kubeconfig["users"][0]["user"] = json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "./login",
        "args": ["t0ken"],
        "interactiveMode": "IfAvailable",
    }});
    let path = write_kubeconfig(&home, "clouds/kubeconfig", &kubeconfig);
    let plugin = path.with_file_name("login");
    let script = "#!/bin/sh\necho '{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\
                  \"status\":{\"token\":\"'$1'\"}}'\n";
    std::fs::write(&plugin, script).expect("cannot write the plugin");
    std::fs::set_permissions(&plugin, PermissionsExt::from_mode(0o755))
        .expect("cannot make it executable");

    let mut stage = start(&home, &path, &[]);
    let outputs = stage.wait_for("outputs").await["outputs"].clone();
    let minified = Path::new(outputs["kubeconfig_path"].as_str().expect("a path"));
    let written: Value =
        serde_json::from_slice(&std::fs::read(minified).expect("the kubeconfig")).expect("JSON");
    assert_eq!(
        written["users"][0]["user"]["exec"]["command"],
        json!(plugin.with_file_name("./login"))
    );
    assert_eq!(
        written["users"][0]["user"]["exec"]["interactiveMode"],
        "IfAvailable"
    );
    let named = [
        "--name",
        "second",
        "--gateway",
        "tcp-gateway",
        "--take-over",
    ];
    let mut second = start(&home, minified, &named);
    second.wait_for("ready").await;
    stop(second).await;
    let stderr = stop(stage).await;
    assert!(!stderr.contains("t0ken"), "{stderr}");
}

#[tokio::test]
async fn two_clusters_are_held_side_by_side() {
    let home = Home::new();
    let (one, two) = (
        start_kube(programmed()).await,
        start_kube(programmed()).await,
    );
    two.store().program_gateways("10.2.2.2");
    let paths = [
        write_kubeconfig(&home, "one", &one.kubeconfig("one")),
        write_kubeconfig(&home, "two", &two.kubeconfig("two")),
    ];
    let listed = std::env::join_paths(&paths).expect("paths");
    let mut stages = Vec::new();
    for (context, address) in [("one", "127.0.0.1"), ("two", "10.2.2.2")] {
        let mut command =
            gateway_command(&home, "run", &["--name", context, "--k8s-context", context]);
        command.env("KUBECONFIG", &listed);
        let mut stage = StageClient::start(command);
        let outputs = stage.wait_for("outputs").await["outputs"].clone();
        assert_eq!(outputs["internal_task_gateway"]["gateway_ip"], address);
        assert_eq!(
            outputs["kubeconfig_path"],
            json!(home.run_dir().join(format!("{context}.kubeconfig")))
        );
        stages.push(stage);
    }
    for stage in stages {
        stop(stage).await;
    }
}
