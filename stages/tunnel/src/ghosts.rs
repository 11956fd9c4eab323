//! Ghosts: sessions that the server still holds after we lost them, with their ports.

use protocol::StageError;
use protocol::ledger::{Ledger, Ticket};

use crate::ssh::{Ghost, Greeting, RemoteSession, SshSession};

#[derive(Debug, Default)]
pub(crate) struct Ghosts {
    /// The current session, once the server has named its process.
    noted: Option<(RemoteSession, Ticket)>,
    lost: Vec<(RemoteSession, Ticket)>,
    /// A session was lost whose process the server never named.
    unknown: bool,
}

impl Ghosts {
    pub(crate) fn is_noted(&self) -> bool {
        self.noted.is_some()
    }

    /// Whether a ghost that we cannot end may hold the port.
    pub(crate) fn may_hold_port(&self) -> bool {
        self.unknown || !self.lost.is_empty()
    }

    pub(crate) fn lost_sessions(&self) -> Vec<RemoteSession> {
        self.lost
            .iter()
            .map(|(session, _)| session.clone())
            .collect()
    }

    /// Records the process to end if the current session is lost. Returns false if the server did not name it.
    pub(crate) fn note(
        &mut self,
        session: &SshSession,
        greeting: &Greeting,
        ledger: &Ledger,
    ) -> Result<bool, StageError> {
        let Some(remote) = &greeting.session else {
            return Ok(false);
        };
        let ticket = session.note(remote, ledger)?;
        self.noted = Some((remote.clone(), ticket));
        Ok(true)
    }

    /// The current session is lost. The server may still hold it.
    pub(crate) fn session_lost(&mut self) {
        match self.noted.take() {
            Some(noted) => self.lost.push(noted),
            None => self.unknown = true,
        }
    }

    /// The server has confirmed the end of the current session.
    pub(crate) fn session_ended(&mut self) -> Result<(), StageError> {
        self.noted
            .take()
            .map_or(Ok(()), |(_, ticket)| ticket.settle())
    }

    /// Settles the lost sessions that the server reports on. Returns those that it still held and that are now ended.
    pub(crate) fn settle(&mut self, greeting: &Greeting) -> Result<Vec<RemoteSession>, StageError> {
        let mut ended = Vec::new();
        for (session, ticket) in std::mem::take(&mut self.lost) {
            match greeting.fate_of(&session) {
                Some(Ghost::Gone) => ticket.settle()?,
                Some(Ghost::Ended) => {
                    ticket.settle()?;
                    ended.push(session);
                }
                Some(Ghost::Stays) | None => self.lost.push((session, ticket)),
            }
        }
        Ok(ended)
    }

    /// The port is ours again, so no ghost holds it.
    pub(crate) fn clear_unknown(&mut self) {
        self.unknown = false;
    }
}
