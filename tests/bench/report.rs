//! The results: a table on stdout, all samples in .build/bench/<bench>.json.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use support::build_dir;

/// A line of a table: one measurement of several tools, in samples taken alternately.
pub(crate) struct Row {
    what: String,
    unit: &'static str,
    values: Vec<(&'static str, Vec<f64>)>,
    goals: Vec<Goal>,
}

enum Goal {
    AtMost(f64),
    /// The tunnel's value divided by that of another tool.
    RatioAtMost(f64, &'static str),
    RatioAtLeast(f64, &'static str),
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, unit: &'static str) -> Row {
        Row {
            what: what.into(),
            unit,
            values: Vec::new(),
            goals: Vec::new(),
        }
    }

    /// An infinite sample is a timeout.
    pub(crate) fn sample(&mut self, whose: &'static str, value: f64) {
        match self.values.iter_mut().find(|(name, _)| *name == whose) {
            Some((_, samples)) => samples.push(value),
            None => self.values.push((whose, vec![value])),
        }
    }

    pub(crate) fn at_most(mut self, most: f64) -> Row {
        self.goals.push(Goal::AtMost(most));
        self
    }

    pub(crate) fn ratio_at_most(mut self, most: f64, other: &'static str) -> Row {
        self.goals.push(Goal::RatioAtMost(most, other));
        self
    }

    pub(crate) fn ratio_at_least(mut self, least: f64, other: &'static str) -> Row {
        self.goals.push(Goal::RatioAtLeast(least, other));
        self
    }

    fn median(&self, whose: &str) -> Option<f64> {
        let (_, samples) = self.values.iter().find(|(name, _)| *name == whose)?;
        Some(median(samples))
    }

    fn ratio(&self, other: &str) -> Option<f64> {
        Some(self.median("ours")? / self.median(other)?)
    }

    fn judge(&self, goal: &Goal) -> (String, bool) {
        let compare = |value: Option<f64>, sign, bound: f64, met: fn(&f64, &f64) -> bool, of| {
            let met = value.is_some_and(|value| met(&value, &bound));
            let mark = if met { '✓' } else { '✗' };
            let shown = value.map_or_else(|| "?".into(), number);
            (format!("{mark} {of}{shown} {sign} {}", number(bound)), met)
        };
        match goal {
            Goal::AtMost(most) => compare(self.median("ours"), '≤', *most, f64::le, String::new()),
            Goal::RatioAtMost(most, other) => {
                let of = format!("÷ {other}: ");
                compare(self.ratio(other), '≤', *most, f64::le, of)
            }
            Goal::RatioAtLeast(least, other) => {
                let of = format!("÷ {other}: ");
                compare(self.ratio(other), '≥', *least, f64::ge, of)
            }
        }
    }

    fn cells(&self, columns: &[&str]) -> Vec<String> {
        let mut cells = vec![format!("{}, {}", self.what, self.unit)];
        for column in columns {
            let Some(value) = self.median(column) else {
                cells.push("–".into());
                continue;
            };
            let ratio = self.ratio(column).filter(|_| *column != "ours");
            let ratio = ratio.map_or_else(String::new, |ratio| format!(" (×{})", number(ratio)));
            cells.push(format!("{}{ratio}", number(value)));
        }
        let judged = self.goals.iter().map(|goal| self.judge(goal).0);
        cells.push(judged.collect::<Vec<_>>().join("; "));
        cells
    }

    fn json(&self) -> Value {
        let values = self.values.iter().map(|(name, samples)| {
            let value = json!({
                "median": finite(median(samples)),
                "ratio": self.ratio(name).and_then(finite),
                "samples": samples.iter().map(|sample| finite(*sample)).collect::<Vec<_>>(),
            });
            ((*name).to_owned(), value)
        });
        let goals = self.goals.iter().map(|goal| {
            let (text, met) = self.judge(goal);
            json!({"goal": text, "met": met})
        });
        json!({
            "what": self.what,
            "unit": self.unit,
            "values": serde_json::Map::from_iter(values),
            "goals": goals.collect::<Vec<_>>(),
        })
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// Three significant digits.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return "never".into();
    }
    let digits = value.abs().max(1e-3).log10().floor() as i32 + 1;
    format!("{value:.*}", (3 - digits).clamp(0, 3) as usize)
}

/// The sections of each file.
static SECTIONS: Mutex<BTreeMap<&str, Vec<Value>>> = Mutex::new(BTreeMap::new());

/// Prints a table, and adds it to the file. Then fails if a goal is missed.
pub(crate) fn report(bench: &'static str, title: &str, rows: &[Row]) {
    let mut columns = vec!["ours"];
    for (name, _) in rows.iter().flat_map(|row| &row.values) {
        if !columns.contains(name) {
            columns.push(name);
        }
    }
    let mut head = vec![title];
    head.extend(&columns);
    head.push("goal");
    let mut table = vec![head.into_iter().map(str::to_owned).collect()];
    table.extend(rows.iter().map(|row| row.cells(&columns)));
    say(&aligned(&table));
    let rows_json: Vec<Value> = rows.iter().map(Row::json).collect();
    {
        let mut sections = SECTIONS.lock().unwrap_or_else(PoisonError::into_inner);
        let sections = sections.entry(bench).or_default();
        sections.push(json!({"title": title, "rows": rows_json}));
        write(bench, sections);
    }
    let missed: Vec<String> = rows
        .iter()
        .flat_map(|row| row.goals.iter().map(move |goal| (row, row.judge(goal))))
        .filter(|(_, (_, met))| !met)
        .map(|(row, (text, _))| format!("{}: {text}", row.what))
        .collect();
    assert!(missed.is_empty(), "missed:\n{}", missed.join("\n"));
}

fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = table.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::from("\n");
    for row in table {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

pub(crate) fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

fn write(bench: &str, sections: &[Value]) {
    let path = build_dir().join(format!("bench/{bench}.json"));
    let ssh = Command::new("ssh").arg("-V").output().expect("no ssh");
    let machine = json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "ssh": String::from_utf8_lossy(&ssh.stderr).trim(),
    });
    let file = json!({"machine": machine, "sections": sections});
    std::fs::create_dir_all(build_dir().join("bench")).expect("cannot create .build/bench");
    std::fs::write(&path, format!("{file:#}\n")).expect("cannot write the results");
}
