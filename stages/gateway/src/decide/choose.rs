//! Rates every Gateway with a reason, and chooses the first that fits.

use protocol::{Context, StageError, run_id};

use crate::Gateway;
use crate::codes;
use crate::config::Config;
use crate::objects::{self, ClassObject, GatewayObject, title, why_false};
use crate::survey::Survey;
use crate::usage::{Usage, Use};

/// Controllers that cannot open ports at run time.
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

/// A cluster may have thousands of Gateways; more lines than this are not readable.
pub(super) const SHOWN: usize = 20;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rating {
    Usable,
    /// It may become usable.
    Waiting(String),
    Unusable(String),
}

/// The chosen Gateway, and what to say about the others.
pub(crate) struct Choice {
    pub(crate) gateway: GatewayObject,
    pub(crate) controller: Option<String>,
    /// Whether devcluster-gateway installed its controller.
    pub(crate) provisioned: bool,
    /// A line for each candidate.
    pub(crate) lines: Vec<String>,
    /// Warnings about the chosen one.
    pub(crate) warnings: Vec<String>,
}

impl Choice {
    pub(crate) fn log(&self, cx: &Context<Gateway>) {
        self.lines.iter().for_each(|line| cx.info(line));
        self.warnings.iter().for_each(|line| cx.warn(line));
    }
}

/// A Gateway that could be used without the ports of a dead master.
pub(crate) struct Abandoned {
    pub(crate) title: String,
    pub(crate) left: String,
}

impl Abandoned {
    /// The question to a person.
    pub(crate) fn question(&self) -> String {
        format!("Gateway {}: {}. Use it?", self.title, self.left)
    }
}

/// Chooses a Gateway. That of our previous run stays ours, whatever our master left on it.
pub(crate) fn choose(survey: &Survey, config: &Config) -> Result<Choice, StageError> {
    let usage = &survey.usage;
    let is_ours = |gateway: &GatewayObject| survey.is_ours(gateway);
    let mut gateways: Vec<&GatewayObject> = survey.gateways.iter().collect();
    gateways.sort_by_cached_key(|gateway| (!is_ours(gateway), title(gateway)));
    let judge = |gateway: &&GatewayObject| judge(gateway, survey, config);
    let ratings: Vec<Rating> = gateways.iter().map(judge).collect();
    let rank = |at: &usize| {
        let is_used = !is_ours(gateways[*at]) && usage.of(gateways[*at]) != Use::None;
        (is_used, ratings[*at] != Rating::Usable)
    };
    let is_possible = |at: &usize| !matches!(ratings[*at], Rating::Unusable(_));
    let possible: Vec<usize> = (0..gateways.len()).filter(is_possible).collect();
    let Some(best) = possible.iter().map(rank).min() else {
        return Err(none_usable(&gateways, &ratings, config));
    };
    let best: Vec<usize> = possible.into_iter().filter(|at| rank(at) == best).collect();
    let pick = match usage.lost_a_race() {
        true => random(best.len()),
        false => 0,
    };
    let taken = best[pick];
    let lines = lines(&gateways, &ratings, Some(taken));
    let gateway = gateways[taken].clone();
    let warnings = warnings(&gateway, survey);
    let class = class_of(&gateway, survey);
    Ok(Choice {
        controller: class.map(|class| class.spec.controller_name.clone()),
        provisioned: class.is_some_and(objects::is_installed),
        gateway,
        lines,
        warnings,
    })
}

/// The Gateways that could be used without the ports of a dead master.
pub(super) fn abandoned(survey: &Survey, config: &Config) -> Vec<Abandoned> {
    let over = Config {
        take_over: true,
        ..config.clone()
    };
    let left = |gateway: &GatewayObject| match survey.usage.of(gateway) {
        Use::Leftovers(left) => Some(Abandoned {
            title: title(gateway),
            left,
        }),
        _ => None,
    };
    let gateways = survey.gateways.iter();
    gateways
        .filter(|it| !matches!(judge(it, survey, &over), Rating::Unusable(_)))
        .filter_map(left)
        .collect()
}

fn random(below: usize) -> usize {
    let random = u64::from_str_radix(&run_id(), 16).unwrap_or_default();
    random as usize % below
}

fn class_of<'a>(gateway: &GatewayObject, survey: &'a Survey) -> Option<&'a ClassObject> {
    let name = &gateway.spec.gateway_class_name;
    let mut classes = survey.classes.iter().flatten();
    classes.find(|class| class.metadata.name.as_ref() == Some(name))
}

fn judge(gateway: &GatewayObject, survey: &Survey, config: &Config) -> Rating {
    let is_ours = survey.is_ours(gateway);
    // Kubernetes deletes a Gateway of our own when the Lease that owns it is gone.
    let is_collected = title(gateway) == survey.own
        && survey.held.is_none()
        && gateway.metadata.owner_references.is_some();
    if is_collected || gateway.metadata.deletion_timestamp.is_some() {
        return Rating::Unusable("it is being deleted".to_owned());
    }
    let class = &gateway.spec.gateway_class_name;
    if let Some(requested) = config.gateway_class.as_ref().filter(|it| *it != class) {
        return Rating::Unusable(format!("its class is {class}, not {requested}"));
    }
    if let Some(reason) = class_problem(gateway, survey) {
        return Rating::Unusable(reason);
    }
    // The user's choice overrides the status.
    if config.gateway.is_none() && !is_ours && objects::takes_tcp(gateway) == Some(false) {
        return Rating::Unusable("none of its listeners supports TCPRoutes".to_owned());
    }
    if !is_ours && let Some(reason) = taken_by(gateway, &survey.usage, config) {
        return Rating::Unusable(reason);
    }
    match objects::address(gateway) {
        Ok(_) => Rating::Usable,
        Err(why) => Rating::Waiting(why.reason),
    }
}

/// A Gateway serves one master: a starting master deletes listeners that it does not know.
fn taken_by(gateway: &GatewayObject, usage: &Usage, config: &Config) -> Option<String> {
    match usage.of(gateway) {
        Use::Lost(who) => Some(who),
        Use::None => None,
        _ if config.take_over => None,
        Use::Leftovers(_) if config.gateway.is_some() => None,
        Use::Live(who) => Some(format!("{who}; set `take_over` to use it anyway")),
        Use::Leftovers(what) => Some(format!("{what}; set `take_over` to use it")),
    }
}

fn class_problem(gateway: &GatewayObject, survey: &Survey) -> Option<String> {
    let name = &gateway.spec.gateway_class_name;
    survey.classes.as_ref()?;
    let Some(class) = class_of(gateway, survey) else {
        return Some(format!("there is no GatewayClass {name}"));
    };
    let controller = &class.spec.controller_name;
    if let Some((_, reason)) = STATIC_PORTS.iter().find(|(known, _)| known == controller) {
        return Some((*reason).to_owned());
    }
    let reason = why_false(&class.status.as_ref()?.conditions, "Accepted")?;
    Some(format!("its GatewayClass {name} is not accepted: {reason}"))
}

fn lines(gateways: &[&GatewayObject], ratings: &[Rating], taken: Option<usize>) -> Vec<String> {
    let mut shown: Vec<usize> = (0..gateways.len().min(SHOWN)).collect();
    shown.extend(taken.filter(|taken| *taken >= SHOWN));
    let line = |at: &usize| line(gateways[*at], &ratings[*at], Some(*at) == taken);
    let mut lines: Vec<String> = shown.iter().map(line).collect();
    let others = gateways.len() - shown.len();
    lines.extend((others > 0).then(|| format!("and {others} other Gateways")));
    lines
}

fn line(gateway: &GatewayObject, rating: &Rating, taken: bool) -> String {
    let title = title(gateway);
    match (rating, taken) {
        (Rating::Usable, true) => format!("Gateway {title}: selected"),
        (Rating::Waiting(reason), true) => {
            format!("Gateway {title}: selected, not usable yet: {reason}")
        }
        (Rating::Usable, false) => {
            format!("Gateway {title}: also usable; set `gateway` to select it")
        }
        (Rating::Waiting(reason) | Rating::Unusable(reason), _) => {
            format!("Gateway {title}: skipped: {reason}")
        }
    }
}

fn warnings(gateway: &GatewayObject, survey: &Survey) -> Vec<String> {
    let mut warnings = Vec::new();
    let title = title(gateway);
    if objects::takes_tcp(gateway) == Some(false) {
        warnings.push(format!(
            "none of the listeners of Gateway {title} supports TCPRoutes, which Determined needs"
        ));
    }
    if let Use::Live(what) | Use::Leftovers(what) | Use::Lost(what) = survey.usage.of(gateway)
        && !survey.is_ours(gateway)
    {
        warnings.push(format!(
            "Gateway {title}: {what}; a starting master frees the ports that it does not know"
        ));
    }
    warnings
}

fn none_usable(gateways: &[&GatewayObject], ratings: &[Rating], config: &Config) -> StageError {
    let place = match &config.gateway_namespace {
        Some(namespace) => format!("namespace {namespace}"),
        None => "any namespace".to_owned(),
    };
    if gateways.is_empty() {
        let missing =
            |code, what: &str| StageError::new(code, format!("there is no {what} in {place}"));
        let error = match &config.gateway {
            Some(name) => missing(codes::NOT_FOUND, &format!("Gateway {name}")),
            None => missing(codes::NONE, "Gateway"),
        };
        return error;
    }
    let message = format!("no Gateway in {place} can be used");
    let mut error = StageError::new(codes::NONE_USABLE, message);
    error.caused_by = lines(gateways, ratings, None);
    error
}
