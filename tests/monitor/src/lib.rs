//! A reference HarborForge Monitor: for the connector's tests, for its demo, and for users who
//! want to try it. Real sockets and real TLS, everything of the protocol, and misbehaviour on
//! request. It keeps its memory in memory, bounded, and forgets it when it ends.
//!
//! ```
//! # async_std::task::block_on(async {
//! use harborforge_monitor::{Fault, Monitor, Options, Route, test_key};
//!
//! let monitor = Monitor::start(Options { key: Some(test_key()), ..Options::default() }).await?;
//! let _backend_url = monitor.url();
//! let _challenge = monitor.issue_challenge();
//! monitor.misbehave(Fault::retry_after(503, "2").at(Route::Heartbeat).times(3));
//! monitor.pause().await; // an outage
//! monitor.resume().await?;
//! assert_eq!(monitor.stop().await.counts.unique, 0);
//! # Ok::<(), harborforge_monitor::Error>(())
//! # }).unwrap();
//! ```
//!
//! The rules are pure and take the time as an argument: `rules` and `events` judge, with `book` (who may come
//! in), `journal` (what was accepted), `fault` and `schedule` (what is to go wrong, and when). Around them is a thin
//! shell: `door` listens, `connection` speaks TLS and HTTP, `http` and `websocket` carry requests
//! and events to the rules (`play` and `wire` spoil a WebSocket on request), `monitor` is the handle.

mod answer;
mod book;
mod connection;
mod control;
mod door;
mod error;
mod events;
mod fault;
mod http;
mod ids;
mod journal;
mod key;
mod monitor;
mod notify;
mod play;
mod proof;
mod rules;
mod schedule;
mod shared;
mod tasks;
mod telemetry;
mod time;
mod tls;
mod websocket;
mod wire;

pub use book::CHALLENGE_LIFETIME;
pub use error::{Error, Reason};
pub use fault::{Fault, Route};
pub use journal::{Accepted, Counts, Journal, Seen, Transport};
pub use key::{Capability, KeyShape, other_test_key, test_key};
pub use monitor::{Monitor, Options, Snapshot};
pub use rules::{DuplicateAnswer, Mode, Settings};
pub use schedule::Plan;
pub use shared::{Event, Observer};
pub use tls::Tls;
