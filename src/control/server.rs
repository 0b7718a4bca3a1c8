//! Answers requests on the control socket.
//!
//! Invariants: a connection gives one request and gets one answer; it is given up when the request
//! does not come in [`REQUEST_WITHIN`], when a line of the answer is not taken in [`LINE_WITHIN`],
//! and at once when there is no place for it (see `places.rs`); memory for one is bounded by a
//! portion of the queue. What it asks of the queue stands behind appends. A flood of connections
//! lets the daemon's other tasks run.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::io::{AsyncReadExt as _, AsyncWriteExt as _};
use serde::Serialize;

use super::enroll::{self, Enrolling};
use super::places::{Given, Places};
pub use super::places::{MOST_CLIENTS, MOST_REFUSED};
use super::protocol::{
    Access, Line, MAX_REQUEST, Refusal, RefusalKind, Request, VERSION, Versioned,
};
use super::socket::{Bound, Peer};
use crate::bridge::Standing;
use crate::collector::openclaw::known::Known;
use crate::config::Config;
use crate::health::Health;
use crate::runtime::{self, TaskGuard, UnixStream, channel};
use crate::sample::CONNECTOR_VERSION;
use crate::store::{Store, StoreError, chain};

/// How long a client may take to say what it wants.
pub const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to read a portion of the answer.
pub const LINE_WITHIN: Duration = Duration::from_secs(30);
/// After a refusal, what the client still says is read for so long, and up to so many bytes.
const UNREAD_WITHIN: Duration = Duration::from_millis(500);
const MAX_UNREAD: usize = 1024 * 1024;

/// What answers are made from.
pub struct Daemon {
    /// The queue.
    pub store: Store,
    /// The link.
    pub health: Health,
    /// The configuration in force.
    pub config: Mutex<Arc<Config>>,
    /// The directory in use: that of the configuration takes effect at the next start.
    pub data_dir: PathBuf,
    /// When the daemon started.
    pub started: SystemTime,
    /// What a replay needs.
    pub replay: super::replay::Hands,
    /// The bridge.
    pub bridge: Standing,
    /// Takes up new credentials.
    pub enrolling: channel::Sender<Enrolling>,
    /// What is known of OpenClaw.
    pub known: Known,
}

impl Daemon {
    /// Another configuration is in force.
    pub fn use_config(&self, config: Arc<Config>) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The server; it ends when this is dropped.
pub struct Server {
    _task: TaskGuard<()>,
}

impl Server {
    /// Serves on a bound socket.
    ///
    /// # Errors
    /// When the runtime does not take the socket over.
    pub fn start(bound: Bound, daemon: Arc<Daemon>) -> std::io::Result<Self> {
        let listener = runtime::UnixListener::from(bound.listener.try_clone()?);
        let own_uid = rustix::process::geteuid().as_raw();
        let places = Places::new(own_uid);
        let task = runtime::spawn_guarded(async move {
            // Its file goes with it.
            let _bound = bound;
            loop {
                let stream = match listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of descriptors, say: it is not asked again at once.
                        tracing::debug!(%error, "control socket");
                        runtime::sleep(Duration::from_secs(1)).await;
                        continue;
                    }
                };
                let peer = Peer::of(&stream).ok();
                match places.give(peer.map(|peer| peer.uid)) {
                    Given::Place(place) => {
                        let daemon = daemon.clone();
                        runtime::spawn(async move {
                            let _place = place;
                            Client::new(stream).serve(&daemon, own_uid).await;
                        });
                    }
                    Given::Refusal(place, text) => {
                        runtime::spawn(async move {
                            let _place = place;
                            let refusal = Refusal::new(RefusalKind::Busy, text);
                            Client::new(stream).refuse(refusal).await;
                        });
                    }
                    Given::Nothing => drop(stream),
                }
                // In a flood there is always one more to accept.
                runtime::yield_now().await;
            }
        });
        Ok(Self { _task: task })
    }
}

/// Nobody reads the answer any more.
#[derive(Debug)]
pub struct Gone;

/// One connection, and the ways to answer on it.
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// A connection whose request has been read.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    async fn serve(&mut self, daemon: &Daemon, own_uid: u32) {
        let Some(line) = runtime::timeout(REQUEST_WITHIN, self.request()).await.flatten() else {
            return;
        };
        let done = match self.understood(&line, own_uid) {
            Ok(request) => self.answer(request, daemon).await,
            Err(refusal) => {
                self.refuse(refusal).await;
                return;
            }
        };
        // Whoever has gone needs no farewell.
        let _ = done;
    }

    /// One line, without its end; `None` when there is none or it is too long.
    async fn request(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let count = self.stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
            let read = buffer.get(..count)?;
            match read.iter().position(|byte| *byte == b'\n') {
                Some(at) => {
                    line.extend_from_slice(read.get(..at)?);
                    return (line.len() < MAX_REQUEST).then_some(line);
                }
                None => line.extend_from_slice(read),
            }
            if line.len() >= MAX_REQUEST {
                let text = format!("a request has at most {MAX_REQUEST} bytes");
                self.refuse(Refusal::new(RefusalKind::Request, text)).await;
                return None;
            }
        }
    }

    fn understood(&self, line: &[u8], own_uid: u32) -> Result<Request, Refusal> {
        #[derive(serde::Deserialize)]
        struct Version {
            v: u32,
        }
        let malformed = |error: serde_json::Error| {
            Refusal::new(RefusalKind::Request, format!("not a request: {error}"))
        };
        let Version { v } = serde_json::from_slice(line).map_err(malformed)?;
        if v != VERSION {
            let text = format!(
                "the daemon is of version {CONNECTOR_VERSION} and speaks version {VERSION} of its \
                 control protocol, this program {v}: use the program the daemon was started from"
            );
            return Err(Refusal::new(RefusalKind::Request, text));
        }
        let Versioned { request, .. } = serde_json::from_slice(line).map_err(malformed)?;
        if request.access() == Access::Change {
            let peer = Peer::of(&self.stream).map_err(|error| {
                Refusal::new(RefusalKind::Denied, format!("who is asking cannot be told: {error}"))
            })?;
            permitted(request.name(), peer, own_uid)?;
        }
        Ok(request)
    }

    async fn answer(&mut self, request: Request, daemon: &Daemon) -> Result<(), Gone> {
        let done = match request {
            Request::Status => super::report::status(self, daemon).await?,
            Request::Metrics => super::report::metrics(self, daemon).await?,
            Request::Dump(dump) => super::dump::answer(self, &dump, &daemon.store).await?,
            Request::Purge { what, dry_run } => {
                super::purge::answer(self, what, dry_run, &daemon.store).await?
            }
            Request::Verify => super::verify::answer(self, &daemon.store).await?,
            Request::Replay(replay) => self.replay(&replay, daemon).await?,
            Request::Enroll(request) => match enroll::ask(&daemon.enrolling, request).await {
                Ok(enrolled) => {
                    self.end(&enrolled).await?;
                    Ok(())
                }
                Err(refusal) => Err(refusal),
            },
        };
        if let Err(refusal) = done {
            self.refuse(refusal).await;
        }
        Ok(())
    }

    /// Whether the other side has closed; it has nothing more to say, so anything else is ignored.
    pub(super) async fn has_gone(&mut self) -> bool {
        let mut byte = [0];
        let read = runtime::timeout(Duration::ZERO, self.stream.read(&mut byte)).await;
        matches!(read, Some(Ok(0) | Err(_)))
    }

    pub(super) async fn item(&mut self, item: &impl Serialize) -> Result<(), Gone> {
        self.write(&encoded(&[Line::<_, Nothing>::Item(item)])).await
    }

    pub(super) async fn end(&mut self, end: &impl Serialize) -> Result<(), Gone> {
        self.write(&encoded(&[Line::<Nothing, _>::End(end)])).await
    }

    async fn refuse(&mut self, refusal: Refusal) {
        // Whoever has gone needs no reason.
        let _ = self.write(&encoded(&[Line::<Nothing, Nothing>::Error(refusal)])).await;
        // What was not read would take the reason with it: a close with something unread resets
        // the connection.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        let rest = async {
            let mut buffer = [0; 4096];
            let mut left = MAX_UNREAD;
            while let Ok(count @ 1..) = self.stream.read(&mut buffer).await {
                left = left.saturating_sub(count);
                if left == 0 {
                    return;
                }
            }
        };
        let _ = runtime::timeout(UNREAD_WITHIN, rest).await;
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        match runtime::timeout(LINE_WITHIN, self.stream.write_all(bytes)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(Gone),
        }
    }
}

/// Whether whoever is at the other end may change anything; logged either way.
fn permitted(request: &str, peer: Peer, own_uid: u32) -> Result<(), Refusal> {
    let Peer { uid, pid } = peer;
    if peer.may_change(own_uid) {
        tracing::info!(request, uid, pid, "asked over the control socket");
        return Ok(());
    }
    tracing::warn!(request, uid, pid, "refused");
    let text = format!(
        "`{request}` is for root and the daemon's own user (user id {own_uid}), you are user id \
         {uid}: use sudo"
    );
    Err(Refusal::new(RefusalKind::Denied, text))
}

#[derive(Serialize)]
pub(super) struct Nothing {}

pub(super) fn encoded<I: Serialize, E: Serialize>(lines: &[Line<I, E>]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        let before = out.len();
        // What goes over the socket is made of strings and numbers: it always becomes JSON.
        if serde_json::to_writer(&mut out, line).is_err() {
            out.truncate(before);
            continue;
        }
        out.push(b'\n');
    }
    out
}

/// What the queue's refusal means to whoever asks.
#[must_use]
pub fn of_store(error: &StoreError) -> Refusal {
    match error {
        // Its thread ends by itself only with the whole daemon.
        StoreError::Closed => Refusal::new(RefusalKind::Failed, "the daemon is stopping"),
        StoreError::Queue(_) | StoreError::NotOpen => {
            Refusal::new(RefusalKind::Storage, chain(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_daemons_own_user_may_change_anything() {
        for uid in [0, 997] {
            assert!(permitted("enroll", Peer { uid, pid: 1 }, 997).is_ok());
        }
        let refusal = permitted("enroll", Peer { uid: 1000, pid: 1 }, 997).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Denied);
        for part in ["`enroll`", "user id 997", "user id 1000", "sudo"] {
            assert!(refusal.message.contains(part), "{refusal}");
        }
    }

    #[test]
    fn a_stop_is_no_fault_of_the_queue() {
        let refusal = of_store(&StoreError::Closed);
        assert_eq!(refusal.kind, RefusalKind::Failed);
        assert_eq!(refusal.message, "the daemon is stopping");
        assert_eq!(of_store(&StoreError::NotOpen).kind, RefusalKind::Storage);
    }
}
