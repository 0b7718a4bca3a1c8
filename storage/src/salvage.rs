//! Finding records in the bytes of a database that cannot be read any more.
//!
//! Pure: bytes in, records out. A record carries its length, its number and a checksum over all of
//! it (`record.rs`), so wherever its bytes lie, they prove that they are the record: nothing of
//! what surrounds them has to be intact, and superseded copies are as good as current ones.
//!
//! - A record of one chunk lies in one piece and is found by its header.
//! - The chunks of a longer one lie apart, each as a value of its own. The first is found by its
//!   header, the others by their keys, as far as messages of the engine's log can still be made
//!   out (`frames.rs`), and by following the first in its page. Several candidates may
//!   claim one place: the nearest are tried first, a bounded number of them, and the checksum
//!   over the whole record decides.
//!
//! What is lost is a record whose every copy has a damaged byte in it, and a long one of which a
//! chunk is not found.
//!
//! A complete record that stands inside the payload of a damaged one would be taken for one of
//! ours. Its number must be among the wanted ones, its checksum right.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::engine::{CHUNK, key};
use crate::frames::{self, Value};
use crate::record::{self, HEADER_LEN, MAX_PAYLOAD, MAX_REASON};

/// Candidates tried for one place in a record.
const CANDIDATES: usize = 4;
/// Bytes a record's candidates may cost to check.
const EFFORT: usize = 32 * 1024 * 1024;

/// Which records are looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Lowest number.
    pub(crate) from: u64,
    /// Highest number.
    pub(crate) to: u64,
    /// Copies of rejected records instead of appended ones.
    pub(crate) rejected: bool,
}

impl Wanted {
    /// Whether these are the bytes of the record of this number, intact.
    pub(crate) fn accepts(&self, bytes: &[u8], seq: u64) -> bool {
        record::decode(bytes, seq).is_ok_and(|found| {
            // What no reading can unpack is not found: it would be salvaged again and again.
            found.rejection.is_some() == self.rejected && found.payload.is_readable()
        })
    }
}

/// The first chunk of a record of several.
struct Head {
    seq: u64,
    at: usize,
    /// Length of the whole record.
    length: usize,
}

/// A place in the log that may hold a chunk.
struct Piece<'a> {
    /// The key as far as it is known: its end.
    key: Vec<u8>,
    at: usize,
    bytes: &'a [u8],
}

/// Adds to `found`, by number, the stored form of every wanted record in `log` that is not in it.
pub(crate) fn scan(log: &[u8], wanted: Wanted, found: &mut BTreeMap<u64, Vec<u8>>) {
    let mut heads = Vec::new();
    let mut from = 0;
    while let Some(at) = next_header(log, from, wanted) {
        from = at.saturating_add(1);
        let Some(start) = log.get(at..) else { break };
        let Some((seq, length)) = plausible(start, wanted) else { continue };
        if found.contains_key(&seq) {
            continue;
        }
        if length > CHUNK {
            heads.push(Head { seq, at, length });
            continue;
        }
        let Some(bytes) = start.get(..length) else { continue };
        if wanted.accepts(bytes, seq) {
            found.insert(seq, bytes.to_vec());
            // What stands inside a good record is its payload.
            from = at.saturating_add(length);
        }
    }
    if heads.is_empty() {
        return;
    }
    let pieces = pieces(log);
    for head in heads {
        if !found.contains_key(&head.seq)
            && let Some(bytes) = assemble(log, &head, &pieces, wanted)
        {
            found.insert(head.seq, bytes);
        }
    }
}

/// Whether everything in `log` that is a record is there also without the bytes in `range`, which
/// are lost by that.
pub(crate) fn is_worthless(log: &mut [u8], range: Range<usize>) -> bool {
    let records = |log: &[u8]| {
        [false, true].map(|rejected| {
            let mut found = BTreeMap::new();
            scan(log, Wanted { from: 0, to: u64::MAX, rejected }, &mut found);
            found.into_keys().collect::<Vec<_>>()
        })
    };
    let before = records(log);
    if let Some(range) = log.get_mut(range) {
        range.fill(0);
    }
    records(log) == before
}

/// Where the next bytes are that begin like a record.
fn next_header(log: &[u8], from: usize, wanted: Wanted) -> Option<usize> {
    let starts = record::starts(wanted.rejected);
    let at = log.get(from..)?.windows(4).position(|bytes| starts.iter().any(|s| bytes == s))?;
    from.checked_add(at)
}

/// The number and the length a header tells, if they can be true.
fn plausible(start: &[u8], wanted: Wanted) -> Option<(u64, usize)> {
    let length = record::encoded_len(start)?;
    let seq = u64::from_le_bytes(*start.get(8..)?.first_chunk()?);
    let most = HEADER_LEN + MAX_PAYLOAD + MAX_REASON + 16;
    (length <= most && (wanted.from..=wanted.to).contains(&seq)).then_some((seq, length))
}

/// Everything that may be a chunk other than the first of a record, by the last byte of its key.
fn pieces(log: &[u8]) -> BTreeMap<u8, Vec<Piece<'_>>> {
    const KEY: usize = key(0, 0).len();
    let mut pieces: BTreeMap<u8, Vec<Piece<'_>>> = BTreeMap::new();
    frames::values(log, &mut |value: Value<'_>| {
        let length = value.prefix.len().saturating_add(value.key.len());
        if length > KEY || value.bytes.is_empty() || value.bytes.len() > CHUNK {
            return;
        }
        let Some(last) = value.key.last() else { return };
        let key = [value.prefix, value.key].concat();
        let piece = Piece { key, at: value.at, bytes: value.bytes };
        pieces.entry(*last).or_default().push(piece);
    });
    pieces
}

fn assemble(
    log: &[u8],
    head: &Head,
    pieces: &BTreeMap<u8, Vec<Piece<'_>>>,
    wanted: Wanted,
) -> Option<Vec<u8>> {
    let first = log.get(head.at..head.at.checked_add(CHUNK)?)?;
    let neighbours = neighbours(log, head);
    let mut places: Vec<Vec<&[u8]>> = Vec::new();
    let mut open = head.length.checked_sub(CHUNK)?;
    while open > 0 {
        let length = open.min(CHUNK);
        let index = places.len();
        let key = key(head.seq, u16::try_from(index.checked_add(1)?).ok()?);
        let beside = neighbours.get(index).copied().filter(|bytes| bytes.len() == length);
        let claims = pieces.get(key.last()?).map(Vec::as_slice).unwrap_or_default();
        let mut claims: Vec<_> = claims
            .iter()
            .filter(|piece| piece.bytes.len() == length && key.ends_with(&piece.key))
            .collect();
        // A whole key is better than its end, and chunks of one record are written together.
        claims.sort_unstable_by_key(|piece| {
            (piece.key.len() != key.len(), piece.at.abs_diff(head.at), piece.at)
        });
        let mut candidates: Vec<&[u8]> = Vec::new();
        for bytes in beside.into_iter().chain(claims.into_iter().map(|piece| piece.bytes)) {
            if candidates.len() < CANDIDATES && !candidates.contains(&bytes) {
                candidates.push(bytes);
            }
        }
        if candidates.is_empty() {
            return None;
        }
        places.push(candidates);
        open = open.saturating_sub(length);
    }
    choose(first, &places, head, wanted)
}

/// The values that lie behind the first chunk, one after the other.
fn neighbours<'a>(log: &'a [u8], head: &Head) -> Vec<&'a [u8]> {
    let mut found = Vec::new();
    let mut at = head.at.saturating_add(CHUNK);
    let mut open = head.length.saturating_sub(CHUNK);
    while open > 0
        && let Some((start, bytes)) = frames::next_value(log, at)
        && bytes.len() == open.min(CHUNK)
    {
        found.push(bytes);
        at = start.saturating_add(bytes.len());
        open = open.saturating_sub(bytes.len());
    }
    found
}

/// Tries the first candidate of every place, then each other candidate in its place.
fn choose(first: &[u8], places: &[Vec<&[u8]>], head: &Head, wanted: Wanted) -> Option<Vec<u8>> {
    let mut effort = EFFORT;
    let others = places.iter().enumerate().flat_map(|(place, candidates)| {
        candidates.iter().skip(1).map(move |bytes| Some((place, *bytes)))
    });
    for swap in std::iter::once(None).chain(others) {
        effort = effort.checked_sub(head.length)?;
        let mut bytes = Vec::with_capacity(head.length);
        bytes.extend_from_slice(first);
        for (place, candidates) in places.iter().enumerate() {
            match swap {
                Some((swapped, other)) if swapped == place => bytes.extend_from_slice(other),
                Some(_) | None => bytes.extend_from_slice(candidates.first()?),
            }
        }
        if wanted.accepts(&bytes, head.seq) {
            return Some(bytes);
        }
    }
    None
}

#[cfg(test)]
#[path = "salvage_tests.rs"]
mod tests;
