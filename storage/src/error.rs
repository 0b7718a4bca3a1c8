//! What can go wrong, told so that a caller can decide and an operator can act.

use std::io;
use std::path::{Path, PathBuf};

use crate::engine::Fault;

/// The error of every operation of this crate.
///
/// A variant names the operation and the path, its message says what to do, and the cause is
/// in [`source()`](std::error::Error::source). An error never means that something durable
/// was undone: an operation either happened wholly or can be tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process holds the queue.
    #[error(
        "{} is held by {}: stop that process, or ask it over its control socket",
        path.display(),
        holder(*pid)
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The holder's process id, where it could be read.
        pid: Option<u32>,
    },
    /// Other processes read the queue, which lets nobody write.
    #[error(
        "{} is held by another process that reads the queue, perhaps a dump, verify or status \
         without a daemon: wait for its end, or end it",
        path.display()
    )]
    Reading {
        /// The lock file.
        path: PathBuf,
    },
    /// There is no queue to look at.
    #[error("{} is not there: nothing was ever queued here, or this is not the data directory", path.display())]
    NoQueue {
        /// The lock file every queue has.
        path: PathBuf,
    },
    /// The files were written by a newer version.
    #[error(
        "{} is of format {found}, this program knows up to {supported}: install the newer version again",
        path.display()
    )]
    NewerFormat {
        /// The file that states the format.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format known here.
        supported: u32,
    },
    /// The files were written by an older version: it cannot be migrated by a reader, or no way
    /// leads here from it.
    #[error(
        "{} is of format {found}, this program works with {supported}: starting the daemon migrates it, if no version between is needed",
        path.display()
    )]
    OlderFormat {
        /// The file that states the format.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The format known here.
        supported: u32,
    },
    /// The file system is full (no space, no quota or no inodes left).
    #[error("cannot {operation} {}: no space left: make room on this file system", path.display())]
    Full {
        /// What was tried, as it follows "cannot".
        operation: &'static str,
        /// The file or directory concerned.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The database engine's threads, shared by all databases of the process, are gone:
    /// nothing can be written any more until the process is started again.
    #[error(
        "cannot {operation} {}: the database engine's own threads have died: restart this program",
        path.display()
    )]
    EngineBroken {
        /// What was tried, as it follows "cannot".
        operation: &'static str,
        /// The database concerned.
        path: PathBuf,
        /// What the engine said.
        source: EngineFault,
    },
    /// The operating system refused; trying again later may help.
    #[error("cannot {operation} {}: see its owner, mode and disk", path.display())]
    Io {
        /// What was tried, as it follows "cannot".
        operation: &'static str,
        /// The file or directory concerned.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The database engine refused, and what it holds may be damaged.
    #[error(
        "cannot {operation} {}: its content is damaged; what is lost will be listed as a gap",
        path.display()
    )]
    Engine {
        /// What was tried, as it follows "cannot".
        operation: &'static str,
        /// The database concerned.
        path: PathBuf,
        /// What the engine said.
        source: EngineFault,
    },
    /// A record larger than [`MAX_PAYLOAD`](crate::MAX_PAYLOAD).
    #[error("a record of {size} bytes is over the limit of {limit}: shorten it")]
    TooLarge {
        /// Its payload in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A number that was never given out.
    #[error(
        "number {seq} was never appended, the last one is {last}: this is a fault of the caller"
    )]
    BeyondEnd {
        /// The number named by the caller.
        seq: u64,
        /// The last number given out, 0 if none.
        last: u64,
    },
}

/// What the database engine said when it failed, without its types.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EngineFault(String);

impl Error {
    /// Whether the same call may succeed later without a restart: a full disk, too many open
    /// files, a failing device, a missing permission, somebody who reads.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Full { .. } | Self::Io { .. } | Self::Engine { .. } | Self::Reading { .. }
        )
    }

    /// Whether the file system is full, or the user's share of it.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        let full =
            matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if full {
            Self::Full { operation, path, source }
        } else {
            Self::Io { operation, path, source }
        }
    }

    pub(crate) fn engine(operation: &'static str, path: &Path, fault: Fault) -> Self {
        let path_buf = path.to_path_buf();
        match fault {
            Fault::Io(source) => Self::io(operation, path, source),
            Fault::Damaged(text) => {
                Self::Engine { operation, path: path_buf, source: EngineFault(text) }
            }
            Fault::PoolBroken(text) => {
                Self::EngineBroken { operation, path: path_buf, source: EngineFault(text) }
            }
        }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart() {
        let path = Path::new("/q");
        let full = Error::io("write", path, io::Error::from(io::ErrorKind::StorageFull));
        assert!(matches!(full, Error::Full { .. }) && full.is_retryable());
        let other = Error::io("write", path, io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(matches!(other, Error::Io { .. }) && other.is_retryable());
    }

    #[test]
    fn the_message_names_the_holder() {
        let error = Error::Locked { path: "/q/LOCK".into(), pid: Some(42) };
        assert!(error.to_string().contains("process 42"), "{error}");
        assert!(!error.is_retryable());
    }
}
