//! The bytes of one stored record.
//!
//! All numbers little-endian. Pinned by the golden test below; a change needs a new version byte.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | version: 1 |
//! | 1 | 1 | kind: 1 = one record; 2 = a block of many (reserved for packed generations); 3 = a rejected record |
//! | 2 | 1 | codec: 0 = as given (others are reserved for packed generations) |
//! | 3 | 1 | 0 |
//! | 4 | 4 | body length in bytes |
//! | 8 | 8 | sequence number |
//! | 16 | 8 | wall clock, milliseconds since 1970 |
//! | 24 | 8 | time since boot, milliseconds |
//! | 32 | 16 | boot id |
//! | 48 | 16 | epoch, as UUID bytes |
//! | 64 | 4 | CRC-32C over bytes 0 to 64 and the body |
//! | 68 | n | body |
//!
//! The body of kind 1 is the payload. The body of kind 3 is: 8 bytes wall clock of the
//! rejection, 2 bytes length of the reason, the reason (UTF-8), the payload.

use uuid::Uuid;

use crate::types::{Record, RejectedRecord, Stamp};

/// Largest payload of a record in bytes; sixteen times what a telemetry sample may be.
pub const MAX_PAYLOAD: usize = 1024 * 1024;

/// A rejection's reason is cut to this many bytes.
pub(crate) const MAX_REASON: usize = 1024;

const VERSION: u8 = 1;
const KIND_SINGLE: u8 = 1;
const KIND_REJECTED: u8 = 3;
const CODEC_PLAIN: u8 = 0;
/// Length of everything before the body.
pub(crate) const HEADER_LEN: usize = 68;
const CRC_AT: usize = 64;

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("shorter than its header says")]
    Short,
    #[error("of an unknown version, kind or codec")]
    Unknown,
    #[error("its checksum does not match")]
    Checksum,
    #[error("it carries another number than its place")]
    Misplaced,
}

/// A decoded record that borrows its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decoded<'a> {
    pub(crate) seq: u64,
    pub(crate) epoch: Uuid,
    pub(crate) stamp: Stamp,
    pub(crate) payload: &'a [u8],
    pub(crate) rejection: Option<Rejection<'a>>,
}

/// What a rejected record says beside its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rejection<'a> {
    pub(crate) wall_ms: u64,
    pub(crate) reason: &'a str,
}

impl Decoded<'_> {
    pub(crate) fn to_record(self) -> Record {
        Record {
            seq: self.seq,
            epoch: self.epoch,
            stamp: self.stamp,
            payload: self.payload.to_vec(),
        }
    }

    pub(crate) fn to_rejected(self) -> Option<RejectedRecord> {
        let Rejection { wall_ms, reason } = self.rejection?;
        Some(RejectedRecord { record: self.to_record(), reason: reason.to_owned(), wall_ms })
    }
}

/// The stored form of a record.
pub(crate) fn encode(seq: u64, epoch: Uuid, stamp: Stamp, payload: &[u8]) -> Vec<u8> {
    assemble(KIND_SINGLE, seq, epoch, stamp, &[payload])
}

/// The stored form of a rejected record. The reason is cut at [`MAX_REASON`] bytes.
pub(crate) fn encode_rejected(record: &Record, reason: &str, wall_ms: u64) -> Vec<u8> {
    let reason = reason.get(..reason.floor_char_boundary(MAX_REASON)).unwrap_or(reason);
    // Cannot fail: the reason was just cut far below 64 KiB.
    let length = u16::try_from(reason.len()).unwrap_or(0);
    let parts: [&[u8]; 4] =
        [&wall_ms.to_le_bytes(), &length.to_le_bytes(), reason.as_bytes(), &record.payload];
    assemble(KIND_REJECTED, record.seq, record.epoch, record.stamp, &parts)
}

fn assemble(kind: u8, seq: u64, epoch: Uuid, stamp: Stamp, body: &[&[u8]]) -> Vec<u8> {
    let length: usize = body.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(HEADER_LEN + length);
    out.extend_from_slice(&[VERSION, kind, CODEC_PLAIN, 0]);
    // Payloads are bounded by MAX_PAYLOAD before they come here.
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&stamp.wall_ms.to_le_bytes());
    out.extend_from_slice(&stamp.boot_ms.to_le_bytes());
    out.extend_from_slice(&stamp.boot_id);
    out.extend_from_slice(epoch.as_bytes());
    let crc = body.iter().fold(crc32c::crc32c(&out), |crc, part| crc32c::crc32c_append(crc, part));
    out.extend_from_slice(&crc.to_le_bytes());
    for part in body {
        out.extend_from_slice(part);
    }
    out
}

/// The full length in bytes of the record that begins with `start`, which holds at least
/// its header.
pub(crate) fn encoded_len(start: &[u8]) -> Option<usize> {
    let length = start.get(4..)?.first_chunk::<4>()?;
    HEADER_LEN.checked_add(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// The number that the record beginning with `start` carries, unchecked.
pub(crate) fn stored_seq(start: &[u8]) -> Option<u64> {
    start.get(8..)?.first_chunk().map(|seq| u64::from_le_bytes(*seq))
}

/// Reads a record back and checks it, its number included.
pub(crate) fn decode(bytes: &[u8], expected_seq: u64) -> Result<Decoded<'_>, Malformed> {
    let (head, body) = bytes.split_at_checked(HEADER_LEN).ok_or(Malformed::Short)?;
    if encoded_len(head) != Some(bytes.len()) {
        return Err(Malformed::Short);
    }
    let (covered, crc) = head.split_at_checked(CRC_AT).ok_or(Malformed::Short)?;
    let crc = u32::from_le_bytes(*crc.first_chunk().ok_or(Malformed::Short)?);
    if crc32c::crc32c_append(crc32c::crc32c(covered), body) != crc {
        return Err(Malformed::Checksum);
    }
    let mut fields = Fields(covered);
    let [version, kind, codec, _] = fields.take::<4>()?;
    if version != VERSION || codec != CODEC_PLAIN {
        return Err(Malformed::Unknown);
    }
    let _length = fields.take::<4>()?;
    let seq = u64::from_le_bytes(fields.take()?);
    let stamp = Stamp {
        wall_ms: u64::from_le_bytes(fields.take()?),
        boot_ms: u64::from_le_bytes(fields.take()?),
        boot_id: fields.take()?,
    };
    let epoch = Uuid::from_bytes(fields.take()?);
    if seq != expected_seq {
        return Err(Malformed::Misplaced);
    }
    let (rejection, payload) = match kind {
        KIND_SINGLE => (None, body),
        KIND_REJECTED => {
            let mut fields = Fields(body);
            let wall_ms = u64::from_le_bytes(fields.take()?);
            let length = usize::from(u16::from_le_bytes(fields.take()?));
            let (reason, payload) = fields.0.split_at_checked(length).ok_or(Malformed::Short)?;
            let reason = std::str::from_utf8(reason).map_err(|_| Malformed::Unknown)?;
            (Some(Rejection { wall_ms, reason }), payload)
        }
        _ => return Err(Malformed::Unknown),
    };
    Ok(Decoded { seq, epoch, stamp, payload, rejection })
}

/// Takes fields of fixed size off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp() -> Stamp {
        Stamp { wall_ms: 1, boot_ms: 2, boot_id: [3; 16] }
    }

    /// The layout of the module's table, byte by byte.
    #[test]
    fn golden_record() {
        let epoch = Uuid::from_bytes([0xEE; 16]);
        let stamp = Stamp { wall_ms: 0x0102, boot_ms: 0x0304, boot_id: [0xBB; 16] };
        let bytes = encode(0x2A, epoch, stamp, b"{}");
        let mut expected = vec![1, 1, 0, 0, 2, 0, 0, 0, 0x2A, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([0x02, 0x01, 0, 0, 0, 0, 0, 0, 0x04, 0x03, 0, 0, 0, 0, 0, 0]);
        expected.extend([0xBB; 16]);
        expected.extend([0xEE; 16]);
        expected.extend([0xBB, 0xD8, 0x7A, 0x2B]);
        expected.extend(b"{}");
        assert_eq!(bytes, expected, "{bytes:02X?}");

        let record = decode(&bytes, 0x2A).unwrap().to_record();
        let rejected = encode_rejected(&record, "no", 9);
        assert_eq!(rejected[..8], [1, 3, 0, 0, 14, 0, 0, 0]);
        assert_eq!(rejected[HEADER_LEN..], *b"\x09\0\0\0\0\0\0\0\x02\0no{}");
        let back = decode(&rejected, 0x2A).unwrap().to_rejected().unwrap();
        assert_eq!((back.record, back.reason.as_str(), back.wall_ms), (record, "no", 9));
    }

    proptest! {
        #[test]
        fn comes_back_and_every_flip_is_noticed(payload in prop::collection::vec(any::<u8>(), 0..300),
                                                seq in any::<u64>(), flip in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = encode(seq, Uuid::from_bytes([7; 16]), stamp(), &payload);
            let decoded = decode(&bytes, seq).unwrap();
            prop_assert_eq!(decoded.payload, &payload[..]);
            prop_assert_eq!(decoded.stamp, stamp());
            let at = flip.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes, seq).is_err());
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), seq in any::<u64>()) {
            prop_assert!(decode(&bytes, seq).is_err());
        }
    }

    #[test]
    fn a_record_in_anothers_place_is_refused() {
        let bytes = encode(5, Uuid::nil(), stamp(), b"x");
        assert_eq!(decode(&bytes, 6), Err(Malformed::Misplaced));
        assert_eq!(decode(&bytes[..bytes.len() - 1], 5), Err(Malformed::Short));
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let record = Record { seq: 1, epoch: Uuid::nil(), stamp: stamp(), payload: b"p".to_vec() };
        let bytes = encode_rejected(&record, &"é".repeat(2000), 0);
        let back = decode(&bytes, 1).unwrap().to_rejected().unwrap();
        assert_eq!(back.reason, "é".repeat(MAX_REASON / 2));
        assert_eq!(back.record.payload, b"p");
    }
}
