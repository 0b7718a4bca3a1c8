//! What is read from the queue to be sent: samples, and the gaps that have to be told.
//!
//! Invariants: a gap is told with the first sample of every load until one that carried it is
//! confirmed; only then is it noted, durably, as told. At most [`GAPS_AT_ONCE`] go along, so a
//! sample stays within its size.

use std::sync::{Mutex, PoisonError};

use harborforge_storage::{self as storage, Limits, Record, Set};

use crate::sample::{Gap, GapReason};
use crate::store::{Store, StoreError};

/// Gaps one sample carries; in JSON they take less than [`crate::sample::ENVELOPE_ROOM`].
const GAPS_AT_ONCE: usize = 48;

/// Samples to send, oldest first, and the gaps to tell with the first of them.
pub(super) struct Load {
    pub(super) records: Vec<Record>,
    gaps: Vec<storage::Gap>,
}

impl Load {
    /// Reads the oldest pending samples from `from` on.
    ///
    /// # Errors
    /// When the queue cannot be read.
    pub(super) async fn read(store: &Store, from: u64, limits: Limits) -> Result<Self, StoreError> {
        store
            .call(move |queue| {
                let records = queue.read(Set::Pending, from, limits)?;
                // After the reading, which may have found a gap.
                let mut gaps = queue.unannounced_gaps();
                gaps.truncate(GAPS_AT_ONCE);
                Ok(Self { records, gaps })
            })
            .await
    }

    /// The gaps to tell with the record at this place.
    pub(super) fn gaps_for(&self, place: usize) -> Vec<Gap> {
        if place > 0 {
            return Vec::new();
        }
        let told = |gap: &storage::Gap| Gap {
            from: gap.from,
            to: gap.to,
            reason: match gap.reason {
                storage::GapReason::QueueFull => GapReason::QueueFull,
                storage::GapReason::Expired => GapReason::Expired,
                storage::GapReason::Corrupt => GapReason::Corrupt,
            },
            maybe_delivered: gap.maybe_delivered,
        };
        self.gaps.iter().map(told).collect()
    }
}

/// Gaps that are on their way, each with the number of the sample that carries them.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Vec<(u64, Vec<storage::Gap>)>>);

impl Told {
    /// The first sample of the load is on its way.
    pub(super) fn note(&self, load: &Load) {
        let Some(first) = load.records.first().filter(|_| !load.gaps.is_empty()) else { return };
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Sent again, it is still the same news.
        told.retain(|(seq, _)| *seq != first.seq);
        told.push((first.seq, load.gaps.clone()));
    }

    /// The gaps carried by samples up to this number, which is confirmed.
    pub(super) fn confirmed(&self, up_to: u64) -> Vec<storage::Gap> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (confirmed, rest) =
            std::mem::take(&mut *told).into_iter().partition(|(s, _)| *s <= up_to);
        *told = rest;
        let confirmed: Vec<(u64, Vec<storage::Gap>)> = confirmed;
        let mut gaps: Vec<storage::Gap> =
            confirmed.into_iter().flat_map(|(_, gaps)| gaps).collect();
        gaps.dedup();
        gaps
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use harborforge_storage::Stamp;

    fn load(seq: u64, gaps: &[(u64, u64)]) -> Load {
        loaded(seq, &["{}"], gaps)
    }

    /// Samples with these payloads, numbered from `first` on.
    pub(in crate::sender) fn loaded(first: u64, payloads: &[&str], gaps: &[(u64, u64)]) -> Load {
        let record = |(seq, payload): (u64, &&str)| Record {
            seq,
            epoch: "0198f0c2-0000-4000-8000-000000000000".parse().unwrap(),
            stamp: Stamp { wall_ms: 0, boot_ms: 0, boot_id: [0; 16] },
            payload: payload.as_bytes().to_vec(),
        };
        let gap = |(from, to): &(u64, u64)| storage::Gap {
            from: *from,
            to: *to,
            reason: storage::GapReason::QueueFull,
            maybe_delivered: false,
            wall_ms: 0,
            announced: false,
        };
        let records = (first..).zip(payloads).map(record).collect();
        Load { records, gaps: gaps.iter().map(gap).collect() }
    }

    #[test]
    fn a_gap_is_told_once_its_carrier_is_confirmed_and_not_before() {
        let told = Told::default();
        told.note(&load(10, &[(1, 9)]));
        told.note(&load(10, &[(1, 9)]));
        told.note(&load(12, &[]));
        assert!(told.confirmed(9).is_empty());
        assert_eq!(told.confirmed(12).len(), 1);
        assert!(told.confirmed(12).is_empty(), "once is enough");
    }

    #[test]
    fn the_most_gaps_fit_the_envelope() {
        let most = load(1, &[(u64::MAX - 1, u64::MAX); GAPS_AT_ONCE]);
        let text = serde_json::to_vec(&most.gaps_for(0)).unwrap();
        assert!(text.len() < crate::sample::ENVELOPE_ROOM * 3 / 4, "{}", text.len());
        assert!(most.gaps_for(1).is_empty());
    }
}
