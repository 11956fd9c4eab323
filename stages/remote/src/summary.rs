//! Reports after a run how each stage ended.

use protocol::rundir::{Phase, RunDir};

use crate::plan::Plan;

/// One line for each stage of the plan that ran since then, in milliseconds since 1970.
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
                Phase::Stopped => format!("{name} stopped"),
                Phase::Failed => {
                    let error = status.error.as_ref();
                    let text = error.map(|e| e.render(name)).unwrap_or_default();
                    text.replacen(": error: ", " failed: ", 1)
                        .trim_end()
                        .to_owned()
                }
                _ => format!("{name} ended before it released everything"),
            })
        })
        .collect()
}
