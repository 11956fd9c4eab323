//! Prints what a run would acquire, create and install.

use protocol::{Context, StageError};

use crate::Gateway;
use crate::config::{Config, Provision};
use crate::decide::{Action, decide};
use crate::provision::InstallPlan;
use crate::survey::Access;

pub(crate) async fn dry_run(cx: &Context<Gateway>, config: &Config) -> Result<(), StageError> {
    let access = Access::connect(cx, config).await?;
    cx.info("dry run: nothing is acquired, created or installed");
    let action = match access.survey().await {
        Ok(survey) => decide(&survey, config).action,
        Err(error) => Action::from_missing(error, config),
    };
    match action {
        Action::Take(choice) => choice.log(cx),
        Action::Make(make) => {
            make.rejected.iter().for_each(|line| cx.info(line));
            let class = make.class.metadata.name.unwrap_or_default();
            cx.info(format!("would create a Gateway of GatewayClass {class}"));
        }
        Action::Fail(error) => return Err(error),
        Action::Install(missing) if config.provision == Provision::Never => return Err(missing),
        Action::Install(missing) => {
            cx.info(&missing.message);
            let install = InstallPlan::prepare(cx, config).await?;
            cx.info(format!("would install {}", install.summary()));
            let steps = install.steps(&access.cluster).await?;
            steps.lines().for_each(|line| cx.info(line));
            steps.review(&access.cluster).await?;
            cx.info("then would create a Gateway of its class");
        }
    }
    Ok(())
}
