//! What the daemon's first `cpu_pct` is measured from: that sample is taken at once, and a share
//! of the processors needs an interval (pure).
//!
//! Invariants:
//! - The interval is one that these very counters ran through: from the reading that was kept at
//!   the last stop, where boot and file are the same, or from boot on, where they began at 0.
//!   Where neither holds there is no figure.
//! - It is never longer than [`LONGEST`], and never shorter than that of any other figure.
//! - Times are time since boot. The wall clock, which people set, is not asked.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sysinfo::MINIMUM_CPU_UPDATE_INTERVAL;

use super::proc::Ticks;

/// An average over more than this says nothing about now.
pub const LONGEST: Duration = Duration::from_secs(600);

/// Counters that run from boot on may be this much behind or ahead of the clock, or a tenth of the
/// time: processors are switched on one after another.
const APART: Duration = Duration::from_secs(1);

/// The CPU's counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The file they stand in.
    pub source: PathBuf,
    /// Milliseconds since boot, time in suspend included.
    pub boot_ms: u64,
    /// What they count.
    pub ticks: Ticks,
}

/// The same as it outlives the process that read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The boot that the counters run from; zeros when it is unknown.
    pub boot_id: [u8; 16],
    /// The counters.
    pub counters: Counters,
}

/// The first figure in percent; `None` when there is no interval to speak of. `per_second` is how
/// many ticks all processors together make in a second, `None` when that is not known.
#[must_use]
pub fn first_figure(
    now: &Reading,
    remembered: Option<&Reading>,
    per_second: impl FnOnce() -> Option<u64>,
) -> Option<f64> {
    let before = remembered
        .filter(|before| continues(before, now))
        .map(|before| before.counters.ticks)
        .or_else(|| since_boot(&now.counters, per_second))?;
    now.counters.ticks.busy_since(before)
}

/// Whether the counters ran on from one reading to the other.
fn continues(before: &Reading, now: &Reading) -> bool {
    let passed = now.counters.boot_ms.checked_sub(before.counters.boot_ms);
    before.boot_id == now.boot_id
        && now.boot_id != [0; 16]
        && before.counters.source == now.counters.source
        && passed.is_some_and(is_an_interval)
        && now.counters.ticks.have_run_on_since(before.counters.ticks)
}

/// The counters as they were at boot, when that is not long ago. Those of a container or a sandbox
/// may have begun at another time, or stand still: then they are not where the clock is.
fn since_boot(now: &Counters, per_second: impl FnOnce() -> Option<u64>) -> Option<Ticks> {
    if !is_an_interval(now.boot_ms) {
        return None;
    }
    let up = Duration::from_millis(now.boot_ms).as_secs_f64();
    let counted = now.ticks.all() as f64 / per_second()? as f64;
    let apart = APART.as_secs_f64().max(up / 10.0);
    ((counted - up).abs() <= apart).then(Ticks::default)
}

fn is_an_interval(milliseconds: u64) -> bool {
    (MINIMUM_CPU_UPDATE_INTERVAL..=LONGEST).contains(&Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: [u8; 16] = [7; 16];
    const MINUTE: u64 = 60_000;

    /// A host with two processors at 100 ticks a second, long after boot.
    fn at(boot_ms: u64, all: u64, idle: u64) -> Reading {
        let source = PathBuf::from("/proc/stat");
        let ticks = Ticks::of(all, idle);
        Reading { boot_id: BOOT, counters: Counters { source, boot_ms, ticks } }
    }

    fn figure(now: &Reading, remembered: Option<&Reading>) -> Option<f64> {
        first_figure(now, remembered, || Some(200))
    }

    /// 600 ticks in 3 s, 450 of them idle.
    fn remembered() -> Reading {
        at(60 * MINUTE, 10_000, 8_000)
    }

    fn now() -> Reading {
        at(60 * MINUTE + 3_000, 10_600, 8_450)
    }

    #[test]
    fn it_goes_on_from_what_is_remembered() {
        assert_eq!(figure(&now(), Some(&remembered())), Some(25.0));
        assert_eq!(figure(&now(), None), None, "up for too long, and nothing is remembered");
    }

    #[test]
    fn what_is_remembered_of_other_counters_is_not_taken() {
        let changed = |change: fn(&mut Reading)| {
            let mut before = remembered();
            change(&mut before);
            figure(&now(), Some(&before))
        };
        assert_eq!(changed(|before| before.boot_id = [8; 16]), None);
        assert_eq!(changed(|before| before.counters.source = "/host/proc/stat".into()), None);
        // Counters that went back, as a whole or one kind of time, or stand still.
        assert_eq!(changed(|before| before.counters.ticks = Ticks::of(10_601, 8_000)), None);
        assert_eq!(changed(|before| before.counters.ticks = Ticks::of(10_000, 8_511)), None);
        let a_little = changed(|before| before.counters.ticks = Ticks::of(10_000, 8_452));
        assert_eq!(a_little, Some(100.0), "the kernel's idle counters do");
        assert_eq!(changed(|before| before.counters.ticks = Ticks::of(10_300, 8_000)), None);
        assert_eq!(changed(|before| before.counters.ticks = Ticks::of(10_600, 8_450)), None);
        // Two boots whose names are unknown may be one or not.
        let unknown = |reading| Reading { boot_id: [0; 16], ..reading };
        assert_eq!(figure(&unknown(now()), Some(&unknown(remembered()))), None);
    }

    #[test]
    fn an_interval_is_neither_short_nor_long_nor_of_the_future() {
        let ago = |milliseconds: u64| {
            let mut before = remembered();
            before.counters.boot_ms = now().counters.boot_ms - milliseconds;
            figure(&now(), Some(&before))
        };
        assert_eq!((ago(0), ago(199), ago(200)), (None, None, Some(25.0)));
        assert_eq!((ago(10 * MINUTE), ago(10 * MINUTE + 1)), (Some(25.0), None));
        let mut before = remembered();
        for later in [now().counters.boot_ms + 1, u64::MAX] {
            before.counters.boot_ms = later;
            assert_eq!(figure(&now(), Some(&before)), None);
        }
    }

    #[test]
    fn soon_after_boot_it_is_the_share_since_then() {
        assert_eq!(figure(&at(MINUTE, 12_000, 9_000), None), Some(25.0));
        assert_eq!(figure(&at(10 * MINUTE, 120_000, 90_000), None), Some(25.0));
        assert_eq!(figure(&at(10 * MINUTE + 1, 120_000, 90_000), None), None);
        // What is remembered of this boot is nearer than its beginning.
        let before = at(MINUTE - 3_000, 11_400, 9_000);
        assert_eq!(figure(&at(MINUTE, 12_000, 9_300), Some(&before)), Some(50.0));
        let other = Reading { boot_id: [8; 16], ..before };
        assert_eq!(figure(&at(MINUTE, 12_000, 9_000), Some(&other)), Some(25.0));
    }

    #[test]
    fn counters_that_are_not_where_the_clock_is_did_not_begin_at_boot() {
        for (up, all) in [
            (MINUTE, 0),
            (MINUTE, 10_799),
            (MINUTE, 13_201),
            (MINUTE, u64::MAX),
            // A container's clock that is younger than its counters.
            (1_000, 9_000_000),
            (0, 0),
            (0, 8),
        ] {
            assert_eq!(figure(&at(up, all, all / 2), None), None, "{up} ms, {all} ticks");
        }
        // A tenth, or a second.
        for (up, all) in [(MINUTE, 10_800), (MINUTE, 13_200), (5_000, 800), (5_000, 1_200)] {
            assert_eq!(figure(&at(up, all, all / 2), None), Some(50.0), "{up} ms, {all} ticks");
        }
        let unknown = first_figure(&at(MINUTE, 12_000, 9_000), None, || None);
        assert_eq!(unknown, None, "nobody knows how many processors there are");
        let none = first_figure(&at(MINUTE, 12_000, 9_000), None, || Some(0));
        assert_eq!(none, None);
    }
}
