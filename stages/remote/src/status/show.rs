//! The status as text or as JSON.

use std::io::{IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use protocol::rundir::Phase;
use serde::Serializer;
use serde_json::{Map, Value, json};

use super::{Instance, RunDirStatus, StatusOptions};
use crate::format::Format;

const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn show(
    places: &[RunDirStatus],
    options: &StatusOptions,
    changed: bool,
) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    let terminal = stdout.is_terminal();
    // A screen also shows the time; elsewhere only changes are printed.
    let redraw = terminal && options.formatted.format == Format::Text;
    if options.watch && !changed && !redraw {
        return Ok(());
    }
    let text = match options.formatted.format {
        Format::Json => {
            let document = json!({"dcs": 1, "run_dirs": places});
            let text = match options.watch {
                true => serde_json::to_string(&document),
                false => serde_json::to_string_pretty(&document),
            };
            text.unwrap_or_default() + "\n"
        }
        Format::Text => text(places, now_ms()),
    };
    let head = if options.watch && redraw { CLEAR } else { "" };
    stdout.write_all(format!("{head}{text}").as_bytes())?;
    stdout.flush()
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| d.as_millis() as u64)
}

fn text(places: &[RunDirStatus], now_ms: u64) -> String {
    if places.is_empty() {
        return "no stage is running, and no ended stage has left a status\n".to_owned();
    }
    let mut text = String::new();
    for place in places {
        text.push_str(&format!("{}\n", place.run_dir.display()));
        let width = place
            .instances
            .iter()
            .map(|i| i.stage.chars().count())
            .max();
        for instance in &place.instances {
            lines(instance, width.unwrap_or_default(), now_ms, &mut text);
        }
    }
    text
}

fn lines(instance: &Instance, width: usize, now_ms: u64, text: &mut String) {
    let since = instance.since_ms.map(|ms| age(now_ms.saturating_sub(ms)));
    let since = match (instance.phase, since) {
        (_, None) => String::new(),
        (Some(phase), Some(age)) if phase.is_final() => format!("{age} ago"),
        // The time of a kill is not recorded.
        (None, Some(age)) => format!("last status {age} ago"),
        (_, Some(age)) => format!("for {age}"),
    };
    let generation = instance.generation.map(|g| format!("gen {g}"));
    let head = format!(
        "  {:width$}  {:9}  {since:14}  {}",
        instance.stage,
        word(instance.phase),
        generation.unwrap_or_default()
    );
    text.push_str(head.trim_end());
    text.push('\n');
    let mut below = |label: &str, line: &str| {
        text.push_str(&format!(
            "      {label}{}\n",
            line.replace('\n', "\n        ")
        ));
    };
    if let Some(message) = &instance.message {
        below("", message);
    }
    if let Some(outputs) = &instance.outputs {
        let mut flat = Vec::new();
        flatten("", outputs, &mut flat);
        below("outputs: ", &flat.join(", "));
    }
    if let Some(health) = &instance.health {
        below("health: ", health);
    }
    if instance.phase.is_none() {
        let hint = "start it again, or remove what it left: devcluster-remote gc";
        below("hint: ", hint);
    }
    if let Some(error) = &instance.last_error {
        if instance.is_well() {
            return below("last error, resolved: ", &error.message);
        }
        below("error: ", &error.message);
        if let Some(hint) = &error.hint {
            below("hint: ", hint);
        }
    }
}

/// An instance without a phase is `killed`.
pub(super) fn phase<S: Serializer>(
    phase: &Option<Phase>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&word(*phase))
}

fn word(phase: Option<Phase>) -> String {
    let value = phase.and_then(|phase| serde_json::to_value(phase).ok());
    let word = value.as_ref().and_then(Value::as_str);
    word.unwrap_or("killed").to_owned()
}

fn flatten(prefix: &str, outputs: &Map<String, Value>, flat: &mut Vec<String>) {
    for (key, value) in outputs {
        match value {
            Value::Object(inner) => flatten(&format!("{prefix}{key}."), inner, flat),
            Value::String(text) => flat.push(format!("{prefix}{key} {text}")),
            other => flat.push(format!("{prefix}{key} {other}")),
        }
    }
}

fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_parts_at_most() {
        for (seconds, expected) in [
            (0, "0 s"),
            (61, "1 min 1 s"),
            (3_600, "1 h 0 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(age(seconds * 1000), expected);
        }
    }
}
