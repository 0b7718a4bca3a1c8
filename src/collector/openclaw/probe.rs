//! Asks a gateway on this host how it is: `GET /startupz` of OpenClaw from 2026.8 on.
//!
//! Invariants:
//! - Loopback only, plain HTTP, no proxy, no redirect followed, 2 s for everything, 64 KiB of
//!   answer; the connection is not kept.
//! - Only a JSON object with a status OpenClaw has counts; nothing else of the answer is kept but
//!   what can be a version.

use std::time::Duration;

use super::node::{Keep, Node, read_json};
use super::roster;
use super::status::Probe;
use crate::runtime;
use crate::transport::{Deadlines, Endpoint, HttpTransport, TransportError};

/// For connecting and the answer together.
const DEADLINE: Duration = Duration::from_secs(2);

static KEEP: Keep = Keep::Members(&[("status", Keep::Text), ("version", Keep::Text)]);

/// Asks the gateway on a port. Never fails: what cannot be understood is [`Probe::NoAnswer`].
pub async fn ask(port: u16) -> Probe {
    let deadlines = Deadlines { dial: DEADLINE, request: DEADLINE, idle: Duration::ZERO };
    let Ok(endpoint) = Endpoint::parse(&format!("http://127.0.0.1:{port}")) else {
        return Probe::NoAnswer;
    };
    let Ok(transport) = HttpTransport::new(endpoint.with_deadlines(deadlines)) else {
        return Probe::NoAnswer;
    };
    match runtime::timeout(DEADLINE, transport.startup_probe()).await {
        Some(Ok(answer)) => read(answer.status, &answer.body),
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

/// What an answer says.
#[must_use]
pub fn read(status: u16, body: &[u8]) -> Probe {
    if status != 200 && status != 503 {
        return Probe::NoAnswer;
    }
    let Ok(answer) = read_json(body, &KEEP) else { return Probe::NoAnswer };
    let text = |name: &str| answer.get(name).and_then(Node::text);
    let version = text("version").and_then(roster::version);
    match text("status") {
        Some("started") => Probe::Started(version),
        Some("starting") => Probe::Starting(version),
        Some("draining") => Probe::Draining(version),
        Some(_) | None => Probe::NoAnswer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_openclaws_own_answers_count() {
        let version = || Some("2026.9.6".to_owned());
        for (status, body, expected) in [
            (
                200,
                r#"{"ok":true,"status":"started","version":"2026.9.6","uptimeMs":97358}"#,
                Probe::Started(version()),
            ),
            (200, r#"{"ok":true,"status":"started"}"#, Probe::Started(None)),
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
            (200, r#"{"status":"started","version":"a token?"}"#, Probe::Started(None)),
            (200, r#"{"ok":true,"status":"live"}"#, Probe::NoAnswer),
            (200, "<!doctype html>", Probe::NoAnswer),
            (404, r#"{"status":"started"}"#, Probe::NoAnswer),
            (302, "", Probe::NoAnswer),
            (200, "", Probe::NoAnswer),
            (200, "[]", Probe::NoAnswer),
        ] {
            assert_eq!(read(status, body.as_bytes()), expected, "{body}");
        }
    }
}
