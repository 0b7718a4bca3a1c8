//! `replay` while the daemon runs.
//!
//! The backlog is the sender's: it is told to try now, and looked on. Delivered and rejected
//! samples are posted by a task beside it, the one that serves the client, so that they end with
//! it. One replay at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::protocol::{Refusal, RefusalKind};
use super::server::{Client, Daemon, Gone, of_store};
use crate::replay::{Outcome, Progress, Replay, Replayed, Watcher, drain, resend};
use crate::runtime::channel;
use crate::sender::beside::Links;
use crate::sender::driver::Order;

/// How often a client is told of progress at most, and at least.
const TOLD: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// What a replay needs of the running daemon beside queue and health.
pub struct Hands {
    /// The link in force.
    pub links: Links,
    /// To the sender.
    pub orders: channel::Sender<Order>,
    busy: Arc<AtomicBool>,
}

impl Hands {
    /// Nothing is being replayed.
    #[must_use]
    pub fn new(links: Links, orders: channel::Sender<Order>) -> Self {
        Self { links, orders, busy: Arc::default() }
    }

    /// The one place there is; `None` while somebody has it.
    fn place(&self) -> Option<Place> {
        let free = !self.busy.swap(true, Ordering::AcqRel);
        free.then(|| Place(self.busy.clone()))
    }
}

struct Place(Arc<AtomicBool>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Client {
    pub(super) async fn replay(
        &mut self,
        replay: &Replay,
        daemon: &Daemon,
    ) -> Result<Result<(), Refusal>, Gone> {
        if replay.dry_run {
            return match resend::plan(replay, &daemon.store).await {
                Ok(plan) => {
                    self.end(&Outcome::Plan(plan)).await?;
                    Ok(Ok(()))
                }
                Err(error) => Ok(Err(of_store(&error))),
            };
        }
        let Some(_place) = daemon.replay.place() else {
            let text = "a replay is under way already: wait for its end, or end it with Ctrl-C \
                        where it was started";
            return Ok(Err(Refusal::new(RefusalKind::Busy, text)));
        };
        let mut watcher = OverSocket { client: self, told: None, gone: false };
        let report = match replay.what {
            Replayed::Pending => {
                // It ends only with the daemon.
                let _ = daemon.replay.orders.try_send(Order::TryNow);
                drain::watch(&daemon.store, &daemon.health, &mut watcher).await
            }
            Replayed::Sent | Replayed::Rejected => {
                let orders = daemon.replay.orders.clone();
                let hands = resend::Hands {
                    store: daemon.store.clone(),
                    links: daemon.replay.links.clone(),
                    backoff_cap: daemon.config().backoff_cap,
                    health: daemon.health.clone(),
                    key_fetched: Box::new(move |fetched| {
                        let _ = orders.try_send(Order::KeyFetched(fetched));
                    }),
                };
                resend::run(replay, &hands, &mut watcher).await
            }
        };
        let progress = &report.progress;
        tracing::info!(
            what = ?replay.what, ended = ?report.ended, reason = report.reason,
            samples = progress.samples, delivered = progress.delivered,
            refused = progress.refused, left = progress.left, "replay ended"
        );
        if watcher.gone {
            return Err(Gone);
        }
        self.end(&Outcome::Report(report)).await?;
        Ok(Ok(()))
    }
}

/// Tells the client.
struct OverSocket<'a> {
    client: &'a mut Client,
    told: Option<(Instant, Progress)>,
    gone: bool,
}

impl Watcher for OverSocket<'_> {
    async fn shows(&mut self, progress: &Progress) -> bool {
        let due = self.told.as_ref().is_none_or(|(at, told)| {
            let since = at.elapsed();
            since >= TOLD.1 || (since >= TOLD.0 && told != progress)
        });
        if due {
            self.told = Some((Instant::now(), progress.clone()));
            self.gone = self.client.item(progress).await.is_err() || self.client.has_gone().await;
        }
        !self.gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Need, Sources, load};
    use crate::sender::link::Link;

    #[test]
    fn there_is_one_place() {
        let set = [("backend_url", "http://127.0.0.1:9"), ("api_key", "k"), ("data_dir", "/d")];
        let set = set.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let flags = Flags { config: Some("/dev/null".into()), ..Flags::default() };
        let mut sources = Sources::of_process(flags);
        sources.env = set
            .into_iter()
            .map(|(key, value)| (format!("HARBORFORGE_{}", key.to_uppercase()), value.into()))
            .collect();
        let config = load(&sources, Need::Backend).unwrap().config;
        let links = Links::new(Arc::new(Link::new(&config).unwrap()));
        let hands = Hands::new(links, channel::unbounded().0);
        let place = hands.place().unwrap();
        assert!(hands.place().is_none());
        drop(place);
        assert!(hands.place().is_some());
    }
}
