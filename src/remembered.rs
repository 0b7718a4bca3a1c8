//! `cpu.json` in `data_dir`: the CPU's counters as they were read last before a stop, so that the
//! first sample after it has a `cpu_pct`.
//!
//! Invariants:
//! - It is written at an orderly stop alone, after the queue is closed: no sample and no stop
//!   depends on it.
//! - It is not synced: a power cut, which could lose it, ends the boot it speaks of.
//! - Nothing about it is an error. What is missing, torn, not ours or not a file counts as not
//!   there, and `debug` says why.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::collector::baseline::Reading;

const FILE: &str = "cpu.json";

/// Far more than it ever has.
const MOST: u64 = 16 * 1024;

/// What was kept at the last stop.
#[must_use]
pub fn load(data_dir: &Path) -> Option<Reading> {
    let path = data_dir.join(FILE);
    match read(&path) {
        Ok(reading) => Some(reading),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "no reading of the CPU is kept");
            None
        }
    }
}

/// Keeps this for the next start.
pub fn keep(data_dir: &Path, reading: &Reading) {
    let path = data_dir.join(FILE);
    if let Err(error) = write(&path, reading) {
        tracing::debug!(path = %path.display(), %error, "the reading of the CPU is not kept");
    }
}

fn read(path: &Path) -> io::Result<Reading> {
    // Looked at first: opening a pipe would wait for its other end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file"));
    }
    let mut text = Vec::new();
    File::open(path)?.take(MOST).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn write(path: &Path, reading: &Reading) -> io::Result<()> {
    let text = serde_json::to_vec(reading)?;
    // A file of its own each time, whatever stood there.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::baseline::{Counters, first_figure};
    use crate::collector::proc::Ticks;
    use std::os::unix::fs::PermissionsExt as _;

    fn reading() -> Reading {
        Reading {
            boot_id: [0xba; 16],
            counters: Counters {
                source: "/proc/stat".into(),
                boot_ms: 46_203_470,
                ticks: Ticks::of(9_210_648, 3_949_948),
            },
        }
    }

    #[test]
    fn what_is_kept_is_read_again_and_the_newest_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), None);
        let mut later = reading();
        later.counters.boot_ms += 5_000;
        for kept in [reading(), later] {
            keep(dir.path(), &kept);
            assert_eq!(load(dir.path()), Some(kept));
        }
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    /// Whatever a byte becomes and wherever the file ends: no panic, and no figure that is none.
    #[test]
    fn damage_is_not_there_or_a_reading_that_makes_a_share() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        keep(dir.path(), &reading());
        let good = fs::read(&path).unwrap();
        let mut now = reading();
        now.counters.boot_ms += 30_000;
        now.counters.ticks = Ticks::of(9_216_648, 3_952_948);
        let mut lost = 0;
        for damaged in crate::damage::every_kind(&good) {
            fs::write(&path, &damaged).unwrap();
            let found = load(dir.path());
            lost += u32::from(found.is_none());
            if let Some(share) = first_figure(&now, found.as_ref(), || Some(200)) {
                assert!((0.0..=100.0).contains(&share), "{share}: {found:?}");
            }
            keep(dir.path(), &reading());
            assert_eq!(load(dir.path()), Some(reading()));
        }
        assert!(lost > 0);
    }

    #[test]
    fn what_is_no_file_is_neither_read_nor_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::create_dir(&path).unwrap();
        assert_eq!(load(dir.path()), None);
        keep(dir.path(), &reading());
        assert!(path.is_dir(), "it is somebody else's");
        fs::remove_dir(&path).unwrap();

        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(load(dir.path()), None);
        keep(dir.path(), &reading());
        assert_eq!(load(dir.path()), Some(reading()));
        // Larger than any: the beginning of it is no reading.
        fs::write(&path, vec![b' '; 1 << 20]).unwrap();
        assert_eq!(load(dir.path()), None);
    }
}
