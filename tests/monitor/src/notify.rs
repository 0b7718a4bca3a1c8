//! Waking those who wait for a change.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Locks, whatever became of the last holder: what is kept under these locks is whole between
/// two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakers of those who wait.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    waiting: Mutex<Vec<Waker>>,
}

impl Notify {
    /// Wakes everyone.
    pub fn wake(&self) {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        for waker in waiting {
            waker.wake();
        }
    }

    /// Waits until `holds`, which is asked again after every [`Notify::wake`].
    pub async fn until(&self, mut holds: impl FnMut() -> bool) {
        poll_fn(|context| {
            // Registered before the look, so that a change in between is not missed.
            let waker = context.waker();
            let mut waiting = lock(&self.waiting);
            if !waiting.iter().any(|known| known.will_wake(waker)) {
                waiting.push(waker.clone());
            }
            drop(waiting);
            if holds() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
