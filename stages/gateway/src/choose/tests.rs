use serde_json::{Value, json};

use super::*;

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
    }
}

fn pick(gateways: Vec<Value>, wanted: &Wanted, ours: Option<&str>) -> Result<Choice, StageError> {
    choose(
        &survey(gateways, "c/c"),
        wanted,
        ours,
        &Rivals::of_leases([]),
    )
}

#[test]
fn the_first_usable_one_is_taken_and_every_candidate_has_its_reason() {
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
    let choice = pick(all, &Wanted::default(), None).unwrap();
    assert_eq!(objects::name(&choice.gateway), "d");
    assert_eq!(choice.controller.as_deref(), Some("c/c"));
    assert_eq!(
        choice.lines,
        [
            "Gateway n/a-used: passed over: a dead Determined master left 1 port (40000) on it; `take_over` takes it",
            "Gateway n/b-http: passed over: none of its listeners takes TCPRoutes",
            "Gateway n/c-pending: passed over: no controller has reported on it",
            "Gateway n/d: taken",
            "Gateway n/e: usable too; `gateway` chooses",
        ]
    );
}

#[test]
fn our_own_from_before_goes_before_the_others_whatever_is_left_on_it() {
    let mut own = gateway("z", works());
    own["metadata"]["annotations"] = json!({"determined.ai/det-gateway-port-40000": "x"});
    let choice = pick(
        vec![gateway("a", works()), own],
        &Wanted::default(),
        Some("n/z"),
    )
    .unwrap();
    assert_eq!(objects::name(&choice.gateway), "z");
    assert!(choice.warnings.is_empty());
}

#[test]
fn a_named_one_is_taken_with_a_warning_where_it_looks_odd() {
    let mut odd = gateway("a", works());
    odd["status"]["listeners"][0]["supportedKinds"] = json!([]);
    odd["metadata"]["annotations"] = json!({"determined.ai/det-gateway-port-40000": "x"});
    let wanted = Wanted {
        name: Some("a".into()),
        ..Wanted::default()
    };
    assert_eq!(pick(vec![odd], &wanted, None).unwrap().warnings.len(), 2);
}

#[test]
fn one_that_is_not_ready_is_waited_for_when_there_is_no_better() {
    let no_address =
        json!({"conditions": [{"type": "Programmed", "status": "True", "reason": "Programmed"}]});
    let choice = pick(vec![gateway("a", no_address)], &Wanted::default(), None).unwrap();
    assert_eq!(
        choice.lines,
        ["Gateway n/a: taken, though not usable yet: it has no address"]
    );
}

#[test]
fn when_none_is_usable_the_error_says_why_of_each() {
    let wanted = Wanted {
        class: Some("istio".into()),
        ..Wanted::default()
    };
    let error = pick(vec![gateway("a", works())], &wanted, None)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.code, "gateway.none_usable");
    assert_eq!(
        error.caused_by,
        ["Gateway n/a: passed over: its class is contour, not istio"]
    );
    let traefik = survey(vec![gateway("a", works())], "traefik.io/gateway-controller");
    let error = choose(&traefik, &Wanted::default(), None, &Rivals::of_leases([]))
        .map(|_| ())
        .unwrap_err();
    assert!(
        error.caused_by[0].contains("static entryPoints"),
        "{:?}",
        error.caused_by
    );
}

#[test]
fn nothing_there_and_nothing_of_that_name_are_told_apart() {
    let code = |wanted: &Wanted| pick(Vec::new(), wanted, None).map(|_| ()).unwrap_err().code;
    assert_eq!(code(&Wanted::default()), "gateway.none");
    assert_eq!(
        code(&Wanted {
            name: Some("x".into()),
            ..Wanted::default()
        }),
        "gateway.not_found"
    );
}

#[test]
fn one_that_another_session_holds_is_taken_over_only_on_request_and_only_when_no_other_is_free() {
    let lease = json!({
        "metadata": {"namespace": "n", "name": "devcluster-gateway-a"},
        "spec": {"holderIdentity": "eve/gateway/1"},
    });
    let lease = [serde_json::from_value(lease).unwrap()];
    let pick = |names: &[&str], take_over| {
        let gateways = names.iter().map(|name| gateway(name, works())).collect();
        let wanted = Wanted {
            take_over,
            ..Wanted::default()
        };
        let rivals = Rivals::of_leases(&lease);
        choose(&survey(gateways, "c/c"), &wanted, None, &rivals)
            .map(|choice| objects::name(&choice.gateway).to_owned())
    };
    assert_eq!(pick(&["a", "b"], false).unwrap(), "b");
    assert_eq!(pick(&["a", "b"], true).unwrap(), "b");
    assert_eq!(pick(&["a"], true).unwrap(), "a");
    let held = pick(&["a"], false).unwrap_err();
    assert!(held.caused_by[0].contains("eve/gateway/1"), "{held:?}");
}

#[test]
fn of_thousands_only_the_first_and_the_taken_one_are_shown() {
    let mut all: Vec<Value> = (0..2000)
        .map(|i| gateway(&format!("a{i:04}"), json!({})))
        .collect();
    all.push(gateway("z", works()));
    let lines = pick(all, &Wanted::default(), None).unwrap().lines;
    assert_eq!(lines.len(), SHOWN + 2);
    assert_eq!(lines[SHOWN], "Gateway n/z: taken");
    assert_eq!(lines[SHOWN + 1], "and 1980 other Gateways");
}
