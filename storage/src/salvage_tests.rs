//! Tests of the scanner: in garbage, and in logs the engine wrote.

use std::fs;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::engine::Store;
use crate::mend::Repairs;
use crate::testing::payloads::{is_noise, payload, samples};
use crate::types::{Record, Stamp};

const STAMP: Stamp = Stamp { wall_ms: 1, boot_ms: 2, boot_id: [3; 16] };
const ALL: Wanted = Wanted { from: 1, to: u64::MAX, rejected: false };

fn encoded(seq: u64, size: usize) -> Vec<u8> {
    // Of both codecs, an empty one too.
    let payload = if size == 0 { Vec::new() } else { payload(seq, size) };
    record::encode(seq, Uuid::from_u128(9), STAMP, &payload)
}

fn found_in(log: &[u8], wanted: Wanted) -> BTreeMap<u64, Vec<u8>> {
    let mut found = BTreeMap::new();
    scan(log, wanted, &mut found);
    found
}

proptest! {
    /// Records between arbitrary bytes, among them beginnings of records, are all found, and
    /// nothing else is; wherever the bytes are cut off.
    #[test]
    fn records_are_found_in_garbage(
        parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..90), 0usize..760, 0u8..4), 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut log = Vec::new();
        let mut expected = BTreeMap::new();
        for (index, (garbage, size, kind)) in parts.iter().enumerate() {
            let seq = index as u64 + 1;
            let bytes = encoded(seq, *size);
            log.extend_from_slice(garbage);
            match kind {
                // A header whose record never comes, right before the next thing.
                0 => log.extend_from_slice(&bytes[..bytes.len().min(HEADER_LEN + 3)]),
                // One byte of it is another.
                1 => {
                    let at = log.len() + size % bytes.len();
                    log.extend_from_slice(&bytes);
                    log[at] ^= 0x10;
                }
                _ => {
                    log.extend_from_slice(&bytes);
                    expected.insert(seq, (log.len(), bytes));
                }
            }
        }
        let all: BTreeMap<_, _> = expected.iter().map(|(seq, (_, b))| (*seq, b.clone())).collect();
        let found = found_in(&log, ALL);
        prop_assert!(all.iter().all(|(seq, bytes)| found.get(seq) == Some(bytes)));
        // A record of no payload may be whole in its header alone.
        prop_assert!(found.iter().all(|(seq, bytes)| record::decode(bytes, *seq).is_ok()));
        let cut = cut.index(log.len() + 1);
        let found = found_in(&log[..cut], ALL);
        for (seq, (end, bytes)) in expected {
            if end <= cut {
                prop_assert_eq!(found.get(&seq), Some(&bytes));
            }
        }
    }

    #[test]
    fn any_bytes_are_scanned_to_the_end(
        log in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(8), Just(10), any::<u8>()], 0..4000),
    ) {
        for (seq, bytes) in found_in(&log, ALL) {
            prop_assert!(record::decode(&bytes, seq).is_ok());
        }
    }
}

#[test]
fn only_what_is_wanted_is_found() {
    let mut log = Vec::new();
    for seq in 1..=9 {
        log.extend(encoded(seq, 50));
    }
    let record = Record { seq: 5, epoch: Uuid::nil(), stamp: STAMP, payload: b"x".to_vec() };
    let rejected = record::encode_rejected(&record, "no", 7);
    log.extend_from_slice(&rejected);
    let some = Wanted { from: 3, to: 6, rejected: false };
    assert_eq!(found_in(&log, some).into_keys().collect::<Vec<_>>(), [3, 4, 5, 6]);
    let found = found_in(&log, Wanted { rejected: true, ..ALL });
    assert_eq!(found, BTreeMap::from([(5, rejected)]));
    // What was found before stays.
    let mut found = BTreeMap::from([(4, vec![])]);
    scan(&log, some, &mut found);
    assert_eq!((found.len(), found[&4].len()), (4, 0));
}

#[test]
fn a_record_inside_a_good_one_is_its_payload() {
    let inner = encoded(7, 20);
    let log = record::encode(6, Uuid::nil(), STAMP, &[b"..", inner.as_slice()].concat());
    assert_eq!(found_in(&log, ALL).into_keys().collect::<Vec<_>>(), [6]);
}

#[test]
fn what_cannot_be_unpacked_is_not_found() {
    let good = record::encode(6, Uuid::nil(), STAMP, &samples(6, 400));
    let bad = record::with_bad_block(&good);
    assert!(record::decode(&bad, 6).is_ok(), "its checksum is right");
    assert_eq!(found_in(&bad, ALL), BTreeMap::new());
    // The copy behind it is.
    assert_eq!(found_in(&[bad, good.clone()].concat(), ALL), BTreeMap::from([(6, good)]));
}

/// A log with records of all sizes, as the queue writes them.
fn log_of(sizes: &[usize]) -> (Vec<u8>, BTreeMap<u64, Vec<u8>>) {
    log_from(1_000, sizes)
}

fn log_from(first: u64, sizes: &[usize]) -> (Vec<u8>, BTreeMap<u64, Vec<u8>>) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("g");
    let mut store = Store::create(&dir, 256 * 1024).unwrap();
    let mut expected = BTreeMap::new();
    for (index, size) in sizes.iter().enumerate() {
        let seq = index as u64 + first;
        let bytes = encoded(seq, *size);
        store.put(seq, &bytes).unwrap();
        store.sync().unwrap();
        expected.insert(seq, bytes);
    }
    drop(store);
    let mut store = Store::open(&dir, 256 * 1024, &mut Repairs::default()).unwrap();
    store.sync().unwrap();
    (fs::read(dir.join("db")).unwrap(), expected)
}

#[test]
fn records_of_any_number_of_chunks_are_found_in_a_log() {
    let sizes: Vec<usize> =
        (0..90).map(|n| [0, 300, 828, 829, 2_000, 9_000, 40_000, 64_000][n % 8]).collect();
    let (log, expected) = log_of(&sizes);
    let found = found_in(&log, ALL);
    assert_eq!(found.len(), expected.len());
    assert!(found == expected);
    // The largest there is, of either codec.
    for first in [1_000, 1_001] {
        let (log, expected) = log_from(first, &[400, MAX_PAYLOAD, 400]);
        assert_eq!(is_noise(first + 1), expected[&(first + 1)].len() > MAX_PAYLOAD);
        assert!(found_in(&log, ALL) == expected);
    }
}

#[test]
fn a_flip_costs_one_record_at_most() {
    let sizes: Vec<usize> = (0..60).map(|n| if n % 5 == 0 { 5_000 } else { 500 }).collect();
    let (mut log, expected) = log_of(&sizes);
    let mut lost = 0;
    let flips = 60usize;
    for trial in 0..flips {
        let at = trial * 104_729 % log.len();
        log[at] ^= 0x20;
        let found = found_in(&log, ALL);
        log[at] ^= 0x20;
        let missing: Vec<_> = expected.keys().filter(|seq| !found.contains_key(seq)).collect();
        assert!(missing.len() <= 1, "flip at {at} lost {missing:?}");
        assert!(found.iter().all(|(seq, bytes)| expected.get(seq) == Some(bytes)));
        lost += missing.len();
    }
    assert!(lost < flips / 2, "{lost} of {flips}");
}
