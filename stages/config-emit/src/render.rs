//! The new text, from the base and the values. No file is touched here.

use protocol::yaml::{self, Document, Editor, Location, Seg, show};
use serde_json::{Map, Value};

use crate::determined::{Violation, violations};
use crate::target::{self, Target, nearest};
use crate::values::Values;

/// A rendered config.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The base with the values in it; every other byte is the base's.
    pub text: String,
    /// What was set, by its path in the master's config.
    pub values: Map<String, Value>,
}

/// Why there is no config; `at` is the place in the base.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum RenderError {
    #[error("neither a devcluster.yaml nor a master's config: it has to be a mapping")]
    NotAConfig { at: Option<Location> },
    #[error("no master stage named `{stage}`")]
    NoMasterStage { stage: String, at: Option<Location> },
    #[error(
        "the master's config has no resource_manager of type kubernetes to tell about the cluster"
    )]
    NoKubernetes { at: Option<Location> },
    #[error("{}", list(.0))]
    Refused(Vec<(Option<Location>, Violation)>),
    #[error("{}", .0.message)]
    CannotEdit(yaml::Error),
}

fn list(violations: &[(Option<Location>, Violation)]) -> String {
    let lines = violations.iter().map(|(at, violation)| match at {
        Some(at) => format!("line {}, column {}: {violation}", at.line, at.column),
        None => violation.to_string(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Sets the values in the config of the master `stage`, in a devcluster.yaml or in a config that is that master's own.
///
/// # Errors
/// There is no such master, it has no Kubernetes resource manager to tell, or Determined would refuse the result.
pub fn render(base: &Document, stage: &str, values: &Values) -> Result<Rendered, RenderError> {
    let target = target::find(base, stage)?;
    let mut set = Vec::new();
    if !values.is_empty() {
        let manager = target::primary(base, &target)?;
        set.extend(for_manager(&manager, values));
    }
    let mut editor = Editor::new(base);
    for (path, value) in &set {
        let value = match value {
            Value::String(text) if target.expands => Value::String(text.replace('$', "$$")),
            value => value.clone(),
        };
        editor.set(path, value).map_err(RenderError::CannotEdit)?;
    }
    let text = editor.finish().map_err(RenderError::CannotEdit)?;
    check(base, &target, &text)?;
    let below = |path: &[Seg]| show(&path[target.config.len()..]);
    Ok(Rendered {
        text,
        values: set
            .into_iter()
            .map(|(path, value)| (below(&path), value))
            .collect(),
    })
}

/// What a resource manager is told. Keys of its own that are not among these stay.
fn for_manager(manager: &[Seg], values: &Values) -> Vec<(Vec<Seg>, Value)> {
    let at = |keys: &[&str]| {
        let keys = keys.iter().map(|key| Seg::from(*key));
        manager.iter().cloned().chain(keys).collect::<Vec<_>>()
    };
    let mut set = Vec::new();
    if let Some(master) = &values.master {
        set.push((at(&["determined_master_host"]), master.host.clone().into()));
        set.push((at(&["determined_master_port"]), master.port.into()));
    }
    if let Some(gateway) = &values.gateway {
        for (key, value) in &gateway.internal_task_gateway {
            set.push((at(&["internal_task_gateway", key]), value.clone()));
        }
        if let Some(path) = &gateway.kubeconfig_path {
            set.push((at(&["kubeconfig_path"]), path.clone().into()));
        }
    }
    set
}

/// What Determined would refuse is refused here first.
fn check(base: &Document, target: &Target, text: &str) -> Result<(), RenderError> {
    let rendered = Document::parse(text).map_err(RenderError::CannotEdit)?;
    let config = rendered.get(&target.config).unwrap_or_default();
    let found = violations(&config).into_iter().filter(|violation| {
        // devcluster will put something else there.
        let value = rendered.get(&target.path(&violation.path));
        let unknown = value.is_some_and(|v| v.as_str().is_some_and(|s| s.contains('$')));
        !(target.expands && unknown)
    });
    let found: Vec<_> = found
        .map(|v| (nearest(base, &target.path(&v.path)), v))
        .collect();
    match found.is_empty() {
        true => Ok(()),
        false => Err(RenderError::Refused(found)),
    }
}
