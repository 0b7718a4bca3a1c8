//! Answers `verify`: reads the whole queue in portions while it goes on working.

use harborforge_storage::{Audit, Audited, Error, Queue};

use super::portions::{PORTION, Pace};
use super::protocol::Refusal;
use super::server::{Client, Gone, of_store};
use crate::store::{Store, StoreError};

/// Items: what was found in each generation; the end: in the whole.
pub(super) async fn answer(
    client: &mut Client,
    store: &Store,
) -> Result<Result<(), Refusal>, Gone> {
    let now = store.now();
    let mut audit = match store.call(move |queue| queue.audit(now)).await {
        Ok(audit) => audit,
        Err(error) => return Ok(Err(of_store(&error))),
    };
    let mut pace = Pace::default();
    loop {
        let job = move |queue: &mut Queue| {
            let mut audit: Audit = audit;
            let read = queue.audit_on(&mut audit, PORTION.records);
            Ok::<_, Error>((read, audit))
        };
        let (read, rest) = match pace.read(store, job).await {
            Ok(read) => read,
            Err(error) => return Ok(Err(of_store(&error))),
        };
        audit = rest;
        match read {
            Ok(Audited::More) => {
                if client.has_gone().await {
                    give_back(store, audit).await;
                    return Err(Gone);
                }
            }
            Ok(Audited::Generation(report)) => {
                if client.item(&report).await.is_err() {
                    give_back(store, audit).await;
                    return Err(Gone);
                }
            }
            Ok(Audited::Whole(report)) => {
                give_back(store, audit).await;
                client.end(&report).await?;
                return Ok(Ok(()));
            }
            Err(error) => {
                give_back(store, audit).await;
                return Ok(Err(of_store(&StoreError::Queue(error))));
            }
        }
    }
}

/// Should that fail, the pin runs out by itself.
async fn give_back(store: &Store, audit: Audit) {
    let given_back = move |queue: &mut Queue| {
        queue.end_audit(audit);
        Ok(())
    };
    let _ = store.call(given_back).await;
}
