//! The stand-in for the Kubernetes API, with the client library of the gateway stage.

use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::runtime::watcher;
use kube::{Api, Client, Config};
use sandbox::kube_api::{KubeApi, Options, seed};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(10);

async fn start(options: Options) -> (KubeApi, Client) {
    let api = KubeApi::start(options).await.expect("a free port");
    let config = Config::new(api.url().parse().expect("its URL"));
    let client = Client::try_from(config).expect("a client");
    (api, client)
}

fn gateways(client: &Client) -> Api<DynamicObject> {
    let gateway = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway");
    Api::namespaced_with(client.clone(), "default", &ApiResource::from_gvk(&gateway))
}

#[tokio::test]
async fn a_gateway_becomes_programmed_after_a_moment_and_a_watch_sees_it() {
    let (_api, client) = start(Options {
        programmed_after: Some(Duration::from_millis(50)),
        ..Options::default()
    })
    .await;
    let mut events = pin!(watcher::watch_object(gateways(&client), "tcp-gateway"));
    let programmed = async {
        loop {
            let gateway = events.try_next().await.unwrap().unwrap().unwrap();
            if gateway.data["status"]["addresses"][0]["value"] == "127.0.0.1" {
                return gateway;
            }
        }
    };
    let gateway = tokio::time::timeout(DEADLINE, programmed).await.unwrap();
    let listener = &gateway.data["status"]["listeners"][0];
    assert_eq!(listener["supportedKinds"][0]["kind"], "TCPRoute");
    // A new status does not change the generation.
    assert_eq!(gateway.metadata.generation, Some(1));
    assert!(gateway.metadata.uid.is_some() && gateway.metadata.creation_timestamp.is_some());
}

#[tokio::test]
async fn gateways_are_listed_by_namespace_and_by_name() {
    let mut options = Options::default();
    for (namespace, name) in [("other", "tcp-gateway"), ("default", "second")] {
        let gateway = seed::gateway(namespace, name, "contour");
        options.objects.push(gateway);
    }
    let (_api, client) = start(options).await;
    let named = ListParams::default().fields("metadata.name=second");
    for (listed, expected) in [
        (ListParams::default(), &["tcp-gateway", "second"][..]),
        (named, &["second"]),
    ] {
        let list = gateways(&client).list(&listed).await.unwrap();
        let names = list.items.into_iter().filter_map(|it| it.metadata.name);
        assert_eq!(names.collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn a_lease_is_created_once_and_changed_only_with_its_current_version() {
    let (_api, client) = start(Options::default()).await;
    let leases: Api<Lease> = Api::namespaced(client, "default");
    let lease = json!({"metadata": {"name": "mine"}, "spec": {"holderIdentity": "me"}});
    let lease: Lease = serde_json::from_value(lease).unwrap();
    let code = |error: kube::Error| match error {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("{other}"),
    };
    let params = PostParams::default();
    let first = leases.create(&params, &lease).await.unwrap();
    let second = leases.create(&params, &lease).await.map_err(code);
    assert_eq!(second, Err((409, "AlreadyExists".to_owned())));
    let now = leases.replace("mine", &params, &first).await.unwrap();
    let stale = leases.replace("mine", &params, &first).await.map_err(code);
    assert_eq!(stale, Err((409, "Conflict".to_owned())));
    let as_read = |lease: &Lease| DeleteParams {
        preconditions: Some(Preconditions {
            uid: lease.metadata.uid.clone(),
            resource_version: lease.metadata.resource_version.clone(),
        }),
        ..DeleteParams::default()
    };
    let stale = leases.delete("mine", &as_read(&first)).await;
    assert_eq!(
        stale.map(drop).map_err(code),
        Err((409, "Conflict".to_owned()))
    );
    leases.delete("mine", &as_read(&now)).await.unwrap();
    assert!(leases.get_opt("mine").await.unwrap().is_none());
}
