//! The bytes of one stored record.
//!
//! All numbers little-endian. Pinned by the golden test below; a change needs a new version byte.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | version: 1 |
//! | 1 | 1 | kind: 1 = one record; 2 = a block of many (reserved for packed generations); 3 = a rejected record |
//! | 2 | 1 | codec of the body: 0 = as given; 1 = packed with dictionary 1 (`codec.rs`), kind 1 only |
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
//! The body of kind 1 is the payload; packed where that makes it smaller. The body of kind 3 is: 8
//! bytes wall clock of the rejection, 2 bytes length of the reason, the reason (UTF-8), the
//! payload. The checksum goes over the body as it is stored, and is checked before anything else is
//! believed; what it vouches for is unpacked only when the payload itself is asked for.

use uuid::Uuid;

use crate::codec::{self, Packed};
use crate::types::{Record, RejectedRecord, Stamp};

/// Largest payload of a record in bytes; sixteen times what a telemetry sample may be.
pub const MAX_PAYLOAD: usize = 1024 * 1024;

/// A rejection's reason is cut to this many bytes.
pub(crate) const MAX_REASON: usize = 1024;

const VERSION: u8 = 1;
const KIND_SINGLE: u8 = 1;
const KIND_REJECTED: u8 = 3;
const CODEC_PLAIN: u8 = 0;
const CODEC_PACKED: u8 = 1;
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
    #[error("its payload cannot be unpacked")]
    Packing,
    #[error("it carries another number than its place")]
    Misplaced,
}

/// A decoded record that borrows its payload, as that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decoded<'a> {
    pub(crate) seq: u64,
    pub(crate) epoch: Uuid,
    pub(crate) stamp: Stamp,
    pub(crate) payload: Payload<'a>,
    pub(crate) rejection: Option<Rejection<'a>>,
}

/// A payload as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    Plain(&'a [u8]),
    Packed(Packed<'a>),
}

impl Payload<'_> {
    /// Length in bytes of the payload as it was given.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Packed(packed) => packed.len(),
        }
    }

    /// The payload as it was given.
    pub(crate) fn to_vec(self) -> Result<Vec<u8>, Malformed> {
        match self {
            Self::Plain(bytes) => Ok(bytes.to_vec()),
            Self::Packed(packed) => packed.unpack().ok_or(Malformed::Packing),
        }
    }

    /// Whether [`to_vec`](Self::to_vec) gives it.
    pub(crate) fn is_readable(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Packed(packed) => packed.unpack().is_some(),
        }
    }
}

/// What a rejected record says beside its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rejection<'a> {
    pub(crate) wall_ms: u64,
    pub(crate) reason: &'a str,
}

impl Decoded<'_> {
    pub(crate) fn to_record(self) -> Result<Record, Malformed> {
        Ok(Record {
            seq: self.seq,
            epoch: self.epoch,
            stamp: self.stamp,
            payload: self.payload.to_vec()?,
        })
    }

    pub(crate) fn to_rejected(self) -> Option<RejectedRecord> {
        let Rejection { wall_ms, reason } = self.rejection?;
        let record = self.to_record().ok()?;
        Some(RejectedRecord { record, reason: reason.to_owned(), wall_ms })
    }
}

/// The stored form of a record.
pub(crate) fn encode(seq: u64, epoch: Uuid, stamp: Stamp, payload: &[u8]) -> Vec<u8> {
    match codec::pack(payload) {
        Some(packed) => assemble([KIND_SINGLE, CODEC_PACKED], seq, epoch, stamp, &[&packed]),
        None => encode_plain(seq, epoch, stamp, payload),
    }
}

/// The same with the payload as it is given, to be read without a dictionary.
pub(crate) fn encode_plain(seq: u64, epoch: Uuid, stamp: Stamp, payload: &[u8]) -> Vec<u8> {
    assemble([KIND_SINGLE, CODEC_PLAIN], seq, epoch, stamp, &[payload])
}

/// The stored form of a rejected record. The reason is cut at [`MAX_REASON`] bytes.
pub(crate) fn encode_rejected(record: &Record, reason: &str, wall_ms: u64) -> Vec<u8> {
    let reason = reason.get(..reason.floor_char_boundary(MAX_REASON)).unwrap_or(reason);
    // Cannot fail: the reason was just cut far below 64 KiB.
    let length = u16::try_from(reason.len()).unwrap_or(0);
    let parts: [&[u8]; 4] =
        [&wall_ms.to_le_bytes(), &length.to_le_bytes(), reason.as_bytes(), &record.payload];
    assemble([KIND_REJECTED, CODEC_PLAIN], record.seq, record.epoch, record.stamp, &parts)
}

fn assemble(
    [kind, codec]: [u8; 2],
    seq: u64,
    epoch: Uuid,
    stamp: Stamp,
    body: &[&[u8]],
) -> Vec<u8> {
    let length: usize = body.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(HEADER_LEN + length);
    out.extend_from_slice(&[VERSION, kind, codec, 0]);
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

/// The bytes a record begins with: each is of one of these.
pub(crate) fn starts(rejected: bool) -> &'static [[u8; 4]] {
    if rejected {
        &[[VERSION, KIND_REJECTED, CODEC_PLAIN, 0]]
    } else {
        &[[VERSION, KIND_SINGLE, CODEC_PLAIN, 0], [VERSION, KIND_SINGLE, CODEC_PACKED, 0]]
    }
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

/// Reads a record back and checks it, its number included. A packed payload is as it was written
/// then; that it unpacks is found out when it is unpacked.
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
    if version != VERSION {
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
    let (rejection, payload) = match (kind, codec) {
        (KIND_SINGLE, CODEC_PLAIN) => (None, Payload::Plain(body)),
        (KIND_SINGLE, CODEC_PACKED) => {
            (None, Payload::Packed(Packed::read(body).ok_or(Malformed::Packing)?))
        }
        (KIND_REJECTED, CODEC_PLAIN) => {
            let mut fields = Fields(body);
            let wall_ms = u64::from_le_bytes(fields.take()?);
            let length = usize::from(u16::from_le_bytes(fields.take()?));
            let (reason, payload) = fields.0.split_at_checked(length).ok_or(Malformed::Short)?;
            let reason = std::str::from_utf8(reason).map_err(|_| Malformed::Unknown)?;
            (Some(Rejection { wall_ms, reason }), Payload::Plain(payload))
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

/// A packed record with a block that is none, under a right checksum.
#[cfg(test)]
pub(crate) fn with_bad_block(good: &[u8]) -> Vec<u8> {
    assert!(good.starts_with(&[VERSION, KIND_SINGLE, CODEC_PACKED]));
    let mut bad = good.to_vec();
    // A first match of distance 0.
    bad[HEADER_LEN + 4..HEADER_LEN + 7].fill(0);
    crate::fuzzing::with_length_and_checksum(&bad).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::with_length_and_checksum;
    use crate::testing::payloads::{is_noise, payload};
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

        let record = decode(&bytes, 0x2A).unwrap().to_record().unwrap();
        let rejected = encode_rejected(&record, "no", 9);
        assert_eq!(rejected[..8], [1, 3, 0, 0, 14, 0, 0, 0]);
        assert_eq!(rejected[HEADER_LEN..], *b"\x09\0\0\0\0\0\0\0\x02\0no{}");
        let back = decode(&rejected, 0x2A).unwrap().to_rejected().unwrap();
        assert_eq!((back.record, back.reason.as_str(), back.wall_ms), (record, "no", 9));
    }

    /// Bytes as they were once written, to be read for ever. How small a packer makes them may
    /// change, what they say may not.
    #[test]
    fn golden_packed_record() {
        const PAYLOAD: &[u8] = br#"{"openclaw_version":"2026.3.13","cpu_pct":37.4,"mem_pct":68.9,"disk_pct":81.3,"swap_pct":2.7,"uptime_seconds":8630417,"load_avg":[1.53,0.97,0.86],"agents":[{"id":"main","name":"Assistant","status":"running"},{"id":"desk","name":"Buero","status":"idle"}],"last_seen_at":"2026-08-29T17:42:30Z","connector_version":"0.1.0"}"#;
        const BLOCK: &[u8] =
            b"\x0F\0\x01\x07H3.13\x03\x01G37.4V\x03H68.9\x07\x01H81.3\x09\x01>2.7\x09\x01y86\
            30417\x0F\x01\xE81.53,0.97,0.86\xB4\x01\x0F\x1B\x01\x02\x08+\x04\x05\x06\x01\
            \x05J\x02\x04a\x03FdeskO\x01_Buero6\x01\x17\xAF8-29T17:42\x06\x03\x09`.1.0\"}";
        let mut bytes = vec![1, 1, 1, 0, 0x7A, 0, 0, 0, 0x2A, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend([0x02, 0x01, 0, 0, 0, 0, 0, 0, 0x04, 0x03, 0, 0, 0, 0, 0, 0]);
        bytes.extend([0xBB; 16]);
        bytes.extend([0xEE; 16]);
        bytes.extend([0x24, 0x92, 0x45, 0x9B]);
        bytes.extend([0x40, 0x01, 0, 0]);
        bytes.extend(BLOCK);
        let stamp = Stamp { wall_ms: 0x0102, boot_ms: 0x0304, boot_id: [0xBB; 16] };
        let found = decode(&bytes, 0x2A).unwrap();
        assert_eq!((found.epoch, found.stamp), (Uuid::from_bytes([0xEE; 16]), stamp));
        assert_eq!(found.payload.len(), PAYLOAD.len());
        assert_eq!(found.payload.to_vec().unwrap(), PAYLOAD);
    }

    #[test]
    fn an_unknown_codec_and_one_of_another_kind_are_refused() {
        let packed = encode(5, Uuid::nil(), stamp(), &payload(5, 400));
        assert_eq!(packed[2], CODEC_PACKED);
        for (at, byte) in [(0, 2), (1, 2), (1, KIND_REJECTED), (2, 2), (2, 0xFF)] {
            let mut other = packed.clone();
            other[at] = byte;
            let other = with_length_and_checksum(&other).unwrap();
            assert_eq!(decode(&other, 5), Err(Malformed::Unknown), "{byte} at {at}");
        }
    }

    #[test]
    fn a_length_beyond_any_payloads_is_refused_before_memory_is_taken_for_it() {
        let packed = encode(5, Uuid::nil(), stamp(), &payload(5, 400));
        for length in [MAX_PAYLOAD as u32 + 1, u32::MAX] {
            let mut other = packed.clone();
            other[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&length.to_le_bytes());
            let other = with_length_and_checksum(&other).unwrap();
            assert_eq!(decode(&other, 5), Err(Malformed::Packing), "{length}");
        }
        let short = with_length_and_checksum(&packed[..HEADER_LEN + 3]).unwrap();
        assert_eq!(decode(&short, 5), Err(Malformed::Packing));
    }

    #[test]
    fn a_block_that_is_none_is_noticed_when_it_is_unpacked() {
        let bad = with_bad_block(&encode(5, Uuid::nil(), stamp(), &payload(5, 400)));
        let found = decode(&bad, 5).unwrap();
        assert!(!found.payload.is_readable());
        assert_eq!(found.to_record(), Err(Malformed::Packing));
    }

    #[test]
    fn a_rejected_copy_is_plain() {
        let record =
            Record { seq: 5, epoch: Uuid::nil(), stamp: stamp(), payload: payload(5, 400) };
        let rejected = encode_rejected(&record, "no", 9);
        assert_eq!(rejected[..4], [VERSION, KIND_REJECTED, CODEC_PLAIN, 0]);
        assert!(rejected.ends_with(&record.payload));
    }

    proptest! {
        /// Payloads of which some are packed and some are not.
        #[test]
        fn packed_or_not_it_comes_back_and_every_flip_is_noticed(
            seq in 1u64..10_000, size in 0usize..2_000,
            flip in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let payload = payload(seq, size);
            let mut bytes = encode(seq, Uuid::from_bytes([7; 16]), stamp(), &payload);
            prop_assert!(bytes.len() <= HEADER_LEN + payload.len());
            if size > 400 {
                let packed = bytes.len() < HEADER_LEN + payload.len() * 3 / 5;
                prop_assert_eq!(packed, !is_noise(seq));
            }
            let decoded = decode(&bytes, seq).unwrap();
            prop_assert_eq!(decoded.payload.len(), payload.len());
            prop_assert_eq!(decoded.payload.to_vec(), Ok(payload));
            let at = flip.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes, seq).is_err());
        }

        #[test]
        fn comes_back_and_every_flip_is_noticed(payload in prop::collection::vec(any::<u8>(), 0..300),
                                                seq in any::<u64>(), flip in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = encode(seq, Uuid::from_bytes([7; 16]), stamp(), &payload);
            let decoded = decode(&bytes, seq).unwrap();
            prop_assert_eq!(decoded.payload.to_vec(), Ok(payload));
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
