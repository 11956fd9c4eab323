//! The way to one cluster.

use std::io::IsTerminal;
use std::time::Duration;

use kube::Client;
use kube::config::{ExecInteractiveMode, KubeConfigOptions, Kubeconfig};
use protocol::{Env, StageError};

use crate::connection;
use crate::fault::{self, Peer};
use crate::kubeconfig::malformed;
use crate::minify::Minified;

/// An API that is there answers each request in a fraction of a second; a list of thousands takes a few.
pub const ANSWER: Duration = Duration::from_secs(20);

/// How long the API is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub connect: Duration,
    pub answer: Duration,
}

impl Patience {
    /// A session whose Lease ends soon has to know soon that nobody answers.
    pub fn of_session(connect: Duration, lease: Duration) -> Self {
        let answer = lease / 3;
        Self {
            connect,
            answer: answer.clamp(Duration::from_secs(3), ANSWER),
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: ANSWER,
        }
    }
}

/// A cluster, as the user of the kubeconfig sees it.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub peer: Peer,
}

impl Cluster {
    /// Reads certificates and runs the user's credential plugin, where there is one. No request is made yet.
    pub async fn connect(
        minified: &Minified,
        patience: Patience,
        env: &Env,
    ) -> Result<Self, StageError> {
        let peer = Peer {
            context: minified.context.clone(),
            server: minified.server.clone(),
            plugin: minified.plugin.clone(),
        };
        let config = config(minified, patience.connect, env).await?;
        let client = connection::client(config, patience.answer)
            .await
            .map_err(|error| fault::of_connecting(&peer, &error))?;
        Ok(Self { client, peer })
    }
}

async fn config(
    minified: &Minified,
    connect: Duration,
    env: &Env,
) -> Result<kube::Config, StageError> {
    let unusable = |error: &dyn std::error::Error| {
        malformed(
            format!("context {:?}", minified.context),
            fault::in_one_line(error),
        )
    };
    let mut kubeconfig: Kubeconfig =
        serde_json::from_value(minified.document.clone()).map_err(|error| unusable(&error))?;
    // Without a terminal a plugin has nobody to ask, and our streams are no business of its.
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        let users = kubeconfig
            .auth_infos
            .iter_mut()
            .filter_map(|user| user.auth_info.as_mut());
        for exec in users.filter_map(|user| user.exec.as_mut()) {
            exec.interactive_mode = Some(ExecInteractiveMode::Never);
        }
    }
    let own_proxy = kubeconfig.clusters.iter().any(|named| {
        named
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.proxy_url.as_ref())
            .is_some_and(|url| !url.is_empty())
    });
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| unusable(&error))?;
    if !own_proxy {
        config.proxy_url = crate::proxy::of_environment(&config.cluster_url, env);
    }
    config.connect_timeout = Some(connect);
    Ok(config)
}
