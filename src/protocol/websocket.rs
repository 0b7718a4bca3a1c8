//! Messages of the WebSocket (the protocol's section 4), both ways.
//!
//! Invariants:
//! - A sample's bytes are copied once on their way into a message, and never parsed.
//! - Reading never fails and needs no more memory than the message itself: what is not understood
//!   is [`HandshakeAnswer::Broken`] or [`Event::Ignored`].

use std::io::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{MAX_RESUME_TOKEN, Rejection};
use crate::sample::{Agent, Envelope, splice_into};

/// The first message: the proof.
#[must_use]
pub fn proof_message(encrypted_payload: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Proof<'a> {
        encrypted_payload: &'a str,
    }
    // A struct of strings always becomes JSON.
    serde_json::to_vec(&Proof { encrypted_payload }).unwrap_or_default()
}

/// What `server.hello` says of this server; sent once, first.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Hello<'a> {
    /// The server's name at the Monitor.
    pub identifier: &'a str,
    /// OpenClaw's version; `None` when it is not there.
    pub openclaw_version: Option<&'a str>,
    /// OpenClaw's agents.
    pub agents: &'a [Agent],
    /// Version of the connector.
    pub connector_version: &'a str,
}

/// What `agent.status_changed` says: the agents that changed, and only those.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StatusChange<'a> {
    /// The server's name at the Monitor.
    pub identifier: &'a str,
    /// The agents that changed.
    pub agents: &'a [Agent],
}

#[derive(Serialize)]
struct Outgoing<'a, T> {
    event: &'a str,
    payload: &'a T,
}

impl Hello<'_> {
    /// The message.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        event("server.hello", self)
    }
}

impl StatusChange<'_> {
    /// The message.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        event("agent.status_changed", self)
    }
}

fn event<T: Serialize>(event: &str, payload: &T) -> Vec<u8> {
    // Structs of strings always become JSON.
    serde_json::to_vec(&Outgoing { event, payload }).unwrap_or_default()
}

/// One stored sample as a `server.metrics` message, its number taken from the envelope.
///
/// # Errors
/// As [`crate::sample::splice`].
pub fn metrics_message(
    stored: &[u8],
    envelope: &Envelope<'_>,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::new();
    metrics_message_into(&mut out, stored, envelope)?;
    Ok(out)
}

/// [`metrics_message`] behind others in one buffer.
///
/// # Errors
/// As [`metrics_message`]; `out` is then as it was.
pub fn metrics_message_into(
    out: &mut Vec<u8>,
    stored: &[u8],
    envelope: &Envelope<'_>,
) -> Result<(), serde_json::Error> {
    /// Bytes around the telemetry, the number and what `splice_into` adds included.
    const AROUND: usize = 320;
    let begin = out.len();
    out.reserve(stored.len() + AROUND);
    // Writing to a vector cannot fail; the result is dropped on purpose.
    let _ = write!(out, r#"{{"event":"server.metrics","seq":{},"payload":"#, envelope.seq);
    let spliced = splice_into(out, stored, envelope);
    match spliced {
        Ok(()) => out.push(b'}'),
        Err(_) => out.truncate(begin),
    }
    spliced
}

/// What the answer to the proof means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandshakeAnswer {
    /// The link is open.
    Accepted {
        /// The token to prove with from now on (section 7); `None` also when what stands there
        /// is no string of 1 to 36 characters.
        resume_token: Option<String>,
    },
    /// The Monitor does not accept this server.
    Refused {
        /// The Monitor's words, as they came: not fit for a log or a terminal yet.
        said: String,
    },
    /// The link is broken: this is no answer to a proof.
    Broken,
}

/// Reads the one text message that answers the proof. `"ok"` decides where it is there, then
/// `"status"`, then `error` and `detail`, of which `null` says nothing.
#[must_use]
pub fn read_handshake(text: &str) -> HandshakeAnswer {
    let Some(members) = Members::read(text) else { return HandshakeAnswer::Broken };
    let ok = members.ok();
    let accepted = ok.unwrap_or_else(|| {
        members.status.and_then(as_text).is_some_and(|status| ACCEPTING.contains(&status.as_str()))
    });
    if accepted {
        let resume_token = members
            .resume_token
            .and_then(as_text)
            .filter(|token| (1..=MAX_RESUME_TOKEN).contains(&token.chars().count()));
        return HandshakeAnswer::Accepted { resume_token };
    }
    match members.complaint() {
        Some(said) => HandshakeAnswer::Refused { said },
        None if ok.is_some() => HandshakeAnswer::Refused { said: "no reason given".to_owned() },
        None => HandshakeAnswer::Broken,
    }
}

/// `"status"` values that accept.
const ACCEPTING: [&str; 4] = ["ok", "accepted", "connected", "success"];

/// Whether a close with this code, in answer to a proof, is a refusal and no broken link.
#[must_use]
pub fn refuses(close_code: u16) -> bool {
    matches!(close_code, 1008 | 4000..=4499)
}

/// What a message on an open link means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Every sample sent on this connection up to and including this number is stored.
    Ack {
        /// The number.
        seq: u64,
    },
    /// A sample that will never be accepted.
    Reject(Rejection),
    /// `"ok":false`: something that was sent is not accepted, and the Monitor does not say what.
    NotOk {
        /// The Monitor's words, as they came.
        said: String,
    },
    /// An unknown event, or no event at all.
    Ignored,
}

/// Reads a text message that came after the acceptance.
#[must_use]
pub fn read_event(text: &str) -> Event {
    let Some(members) = Members::read(text) else { return Event::Ignored };
    let seq = members.seq.and_then(|seq| serde_json::from_str(seq.get()).ok());
    match (members.event.and_then(as_text).as_deref(), seq) {
        (Some("ack"), Some(seq)) => Event::Ack { seq },
        (Some("reject"), Some(seq)) => {
            Event::Reject(Rejection { seq, error: members.complaint().unwrap_or_default() })
        }
        (None, _) if members.ok() == Some(false) => {
            Event::NotOk { said: members.complaint().unwrap_or_default() }
        }
        (Some(_) | None, _) => Event::Ignored,
    }
}

/// The members of an incoming object that mean something, each still as it came: one of an
/// unexpected type is as good as absent and must not spoil the others.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    seq: Option<&'a RawValue>,
    #[serde(borrow)]
    ok: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
    #[serde(borrow)]
    resume_token: Option<&'a RawValue>,
}

impl<'a> Members<'a> {
    fn read(text: &'a str) -> Option<Self> {
        // An array would be taken for the members in their order.
        if !text.trim_start().starts_with('{') {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    fn ok(&self) -> Option<bool> {
        self.ok.and_then(|ok| serde_json::from_str(ok.get()).ok())
    }

    fn complaint(&self) -> Option<String> {
        let said = self.error.or(self.detail)?;
        Some(as_text(said).unwrap_or_else(|| said.get().to_owned()))
    }
}

fn as_text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{AgentStatus, splice};
    use serde_json::{Value, json};

    fn agents() -> Vec<Agent> {
        vec![Agent { id: "a1".into(), name: "agent".into(), status: AgentStatus::Running }]
    }

    fn parsed(message: &[u8]) -> Value {
        serde_json::from_slice(message).unwrap()
    }

    #[test]
    fn what_is_sent_is_what_the_protocol_shows() {
        assert_eq!(proof_message("cHJvb2Y="), br#"{"encrypted_payload":"cHJvb2Y="}"#);
        let hello = Hello {
            identifier: "vps.t1",
            openclaw_version: None,
            agents: &agents(),
            connector_version: "0.1.0",
        };
        assert_eq!(
            String::from_utf8(hello.message()).unwrap(),
            r#"{"event":"server.hello","payload":{"identifier":"vps.t1","openclaw_version":null,"agents":[{"id":"a1","name":"agent","status":"running"}],"connector_version":"0.1.0"}}"#
        );
        let change = StatusChange { identifier: "a\"b", agents: &agents() };
        assert_eq!(
            parsed(&change.message()),
            json!({"event": "agent.status_changed", "payload": {"identifier": "a\"b",
                   "agents": [{"id": "a1", "name": "agent", "status": "running"}]}})
        );
    }

    #[test]
    fn a_sample_is_wrapped_byte_for_byte() {
        let envelope = Envelope {
            identifier: "vps.t1",
            seq: 42,
            epoch: "0198f0c2-0000-4000-8000-000000000000",
            replayed: false,
            gaps: &[],
            encrypted_payload: None,
        };
        // Spaces and the figure's many decimals would not survive an encoding.
        let stored = br#"{"cpu_pct": 12.50000, "x":"\u00e9"}"#;
        let message = metrics_message(stored, &envelope).unwrap();
        let spliced = String::from_utf8(splice(stored, &envelope).unwrap()).unwrap();
        let expected = format!(r#"{{"event":"server.metrics","seq":42,"payload":{spliced}}}"#);
        assert_eq!(String::from_utf8(message.clone()).unwrap(), expected);
        assert!(spliced.contains(r#""cpu_pct": 12.50000, "x":"\u00e9"}"#));
        assert_eq!(parsed(&message)["payload"]["seq"], 42);
        assert!(metrics_message(b"[]", &envelope).is_err());

        // Behind another one; what is no sample leaves no trace of itself.
        let mut both = b"before".to_vec();
        assert!(metrics_message_into(&mut both, b"[]", &envelope).is_err());
        assert_eq!(both, b"before");
        metrics_message_into(&mut both, stored, &envelope).unwrap();
        assert_eq!(both, [b"before".as_slice(), &message].concat());
    }

    #[test]
    fn the_answer_to_a_proof_is_acceptance_refusal_or_neither() {
        let accepted = HandshakeAnswer::Accepted { resume_token: None };
        for text in [
            r#"{"ok":true}"#,
            " \n{ \"ok\" : true , \"x\":[{}] }",
            r#"{"status":"ok"}"#,
            r#"{"status":"accepted"}"#,
            r#"{"status":"connected","ok":"yes"}"#,
            r#"{"status":"success","error":null}"#,
            // It says that it is well; what else it says is a detail.
            r#"{"ok":true,"detail":"welcome"}"#,
            r#"{"\u006fk":true}"#,
        ] {
            assert_eq!(read_handshake(text), accepted, "{text}");
        }
        for (text, words) in [
            (r#"{"ok":false,"error":"challenge expired"}"#, "challenge expired"),
            (r#"{"ok":false}"#, "no reason given"),
            (r#"{"ok":false,"status":"ok"}"#, "no reason given"),
            (r#"{"error":"no"}"#, "no"),
            (r#"{"detail":[{"msg":"no"}]}"#, r#"[{"msg":"no"}]"#),
            (r#"{"status":"error","detail":"unknown server"}"#, "unknown server"),
        ] {
            let refused = HandshakeAnswer::Refused { said: words.to_owned() };
            assert_eq!(read_handshake(text), refused, "{text}");
        }
        for text in [
            "",
            "hello",
            "null",
            "true",
            "[true]",
            r#"["ack",1,true]"#,
            "{}",
            r#"{"ok":null}"#,
            r#"{"ok":"true"}"#,
            r#"{"ok":1}"#,
            r#"{"status":"OK"}"#,
            r#"{"status":"busy"}"#,
            r#"{"ok":true"#,
            r#"{"ok":true} {"ok":true}"#,
            r#"{"ok":true,"ok":false}"#,
            r#"{"event":"ack","seq":1}"#,
            r#"{"error":null}"#,
        ] {
            assert_eq!(read_handshake(text), HandshakeAnswer::Broken, "{text}");
        }
        let deep = format!("{}{}", r#"{"ok":true,"x":"#, "[".repeat(100_000));
        assert_eq!(read_handshake(&deep), HandshakeAnswer::Broken);
    }

    #[test]
    fn a_resume_token_has_1_to_36_characters() {
        let token = |value: Value| match read_handshake(
            &json!({"ok": true, "resume_token": value}).to_string(),
        ) {
            HandshakeAnswer::Accepted { resume_token } => resume_token,
            other @ (HandshakeAnswer::Refused { .. } | HandshakeAnswer::Broken) => {
                panic!("{other:?}")
            }
        };
        for good in ["t", "0198f0c2-0000-4000-8000-000000000000", &"ü".repeat(36)] {
            assert_eq!(token(json!(good)).as_deref(), Some(good));
        }
        for bad in [json!("x".repeat(37)), json!(""), json!(1), json!(null), json!({"t": 1})] {
            assert_eq!(token(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn closes_that_refuse_are_1008_and_4000_to_4499() {
        for code in [1008, 4000, 4001, 4403, 4499] {
            assert!(refuses(code), "{code}");
        }
        for code in [0, 1000, 1001, 1006, 1007, 1009, 1011, 1012, 1013, 3999, 4500, 4999, u16::MAX]
        {
            assert!(!refuses(code), "{code}");
        }
    }

    #[test]
    fn events_are_read_for_what_they_are() {
        let reject = |seq, error: &str| Event::Reject(Rejection { seq, error: error.to_owned() });
        for (text, event) in [
            (r#"{"event":"ack","seq":7}"#, Event::Ack { seq: 7 }),
            (r#"{"seq":18446744073709551615,"event":"ack"}"#, Event::Ack { seq: u64::MAX }),
            (r#"{"event":"ack","seq":7,"ok":false}"#, Event::Ack { seq: 7 }),
            (r#"{"event":"reject","seq":7,"error":"bad"}"#, reject(7, "bad")),
            (r#"{"event":"reject","seq":7,"error":{"x":1}}"#, reject(7, r#"{"x":1}"#)),
            (r#"{"event":"reject","seq":7}"#, reject(7, "")),
            (r#"{"ok":false,"error":"bad"}"#, Event::NotOk { said: "bad".into() }),
            (r#"{"ok":false,"detail":"bad"}"#, Event::NotOk { said: "bad".into() }),
            (r#"{"ok":false}"#, Event::NotOk { said: String::new() }),
        ] {
            assert_eq!(read_event(text), event, "{text}");
        }
        for text in [
            "",
            "\u{0}",
            "hello",
            "[]",
            r#"["ack",7]"#,
            "{}",
            r#"{"ok":true}"#,
            r#"{"ok":0}"#,
            r#"{"event":"ack"}"#,
            r#"{"event":"ack","seq":-1}"#,
            r#"{"event":"ack","seq":7.0}"#,
            r#"{"event":"ack","seq":"7"}"#,
            r#"{"event":"ack","seq":18446744073709551616}"#,
            r#"{"event":"ACK","seq":7}"#,
            r#"{"event":"ack","seq":7,"seq":9}"#,
            r#"{"event":"teleport","ok":false}"#,
            r#"{"event":"ack","seq":7"#,
        ] {
            assert_eq!(read_event(text), Event::Ignored, "{text}");
        }
    }
}
