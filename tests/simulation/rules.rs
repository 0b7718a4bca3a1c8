//! The invariants, checked at every step against what the world knows, not against what the
//! machine believes. Numbers are the contract's (docs/PROTOCOL.md), with room where the world's
//! own timing is not the machine's.

use std::collections::BTreeSet;
use std::time::Duration;

use harborforge_connector::protocol::{Capabilities, RECONNECT_SPREAD, REFUSED_RETRY};
use harborforge_connector::sender::machine::{
    Attempt, Command, Event, FailureKind, Proof, Report, Settings, Transport, Transports,
};

use super::queue::Queue;
use super::summary::Summary;
use super::world::Checked;

/// For what the world does between a moment and the machine's hearing of it.
const SLACK: Duration = Duration::from_secs(1);
/// A try that was begun says how it ended within this: the deadlines of key and handshake.
const TRY_LASTS: Duration = Duration::from_secs(45);
/// Tries and failures in a minute; more where waits of a second are asked for.
const TRIES_A_MINUTE: u32 = 150;
const TRIES_A_MINUTE_AT_A_SECOND: u32 = 900;
/// A request for the key ends within this.
const KEY_LASTS: Duration = Duration::from_secs(16);
const TICKS_A_MINUTE: u32 = 600;

#[derive(Debug)]
pub struct Rules {
    settings: Settings,
    probing: bool,
    /// Samples moved to the rejected since the Monitor last accepted one.
    moved: u32,
    heartbeats: BTreeSet<Attempt>,
    /// When the WebSocket last confirmed.
    confirmed: Option<Duration>,
    /// Since when there is no link that confirms: at the earliest, at the latest.
    down: Option<(Duration, Duration)>,
    links_lost: u32,
    /// A handshake was refused, and nothing has changed since.
    refused: bool,
    refused_challenges: u32,
    refused_at: Duration,
    /// Something gives the WebSocket a try that the long road would not.
    excused: bool,
    fallback: bool,
    round: Option<Duration>,
    round_open: bool,
    /// A round may begin early.
    disturbed: bool,
    /// When a key was last asked for.
    fetched: Option<Duration>,
    offered: Option<Capabilities>,
    stopping: bool,
    strict_rounds: bool,
    link_due: Option<Duration>,
    heartbeat_due: Duration,
    heartbeat_rested: bool,
    reason_since: Option<Duration>,
    minute: u64,
    tries: u32,
    ticks: u32,
    late_wakes: u32,
    /// Highest number first stored at each Monitor.
    high: [u64; 2],
}

impl Rules {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            probing: false,
            moved: 0,
            heartbeats: BTreeSet::new(),
            confirmed: None,
            down: Some((Duration::ZERO, Duration::ZERO)),
            links_lost: 0,
            refused: false,
            refused_challenges: 0,
            refused_at: Duration::ZERO,
            excused: false,
            fallback: false,
            round: None,
            round_open: false,
            disturbed: true,
            fetched: None,
            offered: None,
            stopping: false,
            strict_rounds: true,
            link_due: None,
            heartbeat_due: Duration::ZERO,
            heartbeat_rested: true,
            reason_since: None,
            minute: 0,
            tries: 0,
            ticks: 0,
            late_wakes: 0,
            high: [0; 2],
        }
    }

    /// Another process, which knows nothing of the one before.
    pub fn restarted(&mut self, now: Duration, settings: Settings) {
        let strict_rounds = self.strict_rounds;
        *self = Self { high: self.high, strict_rounds, ..Self::new(settings) };
        self.down = Some((now, now));
        self.link_due = Some(now);
        self.heartbeat_due = now;
        self.minute = now.as_secs() / 60;
    }

    /// Where the driver sees changes of the queue late, rounds cannot be told apart exactly.
    pub fn lenient_rounds(&mut self) {
        self.strict_rounds = false;
    }

    /// Samples went without being sent: a round may have ended unseen.
    pub fn given_up(&mut self) {
        self.disturbed = true;
    }

    pub fn probing(&self) -> bool {
        self.probing
    }

    fn interval(&self) -> Duration {
        self.settings.report_interval
    }

    /// Before the machine hears of an event.
    pub fn event(&mut self, now: Duration, event: &Event) -> Checked {
        match event {
            Event::Tick => {
                self.counted(now);
                self.ticks += 1;
                if self.ticks > TICKS_A_MINUTE {
                    return Err(format!("{} wake-ups in a minute", self.ticks));
                }
            }
            Event::Answer { attempt, .. } => {
                self.heartbeats.remove(attempt);
            }
            Event::Settings(settings) => {
                let before = std::mem::replace(&mut self.settings, *settings);
                (self.tries, self.ticks) = (0, 0);
                self.reason_since = None;
                self.disturbed = true;
                if self.refused_challenges < 2 {
                    // A shorter cap holds at once.
                    let latest = now + settings.backoff_cap + TRY_LASTS;
                    self.link_due = self.link_due.map(|due| due.min(latest));
                }
                self.fallback &= settings.transports == Transports::Both;
                if before.transports == Transports::Http {
                    self.refused_challenges = 0;
                    // The WebSocket begins anew, whatever it was told before.
                    self.refused = false;
                    self.disturb(now);
                    self.link_due = Some(now + TRY_LASTS);
                }
            }
            Event::Credentials | Event::Endpoint { .. } => {
                self.probing = false;
                self.moved = 0;
                self.refused_challenges = 0;
                self.refused = false;
                if matches!(event, Event::Endpoint { .. }) {
                    self.links_lost = 0;
                    self.high = [0; 2];
                }
                self.disturb(now);
            }
            Event::TryNow => self.disturb(now),
            Event::Key { result: Ok(news), .. } => {
                let known = self.offered.replace(news.capabilities);
                if news.changed || known.is_some_and(|known| known != news.capabilities) {
                    self.excused = true;
                    self.refused_challenges = 0;
                }
            }
            Event::Shutdown => self.stopping = true,
            Event::Queue(_)
            | Event::Key { result: Err(_), .. }
            | Event::Handshake { .. }
            | Event::TokenSaved { .. }
            | Event::Link { .. } => {}
        }
        Ok(())
    }

    /// Waits are over; what was refused may be asked again.
    fn disturb(&mut self, now: Duration) {
        self.excused = true;
        self.disturbed = true;
        self.heartbeat_due = now;
        if self.link_due.is_some() {
            self.link_due = Some(now + TRY_LASTS);
        }
    }

    /// Over all the machine said at once.
    pub fn judge(&mut self, now: Duration, commands: &[Command]) -> Checked {
        let mut accepted = false;
        let mut moved = 0;
        for command in commands {
            match command {
                Command::Reject { .. } => moved += 1,
                Command::Report(Report::Delivered { .. }) => accepted = true,
                Command::FetchKey { .. } => {
                    if !self.settings.proved {
                        return Err("a key is fetched in mode api_key".into());
                    }
                    self.tried(now)?;
                    self.fetched = Some(now);
                    if self.link_due.is_some_and(|due| now + SLACK + TRY_LASTS >= due) {
                        self.link_due = Some(now + TRY_LASTS);
                    }
                }
                Command::Connect { .. } => {
                    if !self.settings.proved {
                        return Err("a WebSocket is opened in mode api_key".into());
                    }
                    self.link_due = None;
                }
                Command::Post { .. }
                | Command::SaveToken { .. }
                | Command::Hello { .. }
                | Command::Send { .. }
                | Command::Ping { .. }
                | Command::CloseLink { .. }
                | Command::Acknowledge { .. }
                | Command::WakeAt(_)
                | Command::Report(_)
                | Command::Finished => {}
            }
        }
        self.moved = if accepted { 0 } else { self.moved + moved };
        if self.moved > 2 {
            return Err("a third sample in a row is moved to the rejected".into());
        }
        Ok(())
    }

    fn counted(&mut self, now: Duration) {
        let minute = now.as_secs() / 60;
        if std::mem::replace(&mut self.minute, minute) != minute {
            (self.tries, self.ticks) = (0, 0);
        }
    }

    fn tried(&mut self, now: Duration) -> Checked {
        self.counted(now);
        self.tries += 1;
        let short = self.settings.backoff_cap.min(self.interval()) < Duration::from_secs(10);
        if self.tries > if short { TRIES_A_MINUTE_AT_A_SECOND } else { TRIES_A_MINUTE } {
            return Err(format!("{} tries for nothing in a minute", self.tries));
        }
        Ok(())
    }

    pub fn wakes(&mut self, now: Duration, at: Duration) -> Checked {
        self.late_wakes = if at <= now { self.late_wakes + 1 } else { 0 };
        if self.late_wakes > 3 {
            return Err("wake-ups in the past, again and again".into());
        }
        Ok(())
    }

    pub fn connects(&mut self, now: Duration, proof: Proof, held: bool) -> Checked {
        if self.stopping {
            return Err("a link is opened after the stop".into());
        }
        if held {
            return Err("a second link".into());
        }
        if self.settings.transports == Transports::Http {
            return Err("a WebSocket with transport = http".into());
        }
        if proof == Proof::Token {
            return Ok(());
        }
        let road = self.refused_at + REFUSED_RETRY;
        if self.refused_challenges >= 2 && !self.excused && now < road {
            return Err("a refused challenge is burnt again before its hour is over".into());
        }
        Ok(())
    }

    pub fn refused(&mut self, now: Duration, proof: Proof) {
        if proof == Proof::Challenge {
            self.refused_challenges += 1;
            // A try without an answer is none.
            self.excused = false;
            self.refused = true;
            self.refused_at = now;
        }
    }

    pub fn accepted(&mut self) {
        self.excused = true;
        self.disturbed = true;
    }

    /// The machine closes the link it held, or the attempt at one.
    pub fn link_gone(&mut self, now: Duration, accepted: bool) {
        self.link_due.get_or_insert(now + RECONNECT_SPREAD);
        if !accepted {
            return;
        }
        self.links_lost += 1;
        self.disturbed = true;
        if self.down.is_none() {
            // A link dropped for want of confirmations was down since the last one.
            let last = self.confirmed.filter(|last| now - *last >= Duration::from_secs(60));
            self.down = Some((last.unwrap_or(now), now));
        }
    }

    fn down_longer_than_two_intervals(&self, now: Duration) -> bool {
        self.down.is_some_and(|(earliest, _)| now > earliest + self.interval() * 2)
    }

    pub fn posts(
        &mut self,
        now: Duration,
        attempt: Attempt,
        accepted: bool,
        summary: &mut Summary,
    ) -> Checked {
        self.heartbeats.insert(attempt);
        if self.heartbeats.len() > 1 {
            return Err("a second heartbeat under way".into());
        }
        match self.settings.transports {
            Transports::Websocket => return Err("a heartbeat with transport = websocket".into()),
            Transports::Both if accepted => {
                return Err("a heartbeat while a WebSocket is accepted".into());
            }
            Transports::Both => {
                let forced = self.links_lost >= 3;
                let due = self.refused || self.down_longer_than_two_intervals(now);
                if !self.fallback && !forced {
                    return Err("a heartbeat without a fallback".into());
                }
                if !due && forced {
                    summary.forced += 1;
                }
                if self.fallback && !self.round_open {
                    let next = self
                        .round
                        .map_or(Duration::ZERO, |began| began + self.settings.fallback_interval);
                    if now < next && self.strict_rounds && !self.disturbed && !forced {
                        return Err("a round of heartbeats before its time".into());
                    }
                    // A round may begin with the key.
                    let key = self.fetched.filter(|at| *at + KEY_LASTS >= now);
                    // One that goes on where a link had interrupted it began who knows when.
                    self.round = (!self.disturbed).then_some(key.unwrap_or(now));
                    (self.round_open, self.disturbed) = (true, false);
                }
            }
            Transports::Http => {}
        }
        if std::mem::take(&mut self.heartbeat_rested) {
            summary.tries.push(now);
        }
        self.heartbeat_due = now;
        Ok(())
    }

    pub fn report(&mut self, now: Duration, report: &Report, summary: &mut Summary) -> Checked {
        match report {
            Report::Failed { transport, failure, retry_in } => {
                self.tried(now)?;
                let cap = self.settings.backoff_cap;
                let spread = RECONNECT_SPREAD.min(self.interval());
                let most = match (failure.kind, transport) {
                    (FailureKind::Busy, _) => cap + cap / 2,
                    (FailureKind::NotAccepted, Transport::Websocket)
                        if self.refused_challenges >= 2 =>
                    {
                        REFUSED_RETRY
                    }
                    (_, Transport::Websocket) => cap.max(spread),
                    (_, Transport::Http) => cap,
                };
                if *retry_in > most {
                    return Err(format!("{transport:?} waits {retry_in:?}, at most {most:?}"));
                }
                match transport {
                    Transport::Websocket => {
                        self.link_due = Some(now + *retry_in);
                    }
                    Transport::Http => {
                        self.heartbeat_due = now + *retry_in;
                        self.heartbeat_rested = true;
                    }
                }
            }
            Report::Delivered { transport: Transport::Websocket } => {
                self.confirmed = Some(now);
                self.down = None;
                self.links_lost = 0;
                self.refused = false;
                self.refused_challenges = 0;
            }
            Report::Delivered { transport: Transport::Http } => {}
            Report::Linked => {}
            Report::FallbackBegan => {
                summary.fallbacks += 1;
                if !self.refused && !self.down_longer_than_two_intervals(now) {
                    return Err("the fallback begins, and the WebSocket was not away".into());
                }
                (self.fallback, self.round, self.round_open) = (true, None, false);
            }
            Report::FallbackEnded => {
                if self.settings.transports == Transports::Both && self.down.is_some() {
                    return Err("the fallback ends, and nothing was confirmed".into());
                }
                self.fallback = false;
            }
            Report::Probing { .. } => {
                summary.probes += 1;
                self.probing = true;
            }
            Report::ProbeAccepted => self.probing = false,
            Report::BatchHalved { .. } => {}
        }
        Ok(())
    }

    /// After everything the machine said was carried out.
    pub fn settled(&mut self, now: Duration, queue: &Queue, accepted: bool) -> Checked {
        if queue.is_empty() && self.heartbeats.is_empty() {
            self.round_open = false;
        }
        if self.stopping {
            return Ok(());
        }
        let next = self.round.map_or(Duration::ZERO, |at| at + self.settings.fallback_interval);
        if self.fallback && !self.round_open && !accepted && !queue.is_empty() && now >= next {
            // It begins now, even if a wait keeps the first heartbeat back.
            (self.round, self.round_open) = (Some(now), true);
        }
        if self.fallback && self.down.is_none() {
            return Err("the WebSocket confirms, and the fallback goes on".into());
        }
        if self.settings.transports != Transports::Http
            && let Some(due) = self.link_due
            && now > due + SLACK
        {
            return Err("the WebSocket is not tried when its wait is over".into());
        }
        let both = self.settings.transports == Transports::Both;
        let away = self.down.is_some_and(|(_, latest)| now > latest + self.interval() * 2);
        let reason = match self.settings.transports {
            Transports::Http => true,
            Transports::Websocket => false,
            Transports::Both => !accepted && (away || self.refused),
        };
        if !reason || queue.is_empty() || !self.heartbeats.is_empty() {
            self.reason_since = None;
            return Ok(());
        }
        let since = *self.reason_since.get_or_insert(now);
        // The heartbeat's beginning is spread as the link's return is.
        let spread = RECONNECT_SPREAD.min(self.interval()) * 3 / 2;
        let pause = if both { self.settings.fallback_interval + spread } else { Duration::ZERO };
        // A key may have to be fetched before.
        if now > since.max(self.heartbeat_due) + pause + TRY_LASTS + self.settings.backoff_cap {
            return Err("samples wait for a heartbeat, and none is sent".into());
        }
        Ok(())
    }

    /// A Monitor sees a sample for the first time.
    pub fn first_stored(&mut self, monitor: usize, seq: u64, exempt: bool) -> Checked {
        let Some(high) = self.high.get_mut(monitor) else { return Ok(()) };
        if exempt {
            return Ok(());
        }
        if seq < *high {
            return Err(format!("{seq} is first delivered after {high}"));
        }
        *high = seq;
        Ok(())
    }
}
