//! The stand-in for the Kubernetes API, asked by the client library that the gateway stage uses.

use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams, WatchEvent, WatchParams};
use kube::core::GroupVersionKind;
use kube::runtime::watcher;
use kube::{Api, Client, Config};
use sandbox::kube_api::{Denied, KubeApi, Options, seed};

const DEADLINE: Duration = Duration::from_secs(30);

async fn start(options: Options) -> (KubeApi, Client) {
    let api = KubeApi::start(options).await.expect("a free port");
    let config = Config::new(api.url().parse().expect("its URL"));
    let client = Client::try_from(config).expect("a client");
    (api, client)
}

fn idle() -> Options {
    Options {
        programmed_after: None,
        ..Options::default()
    }
}

fn gateways(client: &Client) -> Api<DynamicObject> {
    let gateway = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway");
    Api::namespaced_with(client.clone(), "default", &ApiResource::from_gvk(&gateway))
}

#[tokio::test]
async fn a_gateway_becomes_programmed_after_a_moment_and_a_watch_sees_it() {
    let (_api, client) = start(Options {
        programmed_after: Some(Duration::from_millis(50)),
        ..idle()
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
    assert_eq!(
        gateway.data["status"]["listeners"][0]["supportedKinds"][0]["kind"],
        "TCPRoute"
    );
    assert_eq!(
        gateway.metadata.generation,
        Some(1),
        "a new status is no new generation"
    );
    assert!(gateway.metadata.uid.is_some() && gateway.metadata.creation_timestamp.is_some());
}

#[tokio::test]
async fn discovery_lists_what_is_served_and_only_that() {
    let absent = vec!["gateway.networking.k8s.io/v1alpha2".to_owned()];
    let (_api, client) = start(Options { absent, ..idle() }).await;
    let groups = client.list_api_groups().await.unwrap().groups;
    let gateway = groups
        .iter()
        .find(|group| group.name == "gateway.networking.k8s.io")
        .unwrap();
    assert_eq!(
        gateway
            .versions
            .iter()
            .map(|version| version.version.as_str())
            .collect::<Vec<_>>(),
        ["v1"]
    );
    let resources = client
        .list_api_group_resources("gateway.networking.k8s.io/v1")
        .await
        .unwrap()
        .resources;
    assert_eq!(
        resources
            .iter()
            .map(|resource| resource.name.as_str())
            .collect::<Vec<_>>(),
        ["gatewayclasses", "gateways"]
    );
    let error = client
        .list_api_group_resources("gateway.networking.k8s.io/v1alpha2")
        .await
        .unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.code == 404));
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
}

#[tokio::test]
async fn an_old_watch_is_told_that_its_version_is_gone() {
    let (api, client) = start(idle()).await;
    let version = gateways(&client)
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    api.store().forget_history();
    let mut events = pin!(
        gateways(&client)
            .watch(&WatchParams::default(), &version)
            .await
            .unwrap()
    );
    let event = tokio::time::timeout(DEADLINE, events.try_next())
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(event, Some(WatchEvent::Error(status)) if status.code == 410));
}

#[tokio::test]
async fn a_watch_that_has_had_its_time_ends_with_a_bookmark() {
    let (_api, client) = start(idle()).await;
    let params = WatchParams::default().timeout(1);
    let events = gateways(&client)
        .watch(&params, "0")
        .await
        .unwrap()
        .try_collect::<Vec<_>>();
    let events = tokio::time::timeout(DEADLINE, events)
        .await
        .unwrap()
        .unwrap();
    assert!(
        matches!(
            events.as_slice(),
            [WatchEvent::Added(_), WatchEvent::Bookmark(_)]
        ),
        "{events:?}"
    );
}

#[tokio::test]
async fn what_is_denied_is_refused_and_a_review_says_so_beforehand() {
    let denied = vec![Denied::everywhere("list", "gateways")];
    let (_api, client) = start(Options { denied, ..idle() }).await;
    let error = gateways(&client)
        .list(&ListParams::default())
        .await
        .unwrap_err();
    let kube::Error::Api(status) = error else {
        panic!("{error}")
    };
    assert_eq!(
        status.message,
        "gateways.gateway.networking.k8s.io is forbidden: User \"sandbox\" cannot list resource \"gateways\" in API \
         group \"gateway.networking.k8s.io\" in the namespace \"default\""
    );
    for (verb, expected) in [("list", false), ("get", true)] {
        let review = serde_json::from_value(serde_json::json!({
            "metadata": {},
            "spec": {"resourceAttributes": {
                "verb": verb, "group": "gateway.networking.k8s.io", "resource": "gateways", "namespace": "default",
            }},
        }))
        .unwrap();
        let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
        let review = reviews
            .create(&PostParams::default(), &review)
            .await
            .unwrap();
        assert_eq!(review.status.unwrap().allowed, expected, "{verb}");
    }
}

#[tokio::test]
async fn only_the_one_token_is_let_in() {
    let (api, client) = start(Options {
        token: Some("right".into()),
        ..idle()
    })
    .await;
    let error = gateways(&client).get("tcp-gateway").await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.code == 401));
    let kubeconfig = serde_json::from_value(api.kubeconfig("sandbox")).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default())
        .await
        .unwrap();
    gateways(&Client::try_from(config).unwrap())
        .get("tcp-gateway")
        .await
        .unwrap();
}

#[tokio::test]
async fn several_gateways_are_listed_by_namespace_and_by_name() {
    let mut options = idle();
    options
        .objects
        .push(seed::gateway("other", "tcp-gateway", "contour"));
    options
        .objects
        .push(seed::gateway("default", "second", "contour"));
    let (_api, client) = start(options).await;
    let names = |list: kube::core::ObjectList<DynamicObject>| {
        list.items
            .into_iter()
            .filter_map(|item| item.metadata.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(
            gateways(&client)
                .list(&ListParams::default())
                .await
                .unwrap()
        ),
        ["second", "tcp-gateway"]
    );
    let by_name = ListParams::default().fields("metadata.name=second");
    assert_eq!(
        names(gateways(&client).list(&by_name).await.unwrap()),
        ["second"]
    );
    let by_class = ListParams::default().fields("spec.gatewayClassName=contour");
    assert!(
        gateways(&client).list(&by_class).await.is_err(),
        "no apiserver selects custom resources by that"
    );
}
