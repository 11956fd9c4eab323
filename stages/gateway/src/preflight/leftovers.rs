//! Gateways that could be taken but for what a dead master left on them: that is for a person to say.

use protocol::{Check, StageError};

use super::{LEFTOVERS, Preflight};
use crate::choose::question;
use crate::config::Provision;
use crate::dry_run::{Outlook, Plan};
use crate::objects;
use crate::survey::Survey;

impl Preflight<'_> {
    pub(super) fn leftovers(&self, outlook: &Result<Outlook, StageError>, survey: &Survey) {
        let (id, title) = LEFTOVERS;
        let outlook = match outlook {
            Ok(outlook) if !outlook.leftovers.is_empty() => outlook,
            Ok(_) => return self.cx.report(Check::ok(id, title, "")),
            Err(_) => {
                return self
                    .cx
                    .skip(&[LEFTOVERS], "`gateway` names the one to take");
            }
        };
        let left = outlook.leftovers.iter();
        let left: Vec<String> = left.map(|(name, left)| format!("{name}: {left}")).collect();
        let left = left.join("\n");
        let hint = "say yes when you are asked at a terminal, or name it with `gateway` and `gateway_namespace`";
        let check = match &outlook.plan {
            Plan::Install(missing) if self.config.provision != Provision::Auto => {
                Check::failed(id, title, &StageError::new(missing.code.as_str(), left))
            }
            _ => Check::ok(id, title, format!("{left}; another is made")),
        };
        let check = check.hint(hint);
        self.cx.report(match only_by_name(outlook, survey) {
            Some((name, question)) => check.offer(question, "gateway", name),
            None => check,
        });
    }
}

/// The first that its name alone tells from all others, and the question about it. A Gateway that is named is taken with
/// what was left on it, and no other is: `take_over` would take one from a session, too.
fn only_by_name<'a>(outlook: &Outlook, survey: &'a Survey) -> Option<(&'a str, String)> {
    outlook.leftovers.iter().find_map(|(title, left)| {
        let mut gateways = survey.gateways.iter();
        let name = objects::name(gateways.find(|it| objects::title(it) == *title)?);
        let namesakes = survey
            .gateways
            .iter()
            .filter(|it| objects::name(it) == name);
        (namesakes.count() == 1).then(|| (name, question(title, left)))
    })
}
