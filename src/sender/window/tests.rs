//! The window's rules one by one, and all of them against a model that knows each sample.

use super::*;
use crate::protocol::WINDOW_BYTES;
use crate::sample::MAX_ENCODED;

mod model;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn open(mode: Mode) -> Window {
    let mut window = Window::new();
    window.open(mode);
    window
}

/// Sends these numbers, 100 bytes each, as one part.
fn send(window: &mut Window, now: Duration, seqs: std::ops::RangeInclusive<u64>) {
    let samples: Vec<_> = seqs.map(|seq| (seq, 100)).collect();
    window.sent(now, &samples);
}

fn confirmed(up_to: u64, samples: usize) -> Confirmed {
    Confirmed { up_to, samples, bytes: samples * 100 }
}

#[test]
fn acknowledgements_are_cumulative_and_may_be_late_or_doubled() {
    let mut window = open(Mode::Ack);
    send(&mut window, s(0), 5..=9);
    assert_eq!(window.ping_due(s(0)), None, "no barrier is needed");
    assert_eq!(window.acked(s(1), 4), Ok(None), "from an earlier connection");
    assert_eq!(window.acked(s(1), 7), Ok(Some(confirmed(7, 3))));
    for seq in [7, 6, 0] {
        assert_eq!(window.acked(s(2), seq), Ok(None));
    }
    assert_eq!(window.oldest_unconfirmed(), Some(8));
    assert_eq!(window.acked(s(3), 9), Ok(Some(confirmed(9, 2))));
    assert_eq!((window.oldest_unconfirmed(), window.unconfirmed()), (None, Limits::default()));
    assert_eq!(window.last_confirmation(), Some(s(3)));
}

#[test]
fn an_acknowledgement_beyond_what_was_sent_confirms_nothing() {
    let mut window = open(Mode::Ack);
    let error = window.acked(s(0), 1).unwrap_err();
    assert_eq!(error, AckBeyond { acked: 1, sent: None });
    assert!(error.to_string().ends_with("is none"), "{error}");
    send(&mut window, s(0), 1..=3);
    let error = window.acked(s(0), 4).unwrap_err();
    assert!(error.to_string().contains("sample 4") && error.to_string().ends_with("is 3"));
    assert_eq!(window.unconfirmed().samples, 3);
    window.close();
    window.open(Mode::Ack);
    assert!(window.acked(s(0), 3).is_err(), "what an earlier link sent does not count");
}

#[test]
fn numbers_may_have_gaps_and_have_to_ascend() {
    let mut window = open(Mode::Ack);
    window.sent(s(0), &[(3, 100), (7, 100), (7, 100), (5, 100), (9, 100)]);
    assert_eq!(window.in_flight().samples, 3);
    assert_eq!(window.acked(s(0), 8), Ok(Some(confirmed(7, 2))), "8 was not there to be sent");
}

#[test]
fn a_rejected_sample_is_not_confirmed() {
    let mut window = open(Mode::Ack);
    send(&mut window, s(0), 1..=4);
    assert!(window.rejected(2));
    assert!(!window.rejected(2), "once");
    assert!(!window.rejected(5), "not sent");
    assert_eq!(window.in_flight(), Limits { samples: 3, bytes: 300 });
    assert_eq!(window.acked(s(0), 2), Ok(Some(confirmed(1, 1))));
    assert!(!window.rejected(1), "stored is stored");
    assert!(window.rejected(3) && window.rejected(4));
    assert!(!window.expired(s(1000)), "nothing is waited for");
    assert_eq!(window.acked(s(0), 4), Ok(None));
}

#[test]
fn the_window_is_filled_in_parts() {
    let mut window = open(Mode::Ack);
    let part = Limits { samples: 128, bytes: 256 * 1024 };
    for first in [1, 129, 257, 385] {
        assert_eq!(window.room(), part);
        send(&mut window, s(0), first..=first + 127);
    }
    assert_eq!(window.room(), Limits::default());
    assert_eq!(window.in_flight().samples, WINDOW_SAMPLES);
    window.acked(s(0), 127).unwrap();
    assert_eq!(window.room(), Limits::default(), "not for a few");
    window.acked(s(0), 128).unwrap();
    assert_eq!(window.room(), part);
}

#[test]
fn bytes_limit_too() {
    let mut window = open(Mode::Ack);
    for part in 0..4 {
        assert_eq!(window.room().bytes, 4 * MAX_ENCODED);
        let samples: Vec<_> = (1..=4).map(|i| (4 * part + i, MAX_ENCODED)).collect();
        window.sent(s(0), &samples);
    }
    assert_eq!(window.room(), Limits::default());
    assert_eq!(window.in_flight().bytes, WINDOW_BYTES);
}

#[test]
fn a_pong_shows_what_was_read_and_a_later_one_confirms_it() {
    let mut window = open(Mode::Ping);
    send(&mut window, s(0), 1..=128);
    let first = window.ping_due(s(0)).unwrap();
    assert_eq!(window.ping_due(s(0)), None, "once");
    send(&mut window, s(1), 129..=130);
    let second = window.ping_due(s(1)).unwrap();
    assert_eq!(window.ponged(s(2), first), None);
    assert_eq!((window.in_flight().samples, window.unconfirmed().samples), (2, 130));
    assert_eq!(window.ponged(s(3), second), None);
    assert_eq!((window.in_flight().samples, window.unconfirmed().samples), (0, 130));
    assert_eq!(window.next_deadline(), Some(s(7)));
    assert_eq!(window.ping_due(Duration::from_millis(6999)), None);
    let later = window.ping_due(s(7)).unwrap();
    assert_eq!(window.next_deadline(), Some(s(8)), "then it is the other's turn");
    let last = window.ping_due(s(8)).unwrap();
    assert_eq!(window.ponged(s(9), later), Some(confirmed(128, 128)));
    assert_eq!(window.ponged(s(9), last), Some(confirmed(130, 2)));
    assert_eq!(window.ponged(s(9), last), None);
    assert_eq!(window.next_deadline(), None);
}

#[test]
fn a_pong_answers_all_earlier_pings_and_strangers_none() {
    let mut window = open(Mode::Ping);
    send(&mut window, s(0), 1..=2);
    let first = window.ping_due(s(0)).unwrap();
    send(&mut window, s(0), 3..=4);
    let second = window.ping_due(s(0)).unwrap();
    assert_eq!(window.ponged(s(1), *b"whatever"), None);
    assert_eq!(window.in_flight().samples, 4);
    window.ponged(s(1), second);
    assert_eq!(window.in_flight().samples, 0);
    send(&mut window, s(2), 5..=5);
    assert_eq!(window.ponged(s(8), first), None, "answered with the second");
    assert_eq!(window.in_flight().samples, 1);
    assert_eq!(window.acked(s(8), 99), Ok(None), "an unknown event here");
}

#[test]
fn a_stream_needs_no_pings_of_its_own_to_be_confirmed() {
    let mut window = open(Mode::Ping);
    let mut confirmed = 0;
    for second in 0..100 {
        send(&mut window, s(second), second + 1..=second + 1);
        let ping = window.ping_due(s(second)).unwrap();
        assert_eq!(window.ping_due(s(second)), None);
        confirmed += window.ponged(s(second), ping).map_or(0, |confirmed| confirmed.samples);
    }
    assert_eq!(confirmed, 95, "all but those of the last 5 s");
    assert!(!window.expired(s(100)));
}

#[test]
fn without_confirmations_the_link_expires_and_the_window_is_halved() {
    for mode in [Mode::Ack, Mode::Ping] {
        let mut window = open(mode);
        assert_eq!(window.next_deadline(), None);
        assert!(!window.expired(s(1000)), "nothing is waited for");
        send(&mut window, s(1000), 1..=1);
        window.ping_due(s(1000));
        assert_eq!(window.next_deadline(), Some(s(1060)));
        assert!(!window.expired(s(1059)) && window.expired(s(1060)));
        let mut seen = Vec::new();
        for _ in 0..12 {
            window.give_up();
            seen.push(window.limit().samples);
        }
        assert_eq!(seen, [256, 128, 64, 32, 16, 8, 4, 2, 1, 1, 1, 1]);
        assert!(window.limit().bytes >= 2 * MAX_ENCODED);
        window.open(mode);
        assert_eq!(window.oldest_unconfirmed(), None);
        assert!(!window.expired(s(2000)));
    }
}

#[test]
fn each_confirmation_gives_another_minute() {
    let mut window = open(Mode::Ack);
    send(&mut window, s(0), 1..=3);
    window.acked(s(59), 1).unwrap();
    window.acked(s(70), 1).unwrap();
    assert!(!window.expired(s(118)) && window.expired(s(119)), "a doubled one does not");
}

#[test]
fn samples_that_were_read_are_waited_for_too() {
    let mut window = open(Mode::Ping);
    send(&mut window, s(0), 1..=3);
    let ping = window.ping_due(s(0)).unwrap();
    window.ponged(s(1), ping);
    window.ping_due(s(6)).unwrap();
    assert!(window.expired(s(60)), "no Pong came any more");
}

#[test]
fn the_window_doubles_with_each_window_confirmed() {
    let mut window = open(Mode::Ack);
    (0..9).for_each(|_| window.give_up());
    window.open(Mode::Ack);
    let mut next = 1;
    let mut seen = Vec::new();
    while window.limit() != Limits::FULL {
        let limit = window.limit().samples;
        seen.push(limit);
        let mut left = limit;
        while left > 0 {
            let part = window.room().samples.min(left) as u64;
            send(&mut window, s(0), next..=next + part - 1);
            next += part;
            left -= part as usize;
        }
        assert_eq!(window.in_flight().samples, limit);
        window.acked(s(0), next - 1).unwrap();
    }
    assert_eq!(seen, [1, 2, 4, 8, 16, 32, 64, 128, 256]);
}

/// Lets the Monitor read and deal with everything: answers every Ping as it is due.
fn settle(window: &mut Window, now: &mut Duration) -> usize {
    let mut samples = 0;
    while window.unconfirmed().samples > 0 || window.settling.is_some() {
        assert!(!window.expired(*now));
        *now = window.next_deadline().unwrap().max(*now);
        let Some(ping) = window.ping_due(*now) else { continue };
        samples += window.ponged(*now, ping).map_or(0, |confirmed| confirmed.samples);
    }
    samples
}

#[test]
fn an_unnamed_refusal_calls_everything_back_and_halves() {
    let mut window = open(Mode::Ping);
    assert_eq!(window.refused(s(0)), Refusal::Stale, "nothing is on its way");
    send(&mut window, s(0), 1..=128);
    let old = window.ping_due(s(0)).unwrap();
    send(&mut window, s(0), 129..=200);
    assert_eq!(window.refused(s(1)), Refusal::Halved { oldest: 1 });
    assert_eq!(window.refused(s(1)), Refusal::Stale, "still about the same samples");
    assert_eq!((window.limit().samples, window.unconfirmed().samples), (256, 0));
    assert_eq!(window.room(), Limits::default(), "not before it must have dealt with them");
    // A Pong to the old Ping does not show that it has read what came behind that.
    assert_eq!(window.ponged(s(2), old), None);
    let ask = window.ping_due(s(2)).unwrap();
    assert_eq!(window.ping_due(s(2)), None);
    window.ponged(s(3), ask);
    assert_eq!(window.room(), Limits::default());
    assert_eq!(window.next_deadline(), Some(s(8)));
    let ask = window.ping_due(s(8)).unwrap();
    assert_eq!(window.room(), Limits::default());
    window.ponged(s(9), ask);
    assert_eq!(window.room().samples, 64);
    assert_eq!(window.next_deadline(), None);
    // The same numbers go out again, on the same link; and until it is found, what was read takes
    // up room too, so that the next refusal is about this window.
    for first in [1, 65, 129, 193] {
        send(&mut window, s(10), first..=first + 63);
    }
    let ask = window.ping_due(s(10)).unwrap();
    window.ponged(s(10), ask);
    assert_eq!((window.in_flight().samples, window.room()), (0, Limits::default()));
    let mut now = s(10);
    assert_eq!(settle(&mut window, &mut now), 256);
    assert_eq!(window.limit(), Limits::FULL);
}

#[test]
fn a_monitor_that_refuses_and_falls_silent_is_dropped() {
    let mut window = open(Mode::Ping);
    send(&mut window, s(0), 1..=1);
    window.refused(s(5));
    assert!(window.ping_due(s(5)).is_some());
    assert!(!window.expired(s(64)) && window.expired(s(65)));
}

#[test]
fn with_acknowledgements_an_unnamed_refusal_changes_nothing() {
    let mut window = open(Mode::Ack);
    send(&mut window, s(0), 1..=8);
    assert_eq!(window.refused(s(0)), Refusal::Stale);
    assert_eq!(window.acked(s(0), 8), Ok(Some(confirmed(8, 8))));
}

#[test]
fn a_refused_sample_is_found_and_no_other_is_blamed() {
    // Number 300 is refused whenever it is read, and nobody says which one it was.
    const CULPRIT: u64 = 300;
    let mut window = open(Mode::Ping);
    let mut now = s(0);
    let mut next = 1;
    let mut stored = 0;
    let blamed = 'search: loop {
        let mut refused = false;
        while window.room().samples > 0 && next <= 1000 {
            let last = next + window.room().samples as u64 - 1;
            send(&mut window, now, next..=last);
            refused |= (next..=last).contains(&CULPRIT);
            next = last + 1;
            if window.searching {
                let part_of_window = window.unconfirmed().samples <= window.limit().samples;
                assert!(part_of_window, "what was read still counts");
            }
        }
        if !refused {
            stored += settle(&mut window, &mut now) as u64;
            assert!(stored < CULPRIT);
            continue;
        }
        match window.refused(now) {
            Refusal::Stale => panic!("it was not told of before"),
            Refusal::Halved { oldest } => {
                assert_eq!(oldest, stored + 1, "nothing is skipped");
                next = oldest;
            }
            Refusal::Sample(seq) => break 'search seq,
        }
        settle(&mut window, &mut now);
    };
    assert_eq!((blamed, stored), (CULPRIT, CULPRIT - 1));
    assert_eq!(window.limit().samples, 1);
    // The others go on, and the window grows again.
    settle(&mut window, &mut now);
    next = CULPRIT + 1;
    while window.limit() != Limits::FULL {
        while window.room().samples > 0 {
            let last = next + window.room().samples as u64 - 1;
            send(&mut window, now, next..=last);
            next = last + 1;
        }
        settle(&mut window, &mut now);
    }
    assert!(!window.searching);
}
