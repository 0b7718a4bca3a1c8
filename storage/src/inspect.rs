//! Reading a queue that no process has open, without changing it.
//!
//! The engine has no read-only mode: opening a database writes to it. So each generation is
//! copied into a private temporary directory, opened there, and removed before the next.
//! The queue's own lock is held meanwhile, shared with other readers, so no daemon starts into
//! the middle of it. Memory holds one portion of records and 16 bytes for each rejected one.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::census::{arrange, generation_names};
use crate::cursor;
use crate::engine::{Fault, Visit};
use crate::error::Error;
use crate::format;
use crate::gaps::Gaps;
use crate::generation::Generation;
use crate::lock::Lock;
use crate::manifest::{self, Manifest, Role};
use crate::marks::{CursorFile, MarkFile};
use crate::queue::manifest_path;
use crate::ranges::RangeSet;
use crate::record::{self, Decoded, Malformed};
use crate::recovery::QUEUE_DIR;
use crate::report::{FileState, SmallFiles};
use crate::scratch::{Copy, Scratch};
use crate::types::{Confirmation, Gap, Record, Set};

/// Records read in one go.
const PORTION: usize = 256;

/// A queue opened for looking at.
pub struct Inspector {
    pub(crate) dir: PathBuf,
    _lock: Lock,
    pub(crate) row: Vec<Generation>,
    pub(crate) rejects: Vec<Generation>,
    /// Rejected numbers and the place of their generation, sorted.
    rejected: Vec<(u64, usize)>,
    pub(crate) cursor: u64,
    pub(crate) mark: u64,
    /// The manifest's next number, 0 if it does not say.
    pub(crate) floor: u64,
    /// Number of the last success.
    pub(crate) success: Option<u64>,
    /// The same with its confirmation.
    pub(crate) confirmed: Option<(u64, Confirmation)>,
    pub(crate) settled: RangeSet,
    pub(crate) gaps: Gaps,
    pub(crate) files: SmallFiles,
    problems: Vec<Problem>,
    pub(crate) scratch: Scratch,
}

/// One record as it lies in the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The record.
    pub record: Record,
    /// Where it stands.
    pub set: Set,
    /// For a rejected one: what the receiver said, and when (wall clock, milliseconds).
    pub rejection: Option<(String, u64)>,
}

/// Something an [`Inspector`] could not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file or generation concerned.
    pub path: PathBuf,
    /// First number concerned, 0 for a file that is not a generation.
    pub from: u64,
    /// Last number concerned.
    pub to: u64,
    /// What is wrong, in words.
    pub what: String,
}

impl Inspector {
    /// Opens the queue in `dir`. Nothing below `dir` is written.
    ///
    /// # Errors
    /// [`Error::NoQueue`] if there is none, [`Error::Locked`] while a daemon has it,
    /// [`Error::NewerFormat`]; else a refusal of the operating system.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Self::open_with(dir, Scratch::new)
    }

    /// The same with private copies in the directory that `scratch` gives; it is only asked once
    /// there is a queue to read.
    ///
    /// # Errors
    /// As for [`open`](Self::open), and those of `scratch`.
    pub fn open_with(
        dir: &Path,
        scratch: impl FnOnce() -> Result<Scratch, Error>,
    ) -> Result<Self, Error> {
        let dir = dir.join(QUEUE_DIR);
        let lock = Lock::share(&dir.join("LOCK"))?;
        let format = format::check(&dir)?;
        let found = Manifest::read(&manifest_path(&dir))?;
        let mut manifest_state = match &found {
            manifest::Found::Manifest(_) => FileState::Good,
            manifest::Found::Nothing => FileState::Absent,
            manifest::Found::Damaged => FileState::Damaged,
        };
        let manifest = match found {
            manifest::Found::Manifest(manifest) => manifest,
            manifest::Found::Nothing | manifest::Found::Damaged => Manifest::default(),
        };
        let found = arrange(generation_names(&dir)?, &manifest.generations);
        let gaps = Gaps::from_stored(manifest.gaps);
        let mut settled = RangeSet::default();
        for gap in gaps.as_slice() {
            settled.insert(gap.from, gap.to);
        }
        // Rejected ones whose copies were purged.
        for g in found.row.iter().filter(|g| g.role == Role::Pending) {
            g.excluded.iter().for_each(|&(from, to)| settled.insert(from, to));
        }
        let (mark, mark_condition) = MarkFile::peek(&dir.join("mark"))?;
        let (stored, condition) = CursorFile::peek(&dir.join("cursor"))?;
        let cursor_lost = cursor::is_lost(condition, mark, manifest.next_seq, &found.row);
        let cursor = if cursor_lost {
            let highest = found.row.iter().map(|g| g.last).max().unwrap_or(0);
            let last = highest.max(mark).max(manifest.next_seq.saturating_sub(1));
            cursor::derive(&found.row, last, None)
        } else {
            stored.cursor
        };
        // It is written before a name says sent; else it may not have been needed yet.
        if manifest_state == FileState::Absent && found.row.iter().any(|g| g.role == Role::Sent) {
            manifest_state = FileState::Missing;
        }
        let used = !found.row.is_empty() || manifest.next_seq > 1;
        let files = SmallFiles {
            format,
            manifest: manifest_state,
            mark: FileState::of(mark_condition, used),
            cursor: FileState::of(condition, cursor_lost),
            last_success: FileState::Absent,
        };
        let problems = problems_of(&files, &dir);
        let mut inspector = Self {
            cursor,
            mark,
            floor: manifest.next_seq,
            success: stored.success.map(|(seq, _)| seq),
            confirmed: stored.success,
            files,
            scratch: scratch()?,
            _lock: lock,
            row: found.row,
            rejects: found.rejects,
            rejected: Vec::new(),
            settled,
            gaps,
            problems,
            dir,
        };
        inspector.index_rejected(&manifest.unrejected)?;
        Ok(inspector)
    }

    /// The gaps listed, oldest first.
    pub fn gaps(&self) -> &[Gap] {
        self.gaps.as_slice()
    }

    /// All numbers up to this one are settled.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Rejected records there are.
    pub(crate) fn rejected_count(&self) -> u64 {
        self.rejected.len() as u64
    }

    /// What could not be read so far; complete once [`records`](Self::records) has been read to
    /// its end.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The records of the chosen sets with numbers in `range`, in order of their numbers.
    ///
    /// An error ends the iteration; damage does not, it is listed in
    /// [`problems`](Self::problems).
    pub fn records(&mut self, sets: &[Set], range: RangeInclusive<u64>) -> Records<'_> {
        let (from, to) = (*range.start(), *range.end());
        let next_rejected = self.rejected.partition_point(|&(seq, _)| seq < from);
        Records {
            pending: sets.contains(&Set::Pending),
            sent: sets.contains(&Set::Sent),
            rejected: sets.contains(&Set::Rejected),
            inspector: self,
            from,
            to,
            at: 0,
            row_copy: None,
            buffer: VecDeque::new(),
            next_rejected,
            rejected_copy: None,
            done: false,
        }
    }

    fn index_rejected(&mut self, unrejected: &[(u64, u64)]) -> Result<(), Error> {
        let taken = |seq: u64| unrejected.iter().any(|&(from, to)| (from..=to).contains(&seq));
        for at in 0..self.rejects.len() {
            let Some(g) = self.rejects.get(at) else { continue };
            let (path, label) = (g.path(&self.dir), g.label);
            let copy = self.scratch.copy(&path, "index")?;
            let mut numbers = Vec::new();
            let visited = copy.store().and_then(|store| {
                store.visit(1, u64::MAX, label, &mut |seq, bytes| {
                    if record::decode(bytes, seq).is_ok_and(|r| r.rejection.is_some())
                        && !taken(seq)
                    {
                        numbers.push((seq, at));
                    }
                    Visit::Continue
                })
            });
            if let Err(fault) = visited {
                self.report(path, label, label, fault)?;
            }
            for &(seq, _) in &numbers {
                self.settled.insert(seq, seq);
            }
            self.rejected.append(&mut numbers);
        }
        self.rejected.sort_unstable();
        self.rejected.dedup_by_key(|&mut (seq, _)| seq);
        Ok(())
    }

    /// Notes damage; anything else is an error.
    fn report(&mut self, path: PathBuf, from: u64, to: u64, fault: Fault) -> Result<(), Error> {
        match fault {
            Fault::Damaged(what) => {
                self.problems.push(Problem { path, from, to, what });
                Ok(())
            }
            Fault::Io(_) | Fault::PoolBroken(_) => Err(Error::engine("read", &path, fault)),
        }
    }

    /// Notes pending numbers without a record.
    fn missing(&mut self, path: &Path, from: u64, to: u64) {
        for (from, to) in self.settled.outside(from.max(self.cursor.saturating_add(1)), to) {
            self.unreadable(path, from, to, "missing");
        }
    }

    fn unreadable(&mut self, path: &Path, from: u64, to: u64, what: &str) {
        // Runs of the same fault are one problem, so that a broken generation fills no memory.
        if let Some(last) = self.problems.last_mut()
            && last.path == path
            && last.what == what
            && last.to.checked_add(1) == Some(from)
        {
            last.to = to;
            return;
        }
        let (path, what) = (path.to_path_buf(), what.to_owned());
        self.problems.push(Problem { path, from, to, what });
    }
}

/// What is wrong with the small files, for a reader of records.
fn problems_of(files: &SmallFiles, dir: &Path) -> Vec<Problem> {
    const REBUILT: &str = "it cannot be read and will be rebuilt";
    const CURSOR: &str = "what was delivered cannot be read from it; taken from the generations, \
                          and some records may be shown as pending that were delivered";
    let told = [
        ("manifest", files.manifest == FileState::Damaged, REBUILT),
        ("mark", files.mark == FileState::Damaged, REBUILT),
        ("cursor", files.cursor.is_bad(), CURSOR),
    ];
    let told = told.into_iter().filter(|&(_, told, _)| told);
    told.map(|(name, _, what)| Problem {
        path: dir.join(name),
        from: 0,
        to: 0,
        what: what.to_owned(),
    })
    .collect()
}

/// The iterator of [`Inspector::records`].
pub struct Records<'a> {
    inspector: &'a mut Inspector,
    pending: bool,
    sent: bool,
    rejected: bool,
    /// The next number of the row.
    from: u64,
    /// The last number wanted.
    to: u64,
    /// The generation of the row read now.
    at: usize,
    row_copy: Option<Copy>,
    buffer: VecDeque<Entry>,
    next_rejected: usize,
    rejected_copy: Option<(usize, Copy)>,
    done: bool,
}

/// What is to be read of one generation of the row.
struct Share {
    path: PathBuf,
    /// The last number that may be in it.
    end: u64,
    /// The last number that should be in it.
    due: u64,
    role: Role,
    excluded: Vec<(u64, u64)>,
}

impl Iterator for Records<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step();
        self.done = !matches!(step, Ok(Some(_)));
        step.transpose()
    }
}

impl Records<'_> {
    fn step(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            while self.buffer.is_empty() && self.fill()? {}
            let rejected = self.inspector.rejected.get(self.next_rejected).copied();
            let rejected = rejected.filter(|&(seq, _)| self.rejected && seq <= self.to);
            let next = self.buffer.front().map(|entry| entry.record.seq);
            match rejected {
                Some((seq, at)) if next.is_none_or(|next| seq < next) => {
                    self.next_rejected = self.next_rejected.saturating_add(1);
                    if let Some(entry) = self.fetch_rejected(seq, at)? {
                        return Ok(Some(entry));
                    }
                }
                Some(_) | None => return Ok(self.buffer.pop_front()),
            }
        }
    }

    /// Reads the next portion of the row into the buffer; false at its end.
    fn fill(&mut self) -> Result<bool, Error> {
        if !self.pending && !self.sent {
            return Ok(false);
        }
        let Some(g) = self.inspector.row.get(self.at) else { return Ok(false) };
        let next = self.inspector.row.get(self.at.saturating_add(1));
        let end = match next {
            _ if g.sealed => g.last,
            Some(next) => next.first.saturating_sub(1),
            None => u64::MAX,
        };
        let due = if next.is_none() && !g.sealed { self.inspector.mark } else { end };
        let from = self.from.max(g.first);
        if g.first > self.to {
            return Ok(false);
        }
        if end < from {
            self.next_generation();
            return Ok(true);
        }
        let path = g.path(&self.inspector.dir);
        let share = Share { path, end, due, role: g.role, excluded: g.excluded.clone() };
        let copy = match self.row_copy.take() {
            Some(copy) => copy,
            None => self.inspector.scratch.copy(&share.path, "row")?,
        };
        let through = self.read_portion(&copy, from, share)?;
        if through {
            self.next_generation();
        } else {
            self.row_copy = Some(copy);
        }
        Ok(true)
    }

    /// Reads a portion of one generation; true if that was the last of it.
    fn read_portion(&mut self, copy: &Copy, from: u64, share: Share) -> Result<bool, Error> {
        let due = share.due.min(self.to);
        let mut raw: Vec<(u64, Result<Record, Malformed>)> = Vec::new();
        let visited = copy.store().and_then(|store| {
            store.visit(from, share.end.min(self.to), due, &mut |seq, bytes| {
                raw.push((seq, record::decode(bytes, seq).and_then(Decoded::to_record)));
                if raw.len() < PORTION { Visit::Continue } else { Visit::Stop }
            })
        });
        let full = raw.len() >= PORTION;
        let mut expected = from;
        for (seq, record) in raw {
            if seq > expected {
                self.inspector.missing(&share.path, expected, seq.saturating_sub(1));
            }
            expected = seq.saturating_add(1);
            let delivered = share.role == Role::Sent || seq <= self.inspector.cursor;
            let wanted = if delivered { self.sent } else { self.pending };
            let left_out = self.inspector.settled.contains(seq)
                || share.excluded.iter().any(|&(f, t)| (f..=t).contains(&seq));
            match record {
                Ok(record) if wanted && !left_out => {
                    let set = if delivered { Set::Sent } else { Set::Pending };
                    self.buffer.push_back(Entry { record, set, rejection: None });
                }
                Ok(_) => {}
                Err(malformed) => {
                    self.inspector.unreadable(&share.path, seq, seq, &malformed.to_string());
                }
            }
        }
        self.from = expected;
        if let Err(fault) = visited {
            self.inspector.report(share.path, from, due.max(from), fault)?;
            return Ok(true);
        }
        if !full && expected <= due {
            self.inspector.missing(&share.path, expected, due);
        }
        Ok(!full)
    }

    fn next_generation(&mut self) {
        self.row_copy = None;
        self.at = self.at.saturating_add(1);
    }

    fn fetch_rejected(&mut self, seq: u64, at: usize) -> Result<Option<Entry>, Error> {
        let Some(g) = self.inspector.rejects.get(at) else { return Ok(None) };
        let path = g.path(&self.inspector.dir);
        let copy = match self.rejected_copy.take() {
            Some((open, copy)) if open == at => copy,
            // The old copy, if any, goes before the new one takes its name.
            other => {
                drop(other);
                self.inspector.scratch.copy(&path, "rejected")?
            }
        };
        let bytes = copy.store().and_then(|store| store.get(seq));
        self.rejected_copy = Some((at, copy));
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(fault) => {
                self.inspector.report(path, seq, seq, fault)?;
                return Ok(None);
            }
        };
        let found = bytes.and_then(|bytes| record::decode(&bytes, seq).ok()?.to_rejected());
        Ok(found.map(|rejected| Entry {
            record: rejected.record,
            set: Set::Rejected,
            rejection: Some((rejected.reason, rejected.wall_ms)),
        }))
    }
}
