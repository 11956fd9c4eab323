//! Sessions that the server may hold longer than we do, with the ports that they keep.

use protocol::StageError;
use protocol::ledger::{Ledger, Ticket};

use crate::ssh::{Ghost, Greeting, RemoteSession, SshSession};

#[derive(Debug, Default)]
pub(crate) struct Ghosts {
    /// The session that is up, once the server told about it.
    noted: Option<(RemoteSession, Ticket)>,
    lost: Vec<(RemoteSession, Ticket)>,
    /// A session was lost of which the server told nothing.
    unknown: bool,
}

impl Ghosts {
    pub(crate) fn is_noted(&self) -> bool {
        self.noted.is_some()
    }

    /// There is one that we cannot end.
    pub(crate) fn may_hold_port(&self) -> bool {
        self.unknown || !self.lost.is_empty()
    }

    pub(crate) fn lost_sessions(&self) -> Vec<RemoteSession> {
        self.lost
            .iter()
            .map(|(session, _)| session.clone())
            .collect()
    }

    /// Notes whom to end should the session that is up be lost. False when the server did not say.
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

    /// The session that was up is up no longer, as far as we know. The server may think otherwise.
    pub(crate) fn session_lost(&mut self) {
        match self.noted.take() {
            Some(noted) => self.lost.push(noted),
            None => self.unknown = true,
        }
    }

    /// The server has heard of the end of the session that was up.
    pub(crate) fn session_ended(&mut self) -> Result<(), StageError> {
        self.noted
            .take()
            .map_or(Ok(()), |(_, ticket)| ticket.settle())
    }

    /// Settles what the server told about the lost ones. Returns those that it held still and that are ended now.
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

    /// The port is ours again: nobody else can have it.
    pub(crate) fn clear_unknown(&mut self) {
        self.unknown = false;
    }
}
