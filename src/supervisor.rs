//! What the service manager is told (`Type=notify`): that it has started, how it stands, that it
//! reads its configuration again, that it stops, and that it lives.
//!
//! Only this file names sd-notify. Without `NOTIFY_SOCKET` nothing runs and nothing is told.
//!
//! Invariants: what is said is decided by `Core`, which has no clock and no socket; a service
//! manager that does not listen holds up a thread of its own and nothing else; the watchdog is fed
//! only while the sampler and the sender both answer. They are asked by an order like any other, so
//! that an answer shows that their loop turns, and not only that their thread exists; nobody is
//! asked again before the last answer has come, so that no queue grows behind one that hangs. A
//! sender that waits for the disk of `data_dir` counts as one that answers: samples are kept in
//! memory meanwhile, and being ended would lose them.

use std::time::{Duration, SystemTime};

use sd_notify::NotifyState;

use crate::busy::Busy;
use crate::health::{Health, LinkState};
use crate::runtime::{self, Clock, channel};
use crate::sender::classify::printable;
use crate::sender::machine::Transport;
use crate::store::{Store, View};

#[cfg(test)]
mod tests;

/// How often it looks until it has said that the start is over.
const STARTING: Duration = Duration::from_millis(100);
/// How often it looks from then on, and so the shortest time between two `STATUS=`.
const LOOK: Duration = Duration::from_secs(5);
/// How long a disk that refuses may hold the start up. Samples are kept in memory meanwhile, so
/// being ended for not having started would lose what waiting keeps.
const DISK_PATIENCE: Duration = Duration::from_secs(20);
/// How long the queue's thread may be at one thing before that is said.
const DISK_HANGS: Duration = Duration::from_secs(60);

/// Asks a part of the daemon to answer in the channel; it must not wait.
pub type Ask = Box<dyn Fn(channel::Sender<()>) + Send>;

/// What is watched.
pub struct Parts {
    /// The sampler.
    pub sampler: Ask,
    /// The sender.
    pub sender: Ask,
    /// Busy while the sender waits for the disk.
    pub at_disk: Busy,
    /// Whether the queue is open, how much waits, and whether its thread gets on.
    pub store: Store,
    /// How the link stands.
    pub health: Health,
}

/// The daemon's handle. Dropping it ends the telling; nobody waits for it.
pub struct Supervisor(Option<channel::Sender<Order>>);

enum Order {
    Reloading,
    Reloaded,
    /// The answer says that it has been told.
    Stopping(channel::Sender<()>),
}

impl Supervisor {
    /// Starts telling, if there is a service manager that wants to be told.
    #[must_use]
    pub fn start(parts: Parts) -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self(None);
        }
        let core = Core::new(sd_notify::watchdog_enabled());
        let (sender, orders) = channel::unbounded();
        drop(runtime::spawn(run(core, parts, orders)));
        Self(Some(sender))
    }

    /// The configuration is being read again; [`Supervisor::reloaded`] has to follow.
    pub fn reloading(&self) {
        self.order(Order::Reloading);
    }

    /// The configuration is taken up, or the old one stays.
    pub fn reloaded(&self) {
        self.order(Order::Reloaded);
    }

    /// The daemon stops. Who waits for the answer, or for its end, knows that it was told.
    #[must_use]
    pub fn stopping(&self) -> channel::Receiver<()> {
        let (told, answer) = channel::bounded(1);
        self.order(Order::Stopping(told));
        answer
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.0 {
            // It is listened to until this is dropped, or after the stop; and never full.
            let _ = orders.try_send(order);
        }
    }
}

async fn run(mut core: Core, parts: Parts, orders: channel::Receiver<Order>) {
    let clock = Clock::start();
    let mut line = Line::default();
    let mut sampler = Pulse::new();
    let mut sender = Pulse::new();
    loop {
        let says = match runtime::timeout(core.period(), orders.recv()).await {
            Some(Ok(Order::Reloading)) => core.reloading(),
            Some(Ok(Order::Reloaded)) => core.reloaded(),
            Some(Ok(Order::Stopping(told))) => {
                let says = vec![Say::Stopping, Say::Status("Stopping".to_owned())];
                runtime::spawn_blocking(move || line.tell(&says)).await;
                drop(told);
                return;
            }
            Some(Err(_)) => return,
            None => {
                let view = parts.store.view();
                let now = clock.mono();
                let news = core.disk(now, parts.store.busy().at());
                say(news, view.in_memory);
                core.look(Seen {
                    now,
                    sampler: sampler.beats(&parts.sampler),
                    sender: sender.beats(&parts.sender) || parts.at_disk.at().is_some(),
                    queue_open: view.queue.is_some(),
                    status: match core.hangs {
                        Some(_) => hanging(view.in_memory),
                        None => status(&parts.health, &view),
                    },
                })
            }
        };
        if !says.is_empty() {
            line = runtime::spawn_blocking(move || {
                line.tell(&says);
                line
            })
            .await;
        }
    }
}

/// Logs what is new of the disk.
fn say(news: Option<Disk>, in_memory: usize) {
    match news {
        Some(Disk::Hangs) => tracing::error!(
            in_memory,
            "the disk of data_dir does not answer: samples are kept in memory, nothing is delivered"
        ),
        Some(Disk::Answers { after }) => {
            let after = humantime::format_duration(Duration::from_secs(after.as_secs()));
            tracing::info!(%after, "the disk of data_dir answers again");
        }
        None => {}
    }
}

/// Whether a part answers.
struct Pulse {
    answer: (channel::Sender<()>, channel::Receiver<()>),
    asked: bool,
}

impl Pulse {
    fn new() -> Self {
        Self { answer: channel::bounded(1), asked: false }
    }

    /// Whether it has answered since the last look; asks anew if so.
    fn beats(&mut self, ask: &Ask) -> bool {
        let answered = self.answer.1.try_recv().is_ok();
        if answered || !self.asked {
            self.asked = true;
            ask(self.answer.0.clone());
        }
        answered
    }
}

/// The way to the service manager.
#[derive(Default)]
struct Line {
    broken: bool,
}

impl Line {
    fn tell(&mut self, says: &[Say]) {
        let states: Vec<NotifyState<'_>> = says.iter().flat_map(Say::states).collect();
        match sd_notify::notify(&states) {
            Ok(()) => self.broken = false,
            Err(error) if !self.broken => {
                self.broken = true;
                tracing::error!(%error, "the service manager cannot be told anything (NOTIFY_SOCKET)");
            }
            Err(_) => {}
        }
    }
}

/// One thing to say.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Say {
    Ready,
    Reloading,
    Stopping,
    Watchdog,
    Status(String),
}

impl Say {
    fn states(&self) -> Vec<NotifyState<'_>> {
        match self {
            Self::Ready => vec![NotifyState::Ready],
            Self::Stopping => vec![NotifyState::Stopping],
            Self::Watchdog => vec![NotifyState::Watchdog],
            Self::Status(text) => vec![NotifyState::Status(text)],
            // The time is asked for by `Type=notify-reload`, and passed over by `Type=notify`.
            Self::Reloading => {
                let time = NotifyState::monotonic_usec_now();
                [NotifyState::Reloading].into_iter().chain(time).collect()
            }
        }
    }
}

/// What is new of the disk of `data_dir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    Hangs,
    Answers { after: Duration },
}

/// What is seen at one look.
#[derive(Debug, Clone)]
struct Seen {
    /// Time since the start.
    now: Duration,
    /// The sampler has answered since the last look.
    sampler: bool,
    /// The sender has, or waits for the disk.
    sender: bool,
    queue_open: bool,
    status: String,
}

/// Decides what is said. Times are since the start.
#[derive(Debug)]
struct Core {
    /// The service manager ends us when it has not been fed for so long.
    watchdog: Option<Duration>,
    ready: bool,
    /// When each answered last.
    sampler: Option<Duration>,
    sender: Option<Duration>,
    /// What the queue's thread is at, and since when that is seen.
    queue_at: Option<(u64, Duration)>,
    /// Since when the disk hangs, once that was said.
    hangs: Option<Duration>,
    /// What was said last, and when.
    status: Option<(Duration, String)>,
}

impl Core {
    fn new(watchdog: Option<Duration>) -> Self {
        // None is what 0 means.
        let watchdog = watchdog.filter(|interval| !interval.is_zero());
        Self {
            watchdog,
            ready: false,
            sampler: None,
            sender: None,
            queue_at: None,
            hangs: None,
            status: None,
        }
    }

    /// Time from one look to the next: four for each interval of the watchdog at least.
    fn period(&self) -> Duration {
        let longest = if self.ready { LOOK } else { STARTING };
        self.watchdog.map_or(longest, |interval| longest.min(interval / 4))
    }

    fn look(&mut self, seen: Seen) -> Vec<Say> {
        let mut says = Vec::new();
        for (answered, last) in [(seen.sampler, &mut self.sampler), (seen.sender, &mut self.sender)]
        {
            if answered {
                *last = Some(seen.now);
            }
        }
        let begun = self.sampler.is_some() && self.sender.is_some();
        if !self.ready && begun && (seen.queue_open || seen.now >= DISK_PATIENCE) {
            self.ready = true;
            says.push(Say::Ready);
        }
        if self.alive(seen.now) {
            says.push(Say::Watchdog);
        }
        let due = self
            .status
            .as_ref()
            .is_none_or(|(at, text)| *text != seen.status && seen.now.saturating_sub(*at) >= LOOK);
        if due {
            says.push(Say::Status(seen.status.clone()));
            self.status = Some((seen.now, seen.status));
        }
        says
    }

    /// What is to be said of the disk, from what the queue's thread is at.
    fn disk(&mut self, now: Duration, at: Option<u64>) -> Option<Disk> {
        let since = match (at, self.queue_at) {
            (Some(at), Some((before, since))) if at == before => since,
            (Some(_) | None, _) => now,
        };
        self.queue_at = at.map(|at| (at, since));
        match self.hangs {
            // Another thing, or none: the one that hung has ended.
            Some(hung) if since == now => {
                self.hangs = None;
                Some(Disk::Answers { after: now.saturating_sub(hung) })
            }
            None if now.saturating_sub(since) >= DISK_HANGS => {
                self.hangs = Some(since);
                Some(Disk::Hangs)
            }
            Some(_) | None => None,
        }
    }

    /// Both have answered within the last half of the interval: the service manager counts the
    /// whole of it anew from the last feeding. Nothing is fed without a watchdog.
    fn alive(&self, now: Duration) -> bool {
        let (Some(interval), Some(sampler), Some(sender)) =
            (self.watchdog, self.sampler, self.sender)
        else {
            return false;
        };
        now.saturating_sub(sampler.min(sender)) < interval / 2
    }

    /// Before the start is over there is nothing to be ready again after.
    fn reloading(&self) -> Vec<Say> {
        if self.ready { vec![Say::Reloading] } else { Vec::new() }
    }

    fn reloaded(&self) -> Vec<Say> {
        if self.ready { vec![Say::Ready] } else { Vec::new() }
    }
}

/// The same line while the disk hangs.
fn hanging(in_memory: usize) -> String {
    format!("The disk of data_dir does not answer, {in_memory} samples in memory")
}

/// The line that `systemctl status` shows. It changes with the state, and with what waits only
/// while that is not being delivered.
fn status(health: &Health, view: &View) -> String {
    let link = health.link();
    let waiting = || match view.queue {
        None => format!("the queue cannot be opened, {} samples in memory", view.in_memory),
        Some(queue) => {
            let waiting = queue.pending + u64::try_from(view.in_memory).unwrap_or(u64::MAX);
            if waiting == 1 {
                "1 sample waits".to_owned()
            } else {
                format!("{waiting} samples wait")
            }
        }
    };
    let why = || {
        let error = link.last_error.as_ref().map(|(_, text)| printable(text));
        error.map(|text| format!(": {text}")).unwrap_or_default()
    };
    let since = || humantime::format_rfc3339_seconds(whole(link.since));
    match (link.state, link.transport) {
        (LinkState::Fallback, _) => {
            "Delivering by heartbeat, the WebSocket is unavailable".to_owned()
        }
        (LinkState::Online, Some(Transport::Http)) => "Delivering by heartbeat".to_owned(),
        (LinkState::Online, _) => "Delivering over the WebSocket".to_owned(),
        (LinkState::Connecting, _) => format!("Connecting, {}", waiting()),
        (LinkState::Offline, _) => format!("Offline since {}, {}{}", since(), waiting(), why()),
        (LinkState::Refused, _) => {
            format!("Refused by the Monitor since {}, {}{}", since(), waiting(), why())
        }
    }
}

/// The time without its fraction of a second.
fn whole(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}
