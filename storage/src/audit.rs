//! Verifying a live queue: the same report as [`Verification`](crate::Verification) makes of one
//! at rest, read through the open queue in bounded portions.
//!
//! Invariants:
//! - What it speaks of is the queue as it stood when it began: what is appended, confirmed or
//!   refused meanwhile changes nothing of it. Its generations are pinned; one that went all the
//!   same, since the pin ran out, had been delivered and is left out.
//! - Nothing is quarantined or listed as lost by it: that is for the reading that delivers.
//! - A generation that takes no more records is opened afresh, so its bytes come from the disk.
//!   The one that is written to is read as the engine has it.

use std::collections::VecDeque;

use crate::engine::{Fault, Sight, Visit};
use crate::error::Error;
use crate::files;
use crate::format;
use crate::generation::Generation;
use crate::manifest::{self, Manifest, Role};
use crate::marks::{CursorFile, MarkFile};
use crate::mend::Repairs;
use crate::queue::{Queue, manifest_path};
use crate::ranges::RangeSet;
use crate::record;
use crate::report::{FileState, GenerationReport, Numbers, QueueReport, SmallFiles};
use crate::types::{Gap, Pin, Stamp};
use crate::verify::{Seen, in_gaps};

/// A verification of a live queue under way; see [`Queue::audit`].
#[derive(Debug)]
#[must_use = "a verification holds disk space until it is given back"]
pub struct Audit {
    pin: Pin,
    parts: VecDeque<Part>,
    /// The one that is being read, and the number to go on with.
    reading: Option<(Part, Seen, u64)>,
    settled: RangeSet,
    gaps: Vec<Gap>,
    /// The next number a generation should hold.
    next: u64,
    sum: QueueReport,
}

/// A generation as it stood at the beginning.
#[derive(Debug)]
struct Part {
    id: u64,
    name: String,
    role: Role,
    first: u64,
    last: u64,
    records: u64,
    excluded: Vec<(u64, u64)>,
}

/// What a portion of a verification brought.
#[derive(Debug)]
pub enum Audited {
    /// Nothing to tell yet.
    More,
    /// A generation was read to its end.
    Generation(Box<GenerationReport>),
    /// That was all.
    Whole(Box<QueueReport>),
}

impl Queue {
    /// Begins to read the whole queue as it stands; to be carried on with
    /// [`audit_on`](Self::audit_on) and given back with [`end_audit`](Self::end_audit).
    ///
    /// # Errors
    /// When the small files cannot be read for another reason than damage.
    pub fn audit(&mut self, now: Stamp) -> Result<Audit, Error> {
        let files = self.small_files()?;
        let parts = self.row.iter().chain(&self.rejects).filter(|g| !g.is_empty());
        let parts = parts.map(|g| Part {
            id: g.id,
            name: g.name().to_string(),
            role: g.role,
            first: g.first,
            last: g.last,
            records: g.records,
            excluded: g.excluded.clone(),
        });
        let last = self.next_seq.saturating_sub(1);
        let ahead = self.cursor.saturating_add(1);
        let gaps = self.gaps().to_vec();
        let gapped = in_gaps(&gaps, ahead, last);
        let sum = QueueReport {
            good: false,
            generations: 0,
            bad_generations: 0,
            records: 0,
            bytes: 0,
            disk_bytes: files::disk_usage(&self.dir),
            next_seq: self.next_seq,
            settled: self.cursor,
            pending: 0,
            rejected: self.settled.count_within(ahead, last).saturating_sub(gapped),
            in_gaps: gapped,
            lost: 0,
            nowhere: Vec::new(),
            files,
            quarantined: self.quarantined.records,
            quarantined_bytes: self.quarantined.bytes,
        };
        let parts = parts.collect();
        Ok(Audit {
            pin: self.pin(1..=u64::MAX, now),
            parts,
            reading: None,
            settled: self.settled.clone(),
            gaps,
            next: ahead,
            sum,
        })
    }

    /// Reads so many more records.
    ///
    /// # Errors
    /// What the operating system refuses; the same portion may be asked for again.
    pub fn audit_on(&mut self, audit: &mut Audit, records: usize) -> Result<Audited, Error> {
        if audit.reading.is_none() {
            let Some(part) = audit.parts.pop_front() else { return Ok(audit.whole()) };
            if let Some(g) = self.generation(part.id)
                && !g.appendable
            {
                g.close();
            }
            let seen = audit.begin(&part);
            let from = part.first;
            audit.reading = Some((part, seen, from));
        }
        let Some((part, mut seen, from)) = audit.reading.take() else { return Ok(Audited::More) };
        let (dir, cache) = (self.dir.clone(), self.options.cache_bytes);
        self.turn_to(part.id);
        let Some(g) = self.generation(part.id) else {
            // Delivered, and gone since the pin ran out.
            audit.passed(&part, true);
            return Ok(Audited::More);
        };
        let path = g.path(&dir);
        let mut repairs = Repairs::default();
        let mut stopped = None;
        let mut count = 0usize;
        let mut opened = false;
        let visited = g.store(&dir, cache, &mut repairs).and_then(|store| {
            opened = true;
            store.visit(from, part.last, part.last, &mut |seq, bytes| {
                if count >= records.max(1) {
                    stopped = Some(seq);
                    return Visit::Stop;
                }
                count = count.saturating_add(1);
                seen.see(seq, bytes);
                Visit::Continue
            })
        });
        let id = g.id;
        let aside = repairs.moved_aside.iter().filter_map(|path| path.file_name()?.to_str());
        seen.report
            .engine_files
            .extend(aside.map(|name| name.trim_start_matches("aside.").to_owned()));
        self.close_unused();
        match visited {
            // What a damaged page hides is missing by its numbers.
            Ok(Sight::Whole | Sight::InPart) => {}
            Err(Fault::Damaged(text)) => seen.report.unreadable = Some(text),
            Err(fault) => {
                if let Some(g) = self.generation(id) {
                    g.close();
                }
                audit.reading = Some((part, seen, from));
                return Err(Error::engine("read from", &path, fault));
            }
        }
        if let Some(next) = stopped {
            audit.reading = Some((part, seen, next));
            return Ok(Audited::More);
        }
        let mut report = audit.read(&part, seen, opened);
        report.disk_bytes = files::disk_usage(&path);
        Ok(Audited::Generation(Box::new(report)))
    }

    /// Gives a verification back.
    pub fn end_audit(&mut self, audit: Audit) {
        self.unpin(audit.pin);
    }

    fn generation(&mut self, id: u64) -> Option<&mut Generation> {
        self.row.iter_mut().chain(&mut self.rejects).find(|g| g.id == id)
    }

    /// The small files as they lie on disk.
    fn small_files(&self) -> Result<SmallFiles, Error> {
        let used = self.next_seq > 1;
        let (_, mark) = MarkFile::peek(&self.dir.join("mark"))?;
        let (_, cursor) = CursorFile::peek(&self.dir.join("cursor"))?;
        let sent = self.row.iter().any(|g| g.role == Role::Sent);
        let manifest = match Manifest::read(&manifest_path(&self.dir))? {
            manifest::Found::Manifest(_) => FileState::Good,
            manifest::Found::Nothing if sent => FileState::Missing,
            manifest::Found::Nothing => FileState::Absent,
            manifest::Found::Damaged => FileState::Damaged,
        };
        Ok(SmallFiles {
            format: format::check(&self.dir)?,
            manifest,
            mark: FileState::of(mark, used),
            cursor: FileState::of(cursor, true),
            last_success: self.last_success_file()?,
        })
    }

    fn last_success_file(&self) -> Result<FileState, Error> {
        let path = self.dir.join("last-success");
        let content = files::read_if_there(&path).map_err(|e| Error::io("read", &path, e))?;
        let whole = content.map(|bytes| {
            let seq = record::stored_seq(&bytes).unwrap_or(0);
            record::decode(&bytes, seq).map(|record| record.seq).ok()
        });
        let wanted = self.success.map(|(seq, _)| seq);
        let in_row = wanted.is_none_or(|seq| self.owner_of(seq).is_some());
        Ok(match whole {
            Some(None) => FileState::Damaged,
            Some(Some(seq)) if in_row || Some(seq) == wanted => FileState::Good,
            None if in_row => FileState::Absent,
            Some(Some(_)) | None => FileState::Missing,
        })
    }
}

impl Audit {
    fn begin(&self, part: &Part) -> Seen {
        let mut known = RangeSet::from_runs(&part.excluded);
        let pending = match part.role {
            Role::Pending => true,
            Role::Sent | Role::Rejected => false,
        };
        if pending {
            let settled = self.settled.within(part.first, part.last);
            settled.for_each(|(from, to)| known.insert(from, to));
        }
        Seen {
            report: GenerationReport::empty(part.name.clone(), part.role),
            known,
            expected: if part.role == Role::Rejected { u64::MAX } else { part.first },
            owed_from: if pending { self.sum.settled.saturating_add(1) } else { u64::MAX },
            owed: 0,
        }
    }

    /// A generation was read to its end.
    fn read(&mut self, part: &Part, mut seen: Seen, opened: bool) -> GenerationReport {
        if part.role == Role::Rejected {
            let damaged =
                seen.report.damaged.iter().map(Numbers::count).fold(0, u64::saturating_add);
            if opened {
                seen.report.missing_rejected =
                    part.records.saturating_sub(seen.report.records).saturating_sub(damaged);
            }
        } else {
            let from = if opened { seen.expected } else { part.first };
            if from <= part.last {
                seen.miss(from, part.last);
            }
            seen.report.in_gaps = in_gaps(&self.gaps, part.first, part.last);
        }
        self.passed(part, false);
        let sum = &mut self.sum;
        sum.lost = sum.lost.saturating_add(seen.owed);
        let report = seen.report;
        sum.generations = sum.generations.saturating_add(1);
        sum.bad_generations = sum.bad_generations.saturating_add(u64::from(!report.is_good()));
        sum.records = sum.records.saturating_add(report.records);
        sum.bytes = sum.bytes.saturating_add(report.bytes);
        sum.pending = sum.pending.saturating_add(report.pending);
        report
    }

    /// Goes on behind a generation; what waited in one that is `gone` did wait.
    fn passed(&mut self, part: &Part, gone: bool) {
        if part.role != Role::Pending || part.last < self.next {
            return;
        }
        if self.next < part.first {
            self.not_held(part.first.saturating_sub(1));
        }
        if gone {
            let from = part.first.max(self.next);
            for (from, to) in self.settled.outside(from, part.last) {
                self.sum.pending = self.sum.pending.saturating_add(Numbers { from, to }.count());
            }
        }
        self.next = part.last.saturating_add(1);
    }

    /// No generation holds the numbers from the next one to this.
    fn not_held(&mut self, to: u64) {
        for (from, to) in self.settled.outside(self.next, to) {
            let run = Numbers { from, to };
            self.sum.lost = self.sum.lost.saturating_add(run.count());
            self.sum.nowhere.push(run);
        }
    }

    fn whole(&mut self) -> Audited {
        let last = self.sum.next_seq.saturating_sub(1);
        if self.next <= last {
            self.not_held(last);
            self.next = last.saturating_add(1);
        }
        let sum = &mut self.sum;
        sum.good = sum.bad_generations == 0
            && sum.lost == 0
            && !sum.files.by_name().iter().any(|(_, state)| state.is_bad());
        Audited::Whole(Box::new(sum.clone()))
    }
}
