//! What the log says about delivery: changes, not repetition.
//!
//! Pure. Invariants: a failure is said when it is the first since a delivery, the first of its
//! kind in this outage, or the 10th, 100th, ... in a row; the recovery is said once, with how
//! long it took and how many tries. So a month's outage is a handful of lines.

use std::time::Duration;

use super::machine::FailureKind;

/// Follows deliveries and failures and tells which of them deserve a line.
#[derive(Debug, Default)]
pub struct Journal {
    delivered_once: bool,
    outage: Option<Outage>,
}

#[derive(Debug)]
struct Outage {
    since: Duration,
    failures: u64,
    said: Vec<FailureKind>,
}

/// A failure that deserves a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureLine {
    /// Failures in a row, this one included.
    pub failures: u64,
    /// How long nothing was delivered.
    pub lasting: Duration,
}

/// A delivery that deserves a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryLine {
    /// The first one since the daemon started, with no failure before it.
    First,
    /// The first one after failures.
    Recovered {
        /// How many there were.
        failures: u64,
        /// From the first of them until now.
        after: Duration,
    },
}

impl Journal {
    /// A try failed at the monotonic time `now`.
    pub fn failed(&mut self, now: Duration, kind: FailureKind) -> Option<FailureLine> {
        let outage =
            self.outage.get_or_insert_with(|| Outage { since: now, failures: 0, said: vec![] });
        outage.failures += 1;
        let new_kind = !outage.said.contains(&kind);
        if new_kind {
            outage.said.push(kind);
        }
        let round = outage.failures >= 10
            && 10u64.checked_pow(outage.failures.ilog10()) == Some(outage.failures);
        (new_kind || round).then(|| FailureLine {
            failures: outage.failures,
            lasting: now.saturating_sub(outage.since),
        })
    }

    /// Samples were delivered at the monotonic time `now`.
    pub fn delivered(&mut self, now: Duration) -> Option<DeliveryLine> {
        let first = !std::mem::replace(&mut self.delivered_once, true);
        match self.outage.take() {
            Some(outage) => Some(DeliveryLine::Recovered {
                failures: outage.failures,
                after: now.saturating_sub(outage.since),
            }),
            None => first.then_some(DeliveryLine::First),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_months_outage_is_a_handful_of_lines() {
        let mut journal = Journal::default();
        assert_eq!(journal.delivered(Duration::ZERO), Some(DeliveryLine::First));
        let mut said = Vec::new();
        let (mut now, month) = (Duration::ZERO, Duration::from_secs(30 * 86_400));
        while now < month {
            // DNS and TCP failures alternate, now and then a proxy answers: still no more lines.
            let kind = match now.as_secs() % 3 {
                0 => FailureKind::Answer,
                _ => FailureKind::Unreachable,
            };
            said.extend(journal.failed(now, kind).map(|line| line.failures));
            now += Duration::from_secs(151);
        }
        assert_eq!(said, [1, 2, 10, 100, 1_000, 10_000]);
        assert!(matches!(
            journal.delivered(now),
            Some(DeliveryLine::Recovered { failures: 17_166, after }) if after == now
        ));
        assert_eq!(journal.delivered(now), None, "from here on all is well and nothing is said");
    }

    #[test]
    fn each_outage_is_said_anew() {
        let mut journal = Journal::default();
        for _ in 0..3 {
            assert!(journal.failed(Duration::ZERO, FailureKind::Unreachable).is_some());
            assert!(journal.failed(Duration::ZERO, FailureKind::Unreachable).is_none());
            assert!(journal.delivered(Duration::ZERO).is_some());
        }
    }
}
