//! What a run would take, make and install.

use cluster::observed;
use protocol::{Context, StageError};

use crate::choose::{Choice, choose, leftovers};
use crate::claim::{no_class, suits};
use crate::config::{Config, Prefer, Provision};
use crate::own;
use crate::provision::{self, Offer};
use crate::rivals::Rivals;
use crate::stage::Gateway;
use crate::survey::{Survey, Wanted, survey};
use crate::take::{self, Place, ours};

/// How a run would come by its Gateway.
pub(crate) enum Plan {
    Take(Box<Choice>),
    /// Of this class, after these were passed over.
    Make(String, Vec<String>),
    /// A controller is missing; the error says of what.
    Install(StageError),
}

/// What a run would do, and what a person could have it do instead.
pub(crate) struct Outlook {
    pub(crate) plan: Plan,
    /// Gateways that could be taken but for what a dead master left on them, with what that is. None where another is taken.
    pub(crate) leftovers: Vec<(String, String)>,
}

/// Looks, and decides as a run would, but takes nothing.
pub(crate) async fn plan(
    cx: &Context<Gateway>,
    config: &Config,
    place: &Place,
    survey: &Survey,
) -> Result<Outlook, StageError> {
    let wanted = Wanted::of(config);
    let ours = ours(cx, &place.minified.context);
    let expired = observed::known_to_have_expired(&survey.leases, &cx.env);
    let mut rivals = Rivals::of_leases(survey.leases.iter().filter(|it| !expired.contains(it)));
    rivals
        .ask(&place.cluster, &survey.gateways, ours.as_deref())
        .await;
    let none = match choose(survey, &wanted, ours.as_deref(), &rivals) {
        Ok(choice) if suits(config, &choice, ours.as_deref()) => {
            return Ok(Outlook {
                plan: Plan::Take(Box::new(choice)),
                leftovers: Vec::new(),
            });
        }
        Ok(_) => None,
        Err(none) if wanted.name.is_some() => return Err(none),
        Err(none) => Some(none),
    };
    let leftovers = match config.prefer {
        Prefer::Existing => leftovers(survey, &wanted, &rivals),
        Prefer::Dedicated => Vec::new(),
    };
    let plan = match own::class(survey.classes.as_deref(), &wanted) {
        Ok(class) => {
            let name = class.metadata.name.clone().unwrap_or_default();
            Plan::Make(name, none.map(|none| none.caused_by).unwrap_or_default())
        }
        Err(reasons) => {
            let mut missing = none.unwrap_or_else(|| no_class(Vec::new()));
            missing.caused_by.extend(reasons);
            Plan::Install(missing)
        }
    };
    Ok(Outlook { plan, leftovers })
}

pub(crate) async fn dry_run(cx: &Context<Gateway>, config: &Config) -> Result<(), StageError> {
    let place = take::connect(cx, config).await?;
    cx.info("a dry run: nothing is taken, made or installed");
    let plan = match survey(&place.cluster, &Wanted::of(config)).await {
        Ok(survey) => plan(cx, config, &place, &survey).await?.plan,
        Err(error) => Plan::Install(error),
    };
    match plan {
        Plan::Take(choice) => choice.tell(cx),
        Plan::Make(class, lines) => {
            lines.iter().for_each(|line| cx.info(line));
            cx.info(format!("a Gateway of GatewayClass {class} would be made"));
        }
        Plan::Install(missing) => {
            if config.provision == Provision::Never || !provision::mends(config, &missing) {
                return Err(missing);
            }
            cx.info(&missing.message);
            let offer = Offer::prepare(cx, config).await?;
            cx.info(format!("this would be installed: {}", offer.summary()));
            offer
                .lines(&place.cluster)
                .await?
                .iter()
                .for_each(|line| cx.info(line));
            offer.forbidden(&place.cluster).await?;
            cx.info("then a Gateway of its class would be made");
        }
    }
    Ok(())
}
