//! The socket file: made, handed to its group, removed; and who is at the other end of it.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::groups;

/// Its group may read.
pub const GROUP: &str = "harborforge";

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon answers there.
    #[error("{} is the control socket of another daemon that runs: give this one its own control_socket", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is in the way.
    #[error("{} is there and is no socket: remove it, or set control_socket to another path", path.display())]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

/// A listening socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct Bound {
    /// To be listened on; not blocking.
    pub listener: UnixListener,
    /// The file, and its inode: another daemon may have put its own there since.
    file: (PathBuf, u64),
}

impl Bound {
    /// Makes the socket and the directory it is in.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn new(path: &Path) -> Result<Self, SocketError> {
        let failed = |what| {
            let path = path.to_path_buf();
            move |source| SocketError::Io { what, path, source }
        };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let mut builder = fs::DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(failed("create the directory of"))?;
        }
        make_way(path)?;
        // Nobody can connect before it has its mode: the file is made with no rights for others,
        // under another name.
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let _ = fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).map_err(failed("make"))?;
        let ready = (|| {
            listener.set_nonblocking(true)?;
            fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
            if let Some(group) = groups::id(GROUP) {
                // A daemon that is not in the group may not hand it over: then only its own
                // group can read.
                if let Err(error) = std::os::unix::fs::chown(&fresh, None, Some(group)) {
                    tracing::debug!(%error, group = GROUP, "the control socket keeps the daemon's group");
                }
            }
            fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660))?;
            fs::rename(&fresh, path)?;
            fs::metadata(path)
        })();
        match ready {
            Ok(metadata) => Ok(Self { listener, file: (path.to_path_buf(), metadata.ino()) }),
            Err(error) => {
                let _ = fs::remove_file(&fresh);
                Err(failed("make")(error))
            }
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let (path, inode) = &self.file;
        if fs::metadata(path).is_ok_and(|metadata| metadata.ino() == *inode) {
            // What stays is stale, and replaced at the next start.
            let _ = fs::remove_file(path);
        }
    }
}

/// Makes sure that nobody answers there.
fn make_way(path: &Path) -> Result<(), SocketError> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(SocketError::Io { what: "look at", path: path.to_path_buf(), source });
        }
    };
    if !kind.is_socket() {
        return Err(SocketError::NotASocket { path: path.to_path_buf() });
    }
    match knock(path) {
        // Somebody listens, perhaps with too many waiting.
        Ok(()) | Err(Errno::AGAIN) => Err(SocketError::InUse { path: path.to_path_buf() }),
        // Nobody listens: it was left behind, and the new one takes its place.
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        Err(error) => {
            let source = error.into();
            Err(SocketError::Io { what: "connect to", path: path.to_path_buf(), source })
        }
    }
}

/// Connects without waiting.
fn knock(path: &Path) -> rustix::io::Result<()> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::net::connect(&socket, &address)
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Process id; 0 when it lives in a namespace of its own.
    pub pid: i32,
}

impl Peer {
    /// As the kernel says.
    ///
    /// # Errors
    /// What the kernel says instead.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = rustix::net::sockopt::socket_peercred(socket)?;
        Ok(Self { uid: credentials.uid.as_raw(), pid: credentials.pid.as_raw_nonzero().get() })
    }

    /// Whether it may change anything: root, and the daemon's own user.
    #[must_use]
    pub fn may_change(self, own_uid: u32) -> bool {
        self.uid == 0 || self.uid == own_uid
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_never() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        let first = Bound::new(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        assert!(matches!(Bound::new(&path), Err(SocketError::InUse { .. })));
        assert!(UnixStream::connect(&path).is_ok(), "it is still there");
        drop(first);
        assert!(!path.exists());
        // As after a kill: the file stays, nobody listens.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let second = Bound::new(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists(), "it is removed");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Bound::new(&path), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_socket_of_another_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let first = Bound::new(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Bound::new(&path).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
    }

    #[test]
    fn the_kernel_tells_who_it_is() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!((peer.uid, peer.pid), (own, std::process::id() as i32));
        assert!(peer.may_change(own));
        assert!(Peer { uid: 0, pid: 1 }.may_change(1000));
        assert!(!Peer { uid: 1001, pid: 1 }.may_change(1000));
    }
}
