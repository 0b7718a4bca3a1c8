//! Reading files that somebody else owns, without ever being held up by one.
//!
//! Invariants:
//! - Only regular files are opened, and none for writing; a FIFO, a device or a directory in place
//!   of a file is refused before it is opened, and again after, should it have been swapped.
//! - At most the limit is read, whatever the file says of its size or grows to meanwhile.
//! - A [`Stamp`] is taken before the bytes: a file that changes while it is read has another one
//!   the next time.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Bytes a file may have at most.
pub const MAX_FILE: u64 = 4 * 1024 * 1024;

/// A file whose last change is younger than this may change again without its stamp changing,
/// since clocks of file systems tick in milliseconds up to two seconds.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// By what a changed file is told from the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(stat: &fs::Stat) -> Self {
        // The fields' types differ between architectures.
        #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }

    /// Whether the last change is so long ago that the next one shows in the stamp.
    #[must_use]
    pub fn settled(&self, now: SystemTime) -> bool {
        let Ok(seconds) = u64::try_from(self.changed.0) else { return true };
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH);
        match now.duration_since(at) {
            Ok(age) => age > SETTLED_AFTER,
            // Of the future: some clock is wrong; only its neighbourhood is in doubt.
            Err(ahead) => ahead.duration() > SETTLED_AFTER,
        }
    }
}

/// Why a file was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is not there.
    #[error("not there")]
    Missing,
    /// This user may not read it, or not walk to it.
    #[error("permission denied")]
    Denied,
    /// A FIFO, a device, a directory or a socket stands in its place.
    #[error("not a regular file")]
    NotAFile,
    /// More than may be read.
    #[error("larger than {} KiB", .0 / 1024)]
    TooLarge(u64),
    /// It lies outside the directory it must lie in, or a link leads out of it.
    #[error("outside the state directory")]
    Outside,
    /// Anything else the operating system says.
    #[error("{0}")]
    Other(String),
}

impl From<Errno> for FileError {
    fn from(errno: Errno) -> Self {
        if errno == Errno::NOENT || errno == Errno::NOTDIR {
            Self::Missing
        } else if errno == Errno::ACCESS || errno == Errno::PERM {
            Self::Denied
        } else if errno == Errno::XDEV {
            Self::Outside
        } else if errno == Errno::LOOP {
            Self::Other("a symbolic link that leads in a circle or is not followed here".to_owned())
        } else {
            Self::Other(io::Error::from(errno).to_string())
        }
    }
}

/// What a regular file is told by, links followed.
///
/// # Errors
/// See [`FileError`]; size is not judged.
pub fn look(path: &Path) -> Result<Stamp, FileError> {
    regular(&fs::stat(path)?)
}

/// A file's bytes, links followed.
///
/// # Errors
/// See [`FileError`].
pub fn read(path: &Path, limit: u64) -> Result<(Vec<u8>, Stamp), FileError> {
    look(path)?;
    take(fs::open(path, FLAGS, Mode::empty())?, limit)
}

/// A file's bytes, unless its last component is a link. `owners` are the users whose file it may
/// be; anyone's when it is empty.
///
/// # Errors
/// See [`FileError`].
pub fn read_own(path: &Path, limit: u64, owners: &[u32]) -> Result<(Vec<u8>, Stamp), FileError> {
    regular(&fs::lstat(path)?)?;
    let file = fs::open(path, FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
    if !owners.is_empty() && !owners.contains(&fs::fstat(&file)?.st_uid) {
        return Err(FileError::Other("another user's file".to_owned()));
    }
    take(file, limit)
}

/// The bytes of the file at `relative` in a directory, unless any link on the way leads out of it.
///
/// # Errors
/// See [`FileError`].
pub fn read_beneath(
    directory: &Path,
    relative: &Path,
    limit: u64,
) -> Result<(Vec<u8>, Stamp), FileError> {
    if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(FileError::Outside);
    }
    let root = fs::open(directory, FLAGS | OFlags::DIRECTORY, Mode::empty())?;
    // Named without being opened for reading, which could wait for a FIFO or wake a device.
    let named = fs::openat2(
        &root,
        relative,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    );
    match named {
        Ok(named) => {
            regular(&fs::fstat(&named)?)?;
            let file = fs::openat2(
                &root,
                relative,
                FLAGS,
                Mode::empty(),
                ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
            )?;
            take(file, limit)
        }
        // A kernel before 5.6, or a filter of system calls: the same by names.
        Err(errno) if errno == Errno::NOSYS || errno == Errno::PERM => {
            let real = |path: &Path| path.canonicalize().map_err(|error| of_io(&error));
            let (root, file) = (real(directory)?, real(&directory.join(relative))?);
            if !file.starts_with(root) {
                return Err(FileError::Outside);
            }
            read_own(&file, limit, &[])
        }
        Err(errno) => Err(errno.into()),
    }
}

/// The names of a directory's entries that `wanted` accepts, at most `limit`, sorted.
///
/// # Errors
/// See [`FileError`].
pub fn names(
    directory: &Path,
    limit: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<String>, FileError> {
    let entries = std::fs::read_dir(directory).map_err(|error| of_io(&error))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| wanted(name))
        .take(limit)
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// `path` without `.` and `..`, by its names alone; `None` when it climbs above its start.
#[must_use]
pub fn normalized(path: &Path) -> Option<PathBuf> {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !parts.pop() {
                    return None;
                }
            }
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => parts.push(part),
        }
    }
    Some(parts)
}

/// Nothing waits for the other end of a FIFO or becomes the terminal of this process.
const FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

fn regular(stat: &fs::Stat) -> Result<Stamp, FileError> {
    let kind = fs::FileType::from_raw_mode(stat.st_mode);
    if kind == fs::FileType::RegularFile { Ok(Stamp::of(stat)) } else { Err(FileError::NotAFile) }
}

fn take(file: OwnedFd, limit: u64) -> Result<(Vec<u8>, Stamp), FileError> {
    let stat = fs::fstat(&file)?;
    let stamp = regular(&stat)?;
    if stamp.size > limit {
        return Err(FileError::TooLarge(limit));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(stamp.size).unwrap_or(0));
    File::from(file)
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| of_io(&error))?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge(limit));
    }
    Ok((bytes, stamp))
}

fn of_io(error: &io::Error) -> FileError {
    Errno::from_io_error(error).map_or_else(|| FileError::Other(error.to_string()), FileError::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::mknodat(fs::CWD, at("fifo"), fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        symlink("/dev/zero", at("device")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for name in ["fifo", "directory", "device", "socket"] {
            assert_eq!(look(&at(name)), Err(FileError::NotAFile), "{name}");
            assert_eq!(read(&at(name), MAX_FILE).unwrap_err(), FileError::NotAFile, "{name}");
            assert!(read_own(&at(name), MAX_FILE, &[]).is_err(), "{name}");
            assert!(read_beneath(dir.path(), Path::new(name), MAX_FILE).is_err(), "{name}");
        }
        symlink("loop", at("loop")).unwrap();
        assert!(matches!(read(&at("loop"), MAX_FILE), Err(FileError::Other(_))));
        assert_eq!(read(&at("none"), MAX_FILE).unwrap_err(), FileError::Missing);
    }

    #[test]
    fn no_more_than_the_limit_is_read_whatever_the_size_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [b'x'; 100]).unwrap();
        assert_eq!(read(&path, 100).unwrap().0.len(), 100);
        assert_eq!(read(&path, 99).unwrap_err(), FileError::TooLarge(99));
        // Sparse and huge: nothing of it is read.
        File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read(&path, MAX_FILE).unwrap_err(), FileError::TooLarge(MAX_FILE));
        // A size of 0 that is none.
        assert_eq!(read(Path::new("/proc/self/environ"), 0).unwrap_err(), FileError::TooLarge(0));
    }

    #[test]
    fn links_are_followed_within_the_directory_alone() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "outside").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/file"), "inside").unwrap();
        symlink("sub/file", root.join("link")).unwrap();
        symlink(outside.path().join("secret"), root.join("out")).unwrap();
        symlink(outside.path(), root.join("sub/out")).unwrap();
        let beneath = |name: &str| read_beneath(root, Path::new(name), MAX_FILE);
        assert_eq!(beneath("sub/file").unwrap().0, b"inside");
        assert_eq!(beneath("link").unwrap().0, b"inside");
        for name in ["out", "sub/out/secret", "../secret", "/etc/passwd"] {
            assert_eq!(beneath(name).unwrap_err(), FileError::Outside, "{name}");
        }
        assert!(read_own(&root.join("link"), MAX_FILE, &[]).is_err(), "its last part is a link");
    }

    #[test]
    fn a_stamp_tells_a_changed_file_once_the_clock_has_ticked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let before = look(&path).unwrap();
        assert_eq!(look(&path).unwrap(), before);
        assert!(!before.settled(SystemTime::now()), "it has just been written");
        assert!(before.settled(SystemTime::now() + Duration::from_secs(10)));
        // Another file of the same size in its place.
        std::fs::write(dir.path().join("new"), "two").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        assert_ne!(look(&path).unwrap(), before);
    }

    #[test]
    fn names_cannot_climb() {
        for (path, expected) in [
            ("a/./b/../c", Some("a/c")),
            ("../a", None),
            ("a/../../b", None),
            ("/x/../y", Some("/y")),
        ] {
            assert_eq!(normalized(Path::new(path)).as_deref(), expected.map(Path::new), "{path}");
        }
    }
}
