//! From a cluster to a Gateway that is ours: look, choose, take or make, wait.

use std::path::PathBuf;
use std::time::Duration;

use cluster::client::Cluster;
use cluster::kubeconfig;
use cluster::minify::{Minified, minify};
use cluster::reach::Way;
use protocol::{Context, StageError};

use crate::choose::choose;
use crate::claim::{CLASS_GONE, claim};
use crate::config::Config;
use crate::lease::Claim;
use crate::objects::{self, GatewayObject};
use crate::permissions;
use crate::provision::{self, Infrastructure};
use crate::raise::raise;
use crate::rivals::Rivals;
use crate::session::{Record, Session, undo_on};
use crate::stage::Gateway;
use crate::survey::{Survey, Wanted, survey};
use crate::wait::{self, Events};

/// A Gateway that works, and what is needed to watch over it.
pub(crate) struct Found {
    pub(crate) minified: Minified,
    pub(crate) cluster: Cluster,
    pub(crate) gateway: GatewayObject,
    pub(crate) address: String,
    pub(crate) controller: Option<String>,
    pub(crate) provisioned: bool,
    pub(crate) max_listeners: u32,
    pub(crate) events: Option<Events>,
}

/// The Gateway before it works.
pub(crate) struct Chosen {
    pub(crate) gateway: GatewayObject,
    pub(crate) controller: Option<String>,
    /// Whether its controller was installed by us.
    pub(crate) provisioned: bool,
}

/// A connected cluster, as the config names it.
pub(crate) struct Place {
    pub(crate) minified: Minified,
    pub(crate) cluster: Cluster,
    pub(crate) files: Vec<PathBuf>,
}

impl Place {
    /// Where a Gateway of ours is made, and its Lease.
    pub(crate) fn gateway_namespace(&self, config: &Config) -> String {
        let set = config.gateway_namespace.clone();
        set.unwrap_or_else(|| self.minified.namespace())
    }

    pub(crate) fn way(&self) -> Way {
        Way {
            kubeconfig: self.files.clone(),
            context: self.minified.context.clone(),
        }
    }
}

pub(crate) async fn connect(cx: &Context<Gateway>, config: &Config) -> Result<Place, StageError> {
    let files = kubeconfig::files(config.kubeconfig.as_deref(), &cx.env);
    let minified = minify(
        &kubeconfig::load_files(&files)?,
        config.k8s_context.as_deref(),
    )?;
    let context = &minified.context;
    cx.progress(
        "connect",
        format!("asking the API of context {context:?} for its Gateways"),
    );
    let cluster = Cluster::connect(&minified, config.patience(), &cx.env).await?;
    Ok(Place {
        minified,
        cluster,
        files,
    })
}

/// Only looks: for a Gateway that somebody else holds up.
pub(crate) async fn find(cx: &Context<Gateway>, config: &Config) -> Result<Found, StageError> {
    let place = connect(cx, config).await?;
    let (wanted, ours) = (Wanted::of(config), ours(cx, &place.minified.context));
    let survey = survey(&place.cluster, &wanted).await?;
    let mut rivals = Rivals::of_leases(&survey.leases);
    rivals
        .ask(&place.cluster, &survey.gateways, ours.as_deref())
        .await;
    let choice = choose(&survey, &wanted, ours.as_deref(), &rivals)?;
    choice.tell(cx);
    let namespace = objects::namespace(&choice.gateway).to_owned();
    let claim = Claim {
        gateway: objects::name(&choice.gateway).to_owned(),
        namespace,
        holder: String::new(),
        duration: 0,
        made: false,
    };
    let chosen = Chosen {
        gateway: choice.gateway,
        controller: choice.controller,
        provisioned: choice.provisioned,
    };
    ready(cx, config, place, &survey, chosen, &claim).await
}

/// A Gateway that is ours, working or not.
pub(crate) struct Taken {
    place: Place,
    survey: Survey,
    chosen: Chosen,
    claim: Claim,
}

impl Taken {
    /// Waits until it works.
    pub(crate) async fn ready(
        self,
        cx: &Context<Gateway>,
        config: &Config,
    ) -> Result<Found, StageError> {
        ready(
            cx,
            config,
            self.place,
            &self.survey,
            self.chosen,
            &self.claim,
        )
        .await
    }
}

/// What is ours on the cluster by now, to be given back in the end.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) session: Option<Session>,
    pub(crate) infrastructure: Option<Infrastructure>,
}

impl Held {
    /// Everything that takes one round of requests; the rest is in the ledger.
    pub(crate) async fn release(
        self,
        cx: &Context<Gateway>,
        leave: bool,
    ) -> Result<(), StageError> {
        let session = async {
            match self.session {
                Some(session) => session.release(leave).await,
                None => Ok(()),
            }
        };
        let infrastructure = async {
            match self.infrastructure {
                Some(infrastructure) => infrastructure.release(cx, leave).await,
                None => Ok(()),
            }
        };
        let (session, infrastructure) = tokio::join!(session, infrastructure);
        session.and(infrastructure)
    }
}

/// How often the cluster may change under us before that is an error.
const ATTEMPTS: u32 = 4;

/// Takes or makes a Gateway, and installs a controller if it comes to that. What has to be undone is in `held` before the
/// first request for it.
pub(crate) async fn take(
    cx: &Context<Gateway>,
    config: &Config,
    held: &mut Held,
) -> Result<Taken, StageError> {
    let place = connect(cx, config).await?;
    held.session = resume(cx, &place).await?;
    let (mut attempts, mut installed) = (0, false);
    let (survey, chosen, claim) = loop {
        let error = match once(cx, config, &place, held).await {
            Ok(all) => break all,
            Err(error) => error,
        };
        attempts += 1;
        if error.code == CLASS_GONE && attempts < ATTEMPTS {
            cx.info(error.message);
        } else if !installed && provision::mends(config, &error) {
            provision::offer(cx, config, &place, &mut held.infrastructure, error).await?;
            installed = true;
        } else {
            return Err(error);
        }
    };
    Ok(Taken {
        place,
        survey,
        chosen,
        claim,
    })
}

async fn once(
    cx: &Context<Gateway>,
    config: &Config,
    place: &Place,
    held: &mut Held,
) -> Result<(Survey, Chosen, Claim), StageError> {
    let mut survey = survey(&place.cluster, &Wanted::of(config)).await?;
    if let Some(limit) = config
        .raise_max_items
        .filter(|it| *it > survey.max_listeners)
    {
        raise(&place.cluster, limit).await?;
        survey.max_listeners = limit;
        cx.warn(format!(
            "the CRD of Gateways allows {limit} listeners now, on every Gateway of this cluster; installing it again undoes that"
        ));
    }
    let chosen = claim(cx, config, place, &survey, held).await?;
    let claim = match &held.session {
        Some(session) => session.claim.clone(),
        None => return Err(StageError::internal("a Gateway without a session")),
    };
    Ok((survey, chosen, claim))
}

/// The session of a run that died, if its Lease is still ours. What cannot be gone on with is given back.
async fn resume(cx: &Context<Gateway>, place: &Place) -> Result<Option<Session>, StageError> {
    let mut resumed = None;
    for entry in cx.ledger.entries() {
        let Some(record) = Record::of(&entry).filter(|it| it.context == place.minified.context)
        else {
            continue;
        };
        if resumed.is_none() {
            resumed = Session::resume(cx, &place.cluster, &entry, &record).await?;
            if let Some(session) = &resumed {
                cx.info(format!("Gateway {} is still ours", session.claim.title()));
                continue;
            }
        }
        match undo_on(&place.cluster, &record.claim()).await {
            Ok(_) => cx.ledger.take_up(&entry).settle()?,
            Err(error) => cx.warn(format!("an earlier session is not given back yet: {error}")),
        }
    }
    Ok(resumed)
}

async fn ready(
    cx: &Context<Gateway>,
    config: &Config,
    place: Place,
    survey: &Survey,
    chosen: Chosen,
    claim: &Claim,
) -> Result<Found, StageError> {
    let Place {
        minified, cluster, ..
    } = place;
    let waits = async {
        if let objects::State::Ready(address) = objects::state(&chosen.gateway) {
            return Ok((chosen.gateway, address, None));
        }
        let mut events = wait::watch(&cluster, &chosen.gateway, config.lease_duration);
        let timeout = Duration::from_secs(config.timeout);
        let tell = |line| cx.progress("wait", line);
        let (gateway, address) =
            wait::until_ready(&mut events, chosen.gateway, &cluster.peer, timeout, tell).await?;
        Ok((gateway, address, Some(events)))
    };
    let ((gateway, address, events), ()) = tokio::try_join!(
        waits,
        permissions::review(
            &cluster,
            &claim.namespace,
            &config.task_namespace,
            claim.made
        )
    )?;
    Ok(Found {
        minified,
        cluster,
        gateway,
        address,
        controller: chosen.controller,
        provisioned: chosen.provisioned,
        max_listeners: survey.max_listeners,
        events,
    })
}

/// The Gateway of our run before, if it was on this cluster.
pub(crate) fn ours(cx: &Context<Gateway>, context: &str) -> Option<String> {
    let previous = cx
        .previous()
        .filter(|previous| previous.context == context)?;
    let gateway = previous.internal_task_gateway;
    Some(format!(
        "{}/{}",
        gateway.gateway_namespace, gateway.gateway_name
    ))
}
