//! What crashes under `up` is started again.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::devcluster::python_program;
use support::leaks;
use support::site::Site;
use support::terminal::Terminal;
use support::{DEADLINE, bin, code_of};

/// The process of the site with these words in its command line.
fn process(site: &Site, words: &str) -> Option<Pid> {
    let lines = leaks::processes(&site.home.mark()).into_iter();
    let mut found = lines.filter(|line| line.contains(words) && !line.contains(" up -c "));
    let line = found.next()?;
    Pid::from_raw(line.split_once(' ')?.0.parse().ok()?)
}

fn outputs(site: &Site, instance: &str) -> Option<Value> {
    let path = site.run_dir().join(format!("outputs/{instance}.json"));
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

async fn until<T>(what: &str, mut is: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(it) = is() {
                return it;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(DEADLINE, looking).await;
    found.unwrap_or_else(|_| panic!("not so: {what}"))
}

#[tokio::test]
async fn a_killed_stage_and_a_killed_master_start_again_with_the_same_outputs() {
    let site = Site::new().await;
    let file = site.write("source.yaml", &site.devcluster_yaml());
    let mut terminal =
        Terminal::start(site.remote(&["up", "--no-preflight", "-c", file.to_str().expect("text")]));
    terminal.wait_for("reached the master at").await;
    let before = ["tunnel", "gateway"].map(|it| outputs(&site, it).expect("it is ready"));
    let master = process(&site, "devcluster-sandbox master").expect("no master");
    for (stage, words) in [
        ("tunnel", "devcluster-tunnel run"),
        ("gateway", "devcluster-gateway run"),
        ("config-emit", "devcluster-config-emit run"),
        ("master", "devcluster-sandbox master"),
    ] {
        let first = process(&site, words).expect("it runs");
        kill_process(first, Signal::KILL).expect("it cannot be killed");
        terminal
            .wait_for(&format!(
                "{stage} ended unexpectedly; it is started again (1 of 5"
            ))
            .await;
        let next = until(stage, || process(&site, words).filter(|pid| *pid != first)).await;
        if stage == "master" {
            assert_ne!(next, master);
            continue;
        }
        let run = |outputs: &Value| outputs["run"].clone();
        if let Some(old) = before.iter().find(|it| it["stage"] == stage) {
            let new = until(stage, || {
                outputs(&site, stage).filter(|it| run(it) != run(old))
            })
            .await;
            assert_eq!(new["outputs"], old["outputs"], "{stage}");
            assert_eq!(new["gen"], old["gen"], "{stage}");
        }
        assert_eq!(
            process(&site, "devcluster-sandbox master"),
            Some(master),
            "{stage}"
        );
    }
    let pod = process(&site, "sleep infinity").expect("no pod");
    kill_process(pod, Signal::KILL).expect("it cannot be killed");
    terminal
        .wait_for("pod ended unexpectedly; see its log, and press 5 to start it")
        .await;
    terminal.press("5");
    terminal.wait_for("reached the master at").await;
    terminal.press("q");
    assert!(terminal.child.wait().await.expect("no end").success());
    site.nothing_is_left().await;
}

/// Replaces a program on disk, as an installation does: its text is edited by sed.
fn replace(program: &Path, edits: &str) {
    let edited = std::process::Command::new("sed")
        .env("LC_ALL", "C")
        .args(["-i", edits])
        .arg(program)
        .status();
    assert!(edited.expect("cannot run sed").success());
}

/// As if another release were installed under a live `up`.
#[tokio::test]
async fn a_stage_of_another_release_works_on_or_is_refused_with_both_named() {
    let site = Site::new().await;
    let release = env!("CARGO_PKG_VERSION");
    let other = release.replace(|c: char| c.is_ascii_digit(), "9");
    let renumber = format!("s/{}/{other}/g", release.replace('.', r"\."));
    let programs = site.home.path().join("bin");
    std::fs::create_dir(&programs).expect("a directory");
    for name in ["remote", "tunnel", "gateway", "config-emit"] {
        let name = format!("devcluster-{name}");
        std::fs::copy(bin(&name), programs.join(&name)).expect("cannot copy");
    }
    let file = site.write("source.yaml", &site.devcluster_yaml());
    let mut up = site.home.command(&programs.join("devcluster-remote"));
    up.args(["up", "--no-preflight", "-c"]).arg(&file);
    up.env("DEVCLUSTER", python_program("DEVCLUSTER", "devcluster"));
    let mut terminal = Terminal::start(up);
    terminal.wait_for("reached the master at").await;

    // One that takes the same config works on, and so does the master's start, which asks it to render.
    for stage in ["tunnel", "gateway", "config-emit", "master"] {
        let before = outputs(&site, stage);
        let mut words = format!("devcluster-{stage} run");
        match stage {
            "master" => words = "devcluster-sandbox master".to_owned(),
            _ => replace(&programs.join(format!("devcluster-{stage}")), &renumber),
        }
        let first = process(&site, &words).expect("it runs");
        kill_process(first, Signal::KILL).expect("it cannot be killed");
        terminal
            .wait_for(&format!("{stage} ended unexpectedly; it is started again"))
            .await;
        until(stage, || process(&site, &words).filter(|pid| *pid != first)).await;
        if let Some(before) = before {
            let again = |it: &Value| it["run"] != before["run"];
            let now = until(stage, || outputs(&site, stage).filter(again)).await;
            assert_eq!(now["outputs"], before["outputs"], "{stage}");
        }
    }

    // One that does not is refused.
    replace(
        &programs.join("devcluster-tunnel"),
        "s/remote_port_range/remote_port_rangf/g",
    );
    let first = process(&site, "devcluster-tunnel run").expect("it runs");
    kill_process(first, Signal::KILL).expect("it cannot be killed");
    let refusal = format!(
        "devcluster-tunnel is from release {other}, and the `up` that runs it from release {release}"
    );
    terminal.wait_for(&refusal).await;
    terminal.press("q");
    assert!(terminal.child.wait().await.expect("no end").success());
    site.nothing_is_left().await;
}

#[tokio::test]
async fn a_master_that_dies_at_once_starts_again_and_so_does_what_fails_with_it() {
    let site = Site::new().await;
    let mark = site.home.path().join("died");
    let start = format!(
        "[sh, -c, 'test -e {mark} || {{ touch {mark}; exit 1; }}; exec {sandbox} master --config-file $1', sh, \":config\"]",
        mark = mark.display(),
        sandbox = support::bin("devcluster-sandbox").display(),
    );
    let own = format!(
        "[{}, master, --config-file, \":config\"]",
        support::bin("devcluster-sandbox").display()
    );
    let text = site.devcluster_yaml();
    assert!(text.contains(&own), "{text}");
    let file = site.write("source.yaml", &text.replace(&own, &start));
    let mut terminal =
        Terminal::start(site.remote(&["up", "--no-preflight", "-c", file.to_str().expect("text")]));
    terminal
        .wait_for("master ended unexpectedly; it is started again (1 of 5")
        .await;
    terminal.wait_for("reached the master at").await;
    terminal.press("q");
    assert!(terminal.child.wait().await.expect("no end").success());
    site.nothing_is_left().await;
}

#[tokio::test]
async fn with_oneshot_nothing_starts_again_and_a_failure_is_exit_1() {
    let site = Site::new().await;
    let failing = "  - custom: {name: pod, cmd: ['false']}\n";
    let text = site.devcluster_yaml().replace(&site.pod_stage(), failing);
    let file = site.write("source.yaml", &text);
    let file = file.to_str().expect("text");
    for more in [&[][..], &["--", "--oneshot"], &["--", "-1"]] {
        let mut command = site.remote(&[&["up", "-c", file], more].concat());
        let output = tokio::time::timeout(DEADLINE, command.output()).await;
        let output = output.expect("no end").expect("no driver");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{more:?}: {said}");
        assert!(said.contains("devcluster is failing"), "{more:?}: {said}");
        assert!(!said.contains("started again"), "{more:?}: {said}");
        assert_eq!(code_of(&said), "", "{said}");
    }
    site.nothing_is_left().await;
}

/// A machine without a default route.
#[tokio::test]
async fn devcluster_guesses_no_address_for_docker_that_the_file_does_not_use() {
    let site = Site::new().await;
    std::fs::create_dir(site.home.path().join("bin")).expect("a directory");
    let ip = site.write("bin/ip", "#!/bin/sh\ntouch \"$HOME/asked\"\nexit 1\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&ip, mode).expect("cannot chmod");
    let path = format!(
        "{}:/usr/bin:/bin",
        ip.parent().expect("a directory").display()
    );
    for (command, asked) in [("'false'", false), ("echo, $DOCKER_LOCALHOST", true)] {
        let failing = format!("  - custom: {{name: pod, cmd: [{command}]}}\n");
        let text = site.devcluster_yaml().replace(&site.pod_stage(), &failing);
        let file = site.write("source.yaml", &text);
        let mut up = site.remote(&["up", "-c", file.to_str().expect("text")]);
        up.env("PATH", &path).env_remove("DOCKER_LOCALHOST");
        let output = tokio::time::timeout(DEADLINE, up.output()).await;
        let output = output.expect("no end").expect("no driver");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(site.home.path().join("asked").exists(), asked, "{said}");
        assert_eq!(said.contains("devcluster is failing"), !asked, "{said}");
    }
}

#[tokio::test]
async fn a_stage_that_cannot_start_is_tried_five_times_and_then_reported_with_its_key() {
    let site = Site::new().await;
    let port = format!("ssh_port: {}", site.sshd.port());
    let text = site.devcluster_yaml().replace(&port, "ssh_port: 1");
    let file = site.write("source.yaml", &text);
    let file = file.to_str().expect("text");
    let mut terminal = Terminal::start(site.remote(&["up", "--no-preflight", "-c", file]));
    for time in 1..=5 {
        let line = format!("tunnel ended unexpectedly; it is started again ({time} of 5");
        terminal.wait_for(&line).await;
    }
    terminal
        .wait_for("tunnel was started again 5 times in 10 minutes, and ended again")
        .await;
    terminal.wait_for("press 1 to start it").await;
    terminal.press("q");
    assert!(terminal.child.wait().await.expect("no end").success());
    site.nothing_is_left().await;
}
