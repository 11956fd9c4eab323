//! Error codes: docs/errors.md matches `explain`, only a `codes.rs` contains them, and the code of each stands in a test.

use std::path::{Path, PathBuf};

use protocol::Explanation;
use support::{Home, bin};

/// Test files that name codes without producing them.
const NOT_PRODUCING: [&str; 2] = [
    "tests/suite/protocol/codes.rs",
    "tests/suite/driver/explain.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

async fn all() -> Vec<Explanation> {
    let mut command = Home::new().command(&bin("devcluster-remote"));
    let output = command.args(["explain", "--format=json"]).output().await;
    serde_json::from_slice(&output.expect("no driver").stdout).expect("a list of codes")
}

/// Text for a cell of a table; text between backticks stays unchanged.
fn cell(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(i, part)| match i % 2 {
        0 => part.replace('<', "\\<"),
        _ => part.to_owned(),
    });
    let text = parts.collect::<Vec<_>>().join("`").replace('|', "\\|");
    match text.is_empty() {
        true => "–".to_owned(),
        false => text,
    }
}

fn document(codes: &[Explanation]) -> String {
    let mut text = "# Error codes

Each error ends with its code, which stays the same from release to release. `devcluster-remote explain <code>` prints what
is said here; so does the program of the stage, as in `devcluster-tunnel explain tunnel.server_busy`. An error shows the hint
below, or a better one that knows the case. A retryable error can go away by itself: the same call may work later.

This file is generated from the `codes.rs` of each crate: `make schema` writes it.
"
    .to_owned();
    let mut last = "";
    for it in codes {
        let namespace = it.code.split('.').next().unwrap_or_default();
        if namespace != last {
            last = namespace;
            text += &format!(
                "\n## {namespace}\n\n| code | meaning | hint | exit code | retryable |\n|---|---|---|---|---|\n"
            );
        }
        let retryable = if it.retryable { "yes" } else { "no" };
        let (meaning, hint) = (cell(&it.meaning), cell(&it.hint));
        text += &format!(
            "| `{}` | {meaning} | {hint} | {} | {retryable} |\n",
            it.code, it.exit
        );
    }
    text
}

#[tokio::test]
async fn docs_errors_md_says_what_explain_says() {
    let expected = document(&all().await);
    let path = root().join("docs/errors.md");
    if std::env::var_os("WRITE_SCHEMA").is_some() {
        std::fs::write(&path, &expected).expect("cannot write it");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == expected,
        "docs/errors.md is out of date: `make schema` writes it"
    );
}

/// The text of the Rust files of this workspace: sources, and tests.
fn sources() -> (String, String) {
    let (mut shipped, mut tests) = (String::new(), String::new());
    let mut dirs = vec![root()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("no directory").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            if path.is_dir() && !path.is_symlink() && !name.starts_with('.') && name != "target" {
                dirs.push(path);
            } else if name.ends_with(".rs") && name != "codes.rs" {
                let text = std::fs::read_to_string(&path).expect("cannot read it");
                let shown = path
                    .strip_prefix(root())
                    .unwrap_or(&path)
                    .display()
                    .to_string();
                let (source, test) = match () {
                    () if NOT_PRODUCING.contains(&&*shown) => continue,
                    () if name == "tests.rs" || shown.split('/').any(|dir| dir == "tests") => {
                        ("", &*text)
                    }
                    () => text
                        .split_once("#[cfg(test)]\nmod tests {")
                        .unwrap_or((&text, "")),
                };
                shipped += source;
                tests += test;
            }
        }
    }
    (shipped, tests)
}

#[tokio::test]
async fn only_a_codes_rs_contains_codes() {
    let (shipped, _) = sources();
    let mut codes = all().await;
    codes.retain(|it| shipped.contains(&format!("\"{}\"", it.code)));
    assert!(codes.is_empty(), "{codes:?}");
}

#[tokio::test]
async fn every_code_is_named_by_a_test() {
    let (_, tests) = sources();
    let codes = all().await.into_iter().map(|it| it.code);
    let untested: Vec<_> = codes
        .filter(|code| !tests.contains(&format!("\"{code}\"")))
        .collect();
    assert_eq!(untested, [""; 0]);
}
