//! The place of a reference, which determines how its value is inserted, or that it is not allowed.

use protocol::kinds::DEVCLUSTERS;
use protocol::reference::Malformed;
use protocol::reference::script::{in_command, script};
use protocol::yaml::Seg;
use serde_json::Value;

use super::{Exec, ReferenceScan};

/// The place of a scalar.
pub(super) enum Site {
    /// In the config of this item's stage.
    Config,
    /// In a command, and whether this word of it can contain references.
    Command {
        exec: Exec,
        usable: Result<(), Malformed>,
    },
    /// Not allowed: devcluster reads it, or one of the new stages.
    NotAllowed(&'static str),
}

const PLACES: &str =
    "references are possible in config_file, cmd, cmdline, env, pre and post of a stage";

impl ReferenceScan<'_> {
    /// The item of the list, and the place.
    pub(super) fn site(&self) -> (usize, Site) {
        let path = &self.scalar.path;
        let keys = path.iter().map(|seg| match seg {
            Seg::Key(key) => key.as_str(),
            Seg::Index(_) => "#",
        });
        let keys: Vec<&str> = keys.collect();
        let index = |at: usize| match path.get(at) {
            Some(Seg::Index(i)) => *i,
            _ => 0,
        };
        let item = index(1);
        let ["stages", "#", kind, below @ ..] = keys.as_slice() else {
            return (item, Site::NotAllowed(PLACES));
        };
        let head = |len: usize| path[..len].to_vec();
        let command = |path: Vec<Seg>, usable, is_script: bool, step: &str| Site::Command {
            exec: Exec {
                path,
                is_script,
                variables: Vec::new(),
                upstreams: Vec::new(),
                noted: (step != "post").then(|| format!("{}.{step}", self.stage_name(item, kind))),
            },
            usable,
        };
        let name = |step: &str| match step {
            "pre" => format!("pre{}", index(4)),
            _ => step.to_owned(),
        };
        let site = match (*kind, below) {
            (kind, _) if !DEVCLUSTERS.contains(&kind) => Site::NotAllowed(
                "the config of this stage cannot contain references; those of devcluster's own stages can",
            ),
            ("master" | "agent", ["config_file", ..]) => Site::Config,
            ("master" | "agent", ["cmdline", "#"]) | ("custom", ["cmd", "#"]) => {
                command(head(4), self.word(4, index(4)), false, "cmd")
            }
            ("custom", ["env", name]) => {
                let mut path = head(3);
                path.push("cmd".into());
                let mut site = command(path, Ok(()), false, "cmd");
                if let Site::Command { exec, .. } = &mut site {
                    exec.variables.push((*name).to_owned());
                }
                site
            }
            (_, [step @ ("pre" | "post"), "#", "custom", "#"]) => {
                command(head(6), self.word(6, index(6)), false, &name(step))
            }
            (_, [step @ ("pre" | "post"), "#", "sh"]) => command(
                head(6),
                script(self.scalar.text).map(drop),
                true,
                &name(step),
            ),
            _ => Site::NotAllowed(
                "devcluster reads this before any stage has outputs; references are possible in config_file, cmd, cmdline, env, pre and post",
            ),
        };
        (item, site)
    }

    fn stage_name(&self, item: usize, kind: &str) -> String {
        let path = ["stages".into(), item.into(), kind.into(), "name".into()];
        match self.document.get(&path) {
            Some(Value::String(name)) => name,
            _ => kind.to_owned(),
        }
    }

    /// Whether this word of a command can contain references.
    fn word(&self, list: usize, word: usize) -> Result<(), Malformed> {
        let words = self
            .document
            .get(&self.scalar.path[..list])
            .unwrap_or_default();
        let words = words.as_array().into_iter().flatten();
        let words: Vec<&str> = words.map(|w| w.as_str().unwrap_or_default()).collect();
        in_command(&words, word).map(drop)
    }
}
