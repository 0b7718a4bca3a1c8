//! What the queue gives up while it is on its way.

use super::*;

const BOTH: Settings = Settings { proved: true, transports: Transports::Both, ..PLAIN };
const ACK: Capabilities = Capabilities { ack: true, resume: false, batch: false };
const PINGS: Capabilities = Capabilities { ack: false, resume: false, batch: false };

fn up_to(up_to: u64) -> Command {
    Command::Acknowledge { up_to, transport: Transport::Websocket }
}

fn answer(attempt: Attempt, first: u64, last: u64, outcome: Outcome) -> Event {
    Event::Answer { attempt, result: Answered::Got { sent: (first..=last).collect(), outcome } }
}

#[test]
fn a_heartbeat_goes_on_behind_what_was_given_up() {
    let mut b = Bench::new(PROVED);
    b.queue(1, 1001);
    b.fetched(ALL);
    assert!(matches!(b.selection(), Selection::Batch { from: 1, .. }));
    let attempt = b.attempt();
    b.queue(301, 1002);
    assert_eq!(b.commands, [], "one at a time");
    // The late answer is about more than is still there, and that is all right.
    b.tell(answer(attempt, 1, 500, progress(500, &[7, 400])));
    assert_eq!(b.rejects(), [400], "a sample that was given up is not put aside");
    assert!(b.commands.contains(&acknowledged(500)));
    assert!(matches!(b.selection(), Selection::Batch { from: 501, .. }));
    let attempt = b.attempt();
    b.queue(801, 1003);
    let failure = Failure { kind: FailureKind::Unreachable, reason: "down".into() };
    b.tell(Event::Answer { attempt, result: Answered::Failed(failure) });
    b.sleep();
    assert!(matches!(b.selection(), Selection::Batch { from: 801, .. }));
}

#[test]
fn the_last_refusal_of_what_was_given_up_moves_nothing() {
    let mut b = Bench::new(PLAIN);
    b.queue(1, 50);
    for _ in 0..2 {
        b.answered(1, 1, unacceptable());
        b.sleep();
    }
    let attempt = b.attempt();
    b.queue(20, 51);
    b.tell(answer(attempt, 1, 1, unacceptable()));
    assert!(b.rejects().is_empty());
    b.sleep();
    assert_eq!(b.selection(), Selection::Single { from: 20 });
    // Whatever comes next has its own three tries.
    b.answered(20, 20, unacceptable());
    assert!(b.rejects().is_empty());
}

#[test]
fn a_link_sends_on_behind_it_and_a_late_ack_confirms_the_rest() {
    for all_gone in [false, true] {
        let mut b = Bench::new(BOTH);
        b.queue(1, 401);
        let link = b.linked(ACK);
        b.written(link, 1, 128);
        assert_eq!(b.sends().unwrap().0, 129);
        // What was asked for is read after the eviction.
        b.queue(if all_gone { 201 } else { 101 }, 402);
        b.written(link, if all_gone { 201 } else { 129 }, 300);
        assert_eq!(b.sends().unwrap().0, 301);
        b.link(link, LinkEvent::Ack(128));
        assert!(b.commands.contains(&up_to(128)), "to the queue it is old news, or a part of it");
        b.link(link, LinkEvent::Ack(300));
        assert!(b.commands.contains(&up_to(300)) && !b.closes());
        b.link(link, LinkEvent::Reject(120, "no".into()));
        assert!(b.rejects().is_empty());
    }
}

#[test]
fn a_reject_of_what_was_given_up_puts_nothing_aside() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 200);
    let link = b.linked(ACK);
    b.written(link, 1, 128);
    b.queue(101, 201);
    b.link(link, LinkEvent::Reject(50, "no".into()));
    assert!(b.rejects().is_empty() && !b.closes());
    b.link(link, LinkEvent::Reject(110, "no".into()));
    assert_eq!(b.rejects(), [110]);
}

#[test]
fn pongs_confirm_what_is_left_of_a_window() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 100);
    let link = b.linked(PINGS);
    b.written(link, 1, 99);
    let first = b.pings().unwrap();
    b.queue(61, 100);
    b.link(link, LinkEvent::Pong(first));
    b.sleep();
    let second = b.pings().unwrap();
    b.link(link, LinkEvent::Pong(second));
    assert!(b.commands.contains(&up_to(99)) && !b.closes());
}

/// Three links in a row are lost with the same oldest sample; tells whether it is then tried by
/// heartbeat. Before the third is lost, or after it, the queue gives that sample up.
fn third_link_lost(before: bool, after: bool) -> bool {
    let mut b = Bench::new(BOTH);
    b.queue(1, 10);
    for lost in 1..=3 {
        while b.fetching().is_none() {
            b.sleep();
        }
        let link = b.linked(ACK);
        b.written(link, 1, 9);
        if lost == 3 && before {
            b.queue(5, 10);
        }
        if lost == 3 && after {
            // Nothing goes by heartbeat yet: the key is still on its way.
            b.link(link, LinkEvent::Lost("cut".into()));
            b.queue(5, 10);
        } else {
            b.link(link, LinkEvent::Lost("cut".into()));
        }
    }
    b.machine.shared.forced.is_some()
}

#[test]
fn links_that_are_lost_with_it_send_nothing_by_heartbeat() {
    assert!(third_link_lost(false, false));
    assert!(!third_link_lost(true, false));
    assert!(!third_link_lost(false, true));
}
