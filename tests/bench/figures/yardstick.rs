//! The machine's own speed, taken in the same run.

use std::fs::File;
use std::io::Write as _;
use std::time::Instant;

use sha2::{Digest as _, Sha256};

/// What processor and disk do here without the connector.
pub struct Yardstick {
    /// MiB of SHA-256 a second, on one processor.
    pub hashed: f64,
    /// Seconds of one write of 400 bytes with fdatasync, in the directory for temporary files.
    pub synced: f64,
}

impl Yardstick {
    /// Takes both, in about two seconds.
    pub fn take() -> Self {
        let block = vec![7; 1 << 20];
        let began = Instant::now();
        let mut hash = Sha256::new();
        for _ in 0..256 {
            hash.update(&block);
        }
        std::hint::black_box(hash.finalize());
        let hashed = 256.0 / began.elapsed().as_secs_f64();
        let dir = tempfile::tempdir().unwrap();
        let synced = synced(&mut File::create(dir.path().join("raw")).unwrap(), 2_000);
        println!("yardstick: SHA-256 on one processor {hashed:.0} MiB/s,");
        println!("           write of 400 bytes with fdatasync {:.0}/s", 1.0 / synced);
        Self { hashed, synced }
    }
}

/// Seconds of one of so many durable writes to a file.
pub fn synced(file: &mut File, writes: u32) -> f64 {
    let began = Instant::now();
    for _ in 0..writes {
        file.write_all(&[7; 400]).unwrap();
        file.sync_data().unwrap();
    }
    began.elapsed().as_secs_f64() / f64::from(writes)
}
