//! Every check. The table in PROTOCOL.md lists them, so that the page and the kit agree.

/// Declares the checks of a file by their ids, with properties after a semicolon.
macro_rules! checks {
    ($($id:expr => $check:expr $(; $property:ident)*),+ $(,)?) => {
        pub(super) const CHECKS: &[super::Registration] =
            &[$(($id, |scene| Box::pin($check(scene)), &[$(super::Property::$property),*])),+];
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

/// Imports of every check.
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

use clap::ValueEnum;
use futures::future::LocalBoxFuture;
use serde::Serialize;

use crate::Level;
use crate::scene::Scene;
use crate::verdict::Verdict;

/// The text of the page.
const PAGE: (&str, &str) = ("PROTOCOL.md", include_str!("../../protocol/PROTOCOL.md"));

/// Runs a check in a separate scene.
type Run = for<'a> fn(Scene<'a>) -> LocalBoxFuture<'a, Verdict>;

/// A property of a check.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Property {
    /// It observes ports of the machine, or loads the machine: no other check runs at the same time.
    Alone,
    /// It also works with a program that never becomes ready.
    WithoutReady,
}

/// The part of a check that is in the code; the page has the rest. The id is stable: reports and scripts use it.
type Registration = (&'static str, Run, &'static [Property]);

const GROUPS: [&[Registration]; 17] = [
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

/// One check.
#[derive(Clone, Serialize)]
pub(super) struct Check {
    pub(super) id: &'static str,
    /// The lowest level that requires it.
    pub(super) level: Level,
    /// What it checks.
    pub(super) title: &'static str,
    /// The section of the protocol.
    pub(super) section: String,
    #[serde(skip)]
    pub(super) run: Run,
    #[serde(skip)]
    properties: &'static [Property],
}

impl Check {
    /// Whether a name is its id, or the first part of it.
    pub(super) fn is_named(&self, name: &str) -> bool {
        let rest = self.id.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    pub(super) fn is(&self, property: Property) -> bool {
        self.properties.contains(&property)
    }
}

/// Every check, in the order of the page.
pub(super) fn all() -> impl Iterator<Item = Check> {
    let rows = PAGE.1.lines().filter_map(|line| line.strip_prefix("| [`"));
    rows.map(|row| check(row).unwrap_or_else(|| panic!("{} has no such check: {row}", PAGE.0)))
}

/// A row of the table: ``| [`id`](#section) | level | title |``.
fn check(row: &'static str) -> Option<Check> {
    let (id, rest) = row.split_once("`](")?;
    let (section, rest) = rest.split_once(") | ")?;
    let (level, rest) = rest.split_once(" | ")?;
    let mut named = GROUPS.iter().copied().flatten();
    let (id, run, properties) = named.find(|(named, ..)| *named == id)?;
    Some(Check {
        id,
        level: Level::from_str(level, false).ok()?,
        title: rest.strip_suffix(" |")?,
        section: format!("{}{section}", PAGE.0),
        run: *run,
        properties,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_the_kit_have_the_same_checks() {
        let checks: Vec<&str> = all().map(|check| check.id).collect();
        let named = GROUPS.iter().copied().flatten().map(|(id, ..)| *id);
        let missing: Vec<&str> = named.filter(|id| !checks.contains(id)).collect();
        assert!(missing.is_empty(), "not on the page: {missing:?}");
    }
}
