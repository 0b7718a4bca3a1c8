//! A set of numbers kept as sorted, disjoint, non-adjacent inclusive ranges.
//!
//! Pure. Settled numbers come in runs, so a handful of ranges stands for millions of numbers.

/// The set. Invariant: for consecutive ranges `(_, a)` and `(b, _)`: `a + 1 < b`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    ranges: Vec<(u64, u64)>,
}

impl RangeSet {
    /// The set of all numbers in these ranges.
    pub(crate) fn from_runs(runs: &[(u64, u64)]) -> Self {
        let mut set = Self::default();
        runs.iter().for_each(|&(from, to)| set.insert(from, to));
        set
    }

    /// Adds `from..=to`; an empty range adds nothing.
    pub(crate) fn insert(&mut self, from: u64, to: u64) {
        if from > to {
            return;
        }
        // Everything from `start` to before `end` touches or overlaps the new range.
        let start = self.ranges.partition_point(|&(_, t)| t.saturating_add(1) < from);
        let end = self.ranges.partition_point(|&(f, _)| f <= to.saturating_add(1));
        let (mut low, mut high) = (from, to);
        for &(f, t) in self.ranges.get(start..end).unwrap_or_default() {
            low = low.min(f);
            high = high.max(t);
        }
        self.ranges.splice(start..end.max(start), [(low, high)]);
    }

    /// Takes `from..=to` out; an empty range takes nothing.
    pub(crate) fn remove(&mut self, from: u64, to: u64) {
        if from > to {
            return;
        }
        let start = self.ranges.partition_point(|&(_, t)| t < from);
        let end = self.ranges.partition_point(|&(f, _)| f <= to);
        let touched = self.ranges.get(start..end).unwrap_or_default();
        let before = touched.first().filter(|&&(f, _)| f < from);
        let after = touched.last().filter(|&&(_, t)| t > to);
        let before = before.map(|&(f, _)| (f, from.saturating_sub(1)));
        let after = after.map(|&(_, t)| (to.saturating_add(1), t));
        self.ranges.splice(start..end.max(start), before.into_iter().chain(after));
    }

    /// The end of the range that holds `number`, if one does.
    pub(crate) fn end_of_run(&self, number: u64) -> Option<u64> {
        let at = self.ranges.partition_point(|&(_, t)| t < number);
        self.ranges.get(at).filter(|&&(f, _)| f <= number).map(|&(_, t)| t)
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.end_of_run(number).is_some()
    }

    /// The parts of the set inside `from..=to`, in order.
    pub(crate) fn within(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let start = self.ranges.partition_point(|&(_, t)| t < from);
        self.ranges
            .get(start..)
            .unwrap_or_default()
            .iter()
            .take_while(move |&&(f, _)| from <= to && f <= to)
            .map(move |&(f, t)| (f.max(from), t.min(to)))
    }

    /// The parts of `from..=to` outside the set, in order.
    pub(crate) fn outside(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut free = Vec::new();
        let mut next = from;
        for (f, t) in self.within(from, to) {
            if next < f {
                free.push((next, f.saturating_sub(1)));
            }
            match t.checked_add(1) {
                Some(after) => next = after,
                None => return free,
            }
        }
        if next <= to {
            free.push((next, to));
        }
        free
    }

    /// How many numbers of `from..=to` are in the set.
    pub(crate) fn count_within(&self, from: u64, to: u64) -> u64 {
        self.within(from, to)
            .fold(0u64, |sum, (f, t)| sum.saturating_add(t.saturating_sub(f)).saturating_add(1))
    }

    /// Forgets all numbers below `floor`.
    pub(crate) fn forget_below(&mut self, floor: u64) {
        self.ranges.retain(|&(_, t)| t >= floor);
        if let Some(first) = self.ranges.first_mut() {
            first.0 = first.0.max(floor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_as_a_set(ops in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..8), 0..40),
                            window in (0u64..60, 0u64..60), floor in 0u64..60) {
            let mut set = RangeSet::default();
            let mut model = BTreeSet::new();
            for (insert, from, len) in ops {
                if insert {
                    set.insert(from, from + len);
                    model.extend(from..=from + len);
                } else {
                    set.remove(from, from + len);
                    model.retain(|n| !(from..=from + len).contains(n));
                }
            }
            for pair in set.ranges.windows(2) {
                prop_assert!(pair[0].1 + 1 < pair[1].0);
            }
            let (a, b) = window;
            prop_assert_eq!(set.count_within(a, b), model.iter().filter(|n| (a..=b).contains(*n)).count() as u64);
            let outside: Vec<u64> = set.outside(a, b).into_iter().flat_map(|(f, t)| f..=t).collect();
            let expected: Vec<u64> = (a..=b).filter(|n| !model.contains(n)).collect();
            prop_assert_eq!(outside, expected);
            for n in 0..80 {
                prop_assert_eq!(set.contains(n), model.contains(&n));
            }
            set.forget_below(floor);
            for n in 0..80 {
                prop_assert_eq!(set.contains(n), n >= floor && model.contains(&n));
            }
        }
    }

    #[test]
    fn the_largest_number_does_not_overflow() {
        let mut set = RangeSet::default();
        set.insert(u64::MAX, u64::MAX);
        assert_eq!(set.outside(u64::MAX, u64::MAX), []);
        set.insert(5, 4);
        assert!(!set.contains(5));
    }
}
