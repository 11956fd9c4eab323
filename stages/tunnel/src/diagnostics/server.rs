//! `check --server`: what an ssh server grants to tunnels, for its admin: what it does, not what its files say.

use std::time::{Duration, Instant};

use protocol::{Check, Context, StageError};
use tokio::time::timeout;

use super::bind_policy::{BindPolicy, bind_policy};
use super::ports::{PortState, PortSurvey, survey_ports};
use super::{CheckTitle, Diagnostics, FORWARDING, Login, sshd_config};
use crate::Tunnel;
use crate::claim::claim_any;
use crate::config::{Config, Verify};
use crate::errors;
use crate::forward::ForwardSpec;
use crate::ssh::SshSession;

const BIND: CheckTitle = ("gateway_ports", "it listens on public addresses");
const PORTS: CheckTitle = ("ports", "ports of the range are free and open");
const LATENCY: CheckTitle = ("latency", "it answers requests");
const COMMANDS: CheckTitle = (
    "commands",
    "the account can end an earlier session of its own",
);
const KEEPALIVE: CheckTitle = ("keepalive", "it notices lost clients");
const SSHD_CONFIG: CheckTitle = ("sshd_config", "recommended sshd_config");

const REST: [CheckTitle; 6] = [FORWARDING, BIND, PORTS, LATENCY, COMMANDS, KEEPALIVE];

/// How long to stay silent to see whether the server sends a keepalive. OpenSSH 9.2 to 9.4 send it after twice their
/// ClientAliveInterval; one of 5 s is still seen.
const SILENCE: Duration = Duration::from_secs(12);
/// Our own keepalives would keep the server from sending any.
const NO_KEEPALIVES: u32 = 3600;
/// A shell that takes longer does not run our commands.
const GREETING: Duration = Duration::from_secs(10);
const REQUESTS: usize = 9;

pub(crate) async fn server(cx: &Context<Tunnel>, config: Config) {
    let mut diagnostics = Diagnostics::new(cx, config);
    let mut forwards = false;
    if let Some(login) = diagnostics.reach_login(&REST).await {
        (forwards, ()) = tokio::join!(
            diagnostics.report_grants(login),
            diagnostics.report_keepalive()
        );
    }
    if let Some(resolved) = &diagnostics.resolved {
        let range = diagnostics.config.remote_port_range;
        let block = sshd_config::block(&resolved.user, range, forwards);
        let message = format!(
            "add these lines at the end of sshd_config, then run `sshd -t && systemctl reload ssh`\n{block}"
        );
        cx.report_result(SSHD_CONFIG, Ok(message));
    }
}

impl Diagnostics<'_> {
    /// Returns whether the server forwards ports.
    async fn report_grants(&self, mut login: Login) -> bool {
        let forwards = self
            .report_port_checks(&login.spec, &mut login.session, login.took)
            .await;
        self.report_commands(&login.session).await;
        login.session.close().await;
        forwards
    }

    /// Runs the checks that need a free port. Returns whether the server forwards ports.
    async fn report_port_checks(
        &self,
        spec: &ForwardSpec,
        session: &mut SshSession,
        login_took: Duration,
    ) -> bool {
        // The first port that the server grants is enough.
        let unproven = ForwardSpec {
            verify: Verify::Off,
            ..spec.clone()
        };
        let claimed = claim_any(&unproven, session).await;
        let Some(claimed) = self.forwards(claimed, &[BIND, PORTS, LATENCY]) else {
            return false;
        };
        match claimed {
            Ok(claimed) => {
                session.stop_listening(claimed.port).await;
                let mut policy = bind_policy(session, spec, claimed.port).await;
                let ports = self.survey(policy != BindPolicy::Off, spec, session).await;
                // If only visitors can tell, a firewall may block this very port.
                if let (BindPolicy::Unknown, Some(open)) = (policy, ports.first_open()) {
                    policy = bind_policy(session, spec, open).await;
                }
                self.report_bind(policy, session, spec);
                self.report_ports(&ports, spec, None);
                self.report_latency(spec, session, claimed.port, login_took)
                    .await;
            }
            Err(error) => {
                self.cx.skip(&[BIND], "needs a free port");
                let ports = self.survey(false, spec, session).await;
                self.report_ports(&ports, spec, Some(error));
                self.cx.skip(&[LATENCY], "needs a free port");
            }
        }
        true
    }

    fn report_bind(&self, policy: BindPolicy, session: &SshSession, spec: &ForwardSpec) {
        let (id, title) = BIND;
        let check = match policy {
            BindPolicy::Off if session.wants_all_addresses() => {
                Check::failed(id, title, &errors::loopback_only(session, &spec.public_host))
            }
            BindPolicy::Off => {
                let address = &session.bind_address;
                Check::ok(id, title, format!("GatewayPorts no: it listens on loopback alone; bind_address requests {address}"))
            }
            BindPolicy::AsAsked => Check::ok(id, title, "GatewayPorts clientspecified: it listens on the requested address"),
            BindPolicy::Always => Check::ok(id, title, "GatewayPorts yes: it listens on all addresses, whatever bind_address requests").hint(
                "with `clientspecified` it refuses a port that another program has on IPv4; with `yes` it grants the port on IPv6 alone",
            ),
            BindPolicy::NotOff => Check::ok(id, title, "GatewayPorts is yes or clientspecified"),
            BindPolicy::NotOnAll => Check::skipped(id, title, "this account may not listen on all addresses (PermitListen)"),
            BindPolicy::Unknown => Check::skipped(
                id,
                title,
                "not visible: the account cannot see the server's sockets, and a connection from here does not arrive",
            ),
        };
        self.cx.report(check);
    }

    async fn survey(
        &self,
        from_outside: bool,
        spec: &ForwardSpec,
        session: &SshSession,
    ) -> PortSurvey {
        let counted = |done: usize, total: usize| {
            let message = format!("checking the ports {}", spec.range);
            self.cx
                .progress_count("ports", message, done as u64, total as u64);
        };
        survey_ports(session, spec, from_outside && spec.is_verified(), counted).await
    }

    fn report_ports(&self, found: &PortSurvey, spec: &ForwardSpec, claim: Option<StageError>) {
        let (id, title) = PORTS;
        let described = found.describe();
        let check = match claim.or_else(|| found.error(spec)) {
            Some(error) => Check::failed(id, title, &error.cause(described)),
            None => Check::ok(id, title, described),
        };
        self.cx.report(match found.hint(spec) {
            Some(hint) if check.hint.is_none() => check.hint(hint),
            _ => check,
        });
    }

    async fn report_latency(
        &self,
        spec: &ForwardSpec,
        session: &SshSession,
        port: u16,
        login_took: Duration,
    ) {
        let login = format!("the login took {:.0?}", login_took);
        let Some(took) = round_trip(session, spec, port).await else {
            let why = format!("port {port} is in use by now; {login}");
            return self.cx.skip(&[LATENCY], &why);
        };
        let found = format!("{took:.2?}, the median of {REQUESTS} requests; {login}");
        self.cx.report_result(LATENCY, Ok(found));
    }

    async fn report_commands(&self, session: &SshSession) {
        let greeting = timeout(GREETING, session.greeting()).await;
        if greeting.is_ok_and(|greeting| greeting.session.is_some()) {
            let found = "the account runs commands, and finds the process that serves it";
            return self.cx.report_result(COMMANDS, Ok(found.into()));
        }
        let why = "this account cannot run commands: after a lost connection the port stays in use until the server notices the loss";
        self.cx.skip(&[COMMANDS], why);
    }

    /// Sends nothing until the server sends a keepalive.
    async fn report_keepalive(&self) {
        let message = format!(
            "waiting up to {} s for a keepalive from the server",
            SILENCE.as_secs()
        );
        self.cx.progress("keepalive", message);
        let config = Config {
            keepalive_interval: Some(NO_KEEPALIVES),
            ..self.config.clone()
        };
        let (id, title) = KEEPALIVE;
        let session = match self.log_in(&config, "silent").await {
            Ok(login) => login.session,
            Err(error) => {
                let why = format!("a second login failed: {}", error.message);
                return self.cx.report(Check::skipped(id, title, why));
            }
        };
        drop(timeout(GREETING, session.greeting()).await);
        let since = Instant::now();
        let mut log = session.log.clone();
        drop(
            timeout(
                SILENCE,
                log.wait_for(|log| log.keepalive_requested || log.ended),
            )
            .await,
        );
        let took = since.elapsed().as_secs_f64();
        let keepalive_requested = log.borrow().keepalive_requested;
        session.close().await;
        self.cx.report(match keepalive_requested {
            true => Check::ok(id, title, format!("it sent a keepalive after {took:.0} s of silence")),
            false => Check::skipped(id, title, format!("it did not send a keepalive within {took:.0} s")).hint(
                "with `ClientAliveInterval 5` and `ClientAliveCountMax 2` the server notices a lost client within half \
          a minute; without them the client's port stays in use for up to two hours",
            ),
        });
    }
}

impl PortSurvey {
    /// Why a tunnel would get no reachable port although the server grants one.
    fn error(&self, spec: &ForwardSpec) -> Option<StageError> {
        let closed =
            !self.has(PortState::Free) && self.some_are_closed() && !spec.may_be_unreachable();
        closed.then(|| errors::all_closed(spec))
    }

    fn hint(&self, spec: &ForwardSpec) -> Option<String> {
        let range = spec.range;
        if !self.was_visited {
            return Some(format!("not checked whether a firewall blocks {range}"));
        }
        if self.some_are_closed() && spec.may_be_unreachable() {
            return Some(
                "this machine may not reach public_host: only a pod can test which ports are open"
                    .into(),
            );
        }
        if self.some_are_closed() {
            return Some(format!(
                "open ports {range} in the server's firewall, or narrow remote_port_range"
            ));
        }
        self.has(PortState::NotPermitted)
            .then(|| "narrow remote_port_range to the ports that PermitListen allows".to_owned())
    }
}

/// Time of a request to listen: one round trip.
async fn round_trip(session: &SshSession, spec: &ForwardSpec, port: u16) -> Option<Duration> {
    let mut took = Vec::new();
    for _ in 0..REQUESTS {
        let asked = Instant::now();
        session.listen(port, &spec.local_end()).await.ok()?;
        took.push(asked.elapsed());
        session.stop_listening(port).await;
    }
    took.sort_unstable();
    took.get(took.len() / 2).copied()
}
