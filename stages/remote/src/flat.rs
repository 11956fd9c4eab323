//! The flat `remote_connect.yaml` of the Python tool: its keys are those of a tunnel and of a gateway, to be put into another
//! devcluster.yaml.

use std::path::{Path, PathBuf};

use protocol::config::{self, nearest};
use protocol::yaml::Document;
use protocol::{Env, Problem, Stage, StageError};
use serde_json::{Map, Value};

use crate::input::{Asked, read, usage};
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

/// What a flat file, and the flags that win over it, ask for.
#[derive(Debug)]
pub(crate) struct Flat {
    /// The devcluster.yaml to put the stages into.
    pub(crate) base: PathBuf,
    /// Its content.
    pub(crate) document: Document,
    /// The checkout of Determined, as written.
    pub(crate) root: Option<String>,
    tunnel: Map<String, Value>,
    gateway: Map<String, Value>,
}

impl Flat {
    /// Reads one; `document` is that of the file, where there is one.
    pub(crate) fn read(
        path: &Path,
        document: Option<&Document>,
        asked: &Asked,
        env: &Env,
    ) -> Result<Flat, StageError> {
        let mut keys = match document.map(Document::value) {
            Some(Value::Object(keys)) => keys,
            _ => Map::new(),
        };
        keys.extend(asked.flags.clone());
        keys.retain(|_, v| !v.is_null());
        let mut take = |key: &str| keys.shift_remove(key).map(|v| text(&v));
        let root = take("determined_root");
        let base = take("base_devcluster_path").map(|b| PathBuf::from(env.expand(&b)));
        let base = base.map_or_else(|| default_base(env), Ok)?;
        keys.entry("ssh_user").or_insert_with(|| "ubuntu".into());
        let sorted = sort_keys(keys, env);
        let (tunnel, gateway) = sorted.map_err(|problems| match document {
            Some(document) => refused(&Source { path, document }, problems),
            None => problems
                .iter()
                .fold(usage("the flags do not fit"), |e, p| e.cause(p.to_string())),
        })?;
        Ok(Flat {
            document: read(&base)?,
            base,
            root,
            tunnel,
            gateway,
        })
    }

    /// The base, by the name that messages show.
    pub(crate) fn source(&self) -> Source<'_> {
        Source {
            path: &self.base,
            document: &self.document,
        }
    }

    /// The stages that the keys become.
    pub(crate) fn stages(&self) -> Result<Vec<Wanted>, StageError> {
        wanted(&self.source(), self.tunnel.clone(), self.gateway.clone())
    }
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
