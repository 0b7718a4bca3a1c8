//! The use of one file system, as `df` counts it, without ever hanging on it.

use std::path::Path;

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
    /// When the path cannot be looked up, the file system has no blocks, or does not answer in
    /// time.
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
    Ok(df(figures.f_blocks, figures.f_bfree, figures.f_bavail))
}

/// `df`'s arithmetic: blocks reserved for root count neither as used nor as available.
fn df(blocks: u64, free: u64, available: u64) -> Usage {
    let used = blocks.saturating_sub(free);
    Usage { used, total: used.saturating_add(available) }
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
