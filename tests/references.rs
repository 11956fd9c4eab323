//! `${{ instance.path }}`: in a rendered config, in a command, and in what `compile` makes of both.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use support::devcluster::python_program;
use support::emit::{Upstream, assert_refused, command, finish, read, tunnel_outputs, write};
use support::{Home, bin};
use tokio::process::Command;

/// A value that does harm where it is taken for anything but a value.
const NASTY: &str = "a  b\n\"'`$(touch harm)`; $HOME ${{ x }} \\ # & é";

async fn vpn(home: &Home) -> Upstream {
    let outputs = json!({
        "port": 8003, "up": true, "name": "vpn", "none": null, "nasty": NASTY, "list": ["a", {"b": 2}],
        "block": {"ip": "10.0.0.1", "ports": [1, 2]},
    });
    Upstream::ready(home, "my.vpn", "plugin", outputs).await
}

/// Renders an agent's config: no field of it is known, references alone count.
async fn rendered(home: &Home, base: &str) -> String {
    let (base, out) = (write(home, "base.yaml", base), home.path().join("out.yaml"));
    let mut once = command(home, "once", &base, &out);
    once.arg("--known-fields=false");
    let (code, stderr) = finish(once).await;
    assert_eq!(code, Some(0), "{stderr}");
    read(&out)
}

#[tokio::test]
async fn a_reference_keeps_its_type_and_the_file_its_form() {
    let home = Home::new();
    let _vpn = vpn(&home).await;
    let base = "\
# head
port: ${{ my.vpn.port }}   # a number
text: 'at ${{my.vpn.name}}:${{ my.vpn.port }}'
up: \"${{ my.vpn.up }}\"
flow: {a: \"${{ my.vpn.port }}\", b: ['${{ my.vpn.list[1].b }}', \"$${{ literal }}\"]}
none: ${{ my.vpn.none }}
block: ${{ my.vpn.block }}   # a mapping
nasty: ${{ my.vpn.nasty }}
literal: |
  first ${{ my.vpn.port }}
  $HOME
shared: &s \"${{ my.vpn.port }}\"
again: *s
base: &b
  p: ${{ my.vpn.port }}
merged:
  <<: *b
  q: 1
";
    let text = rendered(&home, base).await;
    for line in [
        "# head",
        "port: 8003   # a number",
        "text: at vpn:8003",
        "up: true",
        "flow: {a: 8003, b: [2, \"${{ literal }}\"]}",
        "none: null",
        "shared: &s 8003",
        "again: *s",
        "  p: 8003",
        "  <<: *b",
    ] {
        assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }
    let read = pyyaml(&home, &text).await;
    assert_eq!(read["nasty"], NASTY);
    assert_eq!(read["block"], json!({"ip": "10.0.0.1", "ports": [1, 2]}));
    assert_eq!(read["literal"], "first 8003\n$HOME\n");
    assert_eq!(read["merged"], json!({"p": 8003, "q": 1}));
    assert_eq!(read["again"], 8003);
}

/// What the reader of the result will read.
async fn pyyaml(home: &Home, text: &str) -> Value {
    let file = write(home, "read.yaml", text);
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let mut python = home.command(&python_program("DEVCLUSTER_PYTHON", "python"));
    let output = python.args(["-c", script]).arg(&file).output().await;
    let output = output.expect("python runs");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}\n{text}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test]
async fn in_a_devcluster_yaml_a_value_survives_what_devcluster_expands() {
    let home = Home::new();
    let _vpn = vpn(&home).await;
    let base = "stages:\n  - custom: {name: x, cmd: [&c '${{ my.vpn.name }}']}\n  - agent:\n      config_file:\n        \
        nasty: ${{ my.vpn.nasty }}\n        shared: *c\n        home: $HOME\n";
    let (base, out) = (
        write(&home, "base.yaml", base),
        home.path().join("out.yaml"),
    );
    let mut once = command(&home, "once", &base, &out);
    once.args(["--stage", "agent"]);
    let (code, stderr) = finish(once).await;
    assert_eq!(code, Some(0), "{stderr}");
    let read = pyyaml(&home, &read(&out)).await;
    let config = &read["stages"][1]["agent"]["config_file"];
    assert_eq!(config["nasty"], NASTY.replace('$', "$$"));
    assert_eq!(config["home"], "$HOME");
    // The anchor belongs to another stage, which is not ours to change.
    assert_eq!(read["stages"][0]["custom"]["cmd"][0], "${{ my.vpn.name }}");
    assert_eq!(config["shared"], "vpn");
}

#[tokio::test]
async fn every_reference_that_leads_nowhere_is_reported_with_its_place() {
    let home = Home::new();
    let _vpn = vpn(&home).await;
    let base = "a: ${{ my.vpn.prot }}\nb: x-${{ my.vpn.block }}\nc: ${{ my.vnp.port }}\nd: ${{\n${{ my.vpn.port }}: e\n\
        f: ${{ my.vpn.list[9] }}\ng: x${{ my.vpn.none }}\n";
    let says = [
        "base.yaml:1:4: a: my.vpn has no `prot`; did you mean `my.vpn.port`?",
        "base.yaml:2:6: b: is a list or a mapping",
        "base.yaml:3:4: c: no instance `my`",
        "base.yaml:4:4: d: a reference without its",
        "base.yaml:5:1: ${{ my.vpn.port }}: a reference in a key",
        "base.yaml:6:4: f: `my.vpn.list` has 2 items",
        "base.yaml:7:5: g: is empty",
    ];
    assert_refused(&home, base, "config_emit.bad_reference", 2, &says).await;
}

#[tokio::test]
async fn files_of_every_make_are_read_or_refused_with_a_reason() {
    let home = Home::new();
    let _vpn = vpn(&home).await;
    let windows = "\u{feff}a: ${{ my.vpn.port }}  # one\r\nb: 'x ${{ my.vpn.name }}'\r\n";
    let text = rendered(&home, windows).await;
    assert_eq!(text, "\u{feff}a: 8003  # one\r\nb: x vpn\r\n");
    std::fs::remove_file(home.path().join("out.yaml")).expect("it was written");
    let mut bomb = "a0: &a0 ['${{ my.vpn.port }}']\n".to_owned();
    for i in 1..24 {
        bomb += &format!("a{i}: &a{i} [*a{0}, *a{0}, *a{0}]\n", i - 1);
    }
    assert_refused(
        &home,
        &bomb,
        "config_emit.base_not_yaml",
        2,
        &["expand to too many"],
    )
    .await;
    let (base, out) = (
        home.path().join("latin.yaml"),
        home.path().join("out2.yaml"),
    );
    std::fs::write(&base, b"a: \xe9\n").expect("written");
    let (code, stderr) = finish(command(&home, "once", &base, &out)).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("invalid utf-8"), "{stderr}");
}

/// `devcluster-config-emit exec … -- words`
fn exec(home: &Home, options: &[&str], words: &[&str]) -> Command {
    let mut command = home.command(&bin("devcluster-config-emit"));
    command
        .arg("exec")
        .arg("--run-dir")
        .arg(home.run_dir())
        .args(options);
    command
        .arg("--")
        .args(words)
        .current_dir(home.path())
        .stdin(Stdio::null());
    command
}

async fn printed(mut command: Command) -> String {
    let output = command.output().await.expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn a_command_gets_values_and_a_shell_takes_none_for_a_command() {
    let home = Home::new();
    let _vpn = vpn(&home).await;
    let words = [
        "printf",
        "%s|",
        "${{ my.vpn.port }}",
        "x${{ my.vpn.nasty }}",
        "${{ my.vpn.block }}",
        "$${{ no }}",
    ];
    let expected = format!("8003|x{NASTY}|{{\"ip\":\"10.0.0.1\",\"ports\":[1,2]}}|${{{{ no }}}}|");
    assert_eq!(printed(exec(&home, &[], &words)).await, expected);
    for script in [
        "printf %s ${{ my.vpn.nasty }}",
        "printf %s \"${{ my.vpn.nasty }}\"",
    ] {
        assert_eq!(
            printed(exec(&home, &[], &["sh", "-ec", script])).await,
            NASTY
        );
    }
    let mut command = exec(
        &home,
        &["--env", "URL"],
        &["sh", "-c", "printf %s \"$URL $OTHER\""],
    );
    command
        .env("URL", "at ${{ my.vpn.port }}")
        .env("OTHER", "${{ my.vpn.port }}");
    assert_eq!(printed(command).await, "at 8003 ${{ my.vpn.port }}");
    assert!(!home.path().join("harm").exists());
}

#[tokio::test]
async fn a_command_becomes_the_process_and_its_code_is_ours() {
    let home = Home::new();
    let _vpn = vpn(&home).await;
    let (code, stderr) = finish(exec(
        &home,
        &[],
        &["sh", "-c", "exit ${{ my.vpn.list[1].b }}"],
    ))
    .await;
    assert_eq!(code, Some(2), "{stderr}");
    let child = exec(
        &home,
        &["--for", "app.cmd"],
        &["sh", "-c", "echo $$ ${{ my.vpn.port }}"],
    )
    .stdout(Stdio::piped())
    .spawn()
    .expect("it runs");
    let pid = child.id();
    let output = child.wait_with_output().await.expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.trim(), format!("{} 8003", pid.expect("a pid")));
    let note = read(&home.run_dir().join("used/app.cmd.json"));
    let note: Value = serde_json::from_str(&note).expect("JSON");
    assert_eq!(note["stage"], "app");
    assert_eq!(note["values"], json!({"${{ my.vpn.port }}": 8003}));
}

#[tokio::test]
async fn what_outlived_its_devcluster_is_ended_by_the_next_start() {
    let home = Home::new();
    let _vpn = vpn(&home).await;
    let words = ["sleep", "80${{ my.vpn.port }}"];
    let mut first = exec(&home, &["--for", "app.cmd"], &words)
        .spawn()
        .expect("it runs");
    let note = home.run_dir().join("used/app.cmd.json");
    let noted = async {
        while !note.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(support::DEADLINE, noted)
        .await
        .expect("no note");
    let mut second = exec(&home, &["--for", "app.cmd"], &words)
        .spawn()
        .expect("it runs");
    let status = tokio::time::timeout(support::DEADLINE, first.wait()).await;
    let status = status.expect("it lives on").expect("a status");
    assert!(!status.success(), "{status}");
    second.kill().await.expect("killed");
}

#[tokio::test]
async fn a_command_that_cannot_have_its_values_says_why() {
    let home = Home::new();
    let _vpn = vpn(&home).await;
    for (options, words, code, says) in [
        (
            &[][..],
            &["echo", "${{ my.vpn.prot }}"][..],
            2,
            "did you mean `my.vpn.port`?",
        ),
        (
            &[],
            &["echo", "${{ nobody.port }}"],
            2,
            "no instance `nobody`; there is my.vpn",
        ),
        (&[], &["echo", "${{ my.vpn.none }}"], 2, "is empty"),
        (&[], &["echo", "${{ "], 2, "without its `}}`"),
        (
            &[],
            &["sh", "-c", "echo '${{ my.vpn.port }}'"],
            2,
            "use double quotes",
        ),
        (
            &[],
            &["/nowhere/${{ my.vpn.port }}"],
            2,
            "cannot run /nowhere/8003",
        ),
        (
            &["--upstreams", "gone"],
            &["echo", "${{ gone.x }}"],
            4,
            "nobody runs gone",
        ),
    ] {
        let (exit, stderr) = finish(exec(&home, options, words)).await;
        assert_eq!(exit, Some(code), "{words:?}: {stderr}");
        assert!(
            stderr.contains(says) && stderr.contains("code: "),
            "{words:?}: {stderr}"
        );
    }
}

/// The words that stock devcluster would run, after it has expanded them.
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
async fn what_compile_makes_of_references_reaches_them_through_devcluster() {
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
async fn compile_refuses_each_reference_that_cannot_be_with_its_place() {
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
        ("3:17", "db.port: devcluster reads this itself"),
        ("6:17", "cmd[1]: no instance `tunel`"),
        ("6:38", "cmd[2]: tunnel has no `prot`"),
        ("6:60", "cmd[3]: gateway comes later"),
        ("7:34", "conncheck.port: devcluster reads this itself"),
        ("7:77", "logcheck.regex: devcluster reads this itself"),
        ("8:12", "cwd: devcluster reads this itself"),
        (
            "9:29",
            "k8s_context: the config of this stage takes no references",
        ),
        (
            "11:33",
            "config_file.a: a list or a mapping cannot be a part of a text",
        ),
        ("11:76", "config_file.b: config-emit renders configs itself"),
        ("12:31", "agent.config_file.a: nobody renders this config"),
    ] {
        let lines: Vec<&str> = stderr.lines().collect();
        let found = lines
            .windows(2)
            .any(|l| l[0].contains(says) && l[1].ends_with(&format!("x.yaml:{place}")));
        assert!(found, "no `{says}` at {place} in\n{stderr}");
    }
    assert!(stderr.contains("has 11 problems"), "{stderr}");
}
