//! The one stated sum: with every set full the directory takes no more than
//! [`Options::disk_bound`], and what the engine adds is what `bounds.rs` says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]
#![allow(clippy::print_stdout, reason = "the figures are for whoever measures again")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use harborforge_storage::*;
use support::*;

const MIB: u64 = 1024 * 1024;

/// Bytes on disk of everything below a path, as `du` counts.
fn disk_usage(path: &Path) -> u64 {
    let metadata = fs::symlink_metadata(path).unwrap();
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own;
    }
    fs::read_dir(path).unwrap().fold(own, |sum, entry| sum + disk_usage(&entry.unwrap().path()))
}

/// A payload for a number and a size.
type Payload = fn(u64, usize) -> Vec<u8>;

/// Records that cannot be packed: what is stated holds for them, and others take less.
fn append(queue: &mut Queue, count: u64, size: usize) {
    append_of(payloads::noise, queue, count, size);
}

fn append_of(payload: Payload, queue: &mut Queue, count: u64, size: usize) {
    let first = queue.position().next_seq;
    let payloads: Vec<_> = (first..first + count).map(|n| payload(n, size)).collect();
    let records: Vec<_> =
        payloads.iter().map(|payload| NewRecord { stamp: stamp(0), payload }).collect();
    queue.append(&records).unwrap();
}

/// Every set so small that it is full soon.
fn tight() -> Options {
    Options {
        queue_max_bytes: 2 * MIB,
        retain_sent: Duration::from_secs(1_000_000),
        retain_sent_max_bytes: MIB,
        rejected_max_bytes: MIB,
        quarantine_max_bytes: MIB,
        ..Options::default()
    }
}

/// Loses the database of the second generation that waits; reading then sets the rest of it aside.
/// One that is open already is not read from its path, and gets its database back.
fn break_one(queue: &mut Queue, dir: &Path) {
    let Some(second) = generations(dir, "pending").into_iter().nth(1) else { return };
    let (database, lost) = (second.join("db"), second.join("db.lost"));
    fs::rename(&database, &lost).unwrap();
    let limits = Limits { records: 100, bytes: usize::MAX };
    let mut next = queue.position().cursor + 1;
    while second.exists() {
        let Some(last) = queue.read(Set::Pending, next, limits).unwrap().last().map(|r| r.seq)
        else {
            break;
        };
        next = last + 1;
    }
    if lost.exists() {
        println!("{} was open", second.display());
        fs::rename(&lost, &database).unwrap();
    }
}

/// Fills all sets over and over with records of one size; the most it took, and the most payload
/// that waited.
fn fill(options: &Options, size: usize, batch: u64, rounds: u64) -> (u64, Stats) {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), options);
    let bound = options.disk_bound();
    let mut most = (0, queue.stats());
    let mut seen_quarantined = 0;
    for round in 0..rounds {
        append(&mut queue, batch, size);
        queue.maintain(stamp(round)).unwrap();
        let before = queue.position();
        if round % 3 == 0 {
            queue.reject(before.cursor + 1, "no", stamp(round)).unwrap();
        }
        for seq in before.next_seq - batch / 6..before.next_seq {
            queue.reject(seq, "no", stamp(round)).unwrap();
        }
        if round % 20 == 11 {
            // A third of what waits is delivered.
            let up_to = before.cursor + before.pending / 3;
            queue.acknowledge(up_to, confirm(round)).unwrap();
        }
        if round % 10 == 9 {
            break_one(&mut queue, dir.path());
            seen_quarantined = seen_quarantined.max(queue.stats().quarantined.bytes);
        }
        queue.maintain(stamp(round)).unwrap();
        if round % 5 == 0 {
            let taken = disk_usage(dir.path());
            assert!(taken <= bound, "{size} bytes, round {round}: {taken} of {bound}");
            most.0 = most.0.max(taken);
            let stats = queue.stats();
            if stats.pending.bytes > most.1.pending.bytes {
                most.1 = stats;
            }
        }
    }
    let stats = queue.stats();
    println!(
        "{size} bytes: at most {} KiB of {} KiB, pending payload at most {} KiB, {stats:?}",
        most.0 / 1024,
        bound / 1024,
        most.1.pending.bytes / 1024
    );
    assert!(seen_quarantined > 0 && stats.rejected.records > 4, "{stats:?}");
    assert!(stats.quarantined.bytes <= options.quarantine_max_bytes);
    // What is appended and delivered comes back.
    let last = queue.position().next_seq - 1;
    queue.acknowledge(last, confirm(rounds)).unwrap();
    queue.maintain(stamp(rounds)).unwrap();
    let left = disk_usage(dir.path());
    let kept = options.retain_sent_max_bytes + options.rejected_max_bytes;
    assert!(left < kept + stats.quarantined.bytes + BALLAST_BYTES + MIB, "{left} are left");
    (most.0, most.1)
}

#[test]
fn every_set_full_stays_under_the_stated_sum() {
    for (size, batch, rounds) in [(300, 256, 60), (600, 128, 60), (60 * 1024, 6, 60)] {
        let (most, stats) = fill(&tight(), size, batch, rounds);
        // Full it was: the payload bound is what gives way, not the one on disk.
        assert!(stats.pending.bytes > tight().queue_max_bytes * 3 / 4, "{size}: {stats:?}");
        assert!(most > tight().queue_max_bytes * 3, "{size}: {most}");
    }
}

/// What takes much more on disk than its payload: records that are hardly any, generations closed
/// after a few, and samples that are taken once in a while.
#[test]
fn small_records_and_small_generations_stay_under_it_too() {
    let tight = Options { queue_max_bytes: MIB / 2, ..tight() };
    let (most, stats) = fill(&tight, 0, 1024, 40);
    assert!(stats.pending.bytes < tight.queue_max_bytes / 4 && most > 3 * MIB, "{most} {stats:?}");
    let few = Options { generation_max_records: 5, ..tight };
    let (most, stats) = fill(&few, 300, 5, 100);
    assert!(stats.pending.bytes < few.queue_max_bytes / 4 && most > 3 * MIB, "{most} {stats:?}");
}

/// A reader that never gives its pin back must not fill the disk.
#[test]
fn a_pin_ends_when_it_would_take_the_queue_over_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { pin_limit: Duration::from_secs(1_000_000), ..tight() };
    let mut queue = open(dir.path(), &options);
    for round in 0..120 {
        append(&mut queue, 64, 1000);
        let _pin = queue.pin(1..=u64::MAX, stamp(round));
        let last = queue.position().next_seq - 1;
        if round % 4 == 0 {
            queue.acknowledge(last, confirm(round)).unwrap();
        }
        queue.maintain(stamp(round)).unwrap();
        let taken = disk_usage(dir.path());
        assert!(taken <= options.disk_bound(), "round {round}: {taken}");
    }
}

/// Copies of refused records go when they are too many, also while the cursor waits before them.
#[test]
fn rejected_records_are_bounded_before_the_cursor_passes_them() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { generation_max_records: 50, rejected_max_bytes: 300_000, ..tight() };
    let mut queue = open(dir.path(), &options);
    append(&mut queue, 800, 900);
    queue.maintain(stamp(0)).unwrap();
    for seq in 2..=800 {
        queue.reject(seq, "no", stamp(1)).unwrap();
        if seq % 20 == 0 {
            queue.maintain(stamp(1)).unwrap();
        }
    }
    queue.maintain(stamp(2)).unwrap();
    let kept = generations(dir.path(), "rejected").iter().map(|path| disk_usage(path)).sum::<u64>();
    assert!(kept < 500_000, "{kept}");
    assert_eq!(queue.position().pending, 1);
    assert_eq!(numbers(&mut queue, Set::Rejected).last(), Some(&800));
    assert_eq!(queue.gaps(), []);
}

/// The figures behind the factor in `bounds.rs`: bytes on disk for each payload byte of a full
/// generation. What is stated there is for payloads that cannot be packed.
#[test]
fn the_overhead_of_the_engine_is_as_stated() {
    let (noise, samples): (Payload, Payload) = (payloads::noise, payloads::samples);
    for (kind, payload, size, count, most) in [
        ("noise", noise, 300, 4096, 2.8),
        ("noise", noise, 600, 3496, 2.4),
        ("noise", noise, 60 * 1024, 35, 2.2),
        ("samples", samples, 300, 4096, 1.7),
        ("samples", samples, 600, 3496, 1.2),
        ("samples", samples, 60 * 1024, 35, 0.6),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open(dir.path(), &options());
        let batch = if size > 10_000 { 1 } else { 64 };
        for _ in 0..count / batch {
            append_of(payload, &mut queue, batch, size);
        }
        append_of(payload, &mut queue, count % batch, size);
        queue.maintain(stamp(0)).unwrap();
        let taken = disk_usage(&generations(dir.path(), "pending")[0]) as f64;
        let factor = taken / (count * size as u64) as f64;
        println!("{count} records of {size} bytes, {kind}: {factor:.2} bytes on disk for each");
        assert!(factor < most, "{kind} of {size}: {factor}");
        assert!(kind == "samples" || factor > 1.0, "{size}: {factor}");
    }
}
