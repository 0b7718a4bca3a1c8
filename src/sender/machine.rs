//! The link machine: decides what is tried next, and what an answer does to the queue.
//!
//! Pure: [`Machine::handle`] takes the time, one event and a seed and returns commands. It reads
//! no clock, opens no socket and draws no randomness, so tests walk it through years of bad
//! network in virtual time. It knows numbers and sizes of samples, never their bytes.
//!
//! Invariants:
//! - [`Command::Acknowledge`] is given only for what a Monitor said is stored, and never beyond
//!   the last sample that was sent.
//! - A sample leaves the pending queue otherwise only through [`Command::Reject`], after the
//!   tries docs/PROTOCOL.md 5 asks for, and never when three in a row were refused: then the
//!   fault is not theirs.
//! - At most one heartbeat and one link are under way; what belongs to another attempt than the
//!   current one is ignored.
//! - Every failure is followed by a wait: no answer, however hostile, makes a busy loop. The one
//!   exception is a refused batch, which is halved at once, and so at most nine times.
//! - What the queue gives up while it is under way is neither waited for nor sent again; an answer
//!   about it that comes late moves nothing.
//! - Samples go oldest first; only a probe (three refused in a row) sends the newest.
//! - Heartbeats and an accepted link never send at the same time, so the order holds over both.
//!
//! Source of the rules: docs/PROTOCOL.md 2 to 5, 7 and 8.

mod heartbeat;
mod held;
mod refusals;
#[cfg(test)]
mod tests;
mod types;
mod websocket;

use std::time::Duration;

use self::heartbeat::Heartbeat;
use self::refusals::Refusals;
pub use self::types::{
    Answered, Attempt, Command, Event, Failure, FailureKind, Handshake, KeyNews, LinkEvent, Now,
    Proof, QueueView, Report, Selection, Settings, Transport, Transports,
};
use self::websocket::Websocket;
use crate::protocol::{Capabilities, RECONNECT_SPREAD};

/// What both transports work with.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    queue: QueueView,
    attempts: Attempt,
    capabilities: Option<Capabilities>,
    /// Whether a resume token is there.
    token: bool,
    refusals: Refusals,
    /// A sample three links died with: it goes by heartbeat.
    forced: Option<u64>,
    /// A heartbeat, or the key for one, is under way.
    heartbeat_busy: bool,
}

impl Shared {
    fn attempt(&mut self) -> Attempt {
        self.attempts += 1;
        self.attempts
    }

    fn proof(&self, challenge: bool) -> Proof {
        if self.token && !challenge { Proof::Token } else { Proof::Challenge }
    }

    /// Samples up to and including `up_to` are stored at the Monitor.
    fn confirmed(&mut self, up_to: u64, transport: Transport, out: &mut Vec<Command>) {
        self.moved(up_to);
        out.push(Command::Acknowledge { up_to, transport });
    }

    /// Samples up to and including `seq` need not be sent any more.
    fn moved(&mut self, seq: u64) {
        self.queue.head = self.queue.head.max(seq + 1);
        self.forced = self.forced.filter(|forced| *forced > seq);
    }

    /// The queue has changed. What it has given up meanwhile is in no plan any more.
    fn see(&mut self, queue: QueueView) {
        self.queue = queue;
        self.forced = self.forced.filter(|forced| *forced >= queue.head);
    }

    /// A sample is to be put aside, unless the queue has given it up meanwhile.
    fn reject(&self, seq: u64, reason: String, out: &mut Vec<Command>) {
        if seq >= self.queue.head {
            out.push(Command::Reject { seq, reason });
        }
    }

    /// The Monitor takes samples; tells whether that ends a probe.
    fn accepted(&mut self, transport: Transport, out: &mut Vec<Command>) -> bool {
        let probe = self.refusals.accepted();
        if probe {
            out.push(Command::Report(Report::ProbeAccepted));
        }
        out.push(Command::Report(Report::Delivered { transport }));
        probe
    }
}

/// The machine. See the module's invariants.
#[derive(Debug)]
pub struct Machine {
    shared: Shared,
    heartbeat: Heartbeat,
    websocket: Websocket,
    fallback: Option<Fallback>,
    stopping: bool,
}

/// Heartbeats stand in for the WebSocket: in rounds, each of which sends all that is pending.
#[derive(Debug)]
struct Fallback {
    /// The current round began then; `None` between rounds.
    round: Option<Duration>,
    /// The next round begins then.
    next: Duration,
}

impl Machine {
    /// A machine that has seen nothing yet, at the monotonic time zero. `token`: a resume token
    /// is there from an earlier run.
    #[must_use]
    pub fn new(settings: Settings, token: bool) -> Self {
        let shared = Shared {
            settings,
            queue: QueueView { head: 0, next: 0 },
            attempts: 0,
            capabilities: None,
            token,
            refusals: Refusals::default(),
            forced: None,
            heartbeat_busy: false,
        };
        Self {
            shared,
            heartbeat: Heartbeat::new(settings.backoff_cap),
            websocket: Websocket::new(settings.backoff_cap),
            fallback: None,
            stopping: false,
        }
    }

    /// Takes one event and tells what to do about it. `seed` is uniform in 64 bits and fresh for
    /// every call.
    pub fn handle(&mut self, now: Now, event: Event, seed: u64) -> Vec<Command> {
        let mut out = Vec::new();
        match event {
            Event::Tick => {}
            Event::Queue(view) => self.shared.see(view),
            Event::Key { attempt, result } => self.key(now, attempt, &result, seed, &mut out),
            Event::Answer { attempt, result } => {
                self.heartbeat.answer(now, &mut self.shared, attempt, result, seed, &mut out);
            }
            Event::Handshake { link, result } => {
                self.websocket.handshake(now, link, result, seed, &mut out);
            }
            Event::TokenSaved { link, saved } => {
                if saved {
                    self.shared.token = true;
                    self.heartbeat.new_token();
                }
                self.websocket.token_saved(now, link, saved, seed, &mut out);
            }
            Event::Link { link, event } => {
                self.websocket.event(now, &mut self.shared, link, event, seed, &mut out);
            }
            Event::Settings(settings) => self.settings(now, settings, &mut out),
            Event::Credentials => self.start_over(now, &mut out),
            Event::Endpoint { token } => {
                self.shared.capabilities = None;
                self.shared.token = token;
                self.heartbeat.forget_key();
                self.websocket.forget();
                self.start_over(now, &mut out);
            }
            Event::TryNow => {
                self.heartbeat.try_now(now);
                self.websocket.try_now(now);
                if let Some(fallback) = &mut self.fallback {
                    fallback.next = now.mono;
                }
            }
            Event::Shutdown => self.stopping = true,
        }
        self.advance(now, seed, &mut out);
        out
    }

    fn key(
        &mut self,
        now: Now,
        attempt: Attempt,
        result: &Result<KeyNews, Failure>,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        let ours = self.heartbeat.key(now, attempt, result, seed, out)
            || self.websocket.key(now, &self.shared, attempt, result, seed, out);
        if let (true, Ok(news)) = (ours, result) {
            let known = self.shared.capabilities.replace(news.capabilities);
            if news.changed || known.is_some_and(|known| known != news.capabilities) {
                self.websocket.key_changed(now);
            }
        }
    }

    fn settings(&mut self, now: Now, settings: Settings, out: &mut Vec<Command>) {
        self.heartbeat.set_cap(now, settings.backoff_cap);
        self.websocket.set_cap(now, settings.backoff_cap);
        if settings.transports == Transports::Http {
            self.websocket.start_over(now, out);
        }
        if settings.transports != Transports::Both {
            // Heartbeats stand in for nothing any more: they are all there is, or not wanted.
            self.fallback = None;
        }
        if let Some(fallback) = &mut self.fallback {
            // A shorter pause holds for the one that is under way.
            fallback.next = fallback.next.min(now.mono + settings.fallback_interval);
        }
        self.shared.settings = settings;
    }

    fn start_over(&mut self, now: Now, out: &mut Vec<Command>) {
        self.shared.refusals = Refusals::default();
        self.shared.forced = None;
        self.heartbeat.start_over(now);
        self.websocket.start_over(now, out);
        if let Some(fallback) = &mut self.fallback {
            fallback.next = now.mono;
        }
    }

    /// Starts what is due, or asks to be woken when it will be.
    fn advance(&mut self, now: Now, seed: u64, out: &mut Vec<Command>) {
        if self.stopping {
            let finished = self.websocket.finish(now, out);
            if finished && !self.heartbeat.busy() {
                out.push(Command::Finished);
            } else if let Some(at) = self.websocket.deadline() {
                out.push(Command::WakeAt(at));
            }
            return;
        }
        self.shared.heartbeat_busy = self.heartbeat.busy();
        let mut wake = None;
        if self.shared.settings.transports != Transports::Http {
            let at = self.websocket.advance(now, &mut self.shared, seed, out);
            wake = earliest(wake, at);
        }
        let (may_send, at) = self.heartbeat_may_send(now, out);
        wake = earliest(wake, at);
        if may_send {
            let at = self.heartbeat.advance(now, &mut self.shared, out);
            wake = earliest(wake, at);
        }
        if let Some(at) = wake {
            out.push(Command::WakeAt(at));
        }
    }

    /// Whether heartbeats may go now, and when that has to be asked again.
    fn heartbeat_may_send(&mut self, now: Now, out: &mut Vec<Command>) -> (bool, Option<Duration>) {
        match self.shared.settings.transports {
            Transports::Http => return (true, None),
            Transports::Websocket => return (false, None),
            Transports::Both => {}
        }
        let interval = self.shared.settings.report_interval;
        let Some(from) = self.websocket.unavailable_from(interval) else {
            if self.fallback.take().is_some() {
                out.push(Command::Report(Report::FallbackEnded));
            }
            return (false, None);
        };
        if self.websocket.accepted() {
            // Paused; should the link be lost before it confirms, the heartbeat goes on at once.
            if let Some(fallback) = &mut self.fallback {
                fallback.next = now.mono;
            }
            return (false, None);
        }
        if now.mono < from && self.fallback.is_none() {
            return (self.shared.forced.is_some(), Some(from));
        }
        if self.fallback.is_none() {
            out.push(Command::Report(Report::FallbackBegan));
            self.heartbeat.stand_in(RECONNECT_SPREAD.min(interval));
        }
        let fallback = self.fallback.get_or_insert(Fallback { round: None, next: now.mono });
        let drained = self.shared.queue.head >= self.shared.queue.next && !self.heartbeat.busy();
        match fallback.round {
            Some(began) if drained => {
                fallback.round = None;
                fallback.next = began + self.shared.settings.fallback_interval;
            }
            Some(_) => return (true, None),
            None => {}
        }
        if now.mono < fallback.next {
            return (self.shared.forced.is_some(), Some(fallback.next));
        }
        if drained {
            // An empty round is no round: the next sample begins it.
            return (false, None);
        }
        fallback.round = Some(now.mono);
        (true, None)
    }
}

fn earliest(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
