//! The guard: visitors get through only while the master has passwords, whatever takes its place and when.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use support::master::{Behaviour, Burglars, Master, log_in, visit};
use support::tunnel::{Setup, port_of};
use support::{DEADLINE, Options, StageClient, bin, leaks};
use tokio::net::{TcpListener, TcpStream};

const GUARDED: &str = "requires passwords; visitors get through";
const GUARD: (&str, &str) = ("guard", "determined");
const BOTH: [&str; 2] = ["admin", "determined"];

/// A tunnel with a guard that is ready, and its port.
async fn guarded(setup: &Setup, more: &[(&str, &str)]) -> (StageClient, u16) {
    let mut flags = vec![GUARD];
    flags.extend(more);
    let mut tunnel = setup.start(&flags);
    let port = port_of(&tunnel.wait_for("outputs").await);
    tunnel.wait_for("ready").await;
    (tunnel, port)
}

/// Visits until one gets through.
async fn gets_through(port: u16) {
    let from = Instant::now();
    while visit(port).await.is_err() {
        assert!(from.elapsed() < DEADLINE, "no visitor gets through");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn is_reported(tunnel: &mut StageClient, text: &str) {
    let what = format!("a report of {text:?}");
    let says = |message: &serde_json::Value| {
        message["step"] == "guard"
            && message["message"]
                .as_str()
                .is_some_and(|m| m.contains(text))
    };
    tunnel.wait_until(&what, says).await;
}

async fn is_open(tunnel: &mut StageClient) -> serde_json::Value {
    let error = tunnel.wait_for("degraded").await["error"].take();
    assert_eq!(error["code"], "tunnel.open_master", "{error}");
    assert!(
        error["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("change-password"))
    );
    error
}

#[tokio::test]
async fn over_restarts_of_an_open_master_no_visitor_ever_gets_a_token() {
    let setup = Setup::new(Options::default()).await;
    let (mut tunnel, port) = guarded(&setup, &[]).await;
    let burglars = Burglars::at(port);
    burglars.got_nothing().await;
    for _ in 0..4 {
        let master = Master::start(setup.local_port, &BOTH);
        let error = is_open(&mut tunnel).await;
        let message = error["message"].as_str().expect("text");
        assert!(
            message.contains("`admin` and `determined` have blank passwords"),
            "{error}"
        );
        burglars.got_nothing().await;
        let from = Instant::now();
        while master.tokens().1 > 0 {
            assert!(from.elapsed() < DEADLINE, "a session of the guard stays");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        master.stop().await;
        burglars.got_nothing().await;
        // A master with passwords in between: what is known of it must not count for the next.
        let master = Master::start(setup.local_port, &[]);
        assert_eq!(tunnel.wait_for("ready").await["gen"], 1, "the same outputs");
        is_reported(&mut tunnel, GUARDED).await;
        gets_through(port).await;
        master.stop().await;
    }
    assert!(!tunnel.stderr().contains("token-"), "{}", tunnel.stderr());
}

#[tokio::test]
async fn visitors_that_wait_get_through_with_the_first_answer_and_not_before() {
    let setup = Setup::new(Options::default()).await;
    let (mut tunnel, port) = guarded(&setup, &[]).await;
    let master = Master::start(setup.local_port, &[]);
    master.set_answers(false);
    let mut visitors = tokio::task::JoinSet::new();
    for _ in 0..8 {
        visitors.spawn(gets_through(port));
    }
    // A connection, too, is an answer to a visitor only after that of the master to the guard.
    tokio::time::timeout(Duration::from_millis(300), visitors.join_next())
        .await
        .expect_err("a visitor got through");
    assert_eq!(master.asked(), 0);
    master.set_answers(true);
    is_reported(&mut tunnel, GUARDED).await;
    while let Some(through) = visitors.join_next().await {
        through.expect("a visitor did not get through");
    }
    assert_eq!(master.asked(), 8, "each visitor reached the master once");
}

#[tokio::test]
async fn a_master_that_closes_idle_connections_gets_every_visitor() {
    let setup = Setup::new(Options::default()).await;
    let (mut tunnel, port) = guarded(&setup, &[]).await;
    let behaviour = Behaviour {
        closes_idle: Some(Duration::from_secs(1)),
        ..Behaviour::default()
    };
    let master = Master::with(setup.local_port, &[], behaviour);
    gets_through(port).await;
    is_reported(&mut tunnel, GUARDED).await;
    let from = Instant::now();
    while master.idle_closed() < 4 {
        assert_eq!(visit(port).await.expect("a visitor was reset"), 200);
        assert!(from.elapsed() < DEADLINE, "it closes no connection");
    }
    assert!(!tunnel.has_said("degraded"), "{}", tunnel.stderr());
}

#[tokio::test]
async fn whether_the_master_speaks_tls_is_found_whatever_scheme_is_set() {
    for (scheme, tls) in [("http", true), ("https", false), ("https", true)] {
        let setup = Setup::new(Options::default()).await;
        let (mut tunnel, port) = guarded(&setup, &[("scheme", scheme)]).await;
        let behaviour = Behaviour {
            tls,
            ..Behaviour::default()
        };
        let master = Master::with(setup.local_port, &["determined"], behaviour);
        let burglars = Burglars::at(port);
        let error = is_open(&mut tunnel).await;
        let message = error["message"].as_str().expect("text");
        assert!(
            message.contains(": `determined` has a blank password"),
            "{error}"
        );
        burglars.got_nothing().await;
        master.stop().await;
        let _master = Master::with(setup.local_port, &[], behaviour);
        tunnel.wait_for("ready").await;
        is_reported(&mut tunnel, GUARDED).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_old_master_that_drains_does_not_vouch_for_the_new_one() {
    let setup = Setup::new(Options::default()).await;
    let (mut tunnel, port) = guarded(&setup, &[]).await;
    let mut old = Master::start(setup.local_port, &[]);
    gets_through(port).await;
    is_reported(&mut tunnel, GUARDED).await;
    old.stop_listening().await;
    let new = Master::start(setup.local_port, &["admin"]);
    let burglars = Burglars::at(port);
    is_open(&mut tunnel).await;
    burglars.got_nothing().await;
    // The new one ends; the old one would still keep its connections.
    new.stop().await;
    burglars.got_nothing().await;
    drop(old);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn two_programs_that_share_the_port_are_not_examined() {
    let setup = Setup::new(Options::default()).await;
    let (mut tunnel, port) = guarded(&setup, &[]).await;
    let shared = Behaviour {
        shares_port: true,
        ..Behaviour::default()
    };
    let _good = Master::with(setup.local_port, &[], shared);
    gets_through(port).await;
    let bad = Master::with(setup.local_port, &BOTH, shared);
    let burglars = Burglars::at(port);
    is_reported(&mut tunnel, "several programs listen there").await;
    burglars.got_nothing().await;
    bad.stop().await;
    gets_through(port).await;
    burglars.got_nothing().await;
}

#[tokio::test]
async fn what_does_not_answer_as_a_master_is_closed_until_it_does() {
    let setup = Setup::new(Options::default()).await;
    let (mut tunnel, port) = guarded(&setup, &[]).await;
    let master = Master::start(setup.local_port, &[]);
    master.set_status(Some(503));
    for status in [503, 404, 200] {
        master.set_status(Some(status));
        let why = match status {
            200 => "not that of a Determined master".to_owned(),
            status => format!("HTTP status {status}"),
        };
        let from = Instant::now();
        while !tunnel.stderr().contains(&why) {
            assert!(visit(port).await.is_err(), "a visitor got through");
            assert!(from.elapsed() < DEADLINE, "{}", tunnel.stderr());
        }
    }
    master.set_status(None);
    gets_through(port).await;
    is_reported(&mut tunnel, GUARDED).await;
    master.stop().await;
    // No HTTP at all.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, setup.local_port)).await;
    let silent = silent.expect("the port is not free");
    let hangs_up = async {
        loop {
            drop(silent.accept().await);
        }
    };
    let visits = async {
        while !tunnel
            .stderr()
            .contains("it does not answer as an HTTP server")
        {
            assert!(visit(port).await.is_err(), "a visitor got through");
        }
    };
    tokio::select! {
        () = hangs_up => {}
        () = visits => {}
    }
}

#[tokio::test]
async fn a_password_that_is_set_while_the_master_runs_opens_the_way() {
    let setup = Setup::new(Options::default()).await;
    let (mut tunnel, port) = guarded(&setup, &[]).await;
    let master = Master::start(setup.local_port, &["admin"]);
    let burglars = Burglars::at(port);
    is_open(&mut tunnel).await;
    let mut check = StageClient::start(setup.verb("check"));
    let (status, _) = check.wait().await;
    assert_eq!(status.code(), Some(5), "{}", check.stderr());
    assert!(
        check.stderr().contains("tunnel.open_master"),
        "{}",
        check.stderr()
    );
    master.set_blank(&[]);
    gets_through(port).await;
    assert_eq!(tunnel.wait_for("ready").await["gen"], 1);
    assert_eq!(log_in(port, "admin").await.expect("no way").0, 401);
    burglars.got_nothing().await;
}

#[tokio::test]
async fn the_state_is_in_status_and_check_and_a_gate_does_not_wait_for_it() {
    let setup = Setup::new(Options::default()).await;
    let (mut tunnel, port) = guarded(&setup, &[]).await;
    is_reported(&mut tunnel, "nothing listens on local port").await;
    let status = || {
        let path = setup.home.run_dir().join("status/tunnel.json");
        std::fs::read_to_string(path).expect("no status")
    };
    let from = Instant::now();
    while !status().contains("guard: nothing listens") {
        assert!(from.elapsed() < DEADLINE, "{}", status());
    }
    let check = async |text: &str| {
        let mut check = StageClient::start(setup.verb("check"));
        check.wait_for_log(text).await;
        assert!(check.wait().await.0.success(), "{}", check.stderr());
    };
    check("nothing listens on local port").await;
    assert!(
        setup
            .verb("wait")
            .status()
            .await
            .expect("no tunnel")
            .success()
    );

    // Without a result it gives up, and does not fail.
    let mut wait = setup.verb("wait");
    wait.args(["--guard", "--timeout=0.2"]);
    assert!(wait.status().await.expect("no tunnel").success());
    let mut wait = setup.verb("wait");
    let wait = wait.args(["--guard", "--timeout=100"]).spawn();
    let mut wait = wait.expect("no tunnel");
    let _master = Master::start(setup.local_port, &[]);
    assert!(wait.wait().await.expect("no end").success());
    is_reported(&mut tunnel, GUARDED).await;
    check("requires passwords").await;
    assert!(status().contains("requires passwords"), "{}", status());
    assert_eq!(
        visit(port).await.expect("no way"),
        200,
        "without a visitor before"
    );

    let run_dir = setup.home.run_dir();
    for name in [
        "tunnel.guard".to_owned(),
        format!("tunnel.guard-{}", setup.local_port),
    ] {
        let mode = std::fs::metadata(run_dir.join(&name))
            .expect("no socket")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
    }
    tunnel.signal(Signal::TERM);
    assert!(tunnel.wait().await.0.success());
    leaks::gone("what it started", || setup.left()).await;
    let mut wait = setup.verb("wait");
    wait.args(["--guard"]);
    assert!(
        wait.status().await.expect("no tunnel").success(),
        "no tunnel runs"
    );
}

#[tokio::test]
async fn every_forward_has_the_guard_that_it_sets_and_keeps_it_over_a_lost_connection() {
    let setup = Setup::new(Options::default()).await;
    let own = Master::start(setup.local_port, &[]);
    let spare = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("no port");
    let other = spare.local_addr().expect("no address").port();
    drop(spare);
    let forwards = json!([{"name": "other", "local_port": other, "guard": "determined"}]);
    let mut tunnel = setup.start(&[GUARD, ("forwards", &forwards.to_string())]);
    let outputs = tunnel.wait_for("outputs").await;
    let second = outputs["outputs"]["forwards"]["other"]["port"].as_u64();
    let second = u16::try_from(second.expect("no port")).expect("a port");
    tunnel.wait_for("ready").await;
    let burglars = Burglars::at(second);
    let open = Master::start(other, &BOTH);
    is_open(&mut tunnel).await;
    gets_through(port_of(&outputs)).await;
    setup.sshd.drop_sessions().expect("no session");
    tunnel.wait_for("ready").await;
    is_open(&mut tunnel).await;
    gets_through(port_of(&outputs)).await;
    burglars.got_nothing().await;
    open.stop().await;
    tunnel.wait_for("ready").await;
    let _closed = Master::start(other, &[]);
    gets_through(second).await;
    burglars.got_nothing().await;
    drop(own);
}

#[tokio::test]
async fn a_killed_tunnel_leaves_sockets_that_cleanup_and_the_next_run_remove() {
    let setup = Setup::new(Options::default()).await;
    let _master = Master::start(setup.local_port, &[]);
    for by_cleanup in [true, false] {
        let (mut tunnel, port) = guarded(&setup, &[]).await;
        gets_through(port).await;
        tunnel.signal(Signal::KILL);
        tunnel.wait().await;
        let socket = setup.home.run_dir().join("tunnel.guard");
        assert!(socket.exists());
        if by_cleanup {
            assert!(
                setup
                    .verb("cleanup")
                    .status()
                    .await
                    .expect("no tunnel")
                    .success()
            );
            assert!(!socket.exists());
            leaks::gone("what it started", || setup.left()).await;
        }
    }
    let (mut tunnel, port) = guarded(&setup, &[]).await;
    gets_through(port).await;
    tunnel.signal(Signal::TERM);
    assert!(tunnel.wait().await.0.success());
    leaks::gone("what it started", || setup.left()).await;
}

#[tokio::test]
async fn in_a_run_directory_with_a_long_path_the_sockets_are_elsewhere() {
    let setup = Setup::new(Options::default()).await;
    let deep = setup.home.path().join("deep".repeat(30));
    let mut config = setup.config();
    config["guard"] = "determined".into();
    let file = setup.home.path().join("tunnel.json");
    std::fs::write(&file, config.to_string()).expect("cannot write");
    let verb = |verb: &str| {
        let mut command = setup.home.command(&bin("devcluster-tunnel"));
        command
            .arg(verb)
            .arg("--run-dir")
            .arg(&deep)
            .arg("--config")
            .arg(&file);
        command
    };
    let mut tunnel = StageClient::start(verb("run"));
    let port = port_of(&tunnel.wait_for("outputs").await);
    let _master = Master::start(setup.local_port, &[]);
    gets_through(port).await;
    let link = std::fs::read_link(deep.join("tunnel.guard")).expect("no link");
    let mut check = StageClient::start(verb("check"));
    check.wait_for_log("requires passwords").await;
    tunnel.signal(Signal::TERM);
    assert!(tunnel.wait().await.0.success());
    assert!(!link.exists() && deep.join("tunnel.guard").symlink_metadata().is_err());
}

#[tokio::test]
async fn half_closed_and_large_visits_pass_unchanged() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let setup = Setup::new(Options::default()).await;
    let (_tunnel, port) = guarded(&setup, &[]).await;
    let _master = Master::start(setup.local_port, &[]);
    gets_through(port).await;
    let mut visitors = tokio::task::JoinSet::new();
    for _ in 0..4 {
        visitors.spawn(async move {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .expect("no way");
            let body = "x".repeat(3 << 20);
            let head = format!(
                "POST /large HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.expect("no write");
            stream.write_all(body.as_bytes()).await.expect("no write");
            stream.shutdown().await.expect("no end");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("no answer");
            assert!(answer.ends_with(r#"{"path":"/large"}"#), "{answer}");
        });
    }
    while let Some(visit) = visitors.join_next().await {
        visit.expect("a visit failed");
    }
}
