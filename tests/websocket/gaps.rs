//! What the queue had to give up is told to the Monitor.

use std::collections::BTreeSet;

use futures_util::join;
use harborforge_monitor::Capability;

use crate::support::{Site, monitor, real_time, run};

/// Fills what is left of a queue, but for a sample or two.
fn fill_up(site: &Site, bound: u64) {
    loop {
        let pending = site.look(|queue| queue.stats().pending);
        // Figures have more digits in one sample than in another.
        let size = pending.bytes / pending.records + 20;
        match (bound - pending.bytes) / size {
            0 => return,
            more => site.fill_within(more, bound),
        }
    }
}

/// A queue too small for an outage: what was given up is told, and with it nothing is missing.
async fn tells_its_gaps(transport: &'static str) {
    const BOUND: u64 = 1024 * 1024;
    const FILL: u64 = 9000;
    let mut options = real_time();
    options.capabilities.insert(Capability::Batch);
    let monitor = monitor(options).await;
    monitor.pause().await;
    let mut site = Site::real_time(&monitor);
    site.set("queue_max_bytes", &BOUND.to_string()).set("transport", transport);
    site.fill_within(FILL, BOUND);
    assert!(
        !site.look(|queue| queue.gaps().is_empty()),
        "the queue overflowed while the daemon was away"
    );
    fill_up(&site, BOUND);
    let mut daemon = site.start();
    // And again while it runs.
    daemon.says("queue_max_bytes reached, the oldest samples were given up").await;
    monitor.resume().await.unwrap();
    let last = daemon.is_confirmed(if transport == "http" { "http" } else { "websocket" }).await;
    // Told once; the samples that follow are silent about it.
    daemon.has_appended(last + 2).await;
    daemon.is_confirmed(if transport == "http" { "http" } else { "websocket" }).await;
    daemon.stop().await;

    let mut told = BTreeSet::new();
    let accepted = monitor.accepted();
    for gap in accepted.iter().filter_map(|one| one.telemetry["gaps"].as_array()).flatten() {
        assert_eq!(gap["reason"], "queue_full", "{gap}");
        told.extend(gap["from"].as_u64().unwrap()..=gap["to"].as_u64().unwrap());
    }
    let arrived: BTreeSet<u64> = accepted.iter().map(|one| one.seq).collect();
    let all: BTreeSet<u64> = told.union(&arrived).copied().collect();
    assert_eq!(all, (1..=*arrived.last().unwrap()).collect(), "delivered and told are everything");
    assert!(told.len() > 1000 && arrived.len() > 1000, "{} {}", told.len(), arrived.len());
    assert!(told.is_disjoint(&arrived), "nobody had the ones that are told as gaps");
    assert!(accepted.last().unwrap().telemetry["gaps"].is_null());
    let (known, untold) = site.look(|queue| (queue.gaps().len(), queue.unannounced_gaps().len()));
    assert!(known > 0 && untold == 0, "{known} {untold}");
}

#[test]
fn what_was_given_up_is_told() {
    run(async { join!(tells_its_gaps("auto"), tells_its_gaps("http")) });
}

/// While the Monitor is away samples grow too old; the next one delivered tells.
async fn tells_what_expired() {
    let monitor = monitor(real_time()).await;
    monitor.pause().await;
    let mut site = Site::real_time(&monitor);
    site.set("queue_max_age", "2s");
    let mut daemon = site.start();
    daemon.says("queue_max_age reached, the oldest samples were given up").await;
    monitor.resume().await.unwrap();
    daemon.is_confirmed("websocket").await;
    daemon.is_confirmed("websocket").await;
    daemon.stop().await;

    let accepted = monitor.accepted();
    let gaps: Vec<_> =
        accepted.iter().filter_map(|one| one.telemetry["gaps"].as_array()).flatten().collect();
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| gap["reason"] == "expired"), "{gaps:?}");
    let told = gaps.iter().map(|gap| gap["from"].as_u64().unwrap()..=gap["to"].as_u64().unwrap());
    let mut all: BTreeSet<u64> = told.flatten().collect();
    assert!(all.contains(&1));
    all.extend(accepted.iter().map(|one| one.seq));
    assert_eq!(all, (1..=*all.last().unwrap()).collect(), "delivered and told are everything");
    assert_eq!(site.look(|queue| queue.unannounced_gaps()), []);
}

#[test]
fn what_grew_too_old_is_told() {
    run(tells_what_expired());
}
