//! The use of one file system, as `df` counts it, without ever hanging on it.
//!
//! Invariant: what systemd's sandbox lays over a directory is not what was asked for. Its empty file
//! system answers like any other, so it is told by its mount, and counts as unreadable.

use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use super::host::{Unreadable, Usage};
use super::patient::Patient;

/// Asks for the use of file systems.
pub struct DiskProbe(Patient<Usage>);

impl DiskProbe {
    /// A probe that asks the kernel.
    #[must_use]
    pub fn new() -> Self {
        Self(Patient::new("disk_path", statvfs))
    }

    /// The use of the file system `path` is on: used blocks, and used plus available ones. Waits
    /// for one that does not answer for a second, once.
    ///
    /// # Errors
    /// When the path cannot be looked up, the file system has no blocks, is not the one asked for
    /// but the sandbox's, or does not answer in time.
    pub fn usage(&mut self, path: &Path) -> Result<Usage, Unreadable> {
        self.0.ask(path)
    }
}

impl Default for DiskProbe {
    fn default() -> Self {
        Self::new()
    }
}

fn statvfs(path: &Path) -> Result<Usage, Unreadable> {
    let figures = rustix::fs::statvfs(path).map_err(|error| {
        Unreadable(format!(
            "statvfs of disk_path {}: {}",
            path.display(),
            std::io::Error::from(error)
        ))
    })?;
    if figures.f_blocks == 0 {
        return Err(Unreadable(format!(
            "disk_path {} is on a file system without blocks, such as /proc; name a directory on a \
             disk",
            path.display()
        )));
    }
    if is_tmpfs(path)
        && let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo")
        && is_covered(&mounts, path)
    {
        return Err(Unreadable(format!(
            "disk_path {} is hidden from this service by its sandbox (ProtectHome=, \
             InaccessiblePaths=); let it see the directory: sudo systemctl edit \
             harborforge-connector, with ProtectHome=read-only under [Service]",
            path.display()
        )));
    }
    Ok(df(figures.f_blocks, figures.f_bfree, figures.f_bavail))
}

/// `df`'s arithmetic: blocks reserved for root count neither as used nor as available.
fn df(blocks: u64, free: u64, available: u64) -> Usage {
    let used = blocks.saturating_sub(free);
    Usage { used, total: used.saturating_add(available) }
}

/// What systemd lays over a directory is always one; so the mounts are not read for each sample.
fn is_tmpfs(path: &Path) -> bool {
    const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
    rustix::fs::statfs(path).is_ok_and(|figures| figures.f_type == TMPFS_MAGIC)
}

/// Whether a path lies on what systemd has laid over a directory: the one it makes directories
/// inaccessible with, or the empty one of `ProtectHome=tmpfs`.
fn is_covered(mounts: &str, path: &Path) -> bool {
    const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let mut nearest: Option<(PathBuf, bool)> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(3);
        let (Some(root), Some(point), Some(options)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let point = unescaped(point);
        let shorter = nearest.as_ref().is_some_and(|(nearest, _)| !point.starts_with(nearest));
        if shorter || !path.starts_with(&point) {
            continue;
        }
        let tmpfs = line.split_once(" - ").is_some_and(|(_, kind)| kind.starts_with("tmpfs "));
        let read_only = options.split(',').any(|option| option == "ro");
        let home = HOMES.iter().any(|home| point == Path::new(home));
        let covers = root.ends_with("/systemd/inaccessible/dir") || tmpfs && read_only && home;
        // Of two on one place the later one is on top.
        nearest = Some((point, covers));
    }
    nearest.is_some_and(|(_, covers)| covers)
}

/// A path of mountinfo: blanks and the like stand as `\040`.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let code = behind.first_chunk::<3>().filter(|_| *first == b'\\');
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_reserved_for_root_are_neither_used_nor_available() {
        // 1000 blocks, 400 free, 350 of them for everyone.
        assert_eq!(df(1000, 400, 350), Usage { used: 600, total: 950 });
        // A file system that is full for users is full.
        assert_eq!(df(1000, 50, 0).percent(), 100.0);
        // More free than there is: some FUSE file systems say so.
        assert_eq!(df(10, 20, 20), Usage { used: 0, total: 20 });
    }

    /// As systemd 252 mounts it for a service.
    #[test]
    fn what_the_sandbox_lays_over_a_directory_is_told_from_the_users_own() {
        let root = "22 1 254:1 / / ro,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro\n";
        let run = "25 22 0:23 / /run rw,nosuid shared:5 - tmpfs tmpfs rw,size=1000k,mode=755\n";
        let inaccessible = "301 22 0:23 /systemd/inaccessible/dir /home ro,nosuid,nodev,noexec \
                            shared:9 master:5 - tmpfs tmpfs rw,size=1000k,mode=755\n";
        let empty = "302 22 0:55 / /home ro,nodev shared:9 - tmpfs tmpfs ro,size=4k,mode=755\n";
        let opened = "303 302 254:1 /home/claw /home/claw ro shared:1 - ext4 /dev/vda1 rw\n";
        let own = "304 22 0:60 / /home rw,nodev - tmpfs tmpfs rw\n";
        let blank = "305 22 0:61 / /srv/a\\040b rw - tmpfs tmpfs rw\n306 305 0:23 \
                     /systemd/inaccessible/dir /srv/a\\040b/c ro - tmpfs tmpfs rw\n";
        for (mounts, path, covered) in [
            (vec![root, run, inaccessible], "/home", true),
            (vec![root, run, inaccessible], "/", false),
            (vec![root, run, inaccessible], "/run", false),
            (vec![root, run, inaccessible], "/homely", false),
            (vec![root, run, empty, opened], "/home", true),
            (vec![root, run, empty, opened], "/home/claw", false),
            (vec![root, run, empty, opened], "/home/other", true),
            (vec![root, run, own], "/home", false),
            (vec![root, run, own, inaccessible], "/home", true),
            (vec![root, blank], "/srv/a b/c", true),
            (vec![root, blank], "/srv/a b", false),
            (vec!["", "nothing of the kind\n", "\\"], "/home", false),
        ] {
            assert_eq!(is_covered(&mounts.concat(), Path::new(path)), covered, "{path} {mounts:?}");
        }
    }

    #[test]
    fn the_reason_names_the_path_and_what_is_wrong() {
        let mut probe = DiskProbe::new();
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("gone");
        let why = probe.usage(&missing).unwrap_err().0;
        assert!(why.contains("gone") && why.contains("No such file"), "{why}");
        let why = probe.usage(Path::new("/proc")).unwrap_err().0;
        assert!(why.contains("/proc") && why.contains("without blocks"), "{why}");
        assert!(probe.usage(dir.path()).unwrap().total > 0);
    }
}
