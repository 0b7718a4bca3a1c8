//! The list of gaps: sorted, merged, bounded, and which of them the receiver was told of.
//!
//! Pure. Invariants: gaps are disjoint and sorted by number; neighbours that differ in nothing
//! but their numbers are one gap; a number that is not settled is never covered.

use crate::order;
use crate::types::Gap;

/// How many gaps are kept. Above it the oldest announced ones are forgotten, never others.
const KEPT: usize = 256;

/// The list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gaps {
    list: Vec<Gap>,
}

impl Gaps {
    /// Takes a list as it was stored; what breaks the invariants is put right.
    pub(crate) fn from_stored(mut list: Vec<Gap>) -> Self {
        list.retain(|gap| gap.from <= gap.to);
        order::by_number(&mut list, |gap| gap.from);
        let mut last_to = None;
        list.retain(|gap| {
            let fits = last_to.is_none_or(|to| gap.from > to);
            if fits {
                last_to = Some(gap.to);
            }
            fits
        });
        Self { list }
    }

    pub(crate) fn as_slice(&self) -> &[Gap] {
        &self.list
    }

    /// Adds a gap whose numbers are in no other one.
    pub(crate) fn add(&mut self, gap: Gap) {
        if gap.from > gap.to {
            return;
        }
        let at = self.list.partition_point(|other| other.from < gap.from);
        self.list.insert(at, gap);
        self.merge();
    }

    /// Gaps the receiver is not known to have been told of, oldest first.
    pub(crate) fn unannounced(&self) -> Vec<Gap> {
        self.list.iter().filter(|gap| !gap.announced).copied().collect()
    }

    /// Marks what `told` covers as announced; whether anything changed. A gap that grew after
    /// it was told keeps its new part unannounced.
    pub(crate) fn announce(&mut self, told: &[Gap]) -> bool {
        let mut changed = false;
        for range in told {
            let mut next = Vec::with_capacity(self.list.len().saturating_add(2));
            for gap in self.list.drain(..) {
                let (from, to) = (gap.from.max(range.from), gap.to.min(range.to));
                if gap.announced || from > to {
                    next.push(gap);
                    continue;
                }
                changed = true;
                if gap.from < from {
                    next.push(Gap { to: from.saturating_sub(1), ..gap });
                }
                next.push(Gap { from, to, announced: true, ..gap });
                if to < gap.to {
                    next.push(Gap { from: to.saturating_add(1), ..gap });
                }
            }
            self.list = next;
        }
        if changed {
            self.merge();
        }
        changed
    }

    /// Forgets the oldest announced gaps wholly at or below `cursor` while there are too many.
    pub(crate) fn trim(&mut self, cursor: u64) {
        let mut surplus = self.list.len().saturating_sub(KEPT);
        self.list.retain(|gap| {
            let goes = surplus > 0 && gap.announced && gap.to <= cursor;
            if goes {
                surplus = surplus.saturating_sub(1);
            }
            !goes
        });
    }

    fn merge(&mut self) {
        self.list.dedup_by(|next, kept| {
            let same = kept.to.checked_add(1) == Some(next.from)
                && kept.reason == next.reason
                && kept.maybe_delivered == next.maybe_delivered
                && kept.announced == next.announced;
            if same {
                kept.to = next.to;
                kept.wall_ms = kept.wall_ms.max(next.wall_ms);
            }
            same
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::GapReason;

    fn gap(from: u64, to: u64) -> Gap {
        Gap {
            from,
            to,
            reason: GapReason::QueueFull,
            maybe_delivered: false,
            wall_ms: 1,
            announced: false,
        }
    }

    fn ranges(gaps: &Gaps) -> Vec<(u64, u64, bool)> {
        gaps.as_slice().iter().map(|g| (g.from, g.to, g.announced)).collect()
    }

    #[test]
    fn neighbours_of_one_kind_become_one() {
        let mut gaps = Gaps::default();
        gaps.add(gap(10, 12));
        gaps.add(gap(16, 20));
        gaps.add(gap(13, 15));
        gaps.add(Gap { reason: GapReason::Corrupt, ..gap(21, 21) });
        assert_eq!(ranges(&gaps), [(10, 20, false), (21, 21, false)]);
    }

    #[test]
    fn a_gap_that_grew_after_it_was_told_is_told_again_in_part() {
        let mut gaps = Gaps::default();
        gaps.add(gap(1, 10));
        let told = gaps.unannounced();
        gaps.add(gap(11, 15));
        assert!(gaps.announce(&told));
        assert_eq!(ranges(&gaps), [(1, 10, true), (11, 15, false)]);
        assert!(!gaps.announce(&told));
        assert!(gaps.announce(&gaps.unannounced()));
        assert_eq!(ranges(&gaps), [(1, 15, true)]);
    }

    #[test]
    fn only_old_announced_gaps_are_forgotten() {
        let mut gaps = Gaps::default();
        for n in 0..(KEPT as u64 + 10) {
            gaps.add(gap(n * 2 + 1, n * 2 + 1));
        }
        gaps.trim(u64::MAX);
        assert_eq!(gaps.as_slice().len(), KEPT + 10);
        gaps.announce(&[gap(1, 11)]);
        gaps.trim(5);
        assert_eq!(gaps.as_slice().len(), KEPT + 7);
        gaps.trim(u64::MAX);
        assert_eq!(gaps.as_slice().len(), KEPT + 4);
    }

    #[test]
    fn a_stored_list_that_overlaps_is_put_right() {
        let gaps = Gaps::from_stored(vec![gap(5, 9), gap(1, 6), gap(8, 7), gap(10, 11)]);
        assert_eq!(ranges(&gaps), [(1, 6, false), (10, 11, false)]);
    }
}
