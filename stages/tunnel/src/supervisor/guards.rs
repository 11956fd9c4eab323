//! Reports what the guards found.

use super::Supervisor;
use crate::errors;
use crate::guard::{Guard, State};

fn is_open(state: &State) -> bool {
    matches!(state, State::Open(_))
}

impl Supervisor<'_> {
    /// Whether an open master was reported, and there is none any longer.
    pub(super) fn is_closed_again(&self) -> bool {
        let mut now = self.guards.all().map(Guard::state);
        self.reported.iter().any(is_open) && !now.any(|state| is_open(&state))
    }

    /// Reports the states that changed, or all of them.
    pub(super) fn report_guards(&mut self, all: bool) {
        let now: Vec<State> = self.guards.all().map(Guard::state).collect();
        for (i, (guard, state)) in self.guards.all().zip(&now).enumerate() {
            if !all && self.reported.get(i) == Some(state) {
                continue;
            }
            if is_open(state) {
                self.cx.degraded(errors::open_master(guard.port, state));
            } else {
                let found = format!("guard: {}", state.describe(guard.port));
                self.cx.progress("guard", found);
            }
        }
        self.reported = now;
    }
}
