//! Where the cursor stands when its file does not say.
//!
//! The file holds a value from the first opening on. So one that holds nothing although the
//! queue has been used was lost, which is the same as damaged: taken at its word, it would make
//! everything that was delivered and deleted a gap.
//!
//! What stands in for it is what the generations tell: those marked as sent are delivered, and so
//! is whatever lies before the first that still waits, since nothing else makes a generation go
//! (a gap is in the manifest). The head itself is delivered once more: twice is better than never.

use crate::generation::Generation;
use crate::manifest::Role;
use crate::marks::Condition;

/// Whether the cursor must be derived; `mark` and `next_seq` are what mark and manifest say.
pub(crate) fn is_lost(file: Condition, mark: u64, next_seq: u64, row: &[Generation]) -> bool {
    match file {
        Condition::Good => false,
        Condition::Damaged => true,
        Condition::Blank => mark > 0 || next_seq > 1 || !row.is_empty(),
    }
}

/// The cursor as the generations tell it, if the highest number given out is `last`.
///
/// `set_aside` is the lowest number of the generations that were quarantined while opening:
/// they were still waiting.
pub(crate) fn derive(row: &[Generation], last: u64, set_aside: Option<u64>) -> u64 {
    let sent = row.iter().filter(|g| g.role == Role::Sent).map(|g| g.last).max();
    let waiting = row.iter().filter(|g| g.role == Role::Pending).map(|g| g.first);
    let head = waiting.chain(set_aside).min();
    sent.unwrap_or(0).max(head.map_or(last, |first| first.saturating_sub(1)))
}
