//! Starts ssh and logs in.

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

/// A login is restarted at most this often because the network changed or another ssh was in the way. On some machines
/// the network changes all the time.
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

/// Starts ssh until a login succeeds or fails.
pub(super) async fn log_in(
    config: &Config,
    resolved: &Resolved,
    socket: &Path,
    network: &Network,
) -> Result<Started, StageError> {
    let server = resolved.server(config);
    let args = options::master(config, resolved, socket);
    // ssh has its own limit for each step, but none for a login that hangs.
    let limit = resolved.connect_timeout(config) * 2;
    let mut restarts = 0;
    loop {
        let (process, mut log, tasks) = start(&args)?;
        let mut unreached = log.clone();
        // The returned guard would block writers of the log.
        let reached = async { drop(unreached.wait_for(|log| log.reached).await) };
        // The kernel repeats an unanswered connect after growing pauses.
        let retry_sooner = async {
            tokio::select! {
                () = reached => std::future::pending().await,
                () = network.returned(), if resolved.direct_address().is_some() => {}
            }
        };
        let in_time = tokio::select! {
            up = timeout(limit, log.wait_for(|log| log.authenticated || log.ended || log.control_socket_in_use)) => up.is_ok(),
            () = retry_sooner => continue,
            // A captive portal may have answered before the change.
            () = network.changed(), if restarts < RESTARTS => {
                restarts += 1;
                continue;
            }
        };
        let (up, control_socket_in_use, lines) = {
            let log = log.borrow();
            (log.authenticated, log.control_socket_in_use, log.lines())
        };
        // A killed run's ssh was about to log in.
        if control_socket_in_use && restarts < RESTARTS {
            restarts += 1;
            drop(process);
            // Its socket would be in the way of the next login.
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

/// All addresses of the server, unless the config names one. IPv4's wildcard, because a server that is asked for any
/// address reports success with `[::]` alone while another program has the port on IPv4.
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
