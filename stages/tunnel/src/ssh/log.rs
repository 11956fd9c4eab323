//! Parses what ssh writes at `LogLevel=DEBUG1`, line by line. Tested with OpenSSH 9.2.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;
use tokio::time::sleep;

/// A visitor of a forwarded port, as the server reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The visited port of the server.
    pub(crate) listen_port: u16,
    /// The visitor's source port.
    pub(crate) origin_port: u16,
}

/// Why the server refused to listen on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another program listens there. The server gives no reason in this case.
    Taken,
    /// The server forwards nothing for this user.
    Disabled,
    /// The server does not forward this port for this user.
    NotPermitted,
}

const REFUSED: &str = "mux_confirm_remote_forward: failure for: listen ";
const ARRIVED: &str = "client_request_forwarded_tcpip: listen ";

/// Parses the port numbers of a line's two parts: `0.0.0.0 port 9300`, `[::]:9300`, `9300`.
fn numbers(line: &str, start: &str, between: &str) -> Option<(Option<u16>, Option<u16>)> {
    let (listen, other) = line.strip_prefix(start)?.split_once(between)?;
    let last = |text: &str| text.rsplit([' ', ':']).next()?.parse().ok();
    Some((last(listen), last(other)))
}

/// What one ssh process has written so far.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The server accepted the connection.
    pub(crate) reached: bool,
    /// The login succeeded, and the control socket accepts requests.
    pub(crate) authenticated: bool,
    /// The login succeeded, but another ssh has the control socket.
    pub(crate) control_socket_in_use: bool,
    pub(crate) ended: bool,
    /// The server sent a keepalive.
    pub(crate) keepalive_requested: bool,
    arrivals: VecDeque<Arrival>,
    /// How many visitors arrived so far.
    pub(crate) arrived: u64,
    refusals: VecDeque<(u16, Refusal)>,
    tail: VecDeque<String>,
    /// The server's reason; ssh reports the refusal right after it.
    reason: Option<Refusal>,
}

/// Enough for ssh's longest message with the debug lines around it.
const TAIL: usize = 200;
/// A probe waits seconds for its own arrival; more visitors than this in between are not expected.
const EVENTS: usize = 4096;

impl Log {
    fn push_line(&mut self, line: String) {
        if let Some(line) = line.trim_end().strip_prefix("debug1: ") {
            self.parse_debug_line(line);
        } else if line.starts_with("ControlSocket ") && line.contains(" already exists") {
            self.control_socket_in_use = true;
        }
        push(&mut self.tail, line, TAIL);
    }

    /// Records what a debug line reports.
    fn parse_debug_line(&mut self, line: &str) {
        match line {
            "Connection established." => self.reached = true,
            "Entering interactive session." => self.authenticated = true,
            "Remote: Server has disabled port forwarding." => self.reason = Some(Refusal::Disabled),
            "Remote: port forwarding refused" => self.reason = Some(Refusal::NotPermitted),
            _ if line.starts_with("client_input_global_request: rtype keepalive@openssh.com") => {
                self.keepalive_requested = true;
            }
            _ => {
                if let Some(port) = numbers(line, REFUSED, ", connect ").and_then(|n| n.0) {
                    let refusal = self.reason.take().unwrap_or(Refusal::Taken);
                    push(&mut self.refusals, (port, refusal), EVENTS);
                } else if let Some((Some(listen_port), Some(origin_port))) =
                    numbers(line, ARRIVED, ", originator ")
                {
                    let arrival = Arrival {
                        listen_port,
                        origin_port,
                    };
                    push(&mut self.arrivals, arrival, EVENTS);
                    self.arrived += 1;
                }
            }
        }
    }

    /// The arrivals after the first `count`, newest first.
    pub(crate) fn arrivals_since(&self, count: u64) -> impl Iterator<Item = &Arrival> {
        self.arrivals
            .iter()
            .rev()
            .take((self.arrived - count) as usize)
    }

    /// Why the server last refused to listen on a port.
    pub(crate) fn refusal(&self, port: u16) -> Option<Refusal> {
        let mut latest_first = self.refusals.iter().rev();
        latest_first.find(|(p, _)| *p == port).map(|(_, why)| *why)
    }

    /// The last lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }
}

fn push<T>(ring: &mut VecDeque<T>, item: T, limit: usize) {
    if ring.len() == limit {
        ring.pop_front();
    }
    ring.push_back(item);
}

/// ssh writes about eight lines per visitor. With many visitors, a wake-up per line takes time from ssh on a machine
/// with few cores; the pipe buffers the lines of a hundred visitors.
const VISITORS: Duration = Duration::from_millis(5);

/// Reads until the end. Reading never stops: an ssh whose stderr is full blocks.
pub(crate) async fn drain(stderr: impl AsyncRead + Unpin, log: watch::Sender<Log>) {
    let mut stderr = BufReader::with_capacity(64 * 1024, stderr);
    let (mut line, mut visited) = (Vec::new(), 0);
    while stderr
        .read_until(b'\n', &mut line)
        .await
        .is_ok_and(|n| n > 0)
    {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        log.send_modify(|log| log.push_line(text));
        line.clear();
        let so_far = log.borrow().arrived;
        if so_far > visited && stderr.buffer().is_empty() {
            visited = so_far;
            sleep(VISITORS).await;
        }
    }
    log.send_modify(|log| log.ended = true);
}
