//! Heartbeats stand in for the WebSocket and end when it is back; the two are never mixed where
//! one alone is asked for.

use std::time::{Duration, SystemTime};

use futures_util::join;
use harborforge_monitor::{Capability, Fault, Monitor, Options, Reason, Route, Transport};
use rustix::process::Signal;

use crate::support::{Site, counted, has_all, monitor, plain, real_time, run};

const BEGAN: &str = "the WebSocket is unavailable, heartbeats take over";
const ENDED: &str = "the WebSocket confirms again, heartbeats end";

/// When requests of this kind came.
fn times(monitor: &Monitor, route: Route) -> Vec<SystemTime> {
    let requests = monitor.requests();
    requests.iter().filter(|seen| seen.route == route).map(|seen| seen.at).collect()
}

/// The way samples came, in the order of their first arrival.
fn transports(monitor: &Monitor) -> Vec<Transport> {
    monitor.accepted().iter().map(|accepted| accepted.transport).collect()
}

/// The WebSocket is refused from the start, and is there after a while.
async fn comes_and_goes(more: Option<Capability>, by: Transport) {
    let mut options = real_time();
    options.capabilities.extend(more);
    let monitor = monitor(options).await;
    monitor.misbehave(Fault::status(500).at(Route::WebSocket));
    let site = Site::real_time(&monitor);
    site.fill(30);
    let begun = SystemTime::now();
    let mut daemon = site.start();
    daemon.says(BEGAN).await;
    daemon.has_appended(33).await;
    has_all(&monitor, 33).await;
    let heartbeats = times(&monitor, Route::Heartbeat);
    let waited = heartbeats[0].duration_since(begun).unwrap();
    assert!(waited >= Duration::from_secs(2), "two report intervals are waited for: {waited:?}");
    assert!(times(&monitor, Route::WebSocket).len() >= 2, "it goes on being tried");
    assert_eq!(monitor.counts().links, 0);
    assert_eq!(transports(&monitor)[0], by);

    monitor.heal();
    daemon.says(ENDED).await;
    let last = daemon.is_confirmed("websocket").await;
    let heartbeats = monitor.counts().heartbeats;
    daemon.has_appended(last + 3).await;
    has_all(&monitor, last + 3).await;
    daemon.is_confirmed("websocket").await;
    assert_eq!(monitor.counts().heartbeats, heartbeats, "they have ended");
    assert_eq!((daemon.count(BEGAN), daemon.count(ENDED)), (1, 1));
    daemon.stop().await;
    site.books().agree_with(&monitor);
    let counts = monitor.counts();
    assert_eq!((counts.duplicates, counts.out_of_order), (0, 0), "{counts:?}");
    // First the one, then the other.
    let ways = transports(&monitor);
    let first = ways.iter().position(|way| *way == Transport::WebSocket).unwrap();
    assert!(ways[first..].iter().all(|way| *way == Transport::WebSocket), "{ways:?}");
}

#[test]
fn heartbeats_take_over_and_end() {
    run(async {
        join!(
            comes_and_goes(None, Transport::Heartbeat),
            comes_and_goes(Some(Capability::Batch), Transport::Batch),
        )
    });
}

#[test]
fn an_outage_of_everything_costs_nothing_and_says_little() {
    run(async {
        let monitor = monitor(real_time()).await;
        let site = Site::real_time(&monitor);
        let mut daemon = site.start();
        daemon.has_appended(1).await;
        daemon.is_confirmed("websocket").await;
        monitor.pause().await;
        daemon.says(BEGAN).await;
        let durable = daemon.appended();
        daemon.has_appended(durable + 3).await;
        monitor.resume().await.unwrap();
        daemon.says(ENDED).await;
        let last = daemon.is_confirmed("websocket").await;
        has_all(&monitor, last).await;
        let lines = daemon.for_people();
        assert!(lines.len() <= 10, "an outage is a handful of lines: {lines:#?}");
        daemon.stop().await;
        site.books().agree_with(&monitor);
        assert_eq!(monitor.counts().out_of_order, 0);
    });
}

#[test]
fn a_sample_that_links_die_with_goes_by_heartbeat() {
    run(async {
        let monitor = monitor(real_time()).await;
        // Each link dies when the first sample has been read, and before a word about it.
        monitor.misbehave(Fault::Cut { messages: 3 }.at(Route::WebSocket).times(3));
        let mut site = Site::real_time(&monitor);
        // Too short an outage for the fallback: that heartbeat is about this sample alone.
        site.set("report_interval", "1m").fill(5);
        let mut daemon = site.start();
        daemon.has_appended(6).await;
        has_all(&monitor, 6).await;
        daemon.is_confirmed("websocket").await;
        assert_eq!(daemon.count(BEGAN), 0);
        daemon.stop().await;
        site.books().agree_with(&monitor);
        let (counts, accepted) = (monitor.counts(), monitor.accepted());
        assert_eq!((counts.heartbeats, counts.links), (1, 4), "{counts:?}");
        assert_eq!(accepted[0].arrivals, 4);
        assert!(accepted[1..].iter().all(|one| one.transport == Transport::WebSocket));
    });
}

#[test]
fn where_one_transport_is_asked_for_the_other_is_not_used() {
    run(async {
        let websocket_only = async {
            let monitor = monitor(real_time()).await;
            monitor.misbehave(Fault::status(500).at(Route::WebSocket));
            let mut site = Site::real_time(&monitor);
            site.set("transport", "websocket");
            let mut daemon = site.start();
            // Twice the time after which heartbeats would take over.
            daemon.has_appended(5).await;
            counted(&monitor, "upgrades", 3, |counts| counts.upgrades).await;
            assert_eq!(monitor.counts().unique, 0);
            monitor.heal();
            let last = daemon.is_confirmed("websocket").await;
            has_all(&monitor, last).await;
            daemon.stop().await;
            site.books().agree_with(&monitor);
            assert_eq!(monitor.counts().heartbeats, 0);
        };
        let http_only = async {
            let monitor = monitor(real_time()).await;
            let site = Site::new(&monitor);
            let mut daemon = site.start();
            daemon.has_appended(3).await;
            monitor.pause().await;
            daemon.has_appended(6).await;
            monitor.resume().await.unwrap();
            let last = daemon.is_confirmed("http").await;
            has_all(&monitor, last).await;
            daemon.stop().await;
            site.books().agree_with(&monitor);
            assert_eq!(monitor.counts().upgrades, 0);
        };
        join!(websocket_only, http_only);
    });
}

#[test]
fn a_used_up_challenge_is_no_end() {
    run(async {
        // No tokens: the challenge is good for one link, and for heartbeats after that.
        let capabilities = [Capability::Ack].into();
        let monitor = monitor(Options { capabilities, ..plain() }).await;
        monitor.misbehave(Fault::Cut { messages: 5 }.once());
        let mut site = Site::real_time(&monitor);
        site.fill(10);
        let mut daemon = site.start();
        daemon.says(BEGAN).await;
        let used = |counts: &harborforge_monitor::Counts| counts.refused(Reason::UsedChallenge);
        counted(&monitor, "refusals", 2, used).await;
        let durable = daemon.appended();
        daemon.has_appended(durable.max(10) + 3).await;
        daemon.is_confirmed("http").await;
        assert_eq!(used(&monitor.counts()), 2, "and no more for an hour");

        // Unless somebody asks to try now.
        daemon.signal(Signal::USR1);
        counted(&monitor, "refusals", 3, used).await;

        // Or gives it another challenge.
        let fresh = monitor.issue_challenge();
        site.set_secret("challenge_uuid", &fresh);
        daemon.reload(&site);
        daemon.says(ENDED).await;
        let last = daemon.is_confirmed("websocket").await;
        has_all(&monitor, last).await;
        daemon.stop().await;
        site.books().agree_with(&monitor);
        assert_eq!((monitor.counts().links, monitor.counts().out_of_order), (2, 0));
    });
}

#[test]
fn sigusr1_tries_now() {
    run(async {
        // Both transports were asked to wait for longer than this test has.
        let asked = async |transport: &str, route: Route| {
            let monitor = monitor(real_time()).await;
            monitor.misbehave(Fault::retry_after(503, "600").once().at(route));
            let mut site = Site::real_time(&monitor);
            site.set("backoff_cap", "10m").set("transport", transport);
            let mut daemon = site.start();
            daemon.complains(&["503"]).await;
            let durable = daemon.appended();
            daemon.has_appended(durable + 2).await;
            assert_eq!(monitor.counts().unique, 0);
            daemon.signal(Signal::USR1);
            has_all(&monitor, durable + 2).await;
            daemon.stop().await;
            site.books().agree_with(&monitor);
        };
        join!(asked("websocket", Route::WebSocket), asked("http", Route::Heartbeat));
    });
}
