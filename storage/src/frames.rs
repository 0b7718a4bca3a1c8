//! The engine's log as bytes: segments, messages, and the values in them.
//!
//! A file of the engine is a row of segments of [`SEGMENT`] bytes. A segment begins with a head
//! (checksum, its place in the log, how much of the log was stable), after which messages follow
//! that never cross into the next one. A message is a checksum, a kind, the lengths of its
//! body, the segment's number, the page's, and the body. Bodies that hold values are a *link*, one
//! key and its value added to a page, and a *leaf*, a whole page. A key may lack its beginning
//! (what all keys of its page share); a leaf says what is lacking, a link does not.
//!
//! Needed for two things the engine does not do itself: to tell, before a database is opened,
//! whether opening would erase something ([`opening`]), and to get at values it will not show
//! any more ([`values`]). Reads only, and never trusts what it reads.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The engine's segment. 64 KiB keeps the file at 1.8 times the payload; 512 KiB takes 3 times.
pub(crate) const SEGMENT: usize = 64 * 1024;

/// Length of a segment's head.
const SEGMENT_HEAD: usize = 20;
/// No message begins closer than this to the end of its segment.
const LONGEST_HEAD: usize = 32;

const KIND_NONE: u8 = 0;
const KIND_CAP: u8 = 2;
const KIND_LEAF_OR_INDEX: u8 = 8;
const KIND_LINK: u8 = 10;

/// Takes fields off the front, and knows how far it has come.
#[derive(Clone, Copy)]
struct Reader<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        self.at = self.at.checked_add(length)?;
        Some(field)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// A number of one to nine bytes; the first tells which, and is the number itself up to 240.
    fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        Some(match first {
            0..=240 => u64::from(first),
            241..=248 => {
                let high = u64::from(first.checked_sub(241)?);
                240 + 256 * high + u64::from(self.byte()?)
            }
            249 => {
                let [high, low] = self.array()?;
                2288 + 256 * u64::from(high) + u64::from(low)
            }
            250..=255 => {
                let bytes = self.take(usize::from(first.checked_sub(247)?))?;
                bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
            }
        })
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    /// Bytes with their length before them.
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }
}

struct Message<'a> {
    kind: u8,
    segment_number: u64,
    body: Reader<'a>,
    length: usize,
    intact: bool,
}

/// The message that begins with `bytes`; none if that cannot be one.
fn message(bytes: &[u8], at: usize, check: bool) -> Option<Message<'_>> {
    let mut reader = Reader { rest: bytes, at };
    let crc = u32::from_le_bytes(reader.array()?);
    let kind = reader.byte()?;
    let length = reader.length()?;
    let segment_number = reader.number()?;
    let _page = reader.number()?;
    let head_length = reader.at.checked_sub(at)?;
    let mut body = Reader { rest: reader.rest, at: reader.at };
    body.rest = body.rest.get(..length)?;
    let intact = check && {
        let mut sum = crc32fast::Hasher::new();
        sum.update(body.rest);
        sum.update(bytes.get(4..head_length)?);
        sum.finalize() == !crc
    };
    Some(Message { kind, segment_number, body, length: head_length.checked_add(length)?, intact })
}

/// What a walk through one segment found.
#[derive(Debug, PartialEq, Eq)]
enum Segment {
    /// Zeros: not in use.
    Free,
    /// Messages to its end.
    Whole(Head),
    /// Messages, and then zeros.
    Begun(Head),
    /// Messages up to here, and then something else.
    Cut(Head, usize),
    /// Not a segment.
    Broken,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Head {
    number: u64,
    /// The number of the segment up to which the log was stable when this one was begun.
    stable: u64,
}

fn head(segment: &[u8]) -> Option<Head> {
    let mut reader = Reader { rest: segment, at: 0 };
    let crc = u32::from_le_bytes(reader.array()?);
    if crc32fast::hash(reader.rest.get(..SEGMENT_HEAD.checked_sub(4)?)?) != !crc {
        return None;
    }
    let mut position = || {
        let stored = i64::from_le_bytes(reader.array()?) ^ i64::MAX;
        // Nothing is stable before the first segment is: that is -1.
        u64::try_from(stored.max(0)).ok()?.checked_div(SEGMENT as u64)
    };
    Some(Head { number: position()?, stable: position()? })
}

fn walk(segment: &[u8]) -> Segment {
    let zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let Some(head) = head(segment) else {
        return if zeros(segment) { Segment::Free } else { Segment::Broken };
    };
    let mut at = SEGMENT_HEAD;
    while at.saturating_add(LONGEST_HEAD) <= SEGMENT {
        let rest = segment.get(at..).unwrap_or_default();
        match message(rest, at, true) {
            Some(m) if m.kind != KIND_NONE && m.intact && m.segment_number == head.number => {
                if m.kind == KIND_CAP {
                    return Segment::Whole(head);
                }
                at = at.saturating_add(m.length);
            }
            Some(_) | None => {
                return if zeros(rest) { Segment::Begun(head) } else { Segment::Cut(head, at) };
            }
        }
    }
    Segment::Whole(head)
}

/// What opening a log does to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Nothing.
    Harmless,
    /// The engine takes the log to end here, and erases what lies from here to the end of its last
    /// segment. After a kill or a power cut that may be a message half written; and where the
    /// segment was in use before, it is what was there then.
    CutsTail(Range<u64>),
    /// There is no telling: whole segments may go.
    Unknown,
}

/// Tells, without opening it, what the engine does to a log when it opens it: whatever it does not
/// see as part of it any more is erased for good.
pub(crate) fn opening(log: &File) -> io::Result<Opening> {
    let mut buffer = vec![0; SEGMENT];
    let mut heads = Vec::new();
    let mut ends = Vec::new();
    let mut at = 0u64;
    loop {
        let length = read_at(log, &mut buffer, at)?;
        if length == 0 {
            break;
        }
        match walk(buffer.get(..length).unwrap_or_default()) {
            Segment::Free => {}
            Segment::Whole(head) => heads.push(head),
            Segment::Begun(head) => {
                heads.push(head);
                ends.push((head.number, None));
            }
            Segment::Cut(head, end) => {
                heads.push(head);
                let cut = at.saturating_add(end as u64)..at.saturating_add(length as u64);
                ends.push((head.number, Some(cut)));
            }
            Segment::Broken => return Ok(Opening::Unknown),
        }
        at = at.saturating_add(SEGMENT as u64);
    }
    heads.sort_unstable_by_key(|head| head.number);
    let last = heads.last().map(|head| head.number);
    // From where it was stable on, the log must have no hole.
    let stable = heads.iter().map(|head| head.stable).max().unwrap_or(0);
    let tail = heads.iter().filter(|head| head.number >= stable);
    let unbroken = tail.zip(stable..).all(|(head, expected)| head.number == expected);
    let end = ends.pop();
    // Only the last segment may end early.
    if !unbroken
        || !ends.is_empty()
        || end.as_ref().is_some_and(|(number, _)| Some(*number) != last)
    {
        return Ok(Opening::Unknown);
    }
    Ok(match end {
        Some((_, Some(cut))) => Opening::CutsTail(cut),
        Some((_, None)) | None => Opening::Harmless,
    })
}

/// Fills as much of `buffer` as the file has at `at`.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(length) => filled = filled.saturating_add(length),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A value found in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value<'a> {
    /// The end of its key, or all of it.
    pub(crate) key: &'a [u8],
    /// What the page says comes before `key`; empty in a link, which does not say.
    pub(crate) prefix: &'a [u8],
    /// Where its bytes begin.
    pub(crate) at: usize,
    /// Its bytes.
    pub(crate) bytes: &'a [u8],
}

/// Shows `visit` every value in whatever of `log` looks like a message with values: broken ones
/// too, and ones that were superseded. No checksum is looked at; the caller has a better one.
pub(crate) fn values<'a>(log: &'a [u8], visit: &mut dyn FnMut(Value<'a>)) {
    for (at, byte) in log.iter().enumerate() {
        if !matches!(*byte, KIND_LEAF_OR_INDEX | KIND_LINK) {
            continue;
        }
        // The kind is the fifth byte of a message.
        let Some(start) = at.checked_sub(4) else { continue };
        let Some(found) = log.get(start..).and_then(|rest| message(rest, start, false)) else {
            continue;
        };
        if found.length > SEGMENT {
            continue;
        }
        let _ = match found.kind {
            KIND_LINK => link(found.body, visit),
            _ => leaf(found.body, visit),
        };
    }
}

fn link<'a>(mut body: Reader<'a>, visit: &mut dyn FnMut(Value<'a>)) -> Option<()> {
    const SET: u8 = 0;
    if body.byte()? != SET {
        return None;
    }
    let key = body.bytes()?;
    let value = value(&mut body, key, &[])?;
    if body.rest.is_empty() {
        visit(value);
    }
    Some(())
}

/// Values up to the first thing that cannot be: most of a damaged leaf is still there.
fn leaf<'a>(mut body: Reader<'a>, visit: &mut dyn FnMut(Value<'a>)) -> Option<()> {
    const LEAF: u8 = 0;
    let _next = body.number()?;
    let _merging_child = body.number()?;
    let _merging = body.byte()?;
    let prefix_length = usize::from(body.byte()?);
    let low = body.bytes()?;
    let _high = body.bytes()?;
    let prefix = low.get(..prefix_length)?;
    if body.byte()? != LEAF {
        return None;
    }
    let count = body.length()?;
    let mut values = body;
    // Keys come first; they are read again beside their values.
    for _ in 0..count {
        values.bytes()?;
    }
    for _ in 0..count {
        let key = body.bytes()?;
        visit(value(&mut values, key, prefix)?);
    }
    Some(())
}

fn value<'a>(reader: &mut Reader<'a>, key: &'a [u8], prefix: &'a [u8]) -> Option<Value<'a>> {
    let length = reader.length()?;
    let at = reader.at;
    Some(Value { key, prefix, at, bytes: reader.take(length)? })
}

/// The value that lies right behind the one that ends at `at`, if it is in a leaf.
pub(crate) fn next_value(log: &[u8], at: usize) -> Option<(usize, &[u8])> {
    let mut reader = Reader { rest: log.get(at..)?, at };
    let length = reader.length()?;
    let start = reader.at;
    Some((start, reader.take(length)?))
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
