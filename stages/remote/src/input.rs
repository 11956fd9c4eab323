//! The two kinds of file: a devcluster.yaml that lists the new stages, and the flat `remote_connect.yaml` of the Python tool.

use std::path::{Path, PathBuf};

use protocol::config::{self, nearest};
use protocol::yaml::Document;
use protocol::{Env, Exit, Problem, Stage, StageError, problem};
use serde_json::{Map, Value};

use crate::compile::{Compiled, compile, run_dir};
use crate::plan::{Kind, Place, Source, Wanted};
use crate::problems::refused;

/// The keys of the Python tool, as flags.
pub const FLAT_FLAGS: [(&str, &str); 7] = [
    (
        "ssh_key_path",
        "Private key for the ssh server; agent and ssh_config serve without it",
    ),
    ("reverse_proxy_host", "The ssh server that pods can reach"),
    ("ssh_user", "User on the ssh server [default: ubuntu]"),
    (
        "remote_port_range",
        "Ports to try on the ssh server, such as 8000,9000",
    ),
    (
        "k8s_context",
        "Context of the kubeconfig [default: the current one]",
    ),
    (
        "determined_root",
        "Checkout of Determined; devcluster runs there",
    ),
    (
        "base_devcluster_path",
        "The devcluster.yaml to put the stages into [default: devcluster's own]",
    ),
];

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

/// Reads and compiles what was asked for.
pub fn load(asked: &Asked, env: &Env, programs: &Path) -> Result<Job, StageError> {
    let Some(file) = &asked.file else {
        if asked.flags.is_empty() {
            return Err(usage(
                "no file: pass -c devcluster.yaml, -c remote_connect.yaml, or the flags of the latter",
            ));
        }
        return load_flat(Path::new("command line"), None, asked, env, programs);
    };
    let document = read(file)?;
    let value = document.value();
    if value.get("stages").is_none() && value.is_object() {
        return load_flat(file, Some(&document), asked, env, programs);
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
    let compiled = compile(&source, Vec::new(), env, programs)?;
    Ok(Job {
        compiled,
        root: None,
        file: file.clone(),
        document,
    })
}

fn usage(message: impl Into<String>) -> StageError {
    StageError::new("remote.usage", message).exit(Exit::Usage)
}

fn read(file: &Path) -> Result<Document, StageError> {
    let shown = file.display();
    let text = protocol::files::read_text(file).map_err(|e| {
        StageError::new("remote.no_file", format!("cannot read {shown}"))
            .source(&e)
            .exit(Exit::Usage)
    })?;
    Document::parse(&text).map_err(|e| {
        let problem = problem::Source::new(file, &text).problem(&e);
        StageError::new("remote.yaml", format!("cannot read {shown} as YAML"))
            .problems(vec![problem])
            .exit(Exit::Usage)
    })
}

/// The flat form: its keys become three stages that are put into another devcluster.yaml.
fn load_flat(
    path: &Path,
    document: Option<&Document>,
    asked: &Asked,
    env: &Env,
    programs: &Path,
) -> Result<Job, StageError> {
    let mut keys = match document.map(Document::value) {
        Some(Value::Object(keys)) => keys,
        _ => Map::new(),
    };
    keys.extend(asked.flags.clone());
    keys.retain(|_, v| !v.is_null());
    let mut take = |key: &str| {
        keys.shift_remove(key)
            .map(|v| text(&v))
            .map(|v| PathBuf::from(env.expand(&v)))
    };
    let root = take("determined_root");
    let base = take("base_devcluster_path").map_or_else(|| default_base(env), Ok)?;
    keys.entry("ssh_user").or_insert_with(|| "ubuntu".into());
    let sorted = sort_keys(keys, env);
    let (tunnel, gateway) = sorted.map_err(|problems| match document {
        Some(document) => refused(&Source { path, document }, problems),
        None => problems
            .iter()
            .fold(usage("the flags do not fit"), |e, p| e.cause(p.to_string())),
    })?;
    let base_document = read(&base)?;
    let source = Source {
        path: &base,
        document: &base_document,
    };
    let extra = wanted(&source, tunnel, gateway)?;
    let compiled = compile(&source, extra, env, programs)?;
    // A `cwd` of the file itself says more than ours.
    let root = root.filter(|_| compiled.plan.cwd.is_none());
    Ok(Job {
        compiled,
        root,
        file: base,
        document: base_document,
    })
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Where devcluster itself looks.
fn default_base(env: &Env) -> Result<PathBuf, StageError> {
    let config = env
        .path("XDG_CONFIG_HOME")
        .unwrap_or_else(|| env.home().join(".config"));
    let places = [
        env.home().join(".devcluster.yaml"),
        config.join("devcluster.yaml"),
    ];
    places.iter().find(|p| p.exists()).cloned().ok_or_else(|| {
        let looked = places.map(|p| p.display().to_string()).join(" and ");
        usage(format!(
            "no devcluster.yaml to put the stages into: none at {looked}"
        ))
        .hint("name one with base_devcluster_path")
    })
}

type Bodies = (Map<String, Value>, Map<String, Value>);

/// Each key goes to the stage that knows it; every mistake at once.
fn sort_keys(keys: Map<String, Value>, env: &Env) -> Result<Bodies, Vec<Problem>> {
    let fields = |schema: Value| {
        schema["properties"]
            .as_object()
            .cloned()
            .unwrap_or_default()
    };
    let tunnel_fields = fields(config::schema_of::<<tunnel::Tunnel as Stage>::Config>());
    let gateway_fields = fields(config::schema_of::<<gateway::Gateway as Stage>::Config>());
    let (mut tunnel, mut gateway, mut problems) = (Map::new(), Map::new(), Vec::new());
    for (key, value) in keys {
        if tunnel_fields.contains_key(&key) {
            tunnel.insert(key, value);
        } else if gateway_fields.contains_key(&key) {
            gateway.insert(key, value);
        } else {
            let known = FLAT_FLAGS.iter().map(|(k, _)| *k);
            let known = known.chain(
                tunnel_fields
                    .keys()
                    .chain(gateway_fields.keys())
                    .map(String::as_str),
            );
            let meant = nearest(&key, known)
                .map(|m| format!("; did you mean `{m}`?"))
                .unwrap_or_default();
            problems.push(Problem::key(key, format!("unknown key{meant}")));
        }
    }
    problems.extend(
        config::check::<<tunnel::Tunnel as Stage>::Config>(&tunnel, env, tunnel::Tunnel::validate)
            .err()
            .unwrap_or_default(),
    );
    problems.extend(
        config::check::<<gateway::Gateway as Stage>::Config>(
            &gateway,
            env,
            gateway::Gateway::validate,
        )
        .err()
        .unwrap_or_default(),
    );
    if problems.is_empty() {
        Ok((tunnel, gateway))
    } else {
        Err(problems)
    }
}

/// The tunnel and the gateway go first, so that they come up while the database does; config-emit right before the master.
fn wanted(
    base: &Source,
    tunnel: Map<String, Value>,
    gateway: Map<String, Value>,
) -> Result<Vec<Wanted>, StageError> {
    let value = base.document.value();
    let items = value
        .get("stages")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let has = |kind: Kind| items.iter().position(|i| i.get(kind.name()).is_some());
    let listed = [Kind::Tunnel, Kind::Gateway, Kind::ConfigEmit]
        .into_iter()
        .find_map(|k| Some((k, has(k)?)));
    if let Some((kind, i)) = listed {
        let message = format!(
            "lists a {} already: run this file itself, with -c",
            kind.name()
        );
        return Err(refused(
            base,
            vec![Problem::new(format!("stages[{i}]"), message)],
        ));
    }
    let Some(master) = items.iter().position(|i| i.get("master").is_some()) else {
        let message = "no master stage: nothing here would use the tunnel or the gateway";
        return Err(refused(base, vec![Problem::new("stages", message)]));
    };
    let stage = |kind, item, body| Wanted {
        kind,
        place: Place::Before(item),
        body,
    };
    Ok(vec![
        stage(Kind::Tunnel, 0, tunnel),
        stage(Kind::Gateway, 0, gateway),
        stage(Kind::ConfigEmit, master, Map::new()),
    ])
}
