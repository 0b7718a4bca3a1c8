//! A file that takes up room so that there is some to give back.
//!
//! On a full file system a queue could neither be opened nor write a gap or its list of
//! generations, and so could not deliver, which is what gives space back. So while there is
//! plenty, a file of [`BALLAST_BYTES`] is kept beside the generations; once the disk is full and
//! nothing else of the queue's own can go (`room.rs`), it is deleted. It is made again when that
//! leaves the disk with twice as much free.
//!
//! Its bytes are pseudo-random and synced: a hole, or what a file system compresses away, would
//! give nothing back.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use crate::files;
use crate::room;
use crate::types::{BALLAST_BYTES, Stamp};

/// The file's name in the queue's directory.
pub(crate) const NAME: &str = "ballast";

/// Free bytes that making it must leave.
const LEAVES: u64 = 2 * BALLAST_BYTES;

/// A disk that refused it although it seemed to have room (a quota, say) is left alone so long.
const PATIENCE: Duration = Duration::from_secs(300);

/// The ballast of one queue.
pub(crate) struct Ballast {
    path: PathBuf,
    whole: bool,
    refused_at: Option<Stamp>,
}

impl Ballast {
    /// Looks whether it is there, whole, in the queue's directory.
    pub(crate) fn find(dir: &Path) -> Self {
        let path = dir.join(NAME);
        let whole = fs::symlink_metadata(&path).is_ok_and(|metadata| {
            metadata.is_file()
                && metadata.len() == BALLAST_BYTES
                && metadata.blocks().saturating_mul(512) >= BALLAST_BYTES
        });
        Self { path, whole, refused_at: None }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Deletes it; whether that gave room.
    pub(crate) fn give_up(&mut self) -> bool {
        if !std::mem::replace(&mut self.whole, false) {
            return false;
        }
        match fs::remove_file(&self.path) {
            Ok(()) => {
                // Some file systems hand freed blocks out only after this; if it fails the room
                // comes a little later.
                let _ = self.path.parent().map_or(Ok(()), files::sync_dir);
                tracing::debug!(path = %self.path.display(), bytes = BALLAST_BYTES, "the ballast is given up");
                true
            }
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "the ballast cannot be given up");
                false
            }
        }
    }

    /// Makes it if it is missing and there is room enough. That it cannot be made is no error:
    /// the queue works without.
    pub(crate) fn make(&mut self, now: Stamp) {
        let waits = self.refused_at.is_some_and(|then| then.age_at(&now) < PATIENCE);
        if self.whole || waits {
            return;
        }
        let dir = self.path.parent().unwrap_or(&self.path);
        let wanted = BALLAST_BYTES.saturating_add(LEAVES);
        if room::free_bytes(dir).is_none_or(|free| free < wanted) {
            return;
        }
        let temporary = self.path.with_extension("tmp");
        let made = write(&temporary)
            .and_then(|()| fs::rename(&temporary, &self.path))
            .and_then(|()| files::sync_dir(dir));
        if let Err(error) = made {
            let _ = fs::remove_file(&temporary);
            self.refused_at = Some(now);
            tracing::debug!(path = %self.path.display(), %error, "the ballast cannot be made");
        }
        // The last step may fail with the file in place.
        self.whole = Self::find(dir).whole;
    }
}

fn write(path: &Path) -> io::Result<()> {
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut state = Uuid::new_v4().as_u64_pair().0;
    let mut block = Vec::with_capacity(64 * 1024);
    let mut left = usize::try_from(BALLAST_BYTES).unwrap_or(usize::MAX);
    while left > 0 {
        block.clear();
        while block.len() < block.capacity().min(left) {
            block.extend_from_slice(&next_random(&mut state).to_le_bytes());
        }
        file.write_all(&block)?;
        left = left.saturating_sub(block.len());
    }
    file.sync_all()
}

/// SplitMix64: good enough to be incompressible.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Stamp = Stamp { wall_ms: 1, boot_ms: 1, boot_id: [1; 16] };

    #[test]
    fn it_takes_its_room_and_gives_it_back_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut ballast = Ballast::find(dir.path());
        assert!(!ballast.is_whole() && !ballast.give_up());
        ballast.make(NOW);
        assert!(ballast.is_whole());
        let path = dir.path().join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().len(), BALLAST_BYTES);
        assert!(files::disk_usage(&path) >= BALLAST_BYTES);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(Ballast::find(dir.path()).is_whole());
        assert_eq!(files::names(dir.path()).unwrap().len(), 1, "nothing temporary stays");

        assert!(ballast.give_up());
        assert!(!ballast.give_up() && !path.exists());
        ballast.make(NOW);
        assert!(ballast.is_whole());
    }

    #[test]
    fn a_hole_or_a_piece_is_no_ballast() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join(NAME)).unwrap();
        file.set_len(BALLAST_BYTES).unwrap();
        assert!(!Ballast::find(dir.path()).is_whole());
        fs::write(dir.path().join(NAME), [7; 5000]).unwrap();
        assert!(!Ballast::find(dir.path()).is_whole());
        let mut ballast = Ballast::find(dir.path());
        ballast.make(NOW);
        assert!(ballast.is_whole());
    }

    #[test]
    fn its_bytes_do_not_repeat() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let words: std::collections::BTreeSet<_> = bytes.chunks(8).collect();
        assert_eq!(words.len() as u64, BALLAST_BYTES / 8);
    }
}
