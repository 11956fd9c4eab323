//! Compiled references.

use std::path::Path;

use serde_json::{Value, json};
use support::devcluster::python_program;
use support::emit::{Upstream, command, finish, read, tunnel_outputs, write};
use support::{Home, bin};

use super::printed;
use super::render::pyyaml;

/// The words that stock devcluster would run, after it expanded variables.
const LOAD: &str = r#"
import json, sys, yaml, devcluster as dc
config = dc.Config(dc.expand_env(yaml.safe_load(open(sys.argv[1]).read()), {"HOME": "/h"}))
print(json.dumps({s.name: {
    "cmd": getattr(s, "cmd", getattr(s, "cmdline", None)),
    "env": getattr(s, "env", None),
    "config": getattr(s, "config_file", None),
    "pre": [getattr(p, "cmd", p) for p in getattr(s, "pre", [])],
} for s in config.stages}))
"#;

#[tokio::test]
async fn compiled_references_get_their_values_through_devcluster() {
    let home = Home::new();
    let _tunnel = Upstream::ready(&home, "tunnel", "tunnel", tunnel_outputs(8003)).await;
    let text = format!(
        "temp_dir: {temp}
stages:
  - tunnel: {{reverse_proxy_host: proxy}}
  - custom:
      name: app
      cmd: [printf, '%s|', \"${{{{ tunnel.port }}}}\", \"$HOME\", \"$${{{{ literal }}}}\", \"$$${{{{ tunnel.port }}}}\"]  # kept
      env: {{URL: \"${{{{ tunnel.host }}}}\"}}
      pre: [{{sh: \"printf %s ${{{{ tunnel.port }}}}-$HOME-'$${{{{ literal }}}}'\"}}]
  - config-emit: {{}}
  - master:
      config_file: {{a: \"${{{{ tunnel.port }}}}\", b: \"$${{{{ literal }}}}\", c: $HOME, resource_manager: {{type: kubernetes}}}}
",
        temp = home.path().display()
    );
    let source = write(&home, "devcluster.yaml", &text);
    let mut compile = home.command(&bin("devcluster-remote"));
    compile.arg("compile").arg("-c").arg(&source);
    let compiled = printed(compile).await;
    assert!(compiled.contains("# kept"), "{compiled}");
    let file = write(&home, "compiled.yaml", &compiled);
    let mut python = home.command(&python_program("DEVCLUSTER_PYTHON", "python"));
    python.args(["-c", LOAD]).arg(&file);
    let loaded: Value = serde_json::from_str(&printed(python).await).expect("JSON");

    let run = async |words: &Value| {
        let words: Vec<String> = serde_json::from_value(words.clone()).expect("words");
        let at = |w: &&String| w.starts_with("--run-dir=") || w.starts_with("--upstreams=");
        assert_eq!(words.iter().filter(at).count(), 2, "{words:?}");
        let moved = words[1..]
            .iter()
            .map(|w| match w.starts_with("--run-dir=") {
                true => format!("--run-dir={}", home.run_dir().display()),
                false => w.clone(),
            });
        let mut command = home.command(Path::new(&words[0]));
        command.args(moved);
        printed(command).await
    };
    assert_eq!(
        run(&loaded["app"]["cmd"]).await,
        "8003|/h|${{ literal }}|$8003|"
    );
    assert_eq!(
        run(&loaded["app"]["pre"][0]).await,
        "8003-/h-${{ literal }}"
    );
    let config = write(
        &home,
        "master.conf",
        &loaded["master"]["config"].to_string(),
    );
    let out = home.path().join("master.yaml");
    let (code, stderr) = finish(command(&home, "once", &config, &out)).await;
    assert_eq!(code, Some(0), "{stderr}");
    let config = pyyaml(&home, &read(&out)).await;
    assert_eq!(
        (&config["a"], &config["b"], &config["c"]),
        (&json!(8003), &json!("${{ literal }}"), &json!("/h"))
    );
}

#[tokio::test]
async fn commands_behind_aliases_are_written_out_where_they_are_used() {
    let home = Home::new();
    let text = "\
stages:
  - tunnel: {reverse_proxy_host: proxy}
  - custom: {<<: &base {kill_signal: SIGTERM}, name: a, cmd: &cmd [x, '${{ tunnel.port }}', ':config']}
  - custom: {<<: *base, name: b, cmd: *cmd, pre: &pre [{sh: &sh 'y ${{ tunnel.host }}'}, {sh: *sh}]}
  - config-emit: {}
  - master: {cmdline: *cmd, pre: *pre, config_file: {resource_manager: {type: kubernetes}}}
";
    let source = write(&home, "devcluster.yaml", text);
    let mut compile = home.command(&bin("devcluster-remote"));
    compile.arg("compile").arg("-c").arg(&source);
    let compiled = printed(compile).await;
    let file = write(&home, "compiled.yaml", &compiled);
    let mut python = home.command(&python_program("DEVCLUSTER_PYTHON", "python"));
    python.args(["-c", LOAD]).arg(&file);
    let loaded: Value = serde_json::from_str(&printed(python).await).expect("JSON");
    let tail = |words: &Value| {
        let words: Vec<String> = serde_json::from_value(words.clone()).expect("words");
        let at = words.iter().position(|w| w == "--").expect("it is wrapped");
        assert_eq!(words[1], "exec");
        words[at + 1..].to_vec()
    };
    for name in ["a", "b"] {
        assert_eq!(
            tail(&loaded[name]["cmd"]),
            ["x", "${{ tunnel.port }}", ":config"]
        );
    }
    let rendered = "/tmp/devcluster/stages/master.yaml";
    assert_eq!(
        tail(&loaded["master"]["cmd"]),
        ["x", "${{ tunnel.port }}", rendered]
    );
    for step in [&loaded["b"]["pre"][0], &loaded["b"]["pre"][1]] {
        assert_eq!(tail(step), ["sh", "-c", "y ${{ tunnel.host }}"]);
    }
    let steps = loaded["master"]["pre"].as_array().expect("steps");
    assert_eq!(
        tail(&steps[0]["custom"]),
        ["sh", "-c", "y ${{ tunnel.host }}"]
    );
    assert_eq!(steps.len(), 3, "{steps:?}");
}

#[tokio::test]
async fn compile_refuses_each_invalid_reference_with_its_place() {
    let home = Home::new();
    let text = "\
stages:
  - tunnel: {reverse_proxy_host: proxy}
  - db: {port: '${{ tunnel.port }}'}
  - custom:
      name: app
      cmd: [a, '${{ tunel.port }}', '${{ tunnel.prot }}', '${{ gateway.context }}']
      post: [{conncheck: {port: '${{ tunnel.port }}'}}, {logcheck: {regex: '${{ tunnel.port }}'}}]
      cwd: ${{ tunnel.host }}
  - gateway: {k8s_context: '${{ tunnel.host }}'}
  - custom: {name: b, cmd: [env, sh, -c, 'x ${{ tunnel.host }}'], pre: [{sh: \"x '${{ tunnel.host }}'\"}]}
  - config-emit: {}
  - master: {config_file: {a: 'x${{ gateway.internal_task_gateway }}', b: '${{ config-emit.path }}'}}
  - agent: {config_file: {a: '${{ tunnel.port }}'}}
";
    let source = write(&home, "x.yaml", text);
    let mut compile = home.command(&bin("devcluster-remote"));
    let output = compile
        .arg("compile")
        .arg("-c")
        .arg(&source)
        .output()
        .await
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    for (place, says) in [
        (
            "3:17",
            "db.port: devcluster reads this before any stage has outputs",
        ),
        ("6:17", "cmd[1]: no instance `tunel`"),
        ("6:38", "cmd[2]: tunnel has no `prot`"),
        ("6:60", "cmd[3]: gateway comes later"),
        (
            "7:34",
            "conncheck.port: devcluster reads this before any stage has outputs",
        ),
        (
            "7:77",
            "logcheck.regex: devcluster reads this before any stage has outputs",
        ),
        (
            "8:12",
            "cwd: devcluster reads this before any stage has outputs",
        ),
        (
            "9:29",
            "k8s_context: the config of this stage cannot contain references",
        ),
        ("10:45", "cmd[3]: the value would become text of a script"),
        (
            "10:82",
            "sh: a reference where the shell expands no variables",
        ),
        (
            "12:33",
            "config_file.a: a list or a mapping cannot be a part of a text",
        ),
        (
            "12:76",
            "config_file.b: config-emit renders configs and has no outputs",
        ),
        ("13:31", "agent.config_file.a: no stage renders this config"),
    ] {
        let lines: Vec<&str> = stderr.lines().collect();
        let found = lines
            .windows(2)
            .any(|l| l[0].contains(says) && l[1].ends_with(&format!("x.yaml:{place}")));
        assert!(found, "no `{says}` at {place} in\n{stderr}");
    }
    assert!(stderr.contains("has 13 problems"), "{stderr}");
}
