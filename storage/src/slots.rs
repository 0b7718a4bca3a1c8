//! A few bytes that are overwritten often and never lost: two slots written in turn.
//!
//! Both slots are allocated when the file is made, each in a block of its own, so that writing
//! one needs no space and cannot harm the other. A write goes to the slot that is not the
//! newest; reading takes the valid slot with the higher turn. A write that a crash cuts short
//! therefore leaves the value before it.
//!
//! A slot, little-endian: 4 bytes `HFSL`, 1 byte version (1), 1 byte purpose (1 high-water
//! mark, 2 cursor), 2 bytes 0, 8 bytes turn, [`WIDTH`] bytes value, 4 bytes CRC-32C over all
//! that. Pinned by the golden test below.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::files;

/// Bytes of a value.
pub(crate) const WIDTH: usize = 40;
/// Bytes of a slot.
pub(crate) const SLOT_LEN: usize = 16 + WIDTH + 4;
/// Each slot lies in a block of its own.
const STRIDE: u64 = 4096;
const MAGIC: [u8; 4] = *b"HFSL";
const VERSION: u8 = 1;

/// What a file of slots holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Mark = 1,
    Cursor = 2,
}

/// What was found in a file of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The file was not there or empty.
    Nothing,
    /// The newest valid value.
    Value([u8; WIDTH]),
    /// There is a file with no valid slot.
    Damaged,
}

/// An open file of two slots.
pub(crate) struct Slots {
    file: File,
    path: PathBuf,
    purpose: Purpose,
    turn: u64,
}

impl Slots {
    /// Opens the file, making it if need be.
    pub(crate) fn open(path: &Path, purpose: Purpose) -> io::Result<(Self, Found)> {
        let file = files::open_private(path)?;
        let (turn, found) = newest(&file, purpose)?;
        let slots = Self { file, path: path.to_path_buf(), purpose, turn };
        if slots.file.metadata()?.len() < 2 * STRIDE {
            // Real blocks, not a hole: later writes must not need space.
            slots.file.set_len(2 * STRIDE)?;
            if found == Found::Nothing {
                slots.file.write_all_at(&[0; 2 * STRIDE as usize], 0)?;
            }
            slots.file.sync_all()?;
            path.parent().map_or(Ok(()), files::sync_dir)?;
        }
        Ok((slots, found))
    }

    /// Reads the newest value without writing anything.
    pub(crate) fn peek(path: &Path, purpose: Purpose) -> io::Result<Found> {
        match File::open(path) {
            Ok(file) => Ok(newest(&file, purpose)?.1),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Writes the next value. It survives a kill at once, a power cut after [`sync`](Self::sync).
    pub(crate) fn write(&mut self, value: &[u8; WIDTH]) -> io::Result<()> {
        let turn = self.turn.wrapping_add(1);
        self.file.write_all_at(&encode(self.purpose, turn, value), turn % 2 * STRIDE)?;
        self.turn = turn;
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn newest(file: &File, purpose: Purpose) -> io::Result<(u64, Found)> {
    let mut slots = [None, None];
    for (slot, at) in slots.iter_mut().zip([0, STRIDE]) {
        let mut bytes = [0; SLOT_LEN];
        match file.read_exact_at(&mut bytes, at) {
            Ok(()) => *slot = Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
    }
    Ok(judge(purpose, &slots))
}

/// What slots say together; one that the file is too short for is none.
pub(crate) fn judge(purpose: Purpose, slots: &[Option<[u8; SLOT_LEN]>; 2]) -> (u64, Found) {
    let mut best: Option<(u64, [u8; WIDTH])> = None;
    let mut blank = true;
    for bytes in slots.iter().flatten() {
        blank &= bytes.iter().all(|&byte| byte == 0);
        if let Some((turn, value)) = decode(purpose, bytes)
            && best.is_none_or(|(other, _)| other < turn)
        {
            best = Some((turn, value));
        }
    }
    match best {
        Some((turn, value)) => (turn, Found::Value(value)),
        None if blank => (0, Found::Nothing),
        None => (0, Found::Damaged),
    }
}

pub(crate) fn encode(purpose: Purpose, turn: u64, value: &[u8; WIDTH]) -> Vec<u8> {
    let mut out = Vec::with_capacity(SLOT_LEN);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, purpose as u8, 0, 0]);
    out.extend_from_slice(&turn.to_le_bytes());
    out.extend_from_slice(value);
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    out
}

fn decode(purpose: Purpose, bytes: &[u8; SLOT_LEN]) -> Option<(u64, [u8; WIDTH])> {
    let (covered, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (head, rest) = covered.split_first_chunk::<8>()?;
    if *head != [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], VERSION, purpose as u8, 0, 0] {
        return None;
    }
    let (turn, value) = rest.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*turn), value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_slot() {
        let bytes = encode(Purpose::Cursor, 0x0102, &[0xAB; WIDTH]);
        let mut expected = b"HFSL\x01\x02\0\0\x02\x01\0\0\0\0\0\0".to_vec();
        expected.extend([0xAB; WIDTH]);
        expected.extend([0x82, 0xCE, 0xDF, 0x3F]);
        assert_eq!(bytes, expected, "{bytes:02X?}");
    }

    #[test]
    fn the_newest_valid_slot_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        assert_eq!(Slots::peek(&path, Purpose::Mark).unwrap(), Found::Nothing);
        let (mut slots, found) = Slots::open(&path, Purpose::Mark).unwrap();
        assert_eq!(found, Found::Nothing);
        for n in 1..=5 {
            slots.write(&[n; WIDTH]).unwrap();
            assert_eq!(Slots::peek(&path, Purpose::Mark).unwrap(), Found::Value([n; WIDTH]));
        }
        // The newest one (turn 5, second slot) torn: the one before it is found.
        slots.file.write_all_at(&[0xFF; 3], STRIDE + 20).unwrap();
        drop(slots);
        let (mut slots, found) = Slots::open(&path, Purpose::Mark).unwrap();
        assert_eq!(found, Found::Value([4; WIDTH]));
        slots.write(&[9; WIDTH]).unwrap();
        assert_eq!(Slots::peek(&path, Purpose::Mark).unwrap(), Found::Value([9; WIDTH]));
    }

    #[test]
    fn damage_to_both_and_a_foreign_purpose_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cursor");
        let (mut slots, _) = Slots::open(&path, Purpose::Cursor).unwrap();
        slots.write(&[1; WIDTH]).unwrap();
        assert_eq!(Slots::peek(&path, Purpose::Mark).unwrap(), Found::Damaged);
        std::fs::write(&path, [7; 100]).unwrap();
        assert_eq!(Slots::peek(&path, Purpose::Cursor).unwrap(), Found::Damaged);
        std::fs::write(&path, []).unwrap();
        assert_eq!(Slots::peek(&path, Purpose::Cursor).unwrap(), Found::Nothing);
    }
}
