//! Which samples are wanted.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use harborforge_storage::Entry;

use crate::cli::args::DumpArgs;

/// The wanted numbers and times; both ends belong to it.
pub struct Filter {
    numbers: RangeInclusive<u64>,
    since: Option<u64>,
    until: Option<u64>,
}

impl Filter {
    /// What the arguments ask for, durations counted back from `now`.
    pub fn new(args: &DumpArgs, now: SystemTime) -> Self {
        let numbers = args.seq.map_or(1..=u64::MAX, |range| range.from..=range.to);
        let millis = |at: SystemTime| {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        };
        Self {
            numbers,
            since: args.since.map(|moment| millis(moment.resolve(now))),
            until: args.until.map(|moment| millis(moment.resolve(now))),
        }
    }

    /// The numbers to read at all.
    pub fn numbers(&self) -> RangeInclusive<u64> {
        self.numbers.clone()
    }

    /// Whether a sample was taken in the wanted time.
    pub fn takes(&self, entry: &Entry) -> bool {
        let at = entry.record.stamp.wall_ms;
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at <= until)
    }
}
