//! Tests of ledgers and of a survey of them.

use super::*;

fn setup() -> (tempfile::TempDir, Env, Owner) {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::from_pairs([("XDG_STATE_HOME", dir.path().to_str().unwrap())]);
    let owner = Owner {
        kind: "tunnel".into(),
        instance: "t".into(),
        run_dir: "/run/x".into(),
    };
    (dir, env, owner)
}

#[test]
fn an_intent_outlives_its_run_until_it_is_settled() {
    let (_dir, env, owner) = setup();
    let first = Ledger::open(&env, &owner, "aa").unwrap();
    let kept = first.intend("listener", Value::from(9300)).unwrap();
    first
        .intend("socket", Value::from("/tmp/x"))
        .unwrap()
        .settle()
        .unwrap();
    drop(first);
    let second = Ledger::open(&env, &owner, "bb").unwrap();
    let open = second.entries();
    assert_eq!(
        (open.len(), open[0].what.as_str(), open[0].run.as_str()),
        (1, "listener", "aa")
    );
    assert_eq!(survey(&env).open, [(owner.clone(), open.clone())]);
    assert!(second.intend("next", Value::Null).unwrap().id > open[0].id);
    kept.settle().unwrap();
    assert_eq!(Ledger::open(&env, &owner, "cc").unwrap().entries().len(), 1);
}

#[test]
fn a_torn_last_line_is_passed_over_and_an_empty_ledger_leaves_no_file() {
    let (dir, env, owner) = setup();
    let ledger = Ledger::open(&env, &owner, "aa").unwrap();
    let ticket = ledger.intend("x", Value::Null).unwrap();
    tear(&ledger);
    let again = Ledger::open(&env, &owner, "bb").unwrap();
    assert_eq!(again.entries().len(), 1);
    again.settle(ticket.id).unwrap();
    again.close();
    assert_eq!(
        std::fs::read_dir(dir.path().join("devcluster-stages"))
            .unwrap()
            .count(),
        0
    );
}

fn path(ledger: &Ledger) -> &Path {
    &ledger.home.as_ref().unwrap().path
}

fn tear(ledger: &Ledger) {
    let mut file = File::options().append(true).open(path(ledger)).unwrap();
    file.write_all(b"{\"intend\":{\"id\":9,").unwrap();
}

#[test]
fn a_line_after_a_torn_one_is_read() {
    let (_dir, env, owner) = setup();
    let ledger = Ledger::open(&env, &owner, "aa").unwrap();
    tear(&ledger);
    ledger.intend("listener", Value::Null).unwrap();
    assert_eq!(survey(&env).open, [(owner, ledger.entries())]);
}

#[test]
fn a_ledger_that_is_used_for_long_stays_small() {
    let (_dir, env, owner) = setup();
    let ledger = Ledger::open(&env, &owner, "aa").unwrap();
    let data = Value::from("x".repeat(50_000));
    let kept = ledger.intend("kept", Value::from(1)).unwrap();
    for _ in 0..20 {
        let ticket = ledger.intend("passing", data.clone()).unwrap();
        ticket.settle().unwrap();
    }
    assert!(std::fs::metadata(path(&ledger)).unwrap().len() <= COMPACT);
    assert_eq!(survey(&env).open[0].1, ledger.entries());
    assert_eq!(ledger.entries()[0].id, kept.id);
}

#[test]
fn a_full_ledger_refuses_an_intent_and_still_settles() {
    let (_dir, env, owner) = setup();
    let ledger = Ledger::open(&env, &owner, "aa").unwrap();
    let data = Value::from("x".repeat(1 << 20));
    let mut tickets = Vec::new();
    while let Ok(ticket) = ledger.intend("large", data.clone()) {
        tickets.push(ticket);
    }
    assert_eq!(tickets.len(), 3);
    tickets.remove(0).settle().unwrap();
    assert_eq!(Ledger::open(&env, &owner, "bb").unwrap().entries().len(), 2);
}

#[test]
fn what_a_kill_between_two_steps_left_is_found_and_removed() {
    let (_dir, env, owner) = setup();
    let ledger = Ledger::open(&env, &owner, "aa").unwrap();
    let new = path(&ledger).with_file_name(".t@0.jsonl.tmp");
    std::fs::copy(path(&ledger), &new).unwrap();
    for (left, _) in survey(&env).settled {
        remove_settled(&left).unwrap();
    }
    assert!(!new.exists() && !path(&ledger).exists());
    ledger.intend("x", Value::Null).unwrap();
    remove_settled(path(&ledger)).unwrap();
    let found = survey(&env);
    assert_eq!((found.open.len(), found.settled.len()), (1, 0));
}

#[test]
fn what_cannot_be_read_is_reported() {
    let (_dir, env, owner) = setup();
    let ledger = Ledger::open(&env, &owner, "aa").unwrap();
    ledger.intend("x", Value::Null).unwrap();
    let large = path(&ledger).with_file_name("large.jsonl");
    let file = File::create(&large).unwrap();
    file.set_len(files::MAX_FILE + 1).unwrap();
    let found = survey(&env);
    assert_eq!(found.open.len(), 1);
    assert_eq!(found.unreadable[0].0, large);
    assert!(belongs_to(path(&ledger), &owner.run_dir) && !belongs_to(&large, &owner.run_dir));
}
