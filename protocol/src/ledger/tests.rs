//! Tests of ledgers and of a survey of them.

use std::fs::File;
use std::io::Write;

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

fn open(env: &Env, owner: &Owner, run: &str) -> Ledger {
    let opened = Ledger::open(env, owner, run).unwrap();
    opened.expect("no process has it open")
}

#[test]
fn an_intent_outlives_its_run_until_it_is_settled() {
    let (_dir, env, owner) = setup();
    let first = open(&env, &owner, "aa");
    let kept = first.intend("listener", Value::from(9300)).unwrap().id;
    first
        .intend("socket", Value::from("/tmp/x"))
        .unwrap()
        .settle()
        .unwrap();
    drop(first);
    let second = open(&env, &owner, "bb");
    let entries = second.entries();
    assert_eq!(
        (
            entries.len(),
            entries[0].what.as_str(),
            entries[0].run.as_str()
        ),
        (1, "listener", "aa")
    );
    assert_eq!(survey(&env).open, [(owner.clone(), entries.clone())]);
    assert!(second.intend("next", Value::Null).unwrap().id > entries[0].id);
    second.settle(kept).unwrap();
    drop(second);
    assert_eq!(open(&env, &owner, "cc").entries().len(), 1);
}

#[test]
fn a_torn_last_line_is_passed_over_and_an_empty_ledger_leaves_no_file() {
    let (dir, env, owner) = setup();
    let ledger = open(&env, &owner, "aa");
    let ticket = ledger.intend("x", Value::Null).unwrap();
    let id = ticket.id;
    tear(&ledger);
    drop((ledger, ticket));
    let again = open(&env, &owner, "bb");
    assert_eq!(again.entries().len(), 1);
    again.settle(id).unwrap();
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
    let ledger = open(&env, &owner, "aa");
    tear(&ledger);
    ledger.intend("listener", Value::Null).unwrap();
    assert_eq!(survey(&env).open, [(owner, ledger.entries())]);
}

#[test]
fn a_ledger_that_is_used_for_long_stays_small() {
    let (_dir, env, owner) = setup();
    let ledger = open(&env, &owner, "aa");
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
    let ledger = open(&env, &owner, "aa");
    let data = Value::from("x".repeat(1 << 20));
    let mut tickets = Vec::new();
    while let Ok(ticket) = ledger.intend("large", data.clone()) {
        tickets.push(ticket);
    }
    assert_eq!(tickets.len(), 3);
    tickets.remove(0).settle().unwrap();
    drop((ledger, tickets));
    assert_eq!(open(&env, &owner, "bb").entries().len(), 2);
}

#[test]
fn what_a_kill_between_two_steps_left_is_found_and_removed() {
    let (_dir, env, owner) = setup();
    let ledger = open(&env, &owner, "aa");
    let new = path(&ledger).with_file_name(".t@0.jsonl.tmp");
    std::fs::copy(path(&ledger), &new).unwrap();
    let settle = || {
        for (left, _) in survey(&env).settled {
            remove_settled(&left).unwrap();
        }
    };
    settle();
    assert!(!new.exists() && path(&ledger).exists(), "it is open");
    let file = path(&ledger).to_owned();
    drop(ledger);
    settle();
    assert!(!file.exists() && !lock_path(&file).exists());
    let ledger = open(&env, &owner, "bb");
    ledger.intend("x", Value::Null).unwrap();
    drop(ledger);
    remove_settled(&file).unwrap();
    let found = survey(&env);
    assert_eq!((found.open.len(), found.settled.len()), (1, 0));
}

#[test]
fn what_cannot_be_read_is_reported() {
    let (_dir, env, owner) = setup();
    let ledger = open(&env, &owner, "aa");
    ledger.intend("x", Value::Null).unwrap();
    let large = path(&ledger).with_file_name("large.jsonl");
    let file = File::create(&large).unwrap();
    file.set_len(files::MAX_FILE + 1).unwrap();
    let found = survey(&env);
    assert_eq!(found.open.len(), 1);
    assert_eq!(found.unreadable[0].0, large);
    assert!(belongs_to(path(&ledger), &owner.run_dir) && !belongs_to(&large, &owner.run_dir));
}

#[test]
fn two_processes_never_have_one_ledger_open_and_a_lost_lock_is_noticed() {
    let (_dir, env, owner) = setup();
    let first = open(&env, &owner, "aa");
    assert!(is_open(&env, &owner));
    assert!(Ledger::open(&env, &owner, "bb").unwrap().is_none());
    first.intend("x", Value::Null).unwrap();
    std::fs::remove_file(lock_path(path(&first))).unwrap();
    assert!(!first.is_current());
    let second = open(&env, &owner, "bb");
    let error = first.intend("y", Value::Null).unwrap_err();
    assert_eq!(error.code, "protocol.lock_lost");
    first.close();
    assert_eq!(second.entries().len(), 1);
    assert!(second.is_current() && path(&second).exists());
}

#[test]
fn the_ledger_of_a_path_with_a_link_becomes_that_of_the_canonical_path() {
    let (dir, env, canonical) = setup();
    let link = dir.path().join("link");
    let given = Owner {
        run_dir: link.clone(),
        ..canonical.clone()
    };
    let old = open(&env, &given, "aa");
    old.intend("x", Value::Null).unwrap();
    drop(old);
    Ledger::take_over(&env, &canonical, &link).unwrap();
    assert_eq!(open(&env, &canonical, "bb").entries().len(), 1);
    assert_eq!(survey(&env).open[0].0, canonical);
}

#[test]
fn a_parked_entry_stays_parked_until_its_run_uses_it_again() {
    let (_dir, env, owner) = setup();
    let ledger = open(&env, &owner, "aa");
    let ticket = ledger.intend("session", Value::from(1)).unwrap();
    ticket.park(Parked::new("a Gateway", 3600)).unwrap();
    drop(ledger);
    let again = open(&env, &owner, "bb");
    let [entry] = &again.entries()[..] else {
        panic!("{:?}", again.entries());
    };
    let mut parked = entry.parked.clone().unwrap();
    assert!(!parked.is_over());
    parked.seconds = 0;
    assert!(parked.is_over());
    again.adopt(entry).reopen(Value::from(2)).unwrap();
    let entry = survey(&env).open[0].1[0].clone();
    assert_eq!(
        (entry.run.as_str(), entry.data, entry.parked),
        ("bb", Value::from(2), None)
    );
}

#[test]
fn a_ledger_of_a_newer_release_is_refused() {
    let (_dir, env, owner) = setup();
    let ledger = open(&env, &owner, "aa");
    ledger.intend("x", Value::Null).unwrap();
    let text = std::fs::read_to_string(path(&ledger)).unwrap();
    let path = path(&ledger).to_owned();
    drop(ledger);
    std::fs::write(&path, text.replace(r#"{"format":2}"#, r#"{"format":7}"#)).unwrap();
    let error = Ledger::open(&env, &owner, "bb").unwrap_err();
    assert_eq!(error.code, "protocol.format_newer");
    assert!(
        survey(&env).unreadable[0]
            .1
            .to_string()
            .contains("format 7")
    );
}

#[test]
fn what_is_out_of_reach_is_forgotten_after_its_time_and_not_after_that_of_a_parked_entry() {
    let (_dir, env, owner) = setup();
    let ledger = open(&env, &owner, "run");
    ledger.intend("thing", Value::Null).unwrap();
    ledger.park(0, Parked::new("a Gateway", 0)).unwrap();
    ledger.miss(0, 3600).unwrap();
    assert_eq!(ledger.entries().len(), 1);
    ledger.park(0, Parked::new("a Gateway", 0)).unwrap();
    assert!(ledger.entries()[0].away.is_none(), "it is in reach again");
    ledger.miss(0, 0).unwrap();
    assert!(ledger.entries().is_empty());
}
