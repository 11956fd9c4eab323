//! Files without new stages: what stock devcluster accepts stays byte for byte, what it refuses is refused with a line.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use support::devcluster::python_program;
use support::emit::write;
use support::{Home, bin};

/// Whether stock devcluster reads each of these files; the paths are on stdin.
const READS: &str = r#"
import os, sys, yaml, devcluster as dc
for path in sys.stdin.read().split("\n"):
    if not path: continue
    try:
        config = dc.Config(dc.expand_env(yaml.safe_load(open(path).read()), {"HOME": "/h"}))
        os.makedirs(config.temp_dir, exist_ok=True)
        # All that comes before the first stage, except the terminal.
        dc.Server(config, [], quiet=True)
        for key in config.startup_input: ord(key)
        print("true")
    except Exception as e:
        print("false")
"#;

async fn stock_reads(home: &Home, files: &[PathBuf]) -> Vec<bool> {
    let list: String = files.iter().map(|f| format!("{}\n", f.display())).collect();
    let list = std::fs::File::open(write(home, "list", &list)).expect("open");
    let mut python = home.command(&python_program("DEVCLUSTER_PYTHON", "python"));
    let output = python
        .args(["-c", READS])
        .current_dir(home.path())
        .stdin(Stdio::from(list))
        .output()
        .await
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        said.lines().count(),
        files.len(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said.lines().map(|l| l == "true").collect()
}

async fn compile(home: &Home, file: &Path) -> (Option<i32>, String, String) {
    let mut compile = home.command(&bin("devcluster-remote"));
    let output = compile
        .arg("compile")
        .arg("-c")
        .arg(file)
        .output()
        .await
        .expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A stage of each kind with every field.
fn stages() -> Value {
    json!([
        {"elastic": {"name": "e", "api_port": "9200", "environment": {"a": "b"}, "cmdline": ["x"], "data_dir": null, "post": [{"conncheck": {"port": 1}}]}},
        {"db": {"name": "d", "port": 5432, "password": 7, "image_name": "p", "cmdline": ["p"], "post": [{"logcheck": {"regex": "x"}}]}},
        {"master": {"name": "m", "pre": [{"sh": "make"}], "post": [], "cmdline": ["a", ":config"], "config_file": {"a": 1}, "kill_signal": "TERM"}},
        {"agent": {"name": "a", "pre": [], "cmdline": ["a"], "config_file": {}, "kill_signal": "SIGTERM"}},
        {"custom": {"name": "c", "cmd": ["c"], "env": {"A": "b"}, "cwd": "/tmp", "pre": [{"custom": ["a"]}], "post": [{"conncheck": {"host": "h", "port": 1}}], "kill_signal": "SIGINT"}},
        {"custom_docker": {"name": "cd", "container_name": "c", "run_args": ["x"], "pre": [], "post": [], "kill_signal": "KILL"}},
    ])
}

/// The same file with each of its parts removed, or replaced, or with one more key.
fn variations() -> Vec<(String, Value)> {
    let whole = json!({"stages": stages(), "commands": {"a": "x", "b": ["x", "y"]}, "startup_input": "1", "temp_dir": "temp", "cwd": "/tmp"});
    let mut pointers = vec![String::new()];
    collect(&whole, "", &mut pointers);
    let mut all = vec![("whole".to_owned(), whole.clone())];
    for pointer in pointers {
        for other in [
            Value::Null,
            json!(7),
            json!("text"),
            json!([]),
            json!({}),
            json!([1]),
            json!({"x": 1}),
        ] {
            let mut file = whole.clone();
            if let Some(place) = file.pointer_mut(&pointer) {
                let what = format!("{pointer} = {other}");
                *place = other;
                all.push((what, file));
            }
        }
        let mut file = whole.clone();
        if let Some((parent, key)) = pointer.rsplit_once('/')
            && let Some(Value::Object(parent)) = file.pointer_mut(parent)
        {
            parent.shift_remove(key);
            all.push((format!("no {pointer}"), file));
        }
        let mut file = whole.clone();
        if let Some(Value::Object(place)) = file.pointer_mut(&pointer) {
            place.insert("nmae".into(), json!("x"));
            all.push((format!("{pointer}/nmae"), file));
        }
    }
    all
}

/// Texts that only PyYAML accepts.
const ODD: [&str; 8] = [
    ".inf",
    ".nan",
    "99999999999999999999",
    "!!binary aGk=",
    "{a: 1, a: x}",
    "!!set {a}",
    "!!omap [a: 1]",
    "0x10000000000000000",
];

/// The same file with such a text in each place, and with each line twice.
fn odd_texts() -> Vec<String> {
    let whole = json!({"stages": stages(), "commands": {"a": "x", "b": ["x", "y"]}, "startup_input": "1", "temp_dir": "temp", "cwd": "/tmp"});
    let mut pointers = Vec::new();
    collect(&whole, "", &mut pointers);
    let mut texts = Vec::new();
    for pointer in &pointers {
        let mut file = whole.clone();
        *file.pointer_mut(pointer).expect("it is there") = json!("@odd");
        let text = protocol::yaml::to_yaml(&file);
        texts.extend(ODD.map(|odd| text.replacen("\"@odd\"", odd, 1)));
    }
    let text = protocol::yaml::to_yaml(&whole);
    for (i, line) in text.lines().enumerate() {
        let entry = line.replacen("- ", "  ", 1);
        if entry
            .trim_start()
            .starts_with(|c: char| c.is_ascii_alphabetic())
            && entry.contains(": ")
        {
            let mut lines: Vec<&str> = text.lines().collect();
            lines.insert(i + 1, &entry);
            texts.push(lines.join("\n") + "\n");
        }
    }
    texts
}

fn collect(value: &Value, at: &str, out: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(i, v)| (i.to_string(), v))
            .collect(),
        _ => Vec::new(),
    };
    for (key, child) in children {
        let pointer = format!("{at}/{key}");
        out.push(pointer.clone());
        collect(child, &pointer, out);
    }
}

#[tokio::test]
async fn what_devcluster_accepts_stays_unchanged_and_what_it_refuses_has_a_line() {
    let home = Home::new();
    let variations = variations();
    let files: Vec<PathBuf> = variations
        .iter()
        .enumerate()
        .map(|(i, (_, v))| write(&home, &format!("v{i}.yaml"), &protocol::yaml::to_yaml(v)))
        .collect();
    let reads = stock_reads(&home, &files).await;
    let (mut taken, mut refused, mut stricter, mut laxer) = (0, 0, Vec::new(), Vec::new());
    for ((file, (what, value)), stock) in files.iter().zip(&variations).zip(reads) {
        // Without stages it is not a devcluster.yaml but the flat form.
        if value.get("stages").is_none() {
            continue;
        }
        let (code, stdout, stderr) = compile(&home, file).await;
        match (stock, code) {
            (true, Some(0)) => {
                assert_eq!(stdout, std::fs::read_to_string(file).expect("text"));
                taken += 1;
            }
            (false, Some(2)) => {
                assert!(
                    stderr.contains("error: ") && !stderr.contains("panicked"),
                    "{stderr}"
                );
                refused += 1;
            }
            (true, _) => stricter.push(what.clone()),
            (false, _) => laxer.push(what.clone()),
        }
    }
    // The default, /tmp/devcluster, may belong to another user.
    laxer.retain(|what| what != "no /temp_dir");
    assert!(laxer.is_empty(), "devcluster refuses {laxer:#?}");
    // devcluster also types the items of a list or a mapping, which is never intended.
    stricter.retain(|what| !what.starts_with("/startup_input"));
    assert!(stricter.is_empty(), "{stricter:#?}");
    assert!(
        taken > 60 && refused > 300,
        "{taken} taken, {refused} refused"
    );
}

/// Whether each file reads as before except for the new stages and the question of their guard to a master; pairs of paths are
/// on stdin.
const SAME: &str = r#"
import sys, yaml
def unguarded(stage):
    master = stage.get("master")
    post = master.get("post") if isinstance(master, dict) else None
    if isinstance(post, list):
        guard = lambda step: isinstance(step, dict) and "devcluster-tunnel" in str(step.get("custom"))
        rest = [step for step in post if not guard(step)]
        stage = {"master": {key: rest if key == "post" else it for key, it in master.items() if key != "post" or rest}}
    return stage
def others(path, ours):
    file = yaml.safe_load(open(path).read())
    file["stages"] = [unguarded(s) for s in file["stages"] if not ours(s)]
    return repr(file)
for line in sys.stdin.read().split("\n"):
    if not line: continue
    before, after = line.split("\t")
    new = lambda s: "tunnel" in s
    compiled = lambda s: s.get("custom", {}).get("name") == "tunnel" if isinstance(s.get("custom"), dict) else False
    print("true" if others(before, new) == others(after, compiled) else "false")
"#;

async fn same(home: &Home, pairs: &str) -> Vec<bool> {
    let list = std::fs::File::open(write(home, "pairs", pairs)).expect("open");
    let mut python = home.command(&python_program("DEVCLUSTER_PYTHON", "python"));
    let python = python.args(["-c", SAME]).stdin(Stdio::from(list));
    let output = python.output().await.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let all: Vec<bool> = said.lines().map(|l| l == "true").collect();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(all.len(), pairs.lines().count(), "{stderr}");
    all
}

#[tokio::test]
async fn what_only_pyyaml_accepts_stays_unchanged_with_and_without_new_stages() {
    let home = Home::new();
    let texts = odd_texts();
    let name = |i: usize, text: &String| write(&home, &format!("odd{i}.yaml"), text);
    let files: Vec<PathBuf> = texts.iter().enumerate().map(|(i, t)| name(i, t)).collect();
    let reads = stock_reads(&home, &files).await;
    let taken = texts
        .iter()
        .zip(files)
        .zip(reads)
        .filter(|(_, reads)| *reads);
    let (mut count, mut pairs) = (0, String::new());
    for ((text, file), _) in taken {
        // devcluster also types the items of a list or a mapping, and crashes on bytes there, which is never intended.
        let unmeant = ["startup_input: {", "startup_input: !", "regex: !!binary"];
        if unmeant.iter().any(|u| text.contains(u)) {
            continue;
        }
        let (code, stdout, stderr) = compile(&home, &file).await;
        assert_eq!((code, &stdout), (Some(0), text), "{stderr}");
        let new = "stages:\n  - tunnel: {reverse_proxy_host: h}\n";
        let with_new = write(&home, "new.yaml", &text.replacen("stages:\n", new, 1));
        let (code, stdout, stderr) = compile(&home, &with_new).await;
        assert_eq!(code, Some(0), "{stderr}\n{text}");
        let compiled = write(&home, &format!("compiled{count}.yaml"), &stdout);
        let source = write(
            &home,
            &format!("source{count}.yaml"),
            &text.replacen("stages:\n", new, 1),
        );
        pairs += &format!("{}\t{}\n", source.display(), compiled.display());
        count += 1;
    }
    assert!(count > 40, "{count}");
    let same = same(&home, &pairs).await;
    let other: Vec<_> = pairs.lines().zip(same).filter(|(_, same)| !same).collect();
    assert!(other.is_empty(), "{other:#?}");
}

#[tokio::test]
async fn what_only_pyyaml_accepts_is_refused_in_new_stages() {
    let home = Home::new();
    let text = "a: &a {c: 1, c: 2}\nstages:\n- tunnel: {reverse_proxy_host: h, reverse_proxy_host: i, ssh_port: .inf}\n- db: {}\n";
    let file = write(
        &home,
        "x.yaml",
        &text.replacen("a: &a {c: 1, c: 2}\n", "", 1),
    );
    let (code, _, stderr) = compile(&home, &file).await;
    assert_eq!(code, Some(2), "{stderr}");
    for place in [
        "x.yaml:2:38: the key `reverse_proxy_host` is a duplicate",
        "`.inf` is not a finite number",
    ] {
        let flat = stderr.replace(['\n', '|'], " ");
        assert!(
            flat.contains(place.split(": ").last().expect("text")),
            "{place}\n{stderr}"
        );
    }
    let flat = write(
        &home,
        "flat.yaml",
        "reverse_proxy_host: h\nreverse_proxy_host: i\n",
    );
    let (code, _, stderr) = compile(&home, &flat).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("is a duplicate"), "{stderr}");
}

#[tokio::test]
async fn a_typical_file_stays_byte_for_byte() {
    let home = Home::new();
    for text in [
        "stages: [{db: {}}]",
        "# c\r\nstages:\r\n  - db: {port: 1}  # x\r\n",
        "\u{feff}stages:\n- db: &d {}\n- custom: {name: x, cmd: [a, '${{ github.sha }}', $HOME, $$x]}\n\n\n",
        "stages: []\n",
    ] {
        let file = write(&home, "x.yaml", text);
        let (code, stdout, stderr) = compile(&home, &file).await;
        assert_eq!((code, stdout.as_str()), (Some(0), text), "{stderr}");
    }
}
