//! A cluster, as the user of a context sees it.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::config::{ExecInteractiveMode, KubeConfigOptions};
use protocol::{Env, StageError};

use crate::connection;
use crate::errors::{self, Attempt};
use crate::kubeconfig::{ClusterRef, KubeContext, malformed};
use crate::proxy;

/// An API that is there answers each request in a fraction of a second; a list of thousands takes a few.
pub const ANSWER: Duration = Duration::from_secs(20);

/// How long the API is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    pub connect: Duration,
    pub answer: Duration,
}

impl Timeouts {
    /// A session whose Lease ends soon has to know soon that nobody answers.
    pub fn from_lease_duration(connect: Duration, lease: Duration) -> Self {
        let answer = (lease / 3).clamp(Duration::from_secs(3), ANSWER);
        Self { connect, answer }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: ANSWER,
        }
    }
}

/// A cluster, as the user of a context sees it.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub context: Arc<KubeContext>,
}

impl Cluster {
    /// Reads certificates and runs the user's credential plugin, where there is one. No request is made yet.
    pub async fn connect(
        context: KubeContext,
        timeouts: Timeouts,
        env: &Env,
    ) -> Result<Self, StageError> {
        let config = config(&context, timeouts.connect, env).await?;
        let client = connection::connect(config, timeouts.answer)
            .await
            .map_err(|error| context.connection_failed(&error))?;
        Ok(Self {
            client,
            context: Arc::new(context),
        })
    }

    /// `None`: the user has done away with the cluster. If it is there still, what we had there expires, and others collect
    /// it.
    pub async fn from_ledger(
        reference: &ClusterRef,
        env: &Env,
    ) -> Result<Option<Self>, StageError> {
        match reference.load()? {
            Some(context) => Self::connect(context, Timeouts::default(), env)
                .await
                .map(Some),
            None => Ok(None),
        }
    }

    /// The error of a request, as ours.
    pub fn failed(
        &self,
        verb: &'static str,
        resource: &'static str,
        namespace: Option<&str>,
        error: &kube::Error,
    ) -> StageError {
        let attempt = Attempt::new(verb, resource, namespace);
        self.context.request_failed(&attempt, error)
    }
}

async fn config(
    context: &KubeContext,
    connect: Duration,
    env: &Env,
) -> Result<kube::Config, StageError> {
    let unusable = |error: &(dyn std::error::Error + 'static)| {
        let place = format!("context {:?}", context.name);
        malformed(&place, &errors::in_one_line(error))
    };
    let mut kubeconfig = context.kubeconfig.clone();
    // Without a terminal a plugin has nobody to ask, and our streams are no business of its.
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        let users = kubeconfig.auth_infos.iter_mut();
        let plugins = users.filter_map(|user| user.auth_info.as_mut()?.exec.as_mut());
        plugins.for_each(|exec| exec.interactive_mode = Some(ExecInteractiveMode::Never));
    }
    let cluster = kubeconfig.clusters.first_mut();
    let own = cluster.and_then(|it| it.cluster.as_mut()?.proxy_url.replace(UNUSED.to_owned()));
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| unusable(&error))?;
    config.proxy_url = match own.filter(|url| !url.is_empty()) {
        Some(url) => Some(url.parse::<http::Uri>().map_err(|error| unusable(&error))?),
        None => proxy::from_environment(&config.cluster_url, env),
    };
    config.connect_timeout = Some(connect);
    Ok(config)
}

/// A proxy in the place of which ours is put: with none kube reads the process's environment, by other rules than kubectl.
const UNUSED: &str = "http://unused";
