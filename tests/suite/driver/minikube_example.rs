//! The script of the minikube example, with a minikube that only records its arguments.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use support::leaks;
use support::{DEADLINE, Home};

const MINIKUBE: &str = r#"#!/bin/sh
echo "$*" >>"$HOME/calls"
case $1 in
    status) test -e "$HOME/running" ;;
    profile) echo '| Profile |'; test ! -e "$HOME/made" || echo '| determined |' ;;
    start) touch "$HOME/running" "$HOME/made" ;;
    stop) rm "$HOME/running" ;;
    delete) rm -f "$HOME/running" "$HOME/made" ;;
    tunnel) test ! -e "$HOME/no-route" || { echo "cannot add a route"; exit 1; }
        touch "$HOME/tunnel"; exec sleep 1000 ;;
esac
"#;

struct Machine {
    home: Home,
    path: String,
}

impl Machine {
    fn new() -> Machine {
        let home = Home::new();
        let programs = home.path().join("programs");
        std::fs::create_dir(&programs).expect("a directory");
        for (name, text) in [("minikube", MINIKUBE), ("sudo", "#!/bin/sh\nexit 0\n")] {
            let program = programs.join(name);
            std::fs::write(&program, text).expect("a program");
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("ours");
        }
        let rest = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{rest}", programs.display());
        Machine { home, path }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Its exit code and output.
    async fn launch(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../devcluster-examples/minikube/launch-minikube-with-gateway.sh");
        let mut command = self.home.command(&script);
        command.args(arguments).env("PATH", &self.path);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(DEADLINE, command.output()).await;
        let output = output.expect("no end").expect("no script");
        leaks::gone("the tunnel", || leaks::processes(&self.home.mark())).await;
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.file("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// Waits for the tunnel, then ends with this code.
const TESTS: &str = "until test -e \"$HOME/tunnel\"; do :; done; exit 7";

#[tokio::test]
async fn what_it_started_is_stopped_and_it_exits_with_the_commands_code() {
    let machine = Machine::new();
    let (code, said) = machine.launch(&["sh", "-c", TESTS]).await;
    assert_eq!(code, Some(7), "{said}");
    let profile = "--profile determined";
    let expected = [
        format!("status {profile}"),
        "profile list --light".into(),
        format!("start {profile} --kubernetes-version v1.32.0"),
        format!("tunnel {profile} --cleanup"),
        format!("stop {profile}"),
    ];
    assert_eq!(machine.calls(), expected);
    // A stopped minikube keeps its release.
    let (code, said) = machine.launch(&["-s", "true"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(machine.calls()[7], format!("start {profile}"));
    assert!(machine.file("running").exists());
    // A running minikube keeps running.
    let before = machine.calls().len();
    let (code, said) = machine.launch(&["-t", "true"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(machine.calls()[before..], [format!("status {profile}")]);
    let (code, said) = machine.launch(&["-t", "-d", "true"]).await;
    assert_eq!(
        (code, machine.file("made").exists()),
        (Some(0), false),
        "{said}"
    );
}

#[tokio::test]
async fn what_is_missing_is_reported_before_anything_starts() {
    let machine = Machine::new();
    let (code, said) = machine.launch(&["no-such-program"]).await;
    assert_eq!(code, Some(2));
    assert!(
        said.contains("the program `no-such-program` is not on"),
        "{said}"
    );
    assert!(machine.calls().is_empty());
    let (code, said) = machine.launch(&["-x"]).await;
    assert_eq!(code, Some(2));
    assert!(said.contains("usage: "), "{said}");
}

#[tokio::test]
async fn a_failed_minikube_tunnel_is_reported_and_minikube_is_restored() {
    let machine = Machine::new();
    std::fs::write(machine.file("no-route"), "").expect("a file");
    let wait = "until grep -q ^tunnel \"$HOME/calls\"; do :; done; sleep 0.3";
    let (_, said) = machine.launch(&["sh", "-c", wait]).await;
    assert!(said.contains("cannot add a route"), "{said}");
    assert!(!machine.file("running").exists());
    // sudo cannot prompt for a password.
    let sudo = machine.file("programs/sudo");
    std::fs::write(&sudo, "#!/bin/sh\nexit 1\n").expect("a program");
    let (code, said) = machine.launch(&["true"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("in a terminal, and this with -t"), "{said}");
    assert!(!machine.file("running").exists());
}
