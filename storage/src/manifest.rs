//! The manifest: what is known of the generations without opening them, the proven clock, and the
//! gaps.
//!
//! A text file replaced as a whole: one line with the format version and a CRC-32C of the
//! rest, then JSON. The version is that of the whole directory (`format.rs`). Pinned by the golden test below.
//!
//! It is a help, not the truth: the directories are. A generation that stands in the manifest
//! as sealed need not be opened to be counted; one that is missing from it is opened and
//! counted; a manifest that cannot be read is rebuilt the same way (its gaps are then found
//! again as numbers without a record, their reason lost).

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::Reading;
use crate::error::Error;
use crate::files;
use crate::format::FORMAT;
use crate::types::{Gap, Stamp};

/// What a generation is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// In the row of records to be delivered, delivered in part or not at all.
    Pending,
    /// Delivered as a whole.
    Sent,
    /// Copies of records the receiver refused.
    Rejected,
}

/// A sealed generation: nothing is ever appended to it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sealed {
    pub(crate) id: u64,
    pub(crate) role: Role,
    /// Lowest and highest number; `last < first` if it is empty.
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) records: u64,
    /// Payload bytes.
    pub(crate) bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_stamp: Option<Stamp>,
    /// When its newest record was made, by the proven clock (`clock.rs`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) newest_ms: Option<u64>,
    /// When it was drained, for a sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sent_at: Option<Stamp>,
    /// The same by the proven clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sent_ms: Option<u64>,
    /// Numbers in a sent one that were not delivered but rejected or given up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) excluded: Vec<(u64, u64)>,
}

/// The whole content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// No number below this one will be given out again.
    pub(crate) next_seq: u64,
    /// The id of the next generation.
    pub(crate) next_id: u64,
    /// The proven clock; what it reads beside a generation is meaningless without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clock: Option<Reading>,
    pub(crate) generations: Vec<Sealed>,
    pub(crate) gaps: Vec<Gap>,
}

/// What reading a manifest found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Manifest(Manifest),
    Damaged,
}

impl Manifest {
    pub(crate) fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let body = serde_json::to_vec(self)?;
        let mut out = format!("harborforge-queue {FORMAT} crc32c {:08x}\n", crc32c::crc32c(&body))
            .into_bytes();
        out.extend_from_slice(&body);
        out.push(b'\n');
        Ok(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (head, body) = text.split_once('\n')?;
        let body = body.trim_end_matches('\n');
        let crc = head.strip_prefix(&format!("harborforge-queue {FORMAT} crc32c "))?;
        if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(body.as_bytes()) {
            return None;
        }
        serde_json::from_str(body).ok()
    }

    pub(crate) fn read(path: &Path) -> Result<Found, Error> {
        let content = files::read_if_there(path).map_err(|e| Error::io("read", path, e))?;
        Ok(match content {
            None => Found::Nothing,
            Some(bytes) => Self::decode(&bytes).map_or(Found::Damaged, Found::Manifest),
        })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let bytes = self.encode().map_err(|e| Error::io("encode", path, e.into()))?;
        files::replace(path, &bytes).map_err(|e| Error::io("write", path, e))
    }
}

/// The version a manifest states, whatever its body looks like; none if it is damaged.
pub(crate) fn stated_version(bytes: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once('\n')?;
    let (version, crc) = head.strip_prefix("harborforge-queue ")?.split_once(" crc32c ")?;
    let body = body.trim_end_matches('\n');
    (u32::from_str_radix(crc, 16).ok()? == crc32c::crc32c(body.as_bytes()))
        .then(|| version.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::GapReason;

    fn sample() -> Manifest {
        let stamp = Stamp { wall_ms: 5, boot_ms: 6, boot_id: [0; 16] };
        Manifest {
            next_seq: 9,
            next_id: 3,
            clock: Some(Reading { proven_ms: 8, at: stamp }),
            generations: vec![Sealed {
                id: 1,
                role: Role::Sent,
                first: 1,
                last: 4,
                records: 4,
                bytes: 400,
                first_stamp: None,
                newest_ms: Some(3),
                sent_at: Some(stamp),
                sent_ms: Some(4),
                excluded: vec![(2, 2)],
            }],
            gaps: vec![Gap {
                from: 2,
                to: 2,
                reason: GapReason::Corrupt,
                maybe_delivered: false,
                wall_ms: 7,
                announced: true,
            }],
        }
    }

    #[test]
    fn golden_manifest() {
        let text = String::from_utf8(sample().encode().unwrap()).unwrap();
        let (head, body) = text.split_once('\n').unwrap();
        assert_eq!(
            body,
            "{\"next_seq\":9,\"next_id\":3,\"clock\":{\"proven_ms\":8,\"at\":{\"wall_ms\":5,\"boot_ms\":6,\
             \"boot_id\":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}},\
             \"generations\":[{\"id\":1,\"role\":\"sent\",\"first\":1,\"last\":4,\
             \"records\":4,\"bytes\":400,\"newest_ms\":3,\"sent_at\":{\"wall_ms\":5,\"boot_ms\":6,\
             \"boot_id\":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]},\"sent_ms\":4,\"excluded\":[[2,2]]}],\
             \"gaps\":[{\"from\":2,\"to\":2,\"reason\":\"corrupt\",\"maybe_delivered\":false,\
             \"wall_ms\":7,\"announced\":true}]}\n"
        );
        assert_eq!(head, "harborforge-queue 1 crc32c 5d64c9d4");
    }

    /// As it was written before there was a proven clock.
    #[test]
    fn a_manifest_without_times_is_read() {
        let body = "{\"next_seq\":9,\"next_id\":3,\"generations\":[{\"id\":1,\"role\":\"sent\",\"first\":1,\
                    \"last\":4,\"records\":4,\"bytes\":400,\"sent_at\":{\"wall_ms\":5,\"boot_ms\":6,\
                    \"boot_id\":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]},\"excluded\":[[2,2]]}],\
                    \"gaps\":[{\"from\":2,\"to\":2,\"reason\":\"corrupt\",\"maybe_delivered\":false,\
                    \"wall_ms\":7,\"announced\":true}]}\n";
        let text = format!("harborforge-queue 1 crc32c 851e11a7\n{body}");
        let mut expected = sample();
        expected.clock = None;
        (expected.generations[0].newest_ms, expected.generations[0].sent_ms) = (None, None);
        assert_eq!(Manifest::decode(text.as_bytes()), Some(expected));
    }

    #[test]
    fn comes_back_and_damage_is_noticed() {
        let bytes = sample().encode().unwrap();
        assert_eq!(Manifest::decode(&bytes), Some(sample()));
        for at in 0..bytes.len() - 1 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_ne!(Manifest::decode(&flipped), Some(sample()), "flip at {at}");
            assert_eq!(Manifest::decode(&bytes[..at]), None, "cut at {at}");
        }
    }
}
