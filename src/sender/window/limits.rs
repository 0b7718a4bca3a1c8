//! Sizes of a window and of its parts.

use crate::protocol::{WINDOW_BYTES, WINDOW_SAMPLES};
use crate::sample::MAX_ENCODED;

/// A window is sent in so many parts.
const PARTS: usize = 4;

/// So many samples, and so many bytes of their telemetry objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Samples.
    pub samples: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Limits {
    /// The window when all is well.
    pub const FULL: Self = Self { samples: WINDOW_SAMPLES, bytes: WINDOW_BYTES };

    /// The limits for this many samples, with the bytes in proportion. Two of the largest samples
    /// always fit, so that small ones never have to wait for bytes.
    pub(super) fn of(samples: usize) -> Self {
        let samples = samples.clamp(1, WINDOW_SAMPLES);
        let bytes = (WINDOW_BYTES / WINDOW_SAMPLES * samples).max(2 * MAX_ENCODED);
        Self { samples, bytes }
    }

    /// What is sent at once. Holds any one sample.
    pub(super) fn part(self) -> Self {
        Self {
            samples: (self.samples / PARTS).max(1),
            bytes: (self.bytes / PARTS).max(MAX_ENCODED),
        }
    }

    /// What is left; never below nothing.
    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            samples: self.samples.saturating_sub(other.samples),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// More of both.
    pub(super) fn add(&mut self, samples: usize, bytes: usize) {
        self.samples += samples;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}
