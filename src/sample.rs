//! The telemetry object (docs/PROTOCOL.md 6): what one sample says, how it is stored and how it is
//! sent.
//!
//! Invariants:
//! - A stored sample is one JSON object without `identifier`, `seq`, `sample_id`, `replayed` and
//!   `gaps`: those are known only when it is sent, and are put in front of the stored bytes by
//!   [`splice`], which copies and never re-encodes.
//! - An encoded sample, envelope included, is at most [`MAX_ENCODED`] bytes; agents that do not
//!   fit are left out and counted in `agents_truncated`.
//! - A figure that could not be read is `null`, never 0.

use std::io::Write as _;

use serde::{Deserialize, Serialize};

/// Bytes an encoded sample may have at most, envelope included (docs/PROTOCOL.md 6).
pub const MAX_ENCODED: usize = 64 * 1024;

/// Bytes of [`MAX_ENCODED`] kept for what [`splice`] puts in: identifier, proof and gaps.
pub const ENVELOPE_ROOM: usize = 8 * 1024;

/// Version of this connector, as it stands in samples and in the user agent.
pub const CONNECTOR_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What an agent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentStatus {
    /// One of its sessions has an active run.
    Running,
    /// The gateway lives and none of its sessions has an active run.
    Idle,
    /// The gateway is not running.
    Stopped,
    /// The gateway is coming up.
    Starting,
    /// Its state could not be read.
    Unknown,
}

/// One OpenClaw agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Lower-case id, unique in its OpenClaw.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// What it is doing.
    pub status: AgentStatus,
}

/// One sample as it is stored. Percentages are 0-100 with one decimal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// OpenClaw's version; `None` when it is not there.
    pub openclaw_version: Option<String>,
    /// CPU use of all cores over the interval since the sample before.
    pub cpu_pct: Option<f64>,
    /// Memory in use, as `free` counts it.
    pub mem_pct: Option<f64>,
    /// `df`'s figure for the configured file system.
    pub disk_pct: Option<f64>,
    /// Swap in use; 0 on a host that has none.
    pub swap_pct: Option<f64>,
    /// Seconds since boot.
    pub uptime_seconds: Option<u64>,
    /// Load averages over 1, 5 and 15 minutes.
    pub load_avg: Option<[f64; 3]>,
    /// OpenClaw's agents.
    pub agents: Vec<Agent>,
    /// When the sample was taken: RFC 3339, UTC, whole seconds.
    pub last_seen_at: String,
    /// Version of the connector that took it.
    pub connector_version: String,
    /// How many agents were left out to keep within [`MAX_ENCODED`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents_truncated: Option<u64>,
    /// Version of the OpenClaw plugin that reported through the bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin_version: Option<String>,
    /// Whether nginx is installed; only with `report_nginx`.
    /// `Some(None)` when it cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub nginx_installed: Option<Option<bool>>,
    /// Names in nginx's sites-enabled; only with `report_nginx`. `Some(None)` when they cannot be
    /// read.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub nginx_sites: Option<Option<Vec<String>>>,
}

/// A member that is there, if only as `null`: one that is not asked for is not there.
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl Sample {
    /// Encodes the sample for the queue: one JSON object of at most [`MAX_ENCODED`] less
    /// [`ENVELOPE_ROOM`] bytes. Surplus agents, and after them site names, are left out; the
    /// agents left out are counted.
    ///
    /// # Errors
    /// Only when what remains without agents and sites is still too large or cannot be
    /// represented, which no reader of ours produces.
    pub fn encode(mut self) -> Result<Vec<u8>, serde_json::Error> {
        const LIMIT: usize = MAX_ENCODED - ENVELOPE_ROOM;
        let mut left_out = self.agents_truncated.unwrap_or(0);
        loop {
            let bytes = serde_json::to_vec(&self)?;
            if bytes.len() <= LIMIT {
                return Ok(bytes);
            }
            let agents = self.agents.len();
            if agents > 0 {
                // Proportional, so that a roster of any length converges in a few rounds.
                let keep = (agents * LIMIT / bytes.len()).min(agents - 1);
                self.agents.truncate(keep);
                left_out += (agents - keep) as u64;
                self.agents_truncated = Some(left_out);
            } else if self.nginx_sites.take().is_none() {
                return Err(serde::ser::Error::custom(format!(
                    "a sample without agents takes {} bytes, {LIMIT} are allowed",
                    bytes.len()
                )));
            }
        }
    }
}

/// Rounds a percentage to one decimal and keeps it within 0-100; what is not finite is `None`.
#[must_use]
pub fn percent(value: f64) -> Option<f64> {
    value.is_finite().then(|| (value.clamp(0.0, 100.0) * 10.0).round() / 10.0)
}

/// Why samples were given up (docs/PROTOCOL.md 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The queue was full.
    QueueFull,
    /// The samples were older than `queue_max_age`.
    Expired,
    /// The samples could not be read back.
    Corrupt,
}

/// A run of sequence numbers that will never be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First number of the run.
    pub from: u64,
    /// Last number of the run.
    pub to: u64,
    /// Why it was given up.
    pub reason: GapReason,
    /// Whether some of it was in flight when it was given up.
    #[serde(default)]
    pub maybe_delivered: bool,
}

/// What is put in front of a stored sample when it is sent.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// The server's name at the Monitor, as of now.
    pub identifier: &'a str,
    /// The sample's number in its queue.
    pub seq: u64,
    /// The queue's epoch the sample was appended in, as a hyphenated UUID.
    pub epoch: &'a str,
    /// Sent again on request.
    pub replayed: bool,
    /// Gaps to announce; empty when there are none.
    pub gaps: &'a [Gap],
    /// The proof of a heartbeat in mode `challenge`.
    pub encrypted_payload: Option<&'a str>,
}

/// Puts the envelope into a stored sample: the result is the telemetry object as it is sent.
///
/// # Errors
/// When the stored bytes are not a JSON object by their first and last byte, or the identifier
/// cannot be encoded. The stored sample is not parsed.
pub fn splice(stored: &[u8], envelope: &Envelope<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::new();
    splice_into(&mut out, stored, envelope)?;
    Ok(out)
}

/// [`splice`] at the end of a message that has been begun, so that its bytes are copied once.
///
/// # Errors
/// As [`splice`]; `out` is then of no use.
pub fn splice_into(
    out: &mut Vec<u8>,
    stored: &[u8],
    envelope: &Envelope<'_>,
) -> Result<(), serde_json::Error> {
    /// Bytes of an envelope with everything but gaps and proof, for an identifier of usual length.
    const USUAL: usize = 192;
    let body = body_of(stored)?;
    out.reserve(USUAL + envelope.encrypted_payload.map_or(0, str::len) + body.len());
    out.extend_from_slice(b"{\"identifier\":");
    serde_json::to_writer(&mut *out, envelope.identifier)?;
    let (seq, epoch) = (envelope.seq, envelope.epoch);
    // Writing to a vector cannot fail; the result is dropped on purpose.
    let _ = write!(out, r#","seq":{seq},"sample_id":"{epoch}-{seq}""#);
    if let Some(proof) = envelope.encrypted_payload {
        out.extend_from_slice(b",\"encrypted_payload\":");
        serde_json::to_writer(&mut *out, proof)?;
    }
    if envelope.replayed {
        out.extend_from_slice(b",\"replayed\":true");
    }
    if !envelope.gaps.is_empty() {
        out.extend_from_slice(b",\"gaps\":");
        serde_json::to_writer(&mut *out, envelope.gaps)?;
    }
    if body != b"}" {
        out.push(b',');
    }
    out.extend_from_slice(body);
    Ok(())
}

/// The telemetry object of a stored sample without what is known only when it is sent: the
/// identifier is put in, numbers and proof are not.
///
/// # Errors
/// As [`splice`].
pub fn with_identifier(stored: &[u8], identifier: &str) -> Result<Vec<u8>, serde_json::Error> {
    let body = body_of(stored)?;
    let mut out = b"{\"identifier\":".to_vec();
    serde_json::to_writer(&mut out, identifier)?;
    if body != b"}" {
        out.push(b',');
    }
    out.extend_from_slice(body);
    Ok(out)
}

/// What follows the brace that opens a stored sample.
fn body_of(stored: &[u8]) -> Result<&[u8], serde_json::Error> {
    stored
        .strip_prefix(b"{")
        .filter(|body| body.ends_with(b"}"))
        .ok_or_else(|| serde::de::Error::custom("a stored sample is not a JSON object"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn sample() -> Sample {
        Sample {
            openclaw_version: Some("2026.3.13".into()),
            cpu_pct: Some(12.5),
            mem_pct: Some(41.2),
            disk_pct: Some(62.0),
            swap_pct: Some(0.0),
            uptime_seconds: Some(12345),
            load_avg: Some([0.12, 0.09, 0.03]),
            agents: vec![Agent {
                id: "a1".into(),
                name: "agent".into(),
                status: AgentStatus::Running,
            }],
            last_seen_at: "2026-03-11T21:00:00Z".into(),
            connector_version: "0.1.0".into(),
            agents_truncated: None,
            plugin_version: None,
            nginx_installed: None,
            nginx_sites: None,
        }
    }

    fn envelope() -> Envelope<'static> {
        Envelope {
            identifier: "vps.t1",
            seq: 42,
            epoch: "0198f0c2-0000-4000-8000-000000000000",
            replayed: false,
            gaps: &[],
            encrypted_payload: None,
        }
    }

    #[test]
    fn a_spliced_sample_is_the_telemetry_object_of_the_protocol() {
        let stored = sample().encode().unwrap();
        let sent: Value = serde_json::from_slice(&splice(&stored, &envelope()).unwrap()).unwrap();
        assert_eq!(
            sent,
            json!({
                "identifier": "vps.t1", "openclaw_version": "2026.3.13",
                "cpu_pct": 12.5, "mem_pct": 41.2, "disk_pct": 62.0, "swap_pct": 0.0,
                "uptime_seconds": 12345, "load_avg": [0.12, 0.09, 0.03],
                "agents": [{"id": "a1", "name": "agent", "status": "running"}],
                "last_seen_at": "2026-03-11T21:00:00Z", "connector_version": "0.1.0",
                "sample_id": "0198f0c2-0000-4000-8000-000000000000-42", "seq": 42
            })
        );
    }

    #[test]
    fn what_is_only_known_when_sent_is_put_in_and_escaped() {
        let gaps =
            [Gap { from: 812, to: 901, reason: GapReason::QueueFull, maybe_delivered: false }];
        let sent = splice(
            b"{}",
            &Envelope {
                identifier: "a\"b\\\u{1}",
                replayed: true,
                gaps: &gaps,
                encrypted_payload: Some("cHJvb2Y="),
                ..envelope()
            },
        )
        .unwrap();
        let sent: Value = serde_json::from_slice(&sent).unwrap();
        assert_eq!(sent["identifier"], "a\"b\\\u{1}");
        assert_eq!(sent["replayed"], true);
        assert_eq!(sent["encrypted_payload"], "cHJvb2Y=");
        assert_eq!(
            sent["gaps"],
            json!([{"from": 812, "to": 901, "reason": "queue_full", "maybe_delivered": false}])
        );
    }

    #[test]
    fn a_sample_that_is_not_sent_has_no_number() {
        let shown = with_identifier(&sample().encode().unwrap(), "a\"b").unwrap();
        let shown: Value = serde_json::from_slice(&shown).unwrap();
        assert_eq!((&shown["identifier"], &shown["cpu_pct"]), (&json!("a\"b"), &json!(12.5)));
        assert!(shown.get("seq").is_none() && shown.get("sample_id").is_none());
        assert_eq!(with_identifier(b"{}", "a").unwrap(), b"{\"identifier\":\"a\"}");
    }

    #[test]
    fn bytes_that_are_no_object_are_refused() {
        for stored in [&b""[..], b"{", b"}", b"[1]", b"{\"a\":1", b"null"] {
            assert!(with_identifier(stored, "a").is_err(), "{stored:?}");
            assert!(splice(stored, &envelope()).is_err(), "{stored:?}");
        }
    }

    #[test]
    fn surplus_agents_are_left_out_and_counted() {
        let mut big = sample();
        let name = "n".repeat(200);
        big.agents = (0..5000)
            .map(|i| Agent {
                id: format!("agent-{i}"),
                name: name.clone(),
                status: AgentStatus::Idle,
            })
            .collect();
        let stored = big.encode().unwrap();
        assert!(stored.len() <= MAX_ENCODED - ENVELOPE_ROOM);
        let kept: Sample = serde_json::from_slice(&stored).unwrap();
        assert_eq!(kept.agents.len() as u64 + kept.agents_truncated.unwrap(), 5000);
        // Most of the room is used: truncation does not throw the roster away.
        assert!(stored.len() > (MAX_ENCODED - ENVELOPE_ROOM) / 2);
    }

    #[test]
    fn unreadable_figures_are_null_and_never_zero() {
        let mut s = sample();
        s.cpu_pct = percent(f64::NAN);
        s.load_avg = None;
        let v: Value = serde_json::from_slice(&s.encode().unwrap()).unwrap();
        assert!(v["cpu_pct"].is_null() && v["load_avg"].is_null());
    }

    #[test]
    fn percentages_have_one_decimal_and_stay_in_range() {
        assert_eq!(percent(12.345), Some(12.3));
        assert_eq!(percent(100.7), Some(100.0));
        assert_eq!(percent(-0.2), Some(0.0));
        assert_eq!(percent(f64::INFINITY), None);
    }
}
