//! Every ssh of a user: ssh_config, agents, certificates, proxies, and their errors.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use support::netns;
use support::tunnel::{Setup, failure};
use support::{Home, Options, StageClient, leaks};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

async fn keygen(args: &[&str], file: &Path) {
    let mut command = Command::new("ssh-keygen");
    let status = command.arg("-q").args(args).arg(file).status().await;
    assert!(status.expect("no ssh-keygen").success(), "{args:?}");
}

async fn make_key(path: PathBuf, passphrase: &str) -> PathBuf {
    keygen(&["-t", "ed25519", "-N", passphrase, "-f"], &path).await;
    path
}

/// A tunnel without ssh options but a host, `proxy`, of an ssh_config that ends with these lines.
fn by_ssh_config(setup: &Setup, name: &str, lines: &str) -> Command {
    let (port, user) = (setup.sshd.port(), setup.sshd.user());
    let known_hosts = setup.sshd.known_hosts();
    let text = format!(
        "Host proxy jump\n HostName 127.0.0.1\n Port {port}\n User {user}\nHost *\n UserKnownHostsFile {}\n{lines}\n",
        known_hosts.display()
    );
    let path = setup.home.path().join(name);
    std::fs::write(&path, text).expect("cannot write");
    let mut command = setup.verb("run");
    command.arg("--reverse-proxy-host=proxy");
    command.arg("--ssh-config-path").arg(path);
    let range = format!("{}-{}", setup.ports.start(), setup.ports.end());
    command.args(["--remote-port-range", &range, "--connect-timeout=5"]);
    command.args(["--local-port", &setup.local_port.to_string()]);
    command
}

fn with_key(setup: &Setup, more: &str) -> String {
    let key = setup.sshd.key();
    format!(" IdentityFile {}\n{more}", key.display())
}

#[tokio::test]
async fn a_jump_host_and_a_proxy_command_work_and_end_with_the_tunnel() {
    let setup = Setup::new(Options::default()).await;
    let config = setup.home.path().join("command").display().to_string();
    for (name, line) in [
        ("jump", "Host proxy\n ProxyJump jump".to_owned()),
        (
            "command",
            format!("Host proxy\n ProxyCommand ssh -F {config} -W %h:%p jump"),
        ),
    ] {
        let mut tunnel = StageClient::start(by_ssh_config(&setup, name, &with_key(&setup, &line)));
        let outputs = tunnel.wait_for("outputs").await["outputs"].take();
        assert_eq!(outputs["verified"], "origin", "{name}: {outputs}");
        tunnel.wait_for("ready").await;
        setup.sshd.drop_sessions().unwrap();
        tunnel.wait_for("degraded").await;
        tunnel.wait_for("ready").await;
        let signal = match name {
            "jump" => Signal::TERM,
            _ => Signal::KILL,
        };
        tunnel.signal(signal);
        tunnel.wait().await;
        leaks::gone("what it started", || leaks::processes(&setup.home.mark())).await;
    }
}

#[tokio::test]
async fn a_failed_proxy_is_not_reported_as_the_server() {
    let setup = Setup::new(Options::default()).await;
    let locked = make_key(setup.home.path().join("locked"), "secret").await;
    let closed = setup.ports.start();
    for (name, lines, expected) in [
        (
            "no_command",
            "Host proxy\n ProxyCommand no-such-program",
            "no-such-program",
        ),
        (
            "closed",
            &format!("Host proxy\n ProxyJump 127.0.0.1:{closed}"),
            "Connection refused",
        ),
        (
            "locked",
            &format!(
                "Host jump\n IdentitiesOnly yes\n IdentityFile {}\nHost proxy\n ProxyJump jump",
                locked.display()
            ),
            "Permission denied",
        ),
    ] {
        let own = with_key(&setup, "");
        // Otherwise the key of `Host *` would also be used for the jump host.
        let lines = format!("{lines}\nHost proxy\n{own}");
        let command = by_ssh_config(&setup, name, &lines);
        let error = failure(&setup, command, "tunnel.proxy_failed", 75).await;
        assert!(error["caused_by"].to_string().contains(expected), "{error}");
    }
}

/// An agent with this key, which ends with the value.
struct Agent {
    socket: PathBuf,
    _process: Child,
}

async fn agent(home: &Home, key: &Path, confirm: bool) -> Agent {
    let socket = home.path().join("agent");
    let mut command = home.command("ssh-agent".as_ref());
    command.arg("-D").arg("-a").arg(&socket);
    // The agent runs this for every signature that needs a confirmation.
    command
        .env("SSH_ASKPASS", "/bin/false")
        .env("DISPLAY", ":0");
    command.stdout(Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn().expect("no ssh-agent");
    let mut stdout = BufReader::new(process.stdout.take().expect("no stdout"));
    let mut line = String::new();
    stdout.read_line(&mut line).await.expect("it says nothing");
    let mut add = home.command("ssh-add".as_ref());
    add.env("SSH_AUTH_SOCK", &socket).arg("-q");
    if confirm {
        add.arg("-c");
    }
    let output = add.arg(key).output().await.expect("no ssh-add");
    assert!(output.status.success(), "{output:?}");
    Agent {
        socket,
        _process: process,
    }
}

#[tokio::test]
async fn an_agent_with_the_key_is_enough_and_its_refusal_is_reported() {
    let setup = Setup::new(Options::default()).await;
    let holder = agent(&setup.home, &setup.sshd.key(), false).await;
    let mut command = by_ssh_config(&setup, "agent_holds", "");
    command.env("SSH_AUTH_SOCK", &holder.socket);
    let mut tunnel = StageClient::start(command);
    tunnel.wait_for("ready").await;
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;
    drop(holder);

    std::fs::remove_file(setup.home.path().join("agent")).unwrap();
    let refuser = agent(&setup.home, &setup.sshd.key(), true).await;
    let mut command = by_ssh_config(&setup, "agent_refuses", "");
    command.env("SSH_AUTH_SOCK", &refuser.socket);
    let mut tunnel = StageClient::start(command);
    let error = tunnel.wait_for("error").await["error"].take();
    assert_eq!(error["code"], "tunnel.agent_refused", "{error}");
    assert!(error["hint"].as_str().unwrap().contains("ssh-add"));
    tunnel.wait().await;
}

#[tokio::test]
async fn user_and_host_certificates_work_and_a_rejected_one_is_reported() {
    let keys = tempfile::tempdir().unwrap();
    let ca = make_key(keys.path().join("ca"), "").await;
    let mine = make_key(keys.path().join("mine"), "").await;
    let ca_public = ca.with_extension("pub");
    let setup = Setup::new(Options {
        extra: vec![format!("TrustedUserCAKeys {}", ca_public.display())],
        ..Options::default()
    })
    .await;
    let sign = async |validity: &[&str], principal: &str| {
        let (ca, user) = (ca.to_str().unwrap(), ["-I", "me", "-n", principal]);
        let args = [&["-s", ca], &user[..], validity].concat();
        keygen(&args, &mine.with_extension("pub")).await;
    };
    let lines = format!(" IdentitiesOnly yes\n IdentityFile {}", mine.display());
    let user = setup.sshd.user().to_owned();

    sign(&[], &user).await;
    let mut tunnel = StageClient::start(by_ssh_config(&setup, "certificate", &lines));
    tunnel.wait_for("ready").await;
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;

    sign(&["-V", "20200101:20200102"], &user).await;
    let command = by_ssh_config(&setup, "expired", &lines);
    let error = failure(&setup, command, "tunnel.certificate_refused", 1).await;
    assert!(error["hint"].as_str().unwrap().contains("ssh-keygen -L"));
    sign(&[], "another-user").await;
    let command = by_ssh_config(&setup, "principal", &lines);
    failure(&setup, command, "tunnel.certificate_refused", 1).await;
}

#[tokio::test]
async fn a_host_certificate_is_trusted_by_its_authority() {
    let keys = tempfile::tempdir().unwrap();
    let ca = make_key(keys.path().join("ca"), "").await;
    let host = make_key(keys.path().join("host"), "").await;
    let sign = [
        "-s",
        ca.to_str().unwrap(),
        "-I",
        "h",
        "-h",
        "-n",
        "127.0.0.1",
    ];
    keygen(&sign, &host.with_extension("pub")).await;
    let certificate = keys.path().join("host-cert.pub");
    let setup = Setup::new(Options {
        extra: vec![
            format!("HostKey {}", host.display()),
            format!("HostCertificate {}", certificate.display()),
        ],
        ..Options::default()
    })
    .await;
    let authority = std::fs::read_to_string(ca.with_extension("pub")).unwrap();
    let known_hosts = keys.path().join("known_hosts");
    let place = format!("[127.0.0.1]:{}", setup.sshd.port());
    std::fs::write(&known_hosts, format!("@cert-authority {place} {authority}")).unwrap();
    let known_hosts = known_hosts.to_str().unwrap();
    let mut tunnel = setup.start(&[("known-hosts-path", known_hosts)]);
    tunnel.wait_for("ready").await;
}

fn one_login_at_a_time() -> Options {
    Options {
        extra: vec!["MaxStartups 1:100:1".into()],
        ..Options::default()
    }
}

/// A client that connects and does not log in.
async fn visitor(setup: &Setup) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, setup.sshd.port())).await;
    let mut stream = BufReader::new(stream.expect("no sshd"));
    let mut banner = String::new();
    stream.read_line(&mut banner).await.expect("no banner");
    assert!(banner.starts_with("SSH-"), "{banner}");
    stream.into_inner()
}

fn is_busy(message: &Value) -> bool {
    message["step"] == "busy" || message["error"]["code"] == "tunnel.server_busy"
}

#[tokio::test]
async fn a_busy_server_is_waited_for_at_the_start_and_later() {
    let setup = Setup::new(one_login_at_a_time()).await;
    let other = visitor(&setup).await;
    let mut tunnel = setup.start(&[("reconnect-pause", "0.5")]);
    tunnel.wait_until("a busy server", is_busy).await;
    drop(other);
    tunnel.wait_for("ready").await;

    let other = visitor(&setup).await;
    rustix::process::kill_process(setup.ssh(), Signal::KILL).unwrap();
    tunnel.wait_until("a busy server", is_busy).await;
    drop(other);
    assert_eq!(tunnel.wait_for("ready").await["gen"], 1);
}

#[tokio::test]
async fn a_server_that_stays_busy_is_an_error() {
    let setup = Setup::new(one_login_at_a_time()).await;
    let _other = visitor(&setup).await;
    let error = failure(&setup, setup.command(&[]), "tunnel.server_busy", 75).await;
    assert!(error["hint"].as_str().unwrap().contains("MaxStartups"));
}

/// In a mount namespace of its own, with a full small file system at this place.
fn on_a_full_disk(command: &Command, place: &Path, options: &str, fill: &str) -> Command {
    let command = command.as_std();
    let mut inside = Command::new("unshare");
    let script = format!(
        "mount -t tmpfs -o mode=700,{options} tmpfs \"$0\" && cd \"$0\" && {{ {fill}; }} 2>/dev/null; exec \"$@\""
    );
    inside.args(["-m", "sh", "-c", &script]).arg(place);
    inside.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    inside
}

#[tokio::test]
async fn a_full_disk_is_reported_with_its_path() {
    if netns::are_missing() {
        return;
    }
    let setup = Setup::new(Options::default()).await;
    let (run_dir, state) = (setup.home.run_dir(), setup.home.path().join("state"));
    for (place, options, fill) in [
        (&run_dir, "size=64k", "head -c 200000 /dev/zero >full"),
        (&state, "size=64k", "head -c 200000 /dev/zero >full"),
        // Room for everything but ssh's control socket.
        (&run_dir, "size=1m,nr_inodes=5", "true"),
    ] {
        std::fs::create_dir_all(place).unwrap();
        let command = on_a_full_disk(&setup.command(&[]), place, options, fill);
        let error = failure(&setup, command, "protocol.disk_full", 1).await;
        assert!(
            error["caused_by"].to_string().contains("No space left"),
            "{error}"
        );
        assert!(error["hint"].as_str().unwrap().contains("XDG_STATE_HOME"));
    }
}
