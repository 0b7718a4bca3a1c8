//! Whether somebody is at something that may last, such as waiting for a disk that hangs.
//!
//! Invariants: who is watched does one thing at a time; a thing ends with its guard, also by a panic
//! or when a task is dropped, so that one that is gone never seems busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A handle to it; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Busy(
    /// Beginnings and ends: odd in between.
    Arc<AtomicU64>,
);

/// One thing that is done; it is over when this is dropped.
#[must_use]
pub struct Doing(Arc<AtomicU64>);

impl Busy {
    /// Something begins.
    pub fn begin(&self) -> Doing {
        self.0.fetch_add(1, Ordering::Relaxed);
        Doing(self.0.clone())
    }

    /// What is being done, as a number that no other thing has; `None` when nothing is.
    #[must_use]
    pub fn at(&self) -> Option<u64> {
        let count = self.0.load(Ordering::Relaxed);
        (count % 2 == 1).then_some(count)
    }
}

impl Drop for Doing {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_seen_while_it_lasts_and_has_a_number_of_its_own() {
        let busy = Busy::default();
        assert_eq!(busy.at(), None);
        let doing = busy.begin();
        let first = busy.clone().at();
        assert!(first.is_some());
        drop(doing);
        assert_eq!(busy.at(), None);
        let _doing = busy.begin();
        assert!(busy.at().is_some() && busy.at() != first);
    }
}
