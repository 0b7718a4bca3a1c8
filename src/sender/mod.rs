//! Decides what is sent when, over which transport.
//!
//! [`machine`] is the pure core: events and the time go in, commands come out. [`driver`] is the
//! thin shell that carries the commands out. What an answer means is decided in [`classify`],
//! how long to wait in [`backoff`]; what is on its way over a WebSocket is kept in
//! [`window`], and whether anybody is still there in [`keepalive`].

mod advice;
mod agents;
pub mod backoff;
pub mod beside;
mod bundle;
pub mod classify;
pub mod driver;
pub mod journal;
pub mod keepalive;
pub mod link;
mod load;
pub mod machine;
pub mod skew;
mod socket;
pub mod window;
