//! Runs the checks, concurrently if possible.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use tokio::sync::RwLock;

use super::checks::{Check, Property, REACHED, all};
use super::harness::MissingMessage;
use super::report::{Entry, Report, ReportOutput};
use super::scene::{Scene, tidy};
use super::subject::Subject;
use super::verdict::{Verdict, skipped};

/// Runs the checks of a level, and shows the results in order.
pub(super) async fn run_all(
    subject: &mut Subject,
    chosen: &[Check],
    jobs: usize,
    out: ReportOutput<'_>,
) -> Report {
    let began = Instant::now();
    let chosen = chosen.iter().filter(|c| c.level <= subject.level);
    let mut chosen: Vec<Check> = chosen.cloned().collect();
    let (mut jobs, mut known) = (jobs, None);
    // A single check finds out by itself whether the stage becomes ready.
    if chosen.len() > 1
        && let Some(reached) = all().find(|check| check.id == REACHED)
    {
        let (entry, verdict) = run(&reached, subject).await;
        let is_chosen = chosen.iter().any(|check| check.id == REACHED);
        match verdict {
            Ok(()) => jobs = side_by_side(subject, jobs, began.elapsed()).await,
            Err(why) => subject.never_ready = why.is::<MissingMessage>(),
        }
        if subject.never_ready && !is_chosen {
            chosen.insert(0, reached);
        }
        known = Some(entry);
    }
    let (subject, known) = (&*subject, &known);
    let turn = &RwLock::new(());
    let runs = chosen.into_iter().map(|check| async move {
        if let Some(known) = known.as_ref().filter(|_| check.id == REACHED) {
            return known.clone();
        }
        let (_alone, _together);
        match check.is(Property::Alone) {
            true => _alone = turn.write().await,
            false => _together = turn.read().await,
        }
        run(&check, subject).await.0
    });
    let mut done = stream::iter(runs).buffered(jobs);
    let mut entries = Vec::new();
    while let Some(entry) = done.next().await {
        out.text(&entry.text());
        entries.push(entry);
    }
    let took = began.elapsed();
    Report { entries, took }
}

/// Runs a check in a separate scene.
async fn run(check: &Check, subject: &Subject) -> (Entry, Verdict) {
    let began = Instant::now();
    let verdict = async {
        if subject.never_ready && !check.is(Property::WithoutReady) {
            let why = "skipped: it does not become ready, see `ready.reached`";
            return Err(skipped(why, "make it become ready first"));
        }
        (check.run)(Scene::new(subject).await?).await
    };
    let verdict = verdict.await;
    tidy(subject).await;
    (Entry::new(check, &verdict, began.elapsed()), verdict)
}

/// How many instances can be ready at the same time: the requested number, or one. They may take a little longer than the
/// first one.
async fn side_by_side(subject: &Subject, jobs: usize, first: Duration) -> usize {
    let all_ready = async {
        let mut runs = Vec::new();
        for _ in 0..jobs {
            let scene = Scene::new(subject).await?;
            let mut running = scene.started().await?;
            running.patience = first + Duration::from_secs(1);
            runs.push((running, scene));
        }
        for (running, _) in &mut runs {
            running.ready().await?;
        }
        for (running, _) in &mut runs {
            running.stop().await?;
        }
        anyhow::Ok(())
    };
    let together = jobs > 1 && all_ready.await.is_ok();
    tidy(subject).await;
    if together { jobs } else { 1 }
}
