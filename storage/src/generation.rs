//! One generation: a small database with a contiguous share of the numbers.
//!
//! Its directory is named `<first>-<id>.<role>`; renaming the directory changes the role. The
//! name is the truth about the three, so a kill between any two steps leaves nothing in doubt.
//! Where two generations claim a number, the one with the higher first number, then the higher
//! id, owns it: a failed append is repeated under the same number in a fresh generation.

use std::path::{Path, PathBuf};

use crate::engine::{Fault, Store, Visit};
use crate::manifest::{Role, Sealed};
use crate::mend::Repairs;
use crate::record;
use crate::rescue::check_opened;
use crate::salvage::Wanted;
use crate::types::{Stamp, Tally};

/// A size not known yet.
const UNKNOWN: u32 = u32::MAX;

/// A generation, open or not.
pub(crate) struct Generation {
    pub(crate) id: u64,
    pub(crate) role: Role,
    /// The number in the directory's name: the first of the share, or the first rejected.
    pub(crate) label: u64,
    pub(crate) first: u64,
    /// The last number that counts; `last < first` while empty.
    pub(crate) last: u64,
    pub(crate) records: u64,
    /// Payload bytes of all records.
    pub(crate) bytes: u64,
    /// Payload bytes of those still to be delivered.
    pub(crate) live_bytes: u64,
    /// Of rejected records: those that were accepted since.
    pub(crate) taken: Tally,
    pub(crate) first_stamp: Option<Stamp>,
    /// The stamp of the record with the highest number, where one was counted.
    pub(crate) last_stamp: Option<Stamp>,
    /// When its first and its newest record were made, by the proven clock; none until dated.
    pub(crate) since_ms: Option<u64>,
    pub(crate) newest_ms: Option<u64>,
    pub(crate) sent_at: Option<Stamp>,
    /// When it was drained, by the proven clock.
    pub(crate) sent_ms: Option<u64>,
    pub(crate) excluded: Vec<(u64, u64)>,
    /// Closed for good, with a current snapshot.
    pub(crate) sealed: bool,
    /// Takes appends: at most the last of a row.
    pub(crate) appendable: bool,
    /// Numbers of its share that opening found to be missing.
    pub(crate) missing: Vec<(u64, u64)>,
    /// Bytes on disk when last looked at.
    pub(crate) disk_bytes: u64,
    /// Payload sizes by `seq - first`, as far as known.
    sizes: Vec<u32>,
    store: Option<Store>,
}

impl Generation {
    /// A generation that is known by its directory's name alone.
    pub(crate) fn unknown(name: Name) -> Self {
        Self {
            id: name.id,
            role: name.role,
            label: name.first,
            first: name.first,
            last: name.first.saturating_sub(1),
            records: 0,
            bytes: 0,
            live_bytes: 0,
            taken: Tally::default(),
            first_stamp: None,
            last_stamp: None,
            since_ms: None,
            newest_ms: None,
            sent_at: None,
            sent_ms: None,
            excluded: Vec::new(),
            sealed: false,
            appendable: false,
            missing: Vec::new(),
            disk_bytes: 0,
            sizes: Vec::new(),
            store: None,
        }
    }

    /// A generation the manifest knows.
    pub(crate) fn from_sealed(name: Name, sealed: &Sealed) -> Self {
        Self {
            first: sealed.first,
            last: sealed.last,
            records: sealed.records,
            bytes: sealed.bytes,
            live_bytes: sealed.bytes,
            first_stamp: sealed.first_stamp,
            newest_ms: sealed.newest_ms,
            sent_at: sealed.sent_at,
            sent_ms: sealed.sent_ms,
            excluded: sealed.excluded.clone(),
            sealed: true,
            ..Self::unknown(name)
        }
    }

    pub(crate) fn to_sealed(&self) -> Sealed {
        Sealed {
            id: self.id,
            role: self.role,
            first: self.first,
            last: self.last,
            records: self.records,
            bytes: self.bytes,
            first_stamp: self.first_stamp,
            newest_ms: self.newest_ms,
            sent_at: self.sent_at,
            sent_ms: self.sent_ms,
            excluded: self.excluded.clone(),
        }
    }

    pub(crate) fn name(&self) -> Name {
        Name { first: self.label, id: self.id, role: self.role }
    }

    pub(crate) fn path(&self, queue_dir: &Path) -> PathBuf {
        queue_dir.join(self.name().to_string())
    }

    /// Whether it holds no record that counts.
    pub(crate) fn is_empty(&self) -> bool {
        self.last < self.first
    }

    pub(crate) fn is_open(&self) -> bool {
        self.store.is_some()
    }

    pub(crate) fn attach(&mut self, store: Store) {
        self.store = Some(store);
    }

    /// Closes the database; sizes that are cheap to find again go too.
    pub(crate) fn close(&mut self) {
        self.store = None;
        self.sizes = Vec::new();
    }

    /// Closes the database, which goes on being open for whoever asks for it here.
    pub(crate) fn take_store(&mut self) -> Option<Store> {
        self.sizes = Vec::new();
        self.store.take()
    }

    /// Which records its files may hold.
    pub(crate) fn wanted(&self) -> Wanted {
        match self.role {
            Role::Rejected => Wanted { from: 1, to: u64::MAX, rejected: true },
            Role::Pending | Role::Sent => {
                Wanted { from: self.first, to: self.last, rejected: false }
            }
        }
    }

    /// Closes it unless it goes on being written.
    pub(crate) fn close_unless_appendable(&mut self) {
        if !self.appendable {
            self.close();
        }
    }

    /// The open database, opened now if need be.
    pub(crate) fn store(
        &mut self,
        queue_dir: &Path,
        cache: u64,
        repairs: &mut Repairs,
    ) -> Result<&mut Store, Fault> {
        if self.store.is_none() {
            let path = self.path(queue_dir);
            self.store = Some(if self.role == Role::Sent {
                // Nobody is owed what is in it: whatever can be read of it is enough.
                Store::open_as_it_is(&path, cache, repairs)?
            } else {
                let store = Store::open(&path, cache, repairs)?;
                check_opened(&path, &store, repairs, self.wanted(), &|_| true)?;
                store
            });
        }
        // Just filled; said so that no panic is needed.
        self.store.as_mut().ok_or_else(|| Fault::Io(std::io::Error::other("not open")))
    }

    pub(crate) fn opened_mut(&mut self) -> Option<&mut Store> {
        self.store.as_mut()
    }

    /// Takes account of a record that lies in it now.
    pub(crate) fn count(&mut self, seq: u64, size: usize, stamp: Stamp) {
        if self.records == 0 {
            self.first_stamp = Some(stamp);
            if self.role == Role::Rejected {
                self.first = seq;
            }
        }
        if self.last_stamp.is_none() || seq >= self.last {
            self.last_stamp = Some(stamp);
        }
        self.first = self.first.min(seq);
        self.last = self.last.max(seq);
        self.records = self.records.saturating_add(1);
        self.bytes = self.bytes.saturating_add(size as u64);
        self.live_bytes = self.live_bytes.saturating_add(size as u64);
        if self.role != Role::Rejected {
            self.note_size(seq, size);
        }
    }

    /// A record that was made at this proven time lies in it now.
    pub(crate) fn note_time(&mut self, at_ms: u64) {
        self.since_ms = Some(self.since_ms.map_or(at_ms, |since| since.min(at_ms)));
        self.newest_ms = Some(self.newest_ms.map_or(at_ms, |newest| newest.max(at_ms)));
    }

    /// Remembers the size of a record that was read.
    pub(crate) fn note_size(&mut self, seq: u64, size: usize) {
        let Some(at) = seq.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else {
            return;
        };
        if self.sizes.len() <= at {
            self.sizes.resize(at.saturating_add(1), UNKNOWN);
        }
        if let Some(slot) = self.sizes.get_mut(at) {
            *slot = u32::try_from(size).unwrap_or(UNKNOWN);
        }
    }

    /// Takes `from..=to` off the bytes to be delivered.
    ///
    /// Sizes that are not known are looked up; what cannot be read counts as nothing, and the
    /// rest goes when the whole generation is drained.
    pub(crate) fn settle_bytes(&mut self, from: u64, to: u64, queue_dir: &Path, cache: u64) {
        let (from, to) = (from.max(self.first), to.min(self.last));
        if from > to {
            return;
        }
        let known = |this: &Self| {
            (from..=to).try_fold(0u64, |sum, seq| {
                let at = usize::try_from(seq.checked_sub(this.first)?).ok()?;
                let size = this.sizes.get(at).copied().filter(|&size| size != UNKNOWN)?;
                sum.checked_add(u64::from(size))
            })
        };
        let sum = known(self).unwrap_or_else(|| {
            let mut found = Vec::new();
            let mut repairs = Repairs::default();
            let visited = self.store(queue_dir, cache, &mut repairs).and_then(|store| {
                store.visit(from, to, to, &mut |seq, bytes| {
                    if let Ok(record) = record::decode(bytes, seq) {
                        found.push((seq, record.payload.len()));
                    }
                    Visit::Continue
                })
            });
            if let Err(fault) = visited {
                tracing::debug!(error = fault.text(), "sizes of settled records are unknown");
            }
            found.iter().fold(0u64, |sum, &(seq, size)| {
                self.note_size(seq, size);
                sum.saturating_add(size as u64)
            })
        });
        self.live_bytes = self.live_bytes.saturating_sub(sum);
    }
}

/// Added to the id of a generation when what was salvaged from it takes its place: the new one is
/// as old as the broken one, see `without_superseded` in `census.rs`.
const REVISION: u64 = 1_000_000_000_000;

/// The id a generation was made under, whatever was salvaged from it since: by it they have an age.
pub(crate) fn born(id: u64) -> u64 {
    id % REVISION
}

/// A generation directory's name, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) first: u64,
    pub(crate) id: u64,
    pub(crate) role: Role,
}

/// Added to the name of a directory that is being deleted.
pub(crate) const DOOMED: &str = ".deleted";

impl Name {
    /// The name for what was salvaged from this one.
    pub(crate) fn revised(self) -> Self {
        Self { id: self.id.saturating_add(REVISION), ..self }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (numbers, role) = text.split_once('.')?;
        let (first, id) = numbers.split_once('-')?;
        let role = match role {
            "pending" => Role::Pending,
            "sent" => Role::Sent,
            "rejected" => Role::Rejected,
            _ => return None,
        };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(first) || !digits(id) {
            return None;
        }
        let name = Self { first: first.parse().ok()?, id: id.parse().ok()?, role };
        (name.first > 0).then_some(name)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let role = match self.role {
            Role::Pending => "pending",
            Role::Sent => "sent",
            Role::Rejected => "rejected",
        };
        write!(f, "{:020}-{:08}.{role}", self.first, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_left_alone() {
        for role in [Role::Pending, Role::Sent, Role::Rejected] {
            let name = Name { first: 4097, id: 12, role };
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        assert_eq!(
            Name { first: 1, id: 2, role: Role::Pending }.to_string(),
            "00000000000000000001-00000002.pending"
        );
        for other in
            ["LOCK", "quarantine", "1-2.pending.deleted", "+1-2.sent", "0-1.sent", "1.sent"]
        {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
