//! The network fails and returns: the loss is noticed, and the port soon carries bytes again.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::netns::{self, Netns};
use support::tunnel::FarTunnel;

/// `make bench` waits for a minute.
const OUTAGE: Duration = Duration::from_secs(14);

async fn survives(what: &str, go: fn(&Netns), come: fn(&Netns)) {
    let mut far = FarTunnel::start(&[]).await;
    go(&far.netns);
    let gone = Instant::now();
    let lost = far.stage.wait_for("degraded").await;
    let noticed = gone.elapsed();
    assert_eq!(lost["error"]["code"], "tunnel.connection_lost", "{lost}");
    // The outage matters here: there is no event to wait for.
    tokio::time::sleep(OUTAGE.saturating_sub(gone.elapsed())).await;
    come(&far.netns);
    let back = far.first_byte_through().await;
    eprintln!("{what}: noticed after {noticed:.2?}, bytes flow {back:.2?} after the return");
    assert_eq!(far.stage.wait_for("ready").await["gen"], 1, "the same port");
    assert!(back < OUTAGE, "{what}: back after {back:?}");
    far.stage.signal(Signal::TERM);
    assert!(far.stage.wait().await.0.success());
}

#[tokio::test]
async fn a_pulled_cable_is_noticed_and_the_port_is_back_when_it_is_plugged_in() {
    if netns::are_missing() {
        return;
    }
    survives("a pulled cable", Netns::pull, Netns::plug).await;
}

#[tokio::test]
async fn an_outage_far_away_is_noticed_and_the_port_is_back_when_it_ends() {
    if netns::are_missing() {
        return;
    }
    survives("an outage far away", Netns::silence, Netns::unsilence).await;
}
