//! What a run would take, make and install.

use protocol::{Context, StageError};

use crate::Gateway;
use crate::config::{Config, Provision};
use crate::decide::{Plan, decide};
use crate::provision::InstallPlan;
use crate::survey::Run;

pub(crate) async fn dry_run(cx: &Context<Gateway>, config: &Config) -> Result<(), StageError> {
    let run = Run::connect(cx, config).await?;
    cx.info("a dry run: nothing is taken, made or installed");
    let plan = match run.look().await {
        Ok(survey) => decide(&survey, config).plan,
        Err(error) => Plan::without(error, config),
    };
    match plan {
        Plan::Take(choice) => choice.tell(cx),
        Plan::Make(make) => {
            make.passed_over.iter().for_each(|line| cx.info(line));
            let class = make.class.metadata.name.unwrap_or_default();
            cx.info(format!("a Gateway of GatewayClass {class} would be made"));
        }
        Plan::Fail(error) => return Err(error),
        Plan::Install(missing) if config.provision == Provision::Never => return Err(missing),
        Plan::Install(missing) => {
            cx.info(&missing.message);
            let install = InstallPlan::prepare(cx, config).await?;
            cx.info(format!("this would be installed: {}", install.summary()));
            let steps = install.steps(&run.cluster).await?;
            steps.lines().for_each(|line| cx.info(line));
            steps.review(&run.cluster).await?;
            cx.info("then a Gateway of its class would be made");
        }
    }
    Ok(())
}
