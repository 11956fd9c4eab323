//! The stage itself: wait for the upstreams, render, write, follow.

use protocol::ledger::Entry;
use protocol::{Context, Exit, Problem, Reports, Stage, StageError, Undone};

use crate::config::{self, Config, Outputs};
use crate::file;
use crate::render::{Rendered, render};
use crate::values::Values;

/// Writes the config of a later stage.
pub struct ConfigEmit;

impl Stage for ConfigEmit {
    const KIND: &'static str = "config-emit";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Writes the config of a later stage: takes a devcluster.yaml, or the config that devcluster wrote for a \
        master, and sets in it what the tunnel and the gateway found out. Everything else in the file stays as it is written. \
        Runs once, or stays and writes the file afresh when an upstream reports something new.";
    const EXAMPLES: &'static str = "Examples:
  devcluster-config-emit once --base devcluster.yaml --out - --diff
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
        let mut written = emit(cx, &config, &seen)?;
        cx.ready(outputs(&config, &written)?).await?;
        loop {
            seen = tokio::select! {
                reports = cx.upstream.changed(config.names(), &seen), if !config.wants_nobody() => reports,
                () = cx.shutdown.cancelled() => return Ok(()),
            };
            match follow(cx, &config, &seen, &written) {
                Ok(rendered) => {
                    written = rendered;
                    cx.ready(outputs(&config, &written)?).await?;
                }
                Err(error) => cx.degraded(error),
            }
        }
    }

    async fn once(cx: &Context<Self>, config: Config) -> Result<Outputs, StageError> {
        let reports = wait(cx, &config).await?;
        let rendered = emit(cx, &config, &reports)?;
        outputs(&config, &rendered)
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
            if !file::is_written(&path, &rendered(&config, &reports)?.text) {
                let why = format!("{} is not what would be written now", path.display());
                return stale(why);
            }
        }
        Ok(())
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

fn rendered(config: &Config, reports: &Reports) -> Result<Rendered, StageError> {
    let values = Values::from_reports(reports)?;
    let base = file::read(&config.base)?;
    render(&base, &config.stage, &values).map_err(|e| file::explain(&config.base, e))
}

fn emit(
    cx: &Context<ConfigEmit>,
    config: &Config,
    reports: &Reports,
) -> Result<Rendered, StageError> {
    let rendered = rendered(config, reports)?;
    if rendered.values.is_empty() {
        cx.warn(
            "no tunnel and no gateway reported anything: the config stays as it is in the base",
        );
    }
    show(cx, config, &rendered)?;
    match config.file() {
        Some(path) => file::write(path, &rendered.text)?,
        None => cx.document(rendered.text.clone().into_bytes()),
    }
    Ok(rendered)
}

fn show(cx: &Context<ConfigEmit>, config: &Config, rendered: &Rendered) -> Result<(), StageError> {
    if config.diff {
        let base = file::read(&config.base)?;
        let diff = file::diff((&config.base, base.text()), (&config.out, &rendered.text));
        match diff.is_empty() {
            true => cx.info("no difference to the base"),
            false => cx.info(diff),
        }
    }
    Ok(())
}

/// An upstream reported something new. A document on stdout cannot be taken back.
fn follow(
    cx: &Context<ConfigEmit>,
    config: &Config,
    reports: &Reports,
    written: &Rendered,
) -> Result<Rendered, StageError> {
    let rendered = rendered(config, reports)?;
    if rendered.text == written.text {
        return Ok(rendered);
    }
    show(cx, config, &rendered)?;
    if let Some(path) = config.file() {
        file::write(path, &rendered.text)?;
    }
    announce(cx, config);
    Ok(rendered)
}

/// Tells whoever uses the config that it is another one now.
fn announce(cx: &Context<ConfigEmit>, config: &Config) {
    let stage = &config.stage;
    cx.warn(format!(
        "the config of {stage} has changed: restart {stage} to use it"
    ));
}

fn outputs(config: &Config, rendered: &Rendered) -> Result<Outputs, StageError> {
    let absolute = |path| {
        std::path::absolute(path)
            .map_err(|e| StageError::io(format!("cannot resolve {}", config.out.display()), &e))
    };
    Ok(Outputs {
        path: config.file().map(absolute).transpose()?,
        stage: config.stage.clone(),
        values: rendered.values.clone(),
    })
}
