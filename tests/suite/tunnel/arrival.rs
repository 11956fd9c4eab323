//! The proof of arrival from outside, and what is reported about it: never more than was observed.

use std::net::Ipv4Addr;

use rustix::process::Signal;
use support::master::Master;
use support::netns::{self, Netns};
use support::tunnel::{AT_PUBLIC, PUBLIC, Setup, failure, no_gateway_ports, port_of, take};
use support::{Options, StageClient};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[tokio::test]
async fn a_port_granted_on_ipv6_alone_does_not_count_as_ours() {
    let setup = Setup::new(Options {
        gateway_ports: "yes".into(),
        ..Options::default()
    })
    .await;
    let _taken = take(setup.ports.clone().take(2)).await;
    let mut tunnel = setup.start(&[]);
    assert_eq!(
        port_of(&tunnel.wait_for("outputs").await),
        *setup.ports.end()
    );

    let setup = Setup::new(Options {
        gateway_ports: "yes".into(),
        ..Options::default()
    })
    .await;
    let _taken = take(setup.ports.clone()).await;
    let error = failure(&setup, setup.command(&[]), "tunnel.ipv6_only", 75).await;
    assert!(error["hint"].as_str().unwrap().contains("clientspecified"));
}

/// A relay in front of the server, as a load balancer or NAT: it rewrites source ports.
async fn relay(public: TcpListener, to: u16) {
    let mut visitors = JoinSet::new();
    while let Ok((mut visitor, _)) = public.accept().await {
        visitors.spawn(async move {
            if let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await {
                drop(tokio::io::copy_bidirectional(&mut visitor, &mut server).await);
            }
        });
    }
}

#[tokio::test]
async fn behind_nat_a_nonce_is_the_proof_or_it_stays_unverified() {
    let setup = Setup::new(no_gateway_ports()).await;
    let port = *setup.ports.start();
    let one = port.to_string();
    let flags = [AT_PUBLIC, ("remote-port-range", one.as_str())];
    let mut relays = JoinSet::new();
    relays.spawn(relay(
        TcpListener::bind((PUBLIC, port)).await.unwrap(),
        port,
    ));

    let mut tunnel = setup.start(&flags);
    assert_eq!(
        tunnel.wait_for("outputs").await["outputs"]["verified"],
        "nonce"
    );
    tunnel.wait_for("ready").await;
    let master = TcpListener::bind((Ipv4Addr::LOCALHOST, setup.local_port)).await;
    setup.sshd.drop_sessions().unwrap();
    let again = tunnel.wait_for("ready").await;
    assert_eq!(
        again["gen"], 1,
        "with the master in the way of another nonce"
    );
    drop(master);
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;

    let _master = TcpListener::bind((Ipv4Addr::LOCALHOST, setup.local_port))
        .await
        .unwrap();
    let mut tunnel = setup.start(&flags);
    assert_eq!(
        tunnel.wait_for("outputs").await["outputs"]["verified"],
        "unverified"
    );
    assert!(tunnel.has_said("log"), "{}", tunnel.stderr());
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;

    for proof in ["require", "nonce", "origin"] {
        let wanted = setup.command(&[flags[0], flags[1], ("verify", proof)]);
        failure(&setup, wanted, "tunnel.unverified", 1).await;
    }
    let mut tunnel = setup.start(&[flags[0], flags[1], ("verify", "tcp")]);
    assert_eq!(
        tunnel.wait_for("outputs").await["outputs"]["verified"],
        "tcp"
    );
}

#[tokio::test]
async fn a_port_that_stops_leading_here_is_reported_and_so_is_its_recovery() {
    let setup = Setup::new(no_gateway_ports()).await;
    let port = *setup.ports.start();
    let one = port.to_string();
    let mut relays = JoinSet::new();
    relays.spawn(relay(
        TcpListener::bind((PUBLIC, port)).await.unwrap(),
        port,
    ));
    let flags = [
        AT_PUBLIC,
        ("remote-port-range", one.as_str()),
        ("probe-interval", "0.1"),
    ];
    let mut tunnel = setup.start(&flags);
    tunnel.wait_for("ready").await;
    relays.shutdown().await;
    let degraded = tunnel.wait_for("degraded").await;
    assert_eq!(
        degraded["error"]["code"], "tunnel.port_unreachable",
        "{degraded}"
    );
    relays.spawn(relay(
        TcpListener::bind((PUBLIC, port)).await.unwrap(),
        port,
    ));
    assert_eq!(tunnel.wait_for("ready").await["gen"], 1);
}

#[tokio::test]
async fn a_port_on_all_addresses_is_reported_as_open() {
    let setup = Setup::new(Options::default()).await;
    let mut tunnel = setup.start(&[]);
    tunnel
        .wait_for_log("is open to every machine that can reach it")
        .await;
    tunnel.wait_for("ready").await;
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;
    let mut tunnel = setup.start(&[("bind-address", "127.0.0.1")]);
    tunnel.wait_for("ready").await;
    assert!(!tunnel.has_said("log"), "{}", tunnel.stderr());
}

/// On a server that also listens on IPv6.
async fn on_ipv6() -> Setup {
    Setup::new(Options {
        extra: vec!["AddressFamily any".into()],
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn pods_may_reach_the_server_by_ipv6() {
    let setup = on_ipv6().await;
    for flags in [
        &[("public-host", "::1")][..],
        &[("public-host", "[::1]")],
        &[("public-host", "::1"), ("bind-address", "::1")],
        &[("public-host", "[::1]"), ("bind-address", "[::1]")],
    ] {
        let mut tunnel = setup.start(flags);
        let outputs = tunnel.wait_for("outputs").await;
        tunnel.wait_for("ready").await;
        let proven = (&outputs["outputs"]["host"], &outputs["outputs"]["verified"]);
        assert_eq!(proven, (&"::1".into(), &"origin".into()), "{flags:?}");
        let by_ipv4 = TcpStream::connect((Ipv4Addr::LOCALHOST, port_of(&outputs))).await;
        assert_eq!(
            by_ipv4.is_err(),
            flags.len() == 2,
            "an address that is asked for is the only one: {flags:?}"
        );
        tunnel.signal(Signal::TERM);
        tunnel.wait().await;
    }
}

#[tokio::test]
async fn a_port_in_use_on_ipv6_alone_is_ours_on_ipv4_if_the_server_separates_them() {
    let setup = on_ipv6().await;
    let mut taken = Vec::new();
    for port in setup.ports.clone() {
        taken.push(TcpListener::bind(("::1", port)).await.unwrap());
    }
    let mut tunnel = setup.start(&[]);
    let outputs = tunnel.wait_for("outputs").await;
    assert_eq!(outputs["outputs"]["verified"], "origin");
    tunnel.wait_for("ready").await;
}

#[tokio::test]
async fn gateway_ports_off_is_reported_also_if_another_program_has_the_public_address() {
    if netns::are_missing() {
        return;
    }
    let (netns, setup) = (Netns::claim(), Setup::new(no_gateway_ports()).await);
    let public = netns.near();
    let mut strangers = Vec::new();
    for port in setup.ports.clone() {
        strangers.push(TcpListener::bind((public, port)).await.unwrap());
    }
    let command = setup.command(&[("public-host", &public.to_string())]);
    let error = failure(&setup, command, "tunnel.gateway_ports_off", 1).await;
    let message = error["message"].as_str().unwrap();
    let expected = format!("another program has {public}:");
    assert!(message.contains(&expected), "{error}");
}

#[tokio::test]
async fn another_program_on_the_public_address_is_reported_also_without_the_servers_sockets() {
    let setup = Setup::new(Options {
        extra: vec!["ForceCommand /bin/false".into()],
        ..no_gateway_ports()
    })
    .await;
    let mut strangers = Vec::new();
    for port in setup.ports.clone() {
        strangers.push(TcpListener::bind((PUBLIC, port)).await.unwrap());
    }
    let command = setup.command(&[AT_PUBLIC]);
    failure(&setup, command, "tunnel.arrives_elsewhere", 75).await;
}

#[tokio::test]
async fn a_server_that_listens_on_more_addresses_than_requested_is_reported() {
    let setup = Setup::new(Options {
        gateway_ports: "yes".into(),
        ..Options::default()
    })
    .await;
    let mut tunnel = setup.start(&[("bind-address", "127.0.0.1")]);
    let wider = "listens on all its addresses, not on 127.0.0.1 alone";
    tunnel.wait_for_log(wider).await;
    tunnel
        .wait_for_log("is open to every machine that can reach it")
        .await;
    tunnel.wait_for("ready").await;
}

#[tokio::test]
async fn an_address_that_this_machine_does_not_reach_is_reported_as_unverified() {
    if netns::are_missing() {
        return;
    }
    let netns = Netns::claim();
    let setup = Setup::new(Options::default()).await;
    // No host has this address of the test's own network.
    let unused = netns.unused_address().to_string();
    let flags = [("public-host", unused.as_str())];
    let mut tunnel = setup.start(&[flags[0], ("probe-interval", "0.1")]);
    tunnel.wait_for_log("this machine does not reach").await;
    let outputs = tunnel.wait_for("outputs").await;
    let reported = (&outputs["outputs"]["host"], &outputs["outputs"]["verified"]);
    assert_eq!(reported, (&unused.as_str().into(), &"unverified".into()));
    tunnel.wait_for("ready").await;
    let mut check = StageClient::start(setup.verb("check"));
    assert!(check.wait().await.0.success(), "{}", check.stderr());
    tunnel.signal(Signal::TERM);
    tunnel.wait().await;
    assert!(!tunnel.has_said("degraded"), "{}", tunnel.stderr());

    let wanted = setup.command(&[flags[0], ("verify", "require")]);
    failure(&setup, wanted, "tunnel.port_unreachable", 75).await;
}

#[tokio::test]
async fn behind_nat_a_guard_receives_the_nonce_also_beside_a_master() {
    let setup = Setup::new(no_gateway_ports()).await;
    let port = *setup.ports.start();
    let one = port.to_string();
    let public = TcpListener::bind((PUBLIC, port)).await;
    let mut relays = JoinSet::new();
    relays.spawn(relay(public.expect("the port is not free"), port));
    let _master = Master::start(setup.local_port, &[]);
    for verify in ["auto", "nonce", "require"] {
        let mut tunnel = setup.start(&[
            AT_PUBLIC,
            ("remote-port-range", one.as_str()),
            ("guard", "determined"),
            ("verify", verify),
        ]);
        let outputs = tunnel.wait_for("outputs").await;
        assert_eq!(outputs["outputs"]["verified"], "nonce", "{verify}");
        tunnel.wait_for("ready").await;
        tunnel.signal(Signal::TERM);
        assert!(tunnel.wait().await.0.success(), "{}", tunnel.stderr());
    }
}
