//! Reading kubeconfig files as kubectl does: those of `$KUBECONFIG` merged, the first to name a thing wins, and relative
//! paths count from the file that they stand in.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use protocol::yaml::Document;
use protocol::{Env, Exit, StageError};
use serde_json::{Map, Value};

/// The three lists of a kubeconfig, each with the key of what its entries hold.
pub const LISTS: [(&str, &str); 3] = [
    ("clusters", "cluster"),
    ("users", "user"),
    ("contexts", "context"),
];

/// Fields that hold a path.
const CLUSTER_PATHS: [&str; 1] = ["certificate-authority"];
const USER_PATHS: [&str; 3] = ["client-certificate", "client-key", "tokenFile"];

/// All files merged, every path in it absolute. It holds secrets: never shown.
pub struct Kubeconfig {
    pub merged: Map<String, Value>,
    /// Where it was read from, for messages.
    pub origin: String,
}

/// Reads the file of the config, else those of `$KUBECONFIG`, else `~/.kube/config`.
pub fn load(file: Option<&Path>, env: &Env) -> Result<Kubeconfig, StageError> {
    load_files(&files(file, env))
}

/// Reads these, of which at least one has to be there.
pub fn load_files(files: &[PathBuf]) -> Result<Kubeconfig, StageError> {
    let origin = files
        .iter()
        .map(|file| file.display().to_string())
        .collect::<Vec<_>>()
        .join(", ");
    let mut merged = Map::new();
    let mut read = 0;
    for file in files {
        if let Some(next) = read_one(file)? {
            read += 1;
            merge(&mut merged, next);
        }
    }
    if read == 0 {
        return Err(StageError::new(
            "gateway.kubeconfig_missing",
            format!("there is no kubeconfig at {origin}"),
        )
        .hint("set `kubeconfig` or $KUBECONFIG to the file that kubectl uses for this cluster")
        .exit(Exit::Usage));
    }
    Ok(Kubeconfig { merged, origin })
}

/// Those that [`load`] reads, absolute.
pub fn files(file: Option<&Path>, env: &Env) -> Vec<PathBuf> {
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    if let Some(file) = file {
        return vec![absolute(file.to_owned())];
    }
    let listed = env.get("KUBECONFIG").unwrap_or_default();
    let listed: Vec<PathBuf> = std::env::split_paths(listed)
        .filter(|path| !path.as_os_str().is_empty())
        .map(absolute)
        .collect();
    if listed.is_empty() {
        vec![env.home().join(".kube/config")]
    } else {
        listed
    }
}

fn read_one(file: &Path) -> Result<Option<Map<String, Value>>, StageError> {
    let shown = file.display();
    let text = match protocol::files::read_text(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let message = format!("cannot read the kubeconfig {shown}");
            return Err(StageError::new("gateway.kubeconfig_unreadable", message)
                .source(&error)
                .exit(Exit::Usage));
        }
    };
    let document = Document::parse(&text).map_err(|error| {
        malformed(
            format!("{shown}:{}:{}", error.line, error.column),
            format!("it is not YAML: {}", error.message),
        )
    })?;
    let mut map = match document.value() {
        Value::Object(map) => map,
        Value::Null => Map::new(),
        _ => {
            return Err(malformed(
                format!("{shown}:1:1"),
                "it is no mapping".to_owned(),
            ));
        }
    };
    for (list, _) in LISTS {
        check_list(&shown.to_string(), list, map.get(list))?;
    }
    make_absolute(&mut map, file.parent().unwrap_or(Path::new("/")));
    Ok(Some(map))
}

pub fn malformed(place: String, what: String) -> StageError {
    StageError::new(
        "gateway.kubeconfig_malformed",
        format!("{place}: the kubeconfig cannot be used: {what}"),
    )
    .hint("`kubectl config view` has to be able to read it")
    .exit(Exit::Usage)
}

fn check_list(shown: &str, list: &str, value: Option<&Value>) -> Result<(), StageError> {
    let named = |item: &Value| item["name"].as_str().is_some();
    match value {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Array(items)) if items.iter().all(named) => Ok(()),
        Some(_) => Err(malformed(
            shown.to_owned(),
            format!("`{list}` is not a list of things with a name"),
        )),
    }
}

fn make_absolute(map: &mut Map<String, Value>, directory: &Path) {
    let absolute = |value: &mut Value| {
        if let Some(path) = value.as_str().filter(|path| !path.is_empty()) {
            *value = directory.join(path).to_string_lossy().into_owned().into();
        }
    };
    for cluster in entries(map, "clusters", "cluster") {
        for field in CLUSTER_PATHS {
            cluster.get_mut(field).map(absolute);
        }
    }
    for user in entries(map, "users", "user") {
        for field in USER_PATHS {
            user.get_mut(field).map(absolute);
        }
        // A bare name is looked up in $PATH, as a shell does; only one with a slash counts from the file.
        let command = user
            .get_mut("exec")
            .and_then(|exec| exec.get_mut("command"));
        if let Some(command) =
            command.filter(|command| command.as_str().is_some_and(|text| text.contains('/')))
        {
            absolute(command);
        }
    }
}

fn entries<'a>(
    map: &'a mut Map<String, Value>,
    list: &str,
    inner: &'a str,
) -> impl Iterator<Item = &'a mut Value> {
    let items = map.get_mut(list).and_then(Value::as_array_mut);
    items
        .into_iter()
        .flatten()
        .filter_map(move |item| item.get_mut(inner))
}

fn merge(merged: &mut Map<String, Value>, next: Map<String, Value>) {
    for (key, value) in next {
        match (merged.get_mut(&key), value) {
            (Some(Value::Array(items)), Value::Array(more)) => {
                let new = |item: &Value, items: &[Value]| {
                    items.iter().all(|known| known["name"] != item["name"])
                };
                for item in more {
                    if new(&item, items) {
                        items.push(item);
                    }
                }
            }
            (None | Some(Value::Null), value) => {
                merged.insert(key, value);
            }
            (Some(Value::String(text)), value) if text.is_empty() => {
                merged.insert(key, value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn env(kubeconfig: &str, home: &Path) -> Env {
        Env::from_pairs([("KUBECONFIG", kubeconfig), ("HOME", home.to_str().unwrap())])
    }

    #[test]
    fn the_first_of_several_files_wins_and_paths_count_from_their_own_file() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a/config"), dir.path().join("b/config"));
        write(
            &a,
            "current-context: ''\nclusters:\n- {name: c, cluster: {server: 'https://a', certificate-authority: ca.crt}}\n",
        );
        write(
            &b,
            "current-context: x\nclusters:\n- {name: c, cluster: {server: 'https://b'}}\nusers:\n- name: u\n  user:\n    \
             client-key: ../keys/k\n    exec: {command: ./bin/login}\n- {name: v, user: {exec: {command: aws}}}\n",
        );
        let missing = dir.path().join("missing");
        let listed = format!("{}:{}::{}", missing.display(), a.display(), b.display());
        let merged = load(None, &env(&listed, dir.path())).unwrap().merged;
        let ca = a.with_file_name("ca.crt");
        assert_eq!(
            merged["clusters"],
            json!([
                {"name": "c", "cluster": {"server": "https://a", "certificate-authority": ca}}
            ])
        );
        assert_eq!(merged["current-context"], "x");
        let user = &merged["users"][0]["user"];
        assert_eq!(user["client-key"], json!(b.with_file_name("../keys/k")));
        assert_eq!(
            user["exec"]["command"],
            json!(b.with_file_name("./bin/login"))
        );
        assert_eq!(merged["users"][1]["user"]["exec"]["command"], "aws");
    }

    #[test]
    fn without_a_list_the_file_in_the_home_directory_is_read() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join(".kube/config"), "current-context: home\n");
        assert_eq!(
            load(None, &env("", dir.path())).unwrap().merged["current-context"],
            "home"
        );
    }

    #[test]
    fn a_missing_and_a_malformed_file_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        let code = |file: &Path| {
            load(Some(file), &env("", dir.path()))
                .map(|_| ())
                .unwrap_err()
        };
        assert_eq!(code(&file).code, "gateway.kubeconfig_missing");
        for (text, place) in [
            ("a: [\n", ":"),
            ("- a\n", ":1:1"),
            ("contexts: 3\n", ""),
            ("users: [{user: {}}]\n", ""),
        ] {
            write(&file, text);
            let error = code(&file);
            assert_eq!(error.code, "gateway.kubeconfig_malformed", "{text}");
            assert!(
                error
                    .message
                    .starts_with(&format!("{}{place}", file.display())),
                "{error}"
            );
        }
    }
}
