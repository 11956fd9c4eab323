use protocol::devcluster::RestartOutcome::{AboveTarget, Crashed, Restarted, Starting};
use serde_json::json;

use super::*;

struct Place(tempfile::TempDir, Restarts);

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let stage = |name: &str, ours| Stage {
            name: name.into(),
            ours,
        };
        let stages = vec![stage("tunnel", true), stage("app", false)];
        let restarts = Restarts::new("none".into(), dir.path().into(), stages);
        Place(dir, restarts)
    }

    /// devcluster replaces its list; what has ended, as far as it is known then.
    fn list(&mut self, processes: &[(u32, &str)]) -> Vec<&str> {
        let list = processes.iter();
        let list = list
            .map(|(pid, args)| json!({"pid": pid, "match_args": args, "kill_signal": "SIGTERM"}));
        let text = json!(list.collect::<Vec<_>>()).to_string();
        files::replace(&self.0.path().join("running.json"), text.as_bytes(), false).unwrap();
        self.1.look();
        self.1.ended.iter().map(String::as_str).collect()
    }

    fn apply(&mut self, outcomes: &[(&str, RestartOutcome)]) {
        let outcomes = outcomes.iter().map(|(name, it)| ((*name).to_owned(), *it));
        self.1.apply(&outcomes.collect());
    }
}

#[test]
fn a_process_that_ends_and_is_not_replaced_is_noticed() {
    let mut place = Place::new();
    assert!(place.list(&[(1, "a")]).is_empty());
    assert!(place.list(&[(1, "a"), (2, "b")]).is_empty(), "it starts");
    assert_eq!(place.list(&[(2, "b")]), ["a"]);
    assert_eq!(place.list(&[(3, "c"), (2, "b")]), ["a"]);
    assert!(place.list(&[(3, "c"), (2, "b"), (4, "a")]).is_empty());
    assert!(
        place.list(&[(3, "c"), (5, "b"), (4, "a")]).is_empty(),
        "it is replaced"
    );
    let unseen = place.list(&[(3, "c"), (5, "b"), (4, "a")]);
    assert_eq!(unseen, [""], "one started and ended in between");
}

#[tokio::test(start_paused = true)]
async fn the_pause_doubles_and_after_five_times_a_stage_stays_down_until_ten_minutes_are_over() {
    let mut place = Place::new();
    let mut pauses = Vec::new();
    for _ in 0..MOST {
        let now = Instant::now();
        assert!(place.1.times("tunnel", now) < MOST);
        pauses.push(place.1.pause(now).as_secs());
        tokio::time::advance(place.1.pause(now)).await;
        place.apply(&[("tunnel", Restarted)]);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16]);
    let now = Instant::now();
    assert_eq!(place.1.pause(now).as_secs(), 30);
    assert_eq!(place.1.times("tunnel", now), MOST);
    let advice = place.1.advice("tunnel", now);
    assert!(
        advice.contains("5 times") && advice.contains("press 1"),
        "{advice}"
    );
    tokio::time::advance(WINDOW).await;
    assert_eq!(place.1.pause(Instant::now()).as_secs(), 1);
}

#[test]
fn it_asks_again_until_nothing_has_crashed_or_nothing_can_be_done() {
    let mut place = Place::new();
    place.list(&[(1, "a")]);
    place.list(&[]);
    for (outcomes, again) in [
        (&[("tunnel", Starting)][..], true),
        (&[("tunnel", Restarted), ("app", Crashed)], true),
        (&[("app", Crashed)], false),
        (&[("tunnel", AboveTarget)], false),
        (&[], false),
    ] {
        place.1.ended.insert("a".into());
        place.apply(outcomes);
        assert_eq!(!place.1.ended.is_empty(), again, "{outcomes:?}");
    }
    let advice = place.1.advice("app", Instant::now());
    assert_eq!(
        advice,
        "app ended unexpectedly; see its log, and press 2 to start it"
    );
}
