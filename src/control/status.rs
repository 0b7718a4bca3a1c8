//! What `status` tells: one value, made by the daemon and read by the command.
//!
//! Its JSON is part of the interface: members are added, never renamed or removed. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harborforge_storage::{Gap, GapReason, LastSuccess, Overview, Stamp, Stats};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::bridge::Place;
use crate::config::{Config, Credential};
use crate::figures::{Course, Latency, Process, Reading};
use crate::health::{self, Health, LinkState, Standing};
use crate::sample::{Envelope, splice};
use crate::sender::driver::ConfirmedBy;
use crate::sender::machine::Transport;
use crate::store::View;

/// The whole.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Whether a daemon answered.
    pub running: bool,
    /// Its process.
    pub pid: Option<u32>,
    /// Its version.
    pub version: String,
    /// When it started, RFC 3339.
    pub started_at: Option<String>,
    /// This server's name at the Monitor.
    pub identifier: String,
    /// The Monitor.
    pub backend_url: Option<String>,
    /// The link; `None` when no daemon runs.
    pub link: Option<Link>,
    /// The queue; `None` while it is not open.
    pub queue: Option<Queue>,
    /// The last sample that was confirmed.
    pub last_success: Option<Success>,
    /// How much the Monitor's clock is ahead of ours, where it is known.
    pub clock_skew_ms: Option<i64>,
    /// What the Monitor thinks of the credentials.
    #[serde(default)]
    pub challenge: Option<Challenge>,
    /// Where queue and state are.
    #[serde(default)]
    pub data_dir: Option<String>,
    /// OpenClaw, as the newest sample has it.
    pub openclaw: OpenClaw,
    /// Counted since the start.
    pub figures: Option<Figures>,
    /// The course of the newest samples.
    #[serde(default)]
    pub course: Course,
    /// The bridge; `None` when it is off or no daemon runs.
    #[serde(default)]
    pub bridge: Option<Bridge>,
    /// What the daemon takes.
    #[serde(default)]
    pub process: Option<Process>,
}

/// The credentials and their standing at the Monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// `challenge` or `api_key`.
    pub kind: String,
    /// `untried`, `accepted`, `heartbeats_only` or `refused`.
    pub condition: Standing,
}

impl Challenge {
    /// Of the credential in force; `None` when there is none.
    #[must_use]
    pub fn of(config: &Config, health: &Health) -> Option<Self> {
        let kind = match config.credential.as_ref()? {
            Credential::Challenge(_) => "challenge",
            Credential::ApiKey(_) => "api_key",
        };
        Some(Self { kind: kind.to_owned(), condition: health.standing() })
    }
}

/// The link.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Link {
    /// Where it stands.
    pub state: LinkState,
    /// `websocket`, `http`, or `None` while nothing arrives.
    pub transport: Option<String>,
    /// Since when it stands there.
    pub since: String,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<String>,
    /// When the next try is due.
    pub next_attempt_at: Option<String>,
    /// Three samples in a row were refused, so the newest is tried until one is accepted.
    pub probing: bool,
}

/// The queue.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Queue {
    /// Samples waiting to be delivered.
    pub pending: u64,
    /// Samples in memory, since the disk takes none.
    pub in_memory: u64,
    /// Samples lost because the disk took none and memory was full.
    pub dropped: u64,
    /// Bytes of what waits.
    pub pending_bytes: u64,
    /// What the queue takes on disk.
    pub disk_bytes: u64,
    /// When the oldest that waits was taken.
    pub oldest_at: Option<String>,
    /// How old it is, by the time since boot where that can be told.
    #[serde(default)]
    pub oldest_age_seconds: Option<u64>,
    /// The next sample's number.
    pub next_seq: u64,
    /// Delivered samples that are kept.
    pub sent: u64,
    /// Rejected samples that are kept.
    pub rejected: u64,
    /// Numbers that will not be delivered.
    pub gaps: Vec<GapLine>,
    /// Broken generations that are kept.
    pub quarantined: u64,
}

/// A gap.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GapLine {
    /// First number.
    pub from: u64,
    /// Last number.
    pub to: u64,
    /// Why.
    pub reason: GapReason,
    /// Whether they may have arrived all the same.
    pub maybe_delivered: bool,
    /// When it was recorded.
    pub at: String,
    /// Whether the Monitor has been told.
    pub announced: bool,
}

/// A confirmed sample.
#[derive(Debug, Serialize, Deserialize)]
pub struct Success {
    /// When it was confirmed.
    pub at: String,
    /// Over what.
    pub transport: String,
    /// Its number.
    pub seq: u64,
    /// The telemetry object as it was sent.
    pub payload: Box<RawValue>,
}

/// OpenClaw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenClaw {
    /// Its version; `None` when it is not there.
    pub version: Option<String>,
    /// How many agents it has.
    pub agents: u64,
    /// Why it cannot be read as a whole, each with its path.
    #[serde(default)]
    pub troubles: Vec<String>,
    /// Home directories that are closed to the daemon's user, while no state directory is seen.
    #[serde(default)]
    pub closed_homes: u64,
}

/// The bridge for plugins (docs/PROTOCOL.md 9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// `bridge_listen`.
    pub configured: String,
    /// The address it listens on; `None` while it does not.
    pub listening: Option<String>,
    /// Why it does not.
    pub last_error: Option<String>,
    /// When that is tried again.
    pub next_attempt_at: Option<String>,
}

impl Bridge {
    /// As the bridge tells it.
    #[must_use]
    pub fn of(place: &Place) -> Self {
        let Place { configured, listening, last_error, next_attempt_at } = place;
        Self {
            configured: configured.to_string(),
            listening: listening.map(|address| address.to_string()),
            last_error: last_error.clone(),
            next_attempt_at: next_attempt_at.map(rfc3339),
        }
    }
}

/// Counted since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Samples appended.
    pub appended: u64,
    /// Samples confirmed over the WebSocket.
    pub delivered_websocket: u64,
    /// Samples confirmed by heartbeat.
    pub delivered_http: u64,
    /// Samples rejected.
    pub rejected: u64,
    /// Samples given up, because the queue was full or they were too old.
    pub given_up: u64,
    /// Samples that could not be read back.
    pub corrupt: u64,
    /// WebSockets the Monitor accepted.
    pub links: u64,
    /// Tries that failed.
    pub failures: u64,
    /// Handshakes and heartbeats that were not accepted.
    pub refusals: u64,
    /// Samples accepted again on request (`replay`); not among the delivered.
    #[serde(default)]
    pub replayed: u64,
    /// Samples the Monitor said it has already; among the delivered.
    #[serde(default)]
    pub duplicates: u64,
    /// WebSockets accepted after the first.
    #[serde(default)]
    pub reconnects: u64,
    /// WebSocket handshakes that were not accepted; among the refusals.
    #[serde(default)]
    pub handshake_refusals: u64,
    /// How long appends took until they were on disk, by call.
    #[serde(default)]
    pub append: Latency,
    /// From a sample's append to its confirmation.
    #[serde(default)]
    pub confirm: Latency,
}

/// A wall-clock time in milliseconds, as RFC 3339 in UTC with seconds.
#[must_use]
pub fn time(wall_ms: u64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_millis(wall_ms.min(253_402_300_799_000)))
}

fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let bounded = UNIX_EPOCH + since.min(Duration::from_secs(253_402_300_799));
    humantime::format_rfc3339_seconds(bounded).to_string()
}

impl Link {
    /// The link as the sender sees it.
    #[must_use]
    pub fn of(health: &Health) -> Self {
        let health::Link { state, transport, since, last_error, next_attempt_at } = health.link();
        let (last_error_at, last_error) =
            last_error.map_or((None, None), |(at, said)| (Some(rfc3339(at)), Some(said)));
        let transport = transport.map(|transport| match transport {
            Transport::Http => "http".to_owned(),
            Transport::Websocket => "websocket".to_owned(),
        });
        Self {
            state,
            transport,
            since: rfc3339(since),
            last_error,
            last_error_at,
            next_attempt_at: next_attempt_at.map(rfc3339),
            probing: health.probing(),
        }
    }
}

impl Queue {
    /// The queue's own figures, and what waits in memory before it.
    #[must_use]
    pub fn of(stats: &Stats, gaps: &[Gap], view: View, now: &Stamp) -> Self {
        Self {
            pending: stats.pending.records,
            in_memory: view.in_memory as u64,
            dropped: view.dropped,
            pending_bytes: stats.pending.bytes,
            disk_bytes: stats.disk_bytes,
            oldest_at: stats.oldest_pending.map(|stamp| time(stamp.wall_ms)),
            oldest_age_seconds: stats.oldest_pending.map(|stamp| stamp.age_at(now).as_secs()),
            next_seq: stats.next_seq,
            sent: stats.sent.records,
            rejected: stats.rejected.records,
            gaps: gaps.iter().map(GapLine::of).collect(),
            quarantined: stats.quarantined.records,
        }
    }

    /// The figures of a queue no daemon has open.
    #[must_use]
    pub fn at_rest(overview: &Overview, gaps: &[Gap], now: &Stamp) -> Self {
        Self {
            pending: overview.pending.records,
            in_memory: 0,
            dropped: 0,
            pending_bytes: overview.pending.bytes,
            disk_bytes: overview.disk_bytes,
            oldest_at: overview.oldest_pending.map(|stamp| time(stamp.wall_ms)),
            oldest_age_seconds: overview.oldest_pending.map(|stamp| stamp.age_at(now).as_secs()),
            next_seq: overview.next_seq,
            sent: overview.sent.records,
            rejected: overview.rejected,
            gaps: gaps.iter().map(GapLine::of).collect(),
            quarantined: overview.quarantined,
        }
    }
}

impl GapLine {
    fn of(gap: &Gap) -> Self {
        let Gap { from, to, reason, maybe_delivered, wall_ms, announced } = *gap;
        Self { from, to, reason, maybe_delivered, at: time(wall_ms), announced }
    }
}

impl Success {
    /// The last confirmed record under the identifier of this moment; `None` if what is stored is
    /// no sample.
    #[must_use]
    pub fn of(success: &LastSuccess, identifier: &str) -> Option<Self> {
        let record = &success.record;
        let epoch = record.epoch.to_string();
        let envelope = Envelope {
            identifier,
            seq: record.seq,
            epoch: &epoch,
            replayed: false,
            gaps: &[],
            encrypted_payload: None,
        };
        let payload = splice(&record.payload, &envelope).ok()?;
        let transport = match success.at.tag {
            tag if tag == ConfirmedBy::Websocket as u8 => "websocket",
            tag if tag == ConfirmedBy::Http as u8 => "http",
            _ => "unknown",
        };
        Some(Self {
            at: time(success.at.wall_ms),
            transport: transport.to_owned(),
            seq: record.seq,
            payload: RawValue::from_string(String::from_utf8(payload).ok()?).ok()?,
        })
    }
}

impl Figures {
    /// The queue's counters, the sender's, and what was measured, together.
    #[must_use]
    pub fn of(stats: &Stats, health: &Health, measured: &Reading) -> Self {
        let (queue, link) = (stats.counters, health.counts());
        Self {
            appended: queue.appended,
            delivered_websocket: link.delivered_websocket,
            delivered_http: link.delivered_http,
            rejected: queue.rejected,
            given_up: queue.given_up,
            corrupt: queue.corrupt,
            links: link.links,
            failures: link.failures,
            refusals: link.refusals,
            replayed: link.replayed,
            duplicates: measured.duplicates,
            reconnects: link.links.saturating_sub(1),
            handshake_refusals: link.handshake_refusals,
            append: measured.append.clone(),
            confirm: measured.confirm.clone(),
        }
    }
}
