//! The tunnel: pods reach the laptop's master through an ssh server.
//!
//! [`supervisor`] runs everything: [`forward`] says what leads where, [`claim`] gets a port, [`arrival`] proves that it
//! leads here, [`errors`] explains failures, [`ssh`] is the process that holds the ports.

mod arrival;
mod backoff;
mod check;
mod claim;
mod codes;
mod config;
mod diagnostics;
mod errors;
mod forward;
mod ghosts;
mod guard;
mod memory;
mod network;
mod outputs;
mod ssh;
mod supervisor;

use protocol::ledger::Entry;
use protocol::provides::{MASTER_ADDRESS, Provides};
use protocol::validate::{Audience, Exposure, Unknown, pointer_from_path};
use protocol::yaml::Seg;
use protocol::{Codes, Context, Leftover, Problem, Stage, StageError};

use serde_json::{Map, Value, json};

pub use config::{
    Config, ForwardConfig, GuardPolicy, HostKeyPolicy, PortPolicy, Scheme, Seconds, Verify,
};
pub use outputs::{Forwarded, Outputs, Verified};

/// The stage.
#[derive(Clone, Debug)]
pub struct Tunnel;

impl Stage for Tunnel {
    const KIND: &'static str = "tunnel";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CODES: &'static [Codes] = &[codes::ALL];
    const ABOUT: &'static str = "Forwards a port of a public ssh server to the master on this machine, so that pods can reach it. The \
          server itself chooses a free port of the range; before `ready`, a connection from outside proves that the port leads \
          here. After a lost connection the tunnel reconnects on the same port.";
    const EXAMPLES: &'static str = "Examples:
  devcluster-tunnel --reverse-proxy-host proxy.example.com --ssh-user ubuntu --remote-port-range 8000-9000
  devcluster-tunnel -c tunnel.yaml --local-port 8080 --host-key-policy accept-new";

    type Config = Config;
    type Outputs = Outputs;

    fn validate(config: &Config) -> Vec<Problem> {
        config.problems()
    }

    fn provides() -> Provides {
        let address = json!({"host": "/host", "port": "/port"});
        Provides::from_iter([(MASTER_ADDRESS.to_owned(), address)])
    }

    fn exposes(config: Option<&Config>, unknown: &Unknown) -> Vec<Exposure> {
        let address = config.filter(|_| !unknown.has("bind_address"));
        let to = address.map_or(Audience::Internet, Config::audience);
        let exposed = |port: String, at: &[Seg], leads: Option<(u16, Option<GuardPolicy>)>| {
            let field = |name: &str| [at, &[name.into()]].concat();
            let is_known = |name: &str| !unknown.touches(&field(name));
            let guard = leads.filter(|_| is_known("guard")).map(|(_, guard)| guard);
            Exposure {
                port,
                to,
                local_port: leads
                    .map(|(port, _)| port)
                    .filter(|_| is_known("local_port")),
                guard: matches!(guard, Some(Some(GuardPolicy::Determined)))
                    .then(|| GuardPolicy::DETERMINED.to_owned()),
                guard_field: matches!(guard, Some(None))
                    .then(|| pointer_from_path(&field("guard"))),
            }
        };
        let own = config.map(|config| (config.local_port, config.guard));
        let mut all = vec![exposed("/port".to_owned(), &[], own)];
        for (i, forward) in config.iter().flat_map(|c| &c.forwards).enumerate() {
            let port = format!("/forwards/{}/port", forward.name());
            let leads = Some((forward.local_port, forward.guard));
            all.push(exposed(port, &["forwards".into(), i.into()], leads));
        }
        all
    }

    fn outline(fields: &Map<String, Value>) -> String {
        let text = |name: &str| match &fields.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(ends)) => {
                let ends: Vec<String> = ends.iter().map(Value::to_string).collect();
                ends.join("-")
            }
            other => other.map(Value::to_string).unwrap_or_default(),
        };
        format!(
            "forwards one of the ports {} of {} to local port {}, for pods",
            text("remote_port_range"),
            text("reverse_proxy_host"),
            text("local_port"),
        )
    }

    fn summary(outputs: &Outputs) -> String {
        let scheme = match outputs.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let proof = match outputs.verified {
            Verified::Origin | Verified::Nonce => "arrival proven",
            Verified::Tcp => "accepts connections",
            Verified::Unverified => "arrival not proven",
        };
        let host = match outputs.host.contains(':') {
            true => format!("[{}]", outputs.host),
            false => outputs.host.clone(),
        };
        let main = format!(
            "{scheme}://{host}:{} leads to local port {} ({proof})",
            outputs.port, outputs.local_port
        );
        outputs.forwards.values().fold(main, |text, more| {
            format!("{text}, port {} to {}", more.port, more.local_port)
        })
    }

    async fn run(cx: &Context<Self>, config: Config) -> Result<(), StageError> {
        supervisor::run(cx, &config).await
    }

    async fn check(
        cx: &Context<Self>,
        _config: Option<Config>,
        outputs: Outputs,
    ) -> Result<(), StageError> {
        check::check(cx, &outputs).await
    }

    async fn examine(cx: &Context<Self>) {
        guard::settle(cx).await;
    }

    async fn preflight(cx: &Context<Self>, config: Config) {
        diagnostics::preflight(cx, config).await;
    }

    const DIAGNOSTICS: &'static [(&'static str, &'static str)] = &[(
        "server",
        "For the ssh server's admin: report what the server grants to tunnels, which ports of the range are free and open, \
          whether it notices lost clients, and the recommended sshd_config. Takes up to 15 s and releases everything",
    )];

    async fn diagnose(cx: &Context<Self>, config: Config, _name: &str) {
        diagnostics::server(cx, config).await;
    }

    fn is_resumable(entry: &Entry) -> bool {
        entry.what == memory::LEDGER_ENTRY
    }

    async fn leftovers<'a>(
        cx: &'a Context<Self>,
        entry: &'a Entry,
    ) -> Result<Vec<Leftover<'a>>, StageError> {
        let left = match entry.what.as_str() {
            guard::LEDGER_ENTRY => guard::leftover(&entry.data),
            memory::LEDGER_ENTRY => memory::leftover(cx),
            _ => ssh::leftover(entry),
        };
        Ok(left.into_iter().collect())
    }
}
