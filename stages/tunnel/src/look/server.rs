//! `check --server`: what an ssh server gives to tunnels, for whoever runs it. What it is seen to do, not what its files say.

use std::time::{Duration, Instant};

use protocol::{Check, Context, StageError};
use tokio::time::timeout;

use super::bind_policy::{BindPolicy, bind_policy};
use super::ports::{Port, Ports, ports};
use super::{FORWARDING, Inside, Look, What, sshd_config};
use crate::Tunnel;
use crate::choices::Verify;
use crate::claim::claim_any;
use crate::config::Config;
use crate::diagnosis;
use crate::forward::ForwardSpec;
use crate::ssh::Session;

const BIND: What = ("gateway_ports", "it listens for others than itself");
const PORTS: What = ("ports", "ports of the range can be had");
const LATENCY: What = ("latency", "it answers requests");
const COMMANDS: What = ("commands", "an earlier session of ours can be ended");
const KEEPALIVE: What = ("keepalive", "it misses clients that went away");
const SSHD_CONFIG: What = ("sshd_config", "what its sshd_config should say");

const REST: [What; 6] = [FORWARDING, BIND, PORTS, LATENCY, COMMANDS, KEEPALIVE];

/// So long a silence is kept, to hear whether the server asks for a sign of life. OpenSSH 9.2 to 9.4 ask after twice their
/// ClientAliveInterval; one of 5 s is still heard.
const SILENCE: Duration = Duration::from_secs(12);
/// Our own keepalives would keep the server from asking.
const NO_KEEPALIVES: u32 = 3600;
/// A shell that takes longer is one whose commands tell nothing.
const GREETING: Duration = Duration::from_secs(10);
const REQUESTS: usize = 9;

pub(crate) async fn server(cx: &Context<Tunnel>, config: Config) {
    let mut look = Look::new(cx, config);
    if let Some(inside) = look.enter(&REST).await {
        tokio::join!(look.grants(inside), look.silence());
    }
    if let Some(resolved) = &look.resolved {
        let block = sshd_config::block(&resolved.user, look.config.remote_port_range);
        let message =
            format!("the lines below at its end, then `sshd -t && systemctl reload ssh`\n{block}");
        cx.tell(SSHD_CONFIG, Ok(message));
    }
}

impl Look<'_> {
    async fn grants(&self, mut inside: Inside) {
        self.with_a_port(&inside.spec, &mut inside.session, inside.took)
            .await;
        self.commands(&inside.session).await;
        inside.session.close().await;
    }

    /// Looks at what takes a port that is free.
    async fn with_a_port(&self, spec: &ForwardSpec, session: &mut Session, login_took: Duration) {
        // A port is taken as the server grants it.
        let unproven = ForwardSpec {
            verify: Verify::Off,
            ..spec.clone()
        };
        let claimed = claim_any(&unproven, session).await;
        let Some(claimed) = self.forwards(claimed, &[BIND, PORTS, LATENCY]) else {
            return;
        };
        match claimed {
            Ok(claimed) => {
                session.give_back(claimed.port).await;
                let mut policy = bind_policy(session, spec, claimed.port).await;
                let ports = self.visited(policy != BindPolicy::Off, spec, session).await;
                // Where only visitors tell, this very port may be closed on the way.
                if let (BindPolicy::Unknown, Some(open)) = (policy, ports.first_open()) {
                    policy = bind_policy(session, spec, open).await;
                }
                self.bind(policy, session, spec);
                self.ports(&ports, spec, None);
                self.latency(spec, session, claimed.port, login_took).await;
            }
            Err(error) => {
                self.cx.skip(&[BIND], "needs a free port");
                let ports = self.visited(false, spec, session).await;
                self.ports(&ports, spec, Some(error));
                self.cx.skip(&[LATENCY], "needs a free port");
            }
        }
    }

    fn bind(&self, policy: BindPolicy, session: &Session, spec: &ForwardSpec) {
        let (id, title) = BIND;
        let check = match policy {
            BindPolicy::Off if session.wants_all_addresses() => {
                Check::failed(id, title, &diagnosis::loopback_only(session, &spec.public_host))
            }
            BindPolicy::Off => {
                let address = &session.bind_address;
                Check::ok(id, title, format!("GatewayPorts no: loopback alone, and {address} is what bind_address asks for"))
            }
            BindPolicy::AsAsked => Check::ok(id, title, "GatewayPorts clientspecified: on the address that is asked for"),
            BindPolicy::Always => Check::ok(id, title, "GatewayPorts yes: on all addresses, whatever bind_address asks").hint(
                "with `clientspecified` it also refuses a port that somebody has on IPv4; with `yes` it grants that on IPv6 alone",
            ),
            BindPolicy::NotOff => Check::ok(id, title, "GatewayPorts is yes or clientspecified"),
            BindPolicy::NotOnAll => Check::skipped(id, title, "this account may not listen on all addresses (PermitListen)"),
            BindPolicy::Unknown => Check::skipped(
                id,
                title,
                "it cannot be seen: the server does not show its sockets to this account, and no visitor from here came through",
            ),
        };
        self.cx.report(check);
    }

    async fn visited(&self, from_outside: bool, spec: &ForwardSpec, session: &Session) -> Ports {
        let counted = |done: usize, total: usize| {
            let message = format!("looking at the ports of {}", spec.range);
            self.cx
                .progress_count("ports", message, done as u64, total as u64);
        };
        ports(session, spec, from_outside && spec.is_verified(), counted).await
    }

    fn ports(&self, found: &Ports, spec: &ForwardSpec, claim: Option<StageError>) {
        let (id, title) = PORTS;
        let told = found.describe();
        let check = match claim.or_else(|| found.error(spec)) {
            Some(error) => Check::failed(id, title, &error.cause(told)),
            None => Check::ok(id, title, told),
        };
        self.cx.report(match found.note(spec) {
            Some(note) if check.hint.is_none() => check.hint(note),
            _ => check,
        });
    }

    async fn latency(
        &self,
        spec: &ForwardSpec,
        session: &Session,
        port: u16,
        login_took: Duration,
    ) {
        let login = format!("the login took {:.0?}", login_took);
        let Some(took) = round_trip(session, spec, port).await else {
            let why = format!("somebody else has port {port} by now; {login}");
            return self.cx.skip(&[LATENCY], &why);
        };
        let found = format!("within {took:.2?}, the median of {REQUESTS} requests; {login}");
        self.cx.tell(LATENCY, Ok(found));
    }

    async fn commands(&self, session: &Session) {
        let greeting = timeout(GREETING, session.greeting()).await;
        if greeting.is_ok_and(|told| told.session.is_some()) {
            let found = "commands run, and tell which process serves us";
            return self.cx.tell(COMMANDS, Ok(found.into()));
        }
        let why = "this account runs no commands: after a lost connection its port is had again once the server misses the old one";
        self.cx.skip(&[COMMANDS], why);
    }

    /// Says nothing until the server asks whether anybody is there.
    async fn silence(&self) {
        let message = format!(
            "keeping silent for up to {} s, to hear whether the server asks",
            SILENCE.as_secs()
        );
        self.cx.progress("keepalive", message);
        let config = Config {
            keepalive_interval: Some(NO_KEEPALIVES),
            ..self.config.clone()
        };
        let (id, title) = KEEPALIVE;
        let session = match self.log_in(&config, "silent").await {
            Ok(inside) => inside.session,
            Err(error) => {
                let why = format!("a second login failed: {}", error.message);
                return self.cx.report(Check::skipped(id, title, why));
            }
        };
        drop(timeout(GREETING, session.greeting()).await);
        let since = Instant::now();
        let mut log = session.log.clone();
        drop(timeout(SILENCE, log.wait_for(|log| log.was_asked || log.ended)).await);
        let took = since.elapsed().as_secs_f64();
        let was_asked = log.borrow().was_asked;
        session.close().await;
        self.cx.report(match was_asked {
            true => Check::ok(id, title, format!("asked after {took:.0} s of silence")),
            false => Check::skipped(id, title, format!("it did not ask within {took:.0} s of silence")).hint(
                "with `ClientAliveInterval 5` and `ClientAliveCountMax 2` a laptop that went away is missed within half a \
                 minute; without, its port stays taken for up to two hours",
            ),
        });
    }
}

impl Ports {
    /// Why a tunnel would not get a port that pods reach, although the server grants one.
    fn error(&self, spec: &ForwardSpec) -> Option<StageError> {
        let closed = !self.has(Port::Free) && self.some_are_closed() && !spec.may_be_out_of_reach();
        closed.then(|| diagnosis::all_closed(spec))
    }

    fn note(&self, spec: &ForwardSpec) -> Option<String> {
        let range = spec.range;
        if !self.was_visited {
            return Some(format!(
                "whether a firewall lets visitors to {range} through was not looked at"
            ));
        }
        if self.some_are_closed() && spec.may_be_out_of_reach() {
            return Some("this machine need not get to public_host: only a pod can tell which ports are open".into());
        }
        if self.some_are_closed() {
            return Some(format!(
                "open ports {range} in the server's firewall, or narrow remote_port_range"
            ));
        }
        self.has(Port::NotPermitted)
            .then(|| "narrow remote_port_range to the ports that PermitListen allows".to_owned())
    }
}

/// A request to listen is answered after one round trip.
async fn round_trip(session: &Session, spec: &ForwardSpec, port: u16) -> Option<Duration> {
    let mut took = Vec::new();
    for _ in 0..REQUESTS {
        let asked = Instant::now();
        session.listen(port, spec.local_port).await.ok()?;
        took.push(asked.elapsed());
        session.give_back(port).await;
    }
    took.sort_unstable();
    took.get(took.len() / 2).copied()
}
