//! The daemon's own figures: what is measured where it happens, kept in one place.
//!
//! Pure but for the lock around it; moments are passed in. Invariants: nothing depends on it; a
//! note costs its caller a few assignments; memory is bounded, whatever waits and however long
//! ([`MOST_WAITING`], [`POINTS`]); all durations are monotonic, so no clock that jumps shows in them.

mod histogram;
mod text;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use histogram::{Bucket, Histogram, Latency};
pub use text::prometheus;

/// Samples whose way to the confirmation is measured at a time. Of more that wait, the oldest are
/// not measured.
pub const MOST_WAITING: usize = 4096;

/// Samples the course speaks of.
pub const POINTS: usize = 60;

/// What one sample adds to the course.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Samples that waited when it was taken.
    pub depth: u64,
    /// Its `cpu_pct`; `None` when that could not be read.
    pub cpu_pct: Option<f64>,
}

/// The newest samples' course, the oldest first; a place for each sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// Samples that waited when each was taken.
    pub depth: Vec<u64>,
    /// `cpu_pct` of each.
    pub cpu_pct: Vec<Option<f64>>,
}

/// What is read of it at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// How long appends took until they were on disk, by call.
    pub append: Latency,
    /// From the append to the confirmation, by sample. Those that waited at the start of the
    /// daemon are not measured.
    pub confirm: Latency,
    /// Samples of which the Monitor said that it has them already.
    pub duplicates: u64,
    /// The course.
    pub course: Course,
    /// OpenClaw's version and the number of its agents, as the newest sample has them.
    pub openclaw: (Option<String>, u64),
}

#[derive(Debug, Default)]
struct Inner {
    append: Histogram,
    confirm: Histogram,
    /// Numbers, ascending, and when they were appended.
    waiting: VecDeque<(u64, Instant)>,
    duplicates: u64,
    course: VecDeque<Point>,
    openclaw: (Option<String>, u64),
}

/// A handle to them; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<Inner>>);

impl Registry {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves it as it was: at worst a figure is old.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These numbers were appended `now`, which took so long.
    pub fn appended(&self, numbers: RangeInclusive<u64>, took: Duration, now: Instant) {
        let mut inner = self.inner();
        inner.append.observe(took);
        inner.waiting.extend(numbers.map(|seq| (seq, now)));
        let surplus = inner.waiting.len().saturating_sub(MOST_WAITING);
        inner.waiting.drain(..surplus);
    }

    /// Everything up to and including this number was confirmed `now`.
    pub fn confirmed(&self, up_to: u64, now: Instant) {
        let mut inner = self.inner();
        let count = inner.waiting.partition_point(|(seq, _)| *seq <= up_to);
        let Inner { waiting, confirm, .. } = &mut *inner;
        for (_, appended) in waiting.drain(..count) {
            confirm.observe(now.saturating_duration_since(appended));
        }
    }

    /// These will not be confirmed: they were rejected or given up.
    pub fn dropped(&self, numbers: &RangeInclusive<u64>) {
        self.inner().waiting.retain(|(seq, _)| !numbers.contains(seq));
    }

    /// So many more samples the Monitor had already.
    pub fn duplicates(&self, samples: u64) {
        self.inner().duplicates += samples;
    }

    /// A sample was taken.
    pub fn sampled(&self, point: Point, openclaw: (Option<String>, u64)) {
        let mut inner = self.inner();
        inner.course.push_back(point);
        let surplus = inner.course.len().saturating_sub(POINTS);
        inner.course.drain(..surplus);
        inner.openclaw = openclaw;
    }

    /// All of them.
    #[must_use]
    pub fn read(&self) -> Reading {
        let inner = self.inner();
        Reading {
            append: inner.append.read(),
            confirm: inner.confirm.read(),
            duplicates: inner.duplicates,
            course: Course {
                depth: inner.course.iter().map(|point| point.depth).collect(),
                cpu_pct: inner.course.iter().map(|point| point.cpu_pct).collect(),
            },
            openclaw: inner.openclaw.clone(),
        }
    }
}

/// What the process takes, as the kernel counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Memory in use (resident), in bytes.
    pub rss_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl Process {
    /// Of this process, from `/proc`; what cannot be read is `None`.
    #[must_use]
    pub fn of_self() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let fds = std::fs::read_dir("/proc/self/fd").ok();
        // One of them is the directory that is being read.
        let open_fds = fds.map(|fds| (fds.count() as u64).saturating_sub(1));
        Self { open_fds, ..Self::of_status(&status) }
    }

    fn of_status(status: &str) -> Self {
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let rss_bytes = number("VmRSS:").map(|kib| kib.saturating_mul(1024));
        Self { rss_bytes, open_fds: None, threads: number("Threads:") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_way_to_the_confirmation_is_measured_for_what_arrives_alone() {
        let (registry, begun) = (Registry::default(), Instant::now());
        registry.appended(1..=3, ms(2), begun);
        registry.appended(4..=4, ms(3), begun + ms(1000));
        registry.dropped(&(2..=2));
        registry.confirmed(3, begun + ms(2000));
        assert_eq!((registry.read().confirm.count, registry.read().append.count), (2, 2));
        registry.confirmed(9, begun + ms(2000));
        let read = registry.read();
        assert_eq!(read.confirm.count, 3);
        assert!((read.confirm.sum_seconds - 5.0).abs() < 1e-9, "{read:?}");
    }

    #[test]
    fn memory_is_bounded() {
        let (registry, begun) = (Registry::default(), Instant::now());
        registry.appended(1..=10 * MOST_WAITING as u64, ms(1), begun);
        assert_eq!(registry.inner().waiting.len(), MOST_WAITING);
        registry.confirmed(u64::MAX, begun);
        assert_eq!(registry.read().confirm.count, MOST_WAITING as u64);
        for depth in 0..100 {
            registry.sampled(Point { depth, cpu_pct: None }, (None, 0));
        }
        let course = registry.read().course;
        assert_eq!((course.depth.len(), course.depth.first()), (POINTS, Some(&40)));
    }

    #[test]
    fn the_process_knows_what_it_takes() {
        let process = Process::of_self();
        assert!(process.rss_bytes.is_some_and(|bytes| bytes > 1 << 20), "{process:?}");
        assert!(process.open_fds.is_some_and(|count| count >= 3), "{process:?}");
        assert!(process.threads.is_some_and(|count| count >= 1), "{process:?}");
        let status = Process::of_status("VmRSS:\t  12 kB\nThreads:\t5\n");
        assert_eq!((status.rss_bytes, status.threads), (Some(12 * 1024), Some(5)));
        assert_eq!(Process::of_status(""), Process::default());
    }
}
