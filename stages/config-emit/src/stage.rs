//! The stage itself: wait for the upstreams, render, write, follow.

use std::path::Path;

use protocol::ledger::Entry;
use protocol::validate::{Answer, Gate, Request};
use protocol::{Codes, Context, Leftover, Problem, Reports, Stage, StageError};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::codes;
use crate::config::{self, Config, ConfigEmit, Outputs};
use crate::emitted::Emitted;
use crate::follow::Follower;
use crate::{file, preflight, validate};

impl Stage for ConfigEmit {
    const KIND: &'static str = "config-emit";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CODES: &'static [Codes] = &[codes::ALL];
    const ABOUT: &'static str = "Writes the config of a later stage: reads a devcluster.yaml, or the config that devcluster wrote for a \
        master, and sets the values that tunnel and gateway report. Everything else in the file stays unchanged. Runs once, or \
        keeps running and follows the upstreams. It has two more verbs: `exec` runs a command with values in place of its \
        references, `restart` asks a running devcluster to restart stages; each has a --help.";
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

    const GATE: Gate = Gate::Consumer;

    fn outline(fields: &Map<String, Value>) -> String {
        let upstreams = fields.get("upstreams").and_then(Value::as_array);
        let upstreams = upstreams.into_iter().flatten().filter_map(Value::as_str);
        let upstreams = upstreams.collect::<Vec<_>>().join(" and ");
        if !fields.contains_key("out") {
            return format!("restarts stages that use outdated values of {upstreams}");
        }
        let stage = fields["stage"].as_str().unwrap_or_default();
        format!("writes the values of {upstreams} into the config of {stage}")
    }

    fn validate_file(request: &Request, answer: &mut Answer) {
        validate::file(request, answer);
    }

    fn takes_stdout(config: &Config) -> bool {
        config.out.as_deref() == Some(Path::new("-"))
    }

    fn summary(outputs: &Outputs) -> String {
        let count = outputs.values.len();
        let path = outputs.path.as_ref().map(|p| p.display().to_string());
        let path = path.unwrap_or_else(|| "stdout".to_owned());
        match &outputs.stage {
            Some(stage) => format!("config of {stage} in {path}, {count} values set"),
            None => "restarts stages that use outdated values".to_owned(),
        }
    }

    async fn run(cx: &Context<Self>, config: Config) -> Result<(), StageError> {
        let mut seen = tokio::select! {
            reports = wait(cx, &config) => reports?,
            () = cx.shutdown.cancelled() => return Ok(()),
        };
        let emitted = Emitted::from_reports(cx, &config, &seen)?;
        let mut follower = Follower::new(cx, &config);
        // The stages of a running devcluster may have read an existing file.
        let writes_first = config.out.is_some()
            && (config.control_socket.is_none() || !config.file().is_some_and(Path::exists));
        let mut again = match writes_first {
            true => emitted.deliver(cx, &config).map(|()| None)?,
            false => follower.reconcile(&seen, &emitted).await?,
        };
        cx.ready(emitted.outputs(&config)?).await?;
        loop {
            let at = again.unwrap_or_else(Instant::now);
            tokio::select! {
                reports = cx.upstream.changed(config.names(), &seen), if !config.ignores_upstreams() => {
                    seen = reports;
                    follower.reset();
                }
                () = tokio::time::sleep_until(at), if again.is_some() => {}
                () = cx.shutdown.cancelled() => return Ok(()),
            }
            let acted = async {
                let emitted = Emitted::from_reports(cx, &config, &seen)?;
                let again = follower.reconcile(&seen, &emitted).await?;
                Ok((again, emitted.outputs(&config)?))
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
        if config.out.is_none() {
            return Err(
                StageError::new(protocol::codes::CONFIG, "nothing to write without `out`")
                    .hint("name a file with --out, or - for stdout"),
            );
        }
        let reports = wait(cx, &config).await?;
        let emitted = Emitted::from_reports(cx, &config, &reports)?;
        emitted.deliver(cx, &config)?;
        emitted.outputs(&config)
    }

    async fn check(
        cx: &Context<Self>,
        config: Option<Config>,
        outputs: Outputs,
    ) -> Result<(), StageError> {
        let Some(path) = outputs.path else {
            return Ok(());
        };
        let stale = |why: String| Err(StageError::new(codes::STALE, why));
        if !path.is_file() {
            return stale(format!("{} does not exist", path.display()));
        }
        if let Some(config) = config {
            let emitted = Emitted::from_reports(cx, &config, &config.reports(cx))?;
            if !file::is_written(&path, &emitted.text) {
                let why = format!("{} is outdated", path.display());
                return stale(why);
            }
        }
        Ok(())
    }

    async fn preflight(cx: &Context<Self>, config: Config) {
        preflight::preflight(cx, &config).await;
    }

    /// The file was requested and stays; it is never written in part.
    async fn leftovers<'a>(
        _cx: &'a Context<Self>,
        _entry: &'a Entry,
    ) -> Result<Vec<Leftover<'a>>, StageError> {
        Ok(Vec::new())
    }
}

async fn wait(cx: &Context<ConfigEmit>, config: &Config) -> Result<Reports, StageError> {
    if config.ignores_upstreams() {
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
            codes::NO_UPSTREAM,
            format!("no stage runs in {}", cx.run_dir.path().display()),
        ));
    }
    Ok(reports)
}
