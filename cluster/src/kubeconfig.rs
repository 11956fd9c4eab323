//! Reads the kubeconfig and selects one context. kube reads and merges the files as client-go does.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use kube::config::{Kubeconfig, KubeconfigError};
use protocol::ledger::{Entry, Ledger};
use protocol::suggest::did_you_mean;
use protocol::{Env, StageError, files};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codes;

/// A reference to a cluster, as the ledger stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRef {
    pub kubeconfig: Vec<PathBuf>,
    pub context: String,
}

impl ClusterRef {
    pub fn from_entry(entry: &Entry) -> Option<Self> {
        serde_json::from_value(entry.data.clone()).ok()
    }

    /// The ledger's entry of this kind for this cluster.
    pub fn entry(&self, ledger: &Ledger, what: &str) -> Option<Entry> {
        let mut entries = ledger.entries().into_iter();
        entries.find(|it| it.what == what && Self::from_entry(it).as_ref() == Some(self))
    }

    /// The data of a ledger entry: this reference and the fields of `more`.
    pub fn entry_data(&self, more: impl Serialize) -> Result<Value, StageError> {
        #[derive(Serialize)]
        struct Data<'a, T> {
            #[serde(flatten)]
            cluster: &'a ClusterRef,
            #[serde(flatten)]
            more: T,
        }
        let cluster = self;
        serde_json::to_value(Data { cluster, more }).map_err(|error| {
            StageError::internal("a ledger entry cannot be written").source(&error)
        })
    }

    /// `None`: the kubeconfig no longer has this context.
    pub(crate) fn load(&self) -> Result<Option<KubeContext>, StageError> {
        match KubeContext::from_files(self.kubeconfig.clone(), Some(&self.context)) {
            Ok(context) => Ok(Some(context)),
            Err(error) if error.is_any(&[codes::KUBECONFIG_MISSING, codes::CONTEXT_UNKNOWN]) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// One context of a kubeconfig. It holds secrets: it has no Debug and is never printed.
#[derive(Clone, Default)]
pub struct KubeContext {
    pub name: String,
    /// The API's URL.
    pub server: String,
    /// The command of the user's credential plugin, if there is one.
    pub plugin: Option<String>,
    /// The files it was read from, as absolute paths.
    pub files: Vec<PathBuf>,
    /// The context, its cluster and its user alone, with absolute paths.
    pub kubeconfig: Kubeconfig,
}

impl KubeContext {
    /// Loads the named context, else the current one, from `file`, else `$KUBECONFIG`, else `~/.kube/config`.
    pub fn load(file: Option<&Path>, name: Option<&str>, env: &Env) -> Result<Self, StageError> {
        Self::from_files(files(file, env), name)
    }

    fn from_files(files: Vec<PathBuf>, name: Option<&str>) -> Result<Self, StageError> {
        let shown: Vec<String> = files.iter().map(|it| it.display().to_string()).collect();
        let origin = shown.join(", ");
        let merged = read_merged(&files, &origin)?;
        minify(merged, files, &origin, name)
    }

    pub fn reference(&self) -> ClusterRef {
        ClusterRef {
            kubeconfig: self.files.clone(),
            context: self.name.clone(),
        }
    }

    /// The context's own namespace, else `default`.
    pub fn namespace(&self) -> &str {
        let context = self.kubeconfig.contexts.first();
        let namespace = context.and_then(|it| it.context.as_ref()?.namespace.as_deref());
        namespace.filter(|it| !it.is_empty()).unwrap_or("default")
    }

    /// The text of a kubeconfig with this context alone.
    pub fn document(&self) -> Result<String, StageError> {
        let text = serde_json::to_string_pretty(&self.kubeconfig).map_err(|error| {
            StageError::internal("a kubeconfig cannot be written").source(&error)
        })?;
        Ok(text + "\n")
    }
}

fn files(file: Option<&Path>, env: &Env) -> Vec<PathBuf> {
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    if let Some(file) = file {
        return vec![absolute(file.to_owned())];
    }
    let listed = std::env::split_paths(env.get("KUBECONFIG").unwrap_or_default());
    let listed = listed.filter(|path| !path.as_os_str().is_empty());
    match listed.map(absolute).collect::<Vec<_>>() {
        none if none.is_empty() => vec![env.home().join(".kube/config")],
        listed => listed,
    }
}

/// Reads and merges the files that exist; at least one must.
fn read_merged(files: &[PathBuf], origin: &str) -> Result<Kubeconfig, StageError> {
    let mut merged: Option<Kubeconfig> = None;
    for file in files {
        let opened =
            files::open_named(file).map_err(|e| KubeconfigError::ReadConfig(e, file.clone()));
        let mut next = match opened.and_then(|_| Kubeconfig::read_from(file)) {
            Ok(next) => next,
            Err(KubeconfigError::ReadConfig(error, _)) if error.kind() == ErrorKind::NotFound => {
                continue;
            }
            Err(KubeconfigError::ReadConfig(error, _)) => {
                let message = format!("cannot read the kubeconfig {}", file.display());
                return Err(StageError::new(codes::KUBECONFIG_UNREADABLE, message).source(&error));
            }
            Err(error) => return Err(parse_error(file, &error)),
        };
        next.current_context = next.current_context.filter(|name| !name.is_empty());
        merged = Some(match merged {
            None => next,
            Some(merged) => merged
                .merge(next)
                .map_err(|error| malformed(origin, &error.to_string()))?,
        });
    }
    merged.ok_or_else(|| {
        StageError::new(
            codes::KUBECONFIG_MISSING,
            format!("there is no kubeconfig at {origin}"),
        )
    })
}

/// Drops the lines that the parser shows: they may hold a token.
fn parse_error(file: &Path, error: &KubeconfigError) -> StageError {
    let mut place = file.display().to_string();
    let mut text = error.to_string();
    if let KubeconfigError::Parse(error) = error {
        if let Some(at) = error.location() {
            place += &format!(":{}:{}", at.line(), at.column());
        }
        text = error.without_snippet().to_string();
    }
    let line = text.lines().next().unwrap_or_default();
    malformed(&place, line)
}

pub(crate) fn malformed(place: &str, what: &str) -> StageError {
    StageError::new(
        codes::KUBECONFIG_MALFORMED,
        format!("{place}: the kubeconfig cannot be used: {what}"),
    )
}

/// Keeps one context, as `kubectl config view --minify` does.
fn minify(
    mut merged: Kubeconfig,
    files: Vec<PathBuf>,
    origin: &str,
    requested: Option<&str>,
) -> Result<KubeContext, StageError> {
    let names: Vec<&str> = merged.contexts.iter().map(|it| it.name.as_str()).collect();
    let Some(name) = requested.or(merged.current_context.as_deref()) else {
        return Err(context_unset(origin, &names));
    };
    let named = merged.contexts.iter().find(|it| it.name == name);
    let named = named
        .ok_or_else(|| context_unknown(origin, name, &names))?
        .clone();
    let context = named.context.clone().unwrap_or_default();
    merged.clusters.retain(|it| it.name == context.cluster);
    let mut clusters = merged.clusters.iter();
    let server = clusters.find_map(|it| it.cluster.as_ref()?.server.clone());
    let user = context.user.unwrap_or_default();
    merged.auth_infos.retain(|it| it.name == user);
    if merged.auth_infos.is_empty() && !user.is_empty() {
        let what = format!(
            "context {:?} names the user {user:?}, which does not exist",
            named.name
        );
        return Err(malformed(origin, &what));
    }
    if let Some(path) = named_files(&merged).find(|path| is_irregular(path)) {
        return Err(malformed(origin, &format!("{path} is not a regular file")));
    }
    let mut users = merged.auth_infos.iter();
    let plugin = users.find_map(|it| it.auth_info.as_ref()?.exec.as_ref()?.command.clone());
    Ok(KubeContext {
        name: named.name.clone(),
        server: server.unwrap_or_default(),
        plugin,
        files,
        kubeconfig: Kubeconfig {
            api_version: Some("v1".to_owned()),
            kind: Some("Config".to_owned()),
            current_context: Some(named.name.clone()),
            clusters: merged.clusters,
            auth_infos: merged.auth_infos,
            contexts: vec![named],
            ..Kubeconfig::default()
        },
    })
}

/// The files that a kubeconfig names, besides the program of a plugin.
fn named_files(kubeconfig: &Kubeconfig) -> impl Iterator<Item = &str> {
    let clusters = kubeconfig.clusters.iter();
    let clusters = clusters.filter_map(|it| it.cluster.as_ref()?.certificate_authority.as_ref());
    let users = kubeconfig.auth_infos.iter();
    let users = users.filter_map(|it| it.auth_info.as_ref());
    let users = users.flat_map(|it| [&it.client_certificate, &it.client_key, &it.token_file]);
    clusters.chain(users.flatten()).map(String::as_str)
}

/// kube would wait for the writer of a FIFO.
fn is_irregular(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| !meta.is_file())
}

fn context_unknown(origin: &str, name: &str, names: &[&str]) -> StageError {
    let message = format!("the kubeconfig {origin} has no context {name:?}");
    let hint = match did_you_mean(name, names.iter().copied()) {
        Some(suggestion) => format!("did you mean {suggestion:?}? It has: {}", names.join(", ")),
        None => choose_one(names),
    };
    StageError::new(codes::CONTEXT_UNKNOWN, message).hint(hint)
}

fn context_unset(origin: &str, names: &[&str]) -> StageError {
    let message = format!("the kubeconfig {origin} has no current context");
    StageError::new(codes::CONTEXT_UNSET, message).hint(choose_one(names))
}

fn choose_one(names: &[&str]) -> String {
    if names.is_empty() {
        return "the file has no context; `kubectl config get-contexts` lists those that kubectl knows"
            .to_owned();
    }
    format!("set `k8s_context` to one of: {}", names.join(", "))
}

#[cfg(test)]
mod tests;
