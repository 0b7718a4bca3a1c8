//! Asks the daemon over its control socket. For the commands, so it blocks.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::marker::PhantomData;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::protocol::{Line, MAX_ANSWER, Refusal, Request, VERSION, Versioned};
use super::socket::GROUP;
use crate::groups;

/// How long the daemon may take for each line, where it owes one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens.
    #[error("no daemon answers on {}", path.display())]
    NoDaemon {
        /// The socket.
        path: PathBuf,
    },
    /// The socket may not be opened.
    #[error("you may not open {}: {hint}", path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
        /// Which group to join.
        hint: String,
    },
    /// The daemon says no.
    #[error("{0}")]
    Refused(Refusal),
    /// The answer ends in the middle.
    #[error("the daemon closed {} before the end of its answer: it was stopped, gave up on a \
             reader that was too slow, or too many are asking at once", path.display())]
    Cut {
        /// The socket.
        path: PathBuf,
    },
    /// The answer makes no sense.
    #[error("the daemon's answer is not understood: {0}")]
    Answer(String),
    /// The connection fails.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The socket.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// A connection to the daemon, good for one request.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let path = path.to_path_buf();
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Self { stream, path }),
            Err(error) => {
                use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
                let kind = error.kind();
                Err(if matches!(kind, NotFound | ConnectionRefused) {
                    ClientError::NoDaemon { path }
                } else if kind == PermissionDenied {
                    let hint = denied(&path);
                    ClientError::Denied { path, hint }
                } else {
                    ClientError::Io { what: "connect to", path, source: error }
                })
            }
        }
    }

    /// Asks. The answer's items are read one by one; `endless` when nothing may come for long.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn ask<I, E>(self, request: &Request, endless: bool) -> Result<Answer<I, E>, ClientError>
    where
        I: DeserializeOwned,
        E: DeserializeOwned,
    {
        let Self { mut stream, path } = self;
        let failed = |what| {
            let path = path.clone();
            move |source| ClientError::Io { what, path, source }
        };
        let request = Versioned { v: VERSION, request: request.clone() };
        // It may hold a secret.
        let mut line = Zeroizing::new(
            serde_json::to_vec(&request).map_err(|error| ClientError::Answer(error.to_string()))?,
        );
        line.push(b'\n');
        stream
            .set_read_timeout((!endless).then_some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .map_err(failed("set up"))?;
        match stream.write_all(&line) {
            // It may have said why before it closed: that is still to be read.
            Err(error) if has_closed(&error) => {}
            written => written.map_err(failed("write to"))?,
        }
        Ok(Answer { reader: BufReader::new(stream), path, end: None, over: false, of: PhantomData })
    }
}

/// Whether the other side has closed without hearing all of it.
fn has_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Which group opens the socket.
fn denied(path: &Path) -> String {
    hint(std::fs::metadata(path).ok().map(|metadata| metadata.gid()))
}

/// The same for the group a socket belongs to; none where its directory is closed.
fn hint(socket: Option<u32>) -> String {
    let group = match socket {
        // Root's group opens more than this socket.
        Some(0) => {
            return format!(
                "use sudo; it is root's group alone that may, so for others make the group \
                 {GROUP} (sudo groupadd --system {GROUP}), restart the daemon, and join it (sudo \
                 usermod -aG {GROUP} \"$USER\", then log in again)"
            );
        }
        Some(id) => groups::name(id).unwrap_or_else(|| id.to_string()),
        None => GROUP.to_owned(),
    };
    format!(
        "join the group {group} (sudo usermod -aG {group} \"$USER\", then log in again), or use sudo"
    )
}

/// An answer that is being read.
#[derive(Debug)]
pub struct Answer<I, E> {
    reader: BufReader<UnixStream>,
    path: PathBuf,
    end: Option<E>,
    over: bool,
    of: PhantomData<I>,
}

impl<I: DeserializeOwned, E: DeserializeOwned> Answer<I, E> {
    /// The next item; `None` at the end, see [`end`](Self::end).
    ///
    /// # Errors
    /// What the daemon refuses, and an answer that was cut off. Nothing follows then.
    pub fn next_item(&mut self) -> Result<Option<I>, ClientError> {
        if self.over {
            return Ok(None);
        }
        let read = self.read();
        if !matches!(read, Ok(Some(_))) {
            self.over = true;
        }
        read
    }

    fn read(&mut self) -> Result<Option<I>, ClientError> {
        let mut line = Vec::new();
        let limit = MAX_ANSWER as u64 + 1;
        match (&mut self.reader).take(limit).read_until(b'\n', &mut line) {
            Err(error) if has_closed(&error) => {
                return Err(ClientError::Cut { path: self.path.clone() });
            }
            Err(source) => {
                let path = self.path.clone();
                return Err(ClientError::Io { what: "read from", path, source });
            }
            Ok(_) => {}
        }
        if line.last() != Some(&b'\n') {
            if line.len() <= MAX_ANSWER {
                return Err(ClientError::Cut { path: self.path.clone() });
            }
            return Err(ClientError::Answer("a line is too long".to_owned()));
        }
        match serde_json::from_slice::<Line<I, E>>(&line) {
            Ok(Line::Item(item)) => Ok(Some(item)),
            Ok(Line::End(end)) => {
                self.end = Some(end);
                Ok(None)
            }
            Ok(Line::Error(refusal)) => Err(ClientError::Refused(refusal)),
            Err(error) => Err(ClientError::Answer(error.to_string())),
        }
    }

    /// What stood at the end; `None` before it was reached.
    pub fn end(self) -> Option<E> {
        self.end
    }
}
