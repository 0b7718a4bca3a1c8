//! What a Monitor does with what it is sent: the protocol's sections 2 to 7 from the other side.
//! Pure: requests and `now` in, answers out.
//!
//! Invariants:
//! - A sample is recorded before its answer exists.
//! - Who is refused has changed nothing but the counts and the nonces seen.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::book::{Book, Channel};
use crate::error::{Reason, Refusal};
use crate::fault::Fault;
use crate::journal::{Journal, Transport};
use crate::key::{Capability, KeyShape};
use crate::proof::Proof;
use crate::telemetry::{self, MAX_SAMPLE, Telemetry};

/// Samples a batch may hold.
pub const MAX_BATCH: usize = 500;

/// Bytes a batch may have.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Bytes that a proof may add to a sample's 64 KiB: 4096-bit keys make 684 characters.
pub const PROOF_ROOM: usize = 4096;

/// Who may come in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mode {
    /// Proofs made with challenges and tokens.
    #[default]
    Challenge,
    /// This `X-API-Key`: no key document, no WebSocket, no batch.
    ApiKey(String),
}

/// How a heartbeat whose sample is known already is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DuplicateAnswer {
    /// 200 with `"duplicate":true`.
    #[default]
    Ok,
    /// 409 with `"duplicate":true`.
    Conflict,
}

/// What may be changed while a Monitor runs.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Who may come in.
    pub mode: Mode,
    /// The extensions offered.
    pub capabilities: BTreeSet<Capability>,
    /// How the key document looks.
    pub key_shape: KeyShape,
    /// How duplicates are answered.
    pub duplicates: DuplicateAnswer,
    /// Whether only a sample's identifying fields are checked, and not all of it.
    pub lenient: bool,
}

/// A heartbeat's body, read but not yet judged.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    bytes: String,
    envelope: Envelope,
}

#[derive(Debug, Deserialize)]
struct Envelope {
    #[serde(default)]
    identifier: Option<String>,
    #[serde(default)]
    encrypted_payload: Option<String>,
    #[serde(default)]
    samples: Option<Vec<Box<RawValue>>>,
}

impl Heartbeat {
    /// Reads a body.
    pub fn read(body: Vec<u8>) -> Result<Self, Refusal> {
        let bad = |detail: String| Refusal::new(Reason::BadSample, detail);
        let bytes = String::from_utf8(body).map_err(|_| bad("the body is not UTF-8".to_owned()))?;
        let envelope = serde_json::from_str(&bytes)
            .map_err(|cause| bad(format!("the body is not a heartbeat: {cause}")))?;
        Ok(Self { bytes, envelope })
    }

    /// The proof it carries.
    pub fn encrypted_payload(&self) -> Option<&str> {
        self.envelope.encrypted_payload.as_deref()
    }
}

/// What a heartbeat shows at the door.
#[derive(Debug)]
pub(crate) enum Shown {
    /// Nothing.
    Nothing,
    /// An opened proof.
    Proof(Proof),
    /// An API key.
    ApiKey(String),
}

/// A Monitor without sockets.
#[derive(Debug)]
pub(crate) struct Rules {
    pub settings: Settings,
    pub book: Book,
    pub journal: Journal,
}

impl Rules {
    pub(crate) fn offers(&self, capability: Capability) -> bool {
        self.settings.capabilities.contains(&capability)
    }

    /// Bytes a heartbeat's body may have.
    pub fn body_limit(&self) -> usize {
        if self.offers(Capability::Batch) { MAX_BATCH_BYTES } else { MAX_SAMPLE + PROOF_ROOM }
    }

    /// Judges a heartbeat.
    pub fn heartbeat(
        &mut self,
        heartbeat: &Heartbeat,
        shown: &Shown,
        changes: &[Fault],
        now: SystemTime,
    ) -> Answer {
        let answer = match &heartbeat.envelope.samples {
            Some(samples) => self.batch(heartbeat, samples, shown, changes, now),
            None => self.single(heartbeat, shown, changes, now),
        };
        answer.unwrap_or_else(|refusal| self.refuse(&refusal))
    }

    /// Counts a refusal and words it.
    pub fn refuse(&mut self, refusal: &Refusal) -> Answer {
        self.journal.refused(refusal.reason);
        Answer::refusal(refusal)
    }

    fn admit(&mut self, identifier: &str, shown: &Shown, now: SystemTime) -> Result<(), Refusal> {
        let refused = |reason, detail: &str| Err(Refusal::new(reason, detail));
        match (&self.settings.mode, shown) {
            (Mode::ApiKey(right), Shown::ApiKey(shown)) if right == shown => Ok(()),
            (Mode::ApiKey(_), Shown::ApiKey(_)) => refused(Reason::WrongApiKey, "wrong API key"),
            (Mode::ApiKey(_), _) => refused(Reason::NoProof, "X-API-Key is missing"),
            (Mode::Challenge, Shown::Proof(proof)) if proof.identifier != identifier => {
                refused(Reason::OtherIdentifier, "the proof speaks of another identifier")
            }
            (Mode::Challenge, Shown::Proof(proof)) => {
                self.book.admit(proof, Channel::Heartbeat, now)
            }
            (Mode::Challenge, _) => refused(Reason::NoProof, "encrypted_payload is missing"),
        }
    }

    fn single(
        &mut self,
        heartbeat: &Heartbeat,
        shown: &Shown,
        changes: &[Fault],
        now: SystemTime,
    ) -> Result<Answer, Refusal> {
        let identifier = heartbeat.envelope.identifier.as_deref().unwrap_or_default();
        self.admit(identifier, shown, now)?;
        let bytes = heartbeat.bytes.as_bytes();
        let telemetry = telemetry::read(bytes, !self.settings.lenient, PROOF_ROOM)?;
        if let Some((status, _)) = rejected(changes, telemetry.id.seq) {
            self.journal.refused(Reason::OnRequest);
            return Ok(Answer::detail(status, "refused on request"));
        }
        let fresh = self.journal.record(&telemetry, &heartbeat.bytes, Transport::Heartbeat, now);
        Ok(if fresh {
            Answer::json(200, &json!({"ok": true}))
        } else {
            let status = match self.settings.duplicates {
                DuplicateAnswer::Ok => 200,
                DuplicateAnswer::Conflict => 409,
            };
            Answer::json(status, &json!({"ok": true, "duplicate": true}))
        })
    }

    fn batch(
        &mut self,
        heartbeat: &Heartbeat,
        samples: &[Box<RawValue>],
        shown: &Shown,
        changes: &[Fault],
        now: SystemTime,
    ) -> Result<Answer, Refusal> {
        if !self.offers(Capability::Batch) || matches!(self.settings.mode, Mode::ApiKey(_)) {
            return Err(Refusal::new(Reason::NotOffered, "batch is not offered"));
        }
        let identifier = heartbeat.envelope.identifier.as_deref().unwrap_or_default();
        self.admit(identifier, shown, now)?;
        if samples.is_empty() || samples.len() > MAX_BATCH {
            let detail = format!("{} samples, 1 to {MAX_BATCH} are allowed", samples.len());
            let reason = if samples.is_empty() { Reason::BadSample } else { Reason::TooLarge };
            return Err(Refusal::new(reason, detail));
        }
        let (read, faulty) = self.read_batch(samples, identifier)?;
        let whole = read.iter().find_map(|(telemetry, _)| {
            rejected(changes, telemetry.id.seq).filter(|(_, whole)| *whole)
        });
        if let Some((status, _)) = whole {
            self.journal.refused(Reason::OnRequest);
            return Ok(Answer::detail(status, "refused on request"));
        }
        let most = changes
            .iter()
            .filter_map(|fault| {
                if let Fault::PartOfBatch { samples } = fault { Some(*samples) } else { None }
            })
            .min();
        let mut refused: Vec<(u64, String)> = Vec::new();
        let mut acked = 0;
        let mut faulty = faulty.into_iter().peekable();
        for (telemetry, payload) in read.iter().take(most.unwrap_or(MAX_BATCH)) {
            let seq = telemetry.id.seq;
            while let Some(fault) = faulty.next_if(|(faulty, _)| *faulty < seq) {
                refused.push(fault);
            }
            if rejected(changes, seq).is_some() {
                self.journal.refused(Reason::OnRequest);
                refused.push((seq, "refused on request".to_owned()));
            } else {
                self.journal.record(telemetry, payload, Transport::Batch, now);
            }
            acked = seq;
        }
        if most.is_none() {
            refused.extend(faulty);
        }
        acked = refused.iter().map(|(seq, _)| *seq).max().unwrap_or(0).max(acked);
        let wrong = changes.iter().find_map(|fault| {
            if let Fault::WrongAckedSeq { seq } = fault { Some(*seq) } else { None }
        });
        let mut answer = json!({"ok": true, "acked_seq": wrong.unwrap_or(acked)});
        if let Some(object) = answer.as_object_mut().filter(|_| !refused.is_empty()) {
            let listed: Vec<Value> =
                refused.iter().map(|(seq, error)| json!({"seq": seq, "error": error})).collect();
            object.insert("rejected".to_owned(), listed.into());
        }
        Ok(Answer::json(200, &answer))
    }

    /// Reads a batch's samples: the good ones, and the numbers and faults of the others. A batch
    /// that holds a sample without a readable number, or is out of order, is refused whole.
    #[allow(clippy::type_complexity, reason = "a pair of lists, taken apart where it is returned")]
    fn read_batch<'a>(
        &mut self,
        samples: &'a [Box<RawValue>],
        identifier: &str,
    ) -> Result<(Vec<(Telemetry, &'a str)>, Vec<(u64, String)>), Refusal> {
        #[derive(Deserialize)]
        struct Number {
            seq: u64,
        }
        let bad = |detail: String| Refusal::new(Reason::BadSample, detail);
        let mut read = Vec::new();
        let mut faulty = Vec::new();
        let mut last = 0;
        for sample in samples {
            let text = sample.get();
            let number: Number =
                serde_json::from_str(text).map_err(|cause| bad(format!("samples: {cause}")))?;
            if number.seq <= last {
                return Err(bad(format!("sample {} comes after {last}", number.seq)));
            }
            last = number.seq;
            let telemetry =
                telemetry::read(text.as_bytes(), !self.settings.lenient, 0).and_then(|telemetry| {
                    let ours = telemetry.identifier == identifier;
                    ours.then_some(telemetry).ok_or_else(|| bad("another identifier".to_owned()))
                });
            match telemetry {
                Ok(telemetry) => read.push((telemetry, text)),
                Err(refusal) => {
                    self.journal.refused(refusal.reason);
                    faulty.push((last, refusal.detail));
                }
            }
        }
        Ok((read, faulty))
    }
}

/// Whether this sample is to be refused: the status, and whether its batch goes with it.
pub(crate) fn rejected(changes: &[Fault], seq: u64) -> Option<(u16, bool)> {
    changes.iter().find_map(|fault| {
        let Fault::Reject { seqs, status, whole_batch } = fault else { return None };
        seqs.contains(&seq).then_some((*status, *whole_batch))
    })
}

#[cfg(test)]
#[path = "rules_tests.rs"]
pub(crate) mod tests;
