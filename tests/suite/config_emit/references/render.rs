//! References in a rendered config.

use serde_json::{Value, json};
use support::Home;
use support::devcluster::python_program;
use support::emit::{assert_refused, command, finish, read, write};

use super::{NASTY, vpn};

/// Renders an agent's config: it has no known fields, only references.
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

/// What PyYAML reads from the result.
pub(crate) async fn pyyaml(home: &Home, text: &str) -> Value {
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
    // The anchor belongs to another stage, which must not change.
    assert_eq!(read["stages"][0]["custom"]["cmd"][0], "${{ my.vpn.name }}");
    assert_eq!(config["shared"], "vpn");
}

#[tokio::test]
async fn every_reference_without_a_value_is_reported_with_its_place() {
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
async fn files_of_every_style_are_read_or_refused_with_a_reason() {
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
