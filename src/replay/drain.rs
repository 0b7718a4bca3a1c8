//! Looks on while the sender drains the backlog, and knows when nothing moves any more.

use std::time::SystemTime;

use harborforge_storage::{Counters, Limits, Position, Set};

use super::patience::Patience;
use super::{BEAT, Ended, Progress, Report, WITHIN, Watcher};
use crate::health::{Health, LinkState};
use crate::runtime::{self, Clock};
use crate::store::{Store, StoreError, chain};

/// Waits until what is pending now has been dealt with, until whoever watches has enough, or
/// until nothing moves: [`super::TRIES`] failures in a row, or [`WITHIN`]. Sends nothing itself.
pub async fn watch(store: &Store, health: &Health, watcher: &mut impl Watcher) -> Report {
    let clock = Clock::start();
    let mut progress = Progress::default();
    let looked = || store.call(|queue| Ok((queue.position(), queue.counters())));
    let begun = match looked().await {
        Ok(begun) => begun,
        Err(error) => return storage(progress, &error),
    };
    let mut patience = Patience::new(clock.mono(), begun.0.cursor, health.counts().failures);
    loop {
        let (at, counters) = match looked().await {
            Ok(now) => now,
            Err(error) => return storage(progress, &error),
        };
        progress = measure(begun, at, counters);
        if progress.left == 0 {
            return Report { progress, ended: Ended::Done, reason: None };
        }
        let now = clock.mono();
        // A rejection ahead of the cursor is progress too.
        let settled = at.cursor.saturating_add(counters.rejected);
        let failures = patience.failures(now, settled, health.counts().failures);
        let link = health.link();
        if failures > 0 {
            progress.trouble = link.last_error.map(|(_, said)| said);
            let wait =
                link.next_attempt_at.and_then(|at| at.duration_since(SystemTime::now()).ok());
            progress.retry_in_ms =
                wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        if patience.is_over(now, std::time::Duration::ZERO, failures) {
            return given_up(progress, store, health).await;
        }
        if !watcher.shows(&progress).await {
            return Report { progress, ended: Ended::Interrupted, reason: None };
        }
        runtime::sleep(BEAT / 2).await;
    }
}

/// What has become of what was pending at the beginning.
fn measure(begun: (Position, Counters), at: Position, counters: Counters) -> Progress {
    let (from, before) = begun;
    let newer = at.next_seq.saturating_sub(from.next_seq);
    let samples = from.pending;
    let left = if at.cursor.saturating_add(1) >= from.next_seq {
        0
    } else {
        at.pending.saturating_sub(newer).clamp(1, samples.max(1))
    };
    let settled = samples.saturating_sub(left);
    let refused = counters.rejected.saturating_sub(before.rejected).min(settled);
    let delivered = counters.acknowledged.saturating_sub(before.acknowledged);
    let delivered = delivered.min(settled - refused);
    Progress {
        samples,
        delivered,
        refused,
        lost: settled - refused - delivered,
        left,
        next: (left > 0).then(|| at.cursor.saturating_add(1)),
        trouble: None,
        retry_in_ms: None,
    }
}

async fn given_up(progress: Progress, store: &Store, health: &Health) -> Report {
    // A queue that cannot be read looks like a Monitor that cannot be reached.
    let one = Limits { records: 1, bytes: usize::MAX };
    if let Err(error) = store.call(move |queue| queue.read(Set::Pending, 0, one)).await {
        return storage(progress, &error);
    }
    let ended = if health.probing() {
        Ended::Unacceptable
    } else if health.link().state == LinkState::Refused {
        Ended::Refused
    } else {
        Ended::Unreachable
    };
    let nothing = || format!("nothing was confirmed for {} s", WITHIN.as_secs());
    let reason = Some(progress.trouble.clone().unwrap_or_else(nothing));
    Report { progress, ended, reason }
}

fn storage(progress: Progress, error: &StoreError) -> Report {
    Report { progress, ended: Ended::Storage, reason: Some(chain(error)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_add_up_whatever_comes_meanwhile() {
        let counters =
            |acknowledged, rejected| Counters { acknowledged, rejected, ..Counters::default() };
        let begun = (Position { cursor: 10, next_seq: 21, pending: 10 }, counters(5, 1));
        let parts = |at, counters| {
            let p = measure(begun, at, counters);
            assert_eq!(p.delivered + p.refused + p.lost + p.left, p.samples);
            (p.delivered, p.refused, p.lost, p.left, p.next)
        };
        let at = |cursor, next_seq, pending| Position { cursor, next_seq, pending };
        assert_eq!(parts(at(10, 21, 10), counters(5, 1)), (0, 0, 0, 10, Some(11)));
        assert_eq!(parts(at(10, 25, 14), counters(5, 1)), (0, 0, 0, 10, Some(11)));
        assert_eq!(parts(at(14, 23, 7), counters(8, 2)), (3, 1, 1, 5, Some(15)));
        assert_eq!(parts(at(20, 23, 2), counters(15, 1)), (10, 0, 0, 0, None));
        assert_eq!(parts(at(22, 23, 0), counters(17, 1)), (10, 0, 0, 0, None));
        let empty = (at(10, 11, 0), counters(0, 0));
        assert_eq!(measure(empty, at(11, 13, 1), counters(1, 0)).left, 0);
    }
}
