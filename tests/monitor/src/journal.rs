//! What has happened: accepted samples, counts and the requests seen. Pure.
//!
//! Invariants:
//! - A sample id is recorded once; later arrivals are counted as duplicates, for ever.
//! - Memory is bounded: of payloads and of requests only the newest `keep` stay, ids stay as
//!   ranges, counts are numbers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use crate::error::Reason;
use crate::fault::Route;
use crate::ids::{Ids, SampleId};
use crate::telemetry::Telemetry;
use crate::time::rfc3339;

/// The way a sample came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// `server.metrics` over the WebSocket.
    WebSocket,
    /// A heartbeat of its own.
    Heartbeat,
    /// A heartbeat with several samples.
    Batch,
}

/// An accepted sample.
#[derive(Debug, Clone, Serialize)]
pub struct Accepted {
    /// The server it speaks of.
    pub identifier: String,
    /// Its number.
    pub seq: u64,
    /// Its id, `<epoch>-<seq>`.
    pub sample_id: String,
    /// The way it came first.
    pub transport: Transport,
    /// How often it has arrived, the first time included.
    pub arrivals: u64,
    /// When it came first, by the Monitor's clock.
    #[serde(serialize_with = "as_rfc3339")]
    pub received_at: SystemTime,
    /// The telemetry object as it came first, without the proof.
    pub telemetry: Value,
}

fn as_rfc3339<S: serde::Serializer>(time: &SystemTime, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&rfc3339(*time))
}

/// A request as it was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    /// What was asked for.
    pub route: Route,
    /// When, by the Monitor's clock.
    #[serde(serialize_with = "as_rfc3339")]
    pub at: SystemTime,
    /// `User-Agent`, if there was one.
    pub user_agent: Option<String>,
}

/// Figures since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub open: u64,
    /// Requests whose head was read, upgrades included.
    pub requests: u64,
    /// Requests for the key document.
    pub key_fetches: u64,
    /// Heartbeats, single and batch.
    pub heartbeats: u64,
    /// WebSocket upgrades asked for.
    pub upgrades: u64,
    /// WebSocket handshakes accepted.
    pub links: u64,
    /// `server.hello` events.
    pub hellos: u64,
    /// `agent.status_changed` events.
    pub agent_changes: u64,
    /// Samples recorded, each counted once.
    pub unique: u64,
    /// Arrivals of samples that were recorded before, those sent again on request apart.
    pub duplicates: u64,
    /// Arrivals marked `replayed`.
    pub replayed: u64,
    /// First arrivals with a number below one recorded before for the same server.
    pub out_of_order: u64,
    /// Faults played.
    pub faults: u64,
    /// Things refused, by reason.
    pub refused: BTreeMap<Reason, u64>,
}

impl Counts {
    /// How often something was refused for this reason.
    #[must_use]
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused.get(&reason).copied().unwrap_or(0)
    }
}

#[derive(Debug)]
struct Kept {
    identifier: String,
    id: SampleId,
    transport: Transport,
    arrivals: u64,
    received_at: SystemTime,
    payload: Box<str>,
}

impl Kept {
    fn accepted(&self) -> Accepted {
        let mut telemetry: Value = serde_json::from_str(&self.payload).unwrap_or(Value::Null);
        if let Some(object) = telemetry.as_object_mut() {
            object.remove("encrypted_payload");
        }
        Accepted {
            identifier: self.identifier.clone(),
            seq: self.id.seq,
            sample_id: self.id.to_string(),
            transport: self.transport,
            arrivals: self.arrivals,
            received_at: self.received_at,
            telemetry,
        }
    }
}

/// The record of a Monitor's life.
#[derive(Debug)]
pub struct Journal {
    keep: usize,
    counts: Counts,
    ids: Ids,
    kept: VecDeque<Kept>,
    /// Where in the row of all kept samples an id stands, those let go counted in.
    places: HashMap<SampleId, u64>,
    let_go: u64,
    highest: HashMap<String, u64>,
    seen: VecDeque<Seen>,
}

impl Journal {
    /// An empty journal that keeps the newest `keep` payloads and requests.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Self {
            keep,
            counts: Counts::default(),
            ids: Ids::default(),
            kept: VecDeque::new(),
            places: HashMap::new(),
            let_go: 0,
            highest: HashMap::new(),
            seen: VecDeque::new(),
        }
    }

    /// The counts.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn counts_mut(&mut self) -> &mut Counts {
        &mut self.counts
    }

    /// The newest accepted samples, in the order of their first arrival.
    #[must_use]
    pub fn accepted(&self) -> Vec<Accepted> {
        self.kept.iter().map(Kept::accepted).collect()
    }

    /// The newest accepted sample.
    #[must_use]
    pub fn newest(&self) -> Option<Accepted> {
        self.kept.back().map(Kept::accepted)
    }

    /// The newest `number` accepted samples, fewer when fewer are kept.
    pub(crate) fn last(&self, number: u64) -> Vec<Accepted> {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let skip = self.kept.len().saturating_sub(number);
        self.kept.iter().skip(skip).map(Kept::accepted).collect()
    }

    /// Whether a sample with this number was ever accepted.
    #[must_use]
    pub fn has_seq(&self, seq: u64) -> bool {
        self.ids.contains_seq(seq)
    }

    /// The newest requests, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.iter().cloned().collect()
    }

    /// Notes a request.
    pub(crate) fn saw(&mut self, seen: Seen) {
        self.counts.requests += 1;
        match seen.route {
            Route::Key => self.counts.key_fetches += 1,
            Route::Heartbeat => self.counts.heartbeats += 1,
            Route::WebSocket => self.counts.upgrades += 1,
            Route::Other => {}
        }
        self.seen.push_back(seen);
        while self.seen.len() > self.keep {
            self.seen.pop_front();
        }
    }

    /// Notes a refusal.
    pub(crate) fn refused(&mut self, reason: Reason) {
        *self.counts.refused.entry(reason).or_default() += 1;
    }

    /// Records a sample; `false` when it is a duplicate.
    pub(crate) fn record(
        &mut self,
        telemetry: &Telemetry,
        payload: &str,
        transport: Transport,
        now: SystemTime,
    ) -> bool {
        if telemetry.replayed {
            self.counts.replayed += 1;
        }
        if !self.ids.insert(telemetry.id) {
            if !telemetry.replayed {
                self.counts.duplicates += 1;
            }
            let place = self.places.get(&telemetry.id).map(|place| place - self.let_go);
            let kept = place.and_then(|place| self.kept.get_mut(usize::try_from(place).ok()?));
            if let Some(kept) = kept {
                kept.arrivals += 1;
            }
            return false;
        }
        self.counts.unique += 1;
        let highest = self.highest.entry(telemetry.identifier.clone()).or_default();
        if telemetry.id.seq < *highest && !telemetry.replayed {
            self.counts.out_of_order += 1;
        }
        *highest = telemetry.id.seq.max(*highest);
        self.places.insert(telemetry.id, self.let_go + self.kept.len() as u64);
        self.kept.push_back(Kept {
            identifier: telemetry.identifier.clone(),
            id: telemetry.id,
            transport,
            arrivals: 1,
            received_at: now,
            payload: payload.into(),
        });
        while self.kept.len() > self.keep {
            if let Some(gone) = self.kept.pop_front() {
                self.places.remove(&gone.id);
                self.let_go += 1;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use uuid::Uuid;

    use super::*;

    fn arrive(journal: &mut Journal, seq: u64, replayed: bool) -> bool {
        let id = SampleId { epoch: Uuid::from_u128(1), seq };
        let telemetry = Telemetry { identifier: "a".into(), id, replayed };
        let payload = format!(r#"{{"seq":{seq},"encrypted_payload":"secret"}}"#);
        journal.record(&telemetry, &payload, Transport::Heartbeat, UNIX_EPOCH)
    }

    #[test]
    fn a_sample_counts_once_and_its_arrivals_are_told() {
        let mut journal = Journal::new(10);
        assert!(arrive(&mut journal, 1, false));
        assert!(arrive(&mut journal, 2, false));
        assert!(!arrive(&mut journal, 1, false));
        assert!(!arrive(&mut journal, 1, true));
        assert_eq!((journal.counts().unique, journal.counts().duplicates), (2, 1));
        assert_eq!(journal.counts().replayed, 1);
        let accepted = journal.accepted();
        assert_eq!(accepted.iter().map(|one| one.arrivals).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(accepted[0].telemetry, serde_json::json!({"seq": 1}));
    }

    #[test]
    fn order_is_judged_by_first_arrivals() {
        let mut journal = Journal::new(10);
        for seq in [1, 3, 2, 3, 4] {
            arrive(&mut journal, seq, false);
        }
        assert_eq!(journal.counts().out_of_order, 1);
    }

    #[test]
    fn payloads_are_let_go_and_ids_are_not() {
        let mut journal = Journal::new(2);
        for seq in 1..=5 {
            arrive(&mut journal, seq, false);
        }
        let seqs: Vec<u64> = journal.accepted().iter().map(|one| one.seq).collect();
        assert_eq!(seqs, [4, 5]);
        assert!(!arrive(&mut journal, 1, false), "an old id is still known");
        assert!(!arrive(&mut journal, 5, false));
        assert_eq!(journal.newest().unwrap().arrivals, 2);
        assert_eq!(journal.places.len(), 2);
        assert!(journal.has_seq(1) && !journal.has_seq(6));
    }
}
