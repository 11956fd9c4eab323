//! `migrate`: turns the flat file of the Python tool into a devcluster.yaml that lists the stages, with comments.

use std::path::Path;

use protocol::StageError;
use protocol::kinds::RENDERER;
use protocol::yaml::{self, Document, Editor, Seg};
use serde_json::{Value, json};

use crate::codes;
use crate::flat::{Flat, GATEWAY, TUNNEL};
use crate::input::InputArgs;
use crate::kinds::Programs;
use crate::numbers;
use crate::plan::{Plan, Position, StageRequest};
use crate::problems::{InputFile, read, usage};

/// The comment above each stage in the new file.
fn explanation(kind: &str) -> &'static [&'static str] {
    match kind {
        TUNNEL => &[
            "Pods reach the master through this ssh server (was: ssh_key_path, reverse_proxy_host, ssh_user,",
            "remote_port_range). The tunnel picks a free port of the server, tests it from outside, and restores it after a loss.",
            "The server's host key must be known; `host_key_policy: accept-new` accepts an unknown one at the first connection.",
            "Anyone who can reach the port can reach the master: set security.initial_user_password in its config_file.",
        ],
        GATEWAY => &[
            "The master reaches tasks through a Gateway of this cluster (was: k8s_context; unset: the current one).",
            "A Lease reserves it for this master until the end. If the cluster has no controller, `up` asks whether to install one.",
        ],
        RENDERER => &[
            "Before each start of the master, the outputs of the two above are added to its config: determined_master_host and",
            "_port, internal_task_gateway, kubeconfig_path. This file is never rewritten.",
        ],
        _ => &[],
    }
}

/// Returns the new form of a flat file.
pub(crate) async fn migrate(
    args: &InputArgs,
    programs: &Programs<'_>,
) -> Result<String, StageError> {
    let path = args.config.as_deref();
    let document = path.map(read).transpose()?;
    let path = path.unwrap_or(Path::new("the command line"));
    let lists_stages = |d: &Document| d.contains(&["stages".into()]);
    if document.as_ref().is_some_and(lists_stages) {
        let message = format!(
            "{} lists stages already: it has the new form",
            path.display()
        );
        return Err(usage(message).hint("run it: devcluster-remote up -c …"));
    }
    let file = document
        .as_ref()
        .map(|document| InputFile { path, document });
    let flat = Flat::read(file, args.flags(), programs).await?;
    let wanted = flat.stages()?;
    let kinds: Vec<String> = wanted.stages.iter().map(|w| w.kind.clone()).collect();
    let bodies: Vec<(Position, Value)> = wanted.stages.iter().map(item).collect();
    let source = flat.source();
    let own_only = Programs {
        own_only: true,
        ..programs.clone()
    };
    let plan = Plan::read(&source, Some(wanted), &own_only).await?;
    let mut editor = Editor::new(source.document);
    let edited = (|| {
        for (place, item) in bodies {
            let Position::Before(at) = place else {
                continue;
            };
            editor.insert_item(&[Seg::from("stages")], at, item)?;
        }
        numbers::shift(source.document, &plan, &mut editor)?;
        if let (Some(root), None) = (&flat.root, &plan.cwd) {
            editor.set(&[Seg::from("cwd")], root.clone().into())?;
        }
        editor.finish()
    })();
    let text = edited.map_err(|e: yaml::Error| {
        let message = format!(
            "cannot add the stages to {}: {}",
            flat.base.display(),
            e.message
        );
        StageError::new(codes::CONFIG, message)
    })?;
    let head = head(&path.display().to_string(), &flat, plan.cwd.is_some());
    let root = flat.root.is_some() && plan.cwd.is_none();
    Ok(format!("{head}{}", commented(&text, &kinds, root)))
}

fn item(wanted: &StageRequest) -> (Position, Value) {
    let mut body = wanted.body.clone();
    body.retain(|_, value| !value.is_null());
    (wanted.place, json!({wanted.kind.as_str(): body}))
}

fn head(name: &str, flat: &Flat, has_cwd: bool) -> String {
    let mut lines = vec![
        format!("{name} and {}, as one file.", flat.base.display()),
        "Check what is missing: devcluster-remote doctor -c <this file>; run it: devcluster-remote up -c <this file>".to_owned(),
    ];
    if let Some(root) = flat.root.as_ref().filter(|_| has_cwd) {
        let text = "is not needed: `cwd` sets where everything runs";
        lines.push(format!("`determined_root` ({root}) {text}."));
    }
    let value = flat.document.value();
    if !value["commands"].is_null() || !value["startup_input"].is_null() {
        let text = "The stage numbers in `commands` and `startup_input` are adjusted.";
        lines.push(text.to_owned());
    }
    lines.iter().map(|line| format!("# {line}\n")).collect()
}

/// Puts the comments above the new stages, and keeps existing comments above their stages. Where a comment would change the
/// meaning, such as inside brackets, the text stays unchanged.
fn commented(text: &str, kinds: &[String], root: bool) -> String {
    let Ok(document) = Document::parse_as_pyyaml(text) else {
        return text.to_owned();
    };
    let wanted = document.value();
    let line_of = |path: &[Seg]| {
        let start = document.nearest_span(path, true).start;
        text[..start].matches('\n').count()
    };
    let items = wanted["stages"].as_array().map(Vec::as_slice);
    let items = items.unwrap_or_default();
    let kind_of = |i: usize| kinds.iter().find(|k| items[i].get(k.as_str()).is_some());
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    if root {
        lines[line_of(&[Seg::from("cwd")])]
            .insert_str(0, "# Where everything runs (was: determined_root).\n");
    }
    // From the end, so that the line numbers above stay valid.
    let mut old = None;
    for i in (0..items.len()).rev() {
        let line = line_of(&[Seg::from("stages"), Seg::from(i)]);
        if !lines[line].trim_start().starts_with("- ") {
            return text.to_owned();
        }
        let Some(kind) = kind_of(i) else {
            old = Some(line);
            continue;
        };
        let first = i == 0 || kind_of(i - 1).is_none();
        if let Some(old) = old.filter(|_| first) {
            let above = lines[..line].iter().rev();
            let count = above
                .take_while(|l| l.trim_start().starts_with('#'))
                .count();
            let comment = lines[line - count..line].concat();
            lines[line - count..line].fill(String::new());
            lines[old].insert_str(0, &comment);
        }
        let indent = lines[line].len() - lines[line].trim_start().len();
        let explained = explanation(kind).iter();
        let comment: String = explained
            .map(|l| format!("{:indent$}# {l}\n", ""))
            .collect();
        lines[line].insert_str(0, &comment);
    }
    let result = lines.concat();
    match Document::parse_as_pyyaml(&result) {
        Ok(read) if read.value() == wanted => result,
        _ => text.to_owned(),
    }
}
