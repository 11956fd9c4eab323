//! Paths that are not what they should be: a FIFO in the place of a file, what other users can replace, and locks that
//! were removed.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use support::{DEADLINE, Home, StageClient, bin, code_of};
use tokio::process::Command;

fn fifo(path: PathBuf) -> String {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    path.display().to_string()
}

async fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output()).await;
    output.expect("it hangs").expect("no start")
}

fn set_mode(path: &Path, mode: u32) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("cannot chmod");
}

/// A file whose devcluster leaves a mark when it starts.
fn up(home: &Home, temp_dir: &Path) -> Command {
    let file = home.path().join("devcluster.yaml");
    let stages = "stages:\n  - config-emit: {}\n  - master: {cmdline: [sleep, ':config'], config_file: {port: 1}}\n";
    let text = format!("temp_dir: {}\n{stages}", temp_dir.display());
    std::fs::write(&file, text).expect("cannot write");
    let devcluster = home.path().join("fake-devcluster");
    // It is started early, and does nothing before it has its file.
    std::fs::write(
        &devcluster,
        "#!/bin/sh\nwhile [ \"$1\" != -c ]; do shift; done\ngrep -q . \"$2\" || exit 1\n\
         touch \"$HOME/ran\"\necho devcluster is up >&2\n",
    )
    .expect("cannot write");
    set_mode(&devcluster, 0o755);
    let mut command = home.command(&bin("devcluster-remote"));
    command.args(["up", "--i-know", "-c"]).arg(file);
    command.env("DEVCLUSTER", devcluster);
    command
}

#[tokio::test]
async fn a_fifo_in_the_place_of_a_file_hangs_no_program() {
    let emit = |home: &Home, upstreams: &str, args: &[&str]| {
        let mut command = home.command(&bin("devcluster-config-emit"));
        command.args(["once", "--name=e", upstreams]);
        command.arg("--run-dir").arg(home.run_dir());
        command.arg(format!("--out={}", home.path().join("out").display()));
        command.args(args);
        command
    };
    let gateway = |home: &Home, kubeconfig: &str| {
        let mut command = home.command(&bin("devcluster-gateway"));
        command.args(["run", "--kubeconfig", kubeconfig, "--run-dir"]);
        command.arg(home.run_dir());
        command
    };
    let remote = |home: &Home, args: &[&str]| {
        let mut command = home.command(&bin("devcluster-remote"));
        command.args(args);
        command
    };
    type Make<'a> = &'a dyn Fn(&Home) -> Command;
    let places: [(&str, &str, Make); 17] = [
        ("base", "config_emit.base_unreadable", &|home| {
            let base = fifo(home.path().join("base"));
            emit(
                home,
                "--upstreams=[]",
                &["--format=config", "--base", &base],
            )
        }),
        ("out", "config_emit.cannot_write", &|home| {
            fifo(home.path().join("out"));
            emit(home, "--upstreams=[]", &["--format=json"])
        }),
        ("config of a stage", "protocol.config", &|home| {
            emit(
                home,
                "--upstreams=[]",
                &["--config", &fifo(home.path().join("c"))],
            )
        }),
        ("lock", "protocol.io", &|home| {
            fifo(home.run_dir().join("e.lock"));
            set_mode(&home.run_dir(), 0o700);
            emit(home, "--upstreams=[]", &["--format=json"])
        }),
        ("temporary file", "config_emit.cannot_write", &|home| {
            fifo(home.path().join(".out.tmp"));
            emit(home, "--upstreams=[]", &["--format=json"])
        }),
        (
            "outputs and status of an upstream",
            "protocol.upstream_missing",
            &|home| {
                fifo(home.run_dir().join("outputs/up.json"));
                fifo(home.run_dir().join("status/up.json"));
                set_mode(&home.run_dir(), 0o700);
                emit(home, r#"--upstreams=["up"]"#, &["--format=json"])
            },
        ),
        ("kubeconfig", "cluster.kubeconfig_unreadable", &|home| {
            gateway(home, &fifo(home.path().join("k")))
        }),
        (
            "certificate of a kubeconfig",
            "cluster.kubeconfig_malformed",
            &|home| {
                let ca = fifo(home.path().join("ca"));
                let text = format!(
                    "{{current-context: x, contexts: [{{name: x, context: {{cluster: c}}}}], clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1', certificate-authority: {ca}}}}}]}}"
                );
                let kubeconfig = home.path().join("k");
                std::fs::write(&kubeconfig, text).expect("cannot write");
                gateway(home, kubeconfig.to_str().expect("text"))
            },
        ),
        ("ssh key", "tunnel.key_missing", &|home| {
            let mut command = home.command(&bin("devcluster-tunnel"));
            command.args(["run", "--reverse-proxy-host=127.0.0.1", "--ssh-key-path"]);
            command.arg(fifo(home.path().join("key")));
            command.arg("--run-dir").arg(home.run_dir());
            command
        }),
        ("known hosts", "protocol.config", &|home| {
            let file = fifo(home.path().join("known_hosts"));
            let mut command = home.command(&bin("devcluster-tunnel"));
            command.args([
                "run",
                "--reverse-proxy-host=127.0.0.1",
                "--known-hosts-path",
            ]);
            command.arg(file).arg("--run-dir").arg(home.run_dir());
            command
        }),
        ("ssh_config", "protocol.config", &|home| {
            let file = fifo(home.path().join("ssh_config"));
            let mut command = home.command(&bin("devcluster-tunnel"));
            command.args(["run", "--reverse-proxy-host=127.0.0.1", "--ssh-config-path"]);
            command.arg(file).arg("--run-dir").arg(home.run_dir());
            command
        }),
        ("file of the driver", "remote.no_file", &|home| {
            remote(home, &["compile", "-c", &fifo(home.path().join("f"))])
        }),
        ("output of the driver", "protocol.io", &|home| {
            remote(home, &["schema", "--out", &fifo(home.path().join("f"))])
        }),
        ("lock of devcluster", "protocol.unsafe_dir", &|home| {
            let temp_dir = home.path().join("t");
            fifo(temp_dir.join("lock"));
            up(home, &temp_dir)
        }),
        ("list of devcluster", "protocol.unsafe_dir", &|home| {
            let temp_dir = home.path().join("t");
            fifo(temp_dir.join("running.json"));
            up(home, &temp_dir)
        }),
        ("config of a master", "protocol.unsafe_dir", &|home| {
            let temp_dir = home.path().join("t");
            fifo(temp_dir.join("master.conf"));
            up(home, &temp_dir)
        }),
        ("lock of devcluster, for doctor", "", &|home| {
            let temp_dir = home.path().join("t");
            fifo(temp_dir.join("lock"));
            drop(up(home, &temp_dir));
            let file = home.path().join("devcluster.yaml");
            remote(home, &["doctor", "-c", file.to_str().expect("text")])
        }),
    ];
    for (place, code, make) in places {
        let home = Home::new();
        let output = output(make(&home)).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && !home.path().join("ran").exists(),
            "{place}: {stderr}"
        );
        assert!(output.status.code().is_some(), "{place}: {stderr}");
        assert_eq!(code_of(&stderr), code, "{place}: {stderr}");
    }
}

#[tokio::test]
async fn up_refuses_a_temp_dir_that_others_can_change_before_devcluster_starts() {
    let home = Home::new();
    let path = |name: &str| home.path().join(name);
    for (name, mode) in [("open", 0o777), ("sticky", 0o1777), ("mine/deep", 0o755)] {
        std::fs::create_dir_all(path(name)).expect("a directory");
        set_mode(&path(name), mode);
    }
    symlink(path("mine"), path("open/link")).expect("a link");
    symlink(path("open"), path("mine/out")).expect("a link");
    std::fs::create_dir(path("mine/planted")).expect("a directory");
    symlink(path("victim"), path("mine/planted/master.conf")).expect("a link");
    for bad in [
        "open",
        "open/t",
        "open/a/b/t",
        "open/link/deep",
        "mine/out/t",
        "sticky",
        "mine/planted",
    ] {
        let output = output(up(&home, &path(bad))).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (code_of(&stderr), output.status.code()),
            ("protocol.unsafe_dir", Some(2)),
            "{bad}: {stderr}"
        );
        assert!(!path("ran").exists(), "{bad}");
    }
    for good in ["sticky/t", "mine/deep/t"] {
        let output = output(up(&home, &path(good))).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{good}: {stderr}");
        std::fs::remove_file(path("ran")).expect("devcluster started");
    }
}

/// A renderer that follows nothing, and writes a file once.
fn emit(home: &Home, verb: &str) -> Command {
    let mut command = home.command(&bin("devcluster-config-emit"));
    command.args([verb, "--name=e", "--format=json", "--upstreams=[]"]);
    command.arg("--run-dir").arg(home.run_dir());
    command.arg(format!("--out={}", home.path().join("out").display()));
    command
}

#[tokio::test]
async fn a_stage_whose_lock_is_removed_or_replaced_ends_and_leaves_the_files_of_the_next() {
    type Break = fn(&Path);
    let run_dir = |home: &Path| home.join("run");
    let breaks: [(&str, Break); 4] = [
        ("the run directory is gone", |home| {
            std::fs::remove_dir_all(home.join("run")).expect("cannot remove");
        }),
        ("the run directory is another one", |home| {
            std::fs::rename(home.join("run"), home.join("aside")).expect("cannot rename");
            std::fs::create_dir(home.join("run")).expect("cannot create");
        }),
        ("the lock is another file", |home| {
            std::fs::write(home.join("run/new"), "").expect("cannot write");
            std::fs::rename(home.join("run/new"), home.join("run/e.lock")).expect("cannot rename");
        }),
        ("the lock of the ledger is gone", |home| {
            let state = home.join("state/devcluster-stages");
            let files = state.read_dir().expect("no state").flatten();
            let lock = files
                .map(|file| file.path())
                .find(|path| path.extension() == Some("lock".as_ref()));
            std::fs::remove_file(lock.expect("no lock")).expect("cannot remove");
        }),
    ];
    for (what, break_it) in breaks {
        let home = Home::new();
        let mut first = StageClient::start(emit(&home, "run"));
        first.wait_for("ready").await;
        let status = run_dir(home.path()).join("status/e.json");
        break_it(home.path());
        let before = std::fs::read_to_string(&status).ok();
        let (ended, _) = first.wait().await;
        let stderr = first.stderr();
        assert_eq!(
            (code_of(&stderr), ended.code()),
            ("protocol.lock_lost", Some(1)),
            "{what}: {stderr}"
        );
        assert_eq!(std::fs::read_to_string(&status).ok(), before, "{what}");
        if run_dir(home.path()).exists() {
            set_mode(&run_dir(home.path()), 0o700);
        }
        let mut next = StageClient::start(emit(&home, "run"));
        next.wait_for("ready").await;
        next.signal(Signal::TERM);
        assert!(next.wait().await.0.success(), "{what}");
    }
}

#[tokio::test]
async fn while_a_run_lives_no_other_starts_whatever_happens_to_the_run_directory() {
    let home = Home::new();
    let mut first = StageClient::start(emit(&home, "run"));
    first.wait_for("ready").await;
    first.signal(Signal::STOP);
    std::fs::remove_dir_all(home.run_dir()).expect("cannot remove");
    let output = output(emit(&home, "once")).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (code_of(&stderr), output.status.code()),
        ("protocol.locked", Some(6)),
        "{stderr}"
    );
    first.signal(Signal::CONT);
    let (ended, _) = first.wait().await;
    assert_eq!(ended.code(), Some(1), "{}", first.stderr());
}

#[tokio::test]
async fn a_stage_that_waits_for_a_lock_hears_a_stop() {
    for verb in ["run", "once"] {
        let home = Home::new();
        let mut first = StageClient::start(emit(&home, "run"));
        first.wait_for("ready").await;
        let mut second = StageClient::start(emit(&home, verb));
        second.wait_for("hello").await;
        second.signal(Signal::TERM);
        let (_, _) = second.wait().await;
        let stderr = second.stderr();
        assert_ne!(code_of(&stderr), "protocol.locked", "{verb}: {stderr}");
        first.signal(Signal::TERM);
        assert!(first.wait().await.0.success());
    }
}
