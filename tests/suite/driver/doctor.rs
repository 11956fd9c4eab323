//! `doctor`: lists everything that is missing, each thing with its hint, and changes nothing.

use rustix::process::Signal;
use serde_json::Value;
use support::leaks;
use support::site::Site;
use tokio::process::Command;

/// Runs it on a file, and returns its checks by stage and id, with the exit code.
async fn examine(mut command: Command) -> (Vec<Value>, Option<i32>) {
    let output = command.output().await.expect("no driver");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let document: Value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let checks = document["checks"].as_array().expect("no checks").clone();
    let failed = checks.iter().any(|c| c["status"] == "failed");
    assert_eq!(document["ok"], !failed, "{document:#}");
    (checks, output.status.code())
}

fn doctor(site: &Site, text: &str) -> Command {
    let file = site.write("doctor.yaml", text);
    let file = file.to_str().expect("the path is text");
    site.remote(&["doctor", "-c", file, "--format", "json"])
}

fn failed(checks: &[Value]) -> Vec<&str> {
    let failed = checks.iter().filter(|c| c["status"] == "failed");
    failed.filter_map(|c| c["id"].as_str()).collect()
}

const PLAIN: &str = "\
stages:
  - tunnel: {reverse_proxy_host: no-such-host.invalid, ssh_key_path: ~/.ssh/id_absent}
  - gateway: {k8s_context: my-gke}
  - db: {}
  - config-emit: {}
  - master:
      config_file:
        resource_manager: {type: kubernetes, max_slots_per_pod: 1}
";

#[tokio::test]
async fn on_a_bare_laptop_everything_missing_is_listed_and_nothing_changes() {
    let site = Site::new().await;
    let bare = |text: &str| {
        let text = format!("temp_dir: {}/dc\n{text}", site.home.path().display());
        let mut command = doctor(&site, &text);
        command.env("PATH", "/nowhere").env_remove("DEVCLUSTER");
        command.env("KUBECONFIG", "/nowhere/kubeconfig");
        command
    };
    let command = bare(PLAIN);
    let before = leaks::files(site.home.path());
    let (checks, _) = examine(command).await;
    let password = checks
        .iter()
        .find(|c| c["id"] == "password")
        .expect("no check");
    assert_eq!(password["status"], "ok", "{password}");
    let note = password["hint"].as_str().unwrap_or_default();
    assert!(
        note.contains("tunnel will let no visitor through to master"),
        "{password}"
    );
    let unguarded = PLAIN.replace("id_absent}", "id_absent, guard: none}");
    let (checks, code) = examine(bare(&unguarded)).await;
    assert_eq!(code, Some(5));
    let failed = failed(&checks);
    for id in [
        "devcluster",
        "docker",
        "password",
        "program.master",
        "ssh",
        "key",
        "host",
    ] {
        assert!(failed.contains(&id), "{id} is missing: {failed:?}");
    }
    for (id, code) in [
        ("devcluster", "remote.devcluster_missing"),
        ("docker", "remote.docker_missing"),
        ("program.master", "protocol.program_missing"),
    ] {
        let check = checks.iter().find(|c| c["id"] == id).expect("no check");
        assert_eq!(check["code"], code, "{check}");
    }
    for check in checks.iter().filter(|c| c["status"] == "failed") {
        let hint = check["hint"].as_str().unwrap_or_default();
        assert!(!hint.is_empty(), "no hint: {check}");
    }
    assert_eq!(
        leaks::files(site.home.path()),
        before,
        "looking changed something"
    );
}

#[tokio::test]
async fn when_nothing_is_missing_no_check_fails_also_during_a_run() {
    let site = Site::new().await;
    let text = site.devcluster_yaml();
    let (checks, code) = examine(doctor(&site, &text)).await;
    assert_eq!(failed(&checks), Vec::<&str>::new(), "{checks:#?}");
    assert_eq!(code, Some(0));
    let of_tunnel = checks.iter().filter(|c| c["stage"] == "tunnel");
    assert_eq!(of_tunnel.count(), 8);
    site.nothing_is_left().await;
    assert!(!site.run_dir().exists(), "looking made the run directory");

    let file = site.write("devcluster.yaml", &text);
    let mut up = site.up(&file).await;
    let (checks, _) = examine(doctor(&site, &text)).await;
    assert_eq!(failed(&checks), Vec::<&str>::new(), "{checks:#?}");
    let own = checks.iter().find(|c| c["id"] == "temp_dir");
    let note = own.and_then(|c| c["hint"].as_str()).unwrap_or_default();
    assert!(note.contains("is running in"), "{own:?}");
    up.signal(Signal::TERM);
    up.wait().await;
    site.nothing_is_left().await;
}

#[tokio::test]
async fn a_file_with_mistakes_does_not_hide_what_is_missing_here() {
    let site = Site::new().await;
    let mut command = doctor(
        &site,
        "stages:\n  - tunnel: {reverse_proxy_hots: a}\n  - mastr: {}\n",
    );
    command.env_remove("DEVCLUSTER").env("PATH", "/nowhere");
    let (checks, code) = examine(command).await;
    assert_eq!(code, Some(5));
    assert_eq!(failed(&checks), ["devcluster", "file"]);
    let text = checks.iter().map(Value::to_string).collect::<String>();
    for mistake in ["reverse_proxy_host`?", "did you mean `master`?"] {
        assert!(text.contains(mistake), "{mistake}: {text}");
    }
}

#[tokio::test]
async fn what_would_make_a_master_fail_is_reported_at_the_users_line() {
    let site = Site::new().await;
    let taken = std::net::TcpListener::bind(("0.0.0.0", site.master_port)).expect("a free port");
    let text = site.devcluster_yaml().replace(
        "          max_slots_per_pod: 1\n",
        "          max_slots_per_pod: 1\n          resource_pools: []\n",
    );
    let (checks, code) = examine(doctor(&site, &text)).await;
    assert_eq!(code, Some(5));
    assert_eq!(failed(&checks), ["port.master", "layout"], "{checks:#?}");
    let line = text.lines().position(|l| l.contains("resource_pools"));
    let place = format!("doctor.yaml:{}:11", line.expect("it is there") + 1);
    let layout = checks.iter().find(|c| c["id"] == "layout");
    let causes = layout.expect("no check")["caused_by"].to_string();
    assert!(causes.contains(&place), "{place}: {causes}");
    drop(taken);
}

#[tokio::test]
async fn the_text_has_a_line_per_check_with_its_mark() {
    let site = Site::new().await;
    let file = site.write("devcluster.yaml", &site.devcluster_yaml());
    let file = file.to_str().expect("the path is text");
    let output = site.remote(&["doctor", "-c", file]).output().await;
    let output = output.expect("no driver");
    let text = String::from_utf8_lossy(&output.stdout);
    for line in [
        "this machine\n",
        "  ✓ devcluster is installed: 1.3.2, ",
        "\ntunnel\n",
        "  ✓ the server accepts the login: logged in as ",
        "checks, none failed\n",
    ] {
        assert!(text.contains(line), "{line:?}\n{text}");
    }
    assert!(!text.contains('\x1b'), "no colour in a pipe: {text}");
}
