//! What nothing but time brings out: links that are dead, or confirm nothing, and a refused sample
//! that has to be found among others; the protocol's 45 and 60 seconds. All at once, and under a
//! name that the test runner takes first, since the others fit into that minute.

use futures_util::join;
use harborforge_monitor::{Capability, Fault, Options, Route};

use crate::ends_well;
use crate::refused::sets_aside;
use crate::support::{Site, monitor, plain, real_time, run};

/// The daemon finds the first link dead, for this reason, and comes back.
async fn is_found(options: Options, fault: Fault, reason: &str) {
    let monitor = monitor(options).await;
    monitor.misbehave(fault.once().at(Route::WebSocket));
    let mut site = Site::real_time(&monitor);
    // Every sample would be one in the log.
    site.set("report_interval", "5s").fill(40);
    let mut daemon = site.start();
    daemon.complains(&[reason]).await;
    ends_well(&monitor, &site, daemon).await;
    assert_eq!(monitor.counts().links, 2);
}

#[test]
fn links_useless_ones_and_refused_samples() {
    let resume = || Options { capabilities: [Capability::Resume].into(), ..plain() };
    run(async {
        join!(
            is_found(real_time(), Fault::HalfOpen { messages: 12 }, "connection is dead"),
            is_found(resume(), Fault::NeverPong, "connection is dead"),
            is_found(real_time(), Fault::NeverAck, "confirmed nothing for 60 s"),
            // The window is halved nine times, with a barrier's time between, before the culprit
            // is alone; then it is tried three times.
            sets_aside(&[Capability::Resume], &[1], 6),
            // Rejected by number they are set aside at once.
            sets_aside(&[Capability::Ack, Capability::Resume], &[3, 30], 40),
            sets_aside(&[Capability::Ack], &[1, 40], 40),
        )
    });
}
