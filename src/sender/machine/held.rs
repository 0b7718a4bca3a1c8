//! Samples the Monitor has rejected by number, until it is known whether they stand in a row.
//!
//! Rejections come at once and acknowledgements may come late, so three that arrive one after the
//! other need not be three in a row. The first two are final at once; what would be the third is
//! held while samples before it are undecided: an acknowledgement behind it shows that the
//! Monitor takes others.
//!
//! Invariants: each is handed out once, oldest first; never more than a window's worth is held.

use std::collections::BTreeMap;

use crate::protocol::WINDOW_SAMPLES;

/// The rejected samples of one link, with what the Monitor said of each.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<u64, String>);

impl Held {
    pub(super) fn hold(&mut self, seq: u64, reason: String) {
        self.0.insert(seq, reason);
    }

    /// The next one to be judged, where `undecided` is the oldest sample the Monitor has said
    /// nothing about, and `fatal` tells that one more in a row would be too many. A Monitor that
    /// has rejected a whole window and taken nothing is not waited for.
    pub(super) fn next(&mut self, undecided: Option<u64>, fatal: bool) -> Option<(u64, String)> {
        let first = *self.0.first_key_value()?.0;
        let due = !fatal || undecided.is_none_or(|undecided| first < undecided);
        if due || self.0.len() >= WINDOW_SAMPLES { self.0.pop_first() } else { None }
    }

    /// Those below `acknowledged`, all of them judged by that.
    pub(super) fn before(&mut self, acknowledged: u64) -> BTreeMap<u64, String> {
        let behind = self.0.split_off(&acknowledged);
        std::mem::replace(&mut self.0, behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(numbers: impl IntoIterator<Item = u64>) -> Held {
        Held(numbers.into_iter().map(|seq| (seq, format!("no {seq}"))).collect())
    }

    #[test]
    fn what_would_be_the_third_waits_for_what_stands_before_it() {
        let mut held = held([5, 9, 12]);
        assert_eq!(held.next(Some(3), false), Some((5, "no 5".to_owned())));
        assert_eq!(held.next(Some(3), true), None);
        assert_eq!(held.next(Some(10), true), Some((9, "no 9".to_owned())));
        assert_eq!(held.next(Some(10), true), None);
        assert_eq!(held.next(None, true), Some((12, "no 12".to_owned())));
        assert_eq!(held.next(None, false), None);
    }

    #[test]
    fn an_acknowledgement_behind_it_judges_it() {
        let mut held = held([5, 9, 12]);
        assert_eq!(held.before(10).into_keys().collect::<Vec<_>>(), [5, 9]);
        assert_eq!(held.next(None, true).map(|(seq, _)| seq), Some(12));
    }

    #[test]
    fn a_whole_window_of_rejections_is_not_waited_with() {
        let mut held = held(2..=WINDOW_SAMPLES as u64);
        assert_eq!(held.next(Some(1), true), None);
        held.hold(1000, "no".into());
        assert_eq!(held.next(Some(1), true).map(|(seq, _)| seq), Some(2));
        assert_eq!(held.next(Some(1), true), None);
    }
}
