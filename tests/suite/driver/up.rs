//! `up` at a terminal: the outline, the questions before the start, the summary at the end.

use rustix::process::Signal;
use support::kube::{programmed, without_controller};
use support::site::Site;
use support::terminal::Terminal;
use support::{code_of, leaks};
use tokio::process::Command;

fn up(site: &Site, text: &str, arguments: &[&str]) -> Command {
    let file = site.write("devcluster.yaml", text);
    let file = file.to_str().expect("the path is text").to_owned();
    let mut all = vec!["up", "-c", &file];
    all.extend(arguments);
    site.remote(&all)
}

#[tokio::test]
async fn a_dry_run_prints_what_would_happen_and_writes_nothing() {
    let site = Site::new().await;
    let mut command = up(
        &site,
        &site.devcluster_yaml(),
        &["--dry-run", "--", "--target-stage", "pod"],
    );
    let before = leaks::files(site.home.path());
    let output = command.output().await.expect("no driver");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let compiled = site.run_dir().join("devcluster.yaml");
    for line in [
        format!(
            "  1 tunnel       forwards one of the ports {}-{} of 127.0.0.1 to local port {}, for pods",
            site.range.0, site.range.1, site.master_port
        ),
        "  2 gateway      holds or creates a Gateway in the current context, for the master"
            .to_owned(),
        "  3 config-emit  writes the values of tunnel and gateway into the config of master"
            .to_owned(),
        "  5 pod          runs sleep".to_owned(),
        format!("-c {} --oneshot --target-stage pod", compiled.display()),
        "nothing was written or started".to_owned(),
    ] {
        assert!(said.contains(&line), "{line}\n---\n{said}");
    }
    assert_eq!(leaks::files(site.home.path()), before);
    assert!(!site.run_dir().exists());
}

#[tokio::test]
async fn a_second_devcluster_in_the_same_directory_is_refused() {
    let site = Site::new().await;
    let temp_dir = site.home.path().join("devcluster");
    std::fs::create_dir(&temp_dir).expect("a directory");
    let lock = std::fs::File::create(temp_dir.join("lock")).expect("a file");
    lock.lock().expect("a lock");
    let output = up(&site, &site.devcluster_yaml(), &[]).output().await;
    let output = output.expect("no driver");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (code_of(&said), output.status.code()),
        ("remote.in_use", Some(6)),
        "{said}"
    );
    assert!(!site.run_dir().exists());
}

#[tokio::test]
async fn at_a_terminal_it_asks_before_the_start_and_a_no_starts_nothing() {
    let site = Site::new().await;
    let known_hosts = site.sshd.known_hosts().display().to_string();
    let text = site.devcluster_yaml().replace(&known_hosts, "/dev/null");
    let mut terminal = Terminal::start(up(&site, &text, &[]));
    terminal.wait_for("devcluster will start").await;
    terminal.wait_for("✗ the server accepts the login").await;
    terminal.wait_for("hint: ").await;
    terminal.wait_for("Start nevertheless? [y/N]").await;
    terminal.answer("perhaps");
    terminal.wait_for("please answer y or n").await;
    terminal.answer("n");
    terminal.wait_for("nothing was started").await;
    let status = terminal.child.wait().await.expect("no end");
    assert_eq!(status.code(), Some(1));
    assert!(!site.run_dir().exists());
    site.nothing_is_left().await;
}

#[tokio::test]
async fn at_a_terminal_it_shows_the_console_and_at_the_end_how_each_stage_ended() {
    let site = Site::new().await;
    let mut terminal = Terminal::start(up(&site, &site.devcluster_yaml(), &[]));
    terminal.wait_for("checking what the stages need").await;
    terminal.wait_for("compiled to ").await;
    terminal.wait_for("reached the master at").await;
    terminal.press("q");
    for line in [
        "tunnel stopped",
        "gateway stopped",
        "config-emit stopped",
        "nothing was left behind",
    ] {
        terminal.wait_for(line).await;
    }
    let status = terminal.child.wait().await.expect("no end");
    assert!(status.success(), "{status}");
    site.nothing_is_left().await;
}

#[tokio::test]
async fn it_works_without_a_tunnel() {
    let site = Site::new().await;
    let text = format!(
        "temp_dir: {}\nstages:\n  - gateway: {{kubeconfig: {}}}\n  - config-emit: {{}}\n{}",
        site.home.path().join("devcluster").display(),
        site.home.path().join("kubeconfig").display(),
        site.master_stage().replace(
            "        security: {initial_user_password: only-a-test}\n",
            ""
        ),
    );
    let file = site.write("devcluster.yaml", &text);
    let mut driver = site.up(&file).await;
    let rendered = std::fs::read_to_string(site.run_dir().join("master.yaml")).expect("no config");
    assert!(rendered.contains("internal_task_gateway"), "{rendered}");
    assert!(!rendered.contains("determined_master_host"), "{rendered}");
    driver.signal(Signal::TERM);
    driver.wait_for_line("gateway stopped").await;
    driver.wait_for_line("nothing was left behind").await;
    assert!(driver.wait().await.0.success());
    site.nothing_is_left().await;
}

#[tokio::test]
async fn an_offer_of_a_stage_is_asked_and_the_stage_checks_again_with_the_answer() {
    let site = Site::with(without_controller(programmed())).await;
    let more = "  - gateway:\n      provision_manifests: [/nowhere/manifests.yaml]\n";
    let text = site.devcluster_yaml().replace("  - gateway:\n", more);
    let mut terminal = Terminal::start(up(&site, &text, &[]));
    terminal.wait_for("✗ the master has a Gateway").await;
    terminal
        .wait_for("Install a controller on the cluster of context")
        .await;
    terminal.answer("y");
    terminal.wait_for("checking again").await;
    terminal
        .wait_for("gateway: ✗ a controller can be installed")
        .await;
    terminal.wait_for("Start nevertheless? [y/N]").await;
    terminal.answer("");
    terminal.wait_for("nothing was started").await;
    assert_eq!(terminal.child.wait().await.expect("no end").code(), Some(1));
    site.nothing_is_left().await;
}

/// The stand-in's Gateway, with a port of a dead master.
fn left_over() -> sandbox::kube_api::Options {
    let mut options = programmed();
    for object in &mut options.objects {
        if object["kind"] == "Gateway" {
            object["metadata"]["annotations"] =
                serde_json::json!({"determined.ai/det-gateway-port-40000": "dead.1"});
        }
    }
    options
}

#[tokio::test]
async fn leftovers_of_a_dead_master_are_asked_about_before_the_start() {
    let site = Site::with(left_over()).await;
    let mut terminal = Terminal::start(up(&site, &site.devcluster_yaml(), &[]));
    terminal.wait_for("a dead Determined master left").await;
    terminal.wait_for("Use it? [y/N]").await;
    terminal.answer("y");
    terminal.wait_for("checking again").await;
    terminal.wait_for("compiled to ").await;
    terminal.wait_for("reached the master at").await;
    terminal.press("q");
    terminal.wait_for("gateway stopped").await;
    assert!(terminal.child.wait().await.expect("no end").success());
    let compiled = std::fs::read_to_string(site.run_dir().join("devcluster.yaml"));
    let compiled = compiled.expect("no compiled file");
    assert!(compiled.contains("--gateway="), "{compiled}");
    assert!(!compiled.contains("take-over"), "{compiled}");
    site.nothing_is_left().await;
}

#[tokio::test]
async fn each_choice_is_asked_separately_and_a_declined_one_is_not_asked_again() {
    let mut options = left_over();
    for class in options
        .objects
        .iter_mut()
        .filter(|o| o["kind"] == "GatewayClass")
    {
        class["status"] = serde_json::json!({});
    }
    let site = Site::with(options).await;
    let mut terminal = Terminal::start(up(&site, &site.devcluster_yaml(), &[]));
    terminal.wait_for("Use it? [y/N]").await;
    terminal.answer("n");
    terminal
        .wait_for("Install a controller on the cluster of context")
        .await;
    terminal.answer("n");
    terminal.wait_for("Start nevertheless? [y/N]").await;
    terminal.answer("");
    terminal.wait_for("nothing was started").await;
    assert_eq!(terminal.child.wait().await.expect("no end").code(), Some(1));
    site.nothing_is_left().await;
}
