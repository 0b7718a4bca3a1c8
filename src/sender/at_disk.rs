//! Whether the sender waits for the disk of `data_dir`.
//!
//! A disk may hang for minutes. The sender then answers nobody, and lives all the same: ended for
//! it, the daemon would lose the samples that wait in memory.
//!
//! Invariants: the sender is one task and waits for one thing at a time; a wait ends with its guard,
//! also when the sender is dropped or panics, so that one that is gone never seems to wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A handle to it; clones share it.
#[derive(Debug, Clone, Default)]
pub struct AtDisk(
    /// Beginnings and ends of waits: odd during one.
    Arc<AtomicU64>,
);

/// A wait; it is over when this is dropped.
#[must_use]
pub(super) struct Wait(Arc<AtomicU64>);

impl AtDisk {
    /// A wait begins.
    pub(super) fn wait(&self) -> Wait {
        self.0.fetch_add(1, Ordering::Relaxed);
        Wait(self.0.clone())
    }

    /// Which wait is under way, if one is; no two have the same number.
    #[must_use]
    pub fn waits(&self) -> Option<u64> {
        let count = self.0.load(Ordering::Relaxed);
        (count % 2 == 1).then_some(count)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_seen_while_it_lasts_and_has_a_number_of_its_own() {
        let at_disk = AtDisk::default();
        assert_eq!(at_disk.waits(), None);
        let wait = at_disk.wait();
        let first = at_disk.clone().waits();
        assert!(first.is_some());
        drop(wait);
        assert_eq!(at_disk.waits(), None);
        let _wait = at_disk.wait();
        assert!(at_disk.waits().is_some() && at_disk.waits() != first);
    }
}
