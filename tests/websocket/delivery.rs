//! Delivery when all is well: with acknowledgements, and without.

use std::time::{Duration, Instant};

use futures_util::join;
use harborforge_connector::protocol::BARRIER_DELAY;
use harborforge_connector::sender::driver::ConfirmedBy;
use harborforge_monitor::{Capability, Options};

use crate::support::{Site, counted, has_all, monitor, plain, real_time, run, seqs};
use crate::{all_by_websocket, ends_well};

/// More than fits into a window at once.
const BACKLOG: u64 = 1200;

/// A backlog and what comes after it, over one link.
async fn arrives(options: Options) {
    let monitor = monitor(options).await;
    let site = Site::websocket(&monitor);
    site.fill(BACKLOG);
    let mut daemon = site.start();
    daemon.has_appended(BACKLOG + 2).await;
    has_all(&monitor, BACKLOG + 2).await;
    let last = ends_well(&monitor, &site, daemon).await;

    let counts = monitor.counts();
    assert!(all_by_websocket(&monitor));
    // The Monitor refuses samples before the greeting: there was one, and it was the first.
    assert_eq!((counts.links, counts.hellos, counts.heartbeats), (1, 1, 0), "{counts:?}");
    assert_eq!(counts.refused.len(), 0, "{counts:?}");
    assert_eq!(counts.duplicates, 0);
    assert!(seqs(&monitor).is_sorted());
    let success = site.books().last_success.unwrap();
    assert!(success.record.seq >= last);
    assert_eq!(success.at.tag, ConfirmedBy::Websocket as u8);
}

#[test]
fn samples_arrive_in_order_over_one_link_and_are_acknowledged() {
    run(async {
        let ack = Options { capabilities: [Capability::Ack].into(), ..plain() };
        join!(arrives(ack), arrives(real_time()));
    });
}

/// Without acknowledgements a window is confirmed by the second of two Pongs.
async fn is_confirmed_by_the_barrier(capabilities: &[Capability]) {
    let capabilities = capabilities.iter().copied().collect();
    let monitor = monitor(Options { capabilities, ..plain() }).await;
    let site = Site::websocket(&monitor);
    site.fill(BACKLOG);
    let begun = Instant::now();
    let mut daemon = site.start();
    counted(&monitor, "links", 1, |counts| counts.links).await;
    let linked = Instant::now();
    // Everything is on its way long before any of it is confirmed: no stop and go.
    has_all(&monitor, BACKLOG).await;
    let confirmed = daemon.says("acknowledged").await;
    assert!(begun.elapsed() >= BARRIER_DELAY, "{:?}", begun.elapsed());
    assert!(confirmed.number("up_to") > Some(1), "a whole part at once: {confirmed:?}");
    daemon
        .hears("the backlog's confirmation", |line| {
            line.message() == "acknowledged" && line.number("up_to") >= Some(BACKLOG)
        })
        .await;
    // Were the windows confirmed one after the other, it would take a barrier's time for each of
    // three.
    let took = linked.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
    daemon.stop().await;
    site.books().agree_with(&monitor);
    let counts = monitor.counts();
    assert!(all_by_websocket(&monitor));
    assert_eq!((counts.links, counts.hellos, counts.heartbeats), (1, 1, 0), "{counts:?}");
    assert_eq!((counts.duplicates, counts.out_of_order), (0, 0));
}

#[test]
fn without_acknowledgements_the_barrier_confirms() {
    run(async {
        join!(is_confirmed_by_the_barrier(&[]), is_confirmed_by_the_barrier(&[Capability::Resume]),)
    });
}
