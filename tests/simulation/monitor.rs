//! A model of a Monitor after docs/PROTOCOL.md 3, 4, 5 and 7: whom it accepts, and what mood it
//! is in. What it has stored is kept with the run, since the invariants are about that.

use std::time::Duration;

use harborforge_connector::protocol::Capabilities;

const CHALLENGE_LIFETIME: Duration = Duration::from_secs(600);
const CLOCK_TOLERANCE: i64 = 120;

/// How it behaves, to whoever it has accepted and to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// The process is gone: connections are refused.
    Gone,
    /// It takes connections and answers nothing.
    Hangs,
    /// 503 to everything but the key, with these seconds to wait.
    Busy(u64),
    /// 500 to everything.
    Fails,
    /// 403 to everything but the key.
    Disowns,
    /// It refuses every sample, whatever is in it.
    RefusesSamples,
    /// It stores and never confirms over the WebSocket.
    Mute,
    /// It acknowledges what was never sent.
    Lies,
    /// A portal's page is in its place.
    Portal,
}

/// What a proof says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Challenge(u64),
    Token(u64),
    /// Mode `api_key`: the key of this number.
    ApiKey(u64),
}

/// A proof as the Monitor reads it.
#[derive(Debug, Clone, Copy)]
pub struct Proved {
    pub shown: Shown,
    /// The key it was encrypted with.
    pub key: u64,
    /// Seconds between its time and the Monitor's.
    pub off_by: i64,
}

#[derive(Debug, Clone, Copy)]
struct Challenge {
    id: u64,
    issued: Duration,
    bound: bool,
    used: bool,
}

#[derive(Debug)]
pub struct Monitor {
    /// Counted from its starts: what one has read and not dealt with is gone with it.
    pub process: u32,
    pub mood: Mood,
    pub capabilities: Capabilities,
    pub key: u64,
    challenge: Option<Challenge>,
    token: Option<u64>,
    /// Honoured until the newer one was proved.
    previous: Option<u64>,
    minted: u64,
}

impl Monitor {
    pub fn new(capabilities: Capabilities, key: u64) -> Self {
        Self {
            process: 0,
            mood: Mood::Well,
            capabilities,
            key,
            challenge: None,
            token: None,
            previous: None,
            // Tokens of different Monitors are different.
            minted: key * 1_000_000,
        }
    }

    pub fn issue(&mut self, id: u64, now: Duration) {
        self.challenge = Some(Challenge { id, issued: now, bound: false, used: false });
    }

    /// Issues another API key; the one before is refused from now on.
    pub fn renew_api_key(&mut self, now: Duration) -> u64 {
        let id = self.challenge.map_or(1, |before| before.id + 1);
        self.issue(id, now);
        id
    }

    /// Whether this API key is the one that is accepted.
    pub fn has_api_key(&self, key: u64) -> bool {
        self.challenge.is_some_and(|issued| issued.id == key)
    }

    /// Whether the challenge had expired by then, and nobody had shown it.
    pub fn ran_out_before(&self, then: Duration) -> bool {
        self.challenge.is_some_and(|c| !c.bound && c.issued + CHALLENGE_LIFETIME < then)
    }

    /// Its database was restored: tokens are unknown.
    pub fn forget_tokens(&mut self) {
        self.token = None;
        self.previous = None;
    }

    /// Whether heartbeats proved with this challenge, or with this token, are acceptable for good.
    pub fn knows(&self, challenge: u64, token: Option<u64>) -> bool {
        let bound = self.challenge.is_some_and(|c| c.id == challenge && c.bound);
        bound || token.is_some_and(|token| self.is_token(token))
    }

    fn is_token(&self, token: u64) -> bool {
        self.token == Some(token) || self.previous == Some(token)
    }

    /// Whether the clock and the key are right.
    fn legible(&self, proved: &Proved) -> bool {
        proved.key == self.key && proved.off_by.abs() <= CLOCK_TOLERANCE
    }

    /// A heartbeat's proof.
    pub fn accepts_heartbeat(&mut self, proved: &Proved, now: Duration) -> bool {
        match proved.shown {
            Shown::ApiKey(key) => self.has_api_key(key),
            Shown::Challenge(id) if self.legible(proved) => self.takes_challenge(id, now, false),
            Shown::Token(token) if self.legible(proved) => self.takes_token(token),
            Shown::Challenge(_) | Shown::Token(_) => false,
        }
    }

    /// A WebSocket's proof: the token it hands out, if it does, when it accepts.
    pub fn accepts_link(&mut self, proved: &Proved, now: Duration) -> Option<Option<u64>> {
        let accepted = self.legible(proved)
            && match proved.shown {
                Shown::ApiKey(_) => false,
                Shown::Challenge(id) => self.takes_challenge(id, now, true),
                Shown::Token(token) => self.takes_token(token),
            };
        if !accepted {
            return None;
        }
        if !self.capabilities.resume {
            return Some(None);
        }
        self.minted += 1;
        // Whoever comes with the previous one has never seen the current.
        self.previous = match proved.shown {
            Shown::Token(token) => Some(token),
            Shown::Challenge(_) | Shown::ApiKey(_) => self.token,
        };
        self.token = Some(self.minted);
        Some(self.token)
    }

    fn takes_challenge(&mut self, id: u64, now: Duration, for_link: bool) -> bool {
        let Some(challenge) = self.challenge.as_mut().filter(|c| c.id == id) else { return false };
        let expired = !challenge.bound && now > challenge.issued + CHALLENGE_LIFETIME;
        if expired || (for_link && challenge.used) {
            return false;
        }
        challenge.bound = true;
        challenge.used |= for_link;
        true
    }

    fn takes_token(&mut self, token: u64) -> bool {
        if !self.is_token(token) {
            return false;
        }
        if self.token == Some(token) {
            self.previous = None;
        }
        true
    }
}
