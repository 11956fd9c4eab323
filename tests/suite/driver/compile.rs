//! `devcluster-remote compile`: both kinds of input, and how stock devcluster reads the result.

mod masters;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use support::devcluster::python_program;
use support::{Home, bin, code_of};

/// Loads a file as stock devcluster does, and prints the result.
const LOAD: &str = r#"
import json, sys, yaml, devcluster as dc
text = open(sys.argv[1]).read()
config = dc.Config(dc.expand_env(yaml.safe_load(text), {"HOME": "/h"}))
def stage(s):
    return {k: getattr(s, k, None) for k in ("name", "cmd", "cmdline", "kill_signal", "config_file")}
print(json.dumps({
    "stages": [stage(s) for s in config.stages],
    "pre": [[getattr(p, "cmd", p) for p in getattr(s, "pre", [])] for s in config.stages],
    "post": [[getattr(p, "cmd", None) if not isinstance(p, dict) else p for p in getattr(s, "post", [])] for s in config.stages],
    "commands": {k: v.command for k, v in config.commands.items()},
    "startup_input": config.startup_input,
}))
"#;

async fn compile(home: &Home, args: &[&str]) -> Output {
    let mut command = home.command(&bin("devcluster-remote"));
    command.arg("compile").args(args).stdin(Stdio::null());
    command.output().await.expect("no driver")
}

async fn compiled(home: &Home, args: &[&str]) -> String {
    let output = compile(home, args).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).expect("text")
}

/// The file as stock devcluster reads it.
async fn loaded(home: &Home, text: &str) -> Value {
    let file = write(home, "compiled.yaml", text);
    let output = home
        .command(&python_program("DEVCLUSTER_PYTHON", "python"))
        .args(["-c", LOAD])
        .arg(&file)
        .output()
        .await
        .expect("no python");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "stock devcluster refuses it: {stderr}\n{text}"
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn write(home: &Home, name: &str, text: &str) -> PathBuf {
    let path = home.path().join(name);
    std::fs::write(&path, text).expect("cannot write");
    path
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../devcluster-examples")
        .join(name)
}

fn names(loaded: &Value) -> Vec<&str> {
    let stages = loaded["stages"].as_array().expect("stages");
    stages
        .iter()
        .map(|s| s["name"].as_str().expect("a name"))
        .collect()
}

/// Whether a report of a mistake is there: the message, and the place below it.
fn reports(stderr: &str, place: &str, message: &str) -> bool {
    let lines: Vec<&str> = stderr.lines().collect();
    let at = |i: usize| {
        lines
            .get(i + 1)
            .is_some_and(|l| l.trim_end().ends_with(place))
    };
    let says = |l: &str| l.starts_with("error: ") && l.contains(message);
    lines
        .iter()
        .enumerate()
        .any(|(i, l)| says(l) && (place.is_empty() || at(i)))
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array()
        .expect("a list")
        .iter()
        .map(|w| w.as_str().expect("a word"))
        .collect()
}

#[tokio::test]
async fn a_file_that_lists_the_stages_loads_in_stock_devcluster_with_its_comments() {
    let home = Home::new();
    let source = example("cloud/devcluster.yaml");
    let text = compiled(&home, &["-c", source.to_str().expect("text")]).await;
    let comments = std::fs::read_to_string(&source).expect("no example");
    for comment in comments
        .lines()
        .map(str::trim)
        .filter(|l| l.starts_with('#'))
    {
        assert!(text.contains(comment), "lost: {comment}");
    }
    let loaded = loaded(&home, &text).await;
    assert_eq!(
        names(&loaded),
        ["tunnel", "gateway", "db", "config-emit", "master"]
    );
    let tunnel = words(&loaded["stages"][0]["cmd"]);
    assert_eq!(tunnel[0], bin("devcluster-tunnel").to_str().expect("text"));
    assert!(
        tunnel.contains(&"--reverse-proxy-host=proxy.example.com"),
        "{tunnel:?}"
    );
    assert_eq!(loaded["stages"][0]["kill_signal"], "SIGTERM");
    let gate = words(&loaded["post"][0][0]);
    assert!(
        gate.contains(&"wait") && gate.contains(&"--linger=3"),
        "{gate:?}"
    );
    assert_eq!(
        loaded["post"][1],
        serde_json::json!([]),
        "the consumer waits for the gateway"
    );
    let master = words(&loaded["stages"][4]["cmdline"]);
    assert_eq!(master.last(), Some(&"/tmp/devcluster/stages/master.yaml"));
    let steps = loaded["pre"][4].as_array().expect("steps");
    assert_eq!(steps.len(), 4, "the user's three, then the driver's");
    assert!(
        words(&steps[3]["custom"]).contains(&"once"),
        "{:?}",
        steps[3]
    );
}

const BASE: &str = "\
# the user's own
startup_input: \"p2@\"
commands:
  p: make -C harness build  # rebuild
  Z: :restart-stage:2
  k: :kill-stage:1
stages:
  # the database
  - db: {port: 5433}
  - master:
      cmdline: ['bin/determined-master', --config-file, ':config']  # ours
      config_file:
        port: 8081
        resource_manager: {type: kubernetes, max_slots_per_pod: 1}
";

#[tokio::test]
async fn the_flat_file_of_the_python_tool_adds_stages_to_its_base_and_adjusts_the_numbers() {
    let home = Home::new();
    write(&home, "base.yaml", BASE);
    let flat = write(
        &home,
        "remote_connect.yaml",
        "ssh_key_path: ~/key\nreverse_proxy_host: $PROXY.example.com\nssh_user: me\nremote_port_range: [8000, 9000]\n\
         k8s_context: gke\ndetermined_root: ~/det\nbase_devcluster_path: ~/base.yaml\n",
    );
    let text = compiled(
        &home,
        &["-c", flat.to_str().expect("text"), "--ssh-user", "you"],
    )
    .await;
    for kept in [
        "# the user's own",
        "# rebuild",
        "# the database",
        "- db: {port: 5433}",
        "# ours",
    ] {
        assert!(text.contains(kept), "lost: {kept}\n{text}");
    }
    let loaded = loaded(&home, &text).await;
    assert_eq!(
        names(&loaded),
        ["tunnel", "gateway", "db", "config-emit", "master"]
    );
    let tunnel = words(&loaded["stages"][0]["cmd"]);
    for flag in [
        "--ssh-user=you",
        "--reverse-proxy-host=$PROXY.example.com",
        "--remote-port-range=[8000,9000]",
        "--ssh-key-path=~/key",
        "--local-port=8081",
    ] {
        assert!(tunnel.contains(&flag), "no {flag} in {tunnel:?}");
    }
    assert!(words(&loaded["stages"][1]["cmd"]).contains(&"--k8s-context=gke"));
    assert_eq!(loaded["commands"]["Z"], ":restart-stage:5");
    assert_eq!(loaded["commands"]["k"], ":kill-stage:3");
    assert_eq!(loaded["startup_input"], "p5%");
    assert_eq!(
        words(&loaded["stages"][4]["cmdline"])[2],
        "/tmp/devcluster/stages/master.yaml"
    );
}

#[tokio::test]
async fn the_flat_form_needs_no_file_and_its_user_is_ubuntu() {
    let home = Home::new();
    let base = write(&home, ".devcluster.yaml", BASE);
    let args = [
        "--reverse-proxy-host",
        "proxy",
        "--remote-port-range",
        "8000,9000",
    ];
    let from_default = compiled(&home, &args).await;
    let loaded = loaded(&home, &from_default).await;
    let tunnel = words(&loaded["stages"][0]["cmd"]);
    assert!(tunnel.contains(&"--ssh-user=ubuntu"), "{tunnel:?}");
    let mut named = args.to_vec();
    named.extend(["--base-devcluster-path", base.to_str().expect("text")]);
    assert_eq!(compiled(&home, &named).await, from_default);
}

#[tokio::test]
async fn a_file_without_new_stages_comes_out_byte_for_byte() {
    let home = Home::new();
    let odd = format!("{BASE}\n\n# the end, without a newline");
    let file = write(&home, "plain.yaml", &odd);
    assert_eq!(
        compiled(&home, &["-c", file.to_str().expect("text")]).await,
        odd
    );
}

#[tokio::test]
async fn a_plugin_is_hosted_and_its_path_is_relative_to_the_file() {
    let home = Home::new();
    let text = "stages:\n  - plugin: {name: files, uses: ./serve.py, with: {directory: /tmp}}\n";
    let file = write(&home, "devcluster.yaml", text);
    let loaded = loaded(
        &home,
        &compiled(&home, &["-c", file.to_str().expect("text")]).await,
    )
    .await;
    let cmd = words(&loaded["stages"][0]["cmd"]);
    assert_eq!(&cmd[1..2], ["host"]);
    let uses = format!("--uses={}/serve.py", home.path().display());
    assert!(
        cmd.contains(&uses.as_str()) && cmd.contains(&"--with={\"directory\":\"/tmp\"}"),
        "{cmd:?}"
    );
}

#[tokio::test]
async fn every_mistake_in_a_file_is_reported_at_once_with_its_line() {
    let home = Home::new();
    let text = "\
stages:
  - tunel: {}
  - tunnel:
      reverse_proxy_hots: a
      ssh_port: many
  - gateway: {gate: maybe}
  - gateway: {name: ../x}
  - config-emit: {out: x}
  - db: {}
";
    let file = write(&home, "bad.yaml", text);
    let output = compile(&home, &["-c", file.to_str().expect("text")]).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty());
    for (place, expected) in [
        (
            "bad.yaml:2:5",
            "stages[0].tunel: unknown kind of stage `tunel`",
        ),
        (
            "bad.yaml:4:7",
            "stages[1].tunnel.reverse_proxy_hots: unknown field",
        ),
        (
            "bad.yaml:3:5",
            "stages[1].tunnel.reverse_proxy_host: missing",
        ),
        (
            "bad.yaml:5:17",
            "stages[1].tunnel.ssh_port: expected a whole number from 0 to 65535",
        ),
        (
            "bad.yaml:6:21",
            "stages[2].gateway.gate: either `stage` or `consumer`",
        ),
        ("bad.yaml:7:21", "stages[3].gateway.name: a name has"),
        (
            "bad.yaml:8:19",
            "stages[4].config-emit.out: is set by the driver",
        ),
        (
            "bad.yaml:8:5",
            "stages[4].config-emit: no master stage to render a config for",
        ),
    ] {
        assert!(
            reports(&stderr, place, expected),
            "no `{expected}` at {place} in\n{stderr}"
        );
    }
    for meant in [
        "^^^^^ did you mean `tunnel`?",
        "did you mean `reverse_proxy_host`?",
        "hint: ",
    ] {
        assert!(stderr.contains(meant), "no `{meant}` in\n{stderr}");
    }
}

#[tokio::test]
async fn files_that_cannot_be_compiled_are_refused_with_file_and_line() {
    let home = Home::new();
    for (text, place, expected) in [
        ("stages: [\n", "x.yaml:1:9", "unclosed bracket"),
        ("- a\n", "", "stages: missing"),
        (
            "stages:\n  - config-emit: {}\n",
            "x.yaml:2:5",
            "no master stage",
        ),
        (
            "stages:\n  - master: {}\n  - config-emit: {}\n",
            "x.yaml:3:5",
            "stages[1].config-emit: must come before `master`",
        ),
        (
            "temp_dir: ~/x\nstages:\n  - config-emit: {}\n  - master: {}\n",
            "x.yaml:1:11",
            "temp_dir: devcluster does not expand `~`",
        ),
        (
            "stages:\n  - config-emit: {}\n  - master: {name: my master}\n",
            "x.yaml:3:20",
            "stages[1].master.name: `my master` cannot name a file",
        ),
        (
            "stages:\n  - config-emit: {}\n  - master: {cmdline: [a, b]}\n",
            "x.yaml:3:23",
            "stages[1].master.cmdline: has no argument `:config`",
        ),
        (
            "ssh_user: x\nbase_devcluster_path: /nowhere\n",
            "",
            "reverse_proxy_host: missing",
        ),
        (
            "reverse_proxy_hots: x\nbase_devcluster_path: /nowhere\n",
            "x.yaml:1:1",
            "reverse_proxy_hots: unknown key",
        ),
    ] {
        let file = write(&home, "x.yaml", text);
        let output = compile(&home, &["-c", file.to_str().expect("text")]).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}: {stderr}");
        assert_eq!(code_of(&stderr), "remote.config", "{text}: {stderr}");
        assert!(
            reports(&stderr, place, expected) && output.stdout.is_empty(),
            "{text}: {stderr}"
        );
    }
    let file = write(
        &home,
        "x.yaml",
        "reverse_proxy_host: x\nbase_devcluster_path: /nowhere\n",
    );
    let output = compile(&home, &["-c", file.to_str().expect("text")]).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("cannot read /nowhere"), "{stderr}");
    assert_eq!(code_of(&stderr), "remote.no_file");
}

/// Every file below here.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory").flatten();
    let nested = entries.map(|e| e.path()).map(|path| match path.is_dir() {
        true => files_below(&path),
        false => vec![path],
    });
    nested.flatten().collect()
}

#[tokio::test]
async fn every_example_compiles_and_loads_in_stock_devcluster() {
    let home = Home::new();
    write(&home, ".devcluster.yaml", BASE);
    let mut seen = 0;
    for file in files_below(&example("")) {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let is_yaml = file.extension().is_some_and(|e| e == "yaml");
        let listed = text.lines().any(|line| line.starts_with("stages:"));
        let flat = file.file_name().is_some_and(|n| n == "remote_connect.yaml");
        if !is_yaml || !(listed || flat) {
            continue;
        }
        let mut args = vec!["-c", file.to_str().expect("text")];
        let base = home.path().join(".devcluster.yaml");
        if flat {
            args.extend(["--base-devcluster-path", base.to_str().expect("text")]);
        }
        let compiled = compiled(&home, &args).await;
        let loaded = loaded(&home, &compiled).await;
        let own = if listed {
            text.clone()
        } else {
            BASE.to_owned()
        };
        let before = protocol::yaml::Document::parse(&own).expect("YAML").value();
        let after = protocol::yaml::Document::parse(&compiled)
            .expect("YAML")
            .value();
        assert_eq!(
            before.get("temp_dir"),
            after.get("temp_dir"),
            "{}",
            file.display()
        );
        // Stages of devcluster without references stay unchanged.
        for stage in before["stages"].as_array().expect("stages") {
            let plain = ["db", "elastic", "custom", "custom_docker"]
                .iter()
                .any(|k| stage.get(k).is_some());
            if plain && !stage.to_string().contains("${{") {
                let stages = after["stages"].as_array().expect("stages");
                assert!(stages.contains(stage), "{}: {stage}", file.display());
            }
        }
        assert!(!names(&loaded).is_empty());
        seen += 1;
    }
    assert!(seen >= 2, "only {seen} examples");
}
