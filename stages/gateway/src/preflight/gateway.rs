//! Checks which Gateway a run would use, by the run's own decision.

use protocol::{Check, StageError};

use super::{CAPACITY, CONTROLLER, GATEWAY, LEFTOVERS};
use crate::codes;
use crate::config::Provision;
use crate::decide::{Abandoned, Action, Choice, Decision, decide};
use crate::objects;
use crate::provision::InstallPlan;
use crate::survey::{Access, QueryResults, Survey};

impl Access<'_> {
    pub(super) async fn check_gateway(&self, results: QueryResults) {
        let mut survey = match results.into_survey(self) {
            Ok(survey) => survey,
            Err(error) => {
                self.cx.skip(&[LEFTOVERS], "needs the Gateway API");
                return self
                    .report_none(Action::from_missing(error, self.config))
                    .await;
            }
        };
        survey.load_usage(self).await;
        let decision = decide(&survey, self.config);
        // Before the Gateway itself: using an abandoned one needs no controller.
        self.report_leftovers(&decision, &survey);
        match decision.action {
            Action::Take(choice) => self.report_choice(&choice, &survey),
            Action::Make(make) => {
                let class = make.class.metadata.name.unwrap_or_default();
                let found = format!("creates one of GatewayClass {class}");
                self.cx.report_result(GATEWAY, Ok(found));
                self.cx.skip(&[CONTROLLER], "not needed");
                let found = format!("{} listeners at most", survey.max_listeners);
                self.cx.report_result(CAPACITY, Ok(found));
            }
            action => self.report_none(action).await,
        }
    }

    fn report_choice(&self, choice: &Choice, survey: &Survey) {
        let gateway = &choice.gateway;
        let state = match objects::address(gateway) {
            Ok(address) => format!("at {address}"),
            Err(why) => format!("not usable yet: {}", why.reason),
        };
        let found = format!("{}, {state}", objects::title(gateway));
        let mut check = Check::ok(GATEWAY.0, GATEWAY.1, found);
        if !choice.warnings.is_empty() {
            check = check.hint(choice.warnings.join("\n"));
        }
        self.cx.report(check);
        self.cx.skip(&[CONTROLLER], "not needed");
        let limit = self.config.raise_max_items.unwrap_or(0);
        let limit = limit.max(survey.max_listeners);
        let free = objects::capacity(gateway, limit, self.config.port_range);
        let found = format!("{free} more, of {limit} listeners");
        if free >= self.config.min_capacity.max(1) {
            return self.cx.report_result(CAPACITY, Ok(found));
        }
        let error = StageError::new(
            codes::CAPACITY_LOW,
            format!("the Gateway has room for {found}"),
        );
        self.cx.report_result(CAPACITY, Err(error));
    }

    /// There is no Gateway, and none can be created yet.
    async fn report_none(&self, action: Action) {
        let missing = match action {
            Action::Install(missing) if self.config.provision != Provision::Never => missing,
            Action::Install(error) | Action::Fail(error) => {
                self.cx.report_result(GATEWAY, Err(error));
                return self.cx.skip(&[CONTROLLER, CAPACITY], "needs the Gateway");
            }
            Action::Take(_) | Action::Make(_) => return,
        };
        if self.config.provision == Provision::Ask {
            let hint = "answer yes at a terminal, or set `provision: auto`";
            let question = format!(
                "Install a controller on the cluster of context {:?}, and remove it in the end?",
                self.cluster.context.name
            );
            let check = Check::failed(GATEWAY.0, GATEWAY.1, &missing.hint(hint));
            self.cx.report(check.offer(question, "provision", "auto"));
        } else {
            let why = "will be created after a controller is installed";
            self.cx.skip(&[GATEWAY], why);
        }
        let install = async {
            let install = InstallPlan::prepare(self.cx, self.config).await?;
            let steps = install.steps(&self.cluster).await?;
            steps.review(&self.cluster).await?;
            Ok(install.summary())
        };
        self.cx.report_result(CONTROLLER, install.await);
        self.cx.skip(&[CAPACITY], "needs the Gateway");
    }

    /// Reports Gateways that could be used without the ports of a dead master: a person must decide.
    fn report_leftovers(&self, decision: &Decision, survey: &Survey) {
        let (id, title) = LEFTOVERS;
        let Decision { action, abandoned } = decision;
        if abandoned.is_empty() {
            return match action {
                Action::Fail(_) => self.cx.skip(&[LEFTOVERS], "`gateway` names the one to use"),
                _ => self.cx.report(Check::ok(id, title, "")),
            };
        }
        let left = abandoned
            .iter()
            .map(|Abandoned { title, left }| format!("{title}: {left}"));
        let left = left.collect::<Vec<_>>().join("\n");
        let missing = match action {
            Action::Install(missing) if self.config.provision != Provision::Auto => Some(missing),
            Action::Fail(missing) => Some(missing),
            _ => None,
        };
        let check = match missing {
            Some(it) => {
                let mut error = it.clone();
                error.message = left;
                error.caused_by.clear();
                Check::failed(id, title, &error)
            }
            None => Check::ok(id, title, format!("{left}; another Gateway is created")),
        };
        let hint = "answer yes at a terminal, or name it with `gateway` and `gateway_namespace`";
        let check = check.hint(hint);
        self.cx.report(match uniquely_named(decision, survey) {
            Some((name, question)) => check.offer(question, "gateway", name),
            None => check,
        });
    }
}

/// The first abandoned Gateway with a unique name, and the question about it. Naming it takes exactly this one;
/// `take_over` could take one from a live session.
fn uniquely_named<'a>(decision: &Decision, survey: &'a Survey) -> Option<(&'a str, String)> {
    decision.abandoned.iter().find_map(|abandoned| {
        let mut gateways = survey.gateways.iter();
        let name = objects::name(gateways.find(|it| objects::title(it) == abandoned.title)?);
        let all = survey.gateways.iter();
        let namesakes = all.filter(|it| objects::name(it) == name);
        (namesakes.count() == 1).then(|| (name, abandoned.question()))
    })
}
