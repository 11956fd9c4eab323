//! The two kinds of file: a devcluster.yaml that lists the new stages, and the flat `remote_connect.yaml` of the Python tool.

use std::path::{Path, PathBuf};

use protocol::yaml::Document;
use protocol::{Env, Exit, StageError, problem};
use serde_json::{Map, Value};

use crate::compile::{Compiled, compile, run_dir};
use crate::flat::{Flat, default_base};
use crate::kinds::Programs;
use crate::plan::{Source, TEMP_DIR};
use crate::problems::{self, refused};

/// What was asked for on the command line.
#[derive(Debug, Default)]
pub struct Asked {
    /// `-c`
    pub file: Option<PathBuf>,
    /// Keys of the flat form that were given as flags.
    pub flags: Map<String, Value>,
}

/// A compiled file and where its relative paths start.
#[derive(Debug)]
pub struct Job {
    /// The result.
    pub compiled: Compiled,
    /// Directory for devcluster's `-C`.
    pub root: Option<PathBuf>,
    /// The file that lists the stages.
    pub file: PathBuf,
    /// Its content.
    pub document: Document,
}

impl Job {
    /// Where devcluster and its stages will run; `None` is where we are.
    pub fn cwd(&self, env: &Env) -> Option<PathBuf> {
        let own = self.compiled.plan.cwd.as_deref();
        let own = || own.map(|c| PathBuf::from(env.expand(c)));
        self.root.clone().or_else(own)
    }

    /// devcluster's own directory.
    pub fn temp_dir(&self, env: &Env) -> PathBuf {
        self.beside(&self.compiled.plan.temp_dir, env)
    }

    /// Where the stages will meet.
    pub fn run_dir(&self, env: &Env) -> PathBuf {
        self.beside(&run_dir(&self.compiled.plan.temp_dir), env)
    }

    fn beside(&self, path: &str, env: &Env) -> PathBuf {
        self.cwd(env).unwrap_or_default().join(env.expand(path))
    }
}

/// Where the stages of a file meet. Nothing is run, and a mistake elsewhere in the file is none here.
pub(crate) fn run_dir_of(file: &Path, env: &Env) -> Result<PathBuf, StageError> {
    let mut value = read(file)?.value();
    let mut root = None;
    if value.get("stages").is_none() {
        let text = |key: &str| value[key].as_str().map(|text| env.expand(text));
        root = text("determined_root");
        let base = text("base_devcluster_path").map(PathBuf::from);
        value = read(&base.map_or_else(|| default_base(env), Ok)?)?.value();
    }
    let own = value["cwd"].as_str().map(|cwd| env.expand(cwd));
    let cwd = own.or(root).unwrap_or_default();
    let temp_dir = value["temp_dir"].as_str().unwrap_or(TEMP_DIR);
    Ok(Path::new(&cwd).join(env.expand(&run_dir(temp_dir))))
}

/// Reads and compiles what was asked for.
pub async fn load(asked: &Asked, programs: &Programs<'_>) -> Result<Job, StageError> {
    let Some(file) = &asked.file else {
        if asked.flags.is_empty() {
            return Err(usage(
                "no file: pass -c devcluster.yaml, -c remote_connect.yaml, or the flags of the latter",
            ));
        }
        return load_flat(Path::new("command line"), None, asked, programs).await;
    };
    let document = read(file)?;
    let value = document.value();
    if value.get("stages").is_none() && value.is_object() {
        let source = Source {
            path: file,
            document: &document,
        };
        let odd = problems::odd(&source, 0..document.text().len());
        if !odd.is_empty() {
            return Err(refused(&source, odd));
        }
        return load_flat(file, Some(&document), asked, programs).await;
    }
    if let Some(flag) = asked.flags.keys().next() {
        let flag = flag.replace('_', "-");
        let message = format!(
            "--{flag} belongs to a remote_connect.yaml; {} lists stages of its own",
            file.display()
        );
        return Err(usage(message).hint("set it in the tunnel or gateway stage of that file"));
    }
    let source = Source {
        path: file,
        document: &document,
    };
    let compiled = compile(&source, None, programs, programs.beside).await?;
    Ok(Job {
        compiled,
        root: None,
        file: file.clone(),
        document,
    })
}

pub(crate) fn usage(message: impl Into<String>) -> StageError {
    StageError::new("remote.usage", message).exit(Exit::Usage)
}

/// Also what only PyYAML makes sense of: whatever is not ours to read stays as it is.
pub(crate) fn read(file: &Path) -> Result<Document, StageError> {
    let shown = file.display();
    let text = protocol::files::read_text(file).map_err(|e| {
        StageError::new("remote.no_file", format!("cannot read {shown}"))
            .source(&e)
            .exit(Exit::Usage)
    })?;
    Document::parse_as_pyyaml(&text).map_err(|e| {
        let problem = problem::Source::new(file, &text).problem(&e);
        StageError::new("remote.yaml", format!("cannot read {shown} as YAML"))
            .problems(vec![problem])
            .exit(Exit::Usage)
    })
}

async fn load_flat(
    path: &Path,
    document: Option<&Document>,
    asked: &Asked,
    programs: &Programs<'_>,
) -> Result<Job, StageError> {
    let flat = Flat::read(path, document, asked, programs).await?;
    let compiled = {
        let file = document.map(|document| Source { path, document });
        let stages = Some(flat.stages(file.as_ref())?);
        compile(&flat.source(), stages, programs, programs.beside).await?
    };
    // A `cwd` of the file itself says more than ours.
    let root = flat.root.filter(|_| compiled.plan.cwd.is_none());
    Ok(Job {
        compiled,
        root: root.map(|r| PathBuf::from(programs.env.expand(&r))),
        file: flat.base,
        document: flat.document,
    })
}
