//! devcluster-gateway where a controller cannot be installed: the reason is reported, and nothing is half done.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use support::gateway::{cleanup, role, run_as};
use support::kube::{gateway_command, write_kubeconfig};
use support::kube_infra::DEPLOYMENTS;
use support::kube_real::{LEASES, LIMITED, RealKube, STAGE, in_namespace, real_kube};
use support::{Home, StageClient};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const DIGEST: &str = "544d0e66aab7bc763677c9610636d564dd30b8956ecf3a4f97edc9240fbfc57e";

async fn fail_as(kube: &RealKube, user: &str, manifests: &str, args: &[&str]) -> (Value, i32) {
    let home = Home::new();
    let mut command = run_as(kube, user, &home, args);
    command.args(["--provision", "auto", "--provision-manifests", manifests]);
    let mut stage = StageClient::start(command);
    let error = stage.wait_for("error").await["error"].clone();
    let (status, _) = stage.wait().await;
    cleanup(&home).await;
    assert_eq!(kube.infrastructure().await, Vec::<String>::new());
    (error, status.code().expect("an exit code"))
}

async fn fail(kube: &RealKube, manifests: &str, args: &[&str]) -> Value {
    fail_as(kube, STAGE, manifests, args).await.0
}

#[track_caller]
fn assert_error(error: &Value, code: &str, says: &[&str]) {
    assert_eq!(error["code"], code, "{error:#}");
    assert!(
        error["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
        "no hint: {error:#}"
    );
    for words in says {
        assert!(
            error.to_string().contains(words),
            "{words:?} is not in {error:#}"
        );
    }
}

/// Not needed: it has alternatives, or only the last session needs it.
const OPTIONAL: [(&str, &str); 2] = [("gateways", "watch"), ("pods", "watch")];
/// Needed only by users without the permissions that they grant.
const GIVING: [&str; 2] = ["escalate", "bind"];

/// These rules, each time without one verb on one resource.
fn one_less(rules: &[Value]) -> Vec<(String, String, Vec<Value>)> {
    let texts = |it: &Value| -> Vec<String> {
        let all = it
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        all.map(str::to_owned).collect()
    };
    let mut all = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        for resource in texts(&rule["resources"]) {
            for verb in texts(&rule["verbs"]) {
                let pair = (resource.as_str(), verb.as_str());
                // One rule has it for everything.
                if pair.1 == "list" && pair.0 != "*" {
                    continue;
                }
                if OPTIONAL.contains(&pair) || GIVING.contains(&pair.1) {
                    continue;
                }
                let (mut one, mut others) = (rule.clone(), rule.clone());
                one["resources"] = json!([resource]);
                one["verbs"]
                    .as_array_mut()
                    .expect("verbs")
                    .retain(|it| it != pair.1);
                let rest = others["resources"].as_array_mut().expect("resources");
                rest.retain(|it| it != pair.0);
                let mut lacking = rules.to_vec();
                lacking.splice(i..=i, [one, others]);
                lacking.retain(|it| it["verbs"] != json!([]) && it["resources"] != json!([]));
                all.push((resource.clone(), verb, lacking));
            }
        }
    }
    all
}

/// The changing requests of a stage, without those for the Lease, which is only the lock.
fn changes(kube: &RealKube) -> Vec<String> {
    changes_of(kube, STAGE)
}

fn changes_of(kube: &RealKube, user: &str) -> Vec<String> {
    let mut all = kube.requests(user);
    let reads = |it: &str| {
        ["get ", "list ", "watch "]
            .iter()
            .any(|verb| it.starts_with(verb))
    };
    all.retain(|it| !reads(it) && !it.contains("/selfsubject") && !it.contains("/leases"));
    all
}

/// Serves the manifests at `/yaml`, and redirects there from `/here`.
async fn serve(tasks: &mut JoinSet<()>, text: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("no port");
    let address = listener.local_addr().expect("an address");
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let text = text.clone();
            let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let response = match request.uri().path() {
                    "/yaml" => Response::new(Full::new(Bytes::from(text.clone()))),
                    "/here" => Response::builder()
                        .status(StatusCode::FOUND)
                        .header("location", "/yaml")
                        .body(Full::default())
                        .expect("a response"),
                    _ => Response::builder()
                        .status(StatusCode::NOT_FOUND)
                        .body(Full::default())
                        .expect("a response"),
                };
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer);
            connections.spawn(async move { drop(connection.await) });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn unexpected_manifests_are_refused_before_anything_changes() {
    let Some(kube) = real_kube().await else {
        return;
    };
    kube.uninstall().await;
    let home = Home::new();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).expect("cannot write");
        path.display().to_string()
    };
    let contour = kube.contour().display().to_string();
    let mut text = std::fs::read(kube.contour()).expect("Contour's manifests");
    let mut tasks = JoinSet::new();
    let server = serve(&mut tasks, text.clone()).await;
    text.push(b'\n');
    let changed = serve(&mut tasks, text).await;
    let digest = ["--provision-digest", DIGEST];
    for (manifests, args, code, says) in [
        (
            file("changed.yaml", "a: 1\n"),
            &digest[..],
            "gateway.manifest_digest",
            DIGEST,
        ),
        (
            format!("{changed}/yaml"),
            &digest[..],
            "gateway.manifest_digest",
            "does not match `provision_digest`",
        ),
        (
            format!("{server}/none"),
            &digest[..],
            "gateway.manifest_unavailable",
            "404",
        ),
        (
            home.path().join("none.yaml").display().to_string(),
            &[][..],
            "gateway.manifest_unavailable",
            "none.yaml",
        ),
        (
            file("broken.yaml", "---\n---\nb: [\n"),
            &[][..],
            "gateway.manifest_malformed",
            "broken.yaml:3:4",
        ),
        (
            file("page.yaml", "<html></html>\n"),
            &[][..],
            "gateway.manifest_malformed",
            "page.yaml:1:1",
        ),
        (
            file("empty.yaml", "---\n"),
            &[][..],
            "gateway.manifest_malformed",
            "no objects",
        ),
        (
            file(
                "unknown.yaml",
                "apiVersion: a.example/v1\nkind: A\nmetadata: {name: a}\n",
            ),
            &[][..],
            "gateway.manifest_unknown_kind",
            "no CRD of the manifests defines it",
        ),
    ] {
        let error = fail(&kube, &manifests, args).await;
        assert_error(&error, code, &[says]);
    }
    let unprotected = fail(&kube, &format!("{server}/yaml"), &[]).await;
    assert_error(
        &unprotected,
        "protocol.config",
        &["set `provision_digest`, or use https"],
    );
    let both = serde_json::to_string(&[&contour, &contour]).expect("a list");
    assert_error(
        &fail(&kube, &both, &[]).await,
        "gateway.manifest_malformed",
        &["occurs twice"],
    );
    assert_eq!(changes(&kube), Vec::<String>::new());

    // The right manifests are accepted over http and after a redirect.
    let mut args = digest.to_vec();
    args.extend(["--timeout", "1"]);
    let installed = fail(&kube, &format!("{server}/here"), &args).await;
    assert_error(&installed, "gateway.infrastructure_timeout", &[]);
}

#[tokio::test]
async fn a_controller_that_never_starts_ends_with_its_pods_reasons() {
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.uninstall().await;
    // What a kubelet reports that cannot pull the image.
    let client = kube.client();
    kube.spawn(async move {
        let ask = async |method: &str, path: &str, body: Value| {
            let request = http::Request::builder()
                .method(method)
                .uri(path)
                .header("content-type", if method == "PATCH" { "application/merge-patch+json" } else { "application/json" })
                .body(body.to_string().into_bytes())
                .expect("a request");
            client.request::<Value>(request).await.unwrap_or_default()
        };
        let deployment = format!("{}/contour-gateway-provisioner", in_namespace(DEPLOYMENTS, "projectcontour"));
        let pods = "/api/v1/namespaces/projectcontour/pods";
        let uid = loop {
            let uid = ask("GET", &deployment, Value::Null).await["metadata"]["uid"].clone();
            if !uid.is_null() {
                break uid;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "contour-gateway-provisioner", "uid": uid});
        let pod = json!({"metadata": {"name": "p", "ownerReferences": [owner], "labels": {"control-plane": "contour-gateway-provisioner"}},
            "spec": {"containers": [{"name": "c", "image": "i"}], "automountServiceAccountToken": false}});
        ask("POST", pods, pod).await;
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"i\""}});
        let status = json!({"phase": "Pending", "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": waiting}]});
        ask("PATCH", &format!("{pods}/p/status"), json!({"status": status})).await;
    });
    let manifests = kube.contour().display().to_string();
    let (error, exit) = fail_as(&kube, STAGE, &manifests, &["--timeout", "8"]).await;
    let says = [
        "did not accept GatewayClass devcluster-gateway within 8 s",
        "Pod projectcontour/p: container c: ImagePullBackOff: Back-off pulling image",
        "kubectl -n projectcontour logs deployment/contour-gateway-provisioner",
        "`devcluster-gateway cleanup` removes it",
    ];
    assert_error(&error, "gateway.infrastructure_timeout", &says);
    assert_eq!(exit, 7);
}

#[tokio::test]
async fn an_installation_that_another_session_takes_over_ends() {
    let Some(kube) = real_kube().await else {
        return;
    };
    kube.uninstall().await;
    let home = Home::new();
    let manifests = kube.contour().display().to_string();
    let mut command = run_as(&kube, STAGE, &home, &["--provision", "auto"]);
    command.args(["--provision-manifests", &manifests]);
    let mut stage = StageClient::start(command);
    let applied =
        |message: &Value| message["step"] == "provision" && message.to_string().contains("applied");
    stage.wait_until("the first object", applied).await;
    let lease = format!(
        "{}/devcluster-infrastructure",
        in_namespace(LEASES, "default")
    );
    kube.merge(&lease, &json!({"spec": {"holderIdentity": "another"}}))
        .await;
    let error = stage.wait_for("error").await["error"].clone();
    assert_error(
        &error,
        "gateway.infrastructure_busy",
        &["another session took over"],
    );
    assert_eq!(stage.wait().await.0.code(), Some(75));
    kube.merge(&lease, &json!({"spec": {"holderIdentity": ""}}))
        .await;
    cleanup(&home).await;
    assert_eq!(kube.infrastructure().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_channel_is_not_switched_and_an_older_release_is_not_installed_over_a_newer_one() {
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.uninstall().await;
    let manifests = kube.contour().display().to_string();
    for release in ["v1.5.1", "v1.6.1"] {
        kube.install(release, "standard").await;
        let error = fail(&kube, &manifests, &[]).await;
        assert_error(
            &error,
            "gateway.crd_channel",
            &["its Gateway API is of the standard channel", "admin"],
        );
        assert_eq!(changes(&kube), Vec::<String>::new());
    }
    kube.install("v1.6.1", "experimental").await;
    kube.start_provisioner();
    let before = kube.snapshot().await;
    let home = Home::new();
    let kubeconfig = write_kubeconfig(&home, "kubeconfig", &kube.kubeconfig(STAGE));
    let mut command = gateway_command(
        &home,
        "run",
        &["--provision", "auto", "--provision-manifests", &manifests],
    );
    command.arg("--kubeconfig").arg(kubeconfig);
    let mut stage = StageClient::start(command);
    stage.wait_for("ready").await;
    let after = kube.snapshot().await;
    for (at, spec) in before
        .iter()
        .filter(|(at, _)| at.contains("customresourcedefinitions"))
    {
        assert_eq!(
            after.iter().find(|(it, _)| it == at).map(|(_, spec)| spec),
            Some(spec),
            "{at}"
        );
    }
    stage.signal(rustix::process::Signal::KILL);
    stage.wait().await;
    cleanup(&home).await;
    assert_eq!(kube.infrastructure().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_role_for_installing_suffices_and_a_missing_verb_is_reported_before_anything_is_applied()
 {
    let Some(mut kube) = real_kube().await else {
        return;
    };
    kube.uninstall().await;
    let manifests = kube.contour().display().to_string();
    let rules = role("install");
    for (resource, verb, lacking) in one_less(&rules) {
        kube.grant(LIMITED, &lacking).await;
        let (error, _) = fail_as(&kube, LIMITED, &manifests, &[]).await;
        let words = format!("may not {verb} {resource}");
        assert_error(&error, "cluster.forbidden", &[&words]);
    }
    assert_eq!(changes_of(&kube, LIMITED), Vec::<String>::new());
    kube.grant(LIMITED, &rules).await;
    kube.start_provisioner();
    let home = Home::new();
    let kubeconfig = write_kubeconfig(&home, "kubeconfig", &kube.kubeconfig(LIMITED));
    let mut command = gateway_command(
        &home,
        "run",
        &["--provision", "auto", "--provision-manifests", &manifests],
    );
    command.arg("--kubeconfig").arg(kubeconfig);
    let mut stage = StageClient::start(command);
    stage.wait_for("ready").await;
    stage.signal(rustix::process::Signal::TERM);
    stage.wait().await;
    cleanup(&home).await;
    assert_eq!(kube.infrastructure().await, Vec::<String>::new());
}
