//! Two thousand servers and one Monitor that comes back: the attempts in any one second
//! (docs/PROTOCOL.md 8). Servers have nothing in common but the Monitor, so each is a world of its
//! own and their tries are laid over each other.

use std::time::Duration;

use super::monitor::Mood;
use super::scenario::{Scenario, Turn};
use super::world::World;

const SERVERS: u64 = 2_000;
const MOST_IN_A_SECOND: u64 = 120;
const BEFORE: Duration = Duration::from_secs(300);
const AFTER: Duration = Duration::from_secs(900);

/// Most attempts in any one second after the return of a Monitor that was away for so long.
fn worst_second(away: Duration) -> u64 {
    let back = BEFORE + away;
    let mut tries: Vec<Duration> = Vec::new();
    for seed in 0..SERVERS {
        let script = vec![(BEFORE, Turn::Mood(Mood::Gone)), (back, Turn::Mood(Mood::Well))];
        let scenario = Scenario::scripted(seed, back + AFTER, script);
        let summary = World::new(scenario, None, false).run().unwrap();
        assert!(summary.by_link > 5, "server {seed} had confirmed nothing before");
        tries.extend(summary.tries.into_iter().filter(|at| *at >= back));
    }
    // Those that were under way when it came back are not counted.
    assert!(tries.len() as u64 >= SERVERS * 9 / 10, "not all have come back");
    tries.sort_unstable();
    let mut worst = 0;
    let mut first = 0;
    for (last, at) in tries.iter().enumerate() {
        while tries[first] + Duration::from_secs(1) <= *at {
            first += 1;
        }
        worst = worst.max((last + 1 - first) as u64);
    }
    worst
}

#[test]
fn a_monitor_that_was_away_for_an_hour_is_not_stampeded() {
    let worst = worst_second(Duration::from_secs(3600));
    assert!(worst <= MOST_IN_A_SECOND, "{worst} attempts in one second");
}

#[test]
fn nor_is_one_that_was_restarted() {
    for seconds in [2, 10, 30, 45, 60, 75, 90, 150] {
        let worst = worst_second(Duration::from_secs(seconds));
        assert!(worst <= MOST_IN_A_SECOND, "away for {seconds} s: {worst} attempts in one second");
    }
}
