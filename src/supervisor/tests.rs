//! What is said when, in virtual time.

use super::*;
use crate::sender::machine::{Failure, FailureKind, Report, Transports};
use harborforge_storage::Position;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn seen(now: Duration, answers: (bool, bool)) -> Seen {
    let (sampler, sender) = answers;
    Seen { now, sampler, sender, queue_open: true, status: "well".to_owned() }
}

#[test]
fn ready_is_said_once_when_both_have_begun_and_the_queue_is_open() {
    let mut core = Core::new(None);
    let status = || Say::Status("well".to_owned());
    assert_eq!(core.look(seen(at(0), (true, false))), [status()]);
    assert_eq!(core.reloading(), [], "nothing before the start is over");
    let closed = Seen { queue_open: false, ..seen(at(1), (false, true)) };
    assert_eq!(core.look(closed), []);
    assert_eq!(core.look(seen(at(2), (false, false))), [Say::Ready]);
    assert_eq!(core.look(seen(at(3), (true, true))), [], "no watchdog, nothing new");
    assert_eq!((core.reloading(), core.reloaded()), (vec![Say::Reloading], vec![Say::Ready]));
}

#[test]
fn a_disk_that_refuses_holds_the_start_up_for_a_while() {
    let mut core = Core::new(None);
    let closed = |now| Seen { queue_open: false, ..seen(now, (true, true)) };
    assert!(!core.look(closed(at(0))).contains(&Say::Ready));
    let just_before = DISK_PATIENCE - Duration::from_millis(1);
    assert!(!core.look(closed(just_before)).contains(&Say::Ready));
    assert!(core.look(closed(DISK_PATIENCE)).contains(&Say::Ready));
    // But not one of which a part has never begun.
    let mut core = Core::new(None);
    let silent = |now| Seen { queue_open: false, ..seen(now, (true, false)) };
    assert!(!core.look(silent(DISK_PATIENCE * 2)).contains(&Say::Ready));
}

/// Whichever of the two hangs, the watchdog starves; when it turns again, it is fed again.
#[test]
fn the_watchdog_is_fed_only_while_both_live() {
    let interval = at(60);
    for hangs in [(true, false), (false, true), (true, true)] {
        let mut core = Core::new(Some(interval));
        let period = core.period();
        assert!(period <= interval / 4);
        let mut fed = Vec::new();
        let mut now = Duration::ZERO;
        while now < at(300) {
            let hung = now >= at(100) && now < at(200);
            let answers = (!(hung && hangs.0), !(hung && hangs.1));
            if core.look(seen(now, answers)).contains(&Say::Watchdog) {
                fed.push(now);
            }
            now += core.period();
        }
        let longest = fed.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        let last_before = fed.iter().rfind(|time| **time < at(200)).unwrap();
        assert!(*last_before < at(100) + interval / 2, "{hangs:?}: {last_before:?}");
        let first_after = fed.iter().find(|time| **time >= at(200)).unwrap();
        assert!(*first_after <= at(200) + LOOK, "{hangs:?}: {first_after:?}");
        assert!(longest < at(110), "{hangs:?}: {longest:?}");
        // From the last feeding the service manager counts its own interval.
        let bites = *last_before + interval;
        assert!(bites < at(100) + interval * 3 / 2, "{hangs:?}: {bites:?}");
    }
}

/// What lasts is said once, and so is its end, also when the next begins at once; things that end
/// are nothing, however many there are.
#[test]
fn a_disk_that_hangs_is_said_once_and_so_is_its_end() {
    let mut core = Core::new(None);
    let mut told = Vec::new();
    for second in (0..600).step_by(5) {
        let at_what = match second {
            // A busy disk: one thing after the other.
            0..100 => Some(second),
            // One that ends between two looks, and the next.
            100..200 => Some(1001),
            200..300 => Some(1003),
            _ => None,
        };
        told.extend(core.disk(at(second), at_what).map(|news| (second, news)));
    }
    let answers = |after| Disk::Answers { after: at(after) };
    let expected =
        [(160, Disk::Hangs), (200, answers(100)), (260, Disk::Hangs), (300, answers(100))];
    assert_eq!(told, expected);
    assert!(hanging(7).contains("7 samples in memory"));
}

#[test]
fn nothing_is_fed_before_both_have_answered_or_without_a_watchdog() {
    let mut core = Core::new(Some(at(60)));
    assert!(!core.look(seen(at(0), (false, true))).contains(&Say::Watchdog));
    assert!(core.look(seen(at(1), (true, false))).contains(&Say::Watchdog));
    let mut core = Core::new(Some(Duration::ZERO));
    assert!(!core.look(seen(at(0), (true, true))).contains(&Say::Watchdog));
    assert_eq!(core.period(), LOOK);
}

#[test]
fn the_status_is_said_when_it_changes_and_not_more_often_than_every_few_seconds() {
    let mut core = Core::new(None);
    let mut told = Vec::new();
    for second in 0..60 {
        let status = format!("{} samples wait", if second < 30 { second } else { 30 });
        let say = core.look(Seen { status, ..seen(at(second), (true, true)) });
        told.extend(say.into_iter().filter(|say| matches!(say, Say::Status(_))));
    }
    let expected = [0, 5, 10, 15, 20, 25, 30].map(|n| Say::Status(format!("{n} samples wait")));
    assert_eq!(told, expected);
}

#[test]
fn the_line_says_how_it_stands() {
    let time = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(1000 * seconds + 300);
    let health = Health::new(time(0), Transports::Both);
    let waiting = |pending| View {
        queue: Some(Position { pending, ..position() }),
        in_memory: 0,
        dropped: 0,
    };
    assert_eq!(status(&health, &waiting(1)), "Connecting, 1 sample waits");
    let closed = View { queue: None, in_memory: 7, dropped: 0 };
    let said = status(&health, &closed);
    assert_eq!(said, "Connecting, the queue cannot be opened, 7 samples in memory");
    health.report(time(1), &Report::Linked);
    assert_eq!(status(&health, &waiting(3)), "Delivering over the WebSocket");
    let failed = |kind, reason: &str| Report::Failed {
        transport: Transport::Websocket,
        failure: Failure { kind, reason: reason.to_owned() },
        retry_in: Duration::from_secs(1),
    };
    for _ in 0..2 {
        health.report(time(60), &failed(FailureKind::Unreachable, "a\nb refuses"));
    }
    let said = status(&health, &waiting(12));
    assert!(said.starts_with("Offline since 1970-01-01T00:01:00Z, 12 samples wait: "), "{said}");
    assert!(!said.contains('\n'), "a second line would be a message of its own: {said:?}");
    health.report(time(90), &failed(FailureKind::NotAccepted, "HTTP 401"));
    let said = status(&health, &waiting(12));
    let expected = "Refused by the Monitor since 1970-01-01T00:01:30Z, 12 samples wait: HTTP 401";
    assert_eq!(said, expected);
    health.report(time(99), &Report::FallbackBegan);
    health.report(time(99), &Report::Delivered { transport: Transport::Http });
    assert_eq!(
        status(&health, &waiting(0)),
        "Delivering by heartbeat, the WebSocket is unavailable"
    );
}

fn position() -> Position {
    Position { next_seq: 100, cursor: 0, pending: 0 }
}

/// One that hangs is asked once, and no more until it has answered.
#[test]
fn nobody_is_asked_twice_before_an_answer() {
    let (sender, asked) = std::sync::mpsc::channel();
    let ask: Ask = Box::new(move |answer| sender.send(answer).unwrap());
    let mut pulse = Pulse::new();
    for _ in 0..10 {
        assert!(!pulse.beats(&ask));
    }
    let answer = asked.try_recv().unwrap();
    assert!(asked.try_recv().is_err());
    answer.try_send(()).unwrap();
    assert!(pulse.beats(&ask));
    assert!(asked.try_recv().is_ok());
    assert!(!pulse.beats(&ask));
}
