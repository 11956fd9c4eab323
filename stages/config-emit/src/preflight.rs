//! `check --preflight`: checks what can be known before any upstream has reported.

use std::path::Path;

use protocol::yaml::Seg;
use protocol::{CheckTitle, Context, StageError};
use rustix::fs::{Access, access};
use serde_json::Value;

use crate::assign::{Candidate, assign};
use crate::base::Base;
use crate::codes;
use crate::config::{Config, ConfigEmit};
use crate::determined::{Manager, Violation, kubernetes, managers, refusals};
use crate::judge;
use crate::render_error::RenderError;
use crate::stage_config::StageConfig;
use crate::substitute::check_references;

const BASE: CheckTitle = ("base", "the base can be read");
const CONFIG: CheckTitle = ("config", "the base has the config of the stage");
const REFERENCES: CheckTitle = ("references", "each reference names an earlier instance");
const MANAGERS: CheckTitle = (
    "managers",
    "the config has a resource manager for the cluster",
);
const LAYOUT: CheckTitle = ("layout", "Determined would accept the config");
const OUT: CheckTitle = ("out", "the result can be written");
const SOCKET: CheckTitle = (
    "control_socket",
    "devcluster can be asked to restart stages",
);

/// What the rules look at.
const LOOKED_AT: &str = "by the rules of 0.38 for resource managers, pools, gateways, keys, log, storage, TLS and cache; its \
    program determined-master, which knows all rules, was not asked";

/// Determined's default cache directory.
const CACHE: &str = "/var/cache/determined";

/// Longest path of a socket, here and on macOS.
const LONGEST_SOCKET: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

struct Preflight<'a> {
    cx: &'a Context<ConfigEmit>,
    config: &'a Config,
}

pub(crate) async fn preflight(cx: &Context<ConfigEmit>, config: &Config) {
    let preflight = Preflight { cx, config };
    let base = preflight.base();
    if let Some(target) = base.as_ref().and_then(|base| preflight.target(base)) {
        cx.report_result(REFERENCES, preflight.references(&target));
        preflight.managers(&target);
        match target.is_determined {
            true => cx.report_result(LAYOUT, preflight.layout(&target).await),
            false => cx.skip(&[LAYOUT], "not a Determined master's config"),
        }
    }
    cx.report_result(OUT, preflight.out());
    match &config.control_socket {
        Some(socket) => cx.report_result(SOCKET, check_socket_path(socket)),
        None => cx.skip(
            &[SOCKET],
            "`control_socket` is not set: no stage is restarted",
        ),
    }
}

impl Preflight<'_> {
    fn base(&self) -> Option<Base> {
        let all = [BASE, CONFIG, REFERENCES, MANAGERS, LAYOUT];
        let Some(path) = &self.config.base else {
            self.cx.skip(&all, "there is no base");
            return None;
        };
        if !self.config.format.needs_base() {
            self.cx.skip(&all, "this format needs no base");
            return None;
        }
        if self.config.control_socket.is_some() && !path.exists() {
            let why = format!("devcluster writes {} when it starts", path.display());
            self.cx.skip(&all, &why);
            return None;
        }
        let base = Base::read(path);
        let read = base.as_ref().map(|_| path.display().to_string());
        self.cx.report_result(BASE, read.map_err(Clone::clone));
        if base.is_err() {
            self.cx.skip(&all[1..], "needs the base");
        }
        base.ok()
    }

    fn target<'a>(&self, base: &'a Base) -> Option<StageConfig<'a>> {
        let target = StageConfig::find(base, self.config).map_err(|error| error.error(base));
        let found = target.as_ref().map(|_| self.config.stage.clone());
        self.cx.report_result(CONFIG, found.map_err(Clone::clone));
        if target.is_err() {
            let rest = [REFERENCES, MANAGERS, LAYOUT];
            self.cx.skip(&rest, "needs the config");
        }
        target.ok()
    }

    fn references(&self, target: &StageConfig<'_>) -> Result<String, StageError> {
        let names = self.config.upstreams.as_deref();
        match check_references(target, names, &self.config.reports(self.cx)) {
            Ok(0) => Ok("no references".into()),
            Ok(1) => Ok("1 reference".into()),
            Ok(count) => Ok(format!("{count} references")),
            Err(problems) => Err(RenderError::bad_references(problems).error(target.base)),
        }
    }

    /// The outputs of gateway and tunnel need a resource manager of type kubernetes.
    fn managers(&self, target: &StageConfig<'_>) {
        if !target.is_determined || self.config.ignores_upstreams() {
            return self
                .cx
                .skip(&[MANAGERS], "no value is for a resource manager");
        }
        let config = target.value();
        let kubernetes = kubernetes(&config);
        let is_unresolved =
            |m: &Manager<'_>| m.config["type"].as_str().is_some_and(|t| t.contains('$'));
        if kubernetes.is_empty() && target.expands && managers(&config).iter().any(is_unresolved) {
            let why =
                "the type of a resource manager contains a variable, which only the run knows";
            return self.cx.skip(&[MANAGERS], why);
        }
        if kubernetes.is_empty() {
            let error = target.no_kubernetes().error(target.base);
            return self.cx.report_result(MANAGERS, Err(error));
        }
        let candidates = self.config.resource_managers.iter();
        let candidates = candidates.map(|(instance, requested)| Candidate {
            instance,
            requested: requested.as_str(),
        });
        let assigned = assign(&kubernetes, &candidates.collect::<Vec<_>>());
        let names = kubernetes.iter();
        let names = names.map(|m| m.name().unwrap_or("one without a name"));
        let assigned = assigned.map(|_| names.collect::<Vec<_>>().join(", "));
        let outcome = assigned.map_err(|wrong| target.ambiguous(wrong).error(target.base));
        self.cx.report_result(MANAGERS, outcome);
    }

    /// The master's program decides, if it is at hand. The rules know the lines.
    async fn layout(&self, target: &StageConfig<'_>) -> Result<String, StageError> {
        let config = target.value();
        let mut found = refusals(&config);
        found.extend(self.cache(&config));
        found.retain(|violation| !self.is_unresolved(target, violation));
        let found = target.violations(&config, found);
        let found = found.map_err(|error| error.error(target.base));
        let program = judge::program(target, &self.cx.env);
        let program = program.filter(|_| !config.to_string().contains("${{"));
        let answer = match &program {
            Some(program) => self.judge(program, &config).await,
            None => None,
        };
        match (program, answer) {
            (Some(program), Some(Ok(()))) => Ok(format!("{} accepts it", program.display())),
            (Some(program), Some(Err(why))) => {
                let why = format!("{}: {why}", program.display());
                Err(match found {
                    Err(error) => error.cause(why),
                    Ok(()) => {
                        StageError::new(codes::REFUSED, "the master refuses its config").cause(why)
                    }
                })
            }
            _ => found.map(|()| LOOKED_AT.to_owned()),
        }
    }

    async fn judge(&self, program: &Path, config: &Value) -> Option<Result<(), String>> {
        let scratch = tempfile::tempdir_in(self.cx.env.temp_dir()).ok()?;
        judge::judge(program, config, &self.cx.env, scratch.path()).await
    }

    /// Whether the master can make its cache directory, which belongs to root by default.
    fn cache(&self, config: &Value) -> Option<Violation> {
        let written = config["cache"]["cache_dir"].as_str();
        let dir = self.cx.env.expand_variables(written.unwrap_or(CACHE));
        let there = Path::new(&dir).ancestors().find(|dir| dir.exists())?;
        access(there, Access::WRITE_OK).err()?;
        let what = written.map_or("the default", |_| "it");
        Some(Violation::new(
            &["cache", "cache_dir"],
            format!(
                "{what}, {dir}, cannot be written by this user: set it to a directory of yours"
            ),
        ))
    }

    /// Whether a value is not known yet: it comes from a reference, a variable, or a gateway, which sets all fields of
    /// its block.
    fn is_unresolved(&self, target: &StageConfig<'_>, violation: &Violation) -> bool {
        let value = target.base.document.get(&target.path(&violation.path));
        let is_templated = value.is_some_and(|v| v.as_str().is_some_and(|s| s.contains("${{")));
        let of_gateway = [Seg::from("internal_task_gateway")];
        let is_field = violation.path.len() > 1
            && violation.path[..violation.path.len() - 1].ends_with(&of_gateway)
            && !violation.is_unknown;
        is_templated || (is_field && !self.config.ignores_upstreams())
    }

    fn out(&self) -> Result<String, StageError> {
        let Some(out) = self.config.file() else {
            let target = self.config.out.as_ref().map(|_| "to stdout");
            return Ok(target.unwrap_or("no file requested").into());
        };
        let failed = |why: String| {
            let message = format!("cannot write {}: {why}", out.display());
            StageError::new(codes::CANNOT_WRITE, message)
        };
        if out.is_dir() {
            return Err(failed("it is a directory".into()));
        }
        let absolute = std::path::absolute(out).unwrap_or_else(|_| out.to_owned());
        let directory = absolute.parent();
        let directory = directory.ok_or_else(|| failed("it is not a file".into()))?;
        // devcluster creates its run directory when it starts.
        let made_later = self.config.control_socket.is_some();
        let there = directory.ancestors().find(|d| !made_later || d.exists());
        let there = there.unwrap_or(directory);
        let written = access(there, Access::WRITE_OK | Access::EXEC_OK);
        let why = |e| format!("{}: {}", there.display(), std::io::Error::from(e));
        written.map_err(|e| failed(why(e)))?;
        Ok(out.display().to_string())
    }
}

fn check_socket_path(socket: &Path) -> Result<String, StageError> {
    let absolute = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
    let length = absolute.as_os_str().len();
    if length <= LONGEST_SOCKET {
        return Ok(String::new());
    }
    let message = format!(
        "the socket path {} has {length} bytes, and the system allows {LONGEST_SOCKET}: devcluster will not start",
        absolute.display()
    );
    Err(StageError::new(codes::SOCKET_PATH_LONG, message))
}
