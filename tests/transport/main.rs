//! The transport against real sockets: what it sends, what it accepts, and what hostile or
//! broken servers and proxies can do to it.

// These are tests from end to end: clippy's leave for tests covers #[test] functions only, and
// the helpers around them may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// What was not expected is a failure, whatever it is.
#![allow(clippy::wildcard_enum_match_arm)]

mod hostile;
mod plain;
mod proxied;
mod server;
mod tls;
mod websocket;
mod websocket_hostile;
