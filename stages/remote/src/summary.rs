//! How each stage ended, after a run.

use protocol::rundir::{Phase, RunDir};

use crate::plan::Plan;

/// A line for each of our stages that ran since then, in milliseconds since 1970.
pub(crate) fn lines(plan: &Plan, run_dir: &RunDir, since_ms: u64) -> Vec<String> {
    let stages = plan.stages.iter();
    stages
        .filter_map(|stage| {
            let status = run_dir.status(&stage.name)?;
            if status.since_ms < since_ms {
                return None;
            }
            let name = &stage.name;
            Some(match status.phase {
                Phase::Stopped => format!("{name} stopped in good order"),
                Phase::Failed => {
                    let error = status.error.as_ref();
                    let text = error.map(|e| e.render(name)).unwrap_or_default();
                    text.replacen(": error: ", " failed: ", 1)
                        .trim_end()
                        .to_owned()
                }
                _ => format!("{name} was ended before it could give everything back"),
            })
        })
        .collect()
}
