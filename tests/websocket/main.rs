//! The daemon and its WebSocket, over real sockets: delivery with and without the Monitor's
//! extensions, through TLS, proxies and nginx, every fault of the Monitor's, the heartbeats that
//! stand in for it, and the stop.
//!
//! One program for all of it, so that what has to wait waits at the same time.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod dead;
mod delivery;
mod fallback;
mod faults;
mod gaps;
mod hint;
mod nginx;
mod refused;
mod resume;
mod slow;
mod stop;
#[path = "../support/mod.rs"]
mod support;
mod way;

use harborforge_monitor::{Monitor, Transport};

use support::{Daemon, Site, has_all};

/// Everything taken so far arrives, the last of it confirmed over the WebSocket; then a stop, and
/// the books agree. Returns the last number confirmed.
async fn ends_well(monitor: &Monitor, site: &Site, mut daemon: Daemon) -> u64 {
    let last = daemon.is_confirmed("websocket").await;
    has_all(monitor, last).await;
    daemon.stop().await;
    let books = site.books();
    books.agree_with(monitor);
    assert_eq!(books.rejected(), Vec::<u64>::new());
    assert_eq!(monitor.counts().out_of_order, 0, "first arrivals come in order");
    last
}

/// Whether every sample came over the WebSocket.
fn all_by_websocket(monitor: &Monitor) -> bool {
    let accepted = monitor.accepted();
    !accepted.is_empty() && accepted.iter().all(|one| one.transport == Transport::WebSocket)
}
