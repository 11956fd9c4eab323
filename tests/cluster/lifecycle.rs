//! The bed itself: it runs pods and leaves nothing behind.

use support::bed::{self, Bed};

fn runs_pods(bed: &Bed) {
    bed.pod("default", "web", &["httpd", "-f", "-p", "8080", "-h", "/"]);
    bed.kubectl(&["expose", "pod", "web", "--port=80", "--target-port=8080"]);
    bed.pod("default", "client", &["sleep", "3600"]);
    asks_web(bed);
}

fn asks_web(bed: &Bed) {
    let wget = [
        "exec",
        "client",
        "--",
        "wget",
        "-qO-",
        "http://web.default.svc.cluster.local/etc/passwd",
    ];
    assert!(bed.kubectl(&wget).starts_with("root:"));
}

#[test]
fn it_leaves_nothing_behind_when_it_ends() {
    if bed::is_missing() {
        return;
    }
    let bed = Bed::start();
    eprintln!("ready after {:.1?}", bed.took);
    runs_pods(&bed);
    let traces = bed.traces();
    assert!(traces.left().len() > 10, "{:?}", traces.left());
    drop(bed);
    assert_eq!(traces.left(), Vec::<String>::new());
}

#[test]
fn it_leaves_nothing_behind_when_it_is_killed() {
    if bed::is_missing() {
        return;
    }
    let mut bed = Bed::start();
    runs_pods(&bed);
    let traces = bed.traces();
    bed.kill();
    traces.wait_until_gone();
}

#[test]
fn the_next_cluster_removes_what_a_killed_watcher_left() {
    if bed::is_missing() {
        return;
    }
    let mut bed = Bed::start();
    let traces = bed.traces();
    bed.kill_watcher();
    bed.kill();
    let mut others = Vec::new();
    // It has the same number if no other bed runs; others use what is free.
    loop {
        let next = Bed::start();
        let same = next.ready["number"] == bed.ready["number"];
        others.push(next);
        if same {
            break;
        }
    }
    drop(others);
    traces.wait_until_gone();
}

#[test]
fn two_run_side_by_side() {
    if bed::is_missing() {
        return;
    }
    let one = Bed::start();
    let two = Bed::start();
    eprintln!("ready after {:.1?} and {:.1?}", one.took, two.took);
    assert_ne!(one.text("/addresses/cloud"), two.text("/addresses/cloud"));
    runs_pods(&one);
    runs_pods(&two);
    let traces = one.traces();
    drop(one);
    assert_eq!(traces.left(), Vec::<String>::new());
    asks_web(&two);
}
