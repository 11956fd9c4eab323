//! Plugins under `devcluster-remote host`: the example in Python, and ones in shell that a test writes.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::{DEADLINE, Home, bin};

/// A line of shell that says `ready`.
pub const READY: &str = r#"echo '{"dcs":1,"type":"ready","stage":"x","run":"r","gen":1}'"#;

/// The example in Python.
pub fn plugin() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../devcluster-examples/plugin/serve.py")
}

/// `devcluster-remote host <verb>` for the instance `files`.
pub fn host(home: &Home, verb: &str) -> Command {
    let mut command = home.command(&bin("devcluster-remote"));
    command
        .args(["host", verb, "--name", "files", "--run-dir"])
        .arg(home.run_dir())
        .stdin(Stdio::null());
    command
}

/// `host run` of a plugin with this config.
pub fn run_with(home: &Home, uses: &Path, with: &Value) -> Command {
    let mut command = host(home, "run");
    command
        .arg("--uses")
        .arg(uses)
        .arg(format!("--with={with}"));
    command
}

/// `host run` of the example.
pub fn run(home: &Home) -> Command {
    run_with(home, &plugin(), &json!({"directory": home.path()}))
}

/// A plugin in shell, written into the home.
pub fn script(home: &Home, body: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = home.path().join("plugin.sh");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("cannot write");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("cannot chmod");
    path
}

/// Runs a command to its end; the exit code and stderr.
pub async fn exit_code(mut command: Command) -> (i32, String) {
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .expect("no end")
        .expect("no start");
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}
