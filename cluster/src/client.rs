//! A connected cluster, with the rights of a kubeconfig context's user.

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

/// Time limit of an answer. The API answers most requests in a fraction of a second, and a list of thousands in a few.
pub const ANSWER: Duration = Duration::from_secs(20);

/// Time limits of the requests to the API.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    pub connect: Duration,
    pub answer: Duration,
}

impl Timeouts {
    /// Limits that let a session notice a dead API before a Lease of this duration expires.
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

/// A connected cluster, with the rights of a kubeconfig context's user.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub context: Arc<KubeContext>,
}

impl Cluster {
    /// Reads certificates and runs the user's credential plugin, if there is one. Makes no request.
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

    /// `None`: the kubeconfig no longer has the context. What the cluster still has of us expires, and other sessions
    /// collect it.
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

    /// Converts the error of a request.
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
    // Without a terminal a plugin cannot ask, and the stage's own streams are not for plugins.
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

/// Stands in for the kubeconfig's proxy: without one kube reads the process's environment, by rules unlike kubectl's.
const UNUSED: &str = "http://unused";
