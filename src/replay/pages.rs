//! Reads delivered or rejected samples out of a queue that goes on working, a few at a time.
//!
//! Invariants: what was there at the beginning stays there while it is read, and nothing that
//! came later is shown: the numbers are pinned, and the pin is renewed before it runs out (see
//! [`Options::pin_limit`]); what is held is bounded by what was kept at the beginning. A portion
//! is small, so a Monitor that takes its time over each sample does not outlast the pin.

use std::time::Instant;

use harborforge_storage::{Error, Limits, Options, Queue, Record, Set, Snapshot};

use super::Replay;
use crate::store::{Store, StoreError};

/// What is read in one go to be posted one by one.
pub(super) const FEW: Limits = Limits { records: 16, bytes: 256 * 1024 };
/// What is read in one go to be counted.
pub(super) const MANY: Limits = Limits { records: 512, bytes: 512 * 1024 };

/// The samples a replay asks for, oldest first.
pub(super) struct Pages {
    store: Store,
    sets: &'static [Set],
    wanted: Replay,
    portion: Limits,
    end: u64,
    held: Option<(Snapshot, Instant)>,
    /// The last number that has been looked at.
    seen_to: u64,
}

impl Pages {
    /// Samples of the one set that the replay wants, in portions of this size, up to the number
    /// `end`; without it up to where the set ends now. Rejected ones the cursor has not passed are
    /// left out.
    pub(super) async fn open(
        store: &Store,
        set: &'static [Set],
        wanted: &Replay,
        portion: Limits,
        end: Option<u64>,
    ) -> Result<Self, StoreError> {
        let (from, to) = wanted.numbers();
        let now = store.now();
        let (snapshot, end) = store
            .call(move |queue| {
                let end = to.min(end.unwrap_or_else(|| last(queue, set)));
                Ok((queue.snapshot(set, from..=end, now), end))
            })
            .await?;
        Ok(Self {
            store: store.clone(),
            sets: set,
            wanted: wanted.clone(),
            portion,
            end,
            held: Some((snapshot, Instant::now())),
            seen_to: from.saturating_sub(1),
        })
    }

    /// The last number there can be.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The next samples; none at the end.
    pub(super) async fn next(&mut self) -> Result<Vec<Record>, StoreError> {
        while let Some((snapshot, since)) = self.held.take() {
            let (snapshot, since) = self.renewed(snapshot, since).await?;
            let (end, portion) = (self.end, self.portion);
            let (records, seen_to, snapshot) = self
                .store
                .call(move |queue| {
                    let mut snapshot = snapshot;
                    match queue.read_snapshot(&mut snapshot, portion) {
                        Ok(shown) => {
                            let seen = shown.entries.last().map(|entry| entry.record.seq);
                            let records = shown.entries.into_iter().map(|entry| entry.record);
                            let records: Vec<Record> = records.collect();
                            if shown.done {
                                queue.end_snapshot(snapshot);
                                return Ok((records, end, None));
                            }
                            Ok((records, seen.unwrap_or(0), Some(snapshot)))
                        }
                        Err(error) => {
                            queue.end_snapshot(snapshot);
                            Err(error)
                        }
                    }
                })
                .await?;
            self.held = snapshot.map(|snapshot| (snapshot, since));
            self.seen_to = self.seen_to.max(seen_to);
            let wanted: Vec<_> =
                records.into_iter().filter(|r| self.wanted.takes(r.stamp.wall_ms)).collect();
            if !wanted.is_empty() {
                return Ok(wanted);
            }
        }
        Ok(Vec::new())
    }

    /// A pin in its second half is replaced by another for the numbers that are left.
    async fn renewed(
        &self,
        snapshot: Snapshot,
        since: Instant,
    ) -> Result<(Snapshot, Instant), StoreError> {
        if since.elapsed() < Options::default().pin_limit / 2 {
            return Ok((snapshot, since));
        }
        let (sets, rest, now) =
            (self.sets, self.seen_to.saturating_add(1)..=self.end, self.store.now());
        let fresh = self.store.call(move |queue| {
            let fresh = queue.snapshot(sets, rest, now);
            queue.end_snapshot(snapshot);
            Ok(fresh)
        });
        Ok((fresh.await?, Instant::now()))
    }

    /// Gives back what is held.
    pub(super) async fn close(self) {
        if let Some((snapshot, _)) = self.held {
            let given_back = move |queue: &mut Queue| {
                queue.end_snapshot(snapshot);
                Ok::<_, Error>(())
            };
            // Should that fail, the pin runs out by itself.
            let _ = self.store.call(given_back).await;
        }
    }
}

/// The last number a replay of this set may speak of.
fn last(queue: &Queue, set: &[Set]) -> u64 {
    let at = queue.position();
    if set.contains(&Set::Pending) { at.next_seq.saturating_sub(1) } else { at.cursor }
}
