//! Posts beside the driver: samples that are replayed, each in a heartbeat of its own.
//!
//! Invariants: what is posted here carries no gaps, is in no window and no batch, and its answer
//! reaches the one who posted and nobody else.

use std::sync::{Arc, Mutex, PoisonError};

use harborforge_storage::Record;

use super::classify::{Asked, Outcome};
use super::link::Link;
use super::machine::{Answered, Proof};
use crate::sample::{Envelope, splice};

/// The link in force; clones share it. The driver replaces it when the configuration changes.
#[derive(Clone)]
pub struct Links(Arc<Mutex<Arc<Link>>>);

impl Links {
    /// Begins with this one.
    #[must_use]
    pub fn new(link: Arc<Link>) -> Self {
        Self(Arc::new(Mutex::new(link)))
    }

    /// The one in force now.
    #[must_use]
    pub fn current(&self) -> Arc<Link> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn replace(&self, link: Arc<Link>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }
}

impl Link {
    /// Sends a sample as a heartbeat of its own, marked as replayed or not (docs/PROTOCOL.md 5
    /// and 6).
    pub async fn post_again(&self, record: &Record, replayed: bool, with: Proof) -> Answered {
        let proof = match self.proof(with) {
            Ok(proof) => proof,
            Err(failure) => return Answered::Failed(failure),
        };
        let epoch = record.epoch.to_string();
        let envelope = Envelope {
            identifier: self.identifier(),
            seq: record.seq,
            epoch: &epoch,
            replayed,
            gaps: &[],
            encrypted_payload: proof.as_deref(),
        };
        let sent = vec![record.seq];
        match splice(&record.payload, &envelope) {
            Ok(body) => self.send(Asked::Single, sent, body).await,
            Err(error) => {
                let outcome = Outcome::Unacceptable(format!("cannot be sent: {error}"));
                Answered::Got { sent, outcome }
            }
        }
    }
}
