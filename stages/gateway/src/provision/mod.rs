//! A controller of our own, where the cluster has none of which a Gateway could be had.

mod accepted;
mod apply;
mod infrastructure;
mod lock;
mod object;
mod plan;
mod pods;
mod remove;

use std::time::Duration;

use cluster::permissions::require;
use cluster::{Attempt, Cluster};
use protocol::{Context, StageError, run_id};
use serde_json::json;

use self::accepted::{accepted, until_accepted};
use self::lock::Installed;
use self::object::Object;
use self::plan::Step;
use crate::Gateway;
use crate::ask;
use crate::config::{Config, Provision};
use crate::manifests;
use crate::objects::{CLASSES, GROUP};
use crate::permissions;
use crate::survey::Run;

pub(crate) use infrastructure::Infrastructure;
pub(crate) use remove::leftover;

/// The word for it in the ledger.
pub(crate) const KIND: &str = "infrastructure";

/// The GatewayClass that is made where the manifests bring none.
const CLASS: &str = "devcluster-gateway";

/// What would be installed.
pub(crate) struct InstallPlan {
    loaded: manifests::Loaded,
    objects: Vec<Object>,
    /// The GatewayClass among them.
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
        let mut objects = object::parse(&loaded)?;
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
                "nothing says that {} is what you mean; `provision_digest: {}` pins what it is now",
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

    /// What is to be done with each object, as things are.
    pub(crate) async fn steps(&self, cluster: &Cluster) -> Result<Steps, StageError> {
        let installed = Installed::look(cluster).await?.unwrap_or_default();
        self.steps_of(cluster, &installed.mark).await
    }

    async fn steps_of(&self, cluster: &Cluster, mark: &str) -> Result<Steps, StageError> {
        let steps = plan::plan(cluster, self.objects.clone(), mark).await;
        steps.map(Steps)
    }
}

pub(crate) struct Steps(Vec<Step>);

impl Steps {
    /// A line for each object.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(Step::line)
    }

    /// What is about to be made goes onto the list before it is made. CRDs stay on a cluster for ever.
    fn note(&self, installed: &mut Installed) {
        let made = self.0.iter().filter(|it| it.applies() && !it.is_crd());
        for reference in made.map(|step| &step.object.reference) {
            if !installed.objects.contains(reference) {
                installed.objects.push(reference.clone());
            }
        }
    }

    /// Whether the user may do all of it and take it back, before any of it is done.
    pub(crate) async fn review(&self, cluster: &Cluster) -> Result<(), StageError> {
        let mut needed: Vec<Attempt> = Vec::new();
        for step in self.0.iter().filter(|it| it.applies()) {
            let reference = &step.object.reference;
            if reference.kind == "Namespace" {
                needed.extend(remove::attempts(cluster, reference).await?);
            }
            // A CRD stays.
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
    Object::of(class).map_err(StageError::internal)
}

impl Run<'_> {
    /// Installs a controller because of this error, if the config or the user agrees; else the error is the answer.
    pub(crate) async fn offer(
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
        if config.provision == Provision::Never || (asks && !protocol::ask::is_possible()) {
            return refused(missing);
        }
        let plan = InstallPlan::prepare(cx, config).await?;
        if asks {
            cx.warn(missing.message.clone());
            let steps = plan.steps(cluster).await?;
            steps.lines().for_each(|line| cx.info(line));
            let (summary, name) = (plan.summary(), &cluster.context.name);
            let question = format!("Install {summary} on the cluster of context {name:?}?");
            if !ask::yes(cx, &question).await? {
                return refused(missing);
            }
        } else {
            cx.info(missing.message);
        }
        self.install(slot, plan).await
    }

    /// Installs it, under the Lease, which stays ours until a Gateway of the class keeps others from removing it again.
    async fn install(
        &self,
        slot: &mut Option<Infrastructure>,
        plan: InstallPlan,
    ) -> Result<(), StageError> {
        let (cx, config, cluster) = (self.cx, self.config, &self.cluster);
        // Nothing is installed for a session that cannot be.
        let namespace = config.namespace(&cluster.context);
        permissions::review(cluster, &namespace, &config.task_namespace, true).await?;
        let infrastructure = Infrastructure::join(self, slot, true).await?;
        let Some(lock) = &mut infrastructure.lock else {
            return Ok(());
        };
        let name = &plan.class;
        if accepted(cluster, name).await? {
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
        let steps = plan.steps_of(cluster, &installed.mark).await?;
        let kept = steps.0.iter().filter(|it| !it.applies());
        kept.for_each(|step| cx.info(step.line()));
        steps.review(cluster).await?;
        steps.note(&mut installed);
        lock.write(installed.clone()).await?;
        let timeout = Duration::from_secs(config.timeout);
        let work = lock.during(async {
            apply::apply(cx, cluster, &steps.0, &installed.mark).await?;
            until_accepted(cx, cluster, &installed, timeout).await
        });
        work.await.map_err(|mut error| {
            let hint = error
                .hint
                .take()
                .map(|hint| hint + "; ")
                .unwrap_or_default();
            let rest = "what was applied so far is gone on with by the next run, and removed by \
                `devcluster-gateway cleanup`";
            error.hint(hint + rest)
        })
    }
}
