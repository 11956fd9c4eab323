//! `host`: runs a plugin, a program that implements only the wire, as a full stage. The runtime handles the run directory,
//! the lock, the ready line and the shutdown; the plugin gets `start` and `shutdown` on its stdin and answers on its stdout.

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

/// The program of a plugin, and its config.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The plugin: a program on $PATH, or the path of one
    uses: String,
    /// Config for the plugin, as JSON
    #[serde(default)]
    with: Map<String, Value>,
}

/// The outputs of the plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Outputs(Map<String, Value>);

impl Stage for Host {
    const KIND: &'static str = "plugin";
    const PROGRAM: Option<&'static str> = Some("devcluster-remote host");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CODES: &'static [Codes] = &[codes::ALL];
    const ABOUT: &'static str =
        "Run a plugin, a program that implements only the wire of PROTOCOL.md, as a stage";
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
            "makes a start message of {length} bytes, the limit is {MAX_LINE}: move large values into a file and pass its path"
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
        // Only the plugin knows what it created. When it ended as requested, it has removed everything.
        if outcome.is_ok() && in_good_order {
            ticket.settle()?;
        }
        outcome
    }

    async fn check(cx: &Context<Self>, _: Option<Config>, _: Outputs) -> Result<(), StageError> {
        cx.debug("a plugin has no check: it sends `degraded` when its outputs are not valid");
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

/// The absolute path of a plugin's program: the ledger may be read from another directory.
pub(crate) fn find(env: &Env, uses: &str) -> Result<PathBuf, StageError> {
    let found = env.find_program(uses).ok_or_else(|| {
        StageError::new(
            codes::PLUGIN_MISSING,
            format!("{uses} does not exist or is not executable"),
        )
    })?;
    std::path::absolute(&found)
        .map_err(|e| StageError::io(format!("cannot resolve {}", found.display()), &e))
}

/// A separate run directory for the plugin, so that a hosted full stage does not conflict with the lock of its host.
fn directory(cx: &Context<Host>) -> PathBuf {
    cx.run_dir.file(&format!("{}.plugin", cx.instance))
}
