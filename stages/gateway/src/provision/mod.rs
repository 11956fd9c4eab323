//! Installs a controller if none on the cluster can provide a Gateway.

mod apply;
mod class;
mod contents;
mod infrastructure;
mod lock;
mod manifest;
mod pods;
mod remove;
mod steps;

use std::time::Duration;

use cluster::permissions::require;
use cluster::{Attempt, Cluster};
use protocol::{Context, StageError, run_id};
use serde_json::json;

use self::class::{has_accepted, until_accepted};
use self::lock::Installed;
use self::manifest::Object;
use self::steps::Step;
use crate::Gateway;
use crate::config::{Config, Provision};
use crate::manifests;
use crate::objects::{CLASSES, GROUP};
use crate::permissions;
use crate::prompt;
use crate::survey::Access;
use crate::task_namespace;

pub(crate) use infrastructure::Infrastructure;
pub(crate) use remove::leftover;

/// The ledger's kind of entry for it.
pub(crate) const KIND: &str = "infrastructure";

/// The GatewayClass to create if the manifests have none.
const CLASS: &str = "devcluster-gateway";

/// What to install.
pub(crate) struct InstallPlan {
    loaded: manifests::Loaded,
    objects: Vec<Object>,
    /// Its GatewayClass.
    class: String,
}

impl InstallPlan {
    pub(crate) async fn prepare(
        cx: &Context<Gateway>,
        config: &Config,
    ) -> Result<Self, StageError> {
        cx.progress("provision", "reading the manifests of a controller");
        let digest = config.provision_digest.as_deref();
        let loaded = manifests::load(&config.provision_manifests, digest, &cx.env).await?;
        let mut objects = manifest::parse(&loaded)?;
        let mut references = objects.iter().map(|it| &it.reference);
        let class = match references.find(|it| it.kind == "GatewayClass") {
            Some(class) => class.name.clone(),
            None => {
                objects.push(class(&config.provision_controller)?);
                CLASS.to_owned()
            }
        };
        if !loaded.pinned {
            cx.warn(format!(
                "no digest protects {}; set `provision_digest: {}` to pin the current manifests",
                loaded.names(),
                loaded.digest
            ));
        }
        Ok(Self {
            loaded,
            objects,
            class,
        })
    }

    pub(crate) fn summary(&self) -> String {
        let (count, names) = (self.objects.len(), self.loaded.names());
        let digest = &self.loaded.digest;
        format!("{count} objects of {names} (SHA-256 {digest})")
    }

    /// The change to each object on the cluster as it is.
    pub(crate) async fn steps(&self, cluster: &Cluster) -> Result<Steps, StageError> {
        let installed = Installed::read(cluster).await?.unwrap_or_default();
        self.plan_steps(cluster, &installed.mark).await
    }

    async fn plan_steps(&self, cluster: &Cluster, mark: &str) -> Result<Steps, StageError> {
        let steps = steps::plan(cluster, self.objects.clone(), mark).await;
        steps.map(Steps)
    }
}

pub(crate) struct Steps(Vec<Step>);

impl Steps {
    /// A line for each object.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(Step::line)
    }

    /// Adds new objects to the list before they are created. CRDs are not listed: they stay forever.
    fn list_in(&self, installed: &mut Installed) {
        let made = self.0.iter().filter(|it| it.applies() && !it.is_crd());
        for reference in made.map(|step| &step.object.reference) {
            if !installed.objects.contains(reference) {
                installed.objects.push(reference.clone());
            }
        }
    }

    /// Checks that the user may install everything and remove it again, before anything is installed.
    pub(crate) async fn review(&self, cluster: &Cluster) -> Result<(), StageError> {
        let mut needed: Vec<Attempt> = Vec::new();
        for step in self.0.iter().filter(|it| it.applies()) {
            let reference = &step.object.reference;
            if reference.kind == "Namespace" {
                needed.push(contents::required_attempt(reference));
            }
            // CRDs are not deleted.
            let verbs = ["create", "patch", "get", "list", "watch", "delete"];
            for verb in &verbs[..verbs.len() - usize::from(step.is_crd())] {
                let attempt = match &step.kind {
                    Some(kind) => kind.attempt(verb, reference),
                    None if reference.kind == "GatewayClass" => Attempt::new(verb, CLASSES, None),
                    None => continue,
                };
                if !needed.contains(&attempt) {
                    needed.push(attempt);
                }
            }
        }
        require(cluster, &needed).await
    }
}

fn class(controller: &str) -> Result<Object, StageError> {
    let class = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "GatewayClass",
        "metadata": {"name": CLASS},
        "spec": {"controllerName": controller},
    });
    Object::from_value(class).map_err(StageError::internal)
}

impl Access<'_> {
    /// Installs a controller if the config or the user agrees; else returns the error that made it necessary.
    pub(crate) async fn offer_install(
        &self,
        slot: &mut Option<Infrastructure>,
        missing: StageError,
    ) -> Result<(), StageError> {
        let (cx, config, cluster) = (self.cx, self.config, &self.cluster);
        let auto = "; `provision: auto` installs a controller and removes it in the end";
        let refused = |mut error: StageError| {
            error.hint = error.hint.map(|hint| hint + auto);
            Err(error)
        };
        let asks = config.provision == Provision::Ask;
        if config.provision == Provision::Never || (asks && !protocol::prompt::is_interactive()) {
            return refused(missing);
        }
        let plan = InstallPlan::prepare(cx, config).await?;
        if asks {
            cx.warn(missing.message.clone());
            let steps = plan.steps(cluster).await?;
            steps.lines().for_each(|line| cx.info(line));
            let (summary, name) = (plan.summary(), &cluster.context.name);
            let question = format!("Install {summary} on the cluster of context {name:?}?");
            if !prompt::confirm(cx, &question).await? {
                return refused(missing);
            }
        } else {
            cx.info(missing.message);
        }
        self.install(slot, plan).await
    }

    /// Installs it under the Lease, which we hold until a Gateway of the class keeps others from removing it.
    async fn install(
        &self,
        slot: &mut Option<Infrastructure>,
        plan: InstallPlan,
    ) -> Result<(), StageError> {
        let (cx, config, cluster) = (self.cx, self.config, &self.cluster);
        // Install nothing for a session that lacks permissions.
        let namespace = config.namespace(&cluster.context);
        permissions::review(cluster, &namespace, &config.task_namespace, true).await?;
        task_namespace::check(cx, config, cluster).await?;
        let infrastructure = Infrastructure::join(self, slot, true).await?;
        let Some(lock) = &mut infrastructure.lock else {
            return Ok(());
        };
        let name = &plan.class;
        if has_accepted(cluster, name).await? {
            cx.info(format!(
                "another session has installed the controller of GatewayClass {name} meanwhile"
            ));
            return Ok(());
        }
        let mut installed = lock.installed.clone();
        if installed.mark.is_empty() {
            installed.mark = run_id();
        }
        installed.class.clone_from(name);
        installed.digest.clone_from(&plan.loaded.digest);
        let steps = plan.plan_steps(cluster, &installed.mark).await?;
        let kept = steps.0.iter().filter(|it| !it.applies());
        kept.for_each(|step| cx.info(step.line()));
        steps.review(cluster).await?;
        steps.list_in(&mut installed);
        lock.record(installed.clone()).await?;
        let timeout = Duration::from_secs(config.timeout);
        let work = lock.while_renewing(async {
            apply::apply(cx, cluster, &steps.0, &installed.mark).await?;
            until_accepted(cx, cluster, &installed, timeout).await
        });
        work.await.map_err(|mut error| {
            let hint = error
                .hint
                .take()
                .map(|hint| hint + "; ")
                .unwrap_or_default();
            let rest = "the next run continues with what was applied so far, and `devcluster-gateway cleanup` \
        removes it";
            error.hint(hint + rest)
        })
    }
}
