//! The WebSocket's rules one by one: docs/PROTOCOL.md 3 (the long road), 4, 7 and 8.

use super::*;
use crate::protocol::{RECONNECT_SPREAD, REFUSED_RETRY};

const BOTH: Settings = Settings { proved: true, transports: Transports::Both, ..PLAIN };
const ACK: Capabilities = Capabilities { ack: true, resume: false, batch: false };
const PINGS: Capabilities = Capabilities { ack: false, resume: false, batch: false };

impl Bench {
    fn find<T>(&self, what: impl Fn(&Command) -> Option<T>) -> Option<T> {
        self.commands.iter().find_map(what)
    }

    fn connecting(&self) -> Option<(Attempt, Proof)> {
        self.find(|c| {
            if let Command::Connect { link, proof } = c { Some((*link, *proof)) } else { None }
        })
    }

    pub(super) fn fetching(&self) -> Option<Attempt> {
        self.find(|c| if let Command::FetchKey { attempt } = c { Some(*attempt) } else { None })
    }

    pub(super) fn sends(&self) -> Option<(u64, usize)> {
        self.find(|c| {
            if let Command::Send { from, records, .. } = c { Some((*from, *records)) } else { None }
        })
    }

    pub(super) fn pings(&self) -> Option<[u8; 8]> {
        self.find(|c| if let Command::Ping { payload, .. } = c { Some(*payload) } else { None })
    }

    pub(super) fn posts(&self) -> bool {
        self.find(|c| matches!(c, Command::Post { .. }).then_some(())).is_some()
    }

    pub(super) fn closes(&self) -> bool {
        self.find(|c| matches!(c, Command::CloseLink { .. }).then_some(())).is_some()
    }

    fn reports(&self, report: &Report) -> bool {
        self.commands.contains(&Command::Report(report.clone()))
    }

    /// The key comes, and the handshake begins.
    fn knock(&mut self, capabilities: Capabilities) -> (Attempt, Proof) {
        let attempt =
            self.fetching().unwrap_or_else(|| panic!("no key wanted: {:?}", self.commands));
        let news = KeyNews { capabilities, changed: false };
        self.tell(Event::Key { attempt, result: Ok(news) });
        self.connecting().unwrap_or_else(|| panic!("no handshake: {:?}", self.commands))
    }

    fn shaken(&mut self, link: Attempt, result: Handshake) {
        self.tell(Event::Handshake { link, result });
    }

    pub(super) fn link(&mut self, link: Attempt, event: LinkEvent) {
        self.tell(Event::Link { link, event });
    }

    /// A link that is up.
    pub(super) fn linked(&mut self, capabilities: Capabilities) -> Attempt {
        let (link, _) = self.knock(capabilities);
        self.shaken(link, Handshake::Accepted { token: false });
        link
    }

    /// What was asked for is written.
    pub(super) fn written(&mut self, link: Attempt, first: u64, last: u64) {
        self.link(link, LinkEvent::Sending((first..=last).map(|seq| (seq, 500)).collect()));
        self.link(link, LinkEvent::Written { nothing: false });
    }

    fn later(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.tell(Event::Tick);
    }

    fn refused(&mut self) -> Proof {
        let (link, proof) = self.knock(ACK);
        self.shaken(link, Handshake::Refused("no".into()));
        proof
    }
}

fn up_to(up_to: u64) -> Command {
    Command::Acknowledge { up_to, transport: Transport::Websocket }
}

#[test]
fn hello_comes_first_and_the_oldest_samples_follow() {
    let mut b = Bench::new(BOTH);
    b.queue(5, 9);
    let link = b.linked(ACK);
    assert_eq!(b.commands[0], Command::Hello { link });
    assert_eq!(b.sends().unwrap().0, 5);
}

#[test]
fn acks_are_cumulative_and_one_beyond_what_was_sent_drops_the_link_and_confirms_nothing() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 5);
    let link = b.linked(ACK);
    b.written(link, 1, 4);
    b.link(link, LinkEvent::Ack(2));
    assert!(b.commands.contains(&up_to(2)));
    b.link(link, LinkEvent::Ack(5));
    assert!(b.closes());
    assert!(!b.commands.iter().any(|c| matches!(c, Command::Acknowledge { .. })));
}

#[test]
fn a_reject_is_final_at_once_and_kept_before_the_cursor_passes_it() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 4);
    let link = b.linked(ACK);
    b.written(link, 1, 3);
    b.link(link, LinkEvent::Reject(2, "no".into()));
    assert_eq!(b.rejects(), [2]);
    b.link(link, LinkEvent::Ack(3));
    assert!(b.commands.contains(&up_to(3)));
}

#[test]
fn rejected_samples_that_others_stand_between_are_not_in_a_row() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 10);
    let link = b.linked(ACK);
    b.written(link, 1, 9);
    b.link(link, LinkEvent::Reject(2, "no".into()));
    assert_eq!(b.rejects(), [2]);
    b.link(link, LinkEvent::Reject(4, "no".into()));
    assert_eq!(b.rejects(), [4]);
    for seq in [6, 8] {
        b.link(link, LinkEvent::Reject(seq, "no".into()));
        assert!(b.rejects().is_empty() && !b.closes(), "it is not known what becomes of 5");
    }
    b.link(link, LinkEvent::Ack(7));
    assert_eq!(b.commands[..2], [Command::Reject { seq: 6, reason: "no".into() }, up_to(7)]);
    assert_eq!(b.rejects(), [6, 8], "8 is the first after what was acknowledged");
    assert!(!b.closes());
}

#[test]
fn three_in_a_row_are_seen_however_they_arrive() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 10);
    let link = b.linked(ACK);
    b.written(link, 1, 9);
    for seq in [2, 3] {
        b.link(link, LinkEvent::Reject(seq, "no".into()));
        assert_eq!(b.rejects(), [seq]);
    }
    b.link(link, LinkEvent::Reject(4, "no".into()));
    assert!(b.rejects().is_empty() && !b.closes());
    b.link(link, LinkEvent::Reject(1, "no".into()));
    assert!(b.rejects().is_empty(), "1 stands before them: the third in a row");
    assert!(b.closes() && b.reports(&Report::Probing { reason: "no".into() }));
}

#[test]
fn a_lost_link_takes_its_undecided_rejections_with_it() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 10);
    let link = b.linked(ACK);
    b.written(link, 1, 9);
    for seq in [2, 4, 6] {
        b.link(link, LinkEvent::Reject(seq, "no".into()));
    }
    b.link(link, LinkEvent::Lost("cut".into()));
    assert!(b.rejects().is_empty(), "6 is sent again");
}

#[test]
fn a_monitor_that_goes_does_not_bring_all_heartbeats_at_one_moment() {
    let mut begins = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let mut b = Bench::new(BOTH);
        b.seed = seed * 1000;
        b.queue(1, 3);
        let link = b.linked(ACK);
        b.written(link, 1, 2);
        b.link(link, LinkEvent::Ack(1));
        b.link(link, LinkEvent::Lost("gone".into()));
        let lost = b.now;
        loop {
            b.sleep();
            if b.reports(&Report::FallbackBegan) {
                break;
            }
            if matches!(b.commands.last(), Some(Command::FetchKey { .. })) {
                b.failed();
            }
            if b.reports(&Report::FallbackBegan) {
                break;
            }
        }
        let away = b.now - lost;
        let two = 2 * BOTH.report_interval;
        let most = two + RECONNECT_SPREAD * 3 / 2 + Duration::from_nanos(1);
        assert!(away > two && away <= most, "{away:?}");
        begins.insert(away.as_secs());
    }
    assert!(begins.len() > 20, "spread over 45 s: {begins:?}");
}

#[test]
fn without_acks_a_pong_to_a_ping_5_s_later_confirms() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 4);
    let link = b.linked(PINGS);
    b.written(link, 1, 3);
    let first = b.pings().unwrap();
    b.link(link, LinkEvent::Pong(first));
    assert!(!b.commands.contains(&up_to(3)), "read is not dealt with");
    assert_eq!(b.sleep(), Duration::from_secs(5));
    let second = b.pings().unwrap();
    b.link(link, LinkEvent::Pong(second));
    assert!(b.commands.contains(&up_to(3)));
}

#[test]
fn what_was_asked_for_before_a_refusal_is_called_back_with_the_rest() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 200);
    let link = b.linked(PINGS);
    let (_, records) = b.sends().unwrap();
    b.written(link, 1, records as u64);
    assert!(b.sends().is_some(), "the next part is asked for");
    b.link(link, LinkEvent::NotOk("no".into()));
    b.written(link, 129, 199);
    for _ in 0..3 {
        if let Some(ping) = b.pings() {
            b.link(link, LinkEvent::Pong(ping));
        }
        assert!(!b.commands.iter().any(|c| matches!(c, Command::Acknowledge { .. })));
        if b.sends().is_some() {
            break;
        }
        b.sleep();
    }
    if let Some(ping) = b.pings() {
        b.link(link, LinkEvent::Pong(ping));
    }
    assert_eq!(b.sends().unwrap().0, 1, "all is sent again");
}

#[test]
fn what_was_appended_while_nothing_was_found_is_not_passed_over() {
    let mut b = Bench::new(BOTH);
    b.queue(10, 11);
    let link = b.linked(ACK);
    assert_eq!(b.sends().unwrap().0, 10);
    // 10 has gone, 11 was appended after the queue had been read.
    b.queue(11, 12);
    b.link(link, LinkEvent::Written { nothing: true });
    assert_eq!(b.sends().unwrap().0, 11);
}

#[test]
fn a_token_is_durable_before_anything_is_sent_and_is_proved_with_from_then_on() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 2);
    let (link, proof) = b.knock(ALL);
    assert_eq!(proof, Proof::Challenge);
    b.shaken(link, Handshake::Accepted { token: true });
    assert_eq!(b.commands, [Command::SaveToken { link }]);
    b.tell(Event::TokenSaved { link, saved: true });
    assert_eq!(b.commands[0], Command::Hello { link });
    b.link(link, LinkEvent::Lost("cut".into()));
    b.sleep();
    assert_eq!(b.knock(ALL).1, Proof::Token);
}

#[test]
fn a_token_that_cannot_be_saved_is_not_used() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 2);
    let (link, _) = b.knock(ALL);
    b.shaken(link, Handshake::Accepted { token: true });
    b.tell(Event::TokenSaved { link, saved: false });
    assert!(b.closes() && b.sends().is_none());
}

#[test]
fn a_refused_handshake_is_tried_once_more_and_then_hourly() {
    let mut b = Bench::new(Settings { transports: Transports::Websocket, ..BOTH });
    b.queue(1, 2);
    b.refused();
    assert!(b.sleep() <= Duration::from_secs(1));
    for _ in 0..3 {
        b.refused();
        assert_eq!(b.sleep(), REFUSED_RETRY);
    }
    // New credentials are used at once, and so is what the operator asks for.
    b.refused();
    b.tell(Event::Credentials);
    assert!(b.fetching().is_some());
    b.refused();
    b.sleep();
    b.refused();
    b.tell(Event::TryNow);
    assert!(b.fetching().is_some());
}

#[test]
fn another_key_ends_the_long_road_whoever_reads_it() {
    let mut b = Bench::new(Settings { transports: Transports::Websocket, ..BOTH });
    b.queue(1, 2);
    b.refused();
    b.sleep();
    b.refused();
    assert_eq!(b.sleep(), REFUSED_RETRY);
    let attempt = b.fetching().unwrap();
    let news = KeyNews { capabilities: ACK, changed: true };
    b.tell(Event::Key { attempt, result: Ok(news) });
    let (link, _) = b.connecting().unwrap();
    b.shaken(link, Handshake::Refused("no".into()));
    assert!(b.sleep() < Duration::from_secs(300), "the first refusal under this key");
}

#[test]
fn a_refused_token_makes_the_challenge_tried_once() {
    let mut b = Bench::new(Settings { transports: Transports::Websocket, ..BOTH });
    b.machine = Machine::new(b.machine.shared.settings, true);
    b.queue(1, 2);
    assert_eq!(b.refused(), Proof::Token);
    b.sleep();
    assert_eq!(b.refused(), Proof::Challenge);
    b.sleep();
    assert_eq!(b.refused(), Proof::Token, "it was kept");
    b.sleep();
    assert_eq!(b.refused(), Proof::Challenge);
    assert_eq!(b.sleep(), REFUSED_RETRY);
}

#[test]
fn a_refused_handshake_lets_the_heartbeat_carry_on_at_once() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 2);
    b.refused();
    assert!(b.reports(&Report::FallbackBegan) && b.posts());
}

#[test]
fn the_heartbeat_takes_over_after_more_than_two_intervals_and_in_rounds() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 3);
    let (link, _) = b.knock(ACK);
    b.later(60);
    assert!(!b.posts(), "two intervals are not more than two");
    b.now += Duration::from_nanos(1);
    b.tell(Event::Tick);
    assert!(b.reports(&Report::FallbackBegan) && b.posts());
    b.answered(1, 1, Outcome::Delivered);
    b.answered(2, 2, Outcome::Delivered);
    b.queue(3, 4);
    assert!(!b.posts(), "the next round is a fallback interval away");
    assert_eq!(b.sleep(), Duration::from_secs(60));
    assert!(b.posts());
    // An accepted link waits for the heartbeat under way, then carries the samples.
    let attempt = b.attempt();
    b.shaken(link, Handshake::Accepted { token: false });
    assert!(b.sends().is_none());
    let failure = Failure { kind: FailureKind::Unreachable, reason: String::new() };
    b.tell(Event::Answer { attempt, result: Answered::Failed(failure) });
    assert_eq!(b.sends().unwrap().0, 3);
    b.written(link, 3, 3);
    b.later(5);
    assert!(!b.posts(), "paused by an accepted link");
    b.link(link, LinkEvent::Ack(3));
    assert!(b.reports(&Report::FallbackEnded));
}

#[test]
fn a_link_lost_before_it_confirms_lets_the_heartbeat_go_on_at_once() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 2);
    let (link, _) = b.knock(ACK);
    b.queue(2, 2);
    b.later(61);
    b.shaken(link, Handshake::Accepted { token: false });
    b.queue(2, 3);
    b.written(link, 2, 2);
    b.link(link, LinkEvent::Lost("cut".into()));
    assert!(b.posts());
}

#[test]
fn the_first_try_after_a_link_that_confirmed_is_spread() {
    let mut longest = Duration::ZERO;
    for seed in 0..200 {
        let mut b = Bench::new(BOTH);
        b.seed = seed;
        b.queue(1, 2);
        let link = b.linked(ACK);
        b.written(link, 1, 1);
        b.link(link, LinkEvent::Ack(1));
        b.link(link, LinkEvent::Lost("cut".into()));
        longest = longest.max(b.sleep());
    }
    assert!(longest <= RECONNECT_SPREAD && longest > RECONNECT_SPREAD * 9 / 10, "{longest:?}");
}

#[test]
fn retry_after_holds_for_the_upgrade_too() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 1);
    let (link, _) = b.knock(ACK);
    b.shaken(link, Handshake::Busy(Some(Duration::from_secs(40)), "503".into()));
    b.queue(1, 1);
    assert!((40..=60).contains(&b.sleep().as_secs()));
}

#[test]
fn a_link_without_confirmation_for_60_s_is_dropped_and_counts_as_down_since_its_last() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 2);
    let link = b.linked(ACK);
    b.written(link, 1, 1);
    b.link(link, LinkEvent::Ack(1));
    b.queue(2, 3);
    b.written(link, 2, 2);
    for _ in 0..11 {
        b.later(5);
        b.link(link, LinkEvent::Frame);
        assert!(!b.closes());
    }
    b.later(6);
    assert!(b.closes());
    assert!(b.posts(), "down for more than two intervals already");
}

#[test]
fn three_links_lost_with_one_sample_send_it_by_heartbeat() {
    let mut b = Bench::new(BOTH);
    b.queue(7, 9);
    for times in 1..=3 {
        let link = b.linked(ACK);
        b.written(link, 7, 8);
        b.link(link, LinkEvent::Lost("cut".into()));
        assert_eq!(b.posts(), times == 3);
        if times < 3 {
            b.sleep();
        }
    }
    assert_eq!(b.selection(), Selection::Single { from: 7 });
}

#[test]
fn a_half_open_link_is_dropped_after_45_s_of_silence() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 1);
    b.linked(ACK);
    assert_eq!(b.sleep(), Duration::from_secs(30));
    assert!(b.pings().is_some());
    assert_eq!(b.sleep(), Duration::from_secs(15));
    assert!(b.closes());
}

#[test]
fn a_stop_waits_for_what_is_in_flight_but_not_in_a_busy_loop() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 2);
    let link = b.linked(ACK);
    b.written(link, 1, 1);
    b.tell(Event::Shutdown);
    assert!(!b.commands.contains(&Command::Finished));
    b.sleep();
    assert_eq!(b.commands, [Command::CloseLink { link }, Command::Finished]);
}

#[test]
fn what_belongs_to_another_link_is_ignored() {
    let mut b = Bench::new(BOTH);
    b.queue(1, 2);
    let link = b.linked(ACK);
    b.written(link, 1, 1);
    b.link(link, LinkEvent::Lost("cut".into()));
    b.link(link, LinkEvent::Ack(1));
    assert!(!b.commands.iter().any(|c| matches!(c, Command::Acknowledge { .. })));
    b.shaken(link, Handshake::Accepted { token: false });
    assert!(b.sends().is_none());
}
