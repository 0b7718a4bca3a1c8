//! The stop: what is in flight is waited for, the goodbye is proper, and nothing holds it up.

use std::time::Duration;

use async_std::future::timeout;
use async_std::task::sleep;
use futures_util::future::join_all;
use futures_util::join;
use harborforge_monitor::{Fault, Options, Plan, Route};
use rustix::process::Signal;

use crate::support::{PATIENCE, Site, Tunnel, counted, monitor, plain, real_time, run};

/// The last frame of a client (RFC 6455 section 5.2) is a Close; its code.
fn close_code(tail: &[u8]) -> Option<u16> {
    // Close with two bytes of payload, masked: 88 82, the mask, the code.
    let [.., 0x88, 0x82, a, b, _, _, high, low] = tail else { return None };
    Some(u16::from_be_bytes([high ^ a, low ^ b]))
}

#[test]
fn what_is_in_flight_is_waited_for_and_the_goodbye_is_proper() {
    run(async {
        let monitor = monitor(real_time()).await;
        monitor.misbehave(Fault::AckLate { millis: 1000 }.at(Route::WebSocket));
        let proxy = Tunnel::to(monitor.addr()).await;
        let mut site = Site::real_time(&monitor);
        site.set("proxy", &format!("http://{}", proxy.address())).set("report_interval", "1h");
        site.fill(100);
        let mut daemon = site.start();
        daemon.has_appended(101).await;
        counted(&monitor, "samples", 101, |counts| counts.unique).await;
        // Stored, and the acknowledgement is on its way.
        daemon.stop().await;
        let books = site.books();
        books.agree_with(&monitor);
        assert_eq!(books.pending, 0, "the acknowledgement was waited for");
        assert_eq!(monitor.counts().duplicates, 0);
        // The daemon is gone; its last words may still be on their way through the proxy.
        let said = async {
            while !proxy.tails().iter().any(|tail| close_code(tail) == Some(1000)) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, said).await.expect("a Close of code 1000");
    });
}

/// Whatever the Monitor does, the stop is clean and within 5 seconds.
async fn stops(options: Options, fault: impl Into<Plan>, signal: Signal) {
    let monitor = monitor(options).await;
    let plan = fault.into();
    let told = format!("{plan:?}");
    monitor.misbehave(plan);
    let site = Site::websocket(&monitor);
    site.fill(100);
    let mut daemon = site.start();
    daemon.has_appended(101).await;
    let met = |books: &harborforge_monitor::Journal| books.counts().faults > 0;
    let met = monitor.wait_for(met, PATIENCE).await;
    met.unwrap_or_else(|error| panic!("{told}: {error}"));
    daemon.stop_by(signal).await;
    let books = site.books();
    books.agree_with(&monitor);
    assert!(books.pending > 0, "{told}: {books:?}");

    // And what was left arrives with the next start.
    monitor.heal();
    let fresh = monitor.issue_challenge();
    let mut site = site;
    site.set_secret("challenge_uuid", &fresh);
    let mut daemon = site.start();
    daemon.has_appended(102).await;
    crate::ends_well(&monitor, &site, daemon).await;
}

#[test]
fn a_stop_is_quick_whatever_the_link_does() {
    run(async {
        join!(
            join_all([
                stops(real_time(), Fault::HalfOpen { messages: 0 }, Signal::TERM),
                stops(real_time(), Fault::HalfOpen { messages: 10 }, Signal::TERM),
                stops(real_time(), Fault::NeverAck, Signal::INT),
                stops(real_time(), Fault::Silent, Signal::TERM),
            ]),
            stops(plain(), Fault::NeverPong, Signal::TERM),
            stops(real_time(), Fault::Hang.at(Route::WebSocket), Signal::TERM),
        )
    });
}
