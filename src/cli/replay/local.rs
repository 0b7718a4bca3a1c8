//! Without a daemon: this process opens the queue and is the sender.
//!
//! The backlog goes by the daemon's own driver, without a sampler and by heartbeat alone, so no
//! challenge is used up. Ctrl-C ends it as SIGTERM ends the daemon: what was confirmed is on disk.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use harborforge_storage::Queue;

use super::screen::Screen;
use crate::cli::{CliError, Exit};
use crate::collector::clock;
use crate::config::Config;
use crate::daemon;
use crate::health::Health;
use crate::replay::{Progress, Replay, Replayed, Report, Watcher, drain, resend};
use crate::runtime::{self, Clock, channel};
use crate::sender::beside::Links;
use crate::sender::driver::{Driver, Order};
use crate::sender::link::Link;
use crate::sender::machine::{Settings, Transports};
use crate::signals::{self, Signal};
use crate::state::StateFile;
use crate::store::{self, StartError, Stopped, Store, chain};

/// How long a request under way may take to end.
const STOP_SENDER: Duration = Duration::from_millis(1500);

/// Delivers, and shows how it goes.
///
/// # Errors
/// When nothing can be begun, or the queue cannot be closed properly.
pub fn run(replay: &Replay, config: &Config) -> Result<Report, CliError> {
    runtime::start();
    runtime::block_on(async {
        let signals = signals::listen().map_err(|error| {
            CliError::new(Exit::Failed, format!("cannot listen for signals: {error}"))
        })?;
        let link = Link::new(config).map_err(|error| CliError::from_error(Exit::Config, &error))?;
        let (store, thread) = open(config).await?;
        let mut watcher = Local { screen: Screen::new(), signals };
        let report = match replay.what {
            Replayed::Pending => backlog(config, link, &store, &mut watcher).await,
            Replayed::Sent | Replayed::Rejected => {
                again(replay, config, link, &store, &mut watcher).await
            }
        };
        drop(watcher);
        // What is drained gives its space back now; what fails is done at the next start.
        let now = store.now();
        let _ = store.call(move |queue| queue.maintain(now).map(drop)).await;
        store.stop();
        let stopped = runtime::spawn_blocking(move || thread.join()).await;
        match stopped {
            Stopped::Cleanly => Ok(report),
            Stopped::Unclean(error) | Stopped::Fatal(error) => {
                Err(CliError::from_error(Exit::Storage, &error))
            }
            Stopped::Panicked => {
                let text = "the queue's thread ended by a panic (it stands above)";
                Err(CliError::new(Exit::Storage, text))
            }
        }
    })
}

async fn open(config: &Config) -> Result<(Store, store::StoreThread), CliError> {
    let of_queue = |error: &harborforge_storage::Error| super::of_queue(error, config);
    let dir = config.data_dir.clone();
    // A mistyped directory is not made into an empty queue.
    match Queue::is_there(&dir) {
        Ok(true) => {}
        Ok(false) => {
            let path = dir.join("queue").join("LOCK");
            return Err(of_queue(&harborforge_storage::Error::NoQueue { path }));
        }
        Err(error) => return Err(of_queue(&error)),
    }
    let options = daemon::queue_options(config);
    let opening = move || store::start(dir, options, clock::Clock::new());
    let (store, thread) = runtime::spawn_blocking(opening).await.map_err(|error| match &error {
        StartError::Queue(error) => of_queue(error),
        StartError::Thread(_) => CliError::from_error(Exit::Failed, &error),
    })?;
    Ok((store, thread))
}

async fn backlog(config: &Config, link: Link, store: &Store, watcher: &mut Local) -> Report {
    let settings = Settings { transports: Transports::Http, ..daemon::sender_settings(config) };
    let state = StateFile::load(&config.data_dir, link.backend_url());
    let health = Health::new(SystemTime::now(), settings.transports);
    let (orders, receiver) = channel::unbounded();
    let driver =
        Driver::new(settings, link, store.clone(), state, Clock::start(), health.clone(), receiver);
    let sender = runtime::spawn_watched(driver.run());
    let report = drain::watch(store, &health, watcher).await;
    let _ = orders.try_send(Order::Shutdown);
    // What is cut off stays queued, and is known by its number when it goes again.
    let _ = runtime::timeout(STOP_SENDER, sender).await;
    report
}

async fn again(
    replay: &Replay,
    config: &Config,
    link: Link,
    store: &Store,
    watcher: &mut Local,
) -> Report {
    let state = StateFile::load(&config.data_dir, link.backend_url());
    link.remember(state.get().key_fingerprint, state.token(link.identifier()));
    let state = Mutex::new(state);
    let hands = resend::Hands {
        store: store.clone(),
        links: Links::new(Arc::new(link)),
        backoff_cap: config.backoff_cap,
        health: Health::new(SystemTime::now(), Transports::Http),
        key_fetched: Box::new(move |fetched| {
            if let Some(before) = &fetched.replaces {
                let now = &fetched.fingerprint;
                Screen::note(&format!("the Monitor's key has changed from {before} to {now}"));
            }
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let key = Some(fetched.fingerprint);
            if let Some(change) = state.update(|state| state.key_fingerprint = key)
                && let Err(error) = change.write()
            {
                let error = chain(&error);
                Screen::note(&format!("state.json cannot be written: {error}"));
            }
        }),
    };
    resend::run(replay, &hands, watcher).await
}

/// The one in front of the screen.
struct Local {
    screen: Screen,
    signals: channel::Receiver<Signal>,
}

impl Watcher for Local {
    async fn shows(&mut self, progress: &Progress) -> bool {
        self.screen.show(progress);
        while let Ok(signal) = self.signals.try_recv() {
            match signal {
                Signal::Stop => return false,
                Signal::Reload | Signal::TryNow => {}
            }
        }
        true
    }
}
