//! Every check. PROTOCOL.md has the table of them, so that what it promises is what is run.

/// The checks of a file, by their ids.
macro_rules! checks {
    ($($id:expr => $check:expr),+ $(,)?) => {
        pub(super) const CHECKS: &[super::Named] =
            &[$(($id, |scene| Box::pin($check(scene)))),+];
    };
}

mod chain;
mod control;
mod describe;
mod devcluster;
mod input;
mod kills;
mod lock;
mod outputs;
mod ready;
mod run_dir;
mod secrets;
mod shutdown;
mod stdin;
mod stdout;
mod streams;
mod validate;
mod verbs;

/// What every check uses.
mod prelude {
    pub(super) use std::time::Duration;

    pub(super) use anyhow::{Context, Result, anyhow, bail, ensure};
    pub(super) use rustix::process::Signal;
    pub(super) use serde_json::{Value, json};
    pub(super) use tokio::process::Command;

    pub(super) use super::stdout::{agree, fatal, only_messages};
    pub(super) use crate::harness::{Running, SOON, machine, shown, within};
    pub(super) use crate::scene::Scene;
    pub(super) use crate::subject::INSTANCE;
    pub(super) use crate::verdict::{Verdict, skipped};
}

pub(super) use ready::REACHED;

use futures::future::LocalBoxFuture;

use crate::Level;
use crate::scene::Scene;
use crate::verdict::Verdict;

/// The page, and its name.
const PAGE: (&str, &str) = ("PROTOCOL.md", include_str!("../../protocol/PROTOCOL.md"));

/// A check in a world of its own.
type Run = for<'a> fn(Scene<'a>) -> LocalBoxFuture<'a, Verdict>;

/// Its id, which is stable: reports and scripts name it.
type Named = (&'static str, Run);

/// They look at ports of the machine, or load it: no other check runs beside them.
const ALONE: [&str; 4] = ["shutdown", "kill", "devcluster", REACHED];

/// They have something to say of a program that never becomes ready, too.
const WITHOUT_READY: [&str; 9] = [
    "describe",
    "validate",
    "stdout.unknown_config",
    "stdout.bad_config",
    "control.version",
    "input.truncated",
    "shutdown.early",
    "streams.stdout_closed",
    "verbs.usage",
];

const GROUPS: [&[Named]; 17] = [
    describe::CHECKS,
    validate::CHECKS,
    ready::CHECKS,
    stdout::CHECKS,
    outputs::CHECKS,
    control::CHECKS,
    input::CHECKS,
    stdin::CHECKS,
    shutdown::CHECKS,
    streams::CHECKS,
    secrets::CHECKS,
    run_dir::CHECKS,
    lock::CHECKS,
    verbs::CHECKS,
    chain::CHECKS,
    kills::CHECKS,
    devcluster::CHECKS,
];

/// One thing that is checked.
#[derive(Clone, Copy)]
pub(super) struct Check {
    pub(super) id: &'static str,
    /// The lowest level that has to pass it.
    pub(super) level: Level,
    /// What holds when it passes.
    pub(super) title: &'static str,
    /// The heading in PROTOCOL.md, as an anchor.
    section: &'static str,
    pub(super) run: Run,
}

impl Check {
    /// Whether it is meant by its id, or by the beginning of that.
    pub(super) fn is_named(&self, name: &str) -> bool {
        let rest = self.id.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    pub(super) fn runs_alone(&self) -> bool {
        ALONE.iter().any(|name| self.is_named(name))
    }

    pub(super) fn needs_ready(&self) -> bool {
        !WITHOUT_READY.iter().any(|name| self.is_named(name))
    }

    /// Where the protocol says so.
    pub(super) fn section(&self) -> String {
        format!("{}#{}", PAGE.0, self.section)
    }
}

/// Every check, in the order of the page.
pub(super) fn all() -> impl Iterator<Item = Check> {
    PAGE.1.lines().filter_map(check)
}

/// A row of the table: ``| [`id`](#section) | level | title |``.
fn check(row: &'static str) -> Option<Check> {
    let (id, rest) = row.strip_prefix("| [`")?.split_once("`](#")?;
    let (section, rest) = rest.split_once(") | ")?;
    let (level, rest) = rest.split_once(" | ")?;
    let (_, run) = GROUPS
        .iter()
        .copied()
        .flatten()
        .find(|(named, _)| *named == id)?;
    Some(Check {
        id,
        level: match level {
            "plugin" => Level::Plugin,
            _ => Level::Stage,
        },
        title: rest.strip_suffix(" |")?,
        section,
        run: *run,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_the_kit_have_the_same_checks() {
        let rows = PAGE.1.lines().filter(|l| l.starts_with("| [`"));
        let checks: Vec<&str> = all().map(|check| check.id).collect();
        assert_eq!(rows.count(), checks.len());
        let named = GROUPS.iter().copied().flatten().map(|(id, _)| *id);
        let missing: Vec<&str> = named.filter(|id| !checks.contains(id)).collect();
        assert!(missing.is_empty(), "not on the page: {missing:?}");
    }
}
