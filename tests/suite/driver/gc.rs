//! `gc`: after kills it lists and removes what is left, on this machine, on the server and on the cluster.

use rustix::process::Signal;
use support::leaks;
use support::site::Site;

fn ours(site: &Site) -> Vec<String> {
    let mut processes = leaks::processes(&site.home.mark());
    let is_theirs =
        |command: &str| command.contains("devcluster-sandbox") || command.starts_with("sleep");
    processes.retain(|p| {
        !p.split_once(' ')
            .is_some_and(|(_, command)| is_theirs(command))
    });
    processes
}

/// Kills devcluster and the stages; the stand-ins for the master and a pod keep running.
async fn kill_all_but_the_master_and_the_pod(site: &Site) {
    leaks::power_off(&ours(site));
    leaks::gone("what was killed", || ours(site)).await;
}

async fn gc(site: &Site, flags: &[&str]) -> String {
    let arguments = [&["gc"], flags].concat();
    let output = site.remote(&arguments).output().await.expect("no driver");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[tokio::test]
async fn what_a_killed_devcluster_left_is_listed_then_removed_without_its_file() {
    let site = Site::new().await;
    let file = site.write("devcluster.yaml", &site.devcluster_yaml());
    let mut driver = site.up(&file).await;
    kill_all_but_the_master_and_the_pod(&site).await;
    driver.wait().await;

    let requests = site.api.requests().len();
    let files = leaks::files(site.home.path());
    let said = gc(&site, &["--dry-run"]).await;
    for line in [
        "devcluster-sandbox master",
        "(`sleep infinity`), which outlived its devcluster",
        "is dead:\n",
        "  would remove the Lease on Gateway ",
        ", on the cluster of context \"sandbox\"",
        "  would remove the kubeconfig ",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    let since = site.api.requests().split_off(requests);
    let writes = since.iter().filter(|r| !r.starts_with("GET "));
    assert_eq!(writes.count(), 0, "{since:?}");
    assert!(!since.is_empty(), "the cluster was not read");
    assert_eq!(leaks::files(site.home.path()), files);
    assert_eq!(leaks::processes(&site.home.mark()).len(), 2, "{said}");

    let said = gc(&site, &[]).await;
    for line in [
        "ended process ",
        ", which outlived its devcluster",
        "cleaned up after gateway",
        "the Lease on Gateway ",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    site.nothing_is_left().await;
    assert_eq!(gc(&site, &["--dry-run"]).await, "nothing was left behind\n");
}

#[tokio::test]
async fn a_running_devcluster_is_not_touched() {
    let site = Site::new().await;
    let file = site.write("devcluster.yaml", &site.devcluster_yaml());
    let mut driver = site.up(&file).await;
    let before = leaks::processes(&site.home.mark()).len();
    let said = gc(&site, &["--dry-run"]).await;
    assert!(said.contains("is running: would not be touched"), "{said}");
    assert!(!said.contains("would end"), "{said}");
    let said = gc(&site, &[]).await;
    assert!(said.contains("gateway is still running"), "{said}");
    assert_eq!(leaks::processes(&site.home.mark()).len(), before);
    driver.signal(Signal::TERM);
    driver.wait_for_line("nothing was left behind").await;
    assert!(driver.wait().await.0.success());
}
