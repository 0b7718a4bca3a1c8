//! How delivery is doing, as `status` tells it: what the sender reports, put together.
//!
//! Pure but for the lock around it. Invariants: it decides nothing, and nothing depends on it; a
//! report changes it by a handful of assignments, so telling costs the sender nothing; it holds
//! no secret, since reasons come from the log's own texts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::sender::machine::{Failure, FailureKind, Report, Transport, Transports};

/// Where the link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Delivering over the transport that is meant to.
    Online,
    /// Heartbeats stand in for the WebSocket, and arrive.
    Fallback,
    /// No try has ended yet, or a link was just lost.
    Connecting,
    /// Tries fail.
    Offline,
    /// The Monitor answers and does not accept the credentials.
    Refused,
}

/// The link as `status` shows it. Times are wall clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where it stands.
    pub state: LinkState,
    /// Over what samples go; `None` while nothing arrives.
    pub transport: Option<Transport>,
    /// Since when it stands there.
    pub since: SystemTime,
    /// What went wrong last, and when; kept after it was mended.
    pub last_error: Option<(SystemTime, String)>,
    /// When the next try is due, while one is waited for.
    pub next_attempt_at: Option<SystemTime>,
}

/// What has been counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples confirmed over the WebSocket.
    pub delivered_websocket: u64,
    /// Samples confirmed by heartbeat.
    pub delivered_http: u64,
    /// Links the Monitor accepted.
    pub links: u64,
    /// Tries that failed, by either transport.
    pub failures: u64,
    /// Handshakes and heartbeats the Monitor did not accept.
    pub refusals: u64,
    /// Of these, WebSocket handshakes.
    pub handshake_refusals: u64,
    /// Samples accepted again on request; not among those above.
    pub replayed: u64,
}

/// What the Monitor thinks of the credentials in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// They were not tried yet.
    Untried,
    /// They are accepted.
    Accepted,
    /// Heartbeats are accepted, the WebSocket is not: the challenge was used up, say.
    HeartbeatsOnly,
    /// They are refused.
    Refused,
}

#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    /// The last try arrived.
    works: bool,
    /// Failures since something arrived.
    failures: u32,
    refused: bool,
    /// The credentials were refused the last time they were judged at all.
    denied: bool,
    next: Option<SystemTime>,
}

#[derive(Debug)]
struct Inner {
    transports: Transports,
    fallback: bool,
    probing: bool,
    websocket: Lane,
    http: Lane,
    /// The credentials were accepted, by either transport.
    accepted: bool,
    state: LinkState,
    since: SystemTime,
    last_error: Option<(SystemTime, String)>,
    counts: Counts,
    skew_ms: Option<i64>,
}

/// A handle to it; clones share it.
#[derive(Debug, Clone)]
pub struct Health(Arc<Mutex<Inner>>);

impl Health {
    /// Nothing has been tried yet.
    #[must_use]
    pub fn new(now: SystemTime, transports: Transports) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            transports,
            fallback: false,
            probing: false,
            websocket: Lane::default(),
            http: Lane::default(),
            accepted: false,
            state: LinkState::Connecting,
            since: now,
            last_error: None,
            counts: Counts::default(),
            skew_ms: None,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves it as it was: at worst a figure is old.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other credentials or another Monitor are used from now on.
    pub fn start_over(&self, now: SystemTime, transports: Transports) {
        let mut inner = self.inner();
        inner.transports = transports;
        inner.websocket = Lane::default();
        inner.http = Lane::default();
        inner.accepted = false;
        inner.judge(now);
    }

    /// Other transports are used from now on.
    pub fn transports(&self, transports: Transports) {
        self.inner().transports = transports;
    }

    /// What the machine reports.
    pub fn report(&self, now: SystemTime, report: &Report) {
        let mut inner = self.inner();
        match report {
            Report::Delivered { transport } => {
                inner.accepted = true;
                *inner.lane(*transport) = Lane::working();
            }
            Report::Linked => {
                inner.accepted = true;
                inner.counts.links += 1;
                inner.websocket = Lane::working();
            }
            Report::FallbackBegan => inner.fallback = true,
            Report::FallbackEnded => inner.fallback = false,
            Report::Failed { transport, failure, retry_in } => {
                inner.failed(now, *transport, failure, *retry_in);
            }
            Report::Probing { .. } => inner.probing = true,
            Report::ProbeAccepted => inner.probing = false,
            Report::BatchHalved { .. } => {}
        }
        inner.judge(now);
    }

    /// So many samples were confirmed.
    pub fn delivered(&self, transport: Transport, samples: u64) {
        let counts = &mut self.inner().counts;
        match transport {
            Transport::Http => counts.delivered_http += samples,
            Transport::Websocket => counts.delivered_websocket += samples,
        }
    }

    /// So many samples were accepted that were sent again on request.
    pub fn replayed(&self, samples: u64) {
        self.inner().counts.replayed += samples;
    }

    /// The Monitor's clock is so much ahead of ours.
    pub fn skew(&self, millis: i64) {
        self.inner().skew_ms = Some(millis);
    }

    /// The skew last measured, in milliseconds.
    #[must_use]
    pub fn skew_ms(&self) -> Option<i64> {
        self.inner().skew_ms
    }

    /// Whether three samples in a row were refused and the newest is being tried.
    #[must_use]
    pub fn probing(&self) -> bool {
        self.inner().probing
    }

    /// What the Monitor thinks of the credentials. A failure that says nothing about them leaves
    /// it as it was.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let inner = self.inner();
        match (inner.websocket.denied, inner.http.denied) {
            (true, false) if inner.http.works => Standing::HeartbeatsOnly,
            (true, _) | (_, true) => Standing::Refused,
            (false, false) if inner.accepted => Standing::Accepted,
            (false, false) => Standing::Untried,
        }
    }

    /// What has been counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner().counts
    }

    /// The link.
    #[must_use]
    pub fn link(&self) -> Link {
        let inner = self.inner();
        let transport = match inner.state {
            LinkState::Fallback => Some(Transport::Http),
            LinkState::Online if inner.transports == Transports::Http => Some(Transport::Http),
            LinkState::Online => Some(Transport::Websocket),
            LinkState::Connecting | LinkState::Offline | LinkState::Refused => None,
        };
        let next = match inner.transports {
            Transports::Http => inner.http.next,
            Transports::Websocket => inner.websocket.next,
            Transports::Both if inner.fallback => earliest(inner.http.next, inner.websocket.next),
            Transports::Both => inner.websocket.next,
        };
        Link {
            state: inner.state,
            transport,
            since: inner.since,
            last_error: inner.last_error.clone(),
            next_attempt_at: next,
        }
    }
}

impl Lane {
    fn working() -> Self {
        Self { works: true, ..Self::default() }
    }

    fn state(self) -> LinkState {
        match self {
            Self { works: true, .. } => LinkState::Online,
            Self { refused: true, .. } => LinkState::Refused,
            Self { failures: 0 | 1, .. } => LinkState::Connecting,
            Self { .. } => LinkState::Offline,
        }
    }
}

impl Inner {
    fn lane(&mut self, transport: Transport) -> &mut Lane {
        match transport {
            Transport::Http => &mut self.http,
            Transport::Websocket => &mut self.websocket,
        }
    }

    fn failed(&mut self, now: SystemTime, transport: Transport, failure: &Failure, wait: Duration) {
        let refused = failure.kind == FailureKind::NotAccepted;
        self.counts.failures += 1;
        self.counts.refusals += u64::from(refused);
        let handshake = refused && transport == Transport::Websocket;
        self.counts.handshake_refusals += u64::from(handshake);
        self.last_error = Some((now, failure.reason.clone()));
        let lane = self.lane(transport);
        lane.works = false;
        lane.failures = lane.failures.saturating_add(1);
        lane.refused = refused;
        lane.denied |= refused;
        lane.next = now.checked_add(wait);
    }

    fn judge(&mut self, now: SystemTime) {
        let state = match self.transports {
            Transports::Http => self.http.state(),
            Transports::Websocket => self.websocket.state(),
            Transports::Both => match (self.websocket.state(), self.http.state()) {
                (LinkState::Online, _) => LinkState::Online,
                (_, LinkState::Online) if self.fallback => LinkState::Fallback,
                (LinkState::Refused, _) | (_, LinkState::Refused) => LinkState::Refused,
                (websocket, _) => websocket,
            },
        };
        if std::mem::replace(&mut self.state, state) != state {
            self.since = now;
        }
    }
}

fn earliest(one: Option<SystemTime>, other: Option<SystemTime>) -> Option<SystemTime> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn failed(transport: Transport, kind: FailureKind) -> Report {
        let failure = Failure { kind, reason: format!("{kind:?}") };
        Report::Failed { transport, failure, retry_in: Duration::from_secs(7) }
    }

    #[test]
    fn an_outage_a_fallback_and_the_return() {
        use FailureKind::Unreachable;
        use LinkState::*;
        use Transport::{Http, Websocket};
        let health = Health::new(at(0), Transports::Both);
        assert_eq!(health.link().state, Connecting);
        let steps = [
            (Report::Linked, Online, Some(Websocket)),
            (Report::Delivered { transport: Websocket }, Online, Some(Websocket)),
            (failed(Websocket, Unreachable), Connecting, None),
            (failed(Websocket, Unreachable), Offline, None),
            (Report::FallbackBegan, Offline, None),
            (Report::Delivered { transport: Http }, Fallback, Some(Http)),
            (failed(Websocket, Unreachable), Fallback, Some(Http)),
            (failed(Http, Unreachable), Offline, None),
            (Report::Delivered { transport: Http }, Fallback, Some(Http)),
            (Report::Linked, Online, Some(Websocket)),
            (Report::FallbackEnded, Online, Some(Websocket)),
        ];
        let mut since = at(0);
        let mut before = Connecting;
        for (step, (report, state, transport)) in steps.into_iter().enumerate() {
            let now = at(10 * (step as u64 + 1));
            health.report(now, &report);
            if state != before {
                (since, before) = (now, state);
            }
            let link = health.link();
            assert_eq!((link.state, link.transport, link.since), (state, transport, since));
        }
        assert_eq!(health.link().last_error, Some((at(80), "Unreachable".to_owned())));
        assert_eq!(health.counts(), Counts { links: 2, failures: 4, ..Counts::default() });
    }

    #[test]
    fn a_refusal_is_told_apart_and_new_credentials_start_over() {
        let health = Health::new(at(0), Transports::Http);
        health.report(at(5), &failed(Transport::Http, FailureKind::NotAccepted));
        let link = health.link();
        assert_eq!((link.state, link.since), (LinkState::Refused, at(5)));
        assert_eq!(link.next_attempt_at, Some(at(12)));
        health.start_over(at(6), Transports::Http);
        let link = health.link();
        assert_eq!((link.state, link.next_attempt_at), (LinkState::Connecting, None));
        health.report(at(7), &Report::Delivered { transport: Transport::Http });
        assert_eq!(health.link().transport, Some(Transport::Http));
    }
}
