//! Where in the base the config of a stage is.

use protocol::Problem;
use protocol::yaml::Seg;
use serde_json::Value;

use crate::base::Base;
use crate::refusal::Refusal;

/// What kind of file the base is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    /// Path of the stage's config; empty when the file is that config.
    pub(crate) config: Vec<Seg>,
    /// devcluster expands `$` in the values of its own file.
    pub(crate) expands: bool,
    /// It is a Determined master's, whose fields are known.
    pub(crate) is_determined: bool,
}

impl Target {
    pub(crate) fn path(&self, below: &[Seg]) -> Vec<Seg> {
        [self.config.as_slice(), below].concat()
    }
}

/// A file with `stages` is a devcluster.yaml, any other mapping the config itself: an agent's or a master's.
pub(crate) fn find(base: &Base, stage: &str, known_fields: bool) -> Result<Target, Refusal> {
    let value = base.document.value();
    let Value::Object(top) = &value else {
        let message = "neither a devcluster.yaml nor a stage's config: it has to be a mapping";
        return Err(Refusal::new(
            "config_emit.base_not_config",
            "name a devcluster.yaml or a master's config with --base",
            [Problem::new("", message).at(&base.source, 0..1)],
        ));
    };
    let Some(stages) = top.get("stages") else {
        return Ok(Target {
            config: Vec::new(),
            expands: false,
            is_determined: known_fields,
        });
    };
    let items = stages.as_array().into_iter().flatten().enumerate();
    let mut configs = items.flat_map(|(i, item)| {
        let kinds = ["master", "agent"].into_iter();
        kinds.filter_map(move |kind| Some((i, kind, item.get(kind)?)))
    });
    let is_wanted = |kind: &str, body: &Value| {
        body.get("name").and_then(Value::as_str).unwrap_or(kind) == stage
    };
    let Some((index, kind, _)) = configs.find(|(_, kind, body)| is_wanted(kind, body)) else {
        let problem = Problem::key(
            "stages",
            format!("no master or agent stage named `{stage}`"),
        );
        return Err(Refusal::new(
            "config_emit.no_master_stage",
            "list a `- master:` stage, or name yours with --stage",
            [problem.in_document(&base.source, &base.document)],
        ));
    };
    Ok(Target {
        config: vec![
            "stages".into(),
            index.into(),
            kind.into(),
            "config_file".into(),
        ],
        expands: true,
        is_determined: kind == "master" && known_fields,
    })
}

/// There is nobody to tell about the cluster.
pub(crate) fn no_kubernetes(base: &Base, target: &Target) -> Refusal {
    let places: [&[Seg]; 2] = [
        &["resource_manager".into(), "type".into()],
        &["resource_manager".into()],
    ];
    let written = places.iter().map(|p| target.path(p));
    let path = written
        .into_iter()
        .find(|p| base.document.get(p).is_some())
        .unwrap_or_else(|| target.config.clone());
    let span = base.document.nearest_span(&path, false);
    let message =
        "the master's config has no resource_manager of type kubernetes to tell about the cluster";
    Refusal::new(
        "config_emit.no_kubernetes",
        "set `resource_manager: {type: kubernetes, …}` in the master's config_file",
        [Problem::new("", message).at(&base.source, span)],
    )
}
