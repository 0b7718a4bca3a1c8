//! A fuzz target without a fuzzer: every committed input, and a few thousand mutations of each.
//!
//! Part of the usual tests, so that the targets hold on every change; more mutations:
//! `HARBORFORGE_FUZZ=100000 cargo test --workspace --lib fuzzing`.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Mutations of each input unless the environment says otherwise.
const MUTATIONS: u64 = 2000;

/// Texts that parsers stumble over.
const SPLICES: [&[u8]; 12] = [
    b"\"",
    b"\\",
    b"{",
    b"[[[[[[[[",
    b"null",
    b"-1",
    b"18446744073709551615",
    b"1e999",
    b"\\u0000",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    "\u{feff}ü".as_bytes(),
];

/// Feeds a target its corpus and mutations of it. The first input that makes it panic is named and
/// written to the temporary directory.
pub(crate) fn replay(target: &str, run: fn(&[u8])) {
    let inputs = corpus(target);
    assert!(inputs.len() >= 3, "{} inputs for {target}", inputs.len());
    let mutations = std::env::var("HARBORFORGE_FUZZ").ok().and_then(|n| n.parse().ok());
    let mut random = Random(0x5EED);
    for (name, input) in &inputs {
        try_one(target, name, input, run);
        for round in 0..mutations.unwrap_or(MUTATIONS) {
            let other = &inputs[random.below(inputs.len())].1;
            let mutated = mutate(input, other, &mut random);
            try_one(target, &format!("{name}, mutation {round}"), &mutated, run);
        }
    }
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    // Both crates' tests read the same directory.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dirs = [here.join("tests/fuzz/corpus"), here.join("../tests/fuzz/corpus")];
    let dir = dirs.iter().map(|dir| dir.join(target)).find(|dir| dir.is_dir());
    let dir: PathBuf = dir.unwrap_or_else(|| panic!("no corpus for {target}"));
    let mut inputs: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

fn try_one(target: &str, name: &str, input: &[u8], run: fn(&[u8])) {
    if catch_unwind(AssertUnwindSafe(|| run(input))).is_err() {
        let kept = std::env::temp_dir().join(format!("fuzz-{target}-failing"));
        fs::write(&kept, input).unwrap();
        panic!("{target} fails on {name}: {} bytes, kept in {}", input.len(), kept.display());
    }
}

/// One to four small changes.
fn mutate(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let until = at + random.below((bytes.len() - at).min(64) + 1);
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            2 => drop(bytes.drain(at..until)),
            3 => {
                let copy = bytes[at..until].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => {
                let from = random.below(other.len() + 1);
                let to = from + random.below((other.len() - from).min(64) + 1);
                bytes.splice(at..until, other[from..to].iter().copied());
            }
            5 => {
                let splice = SPLICES[random.below(SPLICES.len())];
                bytes.splice(at..at, splice.iter().copied());
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Reproducible random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}
