//! What a dead run left: one list, which `cleanup --dry-run` prints and `cleanup` removes.

use std::pin::Pin;

use crate::error::StageError;

type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, StageError>> + 'a>>;

/// What became of a leftover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It was there, and is gone now.
    Removed,
    /// It was gone already.
    Gone,
    /// Nothing can be done now: the ledger entry stays, and a later `cleanup` or `gc` looks again.
    Deferred,
}

impl From<bool> for Removal {
    /// Whether it was there.
    fn from(was_there: bool) -> Removal {
        if was_there {
            Removal::Removed
        } else {
            Removal::Gone
        }
    }
}

/// One thing that a dead run left, and the work that removes it. Nothing happens until the work is called for.
pub struct Leftover<'a> {
    /// What it is, for people. Empty: nothing that a person is told of.
    pub title: String,
    probe: Option<Work<'a, bool>>,
    remove: Work<'a, Removal>,
}

impl<'a> Leftover<'a> {
    /// `remove` is repeatable: it finds the thing gone when it was removed before.
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

    /// Where it takes a request to know whether the thing is there: for a dry run alone, since removing it finds out too.
    #[must_use]
    pub fn probe(mut self, probe: impl Future<Output = Result<bool, StageError>> + 'a) -> Self {
        self.probe = Some(Box::pin(probe));
        self
    }

    /// What it is, if it is there.
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
