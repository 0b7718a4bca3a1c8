//! What a host can tell about itself: the seam between the figures' arithmetic and the system
//! calls, so that every failure can be tested.
//!
//! Invariant: a reader answers with a figure it has just read or with the reason why it could
//! not; it never answers with 0 or with an older figure instead.

use std::path::Path;
use std::time::Duration;

use super::baseline::Counters;

/// Why a figure could not be read: what was read, where, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// A part of a whole, both in the same unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What is in use.
    pub used: u64,
    /// What there is.
    pub total: u64,
}

impl Usage {
    /// The used part in percent; 0 of nothing is 0.
    #[must_use]
    pub fn percent(self) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        // Exact below 2^53; above, the error is far below the one decimal that is kept.
        self.used as f64 / self.total as f64 * 100.0
    }
}

/// Memory and swap, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Memory; used is total less available, as `free` counts it.
    pub ram: Usage,
    /// Swap; a total of 0 where there is none.
    pub swap: Usage,
}

/// Reads a host's raw figures. Every method may take some 100 µs, none waits for longer than its
/// documentation says.
pub trait Host: Send {
    /// CPU use of all cores since the reading before, in percent.
    ///
    /// # Errors
    /// When it cannot be read, or there is no reading before.
    fn cpu(&mut self) -> Result<f64, Unreadable>;

    /// How long until the first call of [`Host::cpu`] has an interval to speak of; zero from
    /// then on.
    fn warm_up(&self) -> Duration;

    /// The CPU's counters as they were read last; `None` when they were not, or cannot be read.
    fn counters(&self) -> Option<Counters>;

    /// Memory and swap.
    ///
    /// # Errors
    /// When they cannot be read.
    fn memory(&mut self) -> Result<Memory, Unreadable>;

    /// The file system `path` is on, in blocks of its own size: used, and used plus what
    /// unprivileged users may still take, as `df` counts it. Waits for a file system that does
    /// not answer (a dead network mount) for about a second, once.
    ///
    /// # Errors
    /// When it cannot be read.
    fn disk(&mut self, path: &Path) -> Result<Usage, Unreadable>;

    /// Seconds since boot.
    ///
    /// # Errors
    /// When it cannot be read.
    fn uptime(&mut self) -> Result<u64, Unreadable>;

    /// Load averages over 1, 5 and 15 minutes.
    ///
    /// # Errors
    /// When they cannot be read.
    fn load(&mut self) -> Result<[f64; 3], Unreadable>;
}
