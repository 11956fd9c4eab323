//! `validate`: checks the configs of a file, offline and without writing anything.

use serde_json::{Map, Value};
use tokio::io::AsyncReadExt;

use crate::codes;
use crate::config::{check, properties, schema_of};
use crate::env::Env;
use crate::error::StageError;
use crate::message::VERSION;
use crate::runtime::Invocation;
use crate::stage::Stage;
use crate::validate::{Answer, Instance, LIMIT, Mistake, Request, Unknown, Verdict};
use crate::verbs::stdin::Stdin;

pub(crate) async fn validate<S: Stage>(
    invocation: &Invocation,
    stdin: Stdin,
) -> Result<(), StageError> {
    let request = read(stdin).await?;
    let answer = answer::<S>(&request, &invocation.env);
    invocation.answer(serde_json::to_vec(&answer)).await
}

async fn read(stdin: Stdin) -> Result<Request, StageError> {
    let refused = |why: String| {
        StageError::new(codes::USAGE, why)
            .hint("`validate` reads one JSON document from stdin; PROTOCOL.md says which")
    };
    let mut bytes = Vec::new();
    let read = stdin.take(LIMIT as u64 + 1).read_to_end(&mut bytes).await;
    read.map_err(|e| StageError::io("cannot read stdin", &e))?;
    if bytes.len() > LIMIT {
        return Err(refused(format!("the request is longer than {LIMIT} bytes")));
    }
    let request: Request = serde_json::from_slice(&bytes)
        .map_err(|e| refused(format!("the request on stdin is not valid: {e}")))?;
    if request.dcs != VERSION {
        let why = format!(
            "the caller uses protocol version {}, this program {VERSION}",
            request.dcs
        );
        return Err(StageError::new(codes::VERSION, why));
    }
    Ok(request)
}

/// The answer of a stage.
pub fn answer<S: Stage>(request: &Request, env: &Env) -> Answer {
    let schema = schema_of::<S::Config>();
    let instances = request.instances.iter();
    let mut answer = Answer {
        dcs: VERSION,
        instances: instances.map(|i| verdict::<S>(i, &schema, env)).collect(),
        targets: Vec::new(),
    };
    S::validate_file(request, &mut answer);
    answer
}

fn verdict<S: Stage>(instance: &Instance, schema: &Value, env: &Env) -> Verdict {
    let unknown = Unknown::from_pointers(&instance.unknown);
    let (config, problems) =
        check::<S::Config>(&instance.config, schema, &unknown, env, S::validate);
    let mut fields: Map<String, Value> = properties(schema)
        .iter()
        .filter_map(|(field, schema)| Some((field.clone(), schema.get("default")?.clone())))
        .collect();
    fields.extend(instance.config.clone());
    fields.retain(|_, value| !value.is_null());
    let outline = S::outline(&fields);
    fields.retain(|field, _| !unknown.has(field));
    Verdict {
        stage: instance.stage.clone(),
        problems: problems.iter().map(Mistake::from).collect(),
        effective: fields,
        exposes: Some(S::exposes(config.as_ref(), &unknown)),
        gate: Some(S::GATE),
        waits_for: Vec::new(),
        outline,
    }
}
