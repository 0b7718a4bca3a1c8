//! Reading a whole queue to tell whether it is sound.
//!
//! Nothing is changed: like all of an [`Inspector`]'s work this is done on private copies, one
//! generation at a time. Memory holds what the inspector holds and one generation's findings,
//! which are ranges of numbers, so it does not grow with the queue.
//!
//! What is wrong and what is not:
//! - A record whose bytes are not what was written, a number nobody holds, a generation or small
//!   file that cannot be read: wrong. The daemon makes the same of it at its next start, but
//!   for what it finds among the bytes of what is broken (`rescue.rs`): that is delivered, the
//!   rest of what is called lost here becomes a gap.
//! - What is listed as a gap, what lies in quarantine, and what a kill leaves half-done (an empty
//!   new generation, a half-written snapshot, a directory being deleted) is not: it is dealt with
//!   already, or will be without a loss.

use std::io;
use std::path::Path;

use crate::engine::{Fault, Sight, Visit};
use crate::error::Error;
use crate::files;
use crate::generation::Generation;
use crate::inspect::Inspector;
use crate::manifest::Role;
use crate::quarantine::QUARANTINE;
use crate::ranges::RangeSet;
use crate::record;
use crate::report::{FileState, GenerationReport, Numbers, QueueReport};
use crate::types::{Gap, Set, Tally};

/// The reading of a whole queue: an iterator over its generations, and then the sum.
///
/// Only what the operating system refuses is an error, and ends it; damage is reported.
pub struct Verification<'a> {
    inspector: &'a mut Inspector,
    /// The next generation, of the row and then of the rejected.
    at: usize,
    failed: bool,
    /// The next number a generation of the row should hold.
    next: u64,
    /// The highest number found.
    last: u64,
    sum: QueueReport,
}

impl Inspector {
    /// Reads everything; see [`Verification`].
    pub fn verify(&mut self) -> Verification<'_> {
        let broken = files::names(&self.dir.join(QUARANTINE)).unwrap_or_default();
        let aside = broken.iter().fold(Tally::default(), |sum, (_, path)| Tally {
            records: sum.records.saturating_add(1),
            bytes: sum.bytes.saturating_add(files::disk_usage(path)),
        });
        let sum = QueueReport {
            good: false,
            generations: 0,
            bad_generations: 0,
            records: 0,
            bytes: 0,
            disk_bytes: files::disk_usage(&self.dir),
            next_seq: 1,
            settled: self.cursor,
            pending: 0,
            rejected: 0,
            in_gaps: 0,
            lost: 0,
            nowhere: Vec::new(),
            files: self.files,
            quarantined: aside.records,
            quarantined_bytes: aside.bytes,
        };
        let next = self.cursor.saturating_add(1);
        Verification { inspector: self, at: 0, failed: false, next, last: 0, sum }
    }
}

impl Iterator for Verification<'_> {
    type Item = Result<GenerationReport, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let at = self.at;
        let row = self.inspector.row.len();
        let report = match at.checked_sub(row) {
            None => self.row_generation(at),
            Some(at) if at < self.inspector.rejects.len() => self.rejected_generation(at),
            Some(_) => return None,
        };
        self.at = at.saturating_add(1);
        self.failed = report.is_err();
        if let Ok(report) = &report {
            self.sum.generations = self.sum.generations.saturating_add(1);
            let bad = u64::from(!report.is_good());
            self.sum.bad_generations = self.sum.bad_generations.saturating_add(bad);
            self.sum.records = self.sum.records.saturating_add(report.records);
            self.sum.bytes = self.sum.bytes.saturating_add(report.bytes);
            self.sum.pending = self.sum.pending.saturating_add(report.pending);
        }
        Some(report)
    }
}

impl Verification<'_> {
    /// Reads what is left and gives the sum.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn finish(mut self) -> Result<QueueReport, Error> {
        for report in self.by_ref() {
            report?;
        }
        let inspector = &*self.inspector;
        let vouched = inspector.gaps.as_slice().last().map_or(0, |gap| gap.to);
        let last = (self.last.max(vouched).max(inspector.mark).max(inspector.cursor))
            .max(inspector.floor.saturating_sub(1));
        let nowhere = inspector.settled.outside(self.next, last);
        self.not_held(nowhere);
        let inspector = &*self.inspector;
        let ahead = inspector.cursor.saturating_add(1);
        let mut sum = self.sum;
        sum.next_seq = last.saturating_add(1);
        sum.in_gaps = in_gaps(inspector.gaps.as_slice(), ahead, last);
        sum.rejected = inspector.settled.count_within(ahead, last).saturating_sub(sum.in_gaps);
        sum.files.last_success = last_success(inspector)?;
        sum.good = sum.bad_generations == 0
            && sum.lost == 0
            && !sum.files.by_name().iter().any(|(_, state)| state.is_bad());
        Ok(sum)
    }

    fn row_generation(&mut self, at: usize) -> Result<GenerationReport, Error> {
        let inspector = &*self.inspector;
        let Some(g) = inspector.row.get(at) else {
            return Ok(GenerationReport::empty(String::new(), Role::Pending));
        };
        let path = g.path(&inspector.dir);
        let following = inspector.row.get(at.saturating_add(1)).map(|next| next.first);
        let due = match following {
            _ if g.sealed => g.last,
            Some(next) => next.saturating_sub(1),
            None => inspector.mark,
        };
        let end = if g.sealed || following.is_some() { due } else { u64::MAX };
        let mut known = RangeSet::default();
        for (from, to) in inspector.settled.within(g.first, end) {
            known.insert(from, to);
        }
        g.excluded.iter().for_each(|&(from, to)| known.insert(from, to));
        let mut seen = Seen {
            report: GenerationReport::empty(g.name().to_string(), g.role),
            known,
            expected: g.first,
            owed_from: match g.role {
                Role::Pending => inspector.cursor.saturating_add(1),
                Role::Sent | Role::Rejected => u64::MAX,
            },
            owed: 0,
        };
        let opened = read(inspector, g, &path, &mut seen, (g.first, end, due))?;
        if opened {
            if seen.expected <= due {
                seen.miss(seen.expected, due);
            }
        } else if never_used(inspector, at) && !path.join("db").exists() {
            seen.report.unreadable = None;
            seen.report.unfinished = true;
        } else if g.first <= due {
            seen.miss(g.first, due);
        }
        let Seen { mut report, owed, expected, .. } = seen;
        let covered = expected.saturating_sub(1).max(if g.first <= due { due } else { 0 });
        report.in_gaps = in_gaps(inspector.gaps.as_slice(), g.first, covered);
        report.disk_bytes = files::disk_usage(&path);
        let (role, first) = (g.role, g.first);
        self.last = self.last.max(covered).max(report.last_seq.unwrap_or(0));
        self.sum.lost = self.sum.lost.saturating_add(owed);
        if role == Role::Pending && first <= covered {
            if self.next < first {
                let nowhere = inspector.settled.outside(self.next, first.saturating_sub(1));
                self.not_held(nowhere);
            }
            self.next = self.next.max(covered.saturating_add(1));
        }
        Ok(report)
    }

    fn rejected_generation(&mut self, at: usize) -> Result<GenerationReport, Error> {
        let inspector = &*self.inspector;
        let Some(g) = inspector.rejects.get(at) else {
            return Ok(GenerationReport::empty(String::new(), Role::Rejected));
        };
        let path = g.path(&inspector.dir);
        let (low, high) = if g.sealed { (g.first, g.last) } else { (1, u64::MAX) };
        let mut seen = Seen {
            report: GenerationReport::empty(g.name().to_string(), Role::Rejected),
            known: RangeSet::default(),
            expected: u64::MAX,
            owed_from: u64::MAX,
            owed: 0,
        };
        let opened = read(inspector, g, &path, &mut seen, (low, high, g.last.max(g.label)))?;
        let mut report = seen.report;
        report.disk_bytes = files::disk_usage(&path);
        let damaged = report.damaged.iter().map(Numbers::count).fold(0, u64::saturating_add);
        if opened && g.sealed {
            report.missing_rejected =
                g.records.saturating_sub(report.records).saturating_sub(damaged);
        }
        // A kill between making it and writing the first copy.
        if !opened && !g.sealed && !path.join("db").exists() {
            report.unreadable = None;
            report.unfinished = true;
        }
        Ok(report)
    }

    fn not_held(&mut self, runs: Vec<(u64, u64)>) {
        for (from, to) in runs {
            let run = Numbers { from, to };
            self.sum.lost = self.sum.lost.saturating_add(run.count());
            self.sum.nowhere.push(run);
        }
    }
}

/// What the visit of a generation has seen so far.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) report: GenerationReport,
    /// Numbers that need not be in it, or need not be readable.
    pub(crate) known: RangeSet,
    /// The next number that should come; `u64::MAX` where any may.
    pub(crate) expected: u64,
    /// Numbers from here on are still to be delivered.
    pub(crate) owed_from: u64,
    /// How many of those cannot be.
    pub(crate) owed: u64,
}

impl Seen {
    pub(crate) fn see(&mut self, seq: u64, bytes: &[u8]) {
        if seq > self.expected {
            self.miss(self.expected, seq.saturating_sub(1));
        }
        if self.expected != u64::MAX {
            self.expected = seq.saturating_add(1);
        }
        let rejected = self.report.set == Set::Rejected;
        match record::decode(bytes, seq) {
            Ok(record)
                if record.rejection.is_some() == rejected && record.payload.is_readable() =>
            {
                let report = &mut self.report;
                report.first_seq.get_or_insert(seq);
                report.last_seq = Some(seq);
                report.records = report.records.saturating_add(1);
                report.bytes = report.bytes.saturating_add(record.payload.len() as u64);
                if seq >= self.owed_from && !self.known.contains(seq) {
                    report.pending = report.pending.saturating_add(1);
                }
            }
            Ok(_) | Err(_) if self.known.contains(seq) => {}
            Ok(_) | Err(_) => {
                if seq >= self.owed_from {
                    self.owed = self.owed.saturating_add(1);
                }
                push(&mut self.report.damaged, seq, seq);
            }
        }
    }

    pub(crate) fn miss(&mut self, from: u64, to: u64) {
        for (from, to) in self.known.outside(from, to) {
            let owed = to.saturating_add(1).saturating_sub(from.max(self.owed_from));
            self.owed = self.owed.saturating_add(owed);
            push(&mut self.report.missing, from, to);
        }
    }
}

/// Adds to a list in order, so that neighbours are one run.
fn push(list: &mut Vec<Numbers>, from: u64, to: u64) {
    match list.last_mut() {
        Some(last) if last.to.checked_add(1) == Some(from) => last.to = to,
        Some(_) | None => list.push(Numbers { from, to }),
    }
}

/// Reads one generation, numbers `low..=high`; false if it cannot be opened, and says why.
fn read(
    inspector: &Inspector,
    g: &Generation,
    path: &Path,
    seen: &mut Seen,
    (low, high, due): (u64, u64, u64),
) -> Result<bool, Error> {
    let copy = match inspector.scratch.copy(path, "verified") {
        Ok(copy) => copy,
        // The device does not give it back: that is what is looked for.
        Err(Error::Io { source, .. }) if is_device_error(&source) => {
            seen.report.unreadable = Some(source.to_string());
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let aside = copy.repairs.moved_aside.iter().filter_map(|path| path.file_name()?.to_str());
    seen.report.engine_files =
        aside.map(|name| name.trim_start_matches("aside.").to_owned()).collect();
    let store = match copy.store() {
        Ok(store) => store,
        Err(fault) => {
            seen.report.unreadable = Some(fault.text());
            return Ok(false);
        }
    };
    if low > high {
        // All its numbers are another's.
        return Ok(true);
    }
    let visited = store.visit(low, high, due, &mut |seq, bytes| {
        seen.see(seq, bytes);
        Visit::Continue
    });
    match visited {
        // What a damaged page hides is missing by its numbers.
        Ok(Sight::Whole | Sight::InPart) => Ok(true),
        Err(Fault::Damaged(text)) => {
            seen.report.unreadable = Some(text);
            Ok(true)
        }
        Err(fault) => Err(Error::engine("read a copy of", &g.path(&inspector.dir), fault)),
    }
}

fn is_device_error(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// As the daemon judges it when it opens: `census.rs`.
fn never_used(inspector: &Inspector, at: usize) -> bool {
    let Some(g) = inspector.row.get(at) else { return true };
    let next = inspector.row.get(at.saturating_add(1));
    (g.label > inspector.mark && !inspector.files.mark.is_bad())
        || next.is_some_and(|next| next.label == g.label)
}

/// How many of `from..=to` are listed as a gap.
pub(crate) fn in_gaps(gaps: &[Gap], from: u64, to: u64) -> u64 {
    gaps.iter().fold(0u64, |sum, gap| {
        let (from, to) = (gap.from.max(from), gap.to.min(to));
        sum.saturating_add(if from > to { 0 } else { Numbers { from, to }.count() })
    })
}

fn last_success(inspector: &Inspector) -> Result<FileState, Error> {
    let path = inspector.dir.join("last-success");
    let content = files::read_if_there(&path).map_err(|e| Error::io("read", &path, e))?;
    let whole = content.as_deref().map(|bytes| {
        let seq = record::stored_seq(bytes).unwrap_or(0);
        record::decode(bytes, seq).map(|record| record.seq)
    });
    let Some(wanted) = inspector.success else {
        return Ok(match whole {
            Some(Err(_)) => FileState::Damaged,
            Some(Ok(_)) => FileState::Good,
            None => FileState::Absent,
        });
    };
    let in_row = inspector.row.iter().rev().find(|g| g.first <= wanted);
    let in_row = in_row.is_some_and(|g| !g.sealed || wanted <= g.last);
    Ok(match whole {
        Some(Err(_)) => FileState::Damaged,
        Some(Ok(seq)) if seq == wanted || in_row => FileState::Good,
        None if in_row => FileState::Absent,
        Some(Ok(_)) | None => FileState::Missing,
    })
}
