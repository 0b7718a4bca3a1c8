//! Asks a gateway on this host how it is: `GET /startupz` of OpenClaw from 2026.8 on.
//!
//! Invariants:
//! - Loopback only, plain HTTP, no proxy, no redirect followed, 2 s for everything, 64 KiB of
//!   answer; the connection is not kept.
//! - Only a JSON object with a status OpenClaw has counts; nothing else of the answer is kept but
//!   what can be a version, and since when it runs.

use std::time::{Duration, SystemTime};

use super::node::{Keep, Node, read_json};
use super::roster;
use super::status::{Probe, Said};
use crate::runtime;
use crate::transport::{Deadlines, Endpoint, HttpTransport, TransportError};

/// For connecting and the answer together.
const DEADLINE: Duration = Duration::from_secs(2);

/// By how much, in milliseconds, a gateway is taken to run longer than it says: the answer was on
/// its way, and its clock and ours are read one after the other.
const SLACK: u64 = 2000;

static KEEP: Keep =
    Keep::Members(&[("status", Keep::Text), ("version", Keep::Text), ("uptimeMs", Keep::Number)]);

/// Asks the gateway on a port. Never fails: what cannot be understood is [`Probe::NoAnswer`].
pub async fn ask(port: u16) -> Probe {
    let deadlines = Deadlines { dial: DEADLINE, request: DEADLINE, idle: Duration::ZERO };
    let Ok(endpoint) = Endpoint::parse(&format!("http://127.0.0.1:{port}")) else {
        return Probe::NoAnswer;
    };
    let Ok(transport) = HttpTransport::new(endpoint.with_deadlines(deadlines)) else {
        return Probe::NoAnswer;
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    match runtime::timeout(DEADLINE, transport.startup_probe()).await {
        Some(Ok(answer)) => read(answer.status, &answer.body, now),
        Some(Err(error)) if refused(&error) => Probe::Refused,
        Some(Err(error)) if late(&error) => Probe::Silent,
        Some(Err(_)) => Probe::NoAnswer,
        None => Probe::Silent,
    }
}

fn refused(error: &TransportError) -> bool {
    // All other ways to fail leave open whether somebody listens.
    matches!(error, TransportError::Connect { tried, .. }
        if tried.iter().all(|one| one.error.kind() == std::io::ErrorKind::ConnectionRefused))
}

fn late(error: &TransportError) -> bool {
    matches!(error, TransportError::Timeout { .. })
}

/// What an answer says. `asked_at` is in milliseconds since 1970.
#[must_use]
pub fn read(status: u16, body: &[u8], asked_at: u64) -> Probe {
    if status != 200 && status != 503 {
        return Probe::NoAnswer;
    }
    let Ok(answer) = read_json(body, &KEEP) else { return Probe::NoAnswer };
    let text = |name: &str| answer.get(name).and_then(Node::text);
    let started = |uptime: u64| asked_at.saturating_sub(uptime).saturating_sub(SLACK);
    let said = Said {
        version: text("version").and_then(roster::version),
        since: answer.get("uptimeMs").and_then(Node::number).map(started),
    };
    match text("status") {
        Some("started") => Probe::Started(said),
        Some("starting") => Probe::Starting(said),
        Some("draining") => Probe::Draining(said),
        Some(_) | None => Probe::NoAnswer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_openclaws_own_answers_count() {
        let version = || Said { version: Some("2026.9.6".to_owned()), since: None };
        let nothing = || Said::default();
        for (status, body, expected) in [
            (
                200,
                r#"{"ok":true,"status":"started","version":"2026.9.6","uptimeMs":97358}"#,
                Probe::Started(Said { since: Some(900_642), ..version() }),
            ),
            (
                200,
                r#"{"status":"started","version":"2026.9.6","uptimeMs":9007199254740991}"#,
                Probe::Started(Said { since: Some(0), ..version() }),
            ),
            (
                200,
                r#"{"status":"started","version":"2026.9.6","uptimeMs":-1}"#,
                Probe::Started(version()),
            ),
            (200, r#"{"ok":true,"status":"started"}"#, Probe::Started(nothing())),
            (
                503,
                r#"{"ok":false,"status":"starting","version":"2026.9.6","pendingReason":"x"}"#,
                Probe::Starting(version()),
            ),
            (
                503,
                r#"{"ok":false,"status":"draining","version":"2026.9.6"}"#,
                Probe::Draining(version()),
            ),
            (200, r#"{"status":"started","version":"a token?"}"#, Probe::Started(nothing())),
            (200, r#"{"ok":true,"status":"live"}"#, Probe::NoAnswer),
            (200, "<!doctype html>", Probe::NoAnswer),
            (404, r#"{"status":"started"}"#, Probe::NoAnswer),
            (302, "", Probe::NoAnswer),
            (200, "", Probe::NoAnswer),
            (200, "[]", Probe::NoAnswer),
        ] {
            assert_eq!(read(status, body.as_bytes(), 1_000_000), expected, "{body}");
        }
    }
}
