//! Samples the Monitor never takes: set aside, and all others arrive.

use std::collections::BTreeSet;

use harborforge_monitor::{Capability, Fault, Options};

use crate::support::{Site, counted, monitor, plain};

/// The samples the Monitor refuses end among the rejected with its reason, all others arrive.
pub async fn sets_aside(capabilities: &[Capability], culprits: &[u64], fill: u64) {
    let capabilities = capabilities.iter().copied().collect();
    let monitor = monitor(Options { capabilities, ..plain() }).await;
    monitor.misbehave(Fault::reject(culprits.iter().copied()));
    let site = Site::real_time(&monitor);
    site.fill(fill);
    let mut daemon = site.start();
    for _ in culprits {
        daemon
            .says(
                "the Monitor refuses this sample for good; it is kept, see `dump --state rejected`",
            )
            .await;
    }
    let last = daemon.appended().max(fill) + 1;
    daemon.has_appended(last).await;
    counted(&monitor, "samples", last - culprits.len() as u64, |counts| counts.unique).await;
    daemon.is_confirmed("websocket").await;
    daemon.stop().await;
    let books = site.books();
    books.agree_with(&monitor);
    assert_eq!(books.rejected(), culprits);
    let missing: BTreeSet<u64> =
        monitor.journal(|books| (1..=last).filter(|seq| !books.has_seq(*seq)).collect());
    assert_eq!(missing, culprits.iter().copied().collect());
    for rejected in books.rejected {
        assert!(rejected.reason.contains("refused on request"), "{rejected:?}");
    }
}
