//! A Monitor that is slow to confirm, and a queue that is full meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::join;
use harborforge_monitor::{Capability, Fault, Monitor, Options, Route};

use crate::support::{Daemon, PATIENCE, Site, batching, monitor, real_time, run};

const BOUND: u64 = 1024 * 1024;

/// Longer than it takes a busy machine to sample a few times.
const SLOW: Duration = Duration::from_secs(15);

/// A queue that takes a few samples more and no others.
fn nearly_full(site: &Site) {
    const ROOM: u64 = 800;
    site.fill_within(9000, BOUND - ROOM);
    loop {
        let pending = site.look(|queue| queue.stats().pending);
        let left = (BOUND - ROOM).saturating_sub(pending.bytes);
        match left / (pending.bytes / pending.records + 20) {
            0 => return,
            more => site.fill_within(more, BOUND - ROOM),
        }
    }
}

/// Numbers told as gaps: those that may have been delivered, and those that were not.
fn told(monitor: &Monitor) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let (mut maybe, mut never) = (BTreeSet::new(), BTreeSet::new());
    let accepted = monitor.accepted();
    for gap in accepted.iter().filter_map(|one| one.telemetry["gaps"].as_array()).flatten() {
        assert_eq!(gap["reason"], "queue_full", "{gap}");
        let range = gap["from"].as_u64().unwrap()..=gap["to"].as_u64().unwrap();
        let set = if gap["maybe_delivered"] == true { &mut maybe } else { &mut never };
        set.extend(range);
    }
    (maybe, never)
}

/// What is on its way is given up before its confirmation comes.
async fn given_up_in_flight(options: Options, transport: &'static str, fault: Fault, route: Route) {
    let monitor = monitor(options).await;
    let mut site = Site::real_time(&monitor);
    site.set("transport", transport).set("queue_max_bytes", &BOUND.to_string());
    // Its first sample fits; no other is taken before there is something on its way.
    site.set("report_interval", "1h");
    nearly_full(&site);
    monitor.misbehave(fault.once().at(route));
    let mut daemon = site.start();
    let arrived = monitor.wait_for(|books| books.counts().unique >= 400, PATIENCE).await;
    arrived.expect("a window of samples arrives");
    let before = daemon.appended();
    site.set("report_interval", "1s");
    daemon.reload(&site);
    daemon.says("queue_max_bytes reached, the oldest samples were given up").await;
    let confirmed = |daemon: &mut Daemon| daemon.count("acknowledged");
    assert_eq!(confirmed(&mut daemon), 0, "nothing was confirmed before");
    // Sampling goes on all the while.
    daemon.has_appended(before + 4).await;
    assert_eq!(confirmed(&mut daemon), 0, "it is still slow");
    daemon.says("acknowledged").await;
    // Whatever is slow on this link goes with it.
    monitor.pause().await;
    monitor.resume().await.unwrap();
    let by = if transport == "http" { "http" } else { "websocket" };
    daemon.is_confirmed(by).await;
    // The sample after the one that told the last gap: the telling is confirmed as well.
    daemon.is_confirmed(by).await;
    daemon.stop().await;

    let (maybe, never) = told(&monitor);
    let arrived: BTreeSet<u64> = monitor.accepted().iter().map(|one| one.seq).collect();
    let all: BTreeSet<u64> = maybe.union(&never).chain(&arrived).copied().collect();
    let settled = site.look(|queue| queue.position().cursor);
    assert!((1..=settled).all(|seq| all.contains(&seq)), "delivered or told is everything");
    assert!(never.is_disjoint(&arrived), "nobody had the ones that are told as lost");
    assert!(maybe.intersection(&arrived).count() > 100, "what was on its way did arrive");
    assert_eq!(site.look(|queue| queue.unannounced_gaps()), []);
}

#[test]
fn what_was_given_up_on_its_way_may_have_been_delivered() {
    let late = Fault::AckLate { millis: SLOW.as_millis() as u64 };
    let mut slow = real_time();
    slow.capabilities.insert(Capability::Batch);
    run(async {
        join!(
            given_up_in_flight(slow, "websocket", late, Route::WebSocket),
            given_up_in_flight(batching(), "http", Fault::HoldAnswer, Route::Heartbeat),
        )
    });
}
