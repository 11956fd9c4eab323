//! `migrate`: the new form has the same meaning as the flat one.

use std::path::Path;

use serde_json::Value;
use support::{Home, bin, code_of};

async fn remote(home: &Home, arguments: &[&str]) -> (String, String, Option<i32>) {
    let mut command = home.command(&bin("devcluster-remote"));
    let output = command.args(arguments).output().await.expect("no driver");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.code(),
    )
}

const BASE: &str = "\
# my cluster
temp_dir: /tmp/somewhere
startup_input: p2
commands: {p: echo hi, r: \":restart-stage:2\"}

stages:
  # the database
  - db: {data_dir: ~/.postgres}  # kept

  # what it is about
  - master:
      config_file: {port: 8081, resource_manager: {type: kubernetes, max_slots_per_pod: 1}}
";

fn flat(home: &Home, base: &str) -> String {
    std::fs::write(home.path().join("base.yaml"), base).expect("cannot write");
    let path = home.path().join("remote_connect.yaml");
    let text = "\
ssh_key_path: ~/.ssh/id_ed25519
reverse_proxy_host: proxy.example.com
k8s_context: my-gke
determined_root: ~/determined
base_devcluster_path: $HOME/base.yaml
remote_port_range: [8000, 9000]
";
    std::fs::write(&path, text).expect("cannot write");
    path.to_str().expect("the path is text").to_owned()
}

/// Checks that both forms compile to the same, except for the working directory: `cwd` in the new form, `-C` in the flat one.
async fn is_the_same(home: &Home, flat: &str) -> String {
    let new = home.path().join("new.yaml");
    let new = new.to_str().expect("the path is text");
    drop(std::fs::remove_file(new));
    let (_, said, code) = remote(home, &["migrate", flat, "--out", new]).await;
    assert_eq!(code, Some(0), "{said}");
    let mut compiled: Vec<Value> = Vec::new();
    for file in [flat, new] {
        let (text, said, code) = remote(home, &["compile", "-c", file]).await;
        assert_eq!(code, Some(0), "{said}");
        let document = protocol::yaml::Document::parse(&text).expect("it is YAML");
        compiled.push(document.value());
    }
    let cwd = compiled[1]
        .as_object_mut()
        .and_then(|c| c.shift_remove("cwd"));
    assert_eq!(cwd, Some("~/determined".into()));
    assert_eq!(compiled[0], compiled[1]);
    std::fs::read_to_string(Path::new(new)).expect("no file")
}

#[tokio::test]
async fn the_new_form_compiles_to_the_same_and_explains_each_stage() {
    let home = Home::new();
    let flat = flat(&home, BASE);
    let text = is_the_same(&home, &flat).await;
    let place = |what: &str| {
        text.find(what)
            .unwrap_or_else(|| panic!("no {what}\n{text}"))
    };
    let order = [
        "# my cluster\n",
        "  # Pods reach the master through this ssh server",
        "  - tunnel:\n",
        "  # The master reaches tasks through a Gateway",
        "  - gateway:\n",
        "  # the database\n  - db: {data_dir: ~/.postgres}  # kept\n",
        "  # Before each start of the master",
        "  - config-emit: {}\n",
        "  # what it is about\n  - master:\n",
        "# Where everything runs (was: determined_root).\ncwd: ~/determined\n",
    ];
    let places = order.map(place);
    assert!(places.is_sorted(), "{text}");
}

#[tokio::test]
async fn a_base_in_brackets_is_migrated_without_comments_inside() {
    let home = Home::new();
    let flat = flat(
        &home,
        "stages: [{db: {}}, {master: {config_file: {port: 8081}}}]\n",
    );
    let text = is_the_same(&home, &flat).await;
    assert!(text.contains("stages: [{tunnel: {"), "{text}");
}

#[tokio::test]
async fn flags_override_the_file_and_a_file_of_the_new_form_is_refused() {
    let home = Home::new();
    let flat = flat(&home, BASE);
    let flag = "--reverse-proxy-host=other.example.com";
    let (text, said, code) = remote(&home, &["migrate", &flat, flag]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        text.contains("reverse_proxy_host: other.example.com"),
        "{text}"
    );
    let base = home.path().join("base.yaml");
    let base = base.to_str().expect("the path is text");
    let (_, said, code) = remote(&home, &["migrate", base]).await;
    assert_eq!(code, Some(2));
    assert!(said.contains("lists stages already"), "{said}");
}

#[tokio::test]
async fn no_file_of_the_user_is_overwritten() {
    let home = Home::new();
    let flat = flat(&home, BASE);
    let base = home.path().join("base.yaml");
    let base = base.to_str().expect("the path is text");
    let (_, said, code) = remote(&home, &["migrate", &flat, "--out", base]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("exists already") && said.contains("hint:"),
        "{said}"
    );
    assert_eq!(code_of(&said), "remote.out_exists");
    let (_, said, code) = remote(&home, &["compile", "-c", base, "--out", base]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("is the file to compile"), "{said}");
    assert_eq!(std::fs::read_to_string(base).expect("a file"), BASE);
}
