//! Where in the base the master's config is, and in it the resource manager to tell.

use protocol::yaml::{Document, Seg};
use serde_json::Value;

use crate::determined;
use crate::render::RenderError;

/// What kind of file the base is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    /// Path of the master's config; empty when the file is that config.
    pub(crate) config: Vec<Seg>,
    /// devcluster expands `$` in the values of its own file.
    pub(crate) expands: bool,
}

impl Target {
    pub(crate) fn path(&self, below: &[Seg]) -> Vec<Seg> {
        [self.config.as_slice(), below].concat()
    }
}

/// A file with `stages` is a devcluster.yaml, any other mapping a master's config.
pub(crate) fn find(base: &Document, stage: &str) -> Result<Target, RenderError> {
    let value = base.value();
    let Value::Object(top) = &value else {
        return Err(RenderError::NotAConfig {
            at: base.locate(&[]),
        });
    };
    let Some(stages) = top.get("stages") else {
        return Ok(Target {
            config: Vec::new(),
            expands: false,
        });
    };
    let is_wanted = |item: &Value| {
        let master = item.get("master");
        master.is_some_and(|m| m.get("name").and_then(Value::as_str).unwrap_or("master") == stage)
    };
    let found = stages.as_array().and_then(|s| s.iter().position(is_wanted));
    let Some(index) = found else {
        return Err(RenderError::NoMasterStage {
            stage: stage.to_owned(),
            at: base.locate_key(&["stages".into()]),
        });
    };
    let config = [
        "stages".into(),
        index.into(),
        "master".into(),
        "config_file".into(),
    ];
    Ok(Target {
        config: config.to_vec(),
        expands: true,
    })
}

/// The path of the primary resource manager, if it is a Kubernetes one.
pub(crate) fn primary(base: &Document, target: &Target) -> Result<Vec<Seg>, RenderError> {
    let config = base.get(&target.config).unwrap_or(Value::Null);
    let mut managers = determined::managers(&config).into_iter();
    let primary = managers.find(|m| m.is_primary() && m.is_kubernetes());
    primary.map(|m| target.path(&m.path)).ok_or_else(|| {
        let places: [&[Seg]; 2] = [
            &["resource_manager".into(), "type".into()],
            &["resource_manager".into()],
        ];
        let at = places.iter().find_map(|p| base.locate(&target.path(p)));
        RenderError::NoKubernetes {
            at: at.or_else(|| nearest(base, &target.config)),
        }
    })
}

/// Where the value is, or else the innermost thing around it that is written.
pub(crate) fn nearest(base: &Document, path: &[Seg]) -> Option<protocol::yaml::Location> {
    (0..=path.len())
        .rev()
        .find_map(|n| base.locate_key(&path[..n]))
}
