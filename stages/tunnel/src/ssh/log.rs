//! What ssh writes at `LogLevel=DEBUG1`, understood line by line. Tried on OpenSSH 9.2.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;
use tokio::time::sleep;

/// A visitor of a forwarded port, as the server saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The port of the server that was visited.
    pub(crate) listen_port: u16,
    /// The visitor's source port.
    pub(crate) origin_port: u16,
}

/// Why the server does not listen on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Somebody else does. The server gives no reason in this case.
    Taken,
    /// It forwards nothing for this user.
    Disabled,
    /// It does not forward this port for this user.
    NotPermitted,
}

const REFUSED: &str = "mux_confirm_remote_forward: failure for: listen ";
const ARRIVED: &str = "client_request_forwarded_tcpip: listen ";

/// The ports at the ends of the two parts of such a line: `0.0.0.0 port 9300`, `[::]:9300`, `9300`.
fn numbers(line: &str, start: &str, between: &str) -> Option<(Option<u16>, Option<u16>)> {
    let (listen, other) = line.strip_prefix(start)?.split_once(between)?;
    let last = |text: &str| text.rsplit([' ', ':']).next()?.parse().ok();
    Some((last(listen), last(other)))
}

/// What one ssh process wrote so far.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The server took the connection.
    pub(crate) reached: bool,
    /// Logged in, and the control socket takes requests.
    pub(crate) authenticated: bool,
    /// Logged in, and another ssh has the control socket.
    pub(crate) control_socket_in_use: bool,
    pub(crate) ended: bool,
    /// The server asked whether we are still there.
    pub(crate) keepalive_requested: bool,
    arrivals: VecDeque<Arrival>,
    /// How many there were.
    pub(crate) arrived: u64,
    refusals: VecDeque<(u16, Refusal)>,
    tail: VecDeque<String>,
    /// The server's; the refusal itself comes right after it.
    reason: Option<Refusal>,
}

/// Enough for the longest complaint of ssh, with the debug lines around it.
const TAIL: usize = 200;
/// A probe looks for its own arrival within seconds; that many visitors in between are not to be expected.
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

    /// Acts upon what a debug line says, where that is of use.
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

    /// The arrivals after the first `count`, latest first.
    pub(crate) fn arrivals_since(&self, count: u64) -> impl Iterator<Item = &Arrival> {
        self.arrivals
            .iter()
            .rev()
            .take((self.arrived - count) as usize)
    }

    /// Why the server did not listen on a port when it was last asked to.
    pub(crate) fn refusal(&self, port: u16) -> Option<Refusal> {
        let mut latest_first = self.refusals.iter().rev();
        latest_first.find(|(p, _)| *p == port).map(|(_, why)| *why)
    }

    /// Its last lines.
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

/// ssh writes some eight lines about each visitor. Where many come, to be woken for each line takes time from ssh
/// on a machine with few cores; a pipe holds the lines of a hundred.
const VISITORS: Duration = Duration::from_millis(5);

/// Reads until the end. Never stops reading: an ssh whose stderr is full stands still.
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
