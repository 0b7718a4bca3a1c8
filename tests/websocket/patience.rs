//! Links that nothing but time ends: the protocol's 45 and 60 seconds. All at once.

use futures_util::join;
use harborforge_monitor::{Fault, Options, Route};

use crate::ends_well;
use crate::support::{Site, monitor, plain, real_time, run};
use harborforge_monitor::Capability;

/// The daemon finds the first link dead, for this reason, and comes back.
async fn is_found(options: Options, fault: Fault, reason: &str) {
    let monitor = monitor(options).await;
    monitor.misbehave(fault.once().at(Route::WebSocket));
    let mut site = Site::real_time(&monitor);
    // Every sample would be one in the log.
    site.set("report_interval", "5s").fill(40);
    let mut daemon = site.start();
    daemon.complains(&[reason]).await;
    let durable = daemon.appended();
    daemon.has_appended(durable).await;
    ends_well(&monitor, &site, daemon).await;
    assert_eq!(monitor.counts().links, 2);
}

#[test]
fn dead_and_useless_links_are_found() {
    let resume = || Options { capabilities: [Capability::Resume].into(), ..plain() };
    run(async {
        join!(
            is_found(real_time(), Fault::HalfOpen { messages: 12 }, "connection is dead"),
            is_found(resume(), Fault::NeverPong, "connection is dead"),
            is_found(real_time(), Fault::NeverAck, "confirmed nothing for 60 s"),
        )
    });
}
