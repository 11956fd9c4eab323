//! `doctor`: checks everything that a run needs, on this machine, on the ssh server and on the cluster, concurrently.

mod machine;
mod port;

use std::io::{IsTerminal, Write};
use std::path::Path;

use protocol::{Check, CheckStatus, Env, Exit, StageError};
use serde_json::{Value, json};

use crate::format::Format;
use crate::input::{CompiledInput, InputArgs, load};
use crate::kinds::Programs;
use crate::plugins;
use crate::preflight::{self, StageChecks};

/// The heading of the driver's own checks, and their stage name in JSON.
const OURS: &str = "this machine";

/// Runs all checks, shows them, and returns the exit code.
pub(crate) async fn doctor(
    args: &InputArgs,
    format: Format,
    programs: &Programs<'_>,
) -> Result<u8, StageError> {
    let env = programs.env;
    let mut output = Output::new(format);
    let named = args.config.is_some() || !args.flags().is_empty();
    let input = match named {
        true => Some(load(args, programs, |_| ()).await),
        false => None,
    };
    let mut ours = vec![machine::devcluster(env).await];
    match &input {
        None => {
            ours.push(Check::skipped("file", FILE, "no file was given").hint(
                "devcluster-remote doctor -c devcluster.yaml also checks what its stages need",
            ))
        }
        Some(Ok(input)) => ours.extend(check_file(input, args, env).await),
        Some(Err(error)) => ours.push(Check::failed("file", FILE, error)),
    }
    output.add(StageChecks {
        stage: OURS.to_owned(),
        kind: "remote".to_owned(),
        checks: ours,
    });
    match &input {
        Some(Ok(input)) => preflight::run_all(input, env, |found| output.add(found)).await,
        Some(Err(_)) => output.say("the stages were not checked: correct the file first"),
        None => {}
    }
    output.finish()
}

const FILE: &str = "the file is valid";

async fn check_file(input: &CompiledInput, args: &InputArgs, env: &Env) -> Vec<Check> {
    let name = args.config.as_deref().unwrap_or(Path::new("command line"));
    let name = name.display();
    let plan = &input.compiled.plan;
    let stages: Vec<&str> = plan.stages.iter().map(|s| s.name.as_str()).collect();
    let found = match stages.is_empty() {
        true => format!("{name}, without stages of this project"),
        false => format!("{name}: {}", stages.join(", ")),
    };
    let mut file = Check::ok("file", FILE, found);
    if !plan.warnings.is_empty() {
        file = file.hint(plan.warnings.join("\n"));
    }
    let mut checks = vec![file];
    checks.extend(check_plugins(input, env).await);
    checks.extend(machine::check_input(input, env).await);
    checks
}

/// References to outputs of plugins, which only the plugins know. Reading the file checks all others.
async fn check_plugins(input: &CompiledInput, env: &Env) -> Option<Check> {
    let count = input.compiled.plan.plugin_references.len();
    let (id, title) = (
        "plugin_references",
        "plugins report the values that others refer to",
    );
    (count > 0).then_some(())?;
    Some(match plugins::check_references(input, env).await {
        Ok(()) => Check::ok(id, title, format!("{count} references")),
        Err(error) => Check::failed(id, title, &error),
    })
}

/// Shows the checks as they finish.
struct Output {
    format: Format,
    colour: bool,
    checks: Vec<Value>,
    failed: usize,
}

impl Output {
    fn new(format: Format) -> Output {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Output {
            format,
            colour: std::io::stdout().is_terminal() && !plain,
            checks: Vec::new(),
            failed: 0,
        }
    }

    fn add(&mut self, found: StageChecks) {
        let StageChecks {
            stage,
            kind,
            checks,
        } = found;
        let head = match kind == stage || kind == "remote" {
            true => stage.clone(),
            false => format!("{stage} ({kind})"),
        };
        let mut text = format!("{}\n", self.paint(1, &head));
        if checks.is_empty() {
            text.push_str("  – this stage has no checks before a run\n");
        }
        for mut check in checks {
            check.stage.clone_from(&stage);
            self.failed += usize::from(check.status == CheckStatus::Failed);
            let colour = match check.status {
                CheckStatus::Ok => 32,
                CheckStatus::Failed => 31,
                CheckStatus::Skipped => 90,
            };
            let mark = self.paint(colour, check.mark());
            let painted = check.render().replacen(check.mark(), &mark, 1);
            text.extend(painted.lines().map(|line| format!("  {line}\n")));
            let mut value = serde_json::to_value(check).unwrap_or_default();
            value["kind"] = kind.as_str().into();
            self.checks.push(value);
        }
        if self.format == Format::Text {
            show(&text);
        }
    }

    fn paint(&self, colour: u8, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn say(&self, line: &str) {
        if self.format == Format::Text {
            show(&format!("{line}\n"));
        }
    }

    fn finish(self) -> Result<u8, StageError> {
        let all = self.checks.len();
        let ok = self.failed == 0;
        match self.format {
            Format::Text if ok => show(&format!("{all} checks, none failed\n")),
            Format::Text => show(&format!("{} of {all} checks failed\n", self.failed)),
            Format::Json => {
                let document = json!({"dcs": 1, "ok": ok, "checks": self.checks});
                let text = serde_json::to_string_pretty(&document).unwrap_or_default();
                writeln!(std::io::stdout(), "{text}")
                    .map_err(|e| StageError::io("cannot write the result", &e))?;
            }
        }
        Ok(if ok { Exit::Ok } else { Exit::CheckFailed } as u8)
    }
}

/// Writes to stdout. Ignores a reader that is gone.
fn show(text: &str) {
    drop(std::io::stdout().write_all(text.as_bytes()));
}
