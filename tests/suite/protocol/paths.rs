//! Paths that are not what they should be: a FIFO in the place of a file, and what other users can replace.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::{DEADLINE, Home, bin, code_of};
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
    std::fs::write(
        &devcluster,
        "#!/bin/sh\ntouch \"$HOME/ran\"\necho devcluster is up >&2\n",
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
    let places: [(&str, &str, Make); 16] = [
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
            "outputs of an upstream",
            "protocol.upstream_missing",
            &|home| {
                fifo(home.run_dir().join("outputs/up.json"));
                set_mode(&home.run_dir(), 0o700);
                emit(home, r#"--upstreams=["up"]"#, &["--format=json"])
            },
        ),
        (
            "status of an upstream",
            "protocol.upstream_missing",
            &|home| {
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
