//! The stages under stock devcluster: gates, restarts, crashes, quitting.

use rustix::process::Signal;
use serde_json::{Value, json};
use support::devcluster::TestDevcluster;
use support::kube::idle;
use support::master::log_in;
use support::site::Site;
use support::{DEADLINE, StageClient, leaks};

/// devcluster's API sends TERM, and KILL after 3 s in all.
async fn started(site: &Site, text: &str) -> TestDevcluster {
    let file = site.compile(text).await;
    TestDevcluster::start(&site.home, &file).await
}

async fn whole_way_up(site: &Site) -> TestDevcluster {
    let mut devcluster = started(site, &site.devcluster_yaml()).await;
    devcluster.set_target("pod").await;
    devcluster.wait_until("pod", "UP").await;
    devcluster
}

fn outputs(site: &Site, instance: &str) -> Value {
    let path = site.run_dir().join(format!("outputs/{instance}.json"));
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("no {}: {e}", path.display()));
    serde_json::from_slice::<Value>(&text).expect("outputs are JSON")["outputs"].clone()
}

async fn quit(devcluster: TestDevcluster, site: &Site) {
    assert_eq!(
        devcluster.close().await,
        0,
        "devcluster did not exit cleanly"
    );
    site.nothing_is_left().await;
}

/// The pid in the stage's status.
fn pid(site: &Site, instance: &str) -> rustix::process::Pid {
    let path = site.run_dir().join(format!("status/{instance}.json"));
    let status: Value =
        serde_json::from_slice(&std::fs::read(path).expect("no status")).expect("status is JSON");
    let pid = status["pid"].as_i64().expect("a pid");
    rustix::process::Pid::from_raw(pid as i32).expect("a pid")
}

#[tokio::test]
async fn a_pod_reaches_the_master_and_quitting_leaves_nothing() {
    let site = Site::new().await;
    let devcluster = whole_way_up(&site).await;
    let (tunnel, gateway) = (outputs(&site, "tunnel"), outputs(&site, "gateway"));
    let text =
        std::fs::read_to_string(site.run_dir().join("master.yaml")).expect("no rendered config");
    let config = protocol::yaml::Document::parse(&text)
        .expect("the rendered config is YAML")
        .value();
    let manager = &config["resource_manager"];
    assert_eq!(manager["determined_master_host"], "127.0.0.1");
    assert_eq!(manager["determined_master_port"], tunnel["port"]);
    assert_eq!(
        manager["internal_task_gateway"],
        gateway["internal_task_gateway"]
    );
    assert_eq!(manager["kubeconfig_path"], gateway["kubeconfig_path"]);
    assert_eq!(manager["max_slots_per_pod"], 1);
    assert_eq!(config["cluster_name"], "test");

    quit(devcluster, &site).await;
    assert!(!site.run_dir().join("gateway.kubeconfig").exists());
}

#[tokio::test]
async fn each_stage_gates_the_next_and_a_slow_gateway_gates_the_master() {
    let site = Site::with(idle()).await;
    let mut devcluster = started(&site, &site.devcluster_yaml()).await;
    devcluster.set_target("pod").await;
    devcluster.wait_until("tunnel", "POSTCMD").await;
    let up = devcluster
        .wait_for("the tunnel's end of waiting", |e| {
            e["stages"]["tunnel"] == "UP"
        })
        .await;
    assert_eq!(up["stages"]["master"], "DOWN");
    assert!(site.run_dir().join("outputs/tunnel.json").exists());
    // The gateway waits for no stage, and only the master waits for it.
    devcluster
        .wait_for_log("master", "waiting for tunnel, gateway")
        .await;
    tokio::time::timeout(DEADLINE, site.api.requested("watch=true"))
        .await
        .expect("the gateway stage watches nothing");
    assert!(!site.run_dir().join("outputs/gateway.json").exists());
    site.api.program_gateways("127.0.0.1");
    devcluster.wait_until("pod", "UP").await;
    quit(devcluster, &site).await;
}

#[tokio::test]
async fn stale_outputs_of_a_dead_run_pass_no_gate() {
    let site = Site::new().await;
    let stale = json!({"dcs": 1, "stage": "tunnel", "kind": "tunnel", "run": "00", "gen": 1, "outputs":
        {"host": "203.0.113.1", "port": 1, "scheme": "http", "ssh_host": "x", "local_port": 1, "verified": "origin"}});
    let text = site
        .devcluster_yaml()
        .replace(&format!("ssh_port: {}", site.sshd.port()), "ssh_port: 1");
    let file = site.compile(&text).await;
    for part in ["", "outputs"] {
        use std::os::unix::fs::DirBuilderExt;
        let mut builder = std::fs::DirBuilder::new();
        builder
            .mode(0o700)
            .create(site.run_dir().join(part))
            .expect("cannot make the run directory");
    }
    std::fs::write(
        site.run_dir().join("outputs/tunnel.json"),
        stale.to_string(),
    )
    .expect("cannot write");
    let mut devcluster = TestDevcluster::start(&site.home, &file).await;
    devcluster.set_target("pod").await;
    devcluster
        .wait_for("the failed tunnel", |e| {
            assert_ne!(e["stages"]["tunnel"], "UP", "a stale file passed the gate");
            e["stages"]["tunnel"] == "CRASHED"
        })
        .await;
    // Stock devcluster dies when it is asked to quit at the same time as it ends the waiting command.
    devcluster.wait_for_log("tunnel", "exited with").await;
    assert!(
        devcluster.log().contains("code: tunnel."),
        "{}",
        devcluster.log()
    );
    quit(devcluster, &site).await;
}

#[tokio::test]
async fn a_restarted_master_renders_its_config_again() {
    let site = Site::new().await;
    let mut devcluster = whole_way_up(&site).await;
    let rendered = site.run_dir().join("master.yaml");
    std::fs::remove_file(&rendered).expect("no rendered config");
    devcluster.restart("master").await;
    devcluster
        .wait_for("its end", |e| e["stages"]["master"] == "DOWN")
        .await;
    devcluster.wait_until("master", "UP").await;
    let text = std::fs::read_to_string(&rendered).expect("not rendered again");
    assert!(text.contains("determined_master_port"), "{text}");
    quit(devcluster, &site).await;
}

#[tokio::test]
async fn a_restarted_tunnel_comes_back_on_its_port_while_the_master_runs() {
    let site = Site::new().await;
    let mut devcluster = whole_way_up(&site).await;
    let before = outputs(&site, "tunnel");
    devcluster.restart("tunnel").await;
    devcluster
        .wait_for("a new start", |e| e["stages"]["tunnel"] == "POSTCMD")
        .await;
    let up = devcluster
        .wait_for("the tunnel", |e| e["stages"]["tunnel"] == "UP")
        .await;
    assert_eq!(up["stages"]["master"], "UP");
    assert_eq!(outputs(&site, "tunnel"), before);
    quit(devcluster, &site).await;
}

#[tokio::test]
async fn the_death_of_a_stage_is_detected_and_its_restart_works() {
    let site = Site::new().await;
    let mut devcluster = whole_way_up(&site).await;
    for stage in ["tunnel", "gateway", "config-emit"] {
        devcluster.kill(stage, "SIGKILL").await;
        devcluster
            .wait_for("the crash", |e| {
                e["stages"][stage] == "CRASHED" || e["stages"][stage] == "DOWN"
            })
            .await;
        devcluster.restart(stage).await;
        devcluster.wait_until(stage, "UP").await;
    }
    quit(devcluster, &site).await;
}

#[tokio::test]
async fn after_sigkill_of_devcluster_its_stages_end_and_the_next_start_works() {
    let site = Site::new().await;
    let devcluster = whole_way_up(&site).await;
    let before = outputs(&site, "tunnel");
    let pids = ["tunnel", "gateway", "config-emit"].map(|s| pid(&site, s));
    devcluster.kill_devcluster().await;
    leaks::gone("stages", || {
        pids.iter()
            .filter(|p| rustix::process::test_kill_process(**p).is_ok())
            .collect()
    })
    .await;
    let devcluster = whole_way_up(&site).await;
    assert_eq!(outputs(&site, "tunnel")["port"], before["port"]);
    quit(devcluster, &site).await;
}

#[tokio::test]
async fn oneshot_starts_and_a_signal_ends_it() {
    let site = Site::new().await;
    let file = site.write("source.yaml", &site.devcluster_yaml());
    let mut driver = site.up(&file).await;
    driver.signal(Signal::TERM);
    let (status, _) = driver.wait().await;
    let said = driver.stderr();
    assert!(status.success(), "{status}\n{said}");
    assert!(said.contains("nothing was left behind"), "{said}");
    site.nothing_is_left().await;
}

#[tokio::test]
async fn up_exits_with_1_when_a_stage_fails_and_prints_why() {
    let site = Site::new().await;
    let text = site
        .devcluster_yaml()
        .replace(&format!("ssh_port: {}", site.sshd.port()), "ssh_port: 1");
    let file = site.write("source.yaml", &text);
    let output = site
        .remote(&["up", "-c", file.to_str().expect("text")])
        .output()
        .await
        .expect("no driver");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("is failing"), "{stderr}");
    assert!(stdout.contains("hint: "), "{stdout}");
    site.nothing_is_left().await;
}

#[tokio::test]
async fn after_sigkill_of_the_driver_everything_ends_and_the_next_run_works() {
    let site = Site::new().await;
    let file = site.write("source.yaml", &site.devcluster_yaml());
    for _ in 0..2 {
        let driver = site.up(&file).await;
        driver.signal(Signal::KILL);
        site.nothing_is_left().await;
    }
}

#[tokio::test]
async fn a_master_that_lets_anyone_in_is_not_exposed_without_a_guard() {
    let site = Site::new().await;
    let public = site
        .devcluster_yaml()
        .replace("bind_address: 127.0.0.1\n", "guard: none\n");
    for password in ["", "$DET_PASSWORD", "$EMPTY"] {
        let text = public.replace("only-a-test", &format!("\"{password}\""));
        let file = site.write("source.yaml", &text);
        let mut command = site.remote(&["up", "-c", file.to_str().expect("text")]);
        command.env("EMPTY", "").env_remove("DET_PASSWORD");
        let output = command.output().await.expect("no driver");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{password}: {stderr}");
        assert!(
            stderr.contains("remote.open_master") && stderr.contains("--i-know"),
            "{password}: {stderr}"
        );
        assert!(!site.run_dir().exists());
    }
}

#[tokio::test]
async fn the_guard_keeps_visitors_from_a_master_that_lets_anyone_in() {
    let site = Site::new().await;
    let yaml = site.devcluster_yaml();
    let (yaml, _pod) = yaml.split_once("  - custom:").expect("no pod");
    let text = yaml.replace("only-a-test", "\"\"");
    let file = site.write("source.yaml", &text);
    let mut driver = site.up(&file).await;
    let warning = "warning: tunnel will let no visitor through to master";
    assert!(driver.stderr().contains(warning), "{}", driver.stderr());
    // The master's `post` has waited for the guard.
    assert!(
        driver.stdout().contains("tunnel.open_master"),
        "{}",
        driver.stdout()
    );
    let status = site.remote(&["status"]).output().await.expect("no driver");
    let status = String::from_utf8_lossy(&status.stdout);
    assert!(
        status.contains("`admin` and `determined` have blank passwords"),
        "{status}"
    );
    let outputs = std::fs::read(site.run_dir().join("outputs/tunnel.json")).expect("no outputs");
    let outputs: serde_json::Value = serde_json::from_slice(&outputs).expect("no JSON");
    let port = outputs["outputs"]["port"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok());
    assert!(log_in(port.expect("no port"), "admin").await.is_err());
    driver.signal(Signal::TERM);
    assert!(driver.wait().await.0.success());
    site.nothing_is_left().await;
}

#[tokio::test]
async fn a_second_up_on_the_same_directory_is_refused_and_disturbs_nothing() {
    let site = Site::new().await;
    let file = site.write("source.yaml", &site.devcluster_yaml());
    let mut driver = site.up(&file).await;
    let compiled = site.run_dir().join("devcluster.yaml");
    let before = std::fs::read(&compiled).expect("no compiled file");
    let other = site.write(
        "other.yaml",
        &format!("# other\n{}", site.devcluster_yaml()),
    );
    let output = site
        .remote(&["up", "-c", other.to_str().expect("text")])
        .output()
        .await
        .expect("no driver");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{stderr}");
    assert!(stderr.contains("temp_dir"), "{stderr}");
    assert_eq!(std::fs::read(&compiled).expect("no compiled file"), before);
    driver.signal(Signal::TERM);
    assert!(driver.wait().await.0.success());
    site.nothing_is_left().await;
}

/// A program in place of devcluster, to test how `up` handles it.
fn stand_in(site: &Site, body: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = site.write("devcluster.sh", &format!("#!/bin/sh\n{body}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("cannot chmod");
    path
}

#[tokio::test]
async fn a_devcluster_that_ends_too_early_is_a_failure() {
    let site = Site::new().await;
    let file = site.write("source.yaml", &site.devcluster_yaml());
    let failing = "printf '\\377\\ndevcluster is failing\\n' >&2";
    for (body, code, expected) in [
        ("exit 0", 1, "ended unexpectedly"),
        ("exit 3", 3, "ended unexpectedly"),
        ("kill -9 $$", 137, "ended unexpectedly"),
        (failing, 1, "is failing"),
    ] {
        let mut command = site.remote(&["up", "-c", file.to_str().expect("text")]);
        command.env("DEVCLUSTER", stand_in(&site, body));
        let output = command.output().await.expect("no driver");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{body}: {stderr}");
        assert!(stderr.contains(expected), "{body}: {stderr}");
    }
}

#[tokio::test]
async fn a_devcluster_that_hangs_is_killed_by_the_third_signal() {
    let site = Site::new().await;
    let file = site.write("source.yaml", &site.devcluster_yaml());
    let hang = "trap '' TERM INT HUP; echo 'devcluster is up' >&2; while :; do sleep 0.1; done";
    let mut command = site.remote(&["up", "-c", file.to_str().expect("text")]);
    command.env("DEVCLUSTER", stand_in(&site, hang));
    let mut driver = StageClient::start(command);
    driver.wait_for_line("devcluster is up").await;
    driver.signal(Signal::TERM);
    // Two signals at once are one: send the second after the first is handled.
    let moment = std::time::Duration::from_millis(50);
    while tokio::time::timeout(moment, driver.wait()).await.is_err() {
        driver.signal(Signal::TERM);
    }
    leaks::gone("processes", || leaks::processes(&site.home.mark())).await;
}

#[tokio::test]
async fn a_devcluster_that_waits_for_its_file_gets_it_or_ends_unseen() {
    let site = Site::new().await;
    let good = site.write("source.yaml", &site.devcluster_yaml());
    let bad = site.write("bad.yaml", "stages:\n- tunnel: {nope: 1}\n");
    // It uses descriptors itself, as wrappers do, and finds the file after `-c`.
    let body = "exec 3</dev/null 4</dev/null 9</dev/null; echo waits >&2; while [ \"$1\" != -c ]; do shift; done; \
        echo \"reads $(grep -c devcluster-tunnel \"$2\") lines\" >&2";
    let up = async |file: &std::path::Path| {
        let mut command = site.remote(&["up", "-c", file.to_str().expect("text")]);
        command.env("DEVCLUSTER", stand_in(&site, body));
        let output = command.output().await.expect("no driver");
        leaks::gone("processes", || leaks::processes(&site.home.mark())).await;
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = up(&good).await;
    assert!(said.contains("devcluster: reads "), "{said}");
    assert!(!said.contains("reads 0"), "{said}");
    let said = up(&bad).await;
    assert!(said.contains("nope"), "{said}");
    assert!(!said.contains("devcluster: "), "{said}");
}

#[tokio::test]
async fn up_ends_what_a_killed_devcluster_leaves() {
    let site = Site::new().await;
    let file = site.write("source.yaml", &site.devcluster_yaml());
    let mut driver = site.up(&file).await;
    let found = leaks::processes(&site.home.mark());
    let devcluster = found.iter().find(|p| p.contains("bin/devcluster "));
    let pid = devcluster.and_then(|p| p.split(' ').next()?.parse().ok());
    let pid = pid
        .and_then(rustix::process::Pid::from_raw)
        .expect("devcluster runs");
    rustix::process::kill_process(pid, Signal::KILL).expect("cannot kill");
    let (status, _) = driver.wait().await;
    assert_eq!(status.code(), Some(137));
    let said = driver.stderr();
    assert!(said.contains("devcluster-sandbox master"), "{said}");
    site.nothing_is_left().await;
}

#[tokio::test]
async fn a_restart_of_any_stage_changes_no_output() {
    let site = Site::new().await;
    let mut devcluster = whole_way_up(&site).await;
    let file = |instance: &str| {
        let path = site.run_dir().join(format!("outputs/{instance}.json"));
        let text = std::fs::read(path).unwrap_or_default();
        serde_json::from_slice::<Value>(&text).unwrap_or_default()
    };
    let rendered = std::fs::read(site.run_dir().join("master.yaml")).expect("no config");
    let stages = ["tunnel", "gateway", "config-emit"];
    let before = stages.map(file);
    for stage in stages {
        let run = file(stage)["run"].clone();
        devcluster.restart(stage).await;
        let renewed = async {
            while file(stage)["run"].is_null() || file(stage)["run"] == run {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let renewed = tokio::time::timeout(DEADLINE, renewed).await;
        renewed.unwrap_or_else(|_| panic!("{stage} is not ready again"));
    }
    for (stage, before) in stages.iter().zip(before) {
        let after = file(stage);
        assert_eq!(after["outputs"], before["outputs"], "{stage}");
        assert_eq!(after["gen"], before["gen"], "{stage}");
    }
    let again = std::fs::read(site.run_dir().join("master.yaml")).expect("no config");
    assert_eq!(again, rendered);
    quit(devcluster, &site).await;
}
