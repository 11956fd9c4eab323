//! `cleanup`: removes what a dead run left, or lists it.

use crate::context::Context;
use crate::error::StageError;
use crate::ledger::{Entry, Parked};
use crate::leftover::Removal;
use crate::runtime::Invocation;
use crate::stage::Stage;
use crate::verbs::diagnose::{ledger_to_read, run_dir, scratch_dir};

/// What `cleanup` prints when nothing was left.
pub const NOTHING_LEFT: &str = "nothing was left";

pub(crate) async fn cleanup<S: Stage>(invocation: &Invocation) -> Result<(), StageError> {
    match invocation.call.dry_run {
        true => list::<S>(invocation).await,
        false => clean::<S>(invocation).await,
    }
}

/// Lists what is left. Acquires no lock and creates no directory.
async fn list<S: Stage>(invocation: &Invocation) -> Result<(), StageError> {
    let ledger = ledger_to_read(invocation)?;
    let spare = scratch_dir(invocation)?;
    let (run_dir, _) = run_dir(invocation, spare.path())?;
    let cx: Context<S> = invocation.context(run_dir, ledger, None);
    let (mut first_error, mut found) = (None, false);
    for entry in cx.ledger.entries().iter().rev() {
        if let Some(parked) = kept(&cx, entry).await {
            found |= tell_parked(&cx, &parked);
            continue;
        }
        match titles(&cx, entry).await {
            Ok(titles) if titles.is_empty() => {
                cx.debug(format!("nothing is left of {}", entry.describe()));
            }
            Ok(titles) => {
                cx.info(format!("would remove {}", titles.join(", ")));
                found = true;
            }
            Err(error) => {
                cx.warn(format!(
                    "cannot tell what is left of {}: {error}",
                    entry.describe()
                ));
                first_error.get_or_insert(error);
            }
        }
    }
    if !found && first_error.is_none() {
        invocation.reporter.say("nothing is left");
    }
    first_error.map_or(Ok(()), Err)
}

async fn titles<S: Stage>(cx: &Context<S>, entry: &Entry) -> Result<Vec<String>, StageError> {
    let mut titles = Vec::new();
    for leftover in S::leftovers(cx, entry).await? {
        titles.extend(leftover.find().await?);
    }
    Ok(titles)
}

async fn clean<S: Stage>(invocation: &Invocation) -> Result<(), StageError> {
    let (run_dir, _lock, ledger) = invocation.open_locked::<S>().await?;
    let cx: Context<S> = invocation.context(run_dir.clone(), ledger, None);
    let said = undo(&cx, cx.ledger.entries(), "").await?;
    let failed = |e| StageError::io(format!("cannot clean {}", run_dir.path().display()), &e);
    run_dir.forget(&invocation.call.instance).map_err(failed)?;
    // What is still open has to be recognized.
    if !cx.keeps && cx.ledger.entries().is_empty() {
        cx.identities()?
            .remove(&invocation.call.instance)
            .map_err(failed)?;
    }
    cx.ledger.close();
    if !said {
        invocation.reporter.say(NOTHING_LEFT);
    }
    Ok(())
}

/// The state of an entry that stays parked: its time is not over, it is needed, and the verb keeps it.
async fn kept<S: Stage>(cx: &Context<S>, entry: &Entry) -> Option<Parked> {
    let mut parked = entry.parked.clone().filter(|_| cx.keeps)?;
    (!parked.is_over() && S::is_needed(cx, entry).await).then_some(parked)
}

/// Reports what stays, if it is something for people.
fn tell_parked<S: Stage>(cx: &Context<S>, parked: &Parked) -> bool {
    let has_text = !parked.what.is_empty();
    if has_text {
        cx.info(parked.stays());
    }
    has_text
}

/// Removes what earlier runs left, except what the next run can resume.
pub(crate) async fn undo_earlier<S: Stage>(cx: &Context<S>) -> Result<(), StageError> {
    let mut entries = cx.ledger.entries();
    entries.retain(|entry| !S::is_resumable(entry));
    undo(cx, entries, "leftovers of an earlier run: ")
        .await
        .map(drop)
}

/// Removes what these entries left, the latest first, and reports it. Returns whether it reported anything. An entry
/// that fails stays in the ledger; the first error is returned after all entries are tried.
async fn undo<S: Stage>(
    cx: &Context<S>,
    entries: Vec<Entry>,
    of_whom: &str,
) -> Result<bool, StageError> {
    let mut first_error = None;
    let mut said = false;
    for entry in entries.iter().rev() {
        if let Some(parked) = kept(cx, entry).await {
            said |= tell_parked(cx, &parked);
            cx.ledger.park(entry.id, parked)?;
            continue;
        }
        let mut removed = Vec::new();
        let settled = remove(cx, entry, &mut removed).await;
        if !removed.is_empty() {
            let removed = removed.join(", ");
            cx.info(format!("removed {of_whom}{removed}"));
            said = true;
        }
        match settled {
            Ok(Removal::Deferred) => {}
            Ok(Removal::Away {
                seconds,
                is_reported,
            }) => {
                said |= is_reported;
                cx.ledger.miss(entry.id, seconds)?;
            }
            Ok(Removal::Parked(parked)) => {
                said |= tell_parked(cx, &parked);
                cx.ledger.park(entry.id, parked)?;
            }
            Ok(Removal::Removed | Removal::Gone) => cx.ledger.settle(entry.id)?,
            Err(error) => {
                cx.warn(format!("cannot remove {}: {error}", entry.what));
                first_error.get_or_insert(error);
            }
        }
    }
    first_error.map_or(Ok(said), Err)
}

/// Removes the leftovers of an entry, up to the first that fails. Returns what becomes of the entry.
async fn remove<S: Stage>(
    cx: &Context<S>,
    entry: &Entry,
    removed: &mut Vec<String>,
) -> Result<Removal, StageError> {
    let mut all = Removal::Gone;
    for leftover in S::leftovers(cx, entry).await? {
        let title = leftover.title.clone();
        match leftover.remove().await? {
            Removal::Removed if !title.is_empty() => removed.push(title),
            Removal::Removed | Removal::Gone => {}
            stays => all = stays,
        }
    }
    Ok(all)
}
