//! The two small values that are written all the time: high-water mark and cursor.
//!
//! **High-water mark**: the highest number appended, kept outside the databases, so that a tail
//! that went missing without a trace is noticed at the next opening. It is written after
//! each append and synced only now and then. That is enough: a kill loses nothing that was
//! written, synced or not; a power cut may take the mark back by some seconds, but what it
//! then fails to vouch for was synced with its append, and a synced record does not go with
//! the power. A mark above what is found is always a loss, a mark below it never one.
//!
//! That leaves two faults at once: after a power cut the newest generation turns out to be
//! unreadable, and the mark that should say how far it went has gone back. So the mark carries a
//! **reservation**: no number above it is given out before a higher one has been synced. If the
//! tail of the row cannot be read, numbers go on above the reservation, and what lies between is
//! a gap, since some of it may have been appended and even delivered. That costs one sync in
//! [`RESERVE`] numbers and, in this rare case, a gap that claims up to as many too much. (To
//! sync the mark before a record is read would cost a sync for each sample, and would still lose
//! without a word what was appended and not read.) A clean stop ends the reservation.
//!
//! **Cursor**: everything up to it is settled. It is synced each time, once per confirmed window,
//! and once when a queue is made, so that a file without a value was lost (`cursor.rs`).
//!
//! Value of the mark: 8 bytes number, 8 bytes reservation (0 if there is none), rest 0. Value of the cursor: 8 bytes number, 8 bytes
//! number of the last success (0 if none), 8 bytes wall clock of its confirmation, 1 byte tag,
//! rest 0. Little-endian, inside a slot of `slots.rs`.

use std::path::Path;

use crate::error::Error;
use crate::slots::{Found, Purpose, Slots, WIDTH};
use crate::types::Confirmation;

/// How many numbers are reserved beyond those asked for.
pub(crate) const RESERVE: u64 = 1024;

/// The high-water mark on disk.
pub(crate) struct MarkFile {
    slots: Slots,
    value: u64,
    /// The highest number that may have been given out, if that is above the value.
    reserved: u64,
    condition: Condition,
    unsynced: bool,
    unwritten: bool,
}

impl MarkFile {
    /// Opens it.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let (slots, found) =
            Slots::open(path, Purpose::Mark).map_err(|e| Error::io("open", path, e))?;
        let (value, reserved, condition) = mark_of(found);
        let unsynced = condition == Condition::Damaged;
        Ok(Self { slots, value, reserved, condition, unsynced, unwritten: false })
    }

    /// Its value, and in what state it is, without writing.
    pub(crate) fn peek(path: &Path) -> Result<(u64, Condition), Error> {
        let found = Slots::peek(path, Purpose::Mark).map_err(|e| Error::io("read", path, e))?;
        let (value, _, condition) = mark_of(found);
        Ok((value, condition))
    }

    /// In what state it was when opened.
    pub(crate) fn condition(&self) -> Condition {
        self.condition
    }

    /// The highest number that may have been given out; none if nothing is known.
    pub(crate) fn bound(&self) -> Option<u64> {
        match self.condition {
            Condition::Good => Some(self.value.max(self.reserved)),
            Condition::Blank | Condition::Damaged => None,
        }
    }

    /// To be called before `up_to` is given out: see the module's text.
    pub(crate) fn reserve(&mut self, up_to: u64) -> Result<(), Error> {
        if up_to <= self.reserved {
            return Ok(());
        }
        self.write_reservation(up_to.saturating_add(RESERVE))
    }

    /// Moves the mark and puts it on disk at once.
    pub(crate) fn raise(&mut self, value: u64) -> Result<(), Error> {
        self.value = self.value.max(value);
        self.sync_value()
    }

    /// Syncs it and ends the reservation: nothing above it was given out.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        self.write_reservation(0)
    }

    fn write_reservation(&mut self, reserved: u64) -> Result<(), Error> {
        let before = std::mem::replace(&mut self.reserved, reserved);
        let synced = self.sync_value();
        if synced.is_err() {
            self.reserved = before;
        }
        synced
    }

    fn sync_value(&mut self) -> Result<(), Error> {
        self.unwritten = true;
        self.sync()
    }

    pub(crate) fn value(&self) -> u64 {
        self.value
    }

    pub(crate) fn is_synced(&self) -> bool {
        !self.unsynced
    }

    /// Moves the mark. A failure is said once and made good at the next call or sync.
    pub(crate) fn set(&mut self, value: u64) {
        self.value = value;
        self.unsynced = true;
        let failed = self.slots.write(&mark_bytes(value, self.reserved));
        if let Err(error) = &failed
            && !self.unwritten
        {
            tracing::warn!(path = %self.slots.path().display(), %error, "the high-water mark is behind");
        }
        self.unwritten = failed.is_err();
    }

    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        let written = if self.unwritten {
            self.slots.write(&mark_bytes(self.value, self.reserved))
        } else {
            Ok(())
        };
        written
            .and_then(|()| self.slots.sync())
            .map_err(|e| Error::io("sync", self.slots.path(), e))?;
        self.unwritten = false;
        self.unsynced = false;
        self.condition = Condition::Good;
        Ok(())
    }
}

/// The cursor on disk.
pub(crate) struct CursorFile {
    slots: Slots,
}

/// What the cursor file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CursorValue {
    pub(crate) cursor: u64,
    pub(crate) success: Option<(u64, Confirmation)>,
}

/// What state a file of slots was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It holds a value.
    Good,
    /// Missing, empty, or made and never written.
    Blank,
    /// What is there cannot be read.
    Damaged,
}

impl CursorFile {
    /// Opens it.
    pub(crate) fn open(path: &Path) -> Result<(Self, CursorValue, Condition), Error> {
        let (slots, found) =
            Slots::open(path, Purpose::Cursor).map_err(|e| Error::io("open", path, e))?;
        let (value, condition) = cursor_of(found);
        Ok((Self { slots }, value, condition))
    }

    pub(crate) fn peek(path: &Path) -> Result<(CursorValue, Condition), Error> {
        let found = Slots::peek(path, Purpose::Cursor).map_err(|e| Error::io("read", path, e))?;
        Ok(cursor_of(found))
    }

    /// Moves the cursor, durably.
    pub(crate) fn set(
        &mut self,
        cursor: u64,
        success: Option<(u64, Confirmation)>,
    ) -> Result<(), Error> {
        self.slots
            .write(&cursor_bytes(cursor, success))
            .and_then(|()| self.slots.sync())
            .map_err(|e| Error::io("move the cursor in", self.slots.path(), e))
    }
}

pub(crate) fn mark_bytes(value: u64, reserved: u64) -> [u8; WIDTH] {
    let mut bytes = [0; WIDTH];
    let fields = [value, reserved].into_iter().flat_map(u64::to_le_bytes);
    for (slot, byte) in bytes.iter_mut().zip(fields) {
        *slot = byte;
    }
    bytes
}

pub(crate) fn mark_of(found: Found) -> (u64, u64, Condition) {
    match found {
        Found::Nothing => (0, 0, Condition::Blank),
        Found::Damaged => (0, 0, Condition::Damaged),
        Found::Value(bytes) => (number_at(&bytes, 0), number_at(&bytes, 8), Condition::Good),
    }
}

fn number_at(bytes: &[u8; WIDTH], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

pub(crate) fn cursor_bytes(cursor: u64, success: Option<(u64, Confirmation)>) -> [u8; WIDTH] {
    let (seq, at) = success.unwrap_or((0, Confirmation { wall_ms: 0, tag: 0 }));
    let mut bytes = [0; WIDTH];
    let fields = [cursor, seq, at.wall_ms].into_iter().flat_map(u64::to_le_bytes);
    for (slot, byte) in bytes.iter_mut().zip(fields.chain([at.tag])) {
        *slot = byte;
    }
    bytes
}

pub(crate) fn cursor_of(found: Found) -> (CursorValue, Condition) {
    let bytes = match found {
        Found::Nothing => return (CursorValue::default(), Condition::Blank),
        Found::Damaged => return (CursorValue::default(), Condition::Damaged),
        Found::Value(bytes) => bytes,
    };
    let number = |at| number_at(&bytes, at);
    let at = Confirmation { wall_ms: number(16), tag: bytes.get(24).copied().unwrap_or(0) };
    let success = Some((number(8), at)).filter(|&(seq, _)| seq > 0);
    (CursorValue { cursor: number(0), success }, Condition::Good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values() {
        let mark = mark_bytes(0x0102, 0x0304);
        assert_eq!(mark[..17], [2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(mark_of(Found::Value(mark)), (0x0102, 0x0304, Condition::Good));
        let at = Confirmation { wall_ms: 0x0908, tag: 7 };
        let bytes = cursor_bytes(5, Some((4, at)));
        let mut expected = vec![5, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([8, 9, 0, 0, 0, 0, 0, 0, 7]);
        expected.extend([0; WIDTH - 25]);
        assert_eq!(bytes.as_slice(), expected);
        let back = cursor_of(Found::Value(bytes)).0;
        assert_eq!(back, CursorValue { cursor: 5, success: Some((4, at)) });
        let none = cursor_of(Found::Value(cursor_bytes(3, None))).0;
        assert_eq!(none, CursorValue { cursor: 3, success: None });
    }

    #[test]
    fn values_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        let mut mark = MarkFile::open(&path).unwrap();
        assert_eq!((mark.condition(), mark.value(), mark.bound()), (Condition::Blank, 0, None));
        mark.set(77);
        assert!(!mark.is_synced());
        drop(mark);
        assert_eq!(MarkFile::peek(&path).unwrap(), (77, Condition::Good));
        std::fs::write(&path, [9; 8192]).unwrap();
        assert_eq!(MarkFile::open(&path).unwrap().condition(), Condition::Damaged);
    }

    #[test]
    fn a_reservation_is_synced_before_it_counts_and_ends_with_a_clean_stop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        let mut mark = MarkFile::open(&path).unwrap();
        mark.reserve(10).unwrap();
        assert!(mark.is_synced());
        mark.set(10);
        mark.reserve(10 + RESERVE).unwrap();
        assert!(!mark.is_synced(), "within the reservation nothing is synced");
        let mut mark = MarkFile::open(&path).unwrap();
        assert_eq!((mark.value(), mark.bound()), (10, Some(10 + RESERVE)));
        mark.reserve(11 + RESERVE).unwrap();
        assert_eq!(MarkFile::open(&path).unwrap().bound(), Some(11 + 2 * RESERVE));
        mark.close().unwrap();
        assert_eq!(MarkFile::open(&path).unwrap().bound(), Some(10));
    }
}
