//! Visitors of a guarded port, from ssh's socket to the local side.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Guard, State, Word, locked};

/// How long a visitor waits for an examination.
const WAIT: Duration = Duration::from_secs(2);
/// How long a visitor may take to send a word while one is expected.
const FIRST_BYTES: Duration = Duration::from_millis(500);
/// ssh writes at most this much at once.
const BUFFER: usize = 64 * 1024;
/// Descriptors run out: the next visitor may come when another has left.
const FULL: Duration = Duration::from_millis(100);
/// Each visitor takes two descriptors; the usual limit is 1024.
const DESCRIPTORS: u64 = 65_536;

/// Raises the limit of open descriptors as far as the system lets us.
pub(super) fn allow_many() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if current.is_some_and(|now| now < wanted) {
        let current = Some(wanted);
        // With fewer descriptors there are fewer visitors.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    }
}

/// Receives visitors until dropped.
pub(super) async fn receive_all(guard: Arc<Guard>, listener: UnixListener) {
    let mut visitors = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((visitor, _)) => drop(visitors.spawn(receive(guard.clone(), visitor))),
                Err(_) => sleep(FULL).await,
            },
            Some(_) = visitors.join_next() => {}
        }
    }
}

async fn receive(guard: Arc<Guard>, mut visitor: UnixStream) {
    let Some(first_bytes) = guard.without_word(&mut visitor).await else {
        return;
    };
    let Some(mut local) = guard.admit().await else {
        return;
    };
    drop(local.set_nodelay(true));
    if !first_bytes.is_empty() && local.write_all(&first_bytes).await.is_err() {
        return;
    }
    // An error ends this visit alone.
    drop(copy_bidirectional_with_sizes(&mut visitor, &mut local, BUFFER, BUFFER).await);
}

impl Guard {
    /// The first bytes of a visitor while a word is expected; `None` if they are one.
    async fn without_word(&self, visitor: &mut UnixStream) -> Option<Vec<u8>> {
        let mut word = Word::default();
        {
            let mut words = locked(&self.words);
            words.retain(|(_, proof)| !proof.is_closed());
            if words.is_empty() {
                return Some(Vec::new());
            }
        }
        let mut length = 0;
        let read = async {
            while length < word.len() {
                match visitor.read(&mut word[length..]).await {
                    Ok(count) if count > 0 => length += count,
                    _ => return,
                }
            }
        };
        drop(timeout(FIRST_BYTES, read).await);
        let mut words = locked(&self.words);
        let expected = words
            .iter()
            .position(|(it, _)| length == word.len() && *it == word);
        match expected {
            Some(at) => {
                // The proof may have given up.
                let _ = words.swap_remove(at).1.send(());
                None
            }
            None => Some(word[..length].to_vec()),
        }
    }

    /// A connection to the local side for a visitor, made after the examination that lets the visitor through: an earlier
    /// one may lead to an earlier program.
    async fn admit(&self) -> Option<TcpStream> {
        let mut examined = self.examined.subscribe();
        let deadline = Instant::now() + WAIT;
        let mut place = None;
        loop {
            let (number, state) = {
                let examined = examined.borrow_and_update();
                (examined.number, examined.state.clone())
            };
            let local = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
            let Ok(Ok(local)) = timeout_at(deadline, local).await else {
                if state != State::Absent {
                    self.wanted.notify_one();
                }
                return None;
            };
            let holds = self.holds(number);
            if holds && state == State::Guarded {
                return Some(local);
            }
            drop(local);
            self.wanted.notify_one();
            if holds {
                // The open master is still there; its passwords may be set by now.
                return None;
            }
            if place.is_none() {
                place = Some(self.waiting.try_acquire().ok()?);
            }
            timeout_at(deadline, examined.changed()).await.ok()?.ok()?;
        }
    }
}
