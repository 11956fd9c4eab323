//! devcluster-gateway where it cannot succeed: each cause has its own code, exit code and mend.

use std::path::Path;

use sandbox::kube_api::{Denied, KubeApi, seed};
use serde_json::{Value, json};
use support::kube::{Options, gateway_command, idle, programmed, start_kube, write_kubeconfig};
use support::{Home, StageClient};

/// Runs until it fails, and returns the error and the exit code.
async fn fail(home: &Home, kubeconfig: &Path, args: &[&str]) -> (Value, i32) {
    let mut command = gateway_command(home, "run", args);
    command.arg("--kubeconfig").arg(kubeconfig);
    let mut stage = StageClient::start(command);
    let error = stage.wait_for("error").await["error"].clone();
    let (status, _) = stage.wait().await;
    let left = home.run_dir().join("gateway.kubeconfig");
    assert!(!left.exists(), "{error}");
    (error, status.code().expect("an exit code"))
}

async fn fail_on(options: Options, args: &[&str]) -> (Value, i32) {
    let (home, api) = (Home::new(), start_kube(options).await);
    let kubeconfig = write_kubeconfig(&home, "kubeconfig", &api.kubeconfig("sandbox"));
    fail(&home, &kubeconfig, args).await
}

#[track_caller]
fn assert_error((error, exit): (Value, i32), code: &str, expected_exit: i32, says: &[&str]) {
    assert_eq!(
        (error["code"].as_str(), exit),
        (Some(code), expected_exit),
        "{error:#}"
    );
    assert!(
        error["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
        "no mend: {error:#}"
    );
    for words in says {
        assert!(
            error.to_string().contains(words),
            "{words:?} is not in {error:#}"
        );
    }
}

#[tokio::test]
async fn a_cluster_without_the_gateway_api_is_told_from_one_without_tcp_routes() {
    let absent = ["v1", "v1alpha2"].map(|version| format!("gateway.networking.k8s.io/{version}"));
    let without = |absent: &[String]| Options {
        absent: absent.to_vec(),
        ..idle()
    };
    assert_error(
        fail_on(without(&absent), &[]).await,
        "gateway.api_missing",
        1,
        &["sandbox"],
    );
    let only_tcp_routes = fail_on(without(&absent[1..]), &[]).await;
    assert_error(
        only_tcp_routes,
        "gateway.tcproute_missing",
        1,
        &["v1alpha2", "v1.2.1, experimental channel"],
    );
}

#[tokio::test]
async fn a_missing_permission_is_named_by_verb_and_resource() {
    let denied = |verb: &str| Options {
        denied: vec![Denied::everywhere(verb, "gateways")],
        ..programmed()
    };
    let named = ["--gateway", "tcp-gateway", "--gateway-namespace", "default"];
    for (verb, args) in [("list", &[][..]), ("get", &named[..]), ("update", &[][..])] {
        let words = format!("may not {verb} gateways.gateway.networking.k8s.io");
        assert_error(
            fail_on(denied(verb), args).await,
            "cluster.forbidden",
            1,
            &[&words],
        );
    }
    let waiting = Options {
        denied: denied("watch").denied,
        ..idle()
    };
    assert_error(
        fail_on(waiting, &[]).await,
        "cluster.forbidden",
        1,
        &["may not watch", "namespace default"],
    );
}

#[tokio::test]
async fn a_user_who_may_see_one_gateway_and_nothing_else_is_served() {
    let (home, mut options) = (Home::new(), programmed());
    for verb in ["list", "watch"] {
        options.denied.push(Denied::everywhere(verb, "gateways"));
    }
    options
        .denied
        .push(Denied::everywhere("*", "gatewayclasses"));
    options
        .denied
        .push(Denied::everywhere("*", "customresourcedefinitions"));
    let api = start_kube(options).await;
    let kubeconfig = write_kubeconfig(&home, "kubeconfig", &api.kubeconfig("sandbox"));
    let mut command = gateway_command(
        &home,
        "run",
        &["--gateway", "tcp-gateway", "--gateway-namespace", "default"],
    );
    command.arg("--kubeconfig").arg(kubeconfig);
    let mut stage = StageClient::start(command);
    let outputs = stage.wait_for("outputs").await["outputs"].clone();
    assert_eq!(
        (&outputs["controller"], &outputs["capacity"]),
        (&Value::Null, &json!(63))
    );
    stage
        .wait_until("a warning", |message| message["level"] == "warn")
        .await;
}

#[tokio::test]
async fn a_gateway_that_never_works_ends_the_wait_with_what_is_missing() {
    let unclaimed = fail_on(idle(), &["--timeout", "1"]).await;
    assert_error(
        unclaimed,
        "gateway.not_programmed",
        7,
        &[
            "Waiting for controller",
            "controller of GatewayClass contour",
        ],
    );
    let mut options = idle();
    let mut gateway = seed::gateway("default", "tcp-gateway", "contour");
    seed::program(&mut gateway, "127.0.0.1");
    gateway["status"]["addresses"] = json!([]);
    options.objects.push(gateway);
    assert_error(
        fail_on(options, &["--timeout", "1"]).await,
        "gateway.no_address",
        7,
        &["minikube tunnel"],
    );
}

#[tokio::test]
async fn an_unknown_context_a_missing_file_and_a_malformed_one_are_told_apart() {
    let home = Home::new();
    let api: KubeApi = start_kube(idle()).await;
    let kubeconfig = write_kubeconfig(&home, "kubeconfig", &api.kubeconfig("sandbox"));
    let unknown = fail(&home, &kubeconfig, &["--k8s-context", "sandbx"]).await;
    assert_error(
        unknown,
        "cluster.context_unknown",
        2,
        &["did you mean", "sandbox"],
    );
    let missing = fail(&home, &home.path().join("none"), &[]).await;
    assert_error(missing, "cluster.kubeconfig_missing", 2, &["none"]);
    std::fs::write(&kubeconfig, "clusters: [\n").expect("cannot write");
    assert_error(
        fail(&home, &kubeconfig, &[]).await,
        "cluster.kubeconfig_malformed",
        2,
        &["kubeconfig:1:11"],
    );
    let mut without_current = api.kubeconfig("sandbox");
    without_current["current-context"] = "".into();
    let kubeconfig = write_kubeconfig(&home, "kubeconfig", &without_current);
    assert_error(
        fail(&home, &kubeconfig, &[]).await,
        "cluster.context_unset",
        2,
        &["sandbox"],
    );
    assert_eq!(api.store().requests(), Vec::<String>::new());
}

#[tokio::test]
async fn an_api_that_is_not_there_is_reported_soon() {
    let home = Home::new();
    let api = start_kube(idle()).await;
    let mut dead = api.kubeconfig("sandbox");
    api.close().await;
    // The second address is set aside for documentation: nobody answers there.
    let closed = dead["clusters"][0]["cluster"]["server"].clone();
    for server in [closed, json!("http://192.0.2.1:6443")] {
        dead["clusters"][0]["cluster"]["server"] = server.clone();
        let kubeconfig = write_kubeconfig(&home, "kubeconfig", &dead);
        let failed = fail(&home, &kubeconfig, &["--connect-timeout", "1"]).await;
        assert_error(
            failed,
            "cluster.unreachable",
            75,
            &[server.as_str().unwrap_or_default()],
        );
    }
}

#[tokio::test]
async fn refused_credentials_and_missing_ones_are_told_apart() {
    let home = Home::new();
    let api = start_kube(Options {
        token: Some("right".into()),
        ..programmed()
    })
    .await;
    let mut kubeconfig = api.kubeconfig("sandbox");
    kubeconfig["users"][0]["user"]["token"] = "wr0ng".into();
    let path = write_kubeconfig(&home, "kubeconfig", &kubeconfig);
    let refused = fail(&home, &path, &[]).await;
    assert!(!refused.0.to_string().contains("wr0ng"), "{}", refused.0);
    assert_error(refused, "cluster.credentials_refused", 1, &["Unauthorized"]);

    let plugin = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", "echo $SECRET; echo log in first >&2; exit 3"]});
    kubeconfig["users"][0]["user"] = json!({"exec": plugin});
    kubeconfig["users"][0]["user"]["exec"]["env"] = json!([{"name": "SECRET", "value": "t0ken"}]);
    let path = write_kubeconfig(&home, "kubeconfig", &kubeconfig);
    let missing = fail(&home, &path, &[]).await;
    assert!(!missing.0.to_string().contains("t0ken"), "{}", missing.0);
    assert_error(
        missing,
        "cluster.credentials_unavailable",
        1,
        &["log in first"],
    );
}

#[tokio::test]
async fn what_determined_would_refuse_is_refused_before_anything_is_asked() {
    let (home, api) = (Home::new(), start_kube(idle()).await);
    let kubeconfig = write_kubeconfig(&home, "kubeconfig", &api.kubeconfig("sandbox"));
    let failed = fail(
        &home,
        &kubeconfig,
        &["--port-range", "41000-40000", "--gateway=-x"],
    )
    .await;
    assert_error(
        failed,
        "protocol.config",
        2,
        &["41000 to 40000", "--gateway"],
    );
    assert_eq!(api.store().requests(), Vec::<String>::new());
}
