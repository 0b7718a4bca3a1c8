//! A WebSocket's messages and what is said to them (the protocol's section 4). Pure.
//!
//! Invariant: a sample is recorded before it is acknowledged.

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::book::Channel;
use crate::error::{Reason, Refusal};
use crate::fault::Fault;
use crate::journal::Transport;
use crate::key::Capability;
use crate::proof::Proof;
use crate::rules::{Rules, rejected};
use crate::telemetry;

/// A WebSocket that was accepted.
#[derive(Debug)]
pub(crate) struct Link {
    identifier: String,
    greeted: bool,
}

/// What is to be said to one event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Nothing: it needs no answer.
    Quiet,
    /// The sample with this number is stored.
    Stored(u64),
    /// This message.
    Say(String),
}

impl Rules {
    /// Judges the first message of a WebSocket; `token` is the one to hand out if tokens are
    /// offered. Returns the link and the acceptance.
    pub fn handshake(
        &mut self,
        proof: &Proof,
        token: String,
        now: SystemTime,
    ) -> Result<(Link, String), Refusal> {
        if proof.identifier.is_empty() {
            return Err(Refusal::new(Reason::UnreadableProof, "identifier is empty"));
        }
        self.book.admit(proof, Channel::WebSocket, now)?;
        self.journal.counts_mut().links += 1;
        let mut acceptance = json!({"ok": true});
        if self.offers(Capability::Resume)
            && let Some(object) = acceptance.as_object_mut()
        {
            self.book.hand_out(&proof.identifier, &proof.credential, token.clone());
            object.insert("resume_token".to_owned(), token.into());
        }
        let link = Link { identifier: proof.identifier.clone(), greeted: false };
        Ok((link, acceptance.to_string()))
    }

    /// Judges one event of an accepted WebSocket.
    pub fn event(
        &mut self,
        link: &mut Link,
        text: &str,
        changes: &[Fault],
        now: SystemTime,
    ) -> Reply {
        #[derive(Deserialize)]
        struct Event<'a> {
            event: String,
            #[serde(default)]
            seq: Option<u64>,
            #[serde(borrow)]
            payload: &'a RawValue,
        }
        let event: Event<'_> = match serde_json::from_str(text) {
            Ok(event) => event,
            Err(cause) => {
                let detail = format!("not an event: {cause}");
                return self.deny(None, &Refusal::new(Reason::BadRequest, detail));
            }
        };
        match event.event.as_str() {
            "server.hello" => {
                link.greeted = true;
                self.journal.counts_mut().hellos += 1;
                Reply::Quiet
            }
            "server.metrics" if !link.greeted => {
                let refusal = Refusal::new(Reason::BadRequest, "server.hello has to come first");
                self.deny(event.seq, &refusal)
            }
            "server.metrics" => match self.metrics(link, event.seq, event.payload, changes, now) {
                Ok(seq) => Reply::Stored(seq),
                Err(refusal) => self.deny(event.seq, &refusal),
            },
            "agent.status_changed" => {
                self.journal.counts_mut().agent_changes += 1;
                Reply::Quiet
            }
            other => {
                let detail = format!("unknown event {other:?}");
                self.deny(None, &Refusal::new(Reason::BadRequest, detail))
            }
        }
    }

    fn metrics(
        &mut self,
        link: &Link,
        seq: Option<u64>,
        payload: &RawValue,
        changes: &[Fault],
        now: SystemTime,
    ) -> Result<u64, Refusal> {
        let bad = |detail: &str| Err(Refusal::new(Reason::BadSample, detail));
        let telemetry = telemetry::read(payload.get().as_bytes(), !self.settings.lenient, 0)?;
        if telemetry.identifier != link.identifier {
            return bad("the sample speaks of another identifier than the proof");
        }
        if seq != Some(telemetry.id.seq) {
            return bad("the event's seq is not the sample's");
        }
        if rejected(changes, telemetry.id.seq).is_some() {
            return Err(Refusal::new(Reason::OnRequest, "refused on request"));
        }
        self.journal.record(&telemetry, payload.get(), Transport::WebSocket, now);
        Ok(telemetry.id.seq)
    }

    /// The message that refuses an event: by number where acknowledgements are offered.
    fn deny(&mut self, seq: Option<u64>, refusal: &Refusal) -> Reply {
        self.journal.refused(refusal.reason);
        let message = match seq.filter(|_| self.offers(Capability::Ack)) {
            Some(seq) => json!({"event": "reject", "seq": seq, "error": refusal.detail}),
            None => json!({"ok": false, "error": refusal.detail}),
        };
        Reply::Say(message.to_string())
    }

    /// The message that acknowledges all samples up to `seq`, where that is offered.
    pub fn acknowledgement(&self, seq: u64) -> Option<String> {
        self.offers(Capability::Ack).then(|| json!({"event": "ack", "seq": seq}).to_string())
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
