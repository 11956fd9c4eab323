//! Checks of this machine.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use protocol::env::is_executable;
use protocol::provides::MASTER_ADDRESS;
use protocol::rundir::RunDir;
use protocol::{Check, Env, StageError, files};
use serde_json::Value;

use super::port;
use crate::call::output;
use crate::codes;
use crate::exposure::refuse_open_master;
use crate::input::CompiledInput;
use crate::outline::program_of;
use crate::{devcluster, preflight, up};

/// How long a program may take to print its version.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The release that this project is tested with.
const DEVCLUSTER: &str = "1.3.2";

const INSTALLED: &str = "devcluster is installed";

/// The check that every file needs.
pub(super) async fn devcluster(env: &Env) -> Check {
    let check = |found| Check::ok("devcluster", INSTALLED, found);
    let program = match devcluster::find(env) {
        Ok(program) => program,
        Err(error) => return Check::failed("devcluster", INSTALLED, &error),
    };
    let path = program.display();
    match devcluster_version(&program).await {
        Some(version) if version == DEVCLUSTER => check(format!("{version}, {path}")),
        Some(version) => check(format!("{version}, {path}")).hint(format!(
            "only {DEVCLUSTER} is tested: pipx install devcluster=={DEVCLUSTER}"
        )),
        None => check(format!("{path}, unknown release")),
    }
}

/// Asks the Python interpreter of its first line: devcluster has no `--version`.
async fn devcluster_version(program: &Path) -> Option<String> {
    let script = files::read_bytes(program).ok()?;
    let first = script.split(|b| *b == b'\n').next()?;
    let interpreter = std::str::from_utf8(first).ok()?.strip_prefix("#!")?.trim();
    let mut words = interpreter.split_whitespace();
    let code = "import importlib.metadata as m; print(m.version('devcluster'))";
    let (program, arguments) = (words.next()?, words.chain(["-c", code]));
    let text = output(program, &arguments.collect::<Vec<_>>(), EXIT_TIMEOUT).await?;
    Some(text.trim().to_owned()).filter(|version| !version.is_empty())
}

/// The checks for this file.
pub(super) async fn check_input(input: &CompiledInput, env: &Env) -> Vec<Check> {
    let compiled = input.compiled.value();
    let stock = preflight::stock(&compiled, input);
    let mut checks = Vec::new();
    if !input.compiled.plan.stages.is_empty() {
        checks.push(stage_programs(input));
        checks.push(directory(input, env));
        checks.extend(password(input, env));
    }
    if stock.iter().any(|(kind, _)| DOCKER_KINDS.contains(kind)) {
        checks.push(docker(env).await);
    }
    let (commands, ports) = (stock.iter(), stock.iter());
    checks.extend(commands.filter_map(|(kind, body)| command(kind, body, input, env)));
    checks.extend(ports.filter_map(|(kind, body)| port::check_master(kind, body, input, env)));
    checks
}

/// Lists the programs of the stages. Reading the file has checked that they exist.
fn stage_programs(input: &CompiledInput) -> Check {
    let stages = input.compiled.plan.stages.iter();
    let programs = stages.filter_map(|s| s.program.first()).map(String::as_str);
    let programs = BTreeSet::from_iter(programs);
    let found = Vec::from_iter(programs).join(", ");
    Check::ok("programs", "the stages' programs are installed", found)
}

fn directory(input: &CompiledInput, env: &Env) -> Check {
    let (id, title) = ("temp_dir", "only this user can use devcluster's temp_dir");
    let (temp_dir, run_dir) = (input.temp_dir(env), input.run_dir(env));
    let shown = temp_dir.display().to_string();
    match up::check_temp_dir(&temp_dir) {
        Err(error) if error.is(codes::IN_USE) => {
            return Check::ok(id, title, shown).hint(error.message);
        }
        Err(error) => return Check::failed(id, title, &error),
        Ok(()) => {}
    }
    if run_dir.exists() {
        return match RunDir::open(&run_dir).map_err(up::own_temp_dir) {
            Ok(_) => Check::ok(id, title, shown),
            Err(error) => Check::failed(id, title, &error),
        };
    }
    let there = temp_dir.ancestors().find(|d| d.exists());
    let there = there.unwrap_or(Path::new("/"));
    if let Err(e) = rustix::fs::access(there, rustix::fs::Access::WRITE_OK) {
        let message = format!("cannot create {shown} in {}", there.display());
        let error = StageError::io(message, &e.into()).hint(up::OWN_TEMP_DIR);
        return Check::failed(id, title, &error);
    }
    match up::others_read(&temp_dir) {
        Some(warning) => Check::ok(id, title, shown).hint(warning),
        None if temp_dir.exists() => Check::ok(id, title, shown),
        None => Check::ok(id, title, format!("{shown}, will be created")),
    }
}

fn password(input: &CompiledInput, env: &Env) -> Option<Check> {
    let (id, title) = ("password", "a master that lets anyone in is not exposed");
    let mut stages = input.compiled.plan.stages.iter();
    stages.find(|s| s.provides.contains_key(MASTER_ADDRESS))?;
    Some(match refuse_open_master(&input.compiled, env) {
        Ok(None) => Check::ok(id, title, ""),
        Ok(Some(warning)) => Check::ok(id, title, "").hint(warning),
        Err(error) => Check::failed(id, title, &error),
    })
}

/// Kinds of stage that devcluster runs in docker.
const DOCKER_KINDS: [&str; 3] = ["db", "elastic", "custom_docker"];

async fn docker(env: &Env) -> Check {
    let (id, title) = ("docker", "docker runs");
    let missing = |message: &str| StageError::new(codes::DOCKER_MISSING, message);
    if env.find_program("docker").is_none() {
        let error = missing(
            "the program `docker` is not on $PATH: devcluster runs db, elastic and custom_docker stages with it",
        );
        return Check::failed(id, title, &error);
    }
    match output(
        "docker",
        &["version", "--format", "{{.Server.Version}}"],
        EXIT_TIMEOUT,
    )
    .await
    {
        Some(version) => Check::ok(id, title, version.trim()),
        None => {
            let error = missing("docker is installed, but its daemon does not answer")
                .hint("start the daemon (systemctl start docker, or Docker Desktop), and join the group `docker`");
            Check::failed(id, title, &error)
        }
    }
}

/// devcluster dies, and orphans its stages, when a stage's program is missing.
fn command(kind: &str, body: &Value, input: &CompiledInput, env: &Env) -> Option<Check> {
    let (words, default) = match kind {
        "master" => (&body["cmdline"], "master/build/determined-master"),
        "agent" => (&body["cmdline"], "agent/build/determined-agent"),
        "custom" => (&body["cmd"], ""),
        _ => return None,
    };
    let name = body["name"].as_str().unwrap_or(kind);
    let word = program_of(words).unwrap_or(default);
    if word.contains("${{") {
        return None;
    }
    let program = env.expand(word);
    let (id, title) = (
        format!("program.{name}"),
        format!("the program of {name} exists"),
    );
    let cwd = env.expand(body["cwd"].as_str().unwrap_or_default());
    let cwd = input.cwd(env).unwrap_or_default().join(cwd);
    let path = match program.contains('/') {
        true => Some(cwd.join(&program)).filter(|p| is_executable(p)),
        false => env.find_program(&program),
    };
    // The driver adds one step to a consumer.
    let consumers = &input.compiled.plan.consumers;
    let ours = usize::from(consumers.iter().any(|c| c.name == name));
    let builds = body["pre"]
        .as_array()
        .is_some_and(|steps| steps.len() > ours);
    Some(match path {
        Some(path) => Check::ok(&id, &title, path.display().to_string()),
        None if builds => Check::ok(&id, &title, format!("{program} does not exist yet"))
            .hint("its `pre` steps must build it"),
        None => {
            let at = std::path::absolute(cwd.join(".")).unwrap_or(cwd);
            let message = match program.contains('/') {
                true => format!("the program {program} does not exist in {}", at.display()),
                false => format!("the program {program} is not on $PATH"),
            };
            let error = StageError::new(protocol::codes::PROGRAM_MISSING, message)
                .hint(format!("build the program, or correct its path in the stage {name}. A relative path starts at the stage's `cwd`, then at the file's `cwd` (determined_root in a remote_connect.yaml), then at the current directory"));
            Check::failed(&id, &title, &error)
        }
    })
}
