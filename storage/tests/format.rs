//! A data directory as this version writes it is read for ever: the fixtures under
//! `tests/fixtures/format-<n>` were written by the version whose format is `n`, and are never
//! written again.
//!
//! To make the fixture of a new format, once, and commit it:
//! `cargo test -p harborforge-storage --test format -- --ignored make_the_fixture`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harborforge_storage::*;
use support::*;

fn options() -> Options {
    Options {
        generation_max_records: 12,
        retain_sent: Duration::from_secs(1_000_000),
        ..Options::default()
    }
}

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{format}"))
}

/// Each record has a stamp of its own; from the 31st on there was another boot.
fn stamp_of(seq: u64) -> Stamp {
    let boot = if seq <= 30 { 7 } else { 9 };
    Stamp {
        wall_ms: 1_773_262_800_000 + seq * 30_000,
        boot_ms: (seq % 31) * 30_000 + 5,
        boot_id: [boot; 16],
    }
}

/// Short ones, one over several of the engine's values, an empty one, and bytes of all kinds.
fn payload_of(seq: u64) -> Vec<u8> {
    match seq {
        9 | 40 => {
            let mut bytes = format!("{seq}:").into_bytes();
            bytes.extend((bytes.len()..3000).map(|at| (at as u64 * 7 + seq) as u8));
            bytes
        }
        21 => Vec::new(),
        _ => format!("{{\"seq\":{seq},\"name\":\"über {seq}\"}}").into_bytes(),
    }
}

fn append_to(queue: &mut Queue, numbers: std::ops::RangeInclusive<u64>) {
    for seq in numbers {
        let payload = payload_of(seq);
        let record = NewRecord { stamp: stamp_of(seq), payload: &payload };
        assert_eq!(queue.append(&[record]).unwrap(), seq..=seq);
        queue.maintain(stamp_of(seq)).unwrap();
    }
}

/// 1 to 50: up to 14 confirmed, so that 1-12 are a sent generation; 5 and 30 rejected; 18-20 given
/// up and told, 33 given up and not told. Numbers from 31 on are of a second opening.
#[test]
#[ignore = "writes the fixture, which is done once for each format"]
fn make_the_fixture() {
    let dir = fixture(1);
    assert!(!dir.exists(), "{} is there and stays as it is", dir.display());
    let (mut queue, _) = Queue::open(&dir, options(), stamp_of(1)).unwrap();
    let first = queue.stats().epoch;
    append_to(&mut queue, 1..=30);
    queue.reject(5, "HTTP 422: too odd", stamp_of(31)).unwrap();
    queue.give_up(18..=20, GapReason::Expired, true, stamp_of(32)).unwrap();
    let told = queue.unannounced_gaps();
    queue.gaps_announced(&told).unwrap();
    queue.close().unwrap();

    let (mut queue, _) = Queue::open(&dir, options(), stamp_of(31)).unwrap();
    let second = queue.stats().epoch;
    append_to(&mut queue, 31..=50);
    queue.acknowledge(14, Confirmation { wall_ms: stamp_of(50).wall_ms, tag: 2 }).unwrap();
    queue.reject(30, "", stamp_of(51)).unwrap();
    queue.give_up(33..=33, GapReason::QueueFull, false, stamp_of(52)).unwrap();
    queue.maintain(stamp_of(53)).unwrap();
    queue.close().unwrap();
    fs::write(dir.join("epochs"), format!("{first}\n{second}\n")).unwrap();
}

#[test]
fn what_format_1_holds_is_found_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    copy_tree(&fixture(1), dir.path());
    let epochs = fs::read_to_string(dir.path().join("epochs")).unwrap();
    let epochs: Vec<_> = epochs.lines().collect();
    let is_right = |record: &Record| {
        let seq = record.seq;
        assert_eq!(record.payload, payload_of(seq), "{seq}");
        assert_eq!(record.stamp, stamp_of(seq), "{seq}");
        assert_eq!(record.epoch.to_string(), epochs[usize::from(seq > 30)], "{seq}");
    };

    // Looked at without writing.
    let mut inspector = Inspector::open(dir.path()).unwrap();
    let shown = inspector.records(&[Set::Pending, Set::Sent, Set::Rejected], 0..=u64::MAX);
    let shown: Vec<_> = shown.map(|entry| entry.unwrap()).collect();
    let expected: Vec<u64> = (1..=50).filter(|n| !matches!(n, 18..=20 | 33)).collect();
    assert_eq!(shown.iter().map(|entry| entry.record.seq).collect::<Vec<_>>(), expected);
    shown.iter().for_each(|entry| is_right(&entry.record));
    let report = inspector.verify().finish().unwrap();
    assert!(report.good, "{report:?}");
    assert_eq!((report.settled, report.pending, report.in_gaps), (14, 31, 4));
    drop(inspector);

    // Opened.
    let (mut queue, report) = Queue::open(dir.path(), options(), stamp_of(60)).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let stats = queue.stats();
    assert_eq!((stats.cursor, stats.next_seq, stats.pending.records), (14, 51, 31));
    assert_eq!((stats.sent.records, stats.rejected.records), (13, 2));
    let pending: Vec<u64> = (15..=50).filter(|n| !matches!(n, 18..=20 | 30 | 33)).collect();
    assert_eq!(numbers(&mut queue, Set::Pending), pending);
    let sent: Vec<u64> = (1..=14).filter(|&n| n != 5).collect();
    assert_eq!(numbers(&mut queue, Set::Sent), sent);
    for set in [Set::Pending, Set::Sent] {
        queue.read(set, 0, ALL).unwrap().iter().for_each(is_right);
    }
    let rejected = queue.rejected(0, ALL).unwrap();
    let told: Vec<_> =
        rejected.iter().map(|r| (r.record.seq, r.reason.as_str(), r.wall_ms)).collect();
    let (odd, none) = (stamp_of(31).wall_ms, stamp_of(51).wall_ms);
    assert_eq!(told, [(5, "HTTP 422: too odd", odd), (30, "", none)]);
    rejected.iter().for_each(|rejected| is_right(&rejected.record));
    let gap = |from, to, reason, maybe_delivered, announced, seq| {
        let wall_ms = stamp_of(seq).wall_ms;
        Gap { from, to, reason, maybe_delivered, wall_ms, announced }
    };
    let gaps = [
        gap(18, 20, GapReason::Expired, true, true, 32),
        gap(33, 33, GapReason::QueueFull, false, false, 52),
    ];
    assert_eq!(queue.gaps(), gaps);
    let success = queue.last_success().unwrap();
    is_right(&success.record);
    let at = Confirmation { wall_ms: stamp_of(50).wall_ms, tag: 2 };
    assert_eq!((success.record.seq, success.at), (14, at));

    // And it goes on: appended, delivered, drained.
    append_to(&mut queue, 51..=80);
    assert!(numbers(&mut queue, Set::Pending).ends_with(&[79, 80]));
    queue.acknowledge(80, Confirmation { wall_ms: 1, tag: 1 }).unwrap();
    let done = Options { retain_sent: Duration::ZERO, ..options() };
    queue.close().unwrap();
    let (mut queue, report) = Queue::open(dir.path(), done, stamp_of(90)).unwrap();
    assert!(report.is_clean(), "{report:?}");
    // A year later, on another machine: but for the one that takes more, all of it goes.
    let wall_ms = stamp_of(1_000_000).wall_ms;
    queue.maintain(Stamp { wall_ms, boot_ms: 1, boot_id: [1; 16] }).unwrap();
    assert_eq!(queue.position(), Position { cursor: 80, next_seq: 81, pending: 0 });
    assert!(generations(dir.path(), "pending").len() <= 1);
    assert_eq!(generations(dir.path(), "sent").len(), 0);
    assert_eq!(queue.rejected(0, ALL).unwrap().len(), 2);
    queue.close().unwrap();
}
