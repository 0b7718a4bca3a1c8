//! The sample ids that were accepted, for ever, in little memory. Pure.
//!
//! A sample id is `<epoch>-<seq>`. Per epoch the numbers are kept as ranges, so that a million
//! samples delivered without a gap take one entry.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

/// A sample's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SampleId {
    /// The queue's epoch.
    pub epoch: Uuid,
    /// The sample's number.
    pub seq: u64,
}

impl SampleId {
    /// Reads `<epoch>-<seq>`: a lower-case hyphenated UUID and a decimal number from 1.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, seq) = text.rsplit_once('-')?;
        let parsed = Self { epoch: Uuid::try_parse(epoch).ok()?, seq: seq.parse().ok()? };
        // The parsers know other spellings as well; an id has only this one.
        (parsed.seq > 0 && parsed.to_string() == text).then_some(parsed)
    }
}

impl std::fmt::Display for SampleId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}-{}", self.epoch.as_hyphenated(), self.seq)
    }
}

/// A set of sample ids.
#[derive(Debug, Clone, Default)]
pub struct Ids {
    /// Per epoch the first number of each range, and its last.
    epochs: HashMap<Uuid, BTreeMap<u64, u64>>,
}

impl Ids {
    /// Adds one; `false` when it was there already.
    pub fn insert(&mut self, id: SampleId) -> bool {
        let ranges = self.epochs.entry(id.epoch).or_default();
        let mut first = id.seq;
        let mut last = id.seq;
        if let Some((&start, &end)) = ranges.range(..=id.seq).next_back() {
            if end >= id.seq {
                return false;
            }
            if end.checked_add(1) == Some(id.seq) {
                first = start;
            }
        }
        if let Some(next) = id.seq.checked_add(1)
            && let Some(end) = ranges.remove(&next)
        {
            last = end;
        }
        ranges.insert(first, last);
        true
    }

    /// Whether one is there.
    #[must_use]
    pub fn contains(&self, id: SampleId) -> bool {
        self.epochs
            .get(&id.epoch)
            .and_then(|ranges| ranges.range(..=id.seq).next_back())
            .is_some_and(|(_, end)| *end >= id.seq)
    }

    /// Whether any epoch has this number.
    #[must_use]
    pub fn contains_seq(&self, seq: u64) -> bool {
        self.epochs.keys().any(|epoch| self.contains(SampleId { epoch: *epoch, seq }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn id(seq: u64) -> SampleId {
        SampleId { epoch: Uuid::from_u128(7), seq }
    }

    #[test]
    fn behaves_as_a_plain_set_in_any_order() {
        // A linear congruential walk over a small range: every number comes up more than once.
        let mut ids = Ids::default();
        let mut model = HashSet::new();
        let mut seq = 1_u64;
        for _ in 0..3000 {
            seq = (seq * 1103 + 12_345) % 1009;
            assert_eq!(ids.insert(id(seq + 1)), model.insert(seq + 1));
            assert!(ids.contains(id(seq + 1)) && ids.contains_seq(seq + 1));
        }
        for seq in 1..=1010 {
            assert_eq!(ids.contains(id(seq)), model.contains(&seq), "{seq}");
        }
    }

    #[test]
    fn a_row_without_gaps_is_one_range_and_epochs_are_apart() {
        let mut ids = Ids::default();
        for seq in (1..=1000).rev().chain([u64::MAX]) {
            assert!(ids.insert(id(seq)));
        }
        assert_eq!(ids.epochs[&Uuid::from_u128(7)].len(), 2);
        assert!(ids.insert(SampleId { epoch: Uuid::from_u128(8), seq: 5 }));
    }

    #[test]
    fn only_the_protocols_spelling_is_an_id() {
        let good = "0198f0c2-0000-4000-8000-0000000000aa-42";
        assert_eq!(SampleId::parse(good).map(|id| id.to_string()).as_deref(), Some(good));
        for wrong in [
            "0198F0C2-0000-4000-8000-0000000000AA-42",
            "0198f0c20000400080000000000000aa-42",
            "0198f0c2-0000-4000-8000-0000000000aa-0",
            "0198f0c2-0000-4000-8000-0000000000aa-042",
            "0198f0c2-0000-4000-8000-0000000000aa-",
            "42",
            "",
        ] {
            assert_eq!(SampleId::parse(wrong), None, "{wrong}");
        }
    }
}
