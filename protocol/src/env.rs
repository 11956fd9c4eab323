//! Environment variables, passed as an argument so that tests can set them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Environment variables of the process, or of a test.
#[derive(Clone, Debug, Default)]
pub struct Env(BTreeMap<OsString, OsString>);

impl Env {
    /// The variables of this process.
    pub fn from_process() -> Env {
        Env(std::env::vars_os().collect())
    }

    /// These variables alone.
    pub fn from_pairs<K: Into<OsString>, V: Into<OsString>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Env {
        Env(pairs
            .into_iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect())
    }

    /// Every variable.
    pub fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter()
    }

    /// The value of a variable, if it is set and is valid UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(std::ffi::OsStr::new(name))?.to_str()
    }

    /// The value of a variable, if it is an absolute path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.0
            .get(std::ffi::OsStr::new(name))
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    }

    /// The user's home directory.
    pub fn home(&self) -> PathBuf {
        self.path("HOME").unwrap_or_else(|| PathBuf::from("/"))
    }

    /// The run directory of a stage without `--run-dir`.
    pub fn default_run_dir(&self) -> PathBuf {
        let user = rustix::process::geteuid().as_raw();
        match self.path("XDG_RUNTIME_DIR") {
            Some(runtime) => runtime.join("devcluster-stages"),
            None => self.temp_dir().join(format!("devcluster-stages-{user}")),
        }
    }

    /// `$TMPDIR`, else `/tmp`.
    pub fn temp_dir(&self) -> PathBuf {
        self.path("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp"))
    }

    /// Expands `$VAR`, `${VAR}` and a leading `~`, as the Python tool does: unknown variables stay, and `$$` is `$`, as in a
    /// devcluster.yaml.
    pub fn expand(&self, text: &str) -> String {
        self.expand_home(self.expand_variables(text))
    }

    /// The same without `~`: how devcluster expands the values of its file.
    pub fn expand_variables(&self, text: &str) -> String {
        let value =
            |(written, name): (_, Option<&str>)| name.and_then(|n| self.get(n)).unwrap_or(written);
        pieces(text).into_iter().map(value).collect()
    }

    /// The directories of `$PATH`.
    pub fn search_path(&self) -> Vec<PathBuf> {
        let path = self.0.get(std::ffi::OsStr::new("PATH"));
        path.into_iter().flat_map(std::env::split_paths).collect()
    }

    fn expand_home(&self, text: String) -> String {
        match text.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                format!("{}{rest}", self.home().display())
            }
            _ => text,
        }
    }

    /// The program of this name on `$PATH`, or the path itself when it contains a slash.
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(PathBuf::from(name)).filter(|p| is_executable(p));
        }
        let dirs = self.search_path().into_iter();
        dirs.map(|dir| dir.join(name)).find(|p| is_executable(p))
    }
}

/// The variables that a text names, as [`Env::expand_variables`] reads it.
pub fn variables(text: &str) -> Vec<&str> {
    pieces(text)
        .into_iter()
        .filter_map(|(_, name)| name)
        .collect()
}

/// Splits a text into pieces: each as written, with `$$` as `$`, and with the name of the variable if it is one.
fn pieces(text: &str) -> Vec<(&str, Option<&str>)> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find('$') {
        let (before, variable) = rest.split_at(at);
        let after = &variable[1..];
        if let Some(escaped) = after.strip_prefix('$') {
            pieces.extend([(before, None), ("$", None)]);
            rest = escaped;
            continue;
        }
        let (name, length) = name_at_start(after);
        let name = Some(name).filter(|name| !name.is_empty());
        pieces.extend([(before, None), (&variable[..=length], name)]);
        rest = &after[length..];
    }
    pieces.push((rest, None));
    pieces
}

/// The name of a variable after its `$`, and its length in the text.
fn name_at_start(after: &str) -> (&str, usize) {
    match after.strip_prefix('{') {
        Some(braced) => match braced.find('}') {
            Some(end) => (&braced[..end], end + 2),
            None => ("", 0),
        },
        None => {
            let end = after
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(after.len());
            (&after[..end], end)
        }
    }
}

/// Whether this is an executable file.
pub fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_home_expand_and_unknown_ones_stay() {
        let env = Env::from_pairs([("HOME", "/h"), ("A", "1"), ("B_2", "two")]);
        for (text, expected) in [
            ("~/x", "/h/x"),
            ("~", "/h"),
            ("~user/x", "~user/x"),
            ("a$A-${B_2}$", "a1-two$"),
            ("$NOPE ${NOPE} ${A", "$NOPE ${NOPE} ${A"),
            ("$$A $$$A", "$A $1"),
            ("é$Aé", "é1é"),
        ] {
            assert_eq!(env.expand(text), expected, "{text}");
        }
    }
}
