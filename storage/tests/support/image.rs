//! File systems in a file, copied and put together as a power cut would leave them.
//!
//! A mounted file system writes to its image only what was synced, and what the kernel wrote of
//! its own accord. So a copy of the image is what a disk holds when the power goes. Needs root,
//! mkfs.ext4 and a loop device.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Random;

const SIZE: u64 = 32 << 20;
const BLOCK: usize = 4096;
/// What a disk writes at once.
const SECTOR: usize = 512;

/// A fresh file system; false where that cannot be had.
pub fn make(path: &Path) -> bool {
    File::create(path).unwrap().set_len(SIZE).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F", "-b", "4096"]).arg(path).status();
    made.is_ok_and(|status| status.success())
}

/// A copy of an image whose file system is at rest.
pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--sparse=always").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// Between two images, one from before a sync and one from after it: some of the sectors that the
/// sync wrote are there, and some are not.
///
/// The block that commits a transaction of the file system is written when all the others are on
/// the disk, so it is among those that are missing. Returns how many sectors were written and how
/// many are missing.
pub fn tear(before: &Path, after: &Path, random: &mut Random) -> (usize, usize) {
    let torn = File::options().write(true).open(before).unwrap();
    let (mut old, mut new) = (File::open(before).unwrap(), File::open(after).unwrap());
    let (mut old_block, mut new_block) = (vec![0; BLOCK], vec![0; BLOCK]);
    // Mostly nothing, about half, or mostly all.
    let share = [10, 50, 90][random.below(3) as usize];
    let (mut written, mut missing) = (0, 0);
    for block in 0..SIZE / BLOCK as u64 {
        old.read_exact(&mut old_block).unwrap();
        new.read_exact(&mut new_block).unwrap();
        if old_block == new_block {
            continue;
        }
        for at in (0..BLOCK).step_by(SECTOR) {
            let sector = &new_block[at..at + SECTOR];
            if old_block[at..at + SECTOR] == *sector {
                continue;
            }
            written += 1;
            if is_commit(&new_block) || random.below(100) >= share {
                missing += 1;
            } else {
                torn.write_all_at(sector, block * BLOCK as u64 + at as u64).unwrap();
            }
        }
    }
    (written, missing)
}

/// Whether a block is the journal's commit record.
fn is_commit(block: &[u8]) -> bool {
    block[..8] == [0xC0, 0x3B, 0x39, 0x98, 0, 0, 0, 2]
}

/// A mounted image; unmounted when dropped.
pub struct Mounted {
    pub path: PathBuf,
}

impl Mounted {
    /// None where that is not allowed.
    pub fn mount(image: &Path, at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        // Nothing but a sync commits what was written, however slow the test.
        let mount =
            Command::new("mount").args(["-o", "loop,commit=600"]).args([image, at]).output();
        mount.is_ok_and(|output| output.status.success()).then(|| Self { path: at.to_path_buf() })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}
