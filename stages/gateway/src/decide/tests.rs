use serde_json::{Value, json};

use super::choose::SHOWN;
use super::*;
use crate::objects;
use crate::owned::Owned;
use crate::usage::Usage;

fn gateway(name: &str, status: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"namespace": "n", "name": name},
        "spec": {"gatewayClassName": "contour", "listeners": [{"name": "a", "port": 80, "protocol": "TCP"}]},
        "status": status,
    })
}

fn works() -> Value {
    json!({
        "addresses": [{"type": "IPAddress", "value": "10.0.0.1"}],
        "conditions": [{"type": "Programmed", "status": "True", "reason": "Programmed"}],
        "listeners": [{"name": "a", "supportedKinds": [{"kind": "TCPRoute"}]}],
    })
}

fn survey(gateways: Vec<Value>, controller: &str) -> Survey {
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": "contour"},
        "spec": {"controllerName": controller},
    });
    Survey {
        gateways: gateways
            .into_iter()
            .map(|gateway| serde_json::from_value(gateway).unwrap())
            .collect(),
        classes: Some(vec![serde_json::from_value(class).unwrap()]),
        max_listeners: 64,
        leases: Vec::new(),
        usage: Usage::from_leases([]),
        previous: Vec::new(),
        own: "n/devcluster-0".to_owned(),
        held: None,
    }
}

fn config(value: Value) -> Config {
    serde_json::from_value(value).unwrap()
}

/// A Gateway of an earlier run, with a port of task `x`.
fn previous(title: &str) -> Owned {
    let (namespace, gateway) = title.split_once('/').unwrap();
    let owned = json!({"namespace": namespace, "gateway": gateway, "allocations": ["x"]});
    serde_json::from_value(owned).unwrap()
}

fn pick(gateways: Vec<Value>, config: &Config, ours: Option<&str>) -> Result<Choice, StageError> {
    let mut survey = survey(gateways, "c/c");
    survey.previous.extend(ours.map(previous));
    choose(&survey, config)
}

#[test]
fn the_first_usable_gateway_is_selected_and_every_candidate_has_its_reason() {
    let mut http = gateway("b-http", works());
    http["status"]["listeners"][0]["supportedKinds"][0]["kind"] = "HTTPRoute".into();
    let mut used = gateway("a-used", works());
    used["metadata"]["annotations"] = json!({"determined.ai/det-gateway-port-40000": "x"});
    let pending = gateway("c-pending", json!({}));
    let all = vec![
        gateway("e", works()),
        gateway("d", works()),
        pending,
        http,
        used,
    ];
    let choice = pick(all, &config(json!({})), None).unwrap();
    assert_eq!(objects::name(&choice.gateway), "d");
    assert_eq!(choice.controller.as_deref(), Some("c/c"));
    assert_eq!(
        choice.lines,
        [
            "Gateway n/a-used: skipped: a dead Determined master left 1 port (40000) on it; set `take_over` to use it",
            "Gateway n/b-http: skipped: none of its listeners supports TCPRoutes",
            "Gateway n/c-pending: skipped: no controller has reported on it",
            "Gateway n/d: selected",
            "Gateway n/e: also usable; set `gateway` to select it",
        ]
    );
}

#[test]
fn our_previous_gateway_is_first_whatever_is_left_on_it() {
    let mut own = gateway("z", works());
    own["metadata"]["annotations"] = json!({"determined.ai/det-gateway-port-40000": "x"});
    let choice = pick(
        vec![gateway("a", works()), own],
        &config(json!({})),
        Some("n/z"),
    )
    .unwrap();
    assert_eq!(objects::name(&choice.gateway), "z");
    assert!(choice.warnings.is_empty());
}

#[test]
fn a_named_gateway_is_selected_with_warnings() {
    let mut odd = gateway("a", works());
    odd["status"]["listeners"][0]["supportedKinds"] = json!([]);
    odd["metadata"]["annotations"] = json!({"determined.ai/det-gateway-port-40000": "x"});
    let named = config(json!({"gateway": "a"}));
    assert_eq!(pick(vec![odd], &named, None).unwrap().warnings.len(), 2);
}

#[test]
fn without_a_ready_gateway_one_that_is_not_ready_is_selected() {
    let no_address =
        json!({"conditions": [{"type": "Programmed", "status": "True", "reason": "Programmed"}]});
    let choice = pick(vec![gateway("a", no_address)], &config(json!({})), None).unwrap();
    assert_eq!(
        choice.lines,
        ["Gateway n/a: selected, not usable yet: it has no address"]
    );
}

#[test]
fn when_none_is_usable_the_error_has_a_reason_for_each() {
    let istio = config(json!({"gateway_class": "istio"}));
    let error = pick(vec![gateway("a", works())], &istio, None)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.code, "gateway.none_usable");
    assert_eq!(
        error.caused_by,
        ["Gateway n/a: skipped: its class is contour, not istio"]
    );
    let traefik = survey(vec![gateway("a", works())], "traefik.io/gateway-controller");
    let error = choose(&traefik, &config(json!({})))
        .map(|_| ())
        .unwrap_err();
    assert!(
        error.caused_by[0].contains("static entryPoints"),
        "{:?}",
        error.caused_by
    );
}

#[test]
fn no_gateway_and_no_gateway_of_that_name_are_different_errors() {
    let code = |config: &Config| pick(Vec::new(), config, None).map(|_| ()).unwrap_err().code;
    assert_eq!(code(&config(json!({}))), "gateway.none");
    assert_eq!(code(&config(json!({"gateway": "x"}))), "gateway.not_found");
}

#[test]
fn another_sessions_gateway_is_taken_over_only_on_request_and_only_if_none_is_free() {
    let lease = json!({
        "metadata": {"namespace": "n", "name": "devcluster-gateway-a"},
        "spec": {"holderIdentity": "eve/gateway/1"},
    });
    let lease = [serde_json::from_value(lease).unwrap()];
    let pick = |names: &[&str], take_over| {
        let gateways = names.iter().map(|name| gateway(name, works())).collect();
        let mut survey = survey(gateways, "c/c");
        survey.usage = Usage::from_leases(&lease);
        // The previous Gateway is no longer ours.
        survey.previous = vec![previous("n/a")];
        choose(&survey, &config(json!({"take_over": take_over})))
            .map(|choice| objects::name(&choice.gateway).to_owned())
    };
    assert_eq!(pick(&["a", "b"], false).unwrap(), "b");
    assert_eq!(pick(&["a", "b"], true).unwrap(), "b");
    assert_eq!(pick(&["a"], true).unwrap(), "a");
    let held = pick(&["a"], false).unwrap_err();
    assert!(held.caused_by[0].contains("eve/gateway/1"), "{held:?}");
}

#[test]
fn of_thousands_only_the_first_and_the_selected_one_are_shown() {
    let mut all: Vec<Value> = (0..2000)
        .map(|i| gateway(&format!("a{i:04}"), json!({})))
        .collect();
    all.push(gateway("z", works()));
    let lines = pick(all, &config(json!({})), None).unwrap().lines;
    assert_eq!(lines.len(), SHOWN + 2);
    assert_eq!(lines[SHOWN], "Gateway n/z: selected");
    assert_eq!(lines[SHOWN + 1], "and 1980 other Gateways");
}

#[test]
fn a_gateway_is_created_of_an_accepted_class_and_otherwise_a_controller_is_missing() {
    let decided = |survey: &Survey, value| match decide(survey, &config(value)).action {
        Action::Take(choice) => format!("take {}", objects::name(&choice.gateway)),
        Action::Make(make) => format!("make {}", make.class.metadata.name.unwrap()),
        Action::Install(error) => format!("install {}", error.code),
        Action::Fail(error) => format!("fail {}", error.code),
    };
    let mut contour = survey(vec![gateway("a", works())], CONTOUR);
    let dedicated = json!({"prefer": "dedicated"});
    assert_eq!(decided(&contour, json!({})), "take a");
    let without = decide(&contour, &config(dedicated.clone())).action;
    assert!(matches!(without, Action::Install(error) if error.code == "gateway.no_class"));
    contour.held = Some("n/a".to_owned());
    assert_eq!(decided(&contour, dedicated.clone()), "take a");
    contour.held = None;
    let accepted = json!({"conditions": [{"type": "Accepted", "status": "True"}]});
    let class = &mut contour.classes.as_mut().unwrap()[0];
    class.status = Some(serde_json::from_value(accepted).unwrap());
    assert_eq!(decided(&contour, dedicated), "make contour");
    contour.gateways.clear();
    assert_eq!(decided(&contour, json!({})), "make contour");
    assert_eq!(
        decided(&contour, json!({"gateway": "b"})),
        "fail gateway.not_found"
    );
    assert_eq!(
        decided(&contour, json!({"gateway_class": "d"})),
        "fail gateway.none"
    );
    contour.classes = None;
    assert_eq!(decided(&contour, json!({})), "install gateway.none");
}
