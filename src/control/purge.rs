//! Answers `purge`: deletes kept samples on request. Only root and the daemon's own user get here.

use harborforge_storage as storage;

use super::protocol::{Purge, PurgeEnd, Refusal};
use super::server::{Client, Gone, of_store};
use crate::store::Store;

impl From<Purge> for storage::Purge {
    fn from(what: Purge) -> Self {
        match what {
            Purge::Rejected => Self::Rejected,
            Purge::Sent => Self::Sent,
            Purge::Quarantine => Self::Quarantine,
        }
    }
}

pub(super) async fn answer(
    client: &mut Client,
    what: Purge,
    dry_run: bool,
    store: &Store,
) -> Result<Result<(), Refusal>, Gone> {
    let now = store.now();
    let purge = move |queue: &mut storage::Queue| {
        if dry_run { Ok(queue.purgeable(what.into())) } else { queue.purge(what.into(), now) }
    };
    let purged = match store.call(purge).await {
        Ok(purged) => purged,
        Err(error) => return Ok(Err(of_store(&error))),
    };
    if !dry_run {
        let (samples, bytes) = (purged.gone.records, purged.gone.bytes);
        tracing::info!(?what, samples, bytes, "purged on request");
    }
    client.end(&PurgeEnd::from(purged)).await?;
    Ok(Ok(()))
}
