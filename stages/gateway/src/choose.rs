//! Which Gateway: every candidate gets a verdict with its reason, and the first that fits is taken.

use protocol::{Context, StageError, run_id};

use crate::objects::{self, ClassObject, GatewayObject, State, refusal, title};
use crate::provision;
use crate::rivals::{Rivals, Use};
use crate::stage::Gateway;
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

/// A cluster may have thousands of Gateways; more lines than this are read by nobody.
const SHOWN: usize = 20;

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
    /// Whether its controller was installed by us.
    pub(crate) provisioned: bool,
    /// A line for each candidate.
    pub(crate) lines: Vec<String>,
    /// What is odd about the one that was taken.
    pub(crate) warnings: Vec<String>,
}

impl Choice {
    pub(crate) fn tell(&self, cx: &Context<Gateway>) {
        self.lines.iter().for_each(|line| cx.info(line));
        self.warnings.iter().for_each(|line| cx.warn(line));
    }
}

/// `ours` is the Gateway of our run before, by `namespace/name`: it stays ours whatever our master left on it.
pub(crate) fn choose(
    survey: &Survey,
    wanted: &Wanted,
    ours: Option<&str>,
    rivals: &Rivals,
) -> Result<Choice, StageError> {
    let classes = survey.classes.as_deref();
    let is_ours = |gateway: &GatewayObject| ours.is_some_and(|ours| ours == title(gateway));
    let mut gateways: Vec<&GatewayObject> = survey.gateways.iter().collect();
    gateways.sort_by_cached_key(|gateway| (!is_ours(gateway), title(gateway)));
    let verdicts: Vec<Verdict> = gateways
        .iter()
        .map(|gateway| judge(gateway, classes, wanted, is_ours(gateway), rivals))
        .collect();
    let free = |at: &usize| is_ours(gateways[*at]) || rivals.with(gateways[*at]) == Use::None;
    let usable = |at: &usize| verdicts[*at] == Verdict::Usable;
    let waiting = |at: &usize| matches!(verdicts[*at], Verdict::Waiting(_));
    let places = || 0..gateways.len();
    let taken = first(rivals, places().filter(usable).filter(free))
        .or_else(|| first(rivals, places().filter(waiting).filter(free)))
        .or_else(|| places().find(usable))
        .or_else(|| places().find(waiting));
    let Some(taken) = taken else {
        return Err(none(&gateways, &verdicts, wanted));
    };
    let lines = lines(&gateways, &verdicts, Some(taken));
    let gateway = gateways.swap_remove(taken).clone();
    let warnings = warnings(&gateway, is_ours(&gateway), rivals);
    let class = class_of(&gateway, classes);
    let controller = class.map(|class| class.spec.controller_name.clone());
    let provisioned = class.is_some_and(provision::is_ours);
    Ok(Choice {
        gateway,
        controller,
        provisioned,
        lines,
        warnings,
    })
}

/// Gateways that could be taken but for what a dead master left on them, with what that is.
pub(crate) fn leftovers(
    survey: &Survey,
    wanted: &Wanted,
    rivals: &Rivals,
) -> Vec<(String, String)> {
    let over = Wanted {
        take_over: true,
        ..wanted.clone()
    };
    let classes = survey.classes.as_deref();
    let left = survey
        .gateways
        .iter()
        .filter_map(|gateway| match rivals.with(gateway) {
            Use::Leftovers(what) => Some((gateway, what)),
            _ => None,
        });
    left.filter(|(gateway, _)| {
        !matches!(
            judge(gateway, classes, &over, false, rivals),
            Verdict::Unusable(_)
        )
    })
    .map(|(gateway, what)| (title(gateway), what))
    .collect()
}

/// What a person is asked about one of them.
pub(crate) fn question(title: &str, left: &str) -> String {
    format!("Gateway {title}: {left}. Take it?")
}

fn first(rivals: &Rivals, mut candidates: impl Iterator<Item = usize>) -> Option<usize> {
    if !rivals.crowded() {
        return candidates.next();
    }
    let all: Vec<usize> = candidates.collect();
    let random = u64::from_str_radix(&run_id(), 16).ok()? as usize;
    all.get(random.checked_rem(all.len())?).copied()
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
    rivals: &Rivals,
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
    if wanted.name.is_none() && !ours && objects::takes_tcp(gateway) == Some(false) {
        return Verdict::Unusable("none of its listeners takes TCPRoutes".to_owned());
    }
    if !ours && let Some(reason) = rival(gateway, wanted, rivals) {
        return Verdict::Unusable(reason);
    }
    match objects::state(gateway) {
        State::Ready(_) => Verdict::Usable,
        State::NoAddress(reason) | State::NotProgrammed(reason) => Verdict::Waiting(reason),
    }
}

/// A Gateway is for one master: a starting one deletes listeners that it does not know.
fn rival(gateway: &GatewayObject, wanted: &Wanted, rivals: &Rivals) -> Option<String> {
    match rivals.with(gateway) {
        Use::Lost(who) => Some(who),
        Use::None => None,
        _ if wanted.take_over => None,
        Use::Leftovers(_) if wanted.name.is_some() => None,
        Use::Live(who) => Some(format!("{who}; `take_over` takes it all the same")),
        Use::Leftovers(what) => Some(format!("{what}; `take_over` takes it")),
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

fn lines(gateways: &[&GatewayObject], verdicts: &[Verdict], taken: Option<usize>) -> Vec<String> {
    let mut shown: Vec<usize> = (0..gateways.len().min(SHOWN)).collect();
    shown.extend(taken.filter(|taken| *taken >= SHOWN));
    let mut lines: Vec<String> = shown
        .iter()
        .map(|at| line(gateways[*at], &verdicts[*at], Some(*at) == taken))
        .collect();
    if gateways.len() > shown.len() {
        lines.push(format!(
            "and {} other Gateways",
            gateways.len() - shown.len()
        ));
    }
    lines
}

fn line(gateway: &GatewayObject, verdict: &Verdict, taken: bool) -> String {
    let title = title(gateway);
    match (verdict, taken) {
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

fn warnings(gateway: &GatewayObject, ours: bool, rivals: &Rivals) -> Vec<String> {
    let mut warnings = Vec::new();
    let title = title(gateway);
    if objects::takes_tcp(gateway) == Some(false) {
        warnings.push(format!(
            "none of the listeners of Gateway {title} takes TCPRoutes; Determined needs them"
        ));
    }
    if let (false, Use::Live(what) | Use::Leftovers(what) | Use::Lost(what)) =
        (ours, rivals.with(gateway))
    {
        warnings.push(format!(
            "Gateway {title}: {what}; a master that starts frees the ports that it does not know"
        ));
    }
    warnings
}

fn none(gateways: &[&GatewayObject], verdicts: &[Verdict], wanted: &Wanted) -> StageError {
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
    error.caused_by = lines(gateways, verdicts, None);
    error
}

#[cfg(test)]
mod tests;
