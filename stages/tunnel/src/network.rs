//! Ends the pause before the next attempt when this machine's network changes or the server answers again.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, UnixDatagram};
use tokio::time::{sleep, timeout};

/// Time between two probes. A far link may go down and up without a change of our own network.
const PROBE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Network {
    changes: Option<UnixDatagram>,
    /// The address to probe; `None` if only the user's proxy reaches it.
    server: Option<(String, u16)>,
}

impl Network {
    pub(crate) fn new(server: Option<(String, u16)>) -> Network {
        Network {
            changes: changes().ok(),
            server,
        }
    }

    /// Waits until an address or a route of this machine changes.
    pub(crate) async fn changed(&self) {
        let Some(changes) = &self.changes else {
            return std::future::pending().await;
        };
        // The content does not matter: an attempt shows whether the network works.
        let mut scrap = [0; 4096];
        if changes.recv(&mut scrap).await.is_ok() {
            while changes.try_recv(&mut scrap).is_ok() {}
        }
    }

    /// Waits for such a change, or until the server accepts a connection.
    pub(crate) async fn returned(&self) {
        tokio::select! {
            () = self.changed() => {}
            () = self.answered() => {}
        }
    }

    async fn answered(&self) {
        let Some((host, port)) = &self.server else {
            return std::future::pending().await;
        };
        loop {
            // Jitter: many tunnels that lost the same server do not probe at once.
            sleep(PROBE.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            let probe = TcpStream::connect((host.as_str(), *port));
            if matches!(timeout(PROBE, probe).await, Ok(Ok(_))) {
                return;
            }
        }
    }
}

/// The kernel's messages about links, addresses and routes. tokio has no type for netlink sockets, but receives from
/// any datagram socket.
#[cfg(target_os = "linux")]
fn changes() -> io::Result<UnixDatagram> {
    use rustix::net::netlink::SocketAddrNetlink;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

    /// RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE.
    const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // NETLINK_ROUTE is protocol 0.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    UnixDatagram::from_std(socket.into())
}

/// On other systems the server's answer to a probe is enough.
#[cfg(not(target_os = "linux"))]
fn changes() -> io::Result<UnixDatagram> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_server_that_answers_again_ends_the_pause() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let network = Network {
            changes: None,
            server: Some(("127.0.0.1".into(), port)),
        };
        assert!(timeout(PROBE * 2, network.returned()).await.is_err());
        let _back = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        timeout(PROBE * 3, network.returned()).await.unwrap();
    }
}
