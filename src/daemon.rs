//! The daemon: the only place that wires the parts.
//!
//! Start: signals, data directory, OpenClaw's watcher, queue (held by our lock from then on), sampler,
//! state, sender, control socket, bridge.
//! The sampler starts before the sender has a connection and never hears of it. Stop: sampler,
//! sender (which waits a moment for what is under way), queue, what is remembered of the CPU, each
//! within its bound, so that SIGTERM ends the process within 5 s whatever network and disk do.

mod enroll;
mod pace;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::future::FutureExt as _;
use futures_util::select_biased;

use crate::bridge::{Answers, Bridge, Standing};
use crate::collector::openclaw::{known::Known, watch};
use crate::collector::{self, clock};
use crate::config::{self, Config, ConfigErrors, Group, Loaded};
use crate::control;
use crate::health::Health;
use crate::logging::LogHandle;
use crate::remembered;
use crate::runtime::{self, Clock, Task, channel};
use crate::sampler::{self, Sampler};
use crate::sender::driver::{Driver, Order};
use crate::sender::link::{Link, LinkError};
use crate::sender::machine::{self, Transports};
use crate::signals::{self, Signal};
use crate::state::StateFile;
use crate::store::{self, StartError, Stopped, Store, StoreThread, chain};
use crate::supervisor::{Parts, Supervisor};
use pace::Pace;

/// How long the stop waits for each part; together under the 5 s of the interface.
const STOP_SENDER: Duration = Duration::from_millis(1500);
const STOP_SAMPLER: Duration = Duration::from_millis(1500);
const STOP_STORE: Duration = Duration::from_millis(1700);
const STOP_TOLD: Duration = Duration::from_millis(200);

/// How long the first sample waits for the first look at OpenClaw's files, which takes a few
/// milliseconds unless a home directory hangs.
const FIRST_LOOK: Duration = Duration::from_millis(200);

/// So many orders may wait for the sender before signals add none; the supervisor's question may
/// be one of them.
const MOST_WAITING: usize = 4;

/// How often a credential that stands in a file of its own is looked at.
const CREDENTIAL_WATCH: Duration = Duration::from_secs(60);

/// Why the daemon did not run or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The data directory cannot be made or written.
    #[error("cannot make data_dir {}: create it and give it to this user, or set data_dir", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The queue cannot be used by this process.
    #[error(transparent)]
    Store(#[from] StartError),
    /// The queue's engine has failed for good; a restart recovers.
    #[error("the queue has failed, restart to recover what is on disk")]
    Queue(#[source] harborforge_storage::Error),
    /// The queue's thread panicked; a restart recovers.
    #[error("the queue's thread ended by a panic, restart to recover what is on disk")]
    Panicked,
    /// A part of the daemon panicked; a restart brings it back.
    #[error("the {0} ended by a panic (it stands above): please report it")]
    Part(&'static str),
    /// The link's settings are not usable.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Signals or threads are not to be had from the operating system.
    #[error("the operating system refuses {what}")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
    /// Not everything was written at the stop.
    #[error("stopped, but not everything could be written: {0}")]
    Unclean(String),
}

/// Reads the configuration again, as at the start.
pub type Reload = Box<dyn FnMut() -> Result<Loaded, ConfigErrors>>;

/// Runs until a signal says stop.
///
/// # Errors
/// See [`DaemonError`]; samples already appended are safe in every case.
pub fn run(loaded: Loaded, reload: Reload, log: &LogHandle) -> Result<(), DaemonError> {
    runtime::start();
    runtime::block_on(async {
        let signals = signals::listen()
            .map_err(|source| DaemonError::System { what: "signal handlers", source })?;
        match Daemon::start(loaded.config, &signals).await? {
            Some(daemon) => daemon.serve(&signals, reload, log).await,
            // Stopped while the queue was being opened: nothing was taken yet.
            None => Ok(()),
        }
    })
}

struct Daemon {
    /// In force: as configured, but for a credential that was enrolled since.
    config: Arc<Config>,
    /// As it was read last.
    configured: Arc<Config>,
    /// Where queue and state are; another one takes effect at the next start.
    data_dir: PathBuf,
    store: Store,
    thread: StoreThread,
    sampler: Sampler,
    /// Who finds out what is known of OpenClaw.
    watcher: watch::Watcher,
    orders: channel::Sender<Order>,
    /// True when it ends by a panic.
    sender: Task<bool>,
    /// What the control socket's answers are made from.
    seen: Arc<control::server::Daemon>,
    control: Option<control::server::Server>,
    bridge: Bridge,
    /// What `enroll` asks for.
    enrolling: channel::Receiver<control::enroll::Enrolling>,
    /// What the service manager is told.
    supervisor: Supervisor,
}

impl Daemon {
    async fn start(
        configured: Arc<Config>,
        signals: &channel::Receiver<Signal>,
    ) -> Result<Option<Self>, DaemonError> {
        let clock = clock::Clock::new();
        let data_dir = configured.data_dir.clone();
        make_dir(&data_dir)?;
        let (config, standing) = enroll::weigh(&configured, &data_dir);
        enroll::say(standing);
        let link = Link::new(&config)?;
        let (dir, options) = (config.data_dir.clone(), queue_options(&config));
        // It looks while the queue is opened.
        let known = Known::new();
        let watcher = watch::start(openclaw_settings(&config), known.clone());
        // Opening waits for the disk; a signal to stop is heard meanwhile.
        let mut opening = runtime::spawn_blocking(move || store::start(dir, options, clock)).fuse();
        let (store, thread) = loop {
            select_biased! {
                opened = opening => break opened?,
                signal = signals.recv().fuse() => match signal {
                    Ok(Signal::Stop) | Err(_) => return Ok(None),
                    Ok(Signal::Reload | Signal::TryNow) => {}
                },
            }
        };
        tracing::info!(
            version = crate::sample::CONNECTOR_VERSION,
            identifier = %config.identifier,
            backend = link.backend_url(),
            data_dir = %config.data_dir.display(),
            waiting = store.view().queue.map_or(0, |queue| queue.pending),
            "started"
        );
        let no_thread = |source| DaemonError::System { what: "a thread", source };
        // What the first sample has to say of OpenClaw; what is not seen by then is in the second.
        let _ = runtime::timeout(FIRST_LOOK, watcher.has_looked()).await;
        let sampler = sampler::start(
            config.report_interval,
            collector_settings(&config),
            clock,
            runtime::seed(),
            remembered::load(&config.data_dir),
            known.clone(),
            store.clone(),
        )
        .map_err(no_thread)?;
        let state = StateFile::load(&config.data_dir, link.backend_url());
        // Never waited for: the sender may be waiting for the disk.
        let (orders, receiver) = channel::unbounded();
        let settings = sender_settings(&config);
        let health = Health::new(SystemTime::now(), settings.transports);
        let driver = Driver::new(
            settings,
            link,
            store.clone(),
            state,
            Clock::start(),
            health.clone(),
            receiver,
        )
        .hinting(known.clone());
        let replay = control::replay::Hands::new(driver.links(), orders.clone());
        let at_disk = driver.at_disk();
        let sender = runtime::spawn_watched(driver.run());
        let asked = orders.clone();
        let supervisor = Supervisor::start(Parts {
            sampler: Box::new(sampler.pulse()),
            sender: Box::new(move |answer| {
                // One that has ended does not answer, which is what is to be seen.
                let _ = asked.try_send(Order::ShowLife(answer));
            }),
            at_disk,
            store: store.clone(),
            health: health.clone(),
        });
        // The socket serves a bounded number of clients, and each waits for its answer.
        let (ask_to_enroll, enrolling) = channel::unbounded();
        let seen = Arc::new(control::server::Daemon {
            store: store.clone(),
            health,
            config: Mutex::new(config.clone()),
            data_dir: data_dir.clone(),
            started: SystemTime::now(),
            replay,
            bridge: Standing::default(),
            enrolling: ask_to_enroll,
            known: known.clone(),
        });
        let answers = Answers::new(seen.clone(), known, sampler.newest.clone());
        let bridge = Bridge::start(config.bridge_listen, answers);
        let control = open_control(&config.control_socket, &seen);
        Ok(Some(Self {
            config,
            configured,
            data_dir,
            store,
            thread,
            sampler,
            watcher,
            orders,
            sender,
            seen,
            control,
            bridge,
            enrolling,
            supervisor,
        }))
    }

    async fn serve(
        mut self,
        signals: &channel::Receiver<Signal>,
        mut reload: Reload,
        log: &LogHandle,
    ) -> Result<(), DaemonError> {
        let mut credential = Pace::new(CREDENTIAL_WATCH, clock::since_boot());
        loop {
            let until_credential = credential.left(clock::since_boot());
            let signal = select_biased! {
                signal = signals.recv().fuse() => signal.unwrap_or(Signal::Stop),
                // An error is the end of the thread: its sender is gone.
                _ = self.thread.ended.recv().fuse() => return Err(self.broken()),
                _ = self.sampler.ended.recv().fuse() => return Err(DaemonError::Part("sampler")),
                _ = (&mut self.sender).fuse() => return Err(DaemonError::Part("sender")),
                () = runtime::sleep(until_credential).fuse() => {
                    self.look_at_credential(&mut reload);
                    credential.done(clock::since_boot());
                    continue;
                }
                asked = self.enrolling.recv().fuse() => {
                    if let Ok(request) = asked {
                        self.enroll(request, &mut reload, log).await;
                    }
                    continue;
                }
            };
            match signal {
                Signal::Stop => return self.stop().await,
                Signal::Reload => {
                    self.supervisor.reloading();
                    // Its faults have been logged.
                    let _ = self.reload(&mut reload, log);
                    self.supervisor.reloaded();
                }
                Signal::TryNow if self.orders.len() < MOST_WAITING => self.order(Order::TryNow),
                // Those before have not been seen yet.
                Signal::TryNow => {}
            }
        }
    }

    fn order(&self, order: Order) {
        // The sender ends only at the stop, or by a panic that is noticed elsewhere.
        let _ = self.orders.try_send(order);
    }

    /// Reads the configuration again and takes it up.
    ///
    /// # Errors
    /// The faults of the new one, already logged; the old one stays.
    fn reload(&mut self, reload: &mut Reload, log: &LogHandle) -> Result<(), String> {
        let loaded = match reload() {
            Ok(loaded) => loaded,
            Err(errors) => {
                for error in &errors.0 {
                    tracing::error!(%error, "configuration not reloaded, the old one stays");
                }
                return Err(errors.to_string());
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!(%warning, "configuration");
        }
        self.configured = loaded.config;
        let (config, standing) = enroll::weigh(&self.configured, &self.data_dir);
        enroll::say(standing);
        let changes = config::diff(&self.config, &config);
        if changes.is_empty() {
            tracing::info!("configuration reloaded, nothing has changed");
            return Ok(());
        }
        for change in &changes {
            let keys = change.keys.iter().map(|key| key.name()).collect::<Vec<_>>().join(", ");
            match change.group {
                Group::Logging => {
                    if let Err(error) = log.set_filter(&config.log_level) {
                        tracing::error!(%error, "log_level not changed");
                        continue;
                    }
                }
                Group::Schedule | Group::Collector => {
                    self.sampler.reconfigure(config.report_interval, collector_settings(&config));
                    self.watcher.reconfigure(openclaw_settings(&config));
                }
                Group::Credentials | Group::Endpoint => {}
                Group::Bridge => self.bridge.listen(config.bridge_listen),
                Group::Queue | Group::Restart => {
                    tracing::warn!(%keys, "changed, takes effect at the next start");
                    continue;
                }
            }
            tracing::info!(%keys, "configuration reloaded");
        }
        let groups: Vec<Group> = changes.iter().map(|change| change.group).collect();
        self.use_link(config, &groups).map_err(|error| chain(&error))
    }

    /// Gives the sender what the new configuration says about sending, if that has changed.
    ///
    /// # Errors
    /// Why no link can be made of it, already logged; the old one stays.
    fn use_link(&mut self, new: Arc<Config>, groups: &[Group]) -> Result<(), LinkError> {
        let changed = |group| groups.contains(&group);
        if !changed(Group::Credentials) && !changed(Group::Endpoint) {
            // A new cadence starts nothing over: what was refused is as refused as before.
            if changed(Group::Schedule) {
                self.order(Order::Settings(sender_settings(&new)));
            }
            self.take_up(new);
            return Ok(());
        }
        let link = Link::new(&new).inspect_err(|error| {
            tracing::error!(error = %chain(error), "the old connection settings stay");
        })?;
        let moved = changed(Group::Endpoint);
        let settings = sender_settings(&new);
        self.take_up(new);
        self.order(Order::Use { link: Box::new(link), settings, moved });
        Ok(())
    }

    fn take_up(&mut self, config: Arc<Config>) {
        self.seen.use_config(config.clone());
        self.config = config;
    }

    /// A challenge or key in a file of its own may be renewed by other tools: it is taken up
    /// without a signal. Whatever else has changed waits for one.
    fn look_at_credential(&mut self, reload: &mut Reload) {
        // A file that is being edited may be invalid just now; SIGHUP tells about its faults.
        let Ok(loaded) = reload() else { return };
        if loaded.credential_file.is_none() {
            return;
        }
        let credential = loaded.config.credential.clone();
        self.configured = Arc::new(Config { credential, ..(*self.configured).clone() });
        let (weighed, _) = enroll::weigh(&self.configured, &self.data_dir);
        let credential = weighed.credential.clone();
        let only_the_credential = Config { credential, ..(*self.config).clone() };
        if !config::diff(&self.config, &only_the_credential).is_empty() {
            tracing::info!("the credential file has changed, using it");
            // A failure has been logged, and is tried again in a minute.
            let _ = self.use_link(Arc::new(only_the_credential), &[Group::Credentials]);
        }
    }

    async fn stop(self) -> Result<(), DaemonError> {
        tracing::info!("stopping");
        let Self { store, thread, sampler, orders, sender, control, bridge, .. } = self;
        let (supervisor, data_dir) = (self.supervisor, self.data_dir);
        let told = supervisor.stopping();
        // Nobody is told any more; the file goes, and the port.
        drop(control);
        drop(bridge);
        // Waits for the thread, which may be in the middle of a sample.
        let sampler = runtime::spawn_blocking(move || sampler.stop());
        let last = runtime::timeout(STOP_SAMPLER, sampler).await;
        if last.is_none() {
            tracing::warn!("the sampler does not stop, a file system may hang");
        }
        let _ = orders.try_send(Order::Shutdown);
        if runtime::timeout(STOP_SENDER, sender).await.is_none() {
            tracing::info!("a request is still under way; what it carried stays in the queue");
        }
        store.stop();
        let joined =
            runtime::timeout(STOP_STORE, runtime::spawn_blocking(move || thread.join())).await;
        // Only on a disk that has just answered, and only in room that the queue has left.
        let last = last.flatten().filter(|_| matches!(joined, Some(Stopped::Cleanly)));
        let kept = last
            .map(|reading| runtime::spawn_blocking(move || remembered::keep(&data_dir, &reading)));
        // As a rule that was long ago; a service manager that hangs is not waited for.
        let told = runtime::timeout(STOP_TOLD, async {
            if let Some(kept) = kept {
                kept.await;
            }
            told.recv().await
        });
        let _ = told.await;
        match joined {
            Some(Stopped::Cleanly) => {
                tracing::info!("stopped");
                Ok(())
            }
            Some(Stopped::Unclean(error)) => Err(DaemonError::Unclean(chain(&error))),
            Some(Stopped::Fatal(error)) => Err(DaemonError::Queue(error)),
            Some(Stopped::Panicked) => Err(DaemonError::Panicked),
            None => Err(DaemonError::Unclean("the disk does not answer".to_owned())),
        }
    }

    /// The queue's thread has ended by itself: nothing can be made durable any more.
    fn broken(self) -> DaemonError {
        match self.thread.join() {
            Stopped::Fatal(error) | Stopped::Unclean(error) => DaemonError::Queue(error),
            Stopped::Panicked | Stopped::Cleanly => DaemonError::Panicked,
        }
    }
}

/// Opens the control socket. Without one the daemon samples and delivers all the same.
fn open_control(
    path: &Path,
    seen: &Arc<control::server::Daemon>,
) -> Option<control::server::Server> {
    let opened =
        control::socket::Bound::new(path).map_err(|error| chain(&error)).and_then(|bound| {
            control::server::Server::start(bound, seen.clone()).map_err(|error| chain(&error))
        });
    match opened {
        Ok(server) => {
            tracing::debug!(path = %path.display(), "control socket open");
            Some(server)
        }
        Err(error) => {
            tracing::error!(%error, "no control socket: status, dump and replay cannot reach this daemon");
            None
        }
    }
}

fn make_dir(path: &Path) -> Result<(), DaemonError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| DaemonError::DataDir { path: path.to_owned(), source })
}

/// The queue's bounds, as the configuration has them.
#[must_use]
pub fn queue_options(config: &Config) -> harborforge_storage::Options {
    harborforge_storage::Options {
        queue_max_bytes: config.queue.max_bytes,
        queue_max_age: config.queue.max_age,
        retain_sent: config.queue.retain_sent,
        retain_sent_max_bytes: config.queue.retain_sent_max_bytes,
        rejected_max_bytes: config.queue.rejected_max_bytes,
        quarantine_max_bytes: config.queue.quarantine_max_bytes,
        ..harborforge_storage::Options::default()
    }
}

pub(crate) fn collector_settings(config: &Config) -> collector::Settings {
    collector::Settings {
        disk_path: config.disk_path.clone(),
        root_fs: config.root_fs.clone(),
        own_cgroup: config.scope == config::Scope::Cgroup,
        nginx: config.report_nginx,
    }
}

/// What the OpenClaw collector is to do, as the configuration has it.
pub(crate) fn openclaw_settings(config: &Config) -> watch::Settings {
    watch::Settings {
        look: config.openclaw == config::OpenClaw::Auto,
        homes: config.openclaw_home.clone(),
    }
}

pub(crate) fn sender_settings(config: &Config) -> machine::Settings {
    let proved = matches!(config.credential, Some(config::Credential::Challenge(_)));
    let transports = match config.transport {
        // Without a proof there is no WebSocket (docs/PROTOCOL.md 3).
        _ if !proved => Transports::Http,
        config::Transport::Auto => Transports::Both,
        config::Transport::Websocket => Transports::Websocket,
        config::Transport::Http => Transports::Http,
    };
    machine::Settings {
        proved,
        transports,
        report_interval: config.report_interval,
        fallback_interval: config.http_fallback_interval,
        backoff_cap: config.backoff_cap,
    }
}
