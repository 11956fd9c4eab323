//! After ready: what becomes of the Gateway.

use futures::StreamExt;
use protocol::{Context, StageError};

use crate::fault::Peer;
use crate::objects::{self, GatewayObject, State, title};
use crate::outputs::Outputs;
use crate::stage::Gateway;
use crate::wait::{self, Events};

/// Reports whatever changes, and ends only with an error of our own.
pub(crate) async fn hold(
    cx: &Context<Gateway>,
    peer: &Peer,
    mut events: Events,
    mut gateway: GatewayObject,
    mut outputs: Outputs,
) -> Result<(), StageError> {
    let name = title(&gateway);
    let mut wrong: Option<StageError> = None;
    loop {
        let news = match events.next().await {
            Some(Ok(Some(seen))) => {
                gateway = seen;
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
                Err(lasting) => lasting,
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
    }
}
