//! Numbers for one test at a time, on the whole machine: nextest runs each test in a process of its own.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// No other test gets the number of this kind while the value lives. The kernel releases it.
#[derive(Debug)]
pub(crate) struct Claim {
    _socket: UnixDatagram,
}

/// `None`: another test has it.
pub(crate) fn claim(kind: &str, number: u16) -> Option<Claim> {
    let name = SocketAddr::from_abstract_name(format!("devcluster-test-{kind}-{number}"));
    let socket = UnixDatagram::bind_addr(&name.expect("a name"));
    Some(Claim {
        _socket: socket.ok()?,
    })
}
