//! The protocol of devcluster stages, and the runtime that every stage runs in. [`message`] has the wire format;
//! `PROTOCOL.md` beside this crate specifies it for other languages.

#![warn(missing_docs)]

mod call;
pub mod child;
mod cli;
pub mod codes;
pub mod config;
mod context;
pub mod devcluster;
pub mod env;
pub mod error;
pub mod files;
pub mod frame;
mod io;
pub mod kinds;
pub mod ledger;
mod leftover;
pub mod message;
mod port_range;
mod preflight;
pub mod problem;
pub mod program;
pub mod prompt;
pub mod provides;
pub mod reference;
mod reporter;
pub mod rundir;
mod runtime;
pub mod schema;
mod serde_message;
mod shutdown;
mod stage;
pub mod suggest;
mod upstream;
pub mod validate;
mod verbs;

pub use cli::command;
pub use codes::{Code, Codes};
pub use context::Context;
pub use env::Env;
pub use error::{Exit, StageError};
pub use io::Io;
pub use leftover::{Leftover, Removal};
pub use port_range::PortRange;
pub use preflight::{Check, CheckStatus, CheckTitle, Offer};
pub use problem::Problem;
pub use runtime::{run, run_id, run_stage, run_stage_from};
pub use shutdown::{GRACE, Shutdown};
pub use stage::Stage;
pub use upstream::{Reports, Upstream, Upstreams};
pub use verbs::cleanup::NOTHING_LEFT;
pub use verbs::describe::{Description, Diagnostic, description};
pub use verbs::explain::{Explanation, explanation, explanations};
pub use verbs::validate::answer;
pub use yaml;
