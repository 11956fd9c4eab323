//! Things that a dead run left: `cleanup --dry-run` lists them, `cleanup` removes them.

use std::pin::Pin;

use crate::error::StageError;
use crate::ledger::Parked;

type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, StageError>> + 'a>>;

/// The result of removing a leftover.
#[derive(Clone, Debug, PartialEq)]
pub enum Removal {
    /// It existed and was removed.
    Removed,
    /// It did not exist any more.
    Gone,
    /// It cannot be removed now: the ledger entry stays, and a later `cleanup` or `gc` tries again.
    Deferred,
    /// It is out of reach, and forgotten once it has been for so many seconds.
    Away {
        /// How long, in all.
        seconds: u64,
        /// Whether the stage has reported it.
        is_reported: bool,
    },
    /// It stays for a time. Only for `cleanup --keep`.
    Parked(Parked),
}

impl From<bool> for Removal {
    /// From whether it existed.
    fn from(was_there: bool) -> Removal {
        if was_there {
            Removal::Removed
        } else {
            Removal::Gone
        }
    }
}

/// One thing that a dead run left, and the work that removes it. The work starts only with [`Leftover::remove`].
pub struct Leftover<'a> {
    /// What it is, for people. Empty: it is not shown.
    pub title: String,
    probe: Option<Work<'a, bool>>,
    remove: Work<'a, Removal>,
}

impl<'a> Leftover<'a> {
    /// `remove` can be repeated: the second time it returns [`Removal::Gone`].
    pub fn new<T: Into<Removal>>(
        title: impl Into<String>,
        remove: impl Future<Output = Result<T, StageError>> + 'a,
    ) -> Leftover<'a> {
        Leftover {
            title: title.into(),
            probe: None,
            remove: Box::pin(async { remove.await.map(Into::into) }),
        }
    }

    /// For a thing whose existence takes a request to find out. Only a dry run calls it: removing finds out by itself.
    #[must_use]
    pub fn probe(mut self, probe: impl Future<Output = Result<bool, StageError>> + 'a) -> Self {
        self.probe = Some(Box::pin(probe));
        self
    }

    /// Its title, if it exists.
    pub async fn find(self) -> Result<Option<String>, StageError> {
        let is_there = match self.probe {
            Some(probe) => probe.await?,
            None => !self.title.is_empty(),
        };
        Ok(is_there.then_some(self.title))
    }

    /// Removes it.
    pub async fn remove(self) -> Result<Removal, StageError> {
        self.remove.await
    }
}
