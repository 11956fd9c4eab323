//! The schema accepts what the driver accepts, completions work, every verb has a man page.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::devcluster::python_program;
use support::{Home, bin};
use tokio::process::Command;

async fn said(mut command: Command) -> String {
    let output = command.output().await.expect("cannot run it");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn remote(arguments: &[&str]) -> Command {
    let mut command = Home::new().command(&bin("devcluster-remote"));
    command.args(arguments);
    command
}

async fn schema() -> Value {
    serde_json::from_str(&said(remote(&["schema"])).await).expect("the schema is JSON")
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("no directory").flatten() {
        match entry.path() {
            path if path.is_dir() => files(&path, found),
            path => found.push(path),
        }
    }
}

#[tokio::test]
async fn the_schema_accepts_every_example() {
    let validator = jsonschema::draft7::new(&schema().await).expect("no valid schema");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../devcluster-examples");
    let mut all = Vec::new();
    files(&examples, &mut all);
    let named = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str());
        name.is_some_and(|n| n.starts_with("devcluster") || n.starts_with("remote_connect"))
    };
    all.retain(named);
    assert!(all.len() >= 2, "no examples");
    for path in all {
        let text = std::fs::read_to_string(&path).expect("cannot read it");
        let value = protocol::yaml::Document::parse(&text)
            .expect("it is YAML")
            .value();
        let errors: Vec<_> = validator
            .iter_errors(&value)
            .map(|e| e.to_string())
            .collect();
        assert!(errors.is_empty(), "{}: {errors:?}", path.display());
    }
}

#[tokio::test]
async fn the_schema_refuses_what_the_driver_refuses() {
    let validator = jsonschema::draft7::new(&schema().await).expect("no valid schema");
    let fine = json!({"stages": [{"tunnel": {"reverse_proxy_host": "a"}}, {"config-emit": null}, {"master": {}}]});
    assert!(validator.is_valid(&fine));
    let east = json!({"stages": [{"gateway": {"name": "g", "gate": "stage", "resource_manager": "east"}}]});
    assert!(validator.is_valid(&east));
    assert!(validator.is_valid(&json!({"reverse_proxy_host": "a", "determined_root": "~/d"})));
    for wrong in [
        json!({"stages": [{"tunel": {}}]}),
        json!({"stages": [{"tunnel": {}, "gateway": {}}]}),
        json!({"stages": [{"tunnel": {}}]}),
        json!({"stages": [{"tunnel": {"reverse_proxy_host": "a", "verify": "loose"}}]}),
        json!({"stages": [{"config-emit": {"base": "x"}}]}),
        json!({"stages": [{"gateway": {"gate": "never"}}]}),
        json!({"stages": [{"gateway": {"resource_manager": 1}}]}),
        json!({"stages": [{"tunnel": {"reverse_proxy_host": "a", "resource_manager": "x"}}]}),
        json!({"stages": [{"custom": {"name": "x"}}]}),
        json!({"stages": [], "stage": []}),
        json!({"reverse_proxy_hots": "a"}),
    ] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}

/// Prints the keys that stock devcluster accepts, and those that it requires, of each kind of stage.
const KEYS: &str = r#"
import ast, inspect, json, textwrap, devcluster.config as c
kinds = {"db": c.DBConfig, "elastic": c.ElasticConfig, "master": c.MasterConfig, "agent": c.AgentConfig,
         "custom": c.CustomConfig, "custom_docker": c.CustomDockerConfig, "devcluster": c.Config}
found = {}
for name, cls in kinds.items():
    sets = {}
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls.__init__)))):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Set):
            sets[node.targets[0].id] = sorted(e.value for e in node.value.elts)
    found[name] = {"allowed": sets["allowed"], "required": sets.get("required", [])}
print(json.dumps(found))
"#;

#[tokio::test]
async fn the_schema_knows_the_keys_of_stock_devcluster() {
    let schema = schema().await;
    let mut python = Command::new(python_program("DEVCLUSTER_PYTHON", "python"));
    python.args(["-c", KEYS]);
    let stock: Value = serde_json::from_str(&said(python).await).expect("the keys are JSON");
    for (kind, keys) in stock.as_object().expect("kinds") {
        let ours = &schema["definitions"][kind];
        let properties = ours["properties"].as_object();
        let mut allowed: Vec<_> = properties
            .into_iter()
            .flat_map(|p| p.keys().cloned())
            .collect();
        allowed.sort();
        assert_eq!(json!(allowed), keys["allowed"], "{kind}");
        let required = ours["required"].as_array().cloned().unwrap_or_default();
        let mut required: Vec<_> = required.iter().filter_map(Value::as_str).collect();
        required.sort_unstable();
        assert_eq!(json!(required), keys["required"], "{kind}");
    }
}

#[tokio::test]
async fn a_schema_in_a_file_comes_with_the_line_for_the_editor() {
    let home = Home::new();
    let file = home.path().join("new/s.json");
    let mut command = remote(&["schema", "--out"]);
    let output = command.arg(&file).output().await.expect("no driver");
    let line = format!("# yaml-language-server: $schema={}\n", file.display());
    assert!(String::from_utf8_lossy(&output.stderr).ends_with(&line));
    let text = std::fs::read_to_string(&file).expect("no file");
    assert_eq!(
        serde_json::from_str::<Value>(&text).expect("JSON"),
        schema().await
    );
}

/// Completes the last word of a command line as bash does.
const COMPLETE: &str = r#"
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
function=$(complete -p "$1" | sed 's/.*-F \([^ ]*\) .*/\1/')
$function "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}" 2>/dev/null
echo "${COMPREPLY[@]}"
"#;

#[tokio::test]
async fn bash_completes_verbs_and_flags_of_all_programs() {
    let home = Home::new();
    let script = home.path().join("completions");
    std::fs::write(&script, said(remote(&["completions", "bash"])).await).expect("cannot write");
    for (words, expected) in [
        (["devcluster-remote", "sta"].as_slice(), "status"),
        (&["devcluster-remote", "gc", "--dry"], "--dry-run"),
        (
            &["devcluster-tunnel", "run", "--reverse"],
            "--reverse-proxy-host",
        ),
        (
            &["devcluster-gateway", "check", "--pre"],
            "--preflight --prefer",
        ),
        (&["devcluster-config-emit", "de"], "describe"),
    ] {
        let mut bash = Command::new("bash");
        bash.args(["-c", COMPLETE, "bash"]).arg(&script).args(words);
        assert_eq!(said(bash).await.trim(), expected, "{words:?}");
    }
}

#[tokio::test]
async fn each_shell_gets_its_files_and_each_verb_its_page() {
    let home = Home::new();
    for (shell, name) in [
        ("bash", "devcluster-gateway"),
        ("zsh", "_devcluster-gateway"),
        ("fish", "devcluster-gateway.fish"),
    ] {
        let dir = home.path().join(shell);
        let mut command = remote(&["completions", shell, "--dir"]);
        command.arg(&dir);
        said(command).await;
        let text = std::fs::read_to_string(dir.join(name)).expect("no file");
        assert!(text.contains("take-over"), "{shell}");
        assert_eq!(std::fs::read_dir(&dir).expect("no directory").count(), 4);
    }
    let dir = home.path().join("man");
    let mut command = remote(&["man", "--dir"]);
    command.arg(&dir);
    said(command).await;
    for page in [
        "devcluster-remote",
        "devcluster-remote-doctor",
        "devcluster-tunnel-run",
        "devcluster-config-emit-once",
    ] {
        let text = std::fs::read_to_string(dir.join(format!("{page}.1"))).expect("no page");
        assert!(text.contains(&format!(".TH {page} 1")), "{text}");
    }
    assert!(said(remote(&["man"])).await.contains(".SH SUBCOMMANDS"));
}
