//! The daemon's control socket: what `status`, `dump`, `replay`, `enroll`, `verify` and `purge`
//! talk to while the daemon runs, since no other process can open its queue.
//!
//! [`protocol`] says what goes over it (pure), [`server`] answers, [`client`] asks; [`socket`]
//! makes the file and tells who is at the other end.
//!
//! Invariants:
//! - A Unix stream socket of mode 0660, the daemon's user, group `harborforge` where the daemon
//!   may set it. Who can open it may read; only root and the daemon's own user may change
//!   anything, and each change is logged with who asked for it.
//! - A live socket of another daemon is never replaced; a stale one is.
//! - A client costs bounded memory and time: a request is one line of limited length, the number
//!   of connections is limited, what is not taken in time ends the connection. No client delays
//!   sampling or sending: answers are read from the queue in small portions, behind appends.
//! - Root and the daemon's own user always find a place: readers cannot lock them out.

pub mod client;
pub mod dump;
pub mod enroll;
mod places;
mod portions;
pub mod protocol;
mod purge;
pub mod replay;
pub mod report;
pub mod server;
pub mod socket;
pub mod status;
mod verify;
