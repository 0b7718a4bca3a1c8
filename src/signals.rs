//! Signals as events.
//!
//! Invariant: the handlers only write a byte to a socket; everything else happens in ordinary
//! tasks. A signal that comes again before the first was seen may be told once.

use std::io;

use futures_util::AsyncReadExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::runtime::{self, UnixStream, channel};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: stop.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: try now.
    TryNow,
}

/// Takes over the signals the daemon knows; they arrive in the returned channel.
///
/// # Errors
/// When a handler cannot be installed or a socket pair cannot be made.
pub fn listen() -> io::Result<channel::Receiver<Signal>> {
    let (sender, receiver) = channel::bounded(8);
    for (number, signal) in [
        (SIGTERM, Signal::Stop),
        (SIGINT, Signal::Stop),
        (SIGHUP, Signal::Reload),
        (SIGUSR1, Signal::TryNow),
    ] {
        let (read, write) = std::os::unix::net::UnixStream::pair()?;
        write.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(number, write)?;
        let (mut read, sender) = (UnixStream::from(read), sender.clone());
        runtime::spawn(async move {
            let mut bytes = [0; 16];
            while matches!(read.read(&mut bytes).await, Ok(n) if n > 0) {
                if sender.send(signal).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}
