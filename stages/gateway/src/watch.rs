//! Watches the Gateway after `ready`.

use std::time::Duration;

use cluster::Cluster;
use cluster::codes::FORBIDDEN;
use futures::StreamExt;
use protocol::{Context, StageError};

use crate::Gateway;
use crate::acquire::Selection;
use crate::config::Config;
use crate::objects::{self, GatewayObject, title};
use crate::outputs::Outputs;
use crate::readiness::{self, Events};

/// Pauses between attempts while credentials are rejected.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Reports changes. Ends only with an internal error.
pub(crate) async fn watch(
    cx: &Context<Gateway>,
    config: &Config,
    found: Selection,
    events: Option<Events>,
    outputs: Outputs,
) -> Result<(), StageError> {
    let name = title(&found.gateway);
    let mut held = WatchedGateway {
        cx,
        cluster: found.cluster.clone(),
        gateway: found.gateway,
        outputs,
        wrong: None,
    };
    let watch = |gateway: &_| readiness::events(&found.cluster, gateway, config.lease_duration);
    let mut events = events.unwrap_or_else(|| watch(&held.gateway));
    let mut pause = SHORTEST;
    loop {
        let error = match events.next().await {
            Some(Ok(Some(seen))) => {
                pause = SHORTEST;
                held.update(seen).await?;
                continue;
            }
            Some(Ok(None)) => {
                held.degraded(readiness::deleted(&name));
                continue;
            }
            Some(Err(error)) => error,
            None => return Err(StageError::internal("the watch on the Gateway ended")),
        };
        match readiness::interrupted(&found.cluster.context, &held.gateway, &error) {
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
                held.degraded(lasting);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
                events = watch(&held.gateway);
            }
        }
    }
}

struct WatchedGateway<'a> {
    cx: &'a Context<Gateway>,
    cluster: Cluster,
    gateway: GatewayObject,
    outputs: Outputs,
    /// The error that is reported and still true.
    wrong: Option<StageError>,
}

impl WatchedGateway<'_> {
    async fn update(&mut self, gateway: GatewayObject) -> Result<(), StageError> {
        self.gateway = gateway;
        let address = match objects::address(&self.gateway) {
            Ok(address) => address,
            Err(why) => {
                let error = readiness::not_ready(&self.gateway, &why, &self.cluster.context);
                self.degraded(error);
                return Ok(());
            }
        };
        let reported = &mut self.outputs.internal_task_gateway.gateway_ip;
        let moved = *reported != address;
        if moved {
            let name = title(&self.gateway);
            self.cx
                .warn(format!("the address of Gateway {name} is now {address}"));
            *reported = address;
        }
        if self.wrong.take().is_some() || moved {
            self.cx.ready(self.outputs.clone()).await?;
        }
        Ok(())
    }

    /// Reports each error once.
    fn degraded(&mut self, error: StageError) {
        let same =
            |before: &StageError| (&before.code, &before.message) == (&error.code, &error.message);
        if !self.wrong.as_ref().is_some_and(same) {
            self.cx.degraded(error.clone());
            self.wrong = Some(error);
        }
    }
}
