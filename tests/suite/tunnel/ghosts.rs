//! Sessions that the server holds longer than the tunnel. The relay in front of it makes them.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rustix::process::Signal;
use support::relay::Relay;
use support::tunnel::{Setup, port_of};
use support::{DEADLINE, Options, StageClient, leaks};

/// A server, and the relay by which the tunnel reaches it. The forwarded ports are reached directly.
async fn behind_a_relay(extra: &[&str]) -> (Setup, Relay) {
    let setup = Setup::new(Options {
        extra: extra.iter().map(|line| (*line).to_owned()).collect(),
        ..Options::default()
    })
    .await;
    let relay = Relay::start(setup.sshd.port(), Duration::ZERO).await;
    (setup, relay)
}

fn start(setup: &Setup, relay: &Relay, more: &[(&str, &str)]) -> StageClient {
    let port = relay.port().to_string();
    let mut flags = vec![
        ("ssh-port", port.as_str()),
        ("host-key-policy", "off"),
        ("keepalive-interval", "1"),
        ("keepalive-count", "1"),
    ];
    flags.extend(more);
    setup.start(&flags)
}

#[tokio::test]
async fn a_ghost_is_ended_and_the_tunnel_gets_its_port_again() {
    let (setup, relay) = behind_a_relay(&[]).await;
    let mut tunnel = start(&setup, &relay, &[]);
    let port = port_of(&tunnel.wait_for("outputs").await);
    tunnel.wait_for("ready").await;
    relay.cut();
    let lost = tunnel.wait_for("degraded").await;
    assert_eq!(lost["error"]["code"], "tunnel.connection_lost", "{lost}");
    assert!(leaks::is_listening(port), "no ghost to be ended");
    let log = tunnel
        .wait_until("the end of the ghost", |m| m["type"] == "log")
        .await;
    let text = log["message"].as_str().unwrap_or_default();
    assert!(text.contains("still held our earlier session"), "{log}");
    assert_eq!(tunnel.wait_for("ready").await["gen"], 1, "the same outputs");

    tunnel.signal(Signal::TERM);
    tunnel.wait().await;
    leaks::gone("what it started", || setup.left()).await;
    let state = leaks::state(&setup.home);
    assert!(state.is_empty(), "the ledger is not settled: {state:?}");
}

#[tokio::test]
async fn the_ghost_of_a_killed_run_is_ended_by_the_next_one_and_by_cleanup() {
    let (setup, relay) = behind_a_relay(&[]).await;
    for next in ["run", "cleanup"] {
        let mut tunnel = start(&setup, &relay, &[]);
        let port = port_of(&tunnel.wait_for("outputs").await);
        tunnel.wait_for("ready").await;
        relay.cut();
        tunnel.signal(Signal::KILL);
        tunnel.wait().await;
        leaks::gone("its processes here", || {
            leaks::processes(&setup.home.mark())
        })
        .await;
        assert!(leaks::is_listening(port), "no ghost to be ended");
        if next == "run" {
            let mut tunnel = start(&setup, &relay, &[]);
            assert_eq!(port_of(&tunnel.wait_for("outputs").await), port);
            tunnel.wait_for("ready").await;
            tunnel.signal(Signal::TERM);
            tunnel.wait().await;
        } else {
            let mut look = setup.verb("cleanup");
            look.arg("--dry-run");
            let mut look = StageClient::start(look);
            assert!(look.wait().await.0.success(), "{}", look.stderr());
            let said = look.stderr();
            assert!(said.contains("would remove the session that "), "{said}");
            assert!(leaks::is_listening(port), "looking ended it");
            let mut cleanup = StageClient::start(setup.verb("cleanup"));
            assert!(cleanup.wait().await.0.success(), "{}", cleanup.stderr());
            let mut look = setup.verb("cleanup");
            look.arg("--dry-run");
            let mut look = StageClient::start(look);
            look.wait().await;
            let said = look.stderr();
            assert!(said.contains("nothing is left"), "{said}");
        }
        leaks::gone("a ghost", || setup.left()).await;
    }
}

#[tokio::test]
async fn a_cleanup_without_the_server_is_an_error_and_can_be_repeated() {
    let mut setup = Setup::new(Options::default()).await;
    let mut tunnel = setup.start(&[]);
    tunnel.wait_for("ready").await;
    tunnel.signal(Signal::KILL);
    tunnel.wait().await;
    setup.sshd.stop().await.expect("the server stays");
    let mut cleanup = StageClient::start(setup.verb("cleanup"));
    let error = cleanup.wait_for("error").await["error"].clone();
    assert_eq!(error["code"], "tunnel.ghost_unknown", "{error}");
    assert_eq!(cleanup.wait().await.0.code(), Some(75));
    setup.sshd.resume().await.expect("no server");
    let mut cleanup = StageClient::start(setup.verb("cleanup"));
    assert!(cleanup.wait().await.0.success(), "{}", cleanup.stderr());
}

#[tokio::test]
async fn the_session_of_another_client_is_never_ended() {
    let (setup, relay) = behind_a_relay(&[]).await;
    let mut other = setup.home.command("ssh".as_ref());
    other.args(["-F", "none", "-N", "-o", "StrictHostKeyChecking=no"]);
    other.args(["-o", "UserKnownHostsFile=/dev/null", "-p"]);
    other
        .arg(setup.sshd.port().to_string())
        .arg("-i")
        .arg(setup.sshd.key());
    other.arg(format!("{}@127.0.0.1", setup.sshd.user()));
    let socket = setup.home.path().join("other");
    other.arg("-MS").arg(&socket);
    let mut other = other.kill_on_drop(true).spawn().expect("no ssh");
    // Until the login the server has one more process, which ends by itself.
    let logged_in = async {
        while !socket.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, logged_in)
        .await
        .expect("no login");

    let mut tunnel = start(&setup, &relay, &[]);
    tunnel.wait_for("ready").await;
    let mut state = leaks::state(&setup.home).into_iter();
    let ledger = state.find(|path| path.extension().is_some_and(|it| it == "jsonl"));
    let ledger = ledger.expect("no ledger");
    relay.cut();
    tunnel.signal(Signal::KILL);
    tunnel.wait().await;
    let theirs = setup.sshd.sessions().expect("no /proc");
    let noted = std::fs::read_to_string(&ledger).expect("no ledger");
    // As if the process id belonged to another session now, which started at another time or after another boot.
    for other in ["start", "boot"] {
        let mut changed = 0;
        let lines: Vec<String> = noted
            .lines()
            .map(|line| {
                let mut line: serde_json::Value = serde_json::from_str(line).expect("no JSON");
                if line["intend"]["what"] == "remote-session" {
                    line["intend"]["data"]["session"][other] = "1".into();
                    changed += 1;
                }
                line.to_string()
            })
            .collect();
        assert_eq!(changed, 1, "{noted}");
        std::fs::write(&ledger, lines.join("\n") + "\n").expect("cannot write");
        let mut cleanup = StageClient::start(setup.verb("cleanup"));
        assert!(cleanup.wait().await.0.success(), "{}", cleanup.stderr());
        let now = setup.sshd.sessions().expect("no /proc");
        assert!(
            theirs.iter().all(|pid| now.contains(pid)),
            "{other}: {theirs:?} {now:?}"
        );
    }
    assert!(other.try_wait().expect("no status").is_none());
}

#[tokio::test]
async fn an_account_without_commands_waits_for_the_server_on_the_same_port() {
    for (line, reaped) in [
        ("ForceCommand /bin/false", true),
        ("ForceCommand internal-sftp", false),
        ("MaxSessions 0", false),
    ] {
        let (setup, relay) = behind_a_relay(&[line]).await;
        let mut tunnel = start(&setup, &relay, &[]);
        let port = port_of(&tunnel.wait_for("outputs").await);
        let said = |tunnel: &StageClient| {
            tunnel
                .stderr()
                .matches("does not run commands for this account")
                .count()
        };
        tunnel.wait_for("ready").await;
        relay.cut();
        let held = tunnel
            .wait_until("the reason", |m| {
                m["error"]["code"] == "tunnel.ghost_holds_port"
            })
            .await;
        let hint = held["error"]["hint"].as_str().unwrap_or_default();
        assert!(hint.contains("ClientAliveInterval"), "{line}: {held}");
        assert_eq!(said(&tunnel), 1, "{line}: {}", tunnel.stderr());
        if reaped {
            // The server notices: here by a kill.
            setup.sshd.drop_sessions().expect("cannot signal");
            assert_eq!(tunnel.wait_for("ready").await["gen"], 1);
            assert!(leaks::is_listening(port));
        }
        tunnel.signal(Signal::TERM);
        tunnel.wait().await;
    }
}

/// In place of ssh, once: another ssh that outlived its stage gets to the control socket first.
const FIRST: &str = r#"#!/bin/sh
PATH=$REAL_PATH
case " $* " in *" -M "*) if mkdir "$HOME/once" 2>/dev/null; then
    ssh "$@" </dev/null >/dev/null 2>&1 &
    until [ -S "$HOME/run/tunnel.ssh" ]; do sleep 0.02; done
fi;; esac
exec ssh "$@"
"#;

#[tokio::test]
async fn an_ssh_of_an_earlier_run_on_the_control_socket_is_ended_first() {
    let setup = Setup::new(Options::default()).await;
    let bin = setup.home.path().join("bin");
    std::fs::create_dir(&bin).expect("cannot make it");
    std::fs::write(bin.join("ssh"), FIRST).expect("cannot write");
    std::fs::set_permissions(bin.join("ssh"), PermissionsExt::from_mode(0o755)).expect("no chmod");
    let path = std::env::var("PATH").expect("no PATH");
    let mut command = setup.command(&[]);
    command.env("PATH", format!("{}:{path}", bin.display()));
    command.env("REAL_PATH", path);
    let mut tunnel = StageClient::start(command);
    let outputs = tunnel.wait_for("outputs").await;
    assert_eq!(outputs["outputs"]["verified"], "origin", "{outputs}");
    tunnel.wait_for("ready").await;
    let masters = leaks::processes(&setup.home.mark());
    let masters = masters.iter().filter(|it| it.contains(" -M ")).count();
    assert_eq!(masters, 1, "the other one is still there");
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;
    leaks::gone("what it started", || setup.left()).await;
}
