//! Small file systems of a test's own: in memory, and an ext4 image on a loop device.
//!
//! Both need root; where they cannot be had a test says so and does nothing.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tmpfs,
    /// Journaled, with no blocks reserved for root.
    Ext4,
}

/// A mounted file system, unmounted when dropped.
pub struct SmallDisk {
    pub kind: Kind,
    pub path: PathBuf,
    _dir: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one of so many MiB; an ext4 journal takes 4 of them.
    pub fn mount(kind: Kind, mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        match kind {
            Kind::Tmpfs => mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]),
            Kind::Ext4 => {
                let image = dir.path().join("image");
                fs::File::create(&image).unwrap().set_len(mib * 1024 * 1024).unwrap();
                let mut format = Command::new("mkfs.ext4");
                format.args(["-q", "-F", "-m", "0", "-b", "4096"]).arg(&image);
                format.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
                if !format.output().is_ok_and(|output| output.status.success()) {
                    return None;
                }
                mount.args(["-o", "loop"]).arg(image)
            }
        };
        let mounted = mount.arg(&path).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self {
            kind,
            path,
            _dir: dir,
        })
    }

    /// Every kind that can be had here; says which cannot.
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    pub fn each(tmpfs_mib: u64, ext4_mib: u64) -> Vec<Self> {
        let mut disks = Vec::new();
        for (kind, mib) in [(Kind::Tmpfs, tmpfs_mib), (Kind::Ext4, ext4_mib)] {
            match Self::mount(kind, mib) {
                Some(disk) => disks.push(disk),
                None => eprintln!("SKIPPED on {kind:?}: mounting a small file system needs root"),
            }
        }
        disks
    }

    /// Takes all room there is, to the last block.
    pub fn fill(&self) {
        fill(&self.path.join("filler"));
    }

    /// Gives back what [`fill`](Self::fill) took.
    pub fn free(&self) {
        fs::remove_file(self.path.join("filler")).unwrap();
        fs::File::open(&self.path).unwrap().sync_all().unwrap();
    }

    /// Bytes free.
    pub fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        stat.f_bavail * stat.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

/// Appends to a file until its file system takes not one block more.
pub fn fill(path: &Path) {
    let mut filler = fs::File::options().append(true).create(true).open(path).unwrap();
    // What a file system allocates late is known to fit only once it is synced, and what the
    // last commit freed can be had only then: so again until a round gets nothing.
    loop {
        let before = filler.metadata().unwrap().len();
        for block in [64 * 1024, 4096, 1024] {
            while filler.write_all(&vec![0xA5; block]).is_ok() {}
        }
        let _ = filler.sync_all();
        if filler.metadata().unwrap().len() == before {
            break;
        }
    }
}
