//! Which Gateway: every candidate gets a verdict with its reason, and the first that fits is taken.

use protocol::StageError;

use crate::objects::{self, ClassObject, GatewayObject, State, refusal, title};
use crate::survey::{Survey, Wanted};

/// Controllers that cannot open a port while they run.
const STATIC_PORTS: [(&str, &str); 2] = [
    (
        "traefik.io/gateway-controller",
        "Traefik opens only the ports of its static entryPoints",
    ),
    (
        "konghq.com/kic-gateway-controller",
        "Kong's ingress controller opens only the stream ports that it was installed with",
    ),
];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Usable,
    /// It may become usable.
    Waiting(String),
    Unusable(String),
}

/// The Gateway, and what to tell of the others.
pub(crate) struct Choice {
    pub(crate) gateway: GatewayObject,
    pub(crate) controller: Option<String>,
    /// A line for each candidate.
    pub(crate) lines: Vec<String>,
    /// What is odd about the one that was taken.
    pub(crate) warnings: Vec<String>,
}

/// `ours` is the Gateway of our run before, by `namespace/name`: it stays ours whatever our master left on it.
pub(crate) fn choose(
    survey: Survey,
    wanted: &Wanted,
    ours: Option<&str>,
) -> Result<Choice, StageError> {
    let Survey {
        mut gateways,
        classes,
        ..
    } = survey;
    let is_ours = |gateway: &GatewayObject| ours.is_some_and(|ours| ours == title(gateway));
    gateways.sort_by_key(|gateway| (!is_ours(gateway), title(gateway)));
    let verdicts: Vec<Verdict> = gateways
        .iter()
        .map(|gateway| judge(gateway, classes.as_deref(), wanted, is_ours(gateway)))
        .collect();
    let taken = verdicts
        .iter()
        .position(|verdict| *verdict == Verdict::Usable)
        .or_else(|| {
            verdicts
                .iter()
                .position(|verdict| matches!(verdict, Verdict::Waiting(_)))
        });
    let Some(taken) = taken else {
        return Err(none(&gateways, &verdicts, wanted));
    };
    let lines = (0..gateways.len())
        .map(|at| line(&gateways, &verdicts, at, taken))
        .collect();
    let gateway = gateways.swap_remove(taken);
    let warnings = warnings(&gateway, is_ours(&gateway));
    let controller =
        class_of(&gateway, classes.as_deref()).map(|class| class.spec.controller_name.clone());
    Ok(Choice {
        gateway,
        controller,
        lines,
        warnings,
    })
}

fn class_of<'a>(
    gateway: &GatewayObject,
    classes: Option<&'a [ClassObject]>,
) -> Option<&'a ClassObject> {
    classes?
        .iter()
        .find(|class| class.metadata.name.as_ref() == Some(&gateway.spec.gateway_class_name))
}

fn judge(
    gateway: &GatewayObject,
    classes: Option<&[ClassObject]>,
    wanted: &Wanted,
    ours: bool,
) -> Verdict {
    if gateway.metadata.deletion_timestamp.is_some() {
        return Verdict::Unusable("it is being deleted".to_owned());
    }
    let class = &gateway.spec.gateway_class_name;
    if let Some(wanted) = wanted.class.as_ref().filter(|wanted| *wanted != class) {
        return Verdict::Unusable(format!("its class is {class}, not {wanted}"));
    }
    if let Some(reason) = class_problem(gateway, classes) {
        return Verdict::Unusable(reason);
    }
    // Who names a Gateway knows it better than its status does.
    if wanted.name.is_none() && !ours {
        if objects::takes_tcp(gateway) == Some(false) {
            return Verdict::Unusable("none of its listeners takes TCPRoutes".to_owned());
        }
        let ports = objects::determined_ports(gateway);
        if ports > 0 {
            return Verdict::Unusable(format!(
                "a Determined master uses it, or has left {ports} ports on it; name it in `gateway` if that master is yours"
            ));
        }
    }
    match objects::state(gateway) {
        State::Ready(_) => Verdict::Usable,
        State::NoAddress(reason) | State::NotProgrammed(reason) => Verdict::Waiting(reason),
    }
}

fn class_problem(gateway: &GatewayObject, classes: Option<&[ClassObject]>) -> Option<String> {
    let name = &gateway.spec.gateway_class_name;
    classes?;
    let Some(class) = class_of(gateway, classes) else {
        return Some(format!("there is no GatewayClass {name}"));
    };
    let controller = &class.spec.controller_name;
    if let Some((_, reason)) = STATIC_PORTS.iter().find(|(known, _)| known == controller) {
        return Some((*reason).to_owned());
    }
    let reason = refusal(&class.status.as_ref()?.conditions, "Accepted")?;
    Some(format!("its GatewayClass {name} is not accepted: {reason}"))
}

fn line(gateways: &[GatewayObject], verdicts: &[Verdict], at: usize, taken: usize) -> String {
    let title = title(&gateways[at]);
    match (&verdicts[at], at == taken) {
        (Verdict::Usable, true) => format!("Gateway {title}: taken"),
        (Verdict::Waiting(reason), true) => {
            format!("Gateway {title}: taken, though not usable yet: {reason}")
        }
        (Verdict::Usable, false) => format!("Gateway {title}: usable too; `gateway` chooses"),
        (Verdict::Waiting(reason) | Verdict::Unusable(reason), _) => {
            format!("Gateway {title}: passed over: {reason}")
        }
    }
}

fn warnings(gateway: &GatewayObject, ours: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    let title = title(gateway);
    if objects::takes_tcp(gateway) == Some(false) {
        warnings.push(format!(
            "none of the listeners of Gateway {title} takes TCPRoutes; Determined needs them"
        ));
    }
    let ports = objects::determined_ports(gateway);
    if ports > 0 && !ours {
        warnings.push(format!(
            "Gateway {title} has {ports} ports of a Determined master; a master that starts frees those that it does not know"
        ));
    }
    warnings
}

fn none(gateways: &[GatewayObject], verdicts: &[Verdict], wanted: &Wanted) -> StageError {
    let place = wanted.place();
    if gateways.is_empty() {
        let (code, message) = match &wanted.name {
            Some(name) => (
                "gateway.not_found",
                format!("there is no Gateway {name} in {place}"),
            ),
            None => ("gateway.none", format!("there is no Gateway in {place}")),
        };
        return StageError::new(code, message)
            .hint("`kubectl get gateways -A` lists those there are; one has to exist, of a class that takes TCPRoutes");
    }
    let mut error = StageError::new(
        "gateway.none_usable",
        format!("no Gateway in {place} can be used"),
    )
    .hint("mend one of them, or set `gateway`, `gateway_namespace` or `gateway_class`");
    for (at, _) in gateways.iter().enumerate() {
        error = error.cause(line(gateways, verdicts, at, usize::MAX));
    }
    error
}

#[cfg(test)]
mod tests {
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
        }
    }

    fn pick(
        gateways: Vec<Value>,
        wanted: &Wanted,
        ours: Option<&str>,
    ) -> Result<Choice, StageError> {
        choose(survey(gateways, "c/c"), wanted, ours)
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
                "Gateway n/a-used: passed over: a Determined master uses it, or has left 1 ports on it; name it in `gateway` \
             if that master is yours",
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
        let no_address = json!({"conditions": [{"type": "Programmed", "status": "True", "reason": "Programmed"}]});
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
        let error = choose(traefik, &Wanted::default(), None)
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
}
