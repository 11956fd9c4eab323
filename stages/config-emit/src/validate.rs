//! Reads the configs of masters in a devcluster.yaml, and assigns gateways to their resource managers.

use protocol::Problem;
use protocol::provides::TASK_GATEWAY;
use protocol::validate::{
    Answer, Instance, Listed, ManagerVerdict, Mistake, Request, Target, TargetVerdict, Unknown,
    Verdict, pointer_from_path,
};
use serde_json::Value;

use crate::assign::{Candidate, assign};
use crate::determined::{Manager, kubernetes};

/// Determined's default ports, with TLS and without.
const PORTS: (u16, u16) = (8443, 8080);

pub(crate) fn file(request: &Request, answer: &mut Answer) {
    answer.targets = request.targets.iter().map(target).collect();
    for (instance, verdict) in request.instances.iter().zip(&mut answer.instances) {
        let upstreams = request.upstreams(instance);
        verdict.waits_for = waits_for(instance, upstreams);
        let name = instance.config.get("stage").and_then(Value::as_str);
        let name = name.unwrap_or("master");
        let targets = request.targets.iter().zip(&mut answer.targets);
        for (target, target_verdict) in targets.filter(|(target, _)| target.stage == name) {
            assign_managers(instance, upstreams, verdict, target, target_verdict);
        }
    }
}

/// The upstreams that its config names, else all.
fn waits_for(instance: &Instance, upstreams: &[Listed]) -> Vec<String> {
    let all = upstreams.iter().map(|u| u.stage.clone());
    match instance.config.get("upstreams").and_then(Value::as_array) {
        Some(named) => all
            .filter(|name| named.contains(&name.as_str().into()))
            .collect(),
        None => all.collect(),
    }
}

fn target(target: &Target) -> TargetVerdict {
    let unknown = Unknown::from_pointers(&target.unknown);
    let config = &target.config;
    let tls = ["cert", "key"].map(|file| &config["security"]["tls"][file]);
    let tls = tls.iter().all(|file| file.is_string());
    let port = match &config["port"] {
        _ if unknown.has("port") => None,
        Value::Null if unknown.touches(&["security".into(), "tls".into()]) => None,
        Value::Null => Some(if tls { PORTS.0 } else { PORTS.1 }),
        // An invalid port is reported for the master.
        port => port.as_u64().and_then(|port| u16::try_from(port).ok()),
    };
    let managers = kubernetes(config);
    let managers = managers.iter().map(|manager| ManagerVerdict {
        name: manager.name().unwrap_or_default().to_owned(),
        upstream: None,
        namespace: namespace(manager, &unknown),
    });
    TargetVerdict {
        stage: target.stage.clone(),
        port,
        tls,
        managers: managers.collect(),
    }
}

/// Where the manager runs tasks, if nothing else is said for one of them.
fn namespace(manager: &Manager<'_>, unknown: &Unknown) -> Option<String> {
    const FIELD: &str = "default_namespace";
    if unknown.touches(&[manager.path.as_slice(), &[FIELD.into()]].concat()) {
        return None;
    }
    let set = manager.config[FIELD].as_str().filter(|it| !it.is_empty());
    Some(set.unwrap_or("default").to_owned())
}

/// Checks that each task gateway has a resource manager.
fn assign_managers(
    instance: &Instance,
    upstreams: &[Listed],
    verdict: &mut Verdict,
    target: &Target,
    target_verdict: &mut TargetVerdict,
) {
    let managers = kubernetes(&target.config);
    let unknown = Unknown::from_pointers(&target.unknown);
    let is_unresolved = |manager: &Manager<'_>| {
        let mut keys = ["type", "name", "cluster_name"].into_iter();
        keys.any(|key| unknown.touches(&[manager.path.as_slice(), &[key.into()]].concat()))
    };
    let unresolved = managers.iter().any(is_unresolved)
        || Unknown::from_pointers(&instance.unknown).has("resource_managers");
    if managers.is_empty() || unresolved {
        return;
    }
    let requested = instance.config.get("resource_managers");
    let gateways: Vec<Candidate<'_>> = upstreams
        .iter()
        .filter(|u| u.provides.contains_key(TASK_GATEWAY) && verdict.waits_for.contains(&u.stage))
        .map(|u| Candidate {
            instance: &u.stage,
            requested: requested.and_then(|w| w.get(&u.stage)?.as_str()),
        })
        .collect();
    match assign(&managers, &gateways) {
        Ok(assigned) => {
            for (manager, instance) in target_verdict.managers.iter_mut().zip(assigned) {
                if let Some(instance) = instance {
                    manager.upstream = Some(instance.to_owned());
                }
            }
        }
        Err(wrong) => {
            let wrong = wrong.into_iter().map(|(name, why)| Mistake {
                path: pointer_from_path(&["resource_managers".into(), name.into()]),
                ..Mistake::from(&Problem::new("", why))
            });
            verdict.problems.extend(wrong);
        }
    }
}
