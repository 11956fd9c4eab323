//! The formats of a result, each read by its consumer.

use std::process::Stdio;

use serde_json::{Value, json};
use support::devcluster::python_program;
use support::emit::{
    DEVCLUSTER, RENDERED, Upstream, gateway_outputs, tunnel_and_gateway, tunnel_outputs, write,
};
use support::{Home, bin, code_of};

/// The output on stdout in this format.
async fn emitted(home: &Home, format: &str, base: Option<&str>) -> String {
    let mut command = home.command(&bin("devcluster-config-emit"));
    command.args(["once", "--out", "-", "--format", format]);
    command
        .arg("--run-dir")
        .arg(home.run_dir())
        .stdin(Stdio::null());
    if let Some(base) = base {
        command.arg("--base").arg(write(home, "base.yaml", base));
    }
    let output = command.output().await.expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{format}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn a_config_is_written_whole_alone_or_only_where_it_changed() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    assert_eq!(emitted(&home, "file", Some(DEVCLUSTER)).await, RENDERED);
    let base = DEVCLUSTER.replace("log: { level: debug }", "log: { level: $HOME/$$x }");
    let config = emitted(&home, "config", Some(&base)).await;
    let from = RENDERED.find("        log:").expect("there");
    let to = RENDERED.find("  - agent").expect("there");
    let expected: String = RENDERED[from..to]
        .lines()
        .map(|l| format!("{}\n", &l[8..]))
        .collect();
    let home_path = home.path().display();
    assert_eq!(
        config,
        expected.replace("level: debug", &format!("level: {home_path}/$x"))
    );
    let block = emitted(&home, "block", Some(DEVCLUSTER)).await;
    assert_eq!(
        block,
        expected[expected.find("resource_manager").expect("there")..]
    );
}

#[tokio::test]
async fn values_outside_of_json_are_kept_also_in_a_rewritten_config() {
    let home = Home::new();
    let _tunnel = Upstream::ready(&home, "tunnel", "tunnel", tunnel_outputs(8003)).await;
    let odd = "{inf: .inf, big: 99999999999999999999, bin: !!binary aGk=, day: 2001-12-14, twin: 1, twin: 2}";
    let base = format!(
        "stages:\n  - custom: {{name: x, cmd: [a], env: &n {odd}}}\n  - master:\n      config_file:\n        odd: *n\n        resource_manager: {{type: kubernetes}}\n"
    );
    let text = emitted(&home, "config", Some(&base)).await;
    for value in [
        ": .inf",
        "big: 99999999999999999999",
        "bin: !!binary aGk=",
        "day: 2001-12-14",
        "twin: 2",
        "determined_master_port: 8003",
    ] {
        assert!(text.contains(value), "{value}\n{text}");
    }
}

#[tokio::test]
async fn a_config_with_anchors_from_outside_is_complete_without_them() {
    let home = Home::new();
    let _tunnel = Upstream::ready(&home, "tunnel", "tunnel", tunnel_outputs(8003)).await;
    let base = "stages:\n  - custom: {name: &n x, cmd: [a]}\n  - master:\n      config_file:\n        name: *n\n        resource_manager: {type: kubernetes}\n";
    let text = emitted(&home, "config", Some(base)).await;
    let value = protocol::yaml::Document::parse(&text)
        .expect("YAML")
        .value();
    assert_eq!(value["name"], "x", "{text}");
    assert_eq!(
        value["resource_manager"]["determined_master_port"], 8003,
        "{text}"
    );
}

#[tokio::test]
async fn without_a_base_values_reach_a_shell_a_ci_and_a_program() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    let _odd = Upstream::ready(
        &home,
        "my-vpn",
        "plugin",
        json!({"motd": "it's\n$(touch harm) `x`\n", "n": 1}),
    )
    .await;
    let all: Value = serde_json::from_str(&emitted(&home, "json", None).await).expect("JSON");
    assert_eq!(all["tunnel"], tunnel_outputs(8003));
    assert_eq!(all["gateway"], gateway_outputs());

    let shell = emitted(&home, "shell", None).await;
    let script = format!(
        "{shell}\nprintf '%s|%s|%s' \"$TUNNEL_PORT\" \"$MY_VPN_MOTD\" \"$(env | grep -c ^GATEWAY_INTERNAL_TASK_GATEWAY_)\""
    );
    let output = home
        .command("sh".as_ref())
        .args(["-euc", &script])
        .output()
        .await
        .expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(printed, "8003|it's\n$(touch harm) `x`\n|4", "{shell}");

    let lines = emitted(&home, "key-value", None).await;
    for expected in [
        "TUNNEL_PORT=8003\n",
        "MY_VPN_N=1\n",
        "MY_VPN_MOTD<<END\nit's\n$(touch harm) `x`\n\nEND\n",
    ] {
        assert!(lines.contains(expected), "no {expected:?} in\n{lines}");
    }

    let twins = json!({"b-c": 1, "b_c": 2});
    let _twins = Upstream::ready(&home, "a", "plugin", twins).await;
    let mut command = home.command(&bin("devcluster-config-emit"));
    command.args(["once", "--out", "-", "--format", "shell"]);
    command.arg("--run-dir").arg(home.run_dir());
    let refused = command.output().await.expect("it runs");
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(stderr.contains("would both be $A_B_C"), "{stderr}");
    assert_eq!(code_of(&stderr), "config_emit.ambiguous_name");
}

/// Runs a command with a terminal as its stderr, and prints what it wrote there.
const TERMINAL: &str = "import os, pty, subprocess, sys
primary, secondary = pty.openpty()
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=secondary)
os.close(secondary)
said = b''
while True:
    try: part = os.read(primary, 65536)
    except OSError: break
    if not part: break
    said += part
sys.stdout.buffer.write(said)
sys.exit(child.wait())";

#[tokio::test]
async fn diffs_and_mistakes_have_colours_on_a_terminal_unless_disabled() {
    let home = Home::new();
    let _upstreams = tunnel_and_gateway(&home).await;
    for (base, plain) in [
        (DEVCLUSTER, false),
        (DEVCLUSTER, true),
        ("stages: []\n", false),
    ] {
        let mut command = home.command(&python_program("DEVCLUSTER_PYTHON", "python"));
        command
            .args(["-c", TERMINAL])
            .arg(bin("devcluster-config-emit"));
        command
            .args(["once", "--diff", "--run-dir"])
            .arg(home.run_dir());
        command.arg("--base").arg(write(&home, "base.yaml", base));
        command.arg("--out").arg(home.path().join("out.yaml"));
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        if plain {
            command.env("NO_COLOR", "1");
        }
        let said = command.output().await.expect("it runs").stdout;
        let said = String::from_utf8_lossy(&said);
        assert_eq!(said.contains("\u{1b}["), !plain, "{said:?}");
        let line = if base == DEVCLUSTER {
            "determined_master_port: 8003"
        } else {
            "no master or agent stage"
        };
        assert!(said.contains(line), "{said}");
    }
}

#[tokio::test]
async fn a_format_that_needs_a_base_requires_one() {
    let home = Home::new();
    let mut command = home.command(&bin("devcluster-config-emit"));
    command.args(["once", "--out", "-", "--format", "block"]);
    let output = command
        .arg("--run-dir")
        .arg(home.run_dir())
        .output()
        .await
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("base: missing"), "{stderr}");
}
