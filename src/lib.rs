//! harborforge-connector: samples a server and its OpenClaw into a durable queue and delivers
//! the queue to HarborForge Monitor.
//!
//! One sample's way: [`collector`] makes it, [`store`] appends it to the queue (durable before
//! anyone hears of it), [`sender`] decides when and how it is sent, [`transport`] carries it,
//! and the Monitor's confirmation comes back the same way and moves the queue's cursor.
//!
//! Dependencies point one way: `cli` uses `daemon`, [`control`] and `config`; `daemon` wires
//! `collector`, `sender`, `transport`, `store`, `state`, [`remembered`], [`enrolled`] and `control`,
//! which reads [`health`], as does [`supervisor`]; [`bridge`] answers from the same and hands what it
//! is told to `collector`; [`replay`] works beside the sender for `cli` and `control`; `sender` knows
//! `protocol` and the shapes of `transport`'s answers; `transport` knows `protocol` and `crypto`. The
//! leaves `sample`, `protocol`, `jitter` and the pure parts of `sender` import no runtime, no socket,
//! no clock and no storage.

pub mod bridge;
pub mod busy;
pub mod cli;
pub mod collector;
pub mod config;
pub mod control;
pub mod crypto;
pub mod daemon;
#[cfg(test)]
mod damage;
pub mod enrolled;
pub mod figures;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod groups;
pub mod health;
pub mod jitter;
pub mod logging;
pub mod oneshot;
pub mod protocol;
pub mod remembered;
pub mod replace;
pub mod replay;
pub mod runtime;
pub mod sample;
pub mod sampler;
pub mod sender;
pub mod signals;
pub mod state;
pub mod store;
pub mod supervisor;
pub mod transport;
