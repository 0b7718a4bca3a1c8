//! The Monitor as its users hold it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_std::future::timeout;
use async_std::task;
use futures_rustls::TlsAcceptor;
use rsa::RsaPrivateKey;
use uuid::Uuid;

use crate::book::{Book, CHALLENGE_LIFETIME};
use crate::door::Door;
use crate::error::Error;
use crate::journal::{Accepted, Counts, Journal, Seen};
use crate::key::{Capability, Key, KeyShape};
use crate::rules::{DuplicateAnswer, Mode, Rules, Settings};
use crate::schedule::{Plan, Schedule};
use crate::shared::{Observer, Shared, State};
use crate::tls::{self, Tls};
use crate::{connection, control};

/// How a Monitor is to be.
#[derive(Clone)]
pub struct Options {
    /// Where to listen; port 0 for any free one.
    pub addr: SocketAddr,
    /// Where the control interface listens, if it is wanted.
    pub control: Option<SocketAddr>,
    /// Plain, encrypted, or encrypted wrongly.
    pub tls: Tls,
    /// What comes before the endpoints in a URL: `/harbor`, or nothing.
    pub path_prefix: String,
    /// Who may come in.
    pub mode: Mode,
    /// The extensions offered; none by default.
    pub capabilities: BTreeSet<Capability>,
    /// How the key document looks.
    pub key_shape: KeyShape,
    /// The RSA key; a fresh one of `key_bits` when there is none.
    pub key: Option<RsaPrivateKey>,
    /// Bits of a fresh key.
    pub key_bits: usize,
    /// How duplicates are answered.
    pub duplicates: DuplicateAnswer,
    /// Whether only a sample's identifying fields are checked, and not all of it.
    pub lenient: bool,
    /// How long an unused challenge stays good.
    pub challenge_lifetime: Duration,
    /// Seconds by which the Monitor's clock is ahead of the machine's.
    pub clock_offset: i64,
    /// How many payloads and requests are kept; older ones are still counted and known.
    pub keep: usize,
    /// Is told of every sample and refusal.
    pub observer: Option<Observer>,
}

impl Default for Options {
    /// Plain HTTP on a free port of 127.0.0.1, challenges, no extension.
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            control: None,
            tls: Tls::Off,
            path_prefix: String::new(),
            mode: Mode::Challenge,
            capabilities: BTreeSet::new(),
            key_shape: KeyShape::default(),
            key: None,
            key_bits: 2048,
            duplicates: DuplicateAnswer::Ok,
            lenient: false,
            challenge_lifetime: CHALLENGE_LIFETIME,
            clock_offset: 0,
            keep: 10_000,
            observer: None,
        }
    }
}

/// What a stopped Monitor leaves behind.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The counts.
    pub counts: Counts,
    /// The newest accepted samples.
    pub accepted: Vec<Accepted>,
}

/// What the handle and the control interface share.
pub(crate) struct Inner {
    pub shared: Arc<Shared>,
    front: Door,
    acceptor: Option<TlsAcceptor>,
}

impl Inner {
    pub fn issue_challenge(&self) -> String {
        let challenge = Uuid::new_v4().to_string();
        self.shared.change(|state, now| state.rules.book.issue(challenge.clone(), now));
        challenge
    }

    pub fn misbehave(&self, plan: Plan) {
        self.shared.change(|state, _| state.schedule.add(plan));
    }

    pub fn heal(&self) {
        self.shared.change(|state, _| state.schedule.clear());
    }

    pub async fn pause(&self) {
        self.front.shut();
        self.front.ended().await;
    }

    pub async fn resume(&self) -> Result<(), Error> {
        // A listener that is still there would be in the new one's way.
        self.pause().await;
        let shared = Arc::clone(&self.shared);
        let acceptor = self.acceptor.clone();
        let serve = move |tcp| connection::serve(Arc::clone(&shared), acceptor.clone(), tcp);
        let addr = self.front.addr();
        self.front.open(serve).await.map_err(|source| Error::Listen { addr, source })
    }
}

/// A running Monitor; it goes down when this is dropped.
pub struct Monitor {
    inner: Arc<Inner>,
    control: Option<Door>,
    scheme: &'static str,
    ca_pem: Option<String>,
}

impl Monitor {
    /// Starts a Monitor. Without [`Options::key`] it first makes one, which takes a moment.
    ///
    /// # Errors
    /// [`Error::Listen`] when an address cannot be listened on, [`Error::Key`] and [`Error::Tls`]
    /// when the key or the certificates cannot be made.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let private = match options.key {
            Some(key) => key,
            None => task::spawn_blocking(move || Key::generate(options.key_bits)).await?,
        };
        let reserve = |addr| Door::reserve(addr).map_err(|source| Error::Listen { addr, source });
        let front = reserve(options.addr)?;
        let control = options.control.map(reserve).transpose()?;
        let certificates = tls::make(options.tls, &front.addr().ip().to_string())?;
        let (acceptor, ca_pem) = certificates.map(|made| (made.acceptor, made.ca_pem)).unzip();
        let state = State {
            rules: Rules {
                settings: Settings {
                    mode: options.mode,
                    capabilities: options.capabilities,
                    key_shape: options.key_shape,
                    duplicates: options.duplicates,
                    lenient: options.lenient,
                },
                book: Book::new(options.challenge_lifetime),
                journal: Journal::new(options.keep),
            },
            schedule: Schedule::default(),
            key: Arc::new(Key::new(private)?),
            clock_offset: options.clock_offset,
        };
        let trimmed = options.path_prefix.trim_matches('/');
        let prefix = if trimmed.is_empty() { String::new() } else { format!("/{trimmed}") };
        let shared = Arc::new(Shared::new(state, options.observer, prefix));
        let inner = Arc::new(Inner { shared, front, acceptor });
        inner.resume().await?;
        let scheme = if ca_pem.is_some() { "https" } else { "http" };
        let monitor = Self { inner, control, scheme, ca_pem };
        if let Some(control) = &monitor.control {
            let inner = Arc::clone(&monitor.inner);
            let serve = move |tcp| {
                let inner = Arc::clone(&inner);
                connection::serve_side(tcp, move |request| {
                    control::serve(Arc::clone(&inner), request)
                })
            };
            let addr = control.addr();
            control.open(serve).await.map_err(|source| Error::Listen { addr, source })?;
        }
        Ok(monitor)
    }

    /// The `backend_url` for a connector, path prefix included.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.addr(), self.inner.shared.prefix)
    }

    /// The address, with the port that was given.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.inner.front.addr()
    }

    /// The control interface's address.
    #[must_use]
    pub fn control_addr(&self) -> Option<SocketAddr> {
        self.control.as_ref().map(Door::addr)
    }

    /// The CA a client has to trust, PEM; `None` without TLS.
    #[must_use]
    pub fn ca_pem(&self) -> Option<String> {
        self.ca_pem.clone()
    }

    /// The RSA key's fingerprint: hex SHA-256 of its SPKI DER.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.inner.shared.look(|state| state.key.fingerprint().to_owned())
    }

    /// The RSA key's SPKI PEM.
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        self.inner.shared.look(|state| state.key.pem().to_owned())
    }

    /// Replaces the RSA key, as a Monitor does that was set up again.
    ///
    /// # Errors
    /// [`Error::Key`] when its public half cannot be encoded.
    pub fn set_key(&self, key: RsaPrivateKey) -> Result<(), Error> {
        let key = Arc::new(Key::new(key)?);
        self.inner.shared.change(|state, _| state.key = key);
        Ok(())
    }

    /// Issues a challenge: a UUID.
    #[must_use]
    pub fn issue_challenge(&self) -> String {
        self.inner.issue_challenge()
    }

    /// Forgets every challenge and token: whoever was enrolled is unknown now.
    pub fn forget_credentials(&self) {
        self.inner.shared.change(|state, _| state.rules.book.forget());
    }

    /// Moves the Monitor's clock to so many seconds ahead of the machine's.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.inner.shared.change(|state, _| state.clock_offset = seconds);
    }

    /// Changes what the Monitor offers and asks for, from the next request on.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        self.inner.shared.change(|state, _| change(&mut state.rules.settings));
    }

    /// The newest accepted samples, in the order of their first arrival.
    #[must_use]
    pub fn accepted(&self) -> Vec<Accepted> {
        self.journal(Journal::accepted)
    }

    /// The figures since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.journal(|journal| journal.counts().clone())
    }

    /// The newest requests, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.journal(Journal::seen)
    }

    /// Looks at the journal; everything else waits meanwhile.
    pub fn journal<T>(&self, look: impl FnOnce(&Journal) -> T) -> T {
        self.inner.shared.look(|state| look(&state.rules.journal))
    }

    /// Misbehaves from now on as planned; a bare [`crate::Fault`] means always and everywhere.
    pub fn misbehave(&self, plan: impl Into<Plan>) {
        self.inner.misbehave(plan.into());
    }

    /// Stops misbehaving.
    pub fn heal(&self) {
        self.inner.heal();
    }

    /// Waits until `holds`, which is asked after every change.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it does not within `limit`; says what the counts are instead.
    pub async fn wait_for(
        &self,
        mut holds: impl FnMut(&Journal) -> bool,
        limit: Duration,
    ) -> Result<(), Error> {
        let held = self.inner.shared.until(|state| holds(&state.rules.journal));
        timeout(limit, held).await.map_err(|_| Error::Timeout {
            after: limit,
            counts: serde_json::to_string(&self.counts()).unwrap_or_default(),
        })
    }

    /// Goes down: refuses connections and ends the ones there are, as a crash would. Everything
    /// known is kept, the port too. Returns when it is so.
    pub async fn pause(&self) {
        self.inner.pause().await;
    }

    /// Comes back on the same port. A Monitor that was not down goes down first, as in a restart.
    ///
    /// # Errors
    /// [`Error::Listen`] when the system does not let it.
    pub async fn resume(&self) -> Result<(), Error> {
        self.inner.resume().await
    }

    /// Goes down for good and tells what there was.
    pub async fn stop(self) -> Snapshot {
        self.pause().await;
        if let Some(control) = &self.control {
            control.shut();
            control.ended().await;
        }
        Snapshot { counts: self.counts(), accepted: self.accepted() }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.inner.front.shut();
        if let Some(control) = &self.control {
            control.shut();
        }
    }
}
