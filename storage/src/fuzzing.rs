//! What the fuzz targets under `tests/fuzz` call: decoders of bytes that come from the disk.
//!
//! Each takes any bytes and panics if what it read breaks an invariant. Checksums keep a fuzzer
//! out, so the same bytes are also tried with the checksum made right.

use crate::cursor;
use crate::gaps::Gaps;
use crate::generation::Name;
use crate::manifest::{Manifest, Role};
use crate::marks::{CursorValue, cursor_bytes, cursor_of, mark_bytes, mark_of};
use crate::ranges::RangeSet;
use crate::record::{self, Decoded, HEADER_LEN, Malformed, Rejection};
use crate::slots::{self, Found, Purpose, SLOT_LEN, WIDTH};
use crate::types::Stamp;
use crate::{census, format};
use uuid::Uuid;

const STAMP: Stamp = Stamp { wall_ms: 0, boot_ms: 0, boot_id: [0; 16] };

/// A stored record.
pub fn record(data: &[u8]) {
    let seq = record::stored_seq(data).unwrap_or(0);
    if let Ok(found) = record::decode(data, seq) {
        comes_back(&found, seq);
    }
    if seq != u64::MAX {
        assert!(record::decode(data, seq.saturating_add(1)).is_err(), "taken for another's");
    }
    let Some(mended) = with_length_and_checksum(data) else { return };
    match record::decode(&mended, seq) {
        Ok(found) => comes_back(&found, seq),
        Err(Malformed::Unknown | Malformed::Short | Malformed::Packing) => {}
        Err(other @ (Malformed::Checksum | Malformed::Misplaced)) => {
            assert!(other == Malformed::Unknown, "{other} although it was made right");
        }
    }
    // And as what somebody appends.
    let stored = record::encode(seq, Uuid::nil(), STAMP, data);
    let back = record::decode(&stored, seq).and_then(Decoded::to_record);
    assert!(back.is_ok_and(|back| back.payload == data), "what was appended is not read");
}

/// The record's bytes with the length and checksum its header should have.
pub(crate) fn with_length_and_checksum(data: &[u8]) -> Option<Vec<u8>> {
    let (head, body) = data.split_at_checked(HEADER_LEN)?;
    let (covered, _) = head.split_at_checked(HEADER_LEN.checked_sub(4)?)?;
    let (start, rest) = covered.split_at_checked(4)?;
    let (_, fields) = rest.split_at_checked(4)?;
    let length = u32::try_from(body.len()).ok()?.to_le_bytes();
    let covered = [start, &length, fields].concat();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&covered), body);
    Some([&covered, crc.to_le_bytes().as_slice(), body].concat())
}

fn comes_back(found: &Decoded<'_>, seq: u64) {
    assert_eq!(found.seq, seq);
    let Ok(record) = found.to_record() else {
        assert!(!found.payload.is_readable(), "two answers to one question");
        return;
    };
    assert_eq!(record.payload.len(), found.payload.len());
    let again = match found.rejection {
        Some(Rejection { wall_ms, reason }) => record::encode_rejected(&record, reason, wall_ms),
        None => record::encode(record.seq, record.epoch, record.stamp, &record.payload),
    };
    let back = record::decode(&again, seq).and_then(Decoded::to_record);
    assert_eq!(back.as_ref(), Ok(&record));
    if let Some(Rejection { wall_ms, reason }) = found.rejection {
        let back = record::decode(&again, seq).ok().and_then(Decoded::to_rejected);
        let kept = back.map(|back| (back.wall_ms, reason.starts_with(&back.reason)));
        assert_eq!(kept, Some((wall_ms, true)));
    }
}

/// The high-water mark's file and the cursor's: the first bytes are one slot, the next the other.
pub fn slots(data: &[u8]) {
    let (one, other) = data.split_at_checked(SLOT_LEN).unwrap_or((data, &[]));
    let raw = [one.first_chunk().copied(), other.first_chunk().copied()];
    let checked = raw.map(|slot: Option<[u8; SLOT_LEN]>| {
        let mut slot = slot?;
        let (covered, crc) = slot.split_last_chunk_mut::<4>()?;
        *crc = crc32c::crc32c(covered).to_le_bytes();
        Some(slot)
    });
    for slots in [raw, checked] {
        for purpose in [Purpose::Mark, Purpose::Cursor] {
            let (turn, found) = slots::judge(purpose, &slots);
            values_come_back(found);
            // The next write goes over the older one and is what is found then.
            let next = turn.wrapping_add(1);
            if next == 0 {
                continue;
            }
            let value = [next.to_le_bytes()[0]; WIDTH];
            let mut written = slots;
            let slot = usize::from(next % 2 == 1);
            if let Some(place) = written.get_mut(slot) {
                *place = slots::encode(purpose, next, &value).try_into().ok();
            }
            assert_eq!(slots::judge(purpose, &written), (next, Found::Value(value)));
        }
    }
}

fn values_come_back(found: Found) {
    let (mark, reserved, _) = mark_of(found);
    let again = mark_of(Found::Value(mark_bytes(mark, reserved)));
    assert_eq!((again.0, again.1), (mark, reserved));
    let (value, _) = cursor_of(found);
    let again: CursorValue = cursor_of(Found::Value(cursor_bytes(value.cursor, value.success))).0;
    assert_eq!(again, value);
}

/// The manifest, and what opening makes of it.
pub fn manifest(data: &[u8]) {
    if let Some(manifest) = Manifest::decode(data) {
        manifest_holds(manifest);
    }
    // The body alone, its first line made right.
    let head = format!("harborforge-queue {} crc32c ", format::FORMAT);
    let body = data.strip_suffix(b"\n").unwrap_or(data);
    let mended = [format!("{head}{:08x}\n", crc32c::crc32c(body)).as_bytes(), body].concat();
    if let Some(manifest) = Manifest::decode(&mended) {
        manifest_holds(manifest);
    }
}

fn manifest_holds(manifest: Manifest) {
    if let Ok(again) = manifest.encode() {
        assert_eq!(Manifest::decode(&again).as_ref(), Some(&manifest));
    }
    let named = |g: &crate::manifest::Sealed| Name { first: g.first, id: g.id, role: g.role };
    let names: Vec<Name> = manifest.generations.iter().map(named).collect();
    for name in &names {
        let parsed = Name::parse(&name.to_string());
        assert_eq!(parsed, (name.first > 0).then_some(*name));
    }
    let found = census::arrange(names, &manifest.generations);
    let mut before = 0;
    for g in &found.row {
        assert!(g.role != Role::Rejected && g.first >= before, "the row is not in order");
        before = g.first;
    }
    let last = found.row.iter().map(|g| g.last).max().unwrap_or(0);
    let _ = cursor::derive(&found.row, last, None);
    let gaps = Gaps::from_stored(manifest.gaps);
    let mut settled = RangeSet::default();
    let mut end = None;
    for gap in gaps.as_slice() {
        assert!(gap.from <= gap.to && end.is_none_or(|end| gap.from > end), "gaps overlap");
        end = Some(gap.to);
        settled.insert(gap.from, gap.to);
        assert!(settled.contains(gap.from) && settled.contains(gap.to));
    }
    let mut announced = gaps.clone();
    announced.announce(&gaps.unannounced());
    assert!(announced.unannounced().is_empty());
}

/// The file that states the format, and directory names.
pub fn names(data: &[u8]) {
    let _ = format::read_statement(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(name) = Name::parse(text) {
        assert_eq!(Name::parse(&name.to_string()), Some(name));
    }
}

#[cfg(test)]
#[path = "../../tests/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn record() {
        replay("record", super::record);
    }

    #[test]
    fn slots() {
        replay("slots", super::slots);
    }

    #[test]
    fn manifest() {
        replay("manifest", super::manifest);
    }

    #[test]
    fn names() {
        replay("names", super::names);
    }
}
