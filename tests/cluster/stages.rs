//! Stages on the bed's laptop.

use std::path::Path;

use support::bed::Bed;
use support::{Home, StageClient, bin};
use tokio::process::Command;

/// `devcluster-<kind> <verb> …`, without a kubeconfig but the one in its arguments.
pub(crate) fn command(bed: &Bed, home: &Home, kind: &str, verb: &str, args: &[&str]) -> Command {
    let mut command = home.command(Path::new(bed.text("/enter/laptop")));
    command
        .args(["env", "-u", "KUBECONFIG"])
        .arg(bin(&format!("devcluster-{kind}")))
        .args([verb, "--run-dir"])
        .arg(home.run_dir())
        .args(args)
        .stdin(std::process::Stdio::null());
    command
}

pub(crate) fn start(bed: &Bed, home: &Home, kind: &str, args: &[&str]) -> StageClient {
    StageClient::start(command(bed, home, kind, "run", args))
}

/// From port 8000 of the ssh server to port 8080 of the laptop.
pub(crate) fn tunnel(bed: &Bed, home: &Home) -> StageClient {
    let server = ["--reverse-proxy-host", bed.text("/addresses/ssh")];
    let config = ["--ssh-config-path", bed.text("/ssh_config")];
    let ports = ["--remote-port-range", "8000-8000", "--local-port", "8080"];
    let args = [server.as_slice(), &config, &ports].concat();
    start(bed, home, "tunnel", &args)
}
