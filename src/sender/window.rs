//! What is on its way over one WebSocket link, and what of it is confirmed (docs/PROTOCOL.md 4).
//!
//! Pure: numbers, sizes and times go in; nothing here knows bytes, sockets or a clock. One
//! structure serves both ways of confirmation: acknowledgements by number ([`Mode::Ack`]), and
//! the Ping barrier for a Monitor without them ([`Mode::Ping`]).
//!
//! A sample goes through these states:
//!
//! ```text
//! sent ──▶ in flight ──ack──────────────────────────────────▶ confirmed   (Mode::Ack)
//! sent ──▶ in flight ──Pong──▶ read ──Pong to a later Ping──▶ confirmed   (Mode::Ping)
//! ```
//!
//! Invariants:
//! - Confirmed is only what was sent on this link, each sample once, in ascending order, without
//!   skipping one that is unconfirmed.
//! - In [`Mode::Ping`] nothing is confirmed before a Pong to a Ping that was sent
//!   [`BARRIER_DELAY`] or more after the Pong that showed it was read.
//! - An acknowledgement beyond what was sent confirms nothing; late and doubled ones do no harm.
//! - [`Window::room`] never lets more be in flight than the current limit: [`Limits::FULL`] when
//!   all is well, halved for each trouble, never below one sample.
//! - Memory is bounded by what is in flight, plus an entry for each barrier of the last
//!   [`BARRIER_DELAY`].
//! - Whatever is unconfirmed is waited for no longer than [`CONFIRMATION_DEADLINE`] without a
//!   confirmation; [`Window::next_deadline`] tells when something is due.
//!
//! Samples are sent in parts of a quarter of the window, each closed by a Ping in [`Mode::Ping`]:
//! so the next part is on its way before the last is answered, in either mode.

use std::collections::VecDeque;
use std::time::Duration;

use crate::protocol::{BARRIER_DELAY, CONFIRMATION_DEADLINE, WINDOW_SAMPLES};

mod limits;
mod verdict;

pub use limits::Limits;
pub use verdict::{AckBeyond, Confirmed, Refusal};

/// Pings that only wait for the time to pass are at least this far apart.
const PING_SPACING: Duration = Duration::from_secs(1);

/// How the Monitor at the other end confirms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It has capability `ack`.
    Ack,
    /// It has not: Pings and Pongs tell.
    Ping,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    seq: u64,
    bytes: usize,
    /// Its place among all that was sent on this link; differs from the number, since a sample
    /// may be sent again.
    place: u64,
}

/// Samples that a Pong has shown to be read.
#[derive(Debug, Clone, Copy)]
struct Read {
    first: u64,
    last: u64,
    samples: usize,
    bytes: usize,
    at: Duration,
}

/// A Ping that has not been answered.
#[derive(Debug, Clone, Copy)]
struct Ping {
    number: u64,
    at: Duration,
    /// Everything sent in places below this comes before it.
    covers: u64,
}

/// After an `"ok":false`: further ones may still come for the samples that were called back, so
/// nothing is sent until the Monitor must have dealt with those.
#[derive(Debug, Clone, Copy)]
enum Settling {
    /// Until a Pong to a Ping of at least this number shows that they were read.
    Unread { from_ping: u64 },
    /// Until a Pong to a Ping sent [`BARRIER_DELAY`] or more after this.
    ReadAt(Duration),
}

/// What is on its way. See the module's invariants.
///
/// It outlives links, since its limit does: [`open`](Self::open) and [`close`](Self::close) mark
/// their ends.
#[derive(Debug, Clone)]
pub struct Window {
    mode: Mode,
    limit: Limits,
    /// Confirmed since the limit last changed.
    progress: Limits,
    in_flight: VecDeque<Sent>,
    in_flight_sum: Limits,
    read: VecDeque<Read>,
    read_sum: Limits,
    /// What is read counts as in flight too: a refused sample is being looked for.
    searching: bool,
    settling: Option<Settling>,
    pings: VecDeque<Ping>,
    next_ping: u64,
    last_ping: Option<Duration>,
    next_place: u64,
    /// Places below this have a Ping behind them.
    covered: u64,
    last_sent: Option<u64>,
    /// Since when a confirmation is waited for: the last one, or the first sample after none was.
    waiting_since: Option<Duration>,
    last_confirmation: Option<Duration>,
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

impl Window {
    /// A window without a link, with the full limit.
    #[must_use]
    pub fn new() -> Self {
        Self {
            mode: Mode::Ack,
            limit: Limits::FULL,
            progress: Limits::default(),
            in_flight: VecDeque::new(),
            in_flight_sum: Limits::default(),
            read: VecDeque::new(),
            read_sum: Limits::default(),
            searching: false,
            settling: None,
            pings: VecDeque::new(),
            next_ping: 1,
            last_ping: None,
            next_place: 0,
            covered: 0,
            last_sent: None,
            waiting_since: None,
            last_confirmation: None,
        }
    }

    /// A link was accepted; nothing has been sent on it.
    pub fn open(&mut self, mode: Mode) {
        self.close();
        self.mode = mode;
        self.last_confirmation = None;
    }

    /// The link is gone: what is unconfirmed stays so, and is to be sent again. Ask
    /// [`oldest_unconfirmed`](Self::oldest_unconfirmed) before; it is forgotten here.
    pub fn close(&mut self) {
        self.call_back();
        self.settling = None;
        self.searching = false;
        self.pings.clear();
        self.last_ping = None;
        self.last_sent = None;
        self.waiting_since = None;
    }

    /// The link is dropped for want of confirmations: [`close`](Self::close), and the next one
    /// has half the window.
    pub fn give_up(&mut self) {
        self.halve();
        self.close();
    }

    /// Another Monitor is to be used: what is known of the old one's pace is void.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// What may be in flight at most, as things stand.
    #[must_use]
    pub fn limit(&self) -> Limits {
        self.limit
    }

    /// Samples that were sent and, in [`Mode::Ping`], not yet shown to be read.
    #[must_use]
    pub fn in_flight(&self) -> Limits {
        self.in_flight_sum
    }

    /// Samples that were sent and are not confirmed.
    #[must_use]
    pub fn unconfirmed(&self) -> Limits {
        let mut sum = self.in_flight_sum;
        sum.add(self.read_sum.samples, self.read_sum.bytes);
        sum
    }

    /// What may be sent now: one part of the window, or nothing until a whole part is free, so
    /// that acknowledgements one by one do not turn into sends one by one. To be asked again
    /// after each [`sent`](Self::sent).
    #[must_use]
    pub fn room(&self) -> Limits {
        let taken = if self.searching { self.unconfirmed() } else { self.in_flight_sum };
        let part = self.limit.part();
        let free = self.limit.minus(taken);
        if self.settling.is_some() || free.samples < part.samples || free.bytes < part.bytes {
            return Limits::default();
        }
        part
    }

    /// Samples were handed to the link: numbers, ascending, and the bytes of their telemetry
    /// objects. A number that does not ascend is left out, since an acknowledgement could not
    /// tell it from the others.
    pub fn sent(&mut self, now: Duration, samples: &[(u64, usize)]) {
        for &(seq, bytes) in samples {
            if self.last_sent.is_some_and(|last| seq <= last) {
                continue;
            }
            self.last_sent = Some(seq);
            self.in_flight.push_back(Sent { seq, bytes, place: self.next_place });
            self.in_flight_sum.add(1, bytes);
            self.next_place += 1;
            self.waiting_since.get_or_insert(now);
        }
    }

    /// `{"event":"ack"}`: everything sent up to `seq` is stored. `None` when that is no news, and
    /// in [`Mode::Ping`], where it is an unknown event.
    ///
    /// # Errors
    /// [`AckBeyond`] when `seq` was not sent on this link. Nothing is confirmed then.
    pub fn acked(&mut self, now: Duration, seq: u64) -> Result<Option<Confirmed>, AckBeyond> {
        if self.mode == Mode::Ping {
            return Ok(None);
        }
        if seq > self.last_sent.unwrap_or(0) {
            return Err(AckBeyond { acked: seq, sent: self.last_sent });
        }
        let mut sum = Limits::default();
        let mut up_to = None;
        while let Some(sample) = self.in_flight.pop_front_if(|sample| sample.seq <= seq) {
            sum.add(1, sample.bytes);
            up_to = Some(sample.seq);
        }
        self.in_flight_sum = self.in_flight_sum.minus(sum);
        Ok(up_to.map(|up_to| self.confirmed(now, up_to, sum)))
    }

    /// `{"event":"reject"}`: whether the sample was on its way. It is no longer, and will not be
    /// confirmed; a number that is not on its way changes nothing.
    pub fn rejected(&mut self, seq: u64) -> bool {
        let Ok(index) = self.in_flight.binary_search_by_key(&seq, |sample| sample.seq) else {
            return false;
        };
        if let Some(sample) = self.in_flight.remove(index) {
            self.in_flight_sum =
                self.in_flight_sum.minus(Limits { samples: 1, bytes: sample.bytes });
        }
        self.stop_waiting_if_empty();
        true
    }

    /// `{"ok":false}` in [`Mode::Ping`]: something that was sent is refused, without a word on
    /// what. In [`Mode::Ack`] refusals have numbers, and this changes nothing.
    pub fn refused(&mut self, now: Duration) -> Refusal {
        let (Mode::Ping, None, Some(oldest)) =
            (self.mode, self.settling, self.oldest_unconfirmed())
        else {
            return Refusal::Stale;
        };
        let alone = self.limit.samples == 1 && self.unconfirmed().samples == 1;
        self.call_back();
        self.last_sent = None;
        self.halve();
        self.searching = true;
        self.settling = Some(Settling::Unread { from_ping: self.next_ping });
        // A Monitor that does not answer now either is waited for as long as for a confirmation.
        self.waiting_since = Some(now);
        if alone { Refusal::Sample(oldest) } else { Refusal::Halved { oldest } }
    }

    /// The payload of the Ping that is to be sent now, if one is: behind the samples just sent,
    /// or because the time has come to have samples confirmed that were read. To be asked after
    /// each [`sent`](Self::sent) and at each [`next_deadline`](Self::next_deadline).
    pub fn ping_due(&mut self, now: Duration) -> Option<[u8; 8]> {
        (self.ping_at()? <= now).then(|| self.ping(now))
    }

    /// The payload of a Ping that is sent now for other reasons; it counts like any other.
    pub fn ping(&mut self, now: Duration) -> [u8; 8] {
        let number = self.next_ping;
        self.next_ping += 1;
        if self.mode == Mode::Ping {
            self.pings.push_back(Ping { number, at: now, covers: self.next_place });
            self.covered = self.next_place;
            self.last_ping = Some(now);
        }
        number.to_be_bytes()
    }

    /// A Pong came; one that answers none of our Pings, or one answered before, changes nothing.
    /// It answers all earlier Pings too (RFC 6455 5.5.3).
    pub fn ponged(&mut self, now: Duration, payload: [u8; 8]) -> Option<Confirmed> {
        let number = u64::from_be_bytes(payload);
        let index = self.pings.binary_search_by_key(&number, |ping| ping.number).ok()?;
        let ping = self.pings.drain(..=index).next_back()?;
        self.settle(now, ping);
        let confirmed = self.confirm_read(now, ping.at);
        self.mark_read(now, ping.covers);
        self.stop_waiting_if_empty();
        confirmed
    }

    /// Whether a confirmation has been waited for too long: the link is to be dropped with
    /// [`give_up`](Self::give_up).
    #[must_use]
    pub fn expired(&self, now: Duration) -> bool {
        self.expires_at().is_some_and(|at| at <= now)
    }

    /// When [`ping_due`](Self::ping_due) or [`expired`](Self::expired) will have something to
    /// say; may lie in the past.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        [self.ping_at(), self.expires_at()].into_iter().flatten().min()
    }

    /// The lowest number that was sent on this link and is not confirmed.
    #[must_use]
    pub fn oldest_unconfirmed(&self) -> Option<u64> {
        let read = self.read.front().map(|read| read.first);
        read.or_else(|| self.in_flight.front().map(|sample| sample.seq))
    }

    /// When this link last confirmed something; kept until the next one opens.
    #[must_use]
    pub fn last_confirmation(&self) -> Option<Duration> {
        self.last_confirmation
    }

    fn expires_at(&self) -> Option<Duration> {
        self.waiting_since.map(|since| since.saturating_add(CONFIRMATION_DEADLINE))
    }

    /// When the next Ping is due; zero for at once.
    fn ping_at(&self) -> Option<Duration> {
        if self.mode == Mode::Ack {
            return None;
        }
        if self.covered < self.next_place {
            return Some(Duration::ZERO);
        }
        let read_at = match self.settling {
            // Asked at once, and not again: the Pong will come, or the link expires.
            Some(Settling::Unread { from_ping }) => {
                return (self.next_ping <= from_ping).then_some(Duration::ZERO);
            }
            Some(Settling::ReadAt(at)) => Some(at),
            None => None,
        };
        // The oldest that no Ping on its way would confirm.
        let waits = |at: Duration| self.last_ping.is_none_or(|ping| ping < at + BARRIER_DELAY);
        let from = self.read.partition_point(|read| !waits(read.at));
        let read_at =
            read_at.filter(|at| waits(*at)).or(self.read.get(from).map(|read| read.at))?;
        let spaced = self.last_ping.map_or(Duration::ZERO, |ping| ping + PING_SPACING);
        Some((read_at + BARRIER_DELAY).max(spaced))
    }

    /// The Monitor has read everything in places below `covers`.
    fn mark_read(&mut self, now: Duration, covers: u64) {
        let mut sum = Limits::default();
        let mut ends = None;
        while let Some(sample) = self.in_flight.pop_front_if(|sample| sample.place < covers) {
            sum.add(1, sample.bytes);
            ends = Some((ends.map_or(sample.seq, |(first, _)| first), sample.seq));
        }
        let Some((first, last)) = ends else { return };
        let Limits { samples, bytes } = sum;
        self.in_flight_sum = self.in_flight_sum.minus(sum);
        self.read_sum.add(samples, bytes);
        self.read.push_back(Read { first, last, samples, bytes, at: now });
    }

    /// Confirms what had been read long enough when a Ping was sent that is now answered.
    fn confirm_read(&mut self, now: Duration, ping_at: Duration) -> Option<Confirmed> {
        let mut sum = Limits::default();
        let mut up_to = None;
        while let Some(read) = self.read.pop_front_if(|read| read.at + BARRIER_DELAY <= ping_at) {
            sum.add(read.samples, read.bytes);
            up_to = Some(read.last);
        }
        self.read_sum = self.read_sum.minus(sum);
        up_to.map(|up_to| self.confirmed(now, up_to, sum))
    }

    fn settle(&mut self, now: Duration, ping: Ping) {
        self.settling = match self.settling {
            Some(Settling::Unread { from_ping }) if ping.number >= from_ping => {
                Some(Settling::ReadAt(now))
            }
            Some(Settling::ReadAt(at)) if at + BARRIER_DELAY <= ping.at => None,
            other @ (Some(_) | None) => other,
        };
    }

    fn confirmed(&mut self, now: Duration, up_to: u64, sum: Limits) -> Confirmed {
        self.last_confirmation = Some(now);
        self.waiting_since = self.waiting_since.map(|_| now);
        self.stop_waiting_if_empty();
        self.progress.add(sum.samples, sum.bytes);
        while self.limit.samples < WINDOW_SAMPLES
            && (self.progress.samples >= self.limit.samples
                || self.progress.bytes >= self.limit.bytes)
        {
            self.progress = self.progress.minus(self.limit);
            self.limit = Limits::of(self.limit.samples * 2);
        }
        if self.limit.samples == WINDOW_SAMPLES {
            self.progress = Limits::default();
            self.searching = false;
        }
        Confirmed { up_to, samples: sum.samples, bytes: sum.bytes }
    }

    fn stop_waiting_if_empty(&mut self) {
        if self.unconfirmed().samples == 0 && self.settling.is_none() {
            self.waiting_since = None;
        }
    }

    fn halve(&mut self) {
        self.limit = Limits::of(self.limit.samples / 2);
        self.progress = Limits::default();
    }

    /// Forgets what is unconfirmed. Places go on, so that no Ping sent before covers what is sent
    /// after.
    fn call_back(&mut self) {
        self.in_flight.clear();
        self.in_flight_sum = Limits::default();
        self.read.clear();
        self.read_sum = Limits::default();
        self.covered = self.next_place;
    }
}

#[cfg(test)]
mod tests;
