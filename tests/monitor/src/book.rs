//! Challenges, tokens and nonces: who may come in (the protocol's sections 3 and 7). Pure: every
//! rule takes the Monitor's time as `now`.
//!
//! Invariants:
//! - A challenge that has never been accepted expires after the book's lifetime; one that has
//!   belongs to one identifier for good, and never expires.
//! - A challenge is accepted for one WebSocket handshake only.
//! - A nonce is remembered for [`NONCE_MEMORY`], twice the time a proof stays acceptable, so that
//!   none can be used twice at the edges of the clock's window.
//!   Memory: the nonces of the last four minutes, one entry per challenge issued and per
//!   identifier that holds tokens.
//! - Of an identifier's tokens the newest is honoured, and the one before it until the newest has
//!   been proved.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::error::{Reason, Refusal};
use crate::proof::{Credential, Proof};
use crate::time::{age, distance};

/// How far a proof's `ts` may be from the Monitor's clock.
pub const CLOCK_WINDOW: Duration = Duration::from_secs(120);

/// How long a nonce is remembered.
pub const NONCE_MEMORY: Duration = Duration::from_secs(240);

/// How long an unused challenge stays good, unless told otherwise.
pub const CHALLENGE_LIFETIME: Duration = Duration::from_secs(600);

/// How often forgotten nonces are swept out.
const SWEEP: Duration = Duration::from_secs(10);

/// What a proof is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// A heartbeat, single or batch.
    Heartbeat,
    /// A WebSocket handshake.
    WebSocket,
}

#[derive(Debug)]
struct Challenge {
    issued: SystemTime,
    bound_to: Option<String>,
    had_websocket: bool,
}

#[derive(Debug, Default)]
struct Tokens {
    newest: String,
    before: Option<String>,
}

/// The Monitor's memory of credentials.
#[derive(Debug)]
pub struct Book {
    lifetime: Duration,
    challenges: HashMap<String, Challenge>,
    tokens: HashMap<String, Tokens>,
    nonces: HashMap<String, SystemTime>,
    swept: Option<SystemTime>,
}

impl Book {
    /// An empty book whose unused challenges expire after `lifetime`.
    #[must_use]
    pub fn new(lifetime: Duration) -> Self {
        Self {
            lifetime,
            challenges: HashMap::new(),
            tokens: HashMap::new(),
            nonces: HashMap::new(),
            swept: None,
        }
    }

    /// Writes a fresh challenge down.
    pub fn issue(&mut self, challenge: String, now: SystemTime) {
        let fresh = Challenge { issued: now, bound_to: None, had_websocket: false };
        self.challenges.insert(challenge, fresh);
    }

    /// Forgets every challenge and token, as a Monitor does whose database was lost.
    pub fn forget(&mut self) {
        self.challenges.clear();
        self.tokens.clear();
    }

    /// Judges a proof. An accepted one binds its challenge; one for the WebSocket uses it up.
    ///
    /// # Errors
    /// Why it is refused; its nonce counts as seen all the same.
    pub fn admit(
        &mut self,
        proof: &Proof,
        channel: Channel,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let off = distance(now, proof.at);
        if off > CLOCK_WINDOW {
            let detail = format!("ts is {} s from the Monitor's clock", off.as_secs());
            return Err(Refusal::new(Reason::Clock, detail));
        }
        self.sweep(now);
        let seen = self.nonces.get(&proof.nonce).is_some_and(|at| age(now, *at) <= NONCE_MEMORY);
        if seen {
            return Err(Refusal::new(Reason::Nonce, "the nonce was used before"));
        }
        self.nonces.insert(proof.nonce.clone(), now);
        match &proof.credential {
            Credential::Challenge(challenge) => {
                self.admit_challenge(challenge, proof, channel, now)
            }
            Credential::Token(token) => self.admit_token(token, proof),
        }
    }

    fn admit_challenge(
        &mut self,
        challenge: &str,
        proof: &Proof,
        channel: Channel,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let lifetime = self.lifetime;
        let Some(known) = self.challenges.get_mut(challenge) else {
            return Err(Refusal::new(Reason::UnknownChallenge, "no such challenge was issued"));
        };
        match &known.bound_to {
            None if age(now, known.issued) > lifetime => {
                let detail = format!("the challenge was not used within {} s", lifetime.as_secs());
                return Err(Refusal::new(Reason::ExpiredChallenge, detail));
            }
            Some(owner) if *owner != proof.identifier => {
                let detail = "the challenge belongs to another identifier";
                return Err(Refusal::new(Reason::OtherIdentifier, detail));
            }
            None | Some(_) => {}
        }
        if channel == Channel::WebSocket {
            if known.had_websocket {
                let detail = "the challenge has already had its WebSocket";
                return Err(Refusal::new(Reason::UsedChallenge, detail));
            }
            known.had_websocket = true;
        }
        if known.bound_to.is_none() {
            known.bound_to = Some(proof.identifier.clone());
        }
        Ok(())
    }

    fn admit_token(&mut self, token: &str, proof: &Proof) -> Result<(), Refusal> {
        let refused = || Refusal::new(Reason::UnknownToken, "the resume token is not honoured");
        let tokens = self.tokens.get_mut(&proof.identifier).ok_or_else(refused)?;
        if tokens.newest == token {
            tokens.before = None;
            Ok(())
        } else if tokens.before.as_deref() == Some(token) {
            Ok(())
        } else {
            Err(refused())
        }
    }

    /// Hands out the identifier's next token, after an accepted handshake that proved with
    /// `proved`.
    pub fn hand_out(&mut self, identifier: &str, proved: &Credential, token: String) {
        let before = match proved {
            Credential::Token(proved) => Some(proved.clone()),
            Credential::Challenge(_) => self.tokens.get(identifier).map(|old| old.newest.clone()),
        };
        self.tokens.insert(identifier.to_owned(), Tokens { newest: token, before });
    }

    fn sweep(&mut self, now: SystemTime) {
        if self.swept.is_some_and(|at| distance(now, at) < SWEEP) {
            return;
        }
        self.swept = Some(now);
        self.nonces.retain(|_, at| age(now, *at) <= NONCE_MEMORY);
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
