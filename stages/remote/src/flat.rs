//! The flat `remote_connect.yaml` of the Python tool: its keys are fields of a tunnel and of a gateway, which are added to
//! another devcluster.yaml.

use std::path::PathBuf;

use clap::Args;
use protocol::kinds::RENDERER;
use protocol::suggest::did_you_mean;
use protocol::yaml::Document;
use protocol::{Env, Problem, StageError};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::kinds::Programs;
use crate::plan::{self, Plan, Position, StageRequest};
use crate::problems::{InputFile, read, refused, refused_flat, usage};

/// The stages that replace the Python tool.
pub(crate) const TUNNEL: &str = "tunnel";
pub(crate) const GATEWAY: &str = "gateway";

/// The keys of the Python tool, as flags.
#[derive(Debug, Default, Args, Serialize)]
#[command(next_help_heading = "Keys of remote_connect.yaml; they override the file")]
pub(crate) struct FlatFlags {
    /// Private key for the ssh server [default: the agent and ssh_config]
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    ssh_key_path: Option<String>,
    /// The ssh server that pods can reach
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    reverse_proxy_host: Option<String>,
    /// User on the ssh server [default: ubuntu]
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    ssh_user: Option<String>,
    /// Ports to try on the ssh server, such as 8000,9000
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    remote_port_range: Option<String>,
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    k8s_context: Option<String>,
    /// Checkout of Determined; devcluster runs there
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    determined_root: Option<String>,
    /// The devcluster.yaml to add the stages to [default: devcluster's own]
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    base_devcluster_path: Option<String>,
}

/// The keys of the Python tool, with their help.
pub(crate) fn flat_keys() -> Vec<(String, String)> {
    let command = FlatFlags::augment_args(clap::Command::new("flat"));
    let keys = command.get_arguments();
    keys.map(|arg| {
        let help = arg.get_help().map(ToString::to_string);
        (arg.get_id().to_string(), help.unwrap_or_default())
    })
    .collect()
}

/// A flat file, and the flags that override it.
pub(crate) struct Flat<'a> {
    /// The devcluster.yaml to add the stages to.
    pub(crate) base: PathBuf,
    /// Its content.
    pub(crate) document: Document,
    /// The checkout of Determined, as written.
    pub(crate) root: Option<String>,
    /// The flat file itself.
    file: Option<InputFile<'a>>,
    tunnel: Map<String, Value>,
    gateway: Map<String, Value>,
}

impl<'a> Flat<'a> {
    /// Reads a file, if any, and the flags.
    pub(crate) async fn read(
        file: Option<InputFile<'a>>,
        flags: Map<String, Value>,
        programs: &Programs<'_>,
    ) -> Result<Flat<'a>, StageError> {
        let env = programs.env;
        let mut keys = match file.map(|file| file.document.value()) {
            Some(Value::Object(keys)) => keys,
            _ => Map::new(),
        };
        keys.extend(flags);
        keys.retain(|_, v| !v.is_null());
        let mut take = |key: &str| keys.shift_remove(key).map(|v| text(&v));
        let root = take("determined_root");
        let base = take("base_devcluster_path").map(|b| PathBuf::from(env.expand(&b)));
        let base = base.map_or_else(|| default_base(env), Ok)?;
        keys.entry("ssh_user").or_insert_with(|| "ubuntu".into());
        let (tunnel, gateway, problems) = sort_keys(keys, programs).await?;
        if !problems.is_empty() {
            return Err(refused_flat(file, problems));
        }
        let (document, unreadable) = match read(&base) {
            Ok(document) => (document, None),
            Err(error) => (any_base()?, Some(error)),
        };
        let flat = Flat {
            base,
            document,
            root,
            file,
            tunnel,
            gateway,
        };
        let Some(error) = unreadable else {
            return Ok(flat);
        };
        // Report mistakes in the keys first.
        Plan::read(&flat.source(), Some(flat.stages()?), programs).await?;
        Err(error)
    }

    /// The base, by the name that messages show.
    pub(crate) fn source(&self) -> InputFile<'_> {
        InputFile {
            path: &self.base,
            document: &self.document,
        }
    }

    /// The stages of the keys, and the file that contains the keys.
    pub(crate) fn stages(&self) -> Result<plan::FlatStages<'a>, StageError> {
        let stages = wanted(&self.source(), self.tunnel.clone(), self.gateway.clone())?;
        let file = self.file;
        Ok(plan::FlatStages { stages, file })
    }
}

/// A minimal file to add the stages to.
fn any_base() -> Result<Document, StageError> {
    Document::parse("stages: [{master: {}}]").map_err(|e| StageError::internal(e.message))
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The file that devcluster uses by default.
pub(crate) fn default_base(env: &Env) -> Result<PathBuf, StageError> {
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
            "no devcluster.yaml to add the stages to: there is none at {looked}"
        ))
        .hint("name one with base_devcluster_path")
    })
}

/// Assigns each key to the stage that has a field of this name.
async fn sort_keys(
    keys: Map<String, Value>,
    programs: &Programs<'_>,
) -> Result<(Map<String, Value>, Map<String, Value>, Vec<Problem>), StageError> {
    let (tunnel_fields, gateway_fields) =
        futures::try_join!(fields(TUNNEL, programs), fields(GATEWAY, programs))?;
    let (mut tunnel, mut gateway, mut problems) = (Map::new(), Map::new(), Vec::new());
    for (key, value) in keys {
        if tunnel_fields.contains_key(&key) {
            tunnel.insert(key, value);
        } else if gateway_fields.contains_key(&key) {
            gateway.insert(key, value);
        } else {
            let flat = flat_keys();
            let known = flat.iter().map(|(key, _)| key);
            let known = known
                .chain(tunnel_fields.keys())
                .chain(gateway_fields.keys());
            let meant = did_you_mean(&key, known.map(String::as_str))
                .map(|m| format!("; did you mean `{m}`?"))
                .unwrap_or_default();
            problems.push(Problem::key(key, format!("unknown key{meant}")));
        }
    }
    Ok((tunnel, gateway, problems))
}

async fn fields(kind: &str, programs: &Programs<'_>) -> Result<Map<String, Value>, StageError> {
    let described = programs.describe_known(kind).await?;
    let fields = described.config["properties"].as_object();
    Ok(fields.cloned().unwrap_or_default())
}

/// Places the tunnel and the gateway first, so that they start while the database does, and config-emit before the master.
fn wanted(
    base: &InputFile,
    tunnel: Map<String, Value>,
    gateway: Map<String, Value>,
) -> Result<Vec<StageRequest>, StageError> {
    let value = base.document.value();
    let items = value["stages"].as_array().map(Vec::as_slice);
    let items = items.unwrap_or_default();
    let has = |kind: &str| items.iter().position(|i| i.get(kind).is_some());
    let listed = [TUNNEL, GATEWAY, RENDERER]
        .into_iter()
        .find_map(|k| Some((k, has(k)?)));
    if let Some((kind, i)) = listed {
        let message = format!("lists a {kind} already: pass this file with -c");
        let problem = Problem::new(format!("stages[{i}]"), message);
        return Err(refused(base, vec![problem]));
    }
    let Some(master) = has("master") else {
        let message = "no `master` stage, which would use the tunnel and the gateway: add one";
        return Err(refused(base, vec![Problem::new("stages", message)]));
    };
    let stage = |kind: &str, item, body| StageRequest {
        kind: kind.to_owned(),
        place: Position::Before(item),
        body,
    };
    Ok(vec![
        stage(TUNNEL, 0, tunnel),
        stage(GATEWAY, 0, gateway),
        stage(RENDERER, master, Map::new()),
    ])
}
