//! The two small values that are written all the time: high-water mark and cursor.
//!
//! **High-water mark**: the highest number appended, kept outside the databases, so that a tail
//! that went missing without a trace is noticed at the next opening. It is written after
//! each append and synced only now and then. That is enough: a kill loses nothing that was
//! written, synced or not; a power cut may take the mark back by some seconds, but what it
//! then fails to vouch for was synced with its append, and a synced record does not go with
//! the power. A mark above what is found is always a loss, a mark below it never one.
//!
//! **Cursor**: everything up to it is settled. It is synced each time, once per confirmed window,
//! and once when a queue is made, so that a file without a value was lost (`cursor.rs`).
//!
//! Value of the mark: 8 bytes number, rest 0. Value of the cursor: 8 bytes number, 8 bytes
//! number of the last success (0 if none), 8 bytes wall clock of its confirmation, 1 byte tag,
//! rest 0. Little-endian, inside a slot of `slots.rs`.

use std::path::Path;

use crate::error::Error;
use crate::slots::{Found, Purpose, Slots, WIDTH};
use crate::types::Confirmation;

/// The high-water mark on disk.
pub(crate) struct MarkFile {
    slots: Slots,
    value: u64,
    unsynced: bool,
    unwritten: bool,
}

impl MarkFile {
    /// Opens it; the second value tells whether what was there could not be read.
    pub(crate) fn open(path: &Path) -> Result<(Self, bool), Error> {
        let (slots, found) =
            Slots::open(path, Purpose::Mark).map_err(|e| Error::io("open", path, e))?;
        let (value, damaged) = mark_of(found);
        Ok((Self { slots, value, unsynced: damaged, unwritten: false }, damaged))
    }

    /// Its value without writing; the second one tells whether what is there cannot be read.
    pub(crate) fn peek(path: &Path) -> Result<(u64, bool), Error> {
        let found = Slots::peek(path, Purpose::Mark).map_err(|e| Error::io("read", path, e))?;
        Ok(mark_of(found))
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
        let failed = self.slots.write(&mark_bytes(value));
        if let Err(error) = &failed
            && !self.unwritten
        {
            tracing::warn!(path = %self.slots.path().display(), %error, "the high-water mark is behind");
        }
        self.unwritten = failed.is_err();
    }

    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        let written =
            if self.unwritten { self.slots.write(&mark_bytes(self.value)) } else { Ok(()) };
        written
            .and_then(|()| self.slots.sync())
            .map_err(|e| Error::io("sync", self.slots.path(), e))?;
        self.unwritten = false;
        self.unsynced = false;
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

fn mark_bytes(value: u64) -> [u8; WIDTH] {
    let mut bytes = [0; WIDTH];
    if let Some(number) = bytes.first_chunk_mut() {
        *number = value.to_le_bytes();
    }
    bytes
}

fn mark_of(found: Found) -> (u64, bool) {
    match found {
        Found::Nothing => (0, false),
        Found::Damaged => (0, true),
        Found::Value(bytes) => (bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b)), false),
    }
}

fn cursor_bytes(cursor: u64, success: Option<(u64, Confirmation)>) -> [u8; WIDTH] {
    let (seq, at) = success.unwrap_or((0, Confirmation { wall_ms: 0, tag: 0 }));
    let mut bytes = [0; WIDTH];
    let fields = [cursor, seq, at.wall_ms].into_iter().flat_map(u64::to_le_bytes);
    for (slot, byte) in bytes.iter_mut().zip(fields.chain([at.tag])) {
        *slot = byte;
    }
    bytes
}

fn cursor_of(found: Found) -> (CursorValue, Condition) {
    let bytes = match found {
        Found::Nothing => return (CursorValue::default(), Condition::Blank),
        Found::Damaged => return (CursorValue::default(), Condition::Damaged),
        Found::Value(bytes) => bytes,
    };
    let number = |at: usize| {
        bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
    };
    let at = Confirmation { wall_ms: number(16), tag: bytes.get(24).copied().unwrap_or(0) };
    let success = Some((number(8), at)).filter(|&(seq, _)| seq > 0);
    (CursorValue { cursor: number(0), success }, Condition::Good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values() {
        assert_eq!(mark_bytes(0x0102)[..9], [2, 1, 0, 0, 0, 0, 0, 0, 0]);
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
        let (mut mark, damaged) = MarkFile::open(&dir.path().join("mark")).unwrap();
        assert!(!damaged && mark.value() == 0);
        mark.set(77);
        assert!(!mark.is_synced());
        drop(mark);
        assert_eq!(MarkFile::peek(&dir.path().join("mark")).unwrap(), (77, false));
        std::fs::write(dir.path().join("mark"), [9; 8192]).unwrap();
        assert!(MarkFile::open(&dir.path().join("mark")).unwrap().1);
    }
}
