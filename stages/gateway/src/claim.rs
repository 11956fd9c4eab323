//! Which Gateway becomes ours: the choice, and the Lease that settles it; else one that we make.

use cluster::observed;
use k8s_openapi::api::coordination::v1::Lease;
use protocol::{Context, StageError, run_id};

use crate::ask;
use crate::choose::{self, Choice, choose};
use crate::collect;
use crate::config::{Config, Prefer};
use crate::lease::{self, Claim};
use crate::objects::{self, GatewayObject};
use crate::own;
use crate::provision;
use crate::rivals::Rivals;
use crate::session::{Acquired, Record, Session};
use crate::stage::Gateway;
use crate::survey::{Survey, Wanted};
use crate::take::{Chosen, Held, Place, ours};

/// Takes or makes a Gateway; the session is in the slot before the first request that has to be undone.
pub(crate) async fn claim(
    cx: &Context<Gateway>,
    config: &Config,
    place: &Place,
    survey: &Survey,
    held: &mut Held,
) -> Result<Chosen, StageError> {
    let mine = held.session.as_ref().map(|session| session.claim.title());
    let ours = mine.clone().or_else(|| ours(cx, &place.minified.context));
    let mut rivals = rivals(cx, place, survey, mine.as_deref()).await?;
    let wanted = Wanted::of(config);
    loop {
        let choice = match choose(survey, &wanted, ours.as_deref(), &rivals) {
            Ok(choice) if suits(config, &choice, mine.as_deref()) => choice,
            Ok(_) => return make(cx, config, place, survey, held, Vec::new()).await,
            Err(none) if wanted.name.is_some() => return Err(none),
            Err(none) => {
                if let Some(title) = pardoned(cx, config, survey, &wanted, &rivals).await? {
                    rivals.pardon(title);
                    continue;
                }
                return match make(cx, config, place, survey, held, none.caused_by.clone()).await {
                    // Nobody asked for one of our own: that there is no other is the news.
                    Err(error) if error.code == NO_CLASS => Err(with_causes(none, error.caused_by)),
                    made => made,
                };
            }
        };
        let title = objects::title(&choice.gateway);
        if mine.as_ref() != Some(&title) {
            give_back(&mut held.session).await?;
            match acquire(cx, config, place, &mut held.session, &choice.gateway).await? {
                Acquired::Yes => {}
                Acquired::No(who) => {
                    cx.debug(format!("Gateway {title}: {who}"));
                    let leases = lease::list(&place.cluster, wanted.namespace.as_deref()).await?;
                    rivals.lose(title, who, &leases);
                    continue;
                }
            }
        }
        choice.tell(cx);
        return Ok(Chosen {
            gateway: choice.gateway,
            controller: choice.controller,
            provisioned: choice.provisioned,
        });
    }
}

/// A Gateway that a dead master left its ports on, if a person at the terminal says that it is to be taken.
async fn pardoned(
    cx: &Context<Gateway>,
    config: &Config,
    survey: &Survey,
    wanted: &Wanted,
    rivals: &Rivals,
) -> Result<Option<String>, StageError> {
    if !protocol::ask::is_possible() || config.prefer == Prefer::Dedicated {
        return Ok(None);
    }
    for (title, left) in choose::leftovers(survey, wanted, rivals) {
        if ask::yes(cx, &choose::question(&title, &left)).await? {
            return Ok(Some(title));
        }
    }
    Ok(None)
}

/// With `prefer: dedicated` only a Gateway that was named, or that is ours already, is taken.
pub(crate) fn suits(config: &Config, choice: &Choice, mine: Option<&str>) -> bool {
    config.prefer == Prefer::Existing
        || config.gateway.is_some()
        || mine == Some(objects::title(&choice.gateway).as_str())
}

/// What others hold. Expired Leases are nobody's: they are deleted, and the Gateways that were made for them too.
async fn rivals(
    cx: &Context<Gateway>,
    place: &Place,
    survey: &Survey,
    mine: Option<&str>,
) -> Result<Rivals, StageError> {
    let mut others = survey.leases.clone();
    others.retain(|lease| mine.is_none() || lease::title(lease).as_deref() != mine);
    let (removed, live) = collect::expired(&place.cluster, others, &cx.env).await?;
    removed
        .iter()
        .for_each(|what| cx.info(format!("removed {what}")));
    if live.iter().any(|lease| lease::title(lease).is_some()) {
        collect::note(cx, place)?;
    }
    let mut rivals = Rivals::of_leases(&live);
    rivals.ask(&place.cluster, &survey.gateways, mine).await;
    Ok(rivals)
}

async fn acquire(
    cx: &Context<Gateway>,
    config: &Config,
    place: &Place,
    slot: &mut Option<Session>,
    gateway: &GatewayObject,
) -> Result<Acquired, StageError> {
    let claim = Claim {
        namespace: objects::namespace(gateway).to_owned(),
        gateway: objects::name(gateway).to_owned(),
        holder: holder(cx),
        duration: config.lease_duration,
        made: false,
    };
    let record = Record::new(place.files.clone(), &place.minified.context, &claim);
    let session = slot.insert(Session::intend(cx, &place.cluster, &record)?);
    let env = &cx.env;
    let may_take = |lease: &Lease| {
        config.take_over || !observed::expired(std::slice::from_ref(lease), env).is_empty()
    };
    let acquired = session.acquire(may_take).await;
    if let (Ok(Acquired::No(_)), Some(session)) = (&acquired, slot.take_if(|it| it.lease.is_none()))
    {
        session.forget()?;
    }
    acquired
}

/// The code of an error that says that no Gateway can be made.
const NO_CLASS: &str = "gateway.no_class";

/// The code of an error that says that the cluster changed under us, and has to be looked at again.
pub(crate) const CLASS_GONE: &str = "gateway.class_gone";

async fn make(
    cx: &Context<Gateway>,
    config: &Config,
    place: &Place,
    survey: &Survey,
    held: &mut Held,
    passed_over: Vec<String>,
) -> Result<Chosen, StageError> {
    let wanted = Wanted::of(config);
    let class = own::class(survey.classes.as_deref(), &wanted).map_err(no_class)?;
    passed_over.iter().for_each(|line| cx.info(line));
    give_back(&mut held.session).await?;
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let provisioned = provision::is_ours(class);
    if provisioned && !provision::join(cx, place, &mut held.infrastructure, name).await? {
        let message =
            format!("GatewayClass {name} has just been removed by the last one that used it");
        return Err(StageError::new(CLASS_GONE, message).retryable(true));
    }
    let id = run_id();
    let claim = Claim {
        namespace: place.gateway_namespace(config),
        gateway: format!("devcluster-{id}"),
        holder: holder(cx),
        duration: config.lease_duration,
        made: true,
    };
    cx.progress(
        "make",
        format!("making Gateway {} of GatewayClass {name}", claim.title()),
    );
    let record = Record::new(place.files.clone(), &place.minified.context, &claim);
    let session = held
        .session
        .insert(Session::intend(cx, &place.cluster, &record)?);
    if let Acquired::No(who) = session.acquire(|_| false).await? {
        return Err(StageError::internal(format!(
            "a name of our own is taken: {who}"
        )));
    }
    let gateway = own::make(&place.cluster, session, class, config.port_range).await?;
    if let Some(infrastructure) = &mut held.infrastructure {
        // From here on the Gateway keeps others from removing its class.
        infrastructure.unlock().await?;
    }
    Ok(Chosen {
        gateway,
        controller: Some(class.spec.controller_name.clone()),
        provisioned,
    })
}

pub(crate) fn no_class(reasons: Vec<String>) -> StageError {
    let message = "there is no GatewayClass of which a Gateway could be made";
    with_causes(StageError::new(NO_CLASS, message), reasons).hint(
        "have an admin install a controller that takes TCPRoutes, such as Contour's gateway provisioner, with a GatewayClass",
    )
}

fn with_causes(mut error: StageError, causes: Vec<String>) -> StageError {
    error.caused_by.extend(causes);
    error
}

/// A session that another Gateway was chosen over.
async fn give_back(slot: &mut Option<Session>) -> Result<(), StageError> {
    match slot.take() {
        Some(session) => session.release(false).await,
        None => Ok(()),
    }
}

/// Whose session it is, for people, and which one, for us.
pub(crate) fn holder(cx: &Context<Gateway>) -> String {
    let user = cx
        .env
        .get("USER")
        .filter(|user| !user.is_empty())
        .unwrap_or("somebody");
    format!("{user}/{}/{}", cx.instance, run_id())
}
