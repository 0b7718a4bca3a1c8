//! The schedule in virtual time.

use std::time::Duration;

use proptest::prelude::*;

use super::{Decision, Schedule};

const SECOND: Duration = Duration::from_secs(1);

/// When the samples are taken by a caller that asks when it is told to and is `late` each time.
fn samples(
    schedule: &mut Schedule,
    start: Duration,
    late: impl IntoIterator<Item = Duration>,
) -> Vec<Duration> {
    let (mut now, mut taken) = (start, Vec::new());
    let mut late = late.into_iter();
    loop {
        match schedule.poll(now) {
            Decision::Due { .. } => taken.push(now),
            Decision::Wait(wait) => match late.next() {
                Some(late) => now += wait + late,
                None => return taken,
            },
        }
    }
}

fn interval() -> impl Strategy<Value = Duration> {
    (1_000_u64..=3_600_000).prop_map(Duration::from_millis)
}

fn boot_clock() -> impl Strategy<Value = Duration> {
    (0_u64..=10 * 365 * 86_400_000).prop_map(Duration::from_millis)
}

#[test]
fn the_first_sample_is_due_at_once_and_the_second_by_the_seed() {
    let mut schedule = Schedule::new(30 * SECOND, 7);
    let taken = samples(&mut schedule, 100 * SECOND, [Duration::ZERO; 3]);
    assert_eq!(taken[0], 100 * SECOND);
    let phase = taken[1] - taken[0];
    assert!((15 * SECOND..45 * SECOND).contains(&phase), "{phase:?}");
    assert_eq!(taken[2] - taken[1], 30 * SECOND);
    // The same seed, the same phase.
    let again = samples(&mut Schedule::new(30 * SECOND, 7), Duration::ZERO, [Duration::ZERO; 1]);
    assert_eq!(again[1], phase);
}

#[test]
fn two_thousand_hosts_that_boot_together_are_spread() {
    let mut per_second = [0; 30];
    for seed in 0..2_000 {
        let taken =
            samples(&mut Schedule::new(30 * SECOND, seed), Duration::ZERO, [Duration::ZERO]);
        let slot = taken[1].as_secs() as usize % per_second.len();
        per_second[slot] += 1;
    }
    // 67 on average; all in one second would be 2,000.
    assert!(per_second.iter().all(|n| (35..=100).contains(n)), "{per_second:?}");
}

#[test]
fn no_drift_over_a_year_of_late_wake_ups() {
    let mut schedule = Schedule::new(30 * SECOND, 3);
    let slots = 365 * 86_400 / 30;
    // Timers are never early and always a little late.
    let late = (0..slots).map(|n| Duration::from_micros(50 + n * 7_919 % 200_000));
    let taken = samples(&mut schedule, Duration::ZERO, late);
    assert_eq!(taken.len() as u64, slots + 1);
    let (first, last) = (taken[1], taken[taken.len() - 1]);
    let ideal = 30 * SECOND * u32::try_from(slots - 1).unwrap();
    assert!((last - first).abs_diff(ideal) < Duration::from_millis(250));
    assert_eq!(schedule.skipped(), 0);
}

#[test]
fn a_suspend_is_one_late_sample_and_a_count() {
    let mut schedule = Schedule::new(30 * SECOND, 1);
    let taken = samples(&mut schedule, Duration::ZERO, [Duration::ZERO; 2]);
    let slot = taken[2] + 30 * SECOND;
    // Asleep from just after a sample to 10.2 slots after the next was due.
    let wake = slot + 306 * SECOND;
    assert_eq!(schedule.poll(wake), Decision::Due { skipped: 10 });
    assert_eq!(schedule.poll(wake), Decision::Wait(24 * SECOND));
    // 0.7 of an interval late: the slot 0.3 ahead is too close and is skipped.
    let late = wake + 24 * SECOND + 21 * SECOND;
    assert_eq!(schedule.poll(late), Decision::Due { skipped: 1 });
    assert_eq!(schedule.poll(late), Decision::Wait(39 * SECOND));
    assert_eq!(schedule.skipped(), 11);
}

#[test]
fn the_same_interval_again_changes_nothing() {
    // Any seed but the one whose phase is a whole interval shows slots made anew.
    let mut schedule = Schedule::new(30 * SECOND, 9);
    let taken = samples(&mut schedule, Duration::ZERO, [Duration::ZERO; 2]);
    let now = taken[2] + SECOND;
    assert_eq!(schedule.poll(now), Decision::Wait(29 * SECOND));
    schedule.set_interval(now, 30 * SECOND);
    assert_eq!(schedule.poll(now), Decision::Wait(29 * SECOND));
}

#[test]
fn an_interval_changed_before_the_first_sample_does_not_delay_it() {
    let mut schedule = Schedule::new(30 * SECOND, 9);
    schedule.set_interval(SECOND, 3_600 * SECOND);
    assert_eq!(schedule.poll(SECOND), Decision::Due { skipped: 0 });
}

#[test]
fn a_shorter_interval_takes_effect_within_itself() {
    let mut schedule = Schedule::new(3_600 * SECOND, 9);
    schedule.poll(Duration::ZERO);
    let now = 1_000 * SECOND;
    schedule.set_interval(now, 10 * SECOND);
    let Decision::Wait(wait) = schedule.poll(now) else { panic!("a sample of its own") };
    assert!(wait <= 10 * SECOND, "{wait:?}");
    assert_eq!(schedule.poll(now + wait), Decision::Due { skipped: 0 });
    assert_eq!(schedule.poll(now + wait), Decision::Wait(10 * SECOND));
}

#[test]
fn extreme_values_neither_panic_nor_spin() {
    let mut schedule = Schedule::new(Duration::ZERO, u64::MAX);
    schedule.poll(Duration::ZERO);
    assert!(matches!(schedule.poll(Duration::ZERO), Decision::Wait(wait) if !wait.is_zero()));
    schedule.poll(Duration::MAX);
    schedule.set_interval(Duration::MAX, Duration::MAX);
    schedule.poll(Duration::ZERO);
    schedule.set_interval(Duration::ZERO, SECOND);
    schedule.poll(Duration::MAX);
}

proptest! {
    /// Whatever the caller's stalls: spacing, accounting, and one sample per question.
    #[test]
    fn stalls_never_make_bursts(
        interval in interval(),
        seed: u64,
        start in boot_clock(),
        stalls in prop::collection::vec(0_u64..40_000, 1..200),
    ) {
        let mut schedule = Schedule::new(interval, seed);
        prop_assert_eq!(schedule.poll(start), Decision::Due { skipped: 0 });
        let Decision::Wait(phase) = schedule.poll(start) else { panic!("two samples at once") };
        let (mut now, mut last, mut taken) = (start, start, 0_u64);
        for stall in stalls {
            // Thousandths of the interval: from prompt polls to 40 missed slots.
            now += interval * u32::try_from(stall).unwrap() / 1_000;
            if let Decision::Due { .. } = schedule.poll(now) {
                prop_assert!(now - last >= interval / 2);
                (last, taken) = (now, taken + 1);
            }
            let Decision::Wait(wait) = schedule.poll(now) else { panic!("a burst") };
            prop_assert!(!wait.is_zero());
            prop_assert!(wait <= interval + interval / 2 + Duration::from_nanos(1));
            // The next slot is where slots before it, taken and skipped, put it.
            let accounted = (taken + schedule.skipped()) as u128;
            prop_assert_eq!(
                (now + wait - start - phase).as_nanos(),
                accounted * interval.as_nanos()
            );
        }
    }

    /// A caller that is told when to ask and asks within half an interval misses nothing.
    #[test]
    fn a_prompt_caller_misses_no_slot(
        interval in interval(),
        seed: u64,
        start in boot_clock(),
        late in prop::collection::vec(0_u32..500, 1..200),
    ) {
        let mut schedule = Schedule::new(interval, seed);
        let count = late.len();
        let late: Vec<_> = late.into_iter().map(|n| interval * n / 1_000).collect();
        let taken = samples(&mut schedule, start, late.iter().copied());
        prop_assert_eq!(taken.len(), count + 1);
        prop_assert_eq!(schedule.skipped(), 0);
        let first_slot = taken[1] - late[0];
        for (n, (at, late)) in taken[1..].iter().zip(&late).enumerate() {
            prop_assert_eq!(*at, first_slot + interval * u32::try_from(n).unwrap() + *late);
        }
    }

    /// Reloads at any time with any interval: no burst, and none puts sampling off for ever.
    #[test]
    fn a_changed_interval_makes_no_burst(
        seed: u64,
        start in boot_clock(),
        steps in prop::collection::vec((interval(), 0_u32..3_000, any::<bool>()), 1..100),
    ) {
        let mut current = Duration::from_secs(30);
        let mut schedule = Schedule::new(current, seed);
        schedule.poll(start);
        let (mut now, mut last) = (start, start);
        for (interval, pause, reload) in steps {
            now += current * pause / 1_000;
            if reload {
                schedule.set_interval(now, interval);
                current = interval;
            }
            if let Decision::Due { .. } = schedule.poll(now) {
                prop_assert!(now - last >= current / 2);
                last = now;
            }
            let Decision::Wait(wait) = schedule.poll(now) else { panic!("a burst") };
            prop_assert!(wait <= current + current / 2 + Duration::from_nanos(1));
        }
    }

    /// The clock may do what it likes: the wait stays bounded and there is never a burst.
    #[test]
    fn a_clock_that_goes_back_stops_nothing(
        interval in interval(),
        seed: u64,
        times in prop::collection::vec(boot_clock(), 1..100),
    ) {
        let mut schedule = Schedule::new(interval, seed);
        for now in times {
            schedule.poll(now);
            let Decision::Wait(wait) = schedule.poll(now) else { panic!("a burst") };
            prop_assert!(wait <= interval + interval / 2 + Duration::from_nanos(1));
            prop_assert_eq!(schedule.poll(now + wait), Decision::Due { skipped: 0 });
        }
    }
}
