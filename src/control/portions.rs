//! Reading the queue in portions without standing in anybody's way.
//!
//! Invariants: one portion is one job of the queue's thread, behind all appends; while samples are
//! being appended the reader leaves the thread alone for [`SHARE`] times as long as a portion
//! took, so that even a writer at full speed is slowed by a few percent at most.

use std::time::{Duration, Instant};

use harborforge_storage::{Error, Limits, Queue};

use crate::runtime;
use crate::store::{Store, StoreError};

/// What is read from the queue in one go.
pub const PORTION: Limits = Limits { records: 256, bytes: 256 * 1024 };

/// How many times as long as it read a reader waits while samples come in.
const SHARE: u32 = 32;
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(1);

/// How much of the queue's time a reader takes.
#[derive(Debug, Default)]
pub struct Pace {
    /// The number the next sample got when it was looked at last.
    next_seq: Option<u64>,
}

impl Pace {
    /// Has the queue's thread read a portion, and then waits as long as politeness asks.
    ///
    /// # Errors
    /// As for [`Store::call`].
    pub async fn read<T, F>(&mut self, store: &Store, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Queue) -> Result<T, Error> + Send + 'static,
    {
        let timed = move |queue: &mut Queue| {
            let begun = Instant::now();
            let read = job(queue)?;
            Ok((read, begun.elapsed()))
        };
        let (read, took) = store.call(timed).await?;
        let next_seq = store.view().queue.map(|at| at.next_seq);
        let before = std::mem::replace(&mut self.next_seq, next_seq);
        if before.is_some() && before != next_seq {
            runtime::sleep(took.saturating_mul(SHARE).min(LONGEST)).await;
        }
        Ok(read)
    }
}
