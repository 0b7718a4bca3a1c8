//! Where the bridge listens: opens the address as soon as it can be had, moves when told.
//!
//! Invariants: an address that is not loopback is never opened; the address before is closed before
//! the next is opened; a failure is said once for each kind, and the waits between two tries double
//! up to [`LONGEST_WAIT`].

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::FutureExt as _;
use futures_util::select_biased;

use super::routes::Answers;
use super::server::{Limits, serve};
use super::standing::Place;
use crate::runtime::{self, TaskGuard, TcpListener, channel};

/// The first wait after the address could not be listened on, and the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The running bridge; it ends, connections included, when this is dropped.
pub struct Bridge {
    orders: channel::Sender<Option<SocketAddr>>,
    _task: TaskGuard<()>,
}

impl Bridge {
    /// Listens on a loopback address, or does nothing for `None`.
    #[must_use]
    pub fn start(listen: Option<SocketAddr>, answers: Answers) -> Self {
        let (sender, orders) = channel::unbounded();
        let task = runtime::spawn_guarded(run(listen, orders, Arc::new(answers)));
        Self { orders: sender, _task: task }
    }

    /// Moves to another address, or ends for `None`. Connections to the old one are cut.
    pub fn listen(&self, listen: Option<SocketAddr>) {
        // The task lives as long as this.
        let _ = self.orders.try_send(listen);
    }
}

async fn run(
    mut listen: Option<SocketAddr>,
    orders: channel::Receiver<Option<SocketAddr>>,
    answers: Arc<Answers>,
) {
    loop {
        answers.standing().set(listen.map(|configured| Place {
            configured,
            listening: None,
            last_error: None,
            next_attempt_at: None,
        }));
        let answers = &answers;
        let work = async move {
            match listen {
                Some(address) => keep_serving(address, answers).await,
                None => pending::<Infallible>().await,
            }
        };
        // The listener is closed, by dropping it, before the next one is opened.
        let order = select_biased! {
            order = orders.recv().fuse() => order,
            never = work.fuse() => match never {},
        };
        let Ok(next) = order else { return };
        listen = next;
        if listen.is_none() {
            tracing::info!("the bridge is off");
        }
    }
}

/// Listens as soon as that can be had, and serves from then on.
async fn keep_serving(configured: SocketAddr, answers: &Arc<Answers>) -> Infallible {
    let mut wait = FIRST_WAIT;
    let mut said = None;
    loop {
        let error = match open(configured).await {
            Ok((listener, address)) => {
                tracing::info!(%address, "the bridge listens");
                let listening = Some(address);
                answers.standing().set(Some(Place {
                    configured,
                    listening,
                    last_error: None,
                    next_attempt_at: None,
                }));
                let answers = answers.clone();
                let answer = move |request| {
                    let answers = answers.clone();
                    async move { answers.answer(request).await }.boxed()
                };
                return serve(&listener, Limits::default(), &answer).await;
            }
            Err(error) => error,
        };
        let reason = error.to_string();
        if said != Some(error.kind()) {
            said = Some(error.kind());
            tracing::warn!(
                address = %configured,
                %reason,
                advice = advice(configured, error.kind()),
                "the bridge cannot listen, it is tried again"
            );
        }
        answers.standing().set(Some(Place {
            configured,
            listening: None,
            last_error: Some(reason),
            next_attempt_at: Some(SystemTime::now() + wait),
        }));
        runtime::sleep(wait).await;
        wait = wait.saturating_mul(2).min(LONGEST_WAIT);
    }
}

/// What helps against an address that cannot be listened on.
#[must_use]
pub fn advice(address: SocketAddr, kind: io::ErrorKind) -> String {
    // Only these have a cure of their own.
    if kind == io::ErrorKind::AddrInUse {
        let port = address.port();
        return format!("see who has it: ss -ltnp 'sport = :{port}'; or change bridge_listen");
    }
    if kind == io::ErrorKind::PermissionDenied {
        return "ports below 1024 are root's: choose a higher one in bridge_listen".to_owned();
    }
    "choose another address in bridge_listen, such as 127.0.0.1:9100".to_owned()
}

async fn open(configured: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    // The configuration permits no other; whoever calls this cannot open the host to the world.
    if !configured.ip().is_loopback() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a loopback address"));
    }
    let listener = runtime::listen_tcp(configured).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
