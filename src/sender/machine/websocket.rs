//! The WebSocket's side of the machine: connect, stream, lose, come back.
//!
//! Invariants: at most one link at a time, named by the attempt that made it; what belongs to
//! another is ignored; what is sent is known to the window before a byte of it is on the wire, so
//! no acknowledgement can come too early; a refused handshake is not repeated but on the long
//! road of docs/PROTOCOL.md 3, since each one may use a challenge up.
//!
//! Source of the rules: docs/PROTOCOL.md 3, 4, 7 and 8.

use std::time::Duration;

use super::held::Held;
use super::refusals::Verdict;
use super::{
    Attempt, Command, Failure, FailureKind, Handshake, KeyNews, LinkEvent, Now, Proof, Report,
    Shared, Transport,
};
use crate::jitter::uniform;
use crate::protocol::{Capabilities, LINKS_LOST_WITH_ONE_SAMPLE, RECONNECT_SPREAD, REFUSED_RETRY};
use crate::sender::backoff::Backoff;
use crate::sender::keepalive::Keepalive;
use crate::sender::window::{Confirmed, Mode, Refusal, Window};

/// The WebSocket's state.
#[derive(Debug)]
pub(super) struct Websocket {
    state: State,
    backoff: Backoff,
    not_before: Duration,
    /// Since when there has been no link that confirms; `None` while there is one.
    down_since: Option<Duration>,
    /// How much later than at once the heartbeat takes over, drawn when a link is lost: a Monitor
    /// that goes takes all its links with it, and the heartbeats that stand in for them would all
    /// begin at one moment.
    fallback_spread: Duration,
    /// The first tries after a loss are spread until then; the second ones follow behind, or they
    /// would add up.
    spread_until: Duration,
    /// Refused handshakes with the challenge since the credentials were new.
    refusals: u32,
    /// The resume token was refused: the challenge is tried, once.
    challenge_next: bool,
    /// What is on its way; outlives links, since its limit does.
    window: Window,
    /// The oldest unconfirmed sample of the last lost links, and how many lost it.
    lost_with: Option<(u64, u32)>,
    capabilities: Capabilities,
}

#[derive(Debug)]
enum State {
    /// No link; the next try is at `not_before`.
    Down,
    /// The key document is on its way.
    Fetching(Attempt),
    /// The handshake is under way.
    Connecting(Attempt, Proof),
    /// Accepted; the token that came with it is being made durable.
    Saving(Attempt),
    /// Samples may flow.
    Up(Up),
}

#[derive(Debug)]
struct Up {
    link: Attempt,
    /// Samples are being read from the queue or written to the socket.
    sending: Option<Sending>,
    /// The lowest number that has not been handed to the socket.
    next: u64,
    /// The probe that is under way, while three refused in a row are.
    probe: Option<u64>,
    /// Rejected samples whose turn has not come.
    held: Held,
    /// The last confirmation over this link.
    confirmed: Option<Duration>,
    keepalive: Keepalive,
}

/// Samples that were asked for.
#[derive(Debug, Clone, Copy)]
struct Sending {
    /// The number the next sample was to get when they were asked for.
    end: u64,
    /// They are known by number, and are going to the wire.
    told: bool,
    /// What stands before them was called back meanwhile, so they count as called back too: a
    /// confirmation of them would cover what was not sent again.
    called_back: bool,
}

/// Over how long the heartbeats of servers that lost their links at one moment begin to stand in.
/// While they do, the links are still being tried: half as much again as the spread of those keeps
/// the sum of both below what docs/PROTOCOL.md 8 allows, which tests/simulation/fleet.rs shows.
fn fallback_spread(reconnect_spread: Duration) -> Duration {
    reconnect_spread * 3 / 2
}

impl Websocket {
    pub(super) fn new(cap: Duration) -> Self {
        Self {
            state: State::Down,
            backoff: Backoff::new(cap),
            not_before: Duration::ZERO,
            down_since: Some(Duration::ZERO),
            fallback_spread: Duration::ZERO,
            spread_until: Duration::ZERO,
            refusals: 0,
            challenge_next: false,
            window: Window::new(),
            lost_with: None,
            capabilities: Capabilities::default(),
        }
    }

    /// Whether a link is accepted, confirming or not: the heartbeat rests meanwhile.
    pub(super) fn accepted(&self) -> bool {
        matches!(self.state, State::Saving(_) | State::Up(_))
    }

    /// From when on the WebSocket counts as unavailable; `None` while it confirms.
    pub(super) fn unavailable_from(&self, report_interval: Duration) -> Option<Duration> {
        let since = self.down_since?;
        if self.refusals > 0 {
            return Some(since);
        }
        // "More than" two intervals.
        let away = report_interval * 2 + Duration::from_nanos(1);
        Some(since.saturating_add(away).saturating_add(self.fallback_spread))
    }

    pub(super) fn set_cap(&mut self, now: Now, cap: Duration) {
        self.backoff.set_cap(cap);
        if self.refusals < 2 {
            self.not_before = self.not_before.min(now.mono.saturating_add(cap));
        }
    }

    pub(super) fn try_now(&mut self, now: Now) {
        self.not_before = now.mono;
    }

    /// New credentials, or another Monitor: the link made with the old ones goes.
    pub(super) fn start_over(&mut self, now: Now, out: &mut Vec<Command>) {
        self.drop_link(now, out);
        self.backoff.reset();
        self.refusals = 0;
        self.challenge_next = false;
        self.not_before = now.mono;
    }

    /// Another Monitor: what is known of the old one's pace is void.
    pub(super) fn forget(&mut self) {
        self.window.reset();
        self.lost_with = None;
    }

    /// The key or the capabilities are others than before: a refusal may not hold any more.
    pub(super) fn key_changed(&mut self, now: Now) {
        if std::mem::take(&mut self.refusals) > 0 && matches!(self.state, State::Down) {
            self.not_before = now.mono;
        }
    }

    /// Ends what there is, on our own account.
    fn drop_link(&mut self, now: Now, out: &mut Vec<Command>) {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Down | State::Fetching(_) => {}
            State::Connecting(link, _) | State::Saving(link) => {
                out.push(Command::CloseLink { link });
            }
            State::Up(up) => {
                self.window.close();
                out.push(Command::CloseLink { link: up.link });
                self.down_since.get_or_insert(now.mono);
            }
        }
    }

    /// Starts what is due and tells when it has to be asked again.
    pub(super) fn advance(
        &mut self,
        now: Now,
        shared: &mut Shared,
        seed: u64,
        out: &mut Vec<Command>,
    ) -> Option<Duration> {
        if matches!(self.state, State::Up(_)) {
            self.give_up_if_dead(now, shared, seed, out);
        }
        match &mut self.state {
            State::Down if now.mono < self.not_before => Some(self.not_before),
            State::Down => {
                let attempt = shared.attempt();
                self.state = State::Fetching(attempt);
                out.push(Command::FetchKey { attempt });
                None
            }
            State::Fetching(_) | State::Connecting(..) | State::Saving(_) => None,
            State::Up(up) => Some(up.stream(now, shared, &mut self.window, out)),
        }
    }

    /// For the stop: true when nothing is in flight any more; what there is is closed then.
    pub(super) fn finish(&mut self, now: Now, out: &mut Vec<Command>) -> bool {
        if let State::Up(up) = &mut self.state
            && (up.sending.is_some() || self.window.unconfirmed().samples > 0)
            // What has not been confirmed in time will not be waited for now.
            && !self.window.expired(now.mono)
        {
            if let Some(payload) = self.window.ping_due(now.mono) {
                out.push(Command::Ping { link: up.link, payload });
            }
            return false;
        }
        self.drop_link(now, out);
        true
    }

    /// When an open link that is being finished has to be looked at again.
    pub(super) fn deadline(&self) -> Option<Duration> {
        if self.accepted() { self.window.next_deadline() } else { None }
    }

    fn give_up_if_dead(
        &mut self,
        now: Now,
        shared: &mut Shared,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        let State::Up(up) = &self.state else { return };
        if up.keepalive.dead(now.mono) {
            let reason = "the connection is dead: nothing comes back, not even a Pong";
            self.lost(now, shared, FailureKind::Unreachable, reason.into(), seed, out);
        } else if self.window.expired(now.mono) {
            let last = up.confirmed;
            let reason = "the Monitor has confirmed nothing for 60 s".to_owned();
            let oldest = self.window.oldest_unconfirmed();
            self.window.give_up();
            self.lost_unconfirmed(now, shared, oldest, FailureKind::Answer, reason, seed, out);
            // The link was of no use since its last confirmation.
            if last.is_some() {
                self.down_since = last;
                // Servers confirm at times of their own: this comes to no two at one moment.
                self.fallback_spread = Duration::ZERO;
            }
        }
    }

    /// A key document came, or did not; false when this was not waited for here.
    pub(super) fn key(
        &mut self,
        now: Now,
        shared: &Shared,
        attempt: Attempt,
        result: &Result<KeyNews, Failure>,
        seed: u64,
        out: &mut Vec<Command>,
    ) -> bool {
        if !matches!(self.state, State::Fetching(current) if current == attempt) {
            return false;
        }
        match result {
            Ok(news) => {
                self.capabilities = news.capabilities;
                let proof = shared.proof(self.challenge_next);
                self.state = State::Connecting(attempt, proof);
                out.push(Command::Connect { link: attempt, proof });
            }
            Err(failure) => {
                self.state = State::Down;
                self.failed(now, failure.clone(), seed, out);
            }
        }
        true
    }

    /// The handshake came to its end.
    pub(super) fn handshake(
        &mut self,
        now: Now,
        link: Attempt,
        result: Handshake,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        let State::Connecting(current, proof) = self.state else { return };
        if current != link {
            return;
        }
        self.state = State::Down;
        match result {
            Handshake::Accepted { token: true } => {
                self.state = State::Saving(link);
                out.push(Command::SaveToken { link });
            }
            Handshake::Accepted { token: false } => self.up(now, link, out),
            Handshake::Refused(reason) => self.refused(now, proof, reason, seed, out),
            Handshake::Busy(wait, reason) => {
                let failure = Failure { kind: FailureKind::Busy, reason };
                let Some(wait) = wait else { return self.failed(now, failure, seed, out) };
                let wait = wait.min(self.backoff.cap());
                self.backoff.failed(seed);
                self.wait(now, wait + uniform(wait / 2, seed), failure, out);
            }
            Handshake::Broken(failure) => self.failed(now, failure, seed, out),
        }
    }

    /// The token that came with the acceptance is durable, or could not be made so.
    pub(super) fn token_saved(
        &mut self,
        now: Now,
        link: Attempt,
        saved: bool,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        if !matches!(self.state, State::Saving(current) if current == link) {
            return;
        }
        self.state = State::Down;
        if saved {
            self.up(now, link, out);
        } else {
            out.push(Command::CloseLink { link });
            let reason = "the resume token could not be saved".to_owned();
            self.failed(now, Failure { kind: FailureKind::Local, reason }, seed, out);
        }
    }

    fn up(&mut self, now: Now, link: Attempt, out: &mut Vec<Command>) {
        self.challenge_next = false;
        self.window.open(if self.capabilities.ack { Mode::Ack } else { Mode::Ping });
        self.state = State::Up(Up {
            link,
            sending: None,
            next: 0,
            probe: None,
            held: Held::default(),
            confirmed: None,
            keepalive: Keepalive::new(now.mono),
        });
        out.push(Command::Hello { link });
        out.push(Command::Report(Report::Linked));
    }

    fn refused(
        &mut self,
        now: Now,
        proof: Proof,
        reason: String,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        let failure = Failure { kind: FailureKind::NotAccepted, reason };
        if proof == Proof::Token {
            // Kept, but the challenge is tried, once.
            self.challenge_next = true;
            return self.failed(now, failure, seed, out);
        }
        self.challenge_next = false;
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals == 1 {
            self.failed(now, failure, seed, out);
        } else {
            self.wait(now, REFUSED_RETRY, failure, out);
        }
    }

    /// Something came over a link.
    pub(super) fn event(
        &mut self,
        now: Now,
        shared: &mut Shared,
        link: Attempt,
        event: LinkEvent,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        let State::Up(up) = &mut self.state else { return };
        if up.link != link {
            return;
        }
        if event.is_frame() {
            up.keepalive.heard(now.mono);
        }
        match event {
            LinkEvent::Frame => {}
            LinkEvent::Sending(items) => {
                let called_back = up.sending.as_mut().is_some_and(|sending| {
                    sending.told = true;
                    sending.called_back
                });
                if !called_back {
                    if let Some((last, _)) = items.last() {
                        up.next = up.next.max(last + 1);
                        up.probe = shared.refusals.probing().then_some(*last);
                    }
                    self.window.sent(now.mono, &items);
                }
            }
            LinkEvent::Written { nothing } => {
                // The view they were asked for by was older than the queue. What came since is
                // not passed over: a later confirmation would cover it.
                if let Some(sending) = up.sending.take()
                    && nothing
                    && !sending.called_back
                    && !shared.refusals.probe_gone(shared.queue)
                {
                    up.next = up.next.max(sending.end);
                }
            }
            LinkEvent::Ack(seq) => match self.window.acked(now.mono, seq) {
                Ok(Some(confirmed)) => self.confirmed(now, shared, confirmed, seed, out),
                Ok(None) => {}
                Err(beyond) => {
                    let reason = beyond.to_string();
                    self.lost(now, shared, FailureKind::Answer, reason, seed, out);
                }
            },
            LinkEvent::Pong(payload) => {
                if let Some(confirmed) = self.window.ponged(now.mono, payload) {
                    self.confirmed(now, shared, confirmed, seed, out);
                }
            }
            LinkEvent::Reject(seq, reason) => {
                if self.window.rejected(seq) {
                    up.held.hold(seq, reason);
                    self.judge_held(now, shared, seed, out);
                }
            }
            LinkEvent::NotOk(reason) => match (self.window.refused(now.mono), up.probe) {
                (Refusal::Stale, _) => {}
                (Refusal::Halved { oldest }, None) => up.call_back(oldest),
                // A probe goes alone, so it is known what is refused.
                (Refusal::Halved { oldest: seq }, Some(_)) | (Refusal::Sample(seq), _) => {
                    up.call_back(seq);
                    let verdict = shared.refusals.refused(seq);
                    self.judged(now, shared, verdict, seq, reason, seed, out);
                }
            },
            LinkEvent::Lost(reason) => {
                self.lost(now, shared, FailureKind::Unreachable, reason, seed, out);
            }
            LinkEvent::Refused(reason) => {
                self.lost(now, shared, FailureKind::NotAccepted, reason, seed, out);
            }
        }
    }

    fn confirmed(
        &mut self,
        now: Now,
        shared: &mut Shared,
        confirmed: Confirmed,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        let State::Up(up) = &mut self.state else { return };
        up.confirmed = Some(now.mono);
        self.backoff.reset();
        self.refusals = 0;
        // Links that confirm do not die of a sample, whatever an earlier one died with.
        self.lost_with = None;
        shared.forced = None;
        self.down_since = None;
        let overtook = up.probe.take().is_some_and(|probe| probe > shared.queue.head);
        // A Monitor that takes what stands behind a sample means what it says about that one.
        for (seq, reason) in up.held.before(confirmed.up_to) {
            shared.reject(seq, reason, out);
        }
        if !overtook {
            shared.confirmed(confirmed.up_to, Transport::Websocket, out);
        }
        shared.accepted(Transport::Websocket, out);
        if overtook {
            // Numbers only ascend on one link, so those before the probe need another.
            self.drop_link(now, out);
            let spread = RECONNECT_SPREAD.min(shared.settings.report_interval);
            self.not_before = now.mono + uniform(spread, seed);
        }
        self.judge_held(now, shared, seed, out);
    }

    /// Judges the rejected samples whose turn has come.
    fn judge_held(&mut self, now: Now, shared: &mut Shared, seed: u64, out: &mut Vec<Command>) {
        loop {
            let undecided = self.window.oldest_unconfirmed();
            let State::Up(up) = &mut self.state else { return };
            let fatal = shared.refusals.one_more_is_too_many();
            let Some((seq, reason)) = up.held.next(undecided, fatal) else { return };
            let verdict = shared.refusals.rejected();
            self.judged(now, shared, verdict, seq, reason, seed, out);
        }
    }

    /// What to do about a sample the Monitor refused.
    #[allow(clippy::too_many_arguments, reason = "all of it is the refusal")]
    fn judged(
        &mut self,
        now: Now,
        shared: &mut Shared,
        verdict: Verdict,
        seq: u64,
        reason: String,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        match verdict {
            Verdict::Move => {
                shared.reject(seq, reason, out);
                if seq == shared.queue.head {
                    shared.moved(seq);
                }
            }
            // The next try is spaced by the backoff, and so over a new link.
            Verdict::Again => {
                self.lost(now, shared, FailureKind::Unacceptable, reason, seed, out);
            }
            Verdict::Probe => {
                out.push(Command::Report(Report::Probing { reason: reason.clone() }));
                self.lost(now, shared, FailureKind::Unacceptable, reason, seed, out);
            }
        }
    }

    /// The link is gone, or given up: what was in flight is still pending.
    fn lost(
        &mut self,
        now: Now,
        shared: &mut Shared,
        kind: FailureKind,
        reason: String,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        let oldest = self.window.oldest_unconfirmed();
        self.window.close();
        self.lost_unconfirmed(now, shared, oldest, kind, reason, seed, out);
    }

    #[allow(clippy::too_many_arguments, reason = "all of it is the loss")]
    fn lost_unconfirmed(
        &mut self,
        now: Now,
        shared: &mut Shared,
        oldest: Option<u64>,
        kind: FailureKind,
        reason: String,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        let State::Up(up) = std::mem::replace(&mut self.state, State::Down) else { return };
        out.push(Command::CloseLink { link: up.link });
        // One the queue has given up goes no other way either.
        if let Some(oldest) = oldest.filter(|seq| *seq >= shared.queue.head) {
            let times = match self.lost_with {
                Some((seq, times)) if seq == oldest => times + 1,
                Some(_) | None => 1,
            };
            self.lost_with = Some((oldest, times));
            if times >= LINKS_LOST_WITH_ONE_SAMPLE {
                self.lost_with = None;
                shared.forced = Some(oldest);
            }
        }
        let failure = Failure { kind, reason };
        // A refusal is spaced by the backoff even where the link did confirm others.
        let refusal = matches!(kind, FailureKind::Unacceptable | FailureKind::NotAccepted);
        if up.confirmed.is_some() && !refusal {
            self.down_since = Some(now.mono);
            let spread = RECONNECT_SPREAD.min(shared.settings.report_interval);
            // Another draw from the same seed.
            self.fallback_spread = uniform(fallback_spread(spread), seed.rotate_left(32));
            self.spread_until = now.mono + spread;
            self.backoff.follow(spread * 2);
            self.wait(now, uniform(spread, seed), failure, out);
        } else {
            self.down_since.get_or_insert(now.mono);
            self.failed(now, failure, seed, out);
        }
    }

    fn failed(&mut self, now: Now, failure: Failure, seed: u64, out: &mut Vec<Command>) {
        let wait = self.backoff.failed(seed);
        let behind = self.spread_until.saturating_sub(now.mono).saturating_add(wait);
        self.wait(now, wait.max(behind.min(self.backoff.cap())), failure, out);
    }

    fn wait(&mut self, now: Now, wait: Duration, failure: Failure, out: &mut Vec<Command>) {
        self.not_before = now.mono + wait;
        let (transport, retry_in) = (Transport::Websocket, wait);
        out.push(Command::Report(Report::Failed { transport, failure, retry_in }));
    }
}

impl Up {
    /// Everything from `oldest` on is to be sent again, also what was asked for and is not known
    /// by number yet.
    fn call_back(&mut self, oldest: u64) {
        self.next = oldest;
        if let Some(sending) = self.sending.as_mut().filter(|sending| !sending.told) {
            sending.called_back = true;
        }
    }

    /// Sends what may be sent, pings what has to be pinged, and tells when to look again.
    fn stream(
        &mut self,
        now: Now,
        shared: &Shared,
        window: &mut Window,
        out: &mut Vec<Command>,
    ) -> Duration {
        let link = self.link;
        // A heartbeat that is still under way carries the same samples: wait for its end.
        if self.sending.is_none() && !shared.heartbeat_busy {
            let room = window.room();
            let (from, records) = if !shared.refusals.probing() {
                (self.next.max(shared.queue.head), room.samples)
            } else if self.probe.is_none() {
                (shared.refusals.probe(shared.queue), room.samples.min(1))
            } else {
                (0, 0)
            };
            if records > 0 && from < shared.queue.next {
                let end = shared.queue.next;
                self.sending = Some(Sending { end, told: false, called_back: false });
                out.push(Command::Send { link, from, records, bytes: room.bytes });
            }
        }
        let mut ping = if self.sending.is_some() { None } else { window.ping_due(now.mono) };
        if ping.is_none() && self.keepalive.ping_due(now.mono) {
            ping = Some(window.ping(now.mono));
        }
        if let Some(payload) = ping {
            self.keepalive.pinged(now.mono);
            out.push(Command::Ping { link, payload });
        }
        let look = self.keepalive.next_deadline();
        // While samples are being written, their end is an event: no need to look before.
        let due = window.next_deadline().filter(|at| self.sending.is_none() || *at > now.mono);
        due.map_or(look, |at| at.min(look))
    }
}
