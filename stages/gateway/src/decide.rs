//! Decides how a run gets its Gateway: one pure function for run, preflight and dry run.

mod choose;

use kube::ResourceExt;
use protocol::{Codes, StageError};

use self::choose::abandoned;
pub(crate) use self::choose::{Abandoned, Choice, choose};
use crate::codes;
use crate::config::{Config, Prefer};
use crate::manifests::CONTOUR;
use crate::objects::{ClassObject, is_accepted, is_installed, why_false};
use crate::survey::Survey;

/// Controllers that open any TCP port that a Gateway asks for, best known first.
const DYNAMIC: [&str; 2] = [CONTOUR, "gateway.envoyproxy.io/gatewayclass-controller"];

/// Errors that installing a controller fixes.
const FIXED_BY_PROVISIONING: Codes = &[
    codes::API_MISSING,
    codes::TCPROUTE_MISSING,
    codes::NONE,
    codes::NONE_USABLE,
    codes::NO_CLASS,
];

/// How a run gets its Gateway.
pub(crate) enum Action {
    Take(Box<Choice>),
    Make(Box<NewGateway>),
    /// Install a controller first; the error says what is missing without it.
    Install(StageError),
    Fail(StageError),
}

/// A Gateway to create.
pub(crate) struct NewGateway {
    pub(crate) class: ClassObject,
    /// A line for each existing Gateway, with the reason against it.
    pub(crate) rejected: Vec<String>,
}

/// The action of a run, and what a person may choose instead.
pub(crate) struct Decision {
    pub(crate) action: Action,
    /// Gateways that still have a dead master's ports, if no other one is used.
    pub(crate) abandoned: Vec<Abandoned>,
}

impl Action {
    /// The action if something is missing.
    pub(crate) fn from_missing(error: StageError, config: &Config) -> Self {
        if is_fixed_by_provisioning(&error, config) {
            Self::Install(error)
        } else {
            Self::Fail(error)
        }
    }
}

/// Whether installing a controller fixes this error.
pub(crate) fn is_fixed_by_provisioning(error: &StageError, config: &Config) -> bool {
    config.gateway.is_none()
        && config.gateway_class.is_none()
        && error.is_any(FIXED_BY_PROVISIONING)
}

pub(crate) fn decide(survey: &Survey, config: &Config) -> Decision {
    let only = |action| Decision {
        action,
        abandoned: Vec::new(),
    };
    let none = match choose(survey, config) {
        Ok(choice) if is_acceptable(survey, config, &choice) => {
            return only(Action::Take(Box::new(choice)));
        }
        Ok(_) => None,
        Err(none) if config.gateway.is_some() => return only(Action::Fail(none)),
        Err(none) => Some(none),
    };
    let abandoned = match config.prefer {
        Prefer::Existing => abandoned(survey, config),
        Prefer::Dedicated => Vec::new(),
    };
    let action = match choose_class(survey.classes.as_deref(), config) {
        Ok(class) => Action::Make(Box::new(NewGateway {
            class: class.clone(),
            rejected: none.map(|none| none.caused_by).unwrap_or_default(),
        })),
        // If no Gateway can be created either, the error is about the missing Gateway, not the class.
        Err(reasons) => {
            let mut error = none.unwrap_or_else(no_class);
            error.caused_by.extend(reasons);
            Action::from_missing(error, config)
        }
    };
    Decision { action, abandoned }
}

/// With `prefer: dedicated` only a named Gateway, or one of ours, is used.
fn is_acceptable(survey: &Survey, config: &Config, choice: &Choice) -> bool {
    config.prefer == Prefer::Existing || config.gateway.is_some() || survey.is_ours(&choice.gateway)
}

/// The class for a new Gateway, or a line for each reason against one.
fn choose_class<'a>(
    classes: Option<&'a [ClassObject]>,
    config: &Config,
) -> Result<&'a ClassObject, Vec<String>> {
    let Some(classes) = classes else {
        return Err(vec!["the user may not list GatewayClasses".to_owned()]);
    };
    let mut reasons = Vec::new();
    let mut usable = Vec::new();
    for class in classes {
        let name = class.name_any();
        match why_unsuitable(class, config) {
            None => usable.push(class),
            Some(reason) => reasons.push(format!(
                "GatewayClass {name}: not used for a new Gateway: {reason}"
            )),
        }
    }
    let rank = |class: &&ClassObject| {
        let known = |name: &&str| **name == class.spec.controller_name;
        (DYNAMIC.iter().position(known), class.metadata.name.clone())
    };
    usable.into_iter().min_by_key(rank).ok_or(reasons)
}

fn why_unsuitable(class: &ClassObject, config: &Config) -> Option<String> {
    let controller = &class.spec.controller_name;
    if config.gateway_class.is_some() && config.gateway_class != class.metadata.name {
        return Some("`gateway_class` names another one".to_owned());
    }
    if !is_accepted(class) {
        let status = class.status.as_ref();
        let why = status.and_then(|status| why_false(&status.conditions, "Accepted"));
        let unknown = || format!("its controller {controller} has not accepted it");
        return Some(why.unwrap_or_else(unknown));
    }
    // A class that the user names, and one of a controller that we installed, needs no such check.
    if config.gateway_class.is_none()
        && !is_installed(class)
        && !DYNAMIC.contains(&controller.as_str())
    {
        return Some(format!(
            "{controller} is not known to open ports by itself; set `gateway_class` to use it anyway"
        ));
    }
    None
}

fn no_class() -> StageError {
    let message = "no GatewayClass can provide a Gateway";
    StageError::new(codes::NO_CLASS, message)
}

#[cfg(test)]
mod tests;
