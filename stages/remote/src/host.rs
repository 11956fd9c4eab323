//! `host`: runs a plugin, a program that knows only the wire, as a full stage. The runtime gives it the run directory, the
//! lock, the ready line and the shutdown; the plugin is told `start` and `shutdown` on its stdin and answers on its stdout.

mod cleanup;
mod plugin;
mod preflight;
mod wire;

use std::path::PathBuf;

use protocol::frame::MAX_LINE;
use protocol::ledger::Entry;
use protocol::message::{self, Command, Start};
use protocol::{Codes, Context, Env, Leftover, Problem, Stage, StageError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use plugin::Plugin;

use crate::codes;

/// The plugin host.
#[derive(Clone)]
pub struct Host;

/// Which program, and its config.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The plugin: a program on $PATH, or the path of one
    uses: String,
    /// Config for the plugin, as JSON
    #[serde(default)]
    with: Map<String, Value>,
}

/// Whatever the plugin found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Outputs(Map<String, Value>);

impl Stage for Host {
    const KIND: &'static str = "plugin";
    const PROGRAM: Option<&'static str> = Some("devcluster-remote host");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CODES: &'static [Codes] = &[codes::ALL];
    const ABOUT: &'static str =
        "Run a plugin, a program that knows only the wire of PROTOCOL.md, as a stage";
    const EXAMPLES: &'static str = "Example: devcluster-remote host --name vpn --uses ./vpn-stage.py --with '{\"server\": \"a\"}'";

    type Config = Config;
    type Outputs = Outputs;

    fn validate(config: &Config) -> Vec<Problem> {
        let start = Command::Start(Start {
            config: config.with.clone(),
        });
        let length = message::encode(&start).map_or(0, |line| line.len());
        if length <= MAX_LINE {
            return Vec::new();
        }
        let message = format!(
            "makes a start message of {length} bytes, and {MAX_LINE} is the limit: put what is large into a file and name that"
        );
        vec![Problem::new("with", message)]
    }

    fn outline(fields: &Map<String, Value>) -> String {
        format!("hosts {}", fields["uses"].as_str().unwrap_or_default())
    }

    async fn run(cx: &Context<Self>, config: Config) -> Result<(), StageError> {
        let program = find(&cx.env, &config.uses)?;
        let ticket = cx.ledger.intend("plugin", json!({"uses": program}))?;
        let mut plugin = match Plugin::start(cx, &program) {
            Ok(plugin) => plugin,
            Err(error) => {
                ticket.settle()?;
                return Err(error);
            }
        };
        plugin.send(&Command::Start(Start {
            config: config.with,
        }));
        let outcome = plugin.relay().await;
        let in_good_order = plugin.end().await;
        // What it made is its own business; one that ended in good order has undone it.
        if outcome.is_ok() && in_good_order {
            ticket.settle()?;
        }
        outcome
    }

    async fn check(cx: &Context<Self>, _: Option<Config>, _: Outputs) -> Result<(), StageError> {
        cx.debug(
            "a plugin has no check of its own: it says `degraded` when its outputs do not hold",
        );
        Ok(())
    }

    async fn preflight(cx: &Context<Self>, config: Config) {
        preflight::preflight(cx, &config).await;
    }

    async fn leftovers<'a>(
        cx: &'a Context<Self>,
        entry: &'a Entry,
    ) -> Result<Vec<Leftover<'a>>, StageError> {
        Ok(cleanup::leftover(cx, entry).await?.into_iter().collect())
    }
}

/// An absolute path: whoever reads the ledger may be in another directory.
pub(crate) fn find(env: &Env, uses: &str) -> Result<PathBuf, StageError> {
    let found = env
        .find_program(uses)
        .ok_or_else(|| StageError::new(codes::PLUGIN_MISSING, format!("no executable {uses}")))?;
    std::path::absolute(&found)
        .map_err(|e| StageError::io(format!("cannot resolve {}", found.display()), &e))
}

/// A directory of the plugin's own, so that a full stage can be hosted too without meeting our lock.
fn directory(cx: &Context<Host>) -> PathBuf {
    cx.run_dir.file(&format!("{}.plugin", cx.instance))
}
