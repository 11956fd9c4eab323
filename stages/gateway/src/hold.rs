//! After ready: what becomes of the Gateway.

use std::time::Duration;

use futures::StreamExt;
use protocol::{Context, StageError};

use crate::config::Config;
use crate::objects::{self, State, title};
use crate::outputs::Outputs;
use crate::stage::Gateway;
use crate::take::Found;
use crate::wait;

/// The pauses between two looks while the credentials do not do.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Reports whatever changes, and ends only with an error of our own.
pub(crate) async fn hold(
    cx: &Context<Gateway>,
    config: &Config,
    found: Found,
    mut outputs: Outputs,
) -> Result<(), StageError> {
    let (cluster, mut gateway) = (found.cluster, found.gateway);
    let peer = &cluster.peer;
    let watch = |gateway: &_| wait::watch(&cluster, gateway, config.lease_duration);
    let mut events = found.events.unwrap_or_else(|| watch(&gateway));
    let name = title(&gateway);
    let mut wrong: Option<StageError> = None;
    let mut pause = SHORTEST;
    loop {
        let mut fresh = false;
        let news = match events.next().await {
            Some(Ok(Some(seen))) => {
                gateway = seen;
                pause = SHORTEST;
                match objects::state(&gateway) {
                    State::Ready(address) => {
                        let moved = address != outputs.internal_task_gateway.gateway_ip;
                        if moved {
                            cx.warn(format!("the address of Gateway {name} is {address} now"));
                            outputs.internal_task_gateway.gateway_ip = address;
                        }
                        if moved || wrong.take().is_some() {
                            wrong = None;
                            cx.ready(outputs.clone()).await?;
                        }
                        continue;
                    }
                    state => wait::not_ready(&gateway, &state, peer),
                }
            }
            Some(Ok(None)) => wait::deleted(&name),
            Some(Err(error)) => match wait::interrupted(peer, &gateway, &error) {
                // The Gateway serves on while nobody watches it, and the watch comes back.
                Ok(passing) => {
                    cx.debug(format!(
                        "the watch on Gateway {name} was interrupted: {passing}"
                    ));
                    continue;
                }
                Err(forbidden) if forbidden.code == "gateway.forbidden" => {
                    cx.warn(format!(
                        "{forbidden}: what becomes of Gateway {name} will not be noticed"
                    ));
                    return std::future::pending().await;
                }
                // Once they do, a watch that goes on where it was has no news; a new one has.
                Err(lasting) => {
                    fresh = true;
                    lasting
                }
            },
            None => return Err(StageError::internal("the watch on the Gateway ended")),
        };
        if wrong
            .as_ref()
            .is_none_or(|before| before.code != news.code || before.message != news.message)
        {
            cx.degraded(news.clone());
            wrong = Some(news);
        }
        if fresh {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
            events = watch(&gateway);
        }
    }
}
