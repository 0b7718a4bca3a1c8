//! Tests of the log's format, against files the engine wrote.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;
use crate::engine::{CHUNK, Store, key};
use crate::mend::Repairs;

const CACHE: u64 = 256 * 1024;

/// A database of `count` values whose first bytes tell their key, reopened now and then.
fn build(dir: &Path, count: u64, size: usize) {
    let mut store = Store::create(dir, CACHE).unwrap();
    for seq in 1..=count {
        let mut value = seq.to_be_bytes().to_vec();
        value.resize(size, seq as u8);
        store.put(seq, &value).unwrap();
        if seq % 10 == 0 {
            store.sync().unwrap();
        }
        if seq % 100 == 0 {
            drop(store);
            store = open(dir);
        }
    }
    store.sync().unwrap();
}

fn open(dir: &Path) -> Store {
    Store::open_as_it_is(dir, CACHE, &mut Repairs::default()).unwrap()
}

fn opening_of(dir: &Path) -> Opening {
    opening(&File::open(dir.join("db")).unwrap()).unwrap()
}

#[test]
fn opening_what_the_engine_wrote_is_harmless() {
    for (count, size) in [(0, 20), (1, 20), (350, 20), (350, 800)] {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("g");
        build(&dir, count, size);
        // What a segment in use again held before may still lie behind the end of the log.
        assert_ne!(opening_of(&dir), Opening::Unknown, "{count} values of {size}");
        drop(open(&dir));
        assert_eq!(opening_of(&dir), Opening::Harmless, "{count} values of {size}, reopened");
    }
}

/// The promise behind `opening`: whatever flip it does not see costs nothing.
#[test]
fn a_flip_that_is_not_noticed_costs_nothing() {
    let root = tempfile::tempdir().unwrap();
    let origin = root.path().join("g");
    build(&origin, 150, 500);
    let log = fs::read(origin.join("db")).unwrap();
    let (mut noticed, mut unnoticed) = (0, 0);
    for trial in 0..60u64 {
        let at = (trial * 7919 * 31) as usize % log.len();
        let dir = root.path().join(format!("t{trial}"));
        fs::create_dir_all(dir.join("blobs")).unwrap();
        let mut flipped = log.clone();
        flipped[at] ^= 1 << (trial % 8);
        fs::write(dir.join("db"), &flipped).unwrap();
        fs::copy(origin.join("conf"), dir.join("conf")).unwrap();
        if opening_of(&dir) != Opening::Harmless {
            noticed += 1;
            continue;
        }
        unnoticed += 1;
        let store = open(&dir);
        for seq in 1..=150 {
            assert!(store.get(seq).unwrap().is_some(), "flip at {at} lost {seq}");
        }
    }
    assert!(noticed > 20, "{noticed} noticed, {unnoticed} not");
}

#[test]
fn a_cut_in_the_midst_of_a_message_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("g");
    build(&dir, 30, 500);
    let log = fs::read(dir.join("db")).unwrap();
    let end = log.iter().rposition(|byte| *byte != 0).unwrap();
    fs::write(dir.join("db"), &log[..end - 3]).unwrap();
    match opening_of(&dir) {
        Opening::CutsTail(cut) => assert!(cut.end == end as u64 - 3 && cut.start > cut.end - 600),
        other @ (Opening::Harmless | Opening::Unknown) => panic!("{other:?}"),
    }
    fs::write(dir.join("db"), b"").unwrap();
    assert_eq!(opening_of(&dir), Opening::Harmless, "nothing there is nothing to lose");
}

#[test]
fn every_value_is_shown_under_its_key() {
    for size in [8, 100, CHUNK] {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("g");
        build(&dir, 300, size);
        let log = fs::read(dir.join("db")).unwrap();
        let mut seen = BTreeSet::new();
        values(&log, &mut |value| {
            assert_eq!(&log[value.at..value.at + value.bytes.len()], value.bytes);
            let Some(number) = value.bytes.first_chunk() else { return };
            let seq = u64::from_be_bytes(*number);
            let whole = [value.prefix, value.key].concat();
            if value.bytes.len() == size
                && (1..=300).contains(&seq)
                && key(seq, 0).ends_with(&whole)
            {
                seen.insert(seq);
            }
        });
        assert_eq!(seen, (1..=300).collect(), "values of {size}");
    }
}

#[test]
fn garbage_is_walked_through() {
    let mut state = 1u64;
    let garbage: Vec<u8> = (0..200_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Small numbers are kinds and lengths that fit.
            (state >> 33) as u8 & if state >> 62 == 0 { 0xFF } else { 0x0F }
        })
        .collect();
    let mut shown = 0usize;
    values(&garbage, &mut |value| shown += usize::from(value.bytes.len() > SEGMENT));
    assert_eq!(shown, 0);
    assert_eq!(walk(&garbage[..SEGMENT]), Segment::Broken);
    assert_eq!(walk(&[]), Segment::Free);
}
