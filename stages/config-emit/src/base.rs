//! The file to start from, and what is to be put into it.

use std::path::Path;

use protocol::problem::Source;
use protocol::yaml::Document;
use protocol::{Exit, Problem, Reports, StageError, files};
use serde_json::{Map, Value};

use crate::values::Values;

/// The file to start from.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    /// What it says.
    pub document: Document,
    /// The same for messages.
    pub source: Source,
}

impl Base {
    /// Reads it.
    pub(crate) fn read(path: &Path) -> Result<Base, StageError> {
        let shown = path.display();
        let bytes = files::read_bytes(path).map_err(|e| {
        StageError::new("config_emit.base_unreadable", format!("cannot read the base {shown}"))
            .source(&e)
            .hint("name a devcluster.yaml, or the <temp_dir>/<stage>.conf that devcluster writes when it starts, with --base")
            .exit(Exit::Usage)
    })?;
        let not_yaml = || {
            StageError::new("config_emit.base_not_yaml", format!("cannot read {shown} as YAML"))
            .hint("mend that line: devcluster and Determined would not read the file either, or not as it is meant")
            .exit(Exit::Usage)
        };
        let text = String::from_utf8(bytes).map_err(|e| not_yaml().source(&e))?;
        let source = Source::new(path, &text);
        let document = Document::parse_as_pyyaml(&text);
        let document = document.map_err(|e| not_yaml().problems(vec![source.problem(&e)]))?;
        // devcluster takes the last of equal keys; Determined, which reads a config of its own, none.
        let own = document.value().get("stages").is_none();
        let twins = document.oddities().iter().filter(|odd| own && odd.twin);
        let twins = twins.map(|odd| Problem::new("", &odd.message).at(&source, odd.range.clone()));
        let twins: Vec<Problem> = twins.collect();
        if !twins.is_empty() {
            return Err(not_yaml().problems(twins));
        }
        Ok(Base { document, source })
    }
}

/// What to render.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// The stage whose config it is.
    pub stage: &'a str,
    /// What upstreams reported.
    pub reports: &'a Reports,
    /// What of it Determined's own fields get.
    pub values: &'a Values,
    /// The resource manager that a gateway is for, by instance.
    pub resource_managers: &'a Map<String, Value>,
    /// Whether the config is a Determined master's, whose fields are known.
    pub known_fields: bool,
}
