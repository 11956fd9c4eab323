//! What comes out of a pipe, write by write.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::Interest;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;

/// More than a stage has to say; a flood is kept to this.
const KEPT: usize = 16 << 20;

/// The largest write that the kernel keeps in one piece.
const PACKET: usize = 4096;

/// What came so far. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    state: Arc<Mutex<State>>,
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// Where each write ends.
    writes: Vec<usize>,
    /// The last packet was full: the write may go on in the next one.
    goes_on: bool,
    closed: bool,
}

/// A pipe whose reading end sees where each write ends, where the kernel has that.
pub(super) fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    use rustix::pipe::{PipeFlags, pipe_with};
    #[cfg(target_os = "linux")]
    {
        let pipe = pipe_with(PipeFlags::DIRECT | PipeFlags::CLOEXEC)?;
        // Each write takes a page, however small: with 16 of them a stage might have to wait for us.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe.1, 1 << 20);
        Ok(pipe)
    }
    #[cfg(not(target_os = "linux"))]
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

impl Heard {
    /// Listens until the last writer is gone.
    pub(super) async fn listen(self, pipe: Receiver) {
        let mut packet = [0; PACKET];
        while pipe.ready(Interest::READABLE).await.is_ok() {
            match pipe.try_read(&mut packet) {
                Ok(0) => break,
                Ok(n) => self.take(&packet[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        self.state().closed = true;
        self.news.notify_waiters();
    }

    fn take(&self, packet: &[u8]) {
        let mut state = self.state();
        if state.bytes.len() < KEPT {
            state.bytes.extend_from_slice(packet);
        }
        let end = state.bytes.len();
        if state.goes_on {
            state.writes.pop();
        }
        state.writes.push(end);
        state.goes_on = packet.len() == PACKET;
        drop(state);
        self.news.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything so far.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    /// The same as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.state().bytes).into_owned()
    }

    /// The writes so far.
    pub(super) fn writes(&self) -> Vec<Vec<u8>> {
        let state = self.state();
        let starts = std::iter::once(&0).chain(&state.writes);
        let spans = starts.zip(&state.writes);
        spans.map(|(a, b)| state.bytes[*a..*b].to_vec()).collect()
    }

    /// The whole lines from this byte on, and where they end.
    pub(super) fn lines_from(&self, from: usize) -> (Vec<Vec<u8>>, usize) {
        let state = self.state();
        let new = &state.bytes[from.min(state.bytes.len())..];
        let end = new.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let lines = new[..end].split_inclusive(|b| *b == b'\n');
        (lines.map(<[u8]>::to_vec).collect(), from + end)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Resolves when more came or the end did. Ask for it before looking at what is there.
    pub(super) fn news(&self) -> impl Future<Output = ()> + '_ {
        let mut notified = Box::pin(self.news.notified());
        notified.as_mut().enable();
        notified
    }
}
