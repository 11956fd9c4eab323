//! SIGKILL at random moments of the whole way. Whatever was killed: nothing is left, and the next run works.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::lines::lines;
use support::random::{asked_for, moment_within};
use support::site::Site;
use support::{DEADLINE, leaks};

/// A start takes about a second; some moments are before its end, some after it.
const LATEST: Duration = Duration::from_millis(1500);

fn processes_of(site: &Site) -> Vec<(Pid, String)> {
    let split = |line: String| {
        let (pid, command) = line.split_once(' ')?;
        Some((Pid::from_raw(pid.parse().ok()?)?, command.to_owned()))
    };
    leaks::processes(&site.home.mark())
        .into_iter()
        .filter_map(split)
        .collect()
}

/// Every rendered config is whole, at any moment.
fn nothing_is_half_written(site: &Site) {
    if let Ok(text) = std::fs::read_to_string(site.run_dir().join("master.yaml")) {
        assert!(text.contains("kubeconfig_path"), "half a file:\n{text}");
        protocol::yaml::Document::parse(&text).expect("half a file");
    }
}

#[tokio::test]
async fn whatever_is_killed_whenever_nothing_is_left_and_the_next_run_works() {
    let site = Site::new().await;
    let file = site.write("source.yaml", &site.devcluster_yaml());
    let up = || {
        let mut command = site.remote(&["up", "-c", file.to_str().expect("text")]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    };
    for round in 0..asked_for("DEVCLUSTER_ROUNDS", 6) {
        let mut driver = up().spawn().expect("no driver");
        let said = lines(driver.stderr.take().expect("no stderr"));
        let moment = moment_within(LATEST);
        // The moment is the point here: there is no event to wait for.
        drop(tokio::time::timeout(moment, driver.wait()).await);
        let victims = processes_of(&site);
        let ours: Vec<_> = victims
            .iter()
            .filter(|(_, c)| !c.contains("devcluster-sandbox") && !c.starts_with("sleep"))
            .collect();
        if let Some((pid, command)) = ours.get(round as usize % ours.len().max(1)) {
            let _ = kill_process(*pid, Signal::KILL);
            eprintln!("round {round}: killed after {moment:.0?}: {command}");
        }
        nothing_is_half_written(&site);
        if let Some(id) = driver.id().and_then(|id| Pid::from_raw(id as i32)) {
            let _ = kill_process(id, Signal::TERM);
        }
        tokio::time::timeout(DEADLINE, driver.wait())
            .await
            .expect("the driver stays")
            .expect("no status");
        drop(said);
        end_orphans(&site).await;
        site.nothing_is_left().await;
    }
    let (mut driver, _said) = site.up(&file).await;
    kill_process(
        Pid::from_raw(driver.id().expect("it runs") as i32).expect("a pid"),
        Signal::TERM,
    )
    .expect("cannot signal");
    tokio::time::timeout(DEADLINE, driver.wait())
        .await
        .expect("the driver stays")
        .expect("no status");
    site.nothing_is_left().await;
}

/// A killed devcluster leaves its master and the test's pod, as it leaves any program; its next start ends them.
async fn end_orphans(site: &Site) {
    leaks::gone("stages", || {
        let not_ours = |c: &str| c.contains("devcluster-sandbox") || c.starts_with("sleep");
        processes_of(site)
            .into_iter()
            .filter(|(_, c)| !not_ours(c))
            .collect()
    })
    .await;
    for (pid, _) in processes_of(site) {
        let _ = kill_process(pid, Signal::KILL);
    }
}
