//! The tunnel: pods reach the laptop's master through an ssh server.
//!
//! [`life`] is the whole story; [`claim`] gets a port, [`arrival`] proves that it leads here, [`diagnosis`] says
//! why not, [`ssh`] is the process that holds it.

mod arrival;
mod backoff;
mod check;
mod claim;
mod config;
mod diagnosis;
mod ghosts;
mod life;
mod network;
mod port_range;
mod preflight;
mod ssh;

use protocol::ledger::Entry;
use protocol::{Context, Problem, Stage, StageError, Undone};

pub use config::{Config, HostKeyPolicy, Outputs, PortPolicy, Scheme, Seconds, Verified, Verify};
pub use port_range::PortRange;

/// The stage.
#[derive(Debug)]
pub struct Tunnel;

impl Stage for Tunnel {
    const KIND: &'static str = "tunnel";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Makes a port of a public ssh server lead to the master on this machine, so that pods can \
        reach it. The port is one that the server itself finds free; before `ready`, a connection from outside proves that it \
        leads into this very session. A lost connection is made again, on the same port.";
    const EXAMPLES: &'static str = "Examples:
  devcluster-tunnel --reverse-proxy-host proxy.example.com --ssh-user ubuntu --remote-port-range 8000-9000
  devcluster-tunnel -c tunnel.yaml --local-port 8080 --host-key-policy accept-new";

    type Config = Config;
    type Outputs = Outputs;

    fn validate(config: &Config) -> Vec<Problem> {
        config.problems()
    }

    fn summary(outputs: &Outputs) -> String {
        let scheme = match outputs.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let proof = match outputs.verified {
            Verified::Origin | Verified::Nonce => "arrival proven",
            Verified::Tcp => "it takes connections",
            Verified::Unverified => "arrival not proven",
        };
        format!(
            "{scheme}://{}:{} leads to local port {} ({proof})",
            outputs.host, outputs.port, outputs.local_port
        )
    }

    async fn run(cx: &Context<Self>, config: Config) -> Result<(), StageError> {
        life::run(cx, &config).await
    }

    async fn check(
        _cx: &Context<Self>,
        _config: Option<Config>,
        outputs: Outputs,
    ) -> Result<(), StageError> {
        check::check(&outputs).await
    }

    async fn preflight(cx: &Context<Self>, config: Config) {
        preflight::preflight(cx, config).await;
    }

    async fn undo(_cx: &Context<Self>, entry: &Entry) -> Result<Undone, StageError> {
        ssh::undo(entry).await
    }
}
