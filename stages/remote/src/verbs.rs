//! Calls the offline verbs `describe`, `validate` and `explain` of a program. They get no secret.

use std::collections::VecDeque;
use std::path::Path;

use protocol::env::variables;
use protocol::kinds::PLUGIN;
use protocol::message::VERSION;
use protocol::reference::is_templated;
use protocol::validate::{
    Answer, Instance, LIMIT, Request, RequestType, Unknown, Verdict, pointer_from_path,
};
use protocol::yaml::Seg;
use protocol::{Description, Env, Explanation, Problem, StageError};
use serde_json::{Map, Value};

use crate::call::{Call, CallOutput, failed};
use crate::schema_check;

/// How many last lines of stderr an error shows.
const TAIL: usize = 5;

/// Calls `describe`.
pub(crate) async fn describe(program: &Path, env: &Env) -> Result<Description, StageError> {
    let call = Call::new(program, &["describe"]).with_plain_env(env);
    let called = run_call(program, "describe", call).await?;
    let unusable = |e: serde_json::Error| {
        failed(program, "describe", "its output is not a description").source(&e)
    };
    let mut said: Map<String, Value> = serde_json::from_slice(&called.stdout).map_err(unusable)?;
    // A plugin may leave these out: it runs by its path.
    let defaults = [
        ("dcs", VERSION.into()),
        ("kind", PLUGIN.into()),
        ("version", "".into()),
        ("about", "".into()),
    ];
    for (field, value) in defaults {
        said.entry(field).or_insert(value);
    }
    serde_json::from_value(Value::Object(said)).map_err(unusable)
}

/// Asks a program what its error codes mean.
pub(crate) async fn explain(program: &Path, env: &Env) -> Result<Vec<Explanation>, StageError> {
    let call = Call::new(program, &["explain", "--format=json"]).with_plain_env(env);
    let called = run_call(program, "explain", call).await?;
    serde_json::from_slice(&called.stdout)
        .map_err(|e| failed(program, "explain", "its output is not a list of codes").source(&e))
}

/// Calls `validate`.
pub(crate) async fn validate(
    program: &Path,
    request: &Request,
    env: &Env,
) -> Result<Answer, StageError> {
    let question = serde_json::to_vec(request)
        .map_err(|e| StageError::internal("a request is not JSON").source(&e))?;
    let call = Call::new(program, &["validate"])
        .with_plain_env(env)
        .with_stdin(question, LIMIT);
    let called = run_call(program, "validate", call).await?;
    let answer: Answer = serde_json::from_slice(&called.stdout)
        .map_err(|e| failed(program, "validate", "its output is not an answer").source(&e))?;
    if answer.dcs != VERSION {
        let why = format!("its answer has protocol version {}", answer.dcs);
        return Err(failed(program, "validate", &why));
    }
    let mut answered: Vec<&str> = answer.instances.iter().map(|v| v.stage.as_str()).collect();
    let mut asked: Vec<&str> = request.instances.iter().map(|i| i.stage.as_str()).collect();
    answered.sort_unstable();
    asked.sort_unstable();
    if answered != asked {
        let why = format!(
            "it returned {} verdicts for {} instances, or for other instances; one per instance is required",
            answered.len(),
            asked.len()
        );
        return Err(failed(program, "validate", &why));
    }
    Ok(answer)
}

/// The problems that a plugin and its schema find in a config, and the plugin's verdict.
pub(crate) async fn wrong_config(
    program: &Path,
    described: &Description,
    name: &str,
    with: &Value,
    dir: &Path,
    env: &Env,
) -> Result<(Vec<Problem>, Verdict), StageError> {
    let open = unknown_pointers(with);
    let by_schema =
        schema_check::problems(&described.config, with, &Unknown::from_pointers(&open))?;
    let mut verdict = Verdict::default();
    if let (true, Some(config)) = (described.has("validate"), with.as_object()) {
        let request = Request {
            dcs: VERSION,
            type_: RequestType::Validate,
            dir: dir.to_owned(),
            stages: Vec::new(),
            instances: vec![Instance {
                stage: name.to_owned(),
                config: config.clone(),
                unknown: open,
            }],
            targets: Vec::new(),
        };
        let mut verdicts = validate(program, &request, env).await?.instances;
        verdict = verdicts.pop().unwrap_or_default();
    }
    let mut problems: Vec<Problem> = verdict.problems.iter().map(Problem::from).collect();
    schema_check::add(&mut problems, by_schema);
    Ok((problems, verdict))
}

/// JSON pointers to texts that contain a variable or a reference, whose values are unknown before the run.
pub(crate) fn unknown_pointers(config: &Value) -> Vec<String> {
    fn collect(value: &Value, path: &mut Vec<Seg>, found: &mut Vec<String>) {
        let mut below = |seg: Seg, value: &Value| {
            path.push(seg);
            collect(value, path, found);
            path.pop();
        };
        match value {
            Value::String(text) if is_templated(text) || !variables(text).is_empty() => {
                found.push(pointer_from_path(path));
            }
            Value::Array(items) => items
                .iter()
                .enumerate()
                .for_each(|(i, v)| below(i.into(), v)),
            Value::Object(map) => map.iter().for_each(|(k, v)| below(k.as_str().into(), v)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(config, &mut Vec::new(), &mut found);
    found
}

/// Calls a verb. The error of a failed call contains the last lines of stderr.
async fn run_call(program: &Path, verb: &str, call: Call<'_>) -> Result<CallOutput, StageError> {
    let mut words = VecDeque::new();
    let called = call.run(|line| {
        words.push_back(line);
        if words.len() > TAIL {
            words.pop_front();
        }
    });
    let error = match called.await {
        Ok(called) if called.success => return Ok(called),
        Ok(called) => failed(program, verb, &called.how),
        Err(error) => error,
    };
    Err(match words.is_empty() {
        true => error,
        false => error.cause(words.make_contiguous().join("\n")),
    })
}
