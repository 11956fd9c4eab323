//! Watches the Gateway after `ready`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use cluster::codes::FORBIDDEN;
use futures::StreamExt;
use protocol::{Context, StageError};
use tokio::sync::watch;

use crate::Gateway;
use crate::acquire::Selection;
use crate::config::Config;
use crate::objects::{self, GatewayObject, title};
use crate::outputs::Outputs;
use crate::readiness::{self, Events};

/// Pauses between attempts while credentials are rejected.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// What the stage reports: its outputs while Gateway and Lease are right, else what is wrong.
pub(crate) struct Health<'a> {
    cx: &'a Context<Gateway>,
    state: RefCell<State>,
    /// The allocations with ports on the Gateway.
    ports: &'a watch::Sender<BTreeSet<String>>,
}

struct State {
    outputs: Outputs,
    gateway: Option<StageError>,
    lease: Option<StageError>,
    /// What was reported last.
    reported: Option<StageError>,
}

impl<'a> Health<'a> {
    pub(crate) fn new(
        cx: &'a Context<Gateway>,
        outputs: Outputs,
        ports: &'a watch::Sender<BTreeSet<String>>,
    ) -> Self {
        let state = State {
            outputs,
            gateway: None,
            lease: None,
            reported: None,
        };
        Self {
            cx,
            state: RefCell::new(state),
            ports,
        }
    }

    /// Reports the outputs, or what is wrong with them.
    pub(crate) async fn ready(&self) -> Result<(), StageError> {
        let outputs = self.state.borrow().outputs.clone();
        match self.tell() {
            true => Ok(()),
            false => self.cx.ready(outputs).await,
        }
    }

    /// Reports what is wrong, each error once. Returns whether anything is.
    fn tell(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let wrong = state.lease.clone().or_else(|| state.gateway.clone());
        let same = |reported: &StageError, now: &StageError| {
            (&reported.code, &reported.message) == (&now.code, &now.message)
        };
        if let Some(error) = &wrong
            && !state
                .reported
                .as_ref()
                .is_some_and(|reported| same(reported, error))
        {
            self.cx.degraded(error.clone());
        }
        state.reported = wrong;
        state.reported.is_some()
    }

    /// Reports what is wrong with the Lease, and when it is right again.
    pub(crate) async fn follow_lease(
        &self,
        mut news: watch::Receiver<Option<StageError>>,
    ) -> Result<(), StageError> {
        while news.changed().await.is_ok() {
            let wrong = news.borrow_and_update().clone();
            self.state.borrow_mut().lease = wrong;
            self.ready().await?;
        }
        Ok(())
    }

    fn set_gateway(&self, wrong: StageError) {
        self.state.borrow_mut().gateway = Some(wrong);
        self.tell();
    }

    /// The Gateway has changed.
    async fn update(&self, gateway: &GatewayObject, found: &Selection) -> Result<(), StageError> {
        let ports = objects::allocations(gateway);
        self.ports.send_if_modified(|before| {
            let is_new = *before != ports;
            *before = ports;
            is_new
        });
        let address = match objects::address(gateway) {
            Ok(address) => address,
            Err(why) => {
                let context = &found.cluster.context;
                self.set_gateway(readiness::not_ready(gateway, &why, context));
                return Ok(());
            }
        };
        let (moved, was_wrong) = {
            let mut state = self.state.borrow_mut();
            let reported = &mut state.outputs.internal_task_gateway.gateway_ip;
            let moved = *reported != address;
            *reported = address.clone();
            (moved, state.gateway.take().is_some())
        };
        if moved {
            let name = title(gateway);
            self.cx
                .warn(format!("the address of Gateway {name} is now {address}"));
        }
        match was_wrong || moved {
            true => self.ready().await,
            false => Ok(()),
        }
    }
}

/// Reports changes of the Gateway. Ends only with an internal error.
pub(crate) async fn follow_gateway(
    health: &Health<'_>,
    config: &Config,
    found: Selection,
    events: Option<Events>,
) -> Result<(), StageError> {
    let (cx, name) = (health.cx, title(&found.gateway));
    let events_of = || readiness::events(&found.cluster, &found.gateway, config.lease_duration);
    let mut events = events.unwrap_or_else(events_of);
    let mut pause = SHORTEST;
    loop {
        let error = match events.next().await {
            Some(Ok(Some(seen))) => {
                pause = SHORTEST;
                health.update(&seen, &found).await?;
                continue;
            }
            Some(Ok(None)) => {
                health.set_gateway(readiness::deleted(&name));
                continue;
            }
            Some(Err(error)) => error,
            None => return Err(StageError::internal("the watch on the Gateway ended")),
        };
        match readiness::interrupted(&found.cluster.context, &found.gateway, &error) {
            // The Gateway works on without the watch, and the watch recovers.
            Ok(passing) => cx.debug(format!(
                "the watch on Gateway {name} was interrupted: {passing}"
            )),
            Err(forbidden) if forbidden.is(FORBIDDEN) => {
                cx.warn(format!(
                    "{forbidden}: changes of Gateway {name} will not be noticed"
                ));
                return std::future::pending().await;
            }
            // Once credentials are accepted, a resumed watch reports nothing; a new one does.
            Err(lasting) => {
                health.set_gateway(lasting);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
                events = events_of();
            }
        }
    }
}
