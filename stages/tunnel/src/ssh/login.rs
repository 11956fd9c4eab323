//! From an ssh that is started to one that is logged in.

use std::ffi::OsString;
use std::path::Path;

use protocol::StageError;
use protocol::child::{self, SupervisedChild};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::log::{self, Log};
use super::{ANY_IPV4, Resolved, failure, options, socket};
use crate::config::{Config, Verify};
use crate::network::Network;

/// So often a login begins again because the network changed, or another ssh was in its way. Some machines' networks change
/// all the time.
const RESTARTS: u32 = 3;

type Started = (SupervisedChild, watch::Receiver<Log>, JoinSet<()>);

fn start(args: &[OsString]) -> Result<Started, StageError> {
    let mut process = child::spawn("ssh", args).map_err(|e| options::not_started(&e))?;
    let stderr = process.child.stderr.take();
    let stderr = stderr.ok_or_else(|| StageError::internal("ssh without stderr"))?;
    let (sender, log) = watch::channel(Log::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(log::drain(stderr, sender));
    Ok((process, log, tasks))
}

/// Starts ssh until one is logged in, or failed for good.
pub(super) async fn log_in(
    config: &Config,
    resolved: &Resolved,
    socket: &Path,
    network: &Network,
) -> Result<Started, StageError> {
    let server = resolved.server(config);
    let args = options::master(config, resolved, socket);
    // ssh has a limit of its own for each step; a login that hangs has none.
    let limit = resolved.connect_timeout(config) * 2;
    let mut restarts = 0;
    loop {
        let (process, mut log, tasks) = start(&args)?;
        let mut unreached = log.clone();
        // The guard that it returns would keep the log from being written.
        let reached = async { drop(unreached.wait_for(|log| log.reached).await) };
        // A connect that got no answer is repeated by the kernel after ever longer pauses.
        let retry_sooner = async {
            tokio::select! {
                () = reached => std::future::pending().await,
                () = network.returned(), if resolved.direct_address().is_some() => {}
            }
        };
        let in_time = tokio::select! {
            up = timeout(limit, log.wait_for(|log| log.authenticated || log.ended || log.control_socket_in_use)) => up.is_ok(),
            () = retry_sooner => continue,
            // Whoever answered before the change, such as a captive portal, may not have been the server.
            () = network.changed(), if restarts < RESTARTS => {
                restarts += 1;
                continue;
            }
        };
        let (up, control_socket_in_use, lines) = {
            let log = log.borrow();
            (log.authenticated, log.control_socket_in_use, log.lines())
        };
        // One of an earlier run was about to log in when that run was killed.
        if control_socket_in_use && restarts < RESTARTS {
            restarts += 1;
            drop(process);
            // What is left of it would show at the next login.
            drop(socket::end(socket).await);
            continue;
        }
        return match in_time {
            true if up && !control_socket_in_use => Ok((process, log, tasks)),
            true => Err(failure::connecting_error(&lines, &server)),
            false => Err(failure::timeout_error(&lines, &server, limit.as_secs_f64())),
        };
    }
}

/// All addresses of the server, unless the config says otherwise. Asked for as IPv4's: a server that is asked for any
/// address takes `[::]` alone for a success while somebody else has the port on IPv4.
pub(super) async fn bind_address(config: &Config, resolved: &Resolved) -> String {
    if let Some(address) = &config.bind_address {
        return address.clone();
    }
    let host = resolved
        .separate_public_host(config)
        .unwrap_or(&resolved.host);
    let addresses = match config.verify {
        Verify::Off => None,
        _ => tokio::net::lookup_host((host, 0)).await.ok(),
    };
    let mut addresses = addresses.into_iter().flatten().peekable();
    let only_ipv6 = addresses.peek().is_some() && addresses.all(|a| a.is_ipv6());
    if only_ipv6 { "*" } else { ANY_IPV4 }.to_owned()
}
