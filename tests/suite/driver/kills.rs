//! SIGKILL of any process at random times: nothing is left, and the next run works.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::random::{asked_for, moment_within};
use support::site::Site;
use support::{StageClient, leaks};

/// A start takes about a second; some times are before its end, some after it.
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

/// Checks that every rendered config is complete.
fn nothing_is_half_written(site: &Site) {
    if let Ok(text) = std::fs::read_to_string(site.run_dir().join("master.yaml")) {
        assert!(text.contains("kubeconfig_path"), "half a file:\n{text}");
        protocol::yaml::Document::parse(&text).expect("half a file");
    }
}

#[tokio::test]
async fn after_any_kill_nothing_is_left_and_the_next_run_works() {
    let site = Site::new().await;
    let file = site.write("source.yaml", &site.devcluster_yaml());
    for round in 0..asked_for("DEVCLUSTER_ROUNDS", 6) {
        let up = site.remote(&["up", "-c", file.to_str().expect("text")]);
        let mut driver = StageClient::start(up);
        let moment = moment_within(LATEST);
        // A random time is the purpose here: there is no event to wait for.
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
        driver.signal(Signal::TERM);
        driver.wait().await;
        end_orphans(&site).await;
        // The next run replaces the temporary file of a killed writer.
        site.nothing_runs().await;
    }
    let mut driver = site.up(&file).await;
    driver.signal(Signal::TERM);
    driver.wait().await;
    site.nothing_is_left().await;
}

/// Ends what a killed devcluster leaves, its master and the test's pod, as its next start would.
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
