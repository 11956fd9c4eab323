//! What reading a cluster leads to. Each of these is run on the real API and on the sandbox's stand-in, which has to answer
//! alike: else `make demo` would show what no cluster does.

use sandbox::kube_api::{KubeApi, seed};
use serde_json::{Value, json};
use support::gateway::{fail, outputs, run_with, stop};
use support::kube::{gateway_command, idle, start_kube, without_controller};
use support::kube_real::{CLASSES, GATEWAYS, RealKube, STAGE, in_namespace, path, real_kube};
use support::{DEADLINE, Home, StageClient};

use super::CONTOUR;

/// A cluster with the class `contour` and no Gateway, in which nothing happens by itself.
enum Cluster {
    StandIn(KubeApi),
    Real(RealKube),
}

impl Cluster {
    async fn stand_in() -> Cluster {
        let cluster = Cluster::StandIn(start_kube(without_controller(idle())).await);
        cluster.class("contour", CONTOUR).await;
        cluster
    }

    async fn real(test: &str) -> Option<Cluster> {
        let cluster = Cluster::Real(real_kube(test).await?);
        cluster.class("contour", CONTOUR).await;
        Some(cluster)
    }

    async fn class(&self, name: &str, controller: &str) {
        match self {
            Cluster::StandIn(api) => api.store().apply(seed::gateway_class(name, controller)),
            Cluster::Real(kube) => {
                let class = seed::gateway_class(name, controller);
                kube.create(CLASSES, &class).await;
                kube.merge(
                    &format!("{CLASSES}/{name}/status"),
                    &json!({"status": class["status"]}),
                )
                .await;
            }
        }
    }

    /// Puts a Gateway there with the status that a controller gave it, if there is one.
    async fn gateway(&self, gateway: Value) {
        match self {
            Cluster::StandIn(api) => api.store().apply(gateway),
            Cluster::Real(kube) => {
                let namespace = gateway["metadata"]["namespace"].as_str().expect("one");
                kube.namespace(namespace).await;
                let at = path(GATEWAYS, &gateway);
                if kube.get(&at).await.is_null() {
                    let mut bare = gateway.clone();
                    bare.as_object_mut().expect("an object").remove("status");
                    kube.create(&in_namespace(GATEWAYS, namespace), &bare).await;
                }
                kube.merge(
                    &format!("{at}/status"),
                    &json!({"status": gateway["status"]}),
                )
                .await;
            }
        }
    }

    async fn remove(&self, gateway: &Value) {
        match self {
            Cluster::StandIn(api) => {
                assert!(api.store().delete("gateways", "default", "tcp-gateway"));
            }
            Cluster::Real(kube) => kube.delete(&path(GATEWAYS, gateway)).await,
        }
    }

    fn kubeconfig(&self) -> Value {
        match self {
            Cluster::StandIn(api) => api.kubeconfig("sandbox"),
            Cluster::Real(kube) => kube.kubeconfig(STAGE),
        }
    }

    fn requests(&self) -> Vec<String> {
        match self {
            Cluster::StandIn(api) => api.store().requests(),
            Cluster::Real(kube) => kube.requests(STAGE),
        }
    }

    fn start(&self, home: &Home, args: &[&str]) -> StageClient {
        StageClient::start(run_with(&self.kubeconfig(), home, args))
    }
}

fn programmed(name: &str, class: &str, address: &str) -> Value {
    let mut gateway = seed::gateway("default", name, class);
    seed::program(&mut gateway, address);
    gateway
}

async fn it_waits_by_one_watch_until_the_gateway_works(cluster: &Cluster) {
    cluster
        .gateway(seed::gateway("default", "tcp-gateway", "contour"))
        .await;
    let home = Home::new();
    let mut stage = cluster.start(&home, &["--port-range", "40000-40009"]);
    stage
        .wait_until("the wait", |message| message["step"] == "wait")
        .await;
    let watches = || {
        let requests = cluster.requests();
        requests
            .into_iter()
            .filter(|it| it.contains("watch=true"))
            .count()
    };
    let watched = async {
        while watches() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, watched)
        .await
        .expect("no watch");
    assert!(!stage.has_said("ready"));
    cluster
        .gateway(programmed("tcp-gateway", "contour", "127.0.0.1"))
        .await;
    let outputs = outputs(&mut stage).await;
    assert_eq!(watches(), 1, "{:#?}", cluster.requests());
    assert_eq!(
        outputs["internal_task_gateway"],
        json!({
            "gateway_name": "tcp-gateway",
            "gateway_namespace": "default",
            "gateway_ip": "127.0.0.1",
            "gateway_port_range_start": 40000,
            "gateway_port_range_end": 40009,
        })
    );
    assert_eq!(outputs["controller"], CONTOUR);
    stop(stage).await;
}

async fn an_existing_gateway_takes_six_requests_and_the_access_reviews(cluster: &Cluster) {
    cluster
        .gateway(programmed("tcp-gateway", "contour", "127.0.0.1"))
        .await;
    let home = Home::new();
    let mut stage = cluster.start(&home, &[]);
    stage.wait_for("ready").await;
    let mut requests = cluster.requests();
    // The watch begins once the stage is ready.
    requests.retain(|request| !request.contains("fieldSelector=metadata.name"));
    let is_review = |it: &String| it.contains("selfsubjectaccessreviews");
    let (reviews, others): (Vec<_>, Vec<_>) = requests.iter().partition(|it| is_review(it));
    assert_eq!((reviews.len(), others.len()), (12, 6), "{requests:#?}");
    stop(stage).await;
    let last = cluster.requests().pop().expect("a request");
    assert!(
        last.to_lowercase().starts_with("delete") && last.contains("/leases/"),
        "{last}"
    );
}

async fn every_candidate_is_listed_with_its_reason_and_the_first_usable_one_is_taken(
    cluster: &Cluster,
) {
    cluster
        .class("traefik", "traefik.io/gateway-controller")
        .await;
    let mut without_address = programmed("b", "contour", "10.1.1.1");
    without_address["status"]["addresses"] = json!([]);
    for gateway in [
        programmed("a", "traefik", "10.1.1.1"),
        without_address,
        programmed("c", "none", "10.1.1.1"),
        programmed("tcp-gateway", "contour", "127.0.0.1"),
    ] {
        cluster.gateway(gateway).await;
    }
    let home = Home::new();
    let mut stage = cluster.start(&home, &[]);
    let outputs = outputs(&mut stage).await;
    assert_eq!(
        outputs["internal_task_gateway"]["gateway_name"],
        "tcp-gateway"
    );
    let stderr = stop(stage).await;
    for line in [
        "Gateway default/a: passed over: Traefik opens only the ports of its static entryPoints",
        "Gateway default/b: passed over: it has no address",
        "Gateway default/c: passed over: there is no GatewayClass none",
        "Gateway default/tcp-gateway: taken",
    ] {
        assert!(stderr.contains(line), "{line}\n{stderr}");
    }
}

async fn a_gateway_that_is_lost_is_reported_and_so_is_its_return_and_a_new_address(
    cluster: &Cluster,
) {
    let gateway = programmed("tcp-gateway", "contour", "127.0.0.1");
    cluster.gateway(gateway.clone()).await;
    let home = Home::new();
    let mut stage = cluster.start(&home, &[]);
    let first = stage.wait_for("ready").await["gen"].clone();

    cluster.remove(&gateway).await;
    let lost = stage.wait_for("degraded").await;
    assert_eq!(lost["error"]["code"], "gateway.deleted");
    let mut check = StageClient::start(gateway_command(&home, "check", &[]));
    assert_eq!(check.wait().await.0.code(), Some(5), "{}", check.stderr());
    cluster.gateway(gateway.clone()).await;
    assert_eq!(
        stage.wait_for("ready").await["gen"],
        first,
        "nothing has changed"
    );

    cluster
        .gateway(programmed("tcp-gateway", "contour", "lb.example.com"))
        .await;
    let moved = stage.wait_for("outputs").await;
    let block = &moved["outputs"]["internal_task_gateway"];
    assert_eq!(block["gateway_ip"], "lb.example.com");
    let generation = stage.wait_for("ready").await["gen"].as_u64();
    assert_eq!(generation, first.as_u64().map(|first| first + 1));

    let mut without_address = gateway;
    without_address["status"]["addresses"] = json!([]);
    cluster.gateway(without_address).await;
    let lost = stage.wait_for("degraded").await;
    assert_eq!(lost["error"]["code"], "gateway.no_address");
    stop(stage).await;
}

async fn what_is_not_there_or_never_works_is_told_apart(cluster: &Cluster) {
    let refused = async |args: &[&str]| {
        let home = Home::new();
        fail(cluster.start(&home, args)).await
    };
    cluster
        .gateway(seed::gateway("default", "tcp-gateway", "contour"))
        .await;
    for (args, code, says) in [
        (
            &["--gateway", "gone"][..],
            "gateway.not_found",
            "no Gateway gone in any namespace",
        ),
        (
            &["--gateway", "gone", "--gateway-namespace", "default"],
            "gateway.not_found",
            "no Gateway gone in namespace default",
        ),
        (
            &["--gateway-namespace", "empty"],
            "cluster.namespace_missing",
            "no namespace empty",
        ),
        (
            &["--timeout", "1"],
            "gateway.not_programmed",
            "Waiting for controller",
        ),
        (
            &["--gateway-class", "istio"],
            "gateway.none_usable",
            "its class is contour, not istio",
        ),
    ] {
        let error = refused(args).await;
        assert_eq!(error["code"], code, "{args:?}: {error:#}");
        assert!(error.to_string().contains(says), "{args:?}: {error:#}");
    }
}

/// A test of each body for each of the two.
macro_rules! on_both {
    ($($body:ident),+ $(,)?) => {
        mod stand_in {
            use super::Cluster;
            $(
                #[tokio::test]
                async fn $body() {
                    super::$body(&Cluster::stand_in().await).await;
                }
            )+
        }

        mod real {
            use super::Cluster;
            $(
                #[tokio::test]
                async fn $body() {
                    if let Some(cluster) = Cluster::real(stringify!($body)).await {
                        super::$body(&cluster).await;
                    }
                }
            )+
        }
    };
}

on_both!(
    it_waits_by_one_watch_until_the_gateway_works,
    an_existing_gateway_takes_six_requests_and_the_access_reviews,
    every_candidate_is_listed_with_its_reason_and_the_first_usable_one_is_taken,
    a_gateway_that_is_lost_is_reported_and_so_is_its_return_and_a_new_address,
    what_is_not_there_or_never_works_is_told_apart,
);
