//! The stage itself: wait for the upstreams, render, write, follow.

use std::path::Path;

use protocol::ledger::Entry;
use protocol::problem::colours;
use protocol::{Context, Exit, Problem, Reports, Stage, StageError, Undone};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::config::{self, Config, Outputs};
use crate::follow::Follower;
use crate::render::{Base, Request, render};
use crate::values::Values;
use crate::{file, form, preflight};

/// Writes the config of a later stage.
pub struct ConfigEmit;

impl Stage for ConfigEmit {
    const KIND: &'static str = "config-emit";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Writes the config of a later stage: takes a devcluster.yaml, or the config that devcluster wrote for a \
        master, and sets in it what the tunnel and the gateway found out. Everything else in the file stays as it is written. \
        Runs once, or stays and follows what the upstreams report. Two verbs of its own: `exec` becomes a command with values in \
        the places of its references, `restart` asks a running devcluster to restart stages; each has a --help.";
    const EXAMPLES: &'static str = "Examples:
  devcluster-config-emit once --base devcluster.yaml --out - --diff
  devcluster-config-emit once --format shell --out -
  devcluster-config-emit exec -- curl 'http://${{ tunnel.host }}:${{ tunnel.port }}/'
  devcluster-config-emit restart --control-socket /tmp/devcluster/sock master
  devcluster-tunnel … | devcluster-gateway --stdin chain … |
      devcluster-config-emit --stdin chain --base base.yaml --out out.yaml -- ./tests.sh";

    type Config = Config;
    type Outputs = Outputs;

    fn validate(config: &Config) -> Vec<Problem> {
        config::validate(config)
    }

    fn takes_stdout(config: &Config) -> bool {
        config.file().is_none()
    }

    fn summary(outputs: &Outputs) -> String {
        let count = outputs.values.len();
        let path = outputs.path.as_ref().map(|p| p.display().to_string());
        let path = path.unwrap_or_else(|| "stdout".to_owned());
        format!("config of {} in {path}, {count} values set", outputs.stage)
    }

    async fn run(cx: &Context<Self>, config: Config) -> Result<(), StageError> {
        let mut seen = tokio::select! {
            reports = wait(cx, &config) => reports?,
            () = cx.shutdown.cancelled() => return Ok(()),
        };
        let emitted = emitted(cx, &config, &seen)?;
        let mut follower = Follower::new(cx, &config);
        // With a devcluster whose stages may run already, a file that is there is what they have read.
        let begins = config.control_socket.is_none() || !config.file().is_some_and(Path::exists);
        let mut again = match begins {
            true => deliver(cx, &config, &emitted).map(|()| None)?,
            false => follower.act(&seen, &emitted).await?,
        };
        cx.ready(outputs(&config, &emitted)?).await?;
        loop {
            let at = again.unwrap_or_else(Instant::now);
            tokio::select! {
                reports = cx.upstream.changed(config.names(), &seen), if !config.wants_nobody() => {
                    seen = reports;
                    follower.forget();
                }
                () = tokio::time::sleep_until(at), if again.is_some() => {}
                () = cx.shutdown.cancelled() => return Ok(()),
            }
            let acted = async {
                let emitted = self::emitted(cx, &config, &seen)?;
                Ok((
                    follower.act(&seen, &emitted).await?,
                    outputs(&config, &emitted)?,
                ))
            };
            let acted = tokio::select! {
                acted = acted => acted,
                () = cx.shutdown.cancelled() => return Ok(()),
            };
            match acted {
                Ok((next, outputs)) => {
                    again = next;
                    cx.ready(outputs).await?;
                }
                Err(error) => {
                    again = None;
                    cx.degraded(error);
                }
            }
        }
    }

    async fn once(cx: &Context<Self>, config: Config) -> Result<Outputs, StageError> {
        let reports = wait(cx, &config).await?;
        let emitted = emitted(cx, &config, &reports)?;
        deliver(cx, &config, &emitted)?;
        outputs(&config, &emitted)
    }

    async fn check(
        cx: &Context<Self>,
        config: Option<Config>,
        outputs: Outputs,
    ) -> Result<(), StageError> {
        let Some(path) = outputs.path else {
            return Ok(());
        };
        let stale = |why: String| {
            Err(StageError::new("config_emit.stale", why)
                .hint("run config-emit again")
                .exit(Exit::CheckFailed))
        };
        if !path.is_file() {
            return stale(format!("{} is gone", path.display()));
        }
        if let Some(config) = config {
            let reports = match config.wants_nobody() {
                true => Reports::new(),
                false => cx.upstream.reports(config.names()),
            };
            if !file::is_written(&path, &emitted(cx, &config, &reports)?.text) {
                let why = format!("{} is not what would be written now", path.display());
                return stale(why);
            }
        }
        Ok(())
    }

    async fn preflight(cx: &Context<Self>, config: Config) {
        preflight::preflight(cx, &config);
    }

    /// The file was asked for and stays; half of one is never there.
    async fn undo(_cx: &Context<Self>, _entry: &Entry) -> Result<Undone, StageError> {
        Ok(Undone::Nothing)
    }
}

async fn wait(cx: &Context<ConfigEmit>, config: &Config) -> Result<Reports, StageError> {
    if config.wants_nobody() {
        return Ok(Reports::new());
    }
    let whom = match config.names() {
        [] => "the stages before this one".to_owned(),
        names => names.join(", "),
    };
    cx.progress("waiting", format!("waiting for {whom}"));
    let reports = cx.upstream.wait(config.names()).await?;
    if reports.is_empty() {
        return Err(StageError::new(
            "config_emit.no_upstream",
            format!("nobody runs in {}", cx.run_dir.path().display()),
        )
        .hint("start the tunnel or the gateway with the same --run-dir first, or name what to wait for with --upstreams")
        .exit(Exit::Upstream));
    }
    Ok(reports)
}

/// A result, in the form that was asked for.
pub(crate) struct Emitted {
    pub(crate) text: String,
    values: Map<String, Value>,
    warnings: Vec<String>,
    /// The base and the whole of it with the values, to show what differs.
    whole: Option<(Base, String)>,
}

fn emitted(
    cx: &Context<ConfigEmit>,
    config: &Config,
    reports: &Reports,
) -> Result<Emitted, StageError> {
    let Some(path) = config.base.as_ref().filter(|_| config.format.needs_base()) else {
        let outputs = reports
            .iter()
            .map(|(n, u)| (n.clone(), u.outputs.clone().into()));
        return Ok(Emitted {
            text: form::of_reports(reports, config.format)?,
            values: outputs.collect(),
            warnings: Vec::new(),
            whole: None,
        });
    };
    let values = Values::from_reports(reports, config.names())?;
    let base = file::read(path)?;
    let request = Request {
        stage: &config.stage,
        reports,
        values: &values,
        known_fields: config.known_fields,
        resource_managers: &config.resource_managers,
    };
    let rendered = render(&base, &request).map_err(|refusal| refusal.error(path))?;
    let mut warnings = rendered.warnings.clone();
    if rendered.values.is_empty() {
        warnings.push(
            "nothing that was reported is used: the config stays as it is in the base".into(),
        );
    }
    Ok(Emitted {
        text: form::of_config(&rendered, config.format, &cx.env),
        values: rendered.values.clone(),
        warnings,
        whole: config.diff.then(|| (base, rendered.text().to_owned())),
    })
}

/// Writes it for the first time.
fn deliver(cx: &Context<ConfigEmit>, config: &Config, emitted: &Emitted) -> Result<(), StageError> {
    for warning in &emitted.warnings {
        cx.warn(warning.as_str());
    }
    show(cx, config, emitted)?;
    match config.file() {
        Some(path) => file::write(path, &emitted.text)?,
        None => cx.document(emitted.text.clone().into_bytes()),
    }
    Ok(())
}

/// Shows what differs from the base, where that was asked for.
pub(crate) fn show(
    cx: &Context<ConfigEmit>,
    config: &Config,
    emitted: &Emitted,
) -> Result<(), StageError> {
    let (Some((base, text)), Some(path)) = (&emitted.whole, &config.base) else {
        return Ok(());
    };
    let diff = file::diff((path, base.document.text()), (&config.out, text), colours());
    match diff.is_empty() {
        true => cx.say("no difference to the base"),
        false => cx.say(&diff),
    }
    Ok(())
}

fn outputs(config: &Config, emitted: &Emitted) -> Result<Outputs, StageError> {
    let absolute = |path| {
        std::path::absolute(path)
            .map_err(|e| StageError::io(format!("cannot resolve {}", config.out.display()), &e))
    };
    Ok(Outputs {
        path: config.file().map(absolute).transpose()?,
        stage: config.stage.clone(),
        values: emitted.values.clone(),
    })
}
