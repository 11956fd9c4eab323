//! Reads the two kinds of file: a devcluster.yaml that lists the new stages, and the flat `remote_connect.yaml` of the Python
//! tool.

use std::path::{Path, PathBuf};

use clap::Args;
use protocol::yaml::Document;
use protocol::{Env, StageError};
use serde_json::{Map, Value};

use crate::compile::{Compiled, compile, run_dir};
use crate::flat::{Flat, FlatFlags, default_base};
use crate::kinds::Programs;
use crate::plan::TEMP_DIR;
use crate::problems::{InputFile, pyyaml_only, read, refused, usage};

/// The file, and the keys of the flat form as flags.
#[derive(Debug, Args)]
pub(crate) struct InputArgs {
    /// A devcluster.yaml that lists the new stages, or a flat remote_connect.yaml
    #[arg(short, long, visible_alias = "config-file", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    flat: FlatFlags,
}

impl InputArgs {
    /// The keys that were given as flags.
    pub(crate) fn flags(&self) -> Map<String, Value> {
        let flags = serde_json::to_value(&self.flat).unwrap_or_default();
        let given = flags.as_object().into_iter().flatten();
        let given = given.filter(|(_, value)| !value.is_null());
        given
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

/// A compiled file, and the directory of its relative paths.
#[derive(Debug)]
pub(crate) struct CompiledInput {
    /// The compiled file.
    pub(crate) compiled: Compiled,
    /// Directory for devcluster's `-C`.
    pub(crate) root: Option<PathBuf>,
    /// The file that lists the stages.
    pub(crate) file: PathBuf,
    /// Its content.
    pub(crate) document: Document,
}

impl CompiledInput {
    /// The file that lists the stages.
    pub(crate) fn source(&self) -> InputFile<'_> {
        InputFile {
            path: &self.file,
            document: &self.document,
        }
    }

    /// The working directory of devcluster and its stages; `None` is the current one.
    pub(crate) fn cwd(&self, env: &Env) -> Option<PathBuf> {
        let own = self.compiled.plan.cwd.as_deref();
        let own = || own.map(|c| PathBuf::from(env.expand(c)));
        self.root.clone().or_else(own)
    }

    /// devcluster's `temp_dir`.
    pub(crate) fn temp_dir(&self, env: &Env) -> PathBuf {
        self.beside(&self.compiled.plan.temp_dir, env)
    }

    /// The run directory of the stages.
    pub(crate) fn run_dir(&self, env: &Env) -> PathBuf {
        self.beside(&run_dir(&self.compiled.plan.temp_dir), env)
    }

    fn beside(&self, path: &str, env: &Env) -> PathBuf {
        self.cwd(env).unwrap_or_default().join(env.expand(path))
    }
}

/// The run directory of a file's stages. Runs nothing, and ignores mistakes elsewhere in the file.
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

/// Reads and compiles the file or the flags. `was_read` gets a file that lists stages before it is compiled.
pub(crate) async fn load(
    args: &InputArgs,
    programs: &Programs<'_>,
    was_read: impl FnOnce(&Document),
) -> Result<CompiledInput, StageError> {
    let flags = args.flags();
    let Some(path) = &args.config else {
        if flags.is_empty() {
            return Err(usage(
                "no file: pass -c devcluster.yaml, -c remote_connect.yaml, or the flags of a remote_connect.yaml",
            ));
        }
        return load_flat(None, flags, programs).await;
    };
    let lists_stages = |document: &Document| document.contains(&["stages".into()]);
    let reading = || {
        let document = read(path)?;
        if lists_stages(&document) {
            was_read(&document);
        }
        Ok(document)
    };
    let document = programs.describe_during(reading).await?;
    let source = InputFile {
        path,
        document: &document,
    };
    if !lists_stages(&document) && document.value().is_object() {
        let pyyaml_only = pyyaml_only(&source, 0..document.text().len());
        if !pyyaml_only.is_empty() {
            return Err(refused(&source, pyyaml_only));
        }
        return load_flat(Some(source), flags, programs).await;
    }
    if let Some(flag) = flags.keys().next() {
        let flag = flag.replace('_', "-");
        let message = format!(
            "--{flag} belongs to a remote_connect.yaml; {} lists stages of its own",
            path.display()
        );
        return Err(usage(message).hint("set it in the tunnel or gateway stage of that file"));
    }
    Ok(CompiledInput {
        compiled: compile(&source, None, programs, programs.beside).await?,
        root: None,
        file: path.clone(),
        document,
    })
}

async fn load_flat(
    file: Option<InputFile<'_>>,
    flags: Map<String, Value>,
    programs: &Programs<'_>,
) -> Result<CompiledInput, StageError> {
    let flat = Flat::read(file, flags, programs).await?;
    let stages = Some(flat.stages()?);
    let compiled = compile(&flat.source(), stages, programs, programs.beside).await?;
    // A `cwd` in the file overrides `determined_root`.
    let root = flat.root.filter(|_| compiled.plan.cwd.is_none());
    Ok(CompiledInput {
        compiled,
        root: root.map(|r| PathBuf::from(programs.env.expand(&r))),
        file: flat.base,
        document: flat.document,
    })
}
