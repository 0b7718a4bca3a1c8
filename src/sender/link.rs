//! What it takes to speak to one Monitor: endpoint, identifier, credential, its key and its
//! clock. Makes requests out of samples and outcomes out of answers.
//!
//! Invariants: a proof is made for each heartbeat and used once; a key that the pin refuses is
//! never encrypted for; an identifier that leaves no room for the proof is a failure that names
//! the limit, and nothing is sent; a request that was sent twice (a kept connection died under
//! it) is never taken for a refusal, since its nonce may be what was refused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use harborforge_storage::{Record, Uuid};
use secrecy::SecretString;
use url::Host;

use super::classify::{Asked, Outcome, Reply, classify, printable, retry_after_wait};
use super::load::{Load, Told};
use super::machine::{Answered, Failure, FailureKind, Proof};
use super::skew::Skew;
use crate::config::{self, Config, Credential};
use crate::crypto::{self, Fingerprint, KeyDocument, Verdict};
use crate::protocol::{
    BATCH_BYTES, Capabilities, HandshakeAnswer, batch_body, metrics_message_into,
};
use crate::sample::{Envelope, Gap, splice};
use crate::store::chain;
use crate::transport::{
    Answer, Endpoint, EndpointError, HttpTransport, Proxy, Socket, Target, TransportError,
    UpgradeError, WebSocketTransport,
};

/// Why no link can be made of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A key every use of a Monitor needs is not set.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// `backend_url` cannot be used.
    #[error("backend_url")]
    Endpoint(#[from] EndpointError),
    /// The trust anchors cannot be used.
    #[error("the connection cannot be set up")]
    Transport(#[from] TransportError),
}

/// A key document that was fetched and judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFetched {
    /// The Monitor it was fetched from.
    pub backend_url: String,
    /// What the Monitor offers.
    pub capabilities: Capabilities,
    /// The key's fingerprint, to be remembered.
    pub fingerprint: Fingerprint,
    /// The one remembered before, when it was another.
    pub replaces: Option<Fingerprint>,
}

/// How a WebSocket handshake ended.
pub enum Connected {
    /// The Monitor accepts this server.
    Accepted {
        /// The open socket.
        socket: Box<Socket>,
        /// The token to prove with from now on, once it is durable.
        token: Option<SecretString>,
    },
    /// The Monitor does not accept this server, in its words.
    Refused(String),
    /// The Monitor asks to wait: this long, or the backoff when it does not say.
    Busy(Option<Duration>, String),
    /// Anything else: a broken link.
    Broken(Failure),
}

/// The link to one Monitor. Shared by the requests under way.
pub struct Link {
    http: HttpTransport,
    websocket: WebSocketTransport,
    backend_url: String,
    identifier: String,
    credential: Credential,
    pin: Option<Fingerprint>,
    known: Mutex<Known>,
    told: Told,
}

/// What was learnt from the Monitor.
#[derive(Debug, Clone, Default)]
struct Known {
    key: Option<Arc<KeyDocument>>,
    remembered: Option<Fingerprint>,
    token: Option<SecretString>,
    skew: Option<Skew>,
    clock_wrong: bool,
    /// Told since it was asked last.
    duplicates: u64,
}

impl Link {
    /// A link as the configuration has it. Opens no connection.
    ///
    /// # Errors
    /// When a key is missing or cannot be used.
    pub fn new(config: &Config) -> Result<Self, LinkError> {
        let base = config.backend_url.as_ref().ok_or(LinkError::Missing("backend_url"))?;
        let credential =
            config.credential.clone().ok_or(LinkError::Missing("challenge_uuid or api_key"))?;
        let http = HttpTransport::new(endpoint(config)?)?;
        Ok(Self {
            websocket: WebSocketTransport::new(&http),
            http,
            backend_url: base.to_string(),
            identifier: config.identifier.clone(),
            credential,
            pin: config.public_key_sha256.map(Fingerprint::from),
            known: Mutex::default(),
            told: Told::default(),
        })
    }

    /// Whether it shows an API key instead of a proof.
    pub(super) fn has_api_key(&self) -> bool {
        matches!(self.credential, Credential::ApiKey(_))
    }

    /// The Monitor's base URL.
    #[must_use]
    pub fn backend_url(&self) -> &str {
        &self.backend_url
    }

    /// Takes up what is remembered from an earlier run: the key's fingerprint, and the resume
    /// token where it was given to this identifier.
    pub fn remember(&self, fingerprint: Option<Fingerprint>, token: Option<SecretString>) {
        let mut known = self.known();
        known.remembered = fingerprint;
        known.token = token;
    }

    /// Uses another resume token from now on.
    pub fn set_token(&self, token: SecretString) {
        self.known().token = Some(token);
    }

    /// Whether there is a resume token to prove with.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.known().token.is_some()
    }

    /// Whether proofs are asked for and there is no key to make them with.
    #[must_use]
    pub fn lacks_key(&self) -> bool {
        matches!(self.credential, Credential::Challenge(_)) && self.known().key.is_none()
    }

    /// The server's name at the Monitor.
    #[must_use]
    pub fn identifier(&self) -> &str {
        &self.identifier
    }

    /// Takes over what another link has learnt of the same Monitor.
    pub fn take_over(&self, other: &Self) {
        let known = other.known().clone();
        *self.known() = known;
    }

    /// How far the own clock is from the Monitor's, as last measured.
    #[must_use]
    pub fn skew(&self) -> Option<Skew> {
        self.known().skew
    }

    /// How many samples the Monitor said it has already, since this was asked last.
    pub(super) fn take_duplicates(&self) -> u64 {
        std::mem::take(&mut self.known().duplicates)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is one statement: a panic elsewhere leaves nothing half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches the key document and judges its key (docs/PROTOCOL.md 2).
    ///
    /// # Errors
    /// [`FailureKind::Unreachable`]; [`FailureKind::Answer`] when what comes is no key document;
    /// [`FailureKind::Key`] when its key is not usable or not the pinned one.
    pub async fn fetch_key(&self) -> Result<KeyFetched, Failure> {
        let answer = self.http.key_document().await.map_err(|e| unreachable(&e))?;
        self.measure(&answer);
        let no_document = |reason: String| Failure { kind: FailureKind::Answer, reason };
        if answer.status != 200 {
            let said = printable(&String::from_utf8_lossy(&answer.body));
            let status = answer.status;
            let target = answer.location.as_deref().map(printable);
            return Err(no_document(match target {
                Some(to) => {
                    format!("key document: HTTP {status}, a redirect to {to} (not followed)")
                }
                None => format!("key document: HTTP {status}: {said}"),
            }));
        }
        let document = KeyDocument::parse(&answer.body).map_err(|error| {
            let kind = if error.is_of_the_key() { FailureKind::Key } else { FailureKind::Answer };
            Failure { kind, reason: format!("key document: {}", chain(&error)) }
        })?;
        let mut known = self.known();
        let replaces = match crypto::judge(document.fingerprint, self.pin, known.remembered) {
            Verdict::Accept => None,
            Verdict::AcceptChanged { old, .. } => Some(old),
            Verdict::Refuse { pinned, seen } => {
                let reason =
                    format!("the Monitor's key is {seen}, public_key_sha256 allows only {pinned}");
                return Err(Failure { kind: FailureKind::Key, reason });
            }
        };
        let fetched = KeyFetched {
            backend_url: self.backend_url.clone(),
            capabilities: document.capabilities,
            fingerprint: document.fingerprint,
            replaces,
        };
        known.remembered = Some(document.fingerprint);
        known.key = Some(Arc::new(document));
        Ok(fetched)
    }

    /// Opens a WebSocket and shakes hands (section 4, steps 1 to 3).
    pub async fn connect(&self, with: Proof) -> Connected {
        let mut socket = match self.websocket.connect().await {
            Ok(socket) => socket,
            Err(error) => return not_upgraded(error),
        };
        // Made only now: the proof's time counts from here.
        let proof = match self.proof(with) {
            Ok(Some(proof)) => proof,
            Ok(None) => {
                let reason = "the WebSocket needs a challenge".to_owned();
                return Connected::Broken(Failure { kind: FailureKind::Local, reason });
            }
            Err(failure) => return Connected::Broken(failure),
        };
        match socket.prove(&proof).await {
            Ok(HandshakeAnswer::Accepted { resume_token }) => Connected::Accepted {
                socket: Box::new(socket),
                token: resume_token.map(SecretString::from),
            },
            Ok(HandshakeAnswer::Refused { said }) => Connected::Refused(printable(&said)),
            Ok(HandshakeAnswer::Broken) => Connected::Broken(Failure {
                kind: FailureKind::Answer,
                reason: "the answer to the proof is not the Monitor's".to_owned(),
            }),
            Err(error) => {
                Connected::Broken(Failure { kind: FailureKind::Unreachable, reason: chain(&error) })
            }
        }
    }

    /// The gaps that are on their way to the Monitor.
    pub(super) fn told(&self) -> &Told {
        &self.told
    }

    /// Writes a stored sample as a `server.metrics` message that tells these gaps behind what
    /// stands in `out`.
    ///
    /// # Errors
    /// When what is stored is no sample; `out` is then as it was.
    pub(super) fn metrics_into(
        &self,
        out: &mut Vec<u8>,
        record: &Record,
        gaps: &[Gap],
    ) -> Result<(), serde_json::Error> {
        let mut epoch = Uuid::encode_buffer();
        let epoch = record.epoch.hyphenated().encode_lower(&mut epoch);
        metrics_message_into(out, &record.payload, &self.envelope(record, epoch, gaps, None))
    }

    fn envelope<'a>(
        &'a self,
        record: &Record,
        epoch: &'a str,
        gaps: &'a [Gap],
        encrypted_payload: Option<&'a str>,
    ) -> Envelope<'a> {
        Envelope {
            identifier: &self.identifier,
            seq: record.seq,
            epoch,
            replayed: false,
            gaps,
            encrypted_payload,
        }
    }

    /// Sends the first of the records as a heartbeat of its own (section 5).
    pub(super) async fn post_single(&self, load: &Load, with: Proof) -> Answered {
        let Some(record) = load.records.first() else { return Answered::NothingToSend };
        let proof = match self.proof(with) {
            Ok(proof) => proof,
            Err(failure) => return Answered::Failed(failure),
        };
        let sent = vec![record.seq];
        match self.telemetry(record, &load.gaps_for(0), proof.as_deref()) {
            Ok(body) => {
                self.told.note(load);
                self.send(Asked::Single, sent, body).await
            }
            Err(outcome) => Answered::Got { sent, outcome },
        }
    }

    /// Sends as many of the records as a batch may hold (section 7).
    pub(super) async fn post_batch(&self, load: &Load, with: Proof) -> Answered {
        let proof = match self.proof(with) {
            Ok(Some(proof)) => proof,
            // Only proved heartbeats have a batch form.
            Ok(None) => return self.post_single(load, with).await,
            Err(failure) => return Answered::Failed(failure),
        };
        let overhead = proof.len() + self.identifier.len() * 6 + 64;
        let (mut bytes, mut sent, mut samples) = (overhead, Vec::new(), Vec::new());
        for (place, record) in load.records.iter().enumerate() {
            let Ok(sample) = self.telemetry(record, &load.gaps_for(place), None) else { break };
            bytes += sample.len() + 1;
            if bytes > BATCH_BYTES {
                break;
            }
            sent.push(record.seq);
            samples.push(sample);
        }
        let (Some(first), Some(last)) = (sent.first().copied(), sent.last().copied()) else {
            // The first of them cannot be sent in a batch: alone it is judged for what it is.
            return self.post_single(load, with).await;
        };
        match batch_body(&self.identifier, &proof, &samples) {
            Ok(body) => {
                self.told.note(load);
                self.send(Asked::Batch { first, last }, sent, body).await
            }
            Err(error) => Answered::Failed(local(&error)),
        }
    }

    /// A stored sample that cannot be sent is one the Monitor would not take either: it goes the
    /// way of the refused, so that it does not hold up those behind it.
    fn telemetry(
        &self,
        record: &Record,
        gaps: &[Gap],
        proof: Option<&str>,
    ) -> Result<Vec<u8>, Outcome> {
        let epoch = record.epoch.to_string();
        splice(&record.payload, &self.envelope(record, &epoch, gaps, proof))
            .map_err(|error| Outcome::Unacceptable(format!("cannot be sent: {error}")))
    }

    pub(super) fn proof(&self, with: Proof) -> Result<Option<String>, Failure> {
        let Credential::Challenge(challenge) = &self.credential else { return Ok(None) };
        let known = self.known().clone();
        let Some(key) = known.key else {
            let reason = "the Monitor's key is not known yet".to_owned();
            return Err(Failure { kind: FailureKind::Local, reason });
        };
        let at = known.skew.unwrap_or_default().correct(SystemTime::now());
        let credential = match (with, &known.token) {
            (Proof::Token, Some(token)) => crypto::Credential::ResumeToken(token),
            (Proof::Challenge | Proof::Token, _) => crypto::Credential::Challenge(challenge),
        };
        crypto::prove(&key, &self.identifier, credential, at)
            .map(Some)
            .map_err(|error| local(&error))
    }

    pub(super) async fn send(&self, asked: Asked, sent: Vec<u64>, body: Vec<u8>) -> Answered {
        let api_key = match &self.credential {
            Credential::ApiKey(key) => Some(key),
            Credential::Challenge(_) => None,
        };
        let answer = match self.http.heartbeat(body, api_key).await {
            Ok(answer) => answer,
            Err(error) => return Answered::Failed(unreachable(&error)),
        };
        self.measure(&answer);
        let reply = Reply {
            status: answer.status,
            retry_after: answer.retry_after.as_deref(),
            location: answer.location.as_deref(),
            body: &answer.body,
        };
        let outcome = classify(asked, &reply, SystemTime::now());
        // The only one of its kind that counts as delivered.
        if answer.status == 409 && outcome == Outcome::Delivered {
            self.known().duplicates += 1;
        }
        Answered::Got { sent, outcome: if answer.resent { soften(outcome) } else { outcome } }
    }

    fn measure(&self, answer: &Answer) {
        let Some(theirs) = answer.date else { return };
        let skew = Skew::measure(theirs, SystemTime::now());
        let wrong = {
            let mut known = self.known();
            known.skew = Some(skew);
            let wrong = skew.is_wrong(known.clock_wrong);
            (std::mem::replace(&mut known.clock_wrong, wrong) != wrong).then_some(wrong)
        };
        let skew_ms = skew.millis;
        match wrong {
            Some(true) => tracing::warn!(
                skew_ms,
                whose = if skew_ms > 0 { "this host is behind" } else { "this host is ahead" },
                "this host's clock is not the Monitor's; proofs carry the Monitor's time, samples \
                 this host's: set up NTP"
            ),
            Some(false) => {
                tracing::info!(skew_ms, "this host's clock agrees with the Monitor's again")
            }
            None => {}
        }
    }
}

/// The Monitor and the way to it, as the configuration has them.
///
/// # Errors
/// [`LinkError::Missing`] or [`LinkError::Endpoint`].
pub fn endpoint(config: &Config) -> Result<Endpoint, LinkError> {
    let base = config.backend_url.as_ref().ok_or(LinkError::Missing("backend_url"))?;
    Ok(Endpoint::parse(base.as_str())?
        .with_ca_file(config.ca_file.clone())
        .with_proxy(config.proxy.as_ref().map(proxy)))
}

fn not_upgraded(error: UpgradeError) -> Connected {
    let reason = |status: u16, said: &str| {
        let said = printable(said.trim());
        if said.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {said}") }
    };
    match error {
        UpgradeError::Refused { status, said } => Connected::Refused(reason(status, &said)),
        UpgradeError::Busy { status, retry_after, said } => {
            let wait = retry_after_wait(retry_after.as_deref(), SystemTime::now());
            Connected::Busy(wait, reason(status, &said))
        }
        UpgradeError::Transport(error) => Connected::Broken(unreachable(&error)),
        UpgradeError::Answered { .. } | UpgradeError::Improper(_) => {
            Connected::Broken(Failure { kind: FailureKind::Answer, reason: chain(&error) })
        }
    }
}

fn proxy(configured: &config::Proxy) -> Proxy {
    let host =
        Host::parse(&configured.host).unwrap_or_else(|_| Host::Domain(configured.host.clone()));
    let credentials = configured.credentials.as_ref();
    let credentials = credentials.map(|(user, password)| (user.as_str(), password));
    Proxy::new(Target { host, port: configured.port }, credentials)
}

/// A refusal of what went out twice may be the second copy's: the first may have been taken.
fn soften(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Unacceptable(said) | Outcome::NotAccepted(said) => {
            Outcome::Backoff(format!("{said} (sent twice, the connection broke in between)"))
        }
        Outcome::Delivered | Outcome::Progress { .. } | Outcome::Wait(..) | Outcome::Backoff(_) => {
            outcome
        }
    }
}

fn unreachable(error: &TransportError) -> Failure {
    Failure { kind: FailureKind::Unreachable, reason: chain(error) }
}

fn local(error: &dyn std::error::Error) -> Failure {
    Failure { kind: FailureKind::Local, reason: chain(error) }
}
