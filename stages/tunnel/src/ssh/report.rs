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
fn numbers(told: &str, start: &str, between: &str) -> Option<(Option<u16>, Option<u16>)> {
    let (listen, other) = told.strip_prefix(start)?.split_once(between)?;
    let last = |text: &str| text.rsplit([' ', ':']).next()?.parse().ok();
    Some((last(listen), last(other)))
}

/// What one ssh process wrote so far.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The server took the connection.
    pub(crate) reached: bool,
    /// Logged in, and the control socket takes requests.
    pub(crate) up: bool,
    /// Logged in, and another ssh has the control socket.
    pub(crate) displaced: bool,
    pub(crate) ended: bool,
    /// The server asked whether we are still there.
    pub(crate) was_asked: bool,
    arrivals: VecDeque<Arrival>,
    arrived: u64,
    pub(crate) refusals: VecDeque<(u16, Refusal)>,
    tail: VecDeque<String>,
    /// The server's; the refusal itself comes right after it.
    reason: Option<Refusal>,
}

/// Enough for the longest complaint of ssh, with the debug lines around it.
const TAIL: usize = 200;
/// A probe looks for its own arrival within seconds; that many visitors in between are not to be expected.
const EVENTS: usize = 4096;

impl Log {
    fn take(&mut self, line: String) {
        if let Some(told) = line.trim_end().strip_prefix("debug1: ") {
            self.hear(told);
        } else if line.starts_with("ControlSocket ") && line.contains(" already exists") {
            self.displaced = true;
        }
        push(&mut self.tail, line, TAIL);
    }

    /// Acts upon what a debug line says, where that is of use.
    fn hear(&mut self, told: &str) {
        match told {
            "Connection established." => self.reached = true,
            "Entering interactive session." => self.up = true,
            "Remote: Server has disabled port forwarding." => self.reason = Some(Refusal::Disabled),
            "Remote: port forwarding refused" => self.reason = Some(Refusal::NotPermitted),
            _ if told.starts_with("client_input_global_request: rtype keepalive@openssh.com") => {
                self.was_asked = true;
            }
            _ => {
                if let Some(port) = numbers(told, REFUSED, ", connect ").and_then(|n| n.0) {
                    let refusal = self.reason.take().unwrap_or(Refusal::Taken);
                    push(&mut self.refusals, (port, refusal), EVENTS);
                } else if let Some((Some(listen_port), Some(origin_port))) =
                    numbers(told, ARRIVED, ", originator ")
                {
                    self.add_arrival(Arrival {
                        listen_port,
                        origin_port,
                    });
                }
            }
        }
    }

    pub(crate) fn add_arrival(&mut self, arrival: Arrival) {
        push(&mut self.arrivals, arrival, EVENTS);
        self.arrived += 1;
    }

    pub(crate) fn arrivals_so_far(&self) -> u64 {
        self.arrived
    }

    /// The arrivals after the first `count`, latest first.
    pub(crate) fn arrivals_since(&self, count: u64) -> impl Iterator<Item = &Arrival> {
        self.arrivals
            .iter()
            .rev()
            .take((self.arrived - count) as usize)
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
        log.send_modify(|log| log.take(text));
        line.clear();
        let so_far = log.borrow().arrivals_so_far();
        if so_far > visited && stderr.buffer().is_empty() {
            visited = so_far;
            sleep(VISITORS).await;
        }
    }
    log.send_modify(|log| log.ended = true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrival_is_read_with_both_of_its_ports() {
        for (listen, port) in [
            ("localhost", 9101),
            ("0.0.0.0", 9300),
            ("::", 9300),
            ("", 9300),
        ] {
            let line = format!(
                "debug1: client_request_forwarded_tcpip: listen {listen} port {port}, originator 127.0.0.1 port 54004"
            );
            let mut log = Log::default();
            log.take(line);
            let arrival = Arrival {
                listen_port: port,
                origin_port: 54004,
            };
            assert_eq!(log.arrivals, [arrival]);
        }
    }

    #[test]
    fn a_refusal_carries_the_reason_that_came_before_it() {
        let mut log = Log::default();
        for line in [
            "debug1: Remote: Server has disabled port forwarding.",
            "debug1: mux_confirm_remote_forward: failure for: listen 9100, connect 127.0.0.1:9999",
            "mux_confirm_remote_forward: remote port forwarding failed for listen port 9100",
            "debug1: Remote: port forwarding refused",
            "debug1: mux_confirm_remote_forward: failure for: listen 0.0.0.0:9101, connect 127.0.0.1:9999",
            "debug1: mux_confirm_remote_forward: failure for: listen 9102, connect 127.0.0.1:9999",
        ] {
            log.take(line.to_owned());
        }
        let expected = [
            (9100, Refusal::Disabled),
            (9101, Refusal::NotPermitted),
            (9102, Refusal::Taken),
        ];
        assert_eq!(log.refusals, expected);
    }

    #[test]
    fn an_ssh_that_found_its_socket_taken_says_so() {
        let mut log = Log::default();
        log.take("ControlSocket /run/x/tunnel.ssh already exists, disabling multiplexing\r".into());
        assert!(log.displaced);
    }

    #[tokio::test]
    async fn the_log_keeps_its_tail_and_knows_its_end() {
        let mut text = "x\n".repeat(TAIL + 7).into_bytes();
        text.extend(b"debug1: Entering interactive session.\r\nlast, and not \xff utf-8");
        let (sender, log) = watch::channel(Log::default());
        drain(&text[..], sender).await;
        let log = log.borrow();
        assert!(log.up && log.ended);
        assert_eq!(log.tail.len(), TAIL);
        assert_eq!(
            log.tail.back().map(String::as_str),
            Some("last, and not \u{fffd} utf-8")
        );
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_read(line in "(debug1: )?(client_request_forwarded_tcpip: listen )?\\PC*") {
            Log::default().take(line);
        }
    }
}
