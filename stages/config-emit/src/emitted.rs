//! A result in the requested format.

use protocol::problem::colours;
use protocol::{Context, Reports, StageError};
use serde_json::{Map, Value};

use crate::base::Base;
use crate::config::{Config, ConfigEmit, Outputs};
use crate::render::render;
use crate::values::Values;
use crate::{file, format};

/// The text to write, and the outputs.
#[derive(Default)]
pub(crate) struct Emitted {
    pub(crate) text: String,
    values: Map<String, Value>,
    warnings: Vec<String>,
    /// The base and its rendered text, to show the difference.
    whole: Option<(Base, String)>,
}

impl Emitted {
    pub(crate) fn from_reports(
        cx: &Context<ConfigEmit>,
        config: &Config,
        reports: &Reports,
    ) -> Result<Emitted, StageError> {
        if config.out.is_none() {
            return Ok(Emitted::default());
        }
        let Some(path) = config.base.as_ref().filter(|_| config.format.needs_base()) else {
            let outputs = reports.iter();
            let outputs = outputs.map(|(name, u)| (name.clone(), u.outputs.clone().into()));
            let values = outputs.collect();
            return Ok(Emitted {
                text: format::format_outputs(&values, config.format)?,
                values,
                ..Emitted::default()
            });
        };
        let values = Values::from_reports(reports, config.names())?;
        let base = Base::read(path)?;
        let rendered = render(&base, config, reports, &values)?;
        let text = format::format_config(&rendered, config.format, &cx.env);
        let mut warnings = rendered.warnings;
        if rendered.values.is_empty() {
            warnings.push("no reported value is used: the config stays as in the base".into());
        }
        let whole = rendered.document.text().to_owned();
        Ok(Emitted {
            text,
            values: rendered.values,
            warnings,
            whole: (config.diff).then_some((base, whole)),
        })
    }

    /// Writes the result for the first time.
    pub(crate) fn deliver(
        &self,
        cx: &Context<ConfigEmit>,
        config: &Config,
    ) -> Result<(), StageError> {
        for warning in &self.warnings {
            cx.warn(warning.as_str());
        }
        self.show(cx, config);
        match config.file() {
            Some(path) => file::write(path, &self.text)?,
            None => cx.document(self.text.clone().into_bytes()),
        }
        Ok(())
    }

    /// Shows the difference to the base, if the config asks for it.
    pub(crate) fn show(&self, cx: &Context<ConfigEmit>, config: &Config) {
        let (Some((base, text)), Some(out)) = (&self.whole, &config.out) else {
            return;
        };
        let from = (base.path.as_path(), base.document.text());
        match file::diff(from, (out, text), colours()).as_str() {
            "" => cx.say("no difference to the base"),
            diff => cx.say(diff),
        }
    }

    pub(crate) fn outputs(self, config: &Config) -> Result<Outputs, StageError> {
        let absolute = |path: &std::path::Path| {
            let failed = |e| StageError::io(format!("cannot resolve {}", path.display()), &e);
            std::path::absolute(path).map_err(failed)
        };
        Ok(Outputs {
            path: config.file().map(absolute).transpose()?,
            stage: config.out.is_some().then(|| config.stage.clone()),
            values: self.values,
        })
    }
}
