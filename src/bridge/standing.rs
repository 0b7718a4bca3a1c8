//! Where the bridge listens, or why it does not: told by the bridge, read by `status`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `bridge_listen`.
    pub configured: SocketAddr,
    /// The address it listens on; `None` while it does not. The port differs from the configured
    /// one where that is 0.
    pub listening: Option<SocketAddr>,
    /// Why it does not listen.
    pub last_error: Option<String>,
    /// When that is tried again.
    pub next_attempt_at: Option<SystemTime>,
}

/// A handle to it; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Standing(Arc<Mutex<Option<Place>>>);

impl Standing {
    /// What is to be told; `None`: the bridge is off.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.lock().clone()
    }

    pub(super) fn set(&self, place: Option<Place>) {
        *self.lock() = place;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Place>> {
        // Whole values are put in, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
