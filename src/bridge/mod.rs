//! The bridge for OpenClaw's plugins and for Prometheus (docs/PROTOCOL.md 9): a small HTTP/1.1
//! server on a loopback address. The codec is hyper's.
//!
//! Invariants:
//! - It listens on loopback addresses alone, answers peers with one alone, and only requests whose
//!   `Host` names one: a web page that has its own name lead here is refused.
//! - Clients cost bounded memory and time: [`MOST_CLIENTS`] at once, each head, body,
//!   answer and connection with limits of its own. None of them is waited for by anything else.
//! - Nothing of the daemon depends on it: an address that is taken is tried again and again, and
//!   samples are taken and delivered meanwhile.
//! - What a plugin pushes is bounded and checked before any of it is kept ([`push`]).

mod body;
mod host;
mod listen;
pub mod push;
mod refusals;
mod routes;
mod server;
mod standing;
mod timer;

pub use listen::{Bridge, advice};
pub use routes::Answers;
pub use server::MOST_CLIENTS;
pub use standing::{Place, Standing};
