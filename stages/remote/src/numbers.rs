//! Adjusts devcluster's stage numbers, in `:restart-stage:2`, `:kill-stage:2` and the keys of `startup_input`, to inserted
//! stages.

use protocol::yaml::{Document, Editor, Error, Seg};
use serde_json::Value;

use crate::plan::{Plan, Position};

/// devcluster's shifted key for each stage, which hides or shows its log.
const SHIFTED: &str = ")!@#$%^&*(";

const NUMBERED: [&str; 2] = [":restart-stage:", ":kill-stage:"];

/// Rewrites the numbers in `commands` and `startup_input`.
pub(crate) fn shift(document: &Document, plan: &Plan, editor: &mut Editor) -> Result<(), Error> {
    let moved = |number: usize| number + inserted_before(plan, number);
    let Some(commands) = document.get(&[Seg::from("commands")]) else {
        return shift_input(document, &Value::Null, moved, editor);
    };
    for (key, command) in commands.as_object().into_iter().flatten() {
        let Some(text) = command.as_str() else {
            continue;
        };
        for prefix in NUMBERED {
            let number = text
                .strip_prefix(prefix)
                .and_then(|n| n.parse::<usize>().ok());
            if let Some(number) = number.filter(|n| moved(*n) != *n) {
                let value = format!("{prefix}{}", moved(number));
                editor.set(
                    &[Seg::from("commands"), Seg::from(key.as_str())],
                    value.into(),
                )?;
            }
        }
    }
    shift_input(document, &commands, moved, editor)
}

fn shift_input(
    document: &Document,
    commands: &Value,
    moved: impl Fn(usize) -> usize,
    editor: &mut Editor,
) -> Result<(), Error> {
    let path = [Seg::from("startup_input")];
    let Some(Value::String(input)) = document.get(&path) else {
        return Ok(());
    };
    let typed: String = input
        .chars()
        .map(|key| shift_key(key, commands, &moved))
        .collect();
    if typed == input {
        return Ok(());
    }
    editor.set(&path, typed.into())
}

/// The adjusted key. A key stays when its stage would be beyond the ninth.
fn shift_key(key: char, commands: &Value, moved: impl Fn(usize) -> usize) -> char {
    if commands.get(key.to_string()).is_some() && !key.is_ascii_digit() && !SHIFTED.contains(key) {
        return key;
    }
    let key_of = |number: usize, row: &str| row.chars().nth(number).unwrap_or(key);
    match key {
        '1'..='9' => key_of(moved(key as usize - '0' as usize), "0123456789"),
        _ => match SHIFTED.find(key) {
            Some(number) if number > 0 => key_of(moved(number), SHIFTED),
            _ => key,
        },
    }
}

/// How many stages are inserted before the stage with this number, counted from 1.
fn inserted_before(plan: &Plan, number: usize) -> usize {
    let before =
        |place: Position| matches!(place, Position::Before(item) if number > 0 && item < number);
    plan.stages.iter().filter(|s| before(s.place)).count()
}
