//! `${{ instance.path }}`: in a rendered config, in a command, and compiled.

mod compile;
mod exec;
mod render;

use serde_json::json;
use support::Home;
use support::emit::Upstream;
use tokio::process::Command;

/// A value that does harm wherever it is read as anything but a value.
const NASTY: &str = "a  b\n\"'`$(touch harm)`; $HOME ${{ x }} \\ # & é";

/// A value with everything except what a shell runs in arithmetic.
const ODD: &str = "a  b\n\"';(touch harm)| * # & é";

async fn vpn(home: &Home) -> Upstream {
    let outputs = json!({
        "port": 8003, "up": true, "name": "vpn", "none": null, "nasty": NASTY, "odd": ODD, "option": "-c",
        "command": "x; touch harm", "subscript": "x[$(touch harm)]", "list": ["a", {"b": 2}],
        "block": {"ip": "10.0.0.1", "ports": [1, 2]},
    });
    Upstream::ready(home, "my.vpn", "plugin", outputs).await
}

async fn printed(mut command: Command) -> String {
    let output = command.output().await.expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).expect("text")
}
