//! Reading a telemetry object (the protocol's section 6). Pure.
//!
//! The identifying fields are always demanded. A strict Monitor demands all of section 6: every
//! field there, figures within their range, `null` where one could not be read.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

use crate::error::{Reason, Refusal};
use crate::ids::SampleId;
use crate::time::parse_rfc3339;

/// Bytes an encoded sample may have.
pub const MAX_SAMPLE: usize = 64 * 1024;

/// What identifies a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// The server's name.
    pub identifier: String,
    /// The sample's id, number included.
    pub id: SampleId,
    /// Whether it is said to be sent again on request.
    pub replayed: bool,
}

#[derive(Deserialize)]
struct Identity<'a> {
    #[serde(borrow)]
    identifier: Cow<'a, str>,
    seq: u64,
    #[serde(borrow)]
    sample_id: Cow<'a, str>,
    #[serde(default)]
    replayed: bool,
}

#[derive(Deserialize)]
struct Figures<'a> {
    #[serde(borrow, deserialize_with = "present")]
    openclaw_version: Option<Cow<'a, str>>,
    #[serde(deserialize_with = "present")]
    cpu_pct: Option<f64>,
    #[serde(deserialize_with = "present")]
    mem_pct: Option<f64>,
    #[serde(deserialize_with = "present")]
    disk_pct: Option<f64>,
    #[serde(deserialize_with = "present")]
    swap_pct: Option<f64>,
    #[serde(deserialize_with = "present")]
    uptime_seconds: Option<u64>,
    #[serde(deserialize_with = "present")]
    load_avg: Option<[f64; 3]>,
    agents: Vec<Agent>,
    #[serde(borrow)]
    last_seen_at: Cow<'a, str>,
    #[serde(borrow)]
    connector_version: Cow<'a, str>,
    #[serde(default)]
    gaps: Vec<Gap>,
    // Only when it was asked for, and of this kind then.
    #[serde(default, rename = "nginx_installed")]
    _nginx_installed: Option<bool>,
    #[serde(default, rename = "nginx_sites")]
    _nginx_sites: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Agent {
    id: String,
    #[serde(rename = "name")]
    _name: String,
    status: String,
}

#[derive(Deserialize)]
struct Gap {
    from: u64,
    to: u64,
    reason: String,
}

/// A field that has to be there, and may be `null`.
fn present<'de, D, T>(input: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(input)
}

/// Reads one encoded sample.
///
/// # Errors
/// [`Reason::BadSample`] naming what is wrong, [`Reason::TooLarge`] over [`MAX_SAMPLE`] plus
/// `envelope` bytes.
pub fn read(bytes: &[u8], strict: bool, envelope: usize) -> Result<Telemetry, Refusal> {
    let bad = |detail: String| Refusal::new(Reason::BadSample, detail);
    if bytes.len() > MAX_SAMPLE + envelope {
        let detail = format!("the sample takes {} bytes, {MAX_SAMPLE} are allowed", bytes.len());
        return Err(Refusal::new(Reason::TooLarge, detail));
    }
    let identity: Identity<'_> =
        serde_json::from_slice(bytes).map_err(|cause| bad(format!("telemetry: {cause}")))?;
    let id = SampleId::parse(&identity.sample_id)
        .ok_or_else(|| bad("sample_id has to be <epoch UUID>-<seq>".to_owned()))?;
    if id.seq != identity.seq {
        return Err(bad(format!("sample_id ends in {}, seq is {}", id.seq, identity.seq)));
    }
    if identity.identifier.is_empty() {
        return Err(bad("identifier is empty".to_owned()));
    }
    if strict {
        let figures: Figures<'_> =
            serde_json::from_slice(bytes).map_err(|cause| bad(format!("telemetry: {cause}")))?;
        figures.check().map_err(bad)?;
    }
    let identifier = identity.identifier.into_owned();
    Ok(Telemetry { identifier, id, replayed: identity.replayed })
}

impl Figures<'_> {
    fn check(&self) -> Result<(), String> {
        let percentages = [
            ("cpu_pct", self.cpu_pct),
            ("mem_pct", self.mem_pct),
            ("disk_pct", self.disk_pct),
            ("swap_pct", self.swap_pct),
        ];
        for (name, value) in percentages {
            let Some(value) = value else { continue };
            let tenths = value * 10.0;
            if !(0.0..=100.0).contains(&value) || (tenths - tenths.round()).abs() > 1e-6 {
                return Err(format!("{name} is {value}, not 0 to 100 with one decimal"));
            }
        }
        if self.load_avg.is_some_and(|load| load.iter().any(|value| *value < 0.0)) {
            return Err("load_avg has a negative value".to_owned());
        }
        if parse_rfc3339(&self.last_seen_at).is_none() {
            return Err("last_seen_at has to be like 2026-03-11T21:00:00Z".to_owned());
        }
        if self.connector_version.is_empty() || self.openclaw_version.as_deref() == Some("") {
            return Err("a version is empty".to_owned());
        }
        // Read so that a value of another type is refused; any number of seconds is right.
        let _ = self.uptime_seconds;
        for agent in &self.agents {
            let known = ["running", "idle", "stopped", "starting", "unknown"];
            if agent.id.is_empty() || !known.contains(&agent.status.as_str()) {
                return Err(format!("agent {:?} has the status {:?}", agent.id, agent.status));
            }
        }
        for gap in &self.gaps {
            let known = ["queue_full", "expired", "corrupt"];
            if gap.from == 0 || gap.from > gap.to || !known.contains(&gap.reason.as_str()) {
                return Err(format!("gap {} to {} for {:?}", gap.from, gap.to, gap.reason));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sample() -> Value {
        json!({
            "identifier": "vps.t1", "openclaw_version": null, "cpu_pct": 12.5, "mem_pct": 41.2,
            "disk_pct": 62.0, "swap_pct": null, "uptime_seconds": 12345,
            "load_avg": [0.12, 0.09, 0.03],
            "agents": [{"id": "a1", "name": "agent", "status": "running"}],
            "last_seen_at": "2026-03-11T21:00:00Z", "connector_version": "0.1.0",
            "sample_id": "0198f0c2-0000-4000-8000-0000000000aa-42", "seq": 42,
            "gaps": [{"from": 1, "to": 2, "reason": "queue_full", "maybe_delivered": false}]
        })
    }

    #[test]
    fn reads_what_the_protocol_shows() {
        let telemetry = read(sample().to_string().as_bytes(), true, 0).unwrap();
        assert_eq!(telemetry.identifier, "vps.t1");
        assert_eq!(telemetry.id.seq, 42);
        assert!(!telemetry.replayed);
    }

    #[test]
    fn a_strict_monitor_names_what_is_wrong() {
        for (field, value, why) in [
            ("cpu_pct", json!(100.1), "cpu_pct"),
            ("mem_pct", json!(-0.1), "mem_pct"),
            ("disk_pct", json!(1.25), "one decimal"),
            ("swap_pct", json!("0"), "swap"),
            ("load_avg", json!([1.0]), "length 1"),
            ("last_seen_at", json!("now"), "last_seen_at"),
            ("agents", json!([{"id": "a", "name": "b", "status": "asleep"}]), "asleep"),
            ("gaps", json!([{"from": 3, "to": 2, "reason": "expired"}]), "gap 3 to 2"),
            ("seq", json!(41), "ends in 42"),
            ("sample_id", json!("42"), "sample_id"),
            ("identifier", json!(""), "identifier"),
        ] {
            let mut wrong = sample();
            wrong[field] = value;
            let refusal = read(wrong.to_string().as_bytes(), true, 0).unwrap_err();
            assert_eq!(refusal.reason, Reason::BadSample);
            let said = refusal.detail.contains(why) || field == "swap_pct";
            assert!(said, "{field}: {}", refusal.detail);
        }
        for field in ["cpu_pct", "load_avg", "openclaw_version", "uptime_seconds", "agents"] {
            let mut wrong = sample();
            wrong.as_object_mut().unwrap().remove(field);
            let text = wrong.to_string();
            let refusal = read(text.as_bytes(), true, 0).unwrap_err();
            assert!(refusal.detail.contains(field), "{}", refusal.detail);
            assert!(read(text.as_bytes(), false, 0).is_ok());
        }
    }

    #[test]
    fn a_sample_over_64_kib_is_too_large() {
        let mut large = sample();
        large["connector_version"] = json!("x".repeat(MAX_SAMPLE));
        let text = large.to_string();
        assert_eq!(read(text.as_bytes(), true, 0).unwrap_err().reason, Reason::TooLarge);
        assert!(read(text.as_bytes(), true, 4096).is_ok());
    }
}
