//! Does what the machine says: the thin shell around [`super::machine`].
//!
//! Invariants: events are handled one at a time, and the commands of one event are carried out in
//! order before the next is taken, so a sample is among the rejected before the cursor passes it;
//! requests run as tasks of their own and come back as events, so nothing here waits for the
//! network; only [`Command::Acknowledge`] and [`Command::Reject`] change the queue.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{FutureExt as _, pending};
use futures_util::select_biased;
use harborforge_storage::{Confirmation, Limits};
use secrecy::{ExposeSecret as _, SecretString};
use tracing::{Instrument as _, Span};

use super::advice::advice;
use super::agents::{OpenClaw, status_changed};
use super::beside::Links;
use super::journal::{DeliveryLine, Journal};
use super::link::{Connected, KeyFetched, Link};
use super::load::Load;
use super::machine::{
    Answered, Attempt, Command, Event, Failure, FailureKind, Handshake, KeyNews, LinkEvent,
    Machine, Now, Proof, QueueView, Report, Selection, Settings, Transport,
};
use super::socket::{Events, OpenLink};
use crate::busy::Busy;
use crate::collector::OpenClawView;
use crate::collector::clock::since_boot;
use crate::collector::openclaw::{self, known::Known};
use crate::health::Health;
use crate::runtime::{self, Clock, TaskGuard, channel};
use crate::sample::Agent;
use crate::state::{Resume, StateFile, Unwritten};
use crate::store::{Store, StoreError, chain};

/// Marks confirmations in the queue with the transport they came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfirmedBy {
    /// The WebSocket.
    Websocket = 1,
    /// The heartbeat.
    Http = 2,
}

/// Waits before an acknowledgement the disk refused is tried again.
const RETRY_LOCAL: Duration = Duration::from_secs(5);

/// What the daemon tells the sender.
pub enum Order {
    /// The cadence or a cap has changed.
    Settings(Settings),
    /// Send with this from now on.
    Use {
        /// Endpoint, identifier and credential.
        link: Box<Link>,
        /// Cadence and caps.
        settings: Settings,
        /// Whether it is another Monitor than before.
        moved: bool,
    },
    /// The key document was fetched for a replay.
    KeyFetched(KeyFetched),
    /// Answer here, to show that this turns.
    ShowLife(channel::Sender<()>),
    /// Try now.
    TryNow,
    /// Start nothing more and end when nothing is under way.
    Shutdown,
}

enum Done {
    Key(Attempt, Result<KeyFetched, Failure>),
    Answer(Attempt, Answered),
    Connected(Attempt, Connected),
}

/// A link on its way up or open; there is never more than one.
enum Wire {
    None,
    Connecting {
        name: Attempt,
        _task: TaskGuard<()>,
    },
    /// `greeted`: `server.hello` has gone out, so events may follow it.
    Open {
        link: OpenLink,
        token: Option<SecretString>,
        greeted: bool,
    },
}

/// The sender: the machine and what it drives.
pub struct Driver {
    machine: Machine,
    clock: Clock,
    store: Store,
    link: Arc<Link>,
    /// The same, for those who post beside this.
    links: Links,
    state: StateFile,
    journals: Journals,
    health: Health,
    /// While it waits for the disk.
    at_disk: Busy,
    rejected: u64,
    /// The Monitor's key has changed since something was delivered.
    key_changed: bool,
    /// What is known of OpenClaw. Its signal is one at most, and the view is taken when it is heard:
    /// a sender that waits for the disk gathers none.
    known: Known,
    /// What the Monitor was told of it.
    openclaw: OpenClaw,
    /// Refused samples that are still to be put aside.
    owed: BTreeMap<u64, String>,
    wake: Option<Duration>,
    wire: Wire,
    /// Events that follow the last one before anything else does.
    at_once: VecDeque<Event>,
    done: (channel::Sender<Done>, channel::Receiver<Done>),
    frames: (Events, channel::Receiver<(Attempt, LinkEvent)>),
    orders: channel::Receiver<Order>,
}

enum Next {
    Event(Event),
    Order(Order),
    Done(Done),
    /// What is known of OpenClaw has changed.
    OpenClaw,
}

impl Driver {
    /// A sender that takes orders from `orders`.
    #[must_use]
    pub fn new(
        settings: Settings,
        link: Link,
        store: Store,
        state: StateFile,
        clock: Clock,
        health: Health,
        orders: channel::Receiver<Order>,
    ) -> Self {
        link.remember(state.get().key_fingerprint, state.token(link.identifier()));
        let token = link.has_token();
        let link = Arc::new(link);
        Self {
            machine: Machine::new(settings, token),
            clock,
            store,
            links: Links::new(link.clone()),
            link,
            state,
            journals: Journals::default(),
            health,
            at_disk: Busy::default(),
            rejected: 0,
            key_changed: false,
            known: Known::new(),
            openclaw: OpenClaw::default(),
            owed: BTreeMap::new(),
            wake: None,
            wire: Wire::None,
            at_once: VecDeque::new(),
            // Never more than a heartbeat, a handshake and the key for each under way.
            done: channel::bounded(4),
            // A full channel makes the link's reader wait, and so the Monitor.
            frames: channel::bounded(64),
            orders,
        }
    }

    /// Tells over the WebSocket how OpenClaw is, and at once when that changes
    /// (docs/PROTOCOL.md 4).
    #[must_use]
    pub fn hinting(self, known: Known) -> Self {
        Self { known, ..self }
    }

    /// The link in force, for those who post beside this.
    #[must_use]
    pub fn links(&self) -> Links {
        self.links.clone()
    }

    /// Busy while it waits for the disk; for who watches that it lives.
    #[must_use]
    pub fn at_disk(&self) -> Busy {
        self.at_disk.clone()
    }

    /// Runs until [`Order::Shutdown`] is carried out, or whoever gives orders is gone.
    pub async fn run(mut self) {
        let mut next = Next::Event(Event::Queue(self.queue_view()));
        loop {
            let span = self.span(&next);
            if self.step(next).instrument(span).await {
                return;
            }
            next = match self.at_once.pop_front() {
                Some(event) => Next::Event(event),
                None => self.wait().await,
            };
        }
    }

    /// Handles one thing that happened; whether it was the last.
    async fn step(&mut self, next: Next) -> bool {
        let event = match next {
            Next::Event(event) => event,
            Next::Order(order) => self.obey(order).await,
            Next::Done(done) => self.came_back(done).await,
            Next::OpenClaw => {
                self.hint();
                // Nothing to decide: a hint goes at once or not at all.
                Event::Tick
            }
        };
        let now = Now { mono: self.clock.mono(), wall: self.clock.wall() };
        self.wake = None;
        for command in self.machine.handle(now, event, runtime::seed()) {
            if matches!(command, Command::Finished) {
                return true;
            }
            self.carry_out(command).await;
        }
        false
    }

    /// The try that log lines about this belong to.
    fn span(&self, next: &Next) -> Span {
        match next {
            Next::Done(Done::Key(attempt, _)) | Next::Event(Event::Key { attempt, .. }) => {
                key_span(*attempt)
            }
            Next::Done(Done::Answer(attempt, _)) | Next::Event(Event::Answer { attempt, .. }) => {
                link_span(*attempt, Transport::Http)
            }
            Next::Done(Done::Connected(link, _))
            | Next::Event(
                Event::Handshake { link, .. }
                | Event::TokenSaved { link, .. }
                | Event::Link { link, .. },
            ) => link_span(*link, Transport::Websocket),
            // What ends by the clock alone is a link on which nothing came in time.
            Next::Event(Event::Tick) => match &self.wire {
                Wire::Open { link, .. } => link_span(link.name, Transport::Websocket),
                Wire::Connecting { name, .. } => link_span(*name, Transport::Websocket),
                Wire::None => Span::none(),
            },
            Next::Event(
                Event::Queue(_)
                | Event::Settings(_)
                | Event::Credentials
                | Event::Endpoint { .. }
                | Event::TryNow
                | Event::Shutdown,
            )
            | Next::Order(_)
            | Next::OpenClaw => Span::none(),
        }
    }

    async fn wait(&self) -> Next {
        let wake = self.wake.map(|at| at.saturating_sub(self.clock.mono()));
        let sleep = async {
            match wake {
                Some(wait) => runtime::sleep(wait).await,
                None => pending().await,
            }
        };
        select_biased! {
            order = self.orders.recv().fuse() => Next::Order(order.unwrap_or(Order::Shutdown)),
            done = self.done.1.recv().fuse() => {
                done.map_or(Next::Event(Event::Shutdown), Next::Done)
            }
            frame = self.frames.1.recv().fuse() => match frame {
                Ok((link, event)) => Next::Event(Event::Link { link, event }),
                Err(_) => Next::Event(Event::Shutdown),
            },
            () = self.store.changed().fuse() => Next::Event(Event::Queue(self.queue_view())),
            () = sleep.fuse() => Next::Event(Event::Tick),
            // Last: whoever pushes without end holds nothing else up.
            _ = self.known.changed().recv().fuse() => Next::OpenClaw,
        }
    }

    fn queue_view(&self) -> QueueView {
        match self.store.view().queue {
            Some(at) if at.pending > 0 => QueueView { head: at.cursor + 1, next: at.next_seq },
            Some(at) => QueueView { head: at.next_seq, next: at.next_seq },
            // Not open yet: nothing can be read, so nothing is sent.
            None => QueueView { head: 0, next: 0 },
        }
    }

    async fn obey(&mut self, order: Order) -> Event {
        match order {
            Order::Settings(settings) => {
                self.health.transports(settings.transports);
                Event::Settings(settings)
            }
            Order::Use { link, settings, moved } => {
                if moved {
                    let change = self.state.move_to(link.backend_url());
                    self.save(change).await;
                    let state = self.state.get().key_fingerprint;
                    link.remember(state, self.state.token(link.identifier()));
                } else {
                    link.take_over(&self.link);
                }
                self.link = Arc::from(link);
                self.links.replace(self.link.clone());
                self.health.start_over(self.clock.wall(), settings.transports);
                self.key_changed = false;
                // The settings first, since the mode is among them: a try that they set off
                // counts as one with the old credentials, whose failure says nothing.
                self.at_once.push_back(if moved {
                    Event::Endpoint { token: self.link.has_token() }
                } else {
                    Event::Credentials
                });
                Event::Settings(settings)
            }
            Order::KeyFetched(fetched) => {
                self.key_fetched(&fetched).await;
                // Nothing to decide: it was not this one's try.
                Event::Tick
            }
            Order::ShowLife(answer) => {
                // Nobody listens any more: then nobody needs to know.
                let _ = answer.try_send(());
                // Nothing to decide.
                Event::Tick
            }
            Order::TryNow => Event::TryNow,
            Order::Shutdown => Event::Shutdown,
        }
    }

    /// Takes up what is known of OpenClaw; gives the agents that changed.
    fn look_at_openclaw(&mut self) -> Vec<Agent> {
        let view = openclaw::view(&self.known, since_boot());
        let OpenClawView { version, agents, plugin_version: _ } = view;
        self.openclaw.update(OpenClaw { version, agents })
    }

    fn hint(&mut self) {
        let changed = self.look_at_openclaw();
        if let Wire::Open { link, greeted: true, .. } = &self.wire
            && !changed.is_empty()
        {
            link.hint(status_changed(self.link.identifier(), &changed));
        }
    }

    /// Makes a change of the state durable, where it may wait for the disk; tells whether it is.
    async fn save(&self, change: Option<Unwritten>) -> bool {
        let Some(change) = change else { return true };
        let _wait = self.at_disk.begin();
        match runtime::spawn_blocking(move || change.write()).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "state.json cannot be written, what it remembers is lost at a restart");
                false
            }
        }
    }

    async fn came_back(&mut self, done: Done) -> Event {
        match done {
            Done::Answer(attempt, result) => Event::Answer { attempt, result },
            Done::Connected(name, outcome) => self.connected(name, outcome),
            Done::Key(attempt, Err(failure)) => Event::Key { attempt, result: Err(failure) },
            Done::Key(attempt, Ok(fetched)) => {
                self.key_fetched(&fetched).await;
                let changed = fetched.replaces.is_some();
                let news = KeyNews { capabilities: fetched.capabilities, changed };
                Event::Key { attempt, result: Ok(news) }
            }
        }
    }

    /// Says and remembers what a key document says of the key.
    async fn key_fetched(&mut self, fetched: &KeyFetched) {
        if let Some(before) = &fetched.replaces {
            self.key_changed = true;
            tracing::warn!(
                before = %before, now = %fetched.fingerprint,
                "the Monitor's key has changed; set public_key_sha256 to accept one key only"
            );
        }
        // A document that was on its way while the Monitor was changed is the old one's.
        if fetched.backend_url == self.link.backend_url() {
            let fingerprint = Some(fetched.fingerprint);
            let change = self.state.update(|state| state.key_fingerprint = fingerprint);
            self.save(change).await;
        }
        tracing::debug!(key = %fetched.fingerprint, capabilities = ?fetched.capabilities, "key document fetched");
    }

    /// A handshake ended: takes over the socket of an accepted one.
    fn connected(&mut self, name: Attempt, outcome: Connected) -> Event {
        if !matches!(self.wire, Wire::Connecting { name: current, .. } if current == name) {
            // Called off meanwhile: the socket closes with the outcome.
            return Event::Tick;
        }
        let result = match outcome {
            Connected::Refused(said) => Handshake::Refused(said),
            Connected::Busy(wait, said) => Handshake::Busy(wait, said),
            Connected::Broken(failure) => Handshake::Broken(failure),
            Connected::Accepted { socket, token } => {
                let (link, store) = (self.link.clone(), self.store.clone());
                let open = OpenLink::new(name, *socket, link, store, &self.frames.0);
                let has_token = token.is_some();
                self.wire = Wire::Open { link: open, token, greeted: false };
                return Event::Handshake {
                    link: name,
                    result: Handshake::Accepted { token: has_token },
                };
            }
        };
        self.wire = Wire::None;
        Event::Handshake { link: name, result }
    }

    /// Makes the token durable, and uses it from then on.
    async fn save_token(&mut self, name: Attempt) {
        let Wire::Open { link, token, .. } = &mut self.wire else { return };
        let Some(token) = token.take().filter(|_| link.name == name) else { return };
        let resume = Resume {
            identifier: self.link.identifier().to_owned(),
            token: token.expose_secret().to_owned(),
        };
        let change = self.state.update(|state| state.resume = Some(resume));
        let saved = self.save(change).await;
        if saved {
            self.link.set_token(token);
        }
        self.at_once.push_back(Event::TokenSaved { link: name, saved });
    }

    /// The open link of this name.
    fn open(&self, name: Attempt) -> Option<&OpenLink> {
        match &self.wire {
            Wire::Open { link, .. } if link.name == name => Some(link),
            Wire::Open { .. } | Wire::Connecting { .. } | Wire::None => None,
        }
    }

    async fn carry_out(&mut self, command: Command) {
        match command {
            Command::WakeAt(at) => self.wake = Some(at),
            Command::FetchKey { attempt } => {
                let link = self.link.clone();
                let fetch = async move { link.fetch_key().await };
                let request = self.request(fetch, move |result| {
                    Done::Key(attempt, result.unwrap_or_else(|| Err(panicked())))
                });
                runtime::spawn(request.instrument(key_span(attempt)));
            }
            Command::Post { attempt, selection, proof } => {
                let (link, store) = (self.link.clone(), self.store.clone());
                let post = async move { post(&link, &store, selection, proof).await };
                let request = self.request(post, move |result| {
                    Done::Answer(attempt, result.unwrap_or_else(|| Answered::Failed(panicked())))
                });
                runtime::spawn(request.instrument(link_span(attempt, Transport::Http)));
            }
            Command::Connect { link: name, proof } => {
                let span = link_span(name, Transport::Websocket);
                let link = self.link.clone();
                let connect = async move { link.connect(proof).await };
                let request = self.request(connect, move |result| {
                    Done::Connected(name, result.unwrap_or_else(|| Connected::Broken(panicked())))
                });
                let _task = runtime::spawn_guarded(request.instrument(span));
                self.wire = Wire::Connecting { name, _task };
            }
            Command::SaveToken { link } => self.save_token(link).await,
            Command::Hello { link } => {
                self.look_at_openclaw();
                if let Wire::Open { link: open, greeted, .. } = &mut self.wire
                    && open.name == link
                {
                    open.text(self.openclaw.hello(self.link.identifier()));
                    *greeted = true;
                }
            }
            Command::Send { link, from, records, bytes } => {
                if let Some(open) = self.open(link) {
                    open.samples(from, records, bytes);
                }
            }
            Command::Ping { link, payload } => {
                if let Some(open) = self.open(link) {
                    open.ping(payload);
                }
            }
            Command::CloseLink { .. } => {
                if let Wire::Open { link, .. } = std::mem::replace(&mut self.wire, Wire::None) {
                    link.close().await;
                }
            }
            Command::Acknowledge { up_to, transport } => self.acknowledge(up_to, transport).await,
            Command::Reject { seq, reason } => {
                self.owed.insert(seq, reason);
                self.put_aside().await;
            }
            Command::Report(report) => self.report(report),
            // Ends `run` before it gets here.
            Command::Finished => {}
        }
    }

    /// A request to be run as a task of its own; its end comes back through the channel.
    /// A panic on the way is a failure like another: the machine must not wait for ever.
    fn request<T: Send + 'static>(
        &self,
        request: impl Future<Output = T> + Send + 'static,
        done: impl FnOnce(Option<T>) -> Done + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let sender = self.done.0.clone();
        async move {
            let outcome = AssertUnwindSafe(request).catch_unwind().await.ok();
            // Only a driver that has ended does not listen any more.
            let _ = sender.send(done(outcome)).await;
        }
    }

    /// Moves the cursor, unless a refused sample below it could not be put aside: it would count
    /// as delivered and be kept nowhere.
    async fn acknowledge(&mut self, up_to: u64, transport: Transport) {
        self.put_aside().await;
        if self.owed.keys().next().is_some_and(|seq| *seq <= up_to) {
            return;
        }
        let tag = match transport {
            Transport::Http => ConfirmedBy::Http,
            Transport::Websocket => ConfirmedBy::Websocket,
        };
        let at = Confirmation { wall_ms: self.store.now().wall_ms, tag: tag as u8 };
        let told = self.link.told().confirmed(up_to);
        let health = self.health.clone();
        let figures = self.store.figures().clone();
        figures.duplicates(self.link.take_duplicates());
        let acknowledged = self
            .in_queue("acknowledge", move |queue| {
                let before = queue.counters().acknowledged;
                queue.acknowledge(up_to, at)?;
                health.delivered(transport, queue.counters().acknowledged - before);
                figures.confirmed(up_to, Instant::now());
                if told.is_empty() { Ok(()) } else { queue.gaps_announced(&told) }
            })
            .await;
        if acknowledged {
            tracing::debug!(up_to, transport = name(transport), "acknowledged");
        }
    }

    /// Puts the refused samples aside that are owed; one the disk refuses stays owed, and stays
    /// pending.
    async fn put_aside(&mut self) {
        while let Some((seq, reason)) = self.owed.pop_first() {
            let (now, said) = (self.store.now(), reason.clone());
            if !self.in_queue("reject", move |queue| queue.reject(seq, &said, now)).await {
                self.owed.insert(seq, reason);
                return;
            }
            self.store.figures().dropped(&(seq..=seq));
            self.rejected += 1;
            let round = 10u64.checked_pow(self.rejected.ilog10()) == Some(self.rejected);
            if self.rejected < 10 || round {
                tracing::warn!(
                    seq, %reason, rejected = self.rejected,
                    "the Monitor refuses this sample for good; it is kept, see `dump --state rejected`"
                );
            }
        }
    }

    /// Tells whether the change was made. One that was not is not repeated here: the queue still
    /// holds the samples, so the machine is told how far it really is and sends them again. The
    /// pace is held down meanwhile.
    async fn in_queue<F>(&mut self, what: &'static str, change: F) -> bool
    where
        F: FnOnce(&mut harborforge_storage::Queue) -> Result<(), harborforge_storage::Error>
            + Send
            + 'static,
    {
        let result = {
            let _wait = self.at_disk.begin();
            self.store.call(change).await
        };
        let now = self.clock.mono();
        match result {
            Ok(()) => {
                if let Some(DeliveryLine::Recovered { failures, .. }) =
                    self.journals.queue.delivered(now)
                {
                    tracing::info!(failures, "the queue takes changes again");
                }
                return true;
            }
            Err(StoreError::Closed) => {}
            Err(error @ (StoreError::Queue(_) | StoreError::NotOpen)) => {
                if let Some(line) = self.journals.queue.failed(now, FailureKind::Local) {
                    tracing::error!(
                        error = %chain(&error), operation = what, failures = line.failures,
                        "the queue refuses a change, it is tried again"
                    );
                }
                runtime::sleep(RETRY_LOCAL).await;
                self.at_once.push_back(Event::Queue(self.queue_view()));
            }
        }
        false
    }

    fn delivering(&mut self, now: Duration, transport: Transport) {
        match self.journals.of(transport).delivered(now) {
            Some(DeliveryLine::First) => {
                tracing::info!(transport = name(transport), "delivering");
            }
            Some(DeliveryLine::Recovered { failures, after }) => tracing::info!(
                transport = name(transport),
                failures,
                after = %humantime::format_duration(whole_seconds(after)),
                "delivering again"
            ),
            None => {}
        }
    }

    fn report(&mut self, report: Report) {
        let now = self.clock.mono();
        self.health.report(self.clock.wall(), &report);
        if let Some(skew) = self.link.skew() {
            self.health.skew(skew.millis);
        }
        match report {
            Report::Delivered { transport } => {
                self.key_changed = false;
                self.delivering(now, transport);
            }
            Report::Linked => tracing::debug!("the Monitor has accepted the WebSocket"),
            Report::FallbackBegan => {
                tracing::warn!("the WebSocket is unavailable, heartbeats take over");
            }
            Report::FallbackEnded => tracing::info!("the WebSocket confirms again, heartbeats end"),
            Report::Failed { transport, failure, retry_in } => {
                let line = self.journals.of(transport).failed(now, failure.kind);
                let Failure { kind, reason } = failure;
                let retry_in = humantime::format_duration(Duration::from_millis(
                    u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX),
                ));
                let Some(line) = line else {
                    tracing::debug!(transport = name(transport), %reason, %retry_in, "not delivered");
                    return;
                };
                let lasting = humantime::format_duration(whole_seconds(line.lasting));
                tracing::warn!(
                    transport = name(transport), %reason, failures = line.failures, %lasting,
                    %retry_in,
                    advice = advice(kind, self.link.has_api_key(), self.link.skew(), self.key_changed),
                    "not delivered, samples are kept"
                );
            }
            Report::Probing { reason } => tracing::error!(
                %reason,
                "three samples in a row were refused, so the fault is not theirs: nothing more is \
                 set aside, the newest sample is tried until one is accepted"
            ),
            Report::ProbeAccepted => tracing::info!("the Monitor takes samples again"),
            Report::BatchHalved { records } => {
                tracing::debug!(records, "a batch was refused, trying a smaller one");
            }
        }
    }
}

/// One journal for each transport, and one for changes of the queue: an outage of one is told
/// whatever the others do.
#[derive(Default)]
struct Journals {
    queue: Journal,
    http: Journal,
    websocket: Journal,
}

impl Journals {
    fn of(&mut self, transport: Transport) -> &mut Journal {
        match transport {
            Transport::Http => &mut self.http,
            Transport::Websocket => &mut self.websocket,
        }
    }
}

/// The try a log line belongs to. On its own: what one try sets off is not a part of it.
fn link_span(attempt: Attempt, transport: Transport) -> Span {
    tracing::info_span!(parent: None, "link", attempt, transport = name(transport))
}

/// The same of fetching the Monitor's key, which is for both transports.
fn key_span(attempt: Attempt) -> Span {
    tracing::info_span!(parent: None, "key", attempt)
}

fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Http => "http",
        Transport::Websocket => "websocket",
    }
}

/// A request that panicked: a fault of ours, which must not end delivery.
fn panicked() -> Failure {
    let reason = "a fault in the connector itself (the panic stands above): please report it";
    Failure { kind: FailureKind::Local, reason: reason.to_owned() }
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

/// Reads what is to be sent, sends it, and tells how that ended.
async fn post(link: &Link, store: &Store, selection: Selection, proof: Proof) -> Answered {
    let (from, limits) = match selection {
        Selection::Single { from } => (from, Limits { records: 1, bytes: usize::MAX }),
        Selection::Batch { from, records, bytes } => (from, Limits { records, bytes }),
    };
    let load = match Load::read(store, from, limits).await {
        Ok(load) if load.records.is_empty() => return Answered::NothingToSend,
        Ok(load) => load,
        Err(error) => {
            let failure = Failure { kind: FailureKind::Local, reason: chain(&error) };
            return Answered::Failed(failure);
        }
    };
    match selection {
        Selection::Single { .. } => link.post_single(&load, proof).await,
        Selection::Batch { .. } => link.post_batch(&load, proof).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::mpsc;

    use futures_util::future::join;

    use super::super::machine::Transports;
    use crate::config::{self, DiskFiles, Flags, Need, Sources};
    use crate::{collector::clock, store};

    /// A disk that hangs is to be told from a sender that does.
    #[test]
    fn while_it_waits_for_the_disk_that_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let env = [
            ("HARBORFORGE_CONFIG", "/dev/null"),
            ("HARBORFORGE_BACKEND_URL", "http://127.0.0.1:9"),
            ("HARBORFORGE_API_KEY", "k"),
            ("HARBORFORGE_DATA_DIR", dir.path().to_str().unwrap()),
        ];
        let env: BTreeMap<_, _> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let host_name = Some("host".to_owned());
        let sources =
            Sources { flags: Flags::default(), env, host_name, uid: 1, files: &DiskFiles };
        let config = config::load(&sources, Need::Backend).unwrap().config;
        let link = Link::new(&config).unwrap();
        let state = StateFile::load(dir.path(), link.backend_url());
        let options = harborforge_storage::Options::default();
        let (store, thread) =
            store::start(dir.path().to_owned(), options, clock::Clock::new()).unwrap();
        let settings = Settings {
            proved: false,
            transports: Transports::Http,
            report_interval: Duration::from_secs(1),
            fallback_interval: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(1),
        };
        let (_orders, receiver) = channel::unbounded();
        let time = Clock::start();
        let health = Health::new(time.wall(), settings.transports);
        let mut driver = Driver::new(settings, link, store.clone(), state, time, health, receiver);
        let at_disk = driver.at_disk();
        assert_eq!(at_disk.at(), None);
        // The queue's thread does nothing else until this is let go: as at a disk that hangs.
        let (let_go, hangs) = mpsc::channel::<()>();
        let change = driver.in_queue("acknowledge", move |_| {
            let _ = hangs.recv();
            Ok(())
        });
        let looked = async {
            let waits = at_disk.at();
            let_go.send(()).unwrap();
            waits
        };
        let (changed, waited) = runtime::block_on(join(change, looked));
        assert!(changed && waited.is_some());
        assert_eq!(at_disk.at(), None);
        store.stop();
        assert!(matches!(thread.join(), store::Stopped::Cleanly));
    }
}
