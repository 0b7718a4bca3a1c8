//! A full disk: filled before the first start, while running, before a restart with a backlog;
//! what is there is delivered and acknowledged, and once there is room it goes on as before.
//!
//! Needs file systems of its own, so root; without it the tests say that they did nothing.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may panic, and say when they are skipped"
)]

#[path = "support/disk.rs"]
mod disk;
mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use disk::{Kind, SmallDisk};
use harborforge_storage::*;
use support::*;

/// Small enough for several generations, and nothing kept.
fn bounds() -> Options {
    Options { generation_max_records: 200, ..options() }
}

fn try_append(queue: &mut Queue, size: usize) -> Result<u64, Error> {
    let payload = payload(queue.stats().next_seq, size);
    let record = NewRecord { stamp: stamp(0), payload: &payload };
    queue.append(&[record]).map(|range| *range.start())
}

/// Appends until the disk takes no more; the last number it took.
fn append_until_full(queue: &mut Queue) -> u64 {
    // Not one by one as long as there is plenty; a batch that does not fit leaves nothing.
    for at_once in [20, 1] {
        loop {
            let first = queue.position().next_seq;
            let payloads: Vec<_> = (first..first + at_once).map(|n| payload(n, 300)).collect();
            let records: Vec<_> =
                payloads.iter().map(|payload| NewRecord { stamp: stamp(0), payload }).collect();
            match queue.append(&records) {
                Ok(_) => {}
                Err(Error::Full { .. }) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    queue.position().next_seq - 1
}

/// Appends `count` records and does what is due.
fn append_and_maintain(queue: &mut Queue, count: u64) {
    for done in (0..count).step_by(25) {
        append(queue, (count - done).min(25), 300);
    }
    queue.maintain(stamp(1)).unwrap();
}

/// Reads and acknowledges everything in portions; what came, in order.
fn deliver(queue: &mut Queue, at_once: usize) -> Vec<u64> {
    let mut delivered = Vec::new();
    loop {
        let limits = Limits { records: at_once, bytes: usize::MAX };
        let records = queue.read(Set::Pending, 0, limits).unwrap();
        let Some(last) = records.last() else { return delivered };
        queue.acknowledge(last.seq, confirm(1)).unwrap();
        for record in records {
            assert_eq!(record.payload, payload(record.seq, record.payload.len()));
            delivered.push(record.seq);
        }
        // Upkeep may have to wait on a full disk; nothing else waits for it.
        let _ = queue.maintain(stamp(2));
    }
}

#[test]
fn a_disk_that_is_full_at_the_first_start_is_refused_and_then_used() {
    for disk in SmallDisk::each(6, 16) {
        disk.fill();
        for _ in 0..3 {
            match Queue::open(&disk.path, bounds(), stamp(0)) {
                Err(error) => assert!(error.is_full() && error.is_retryable(), "{error:?}"),
                // What a new directory needs may have been left over.
                Ok((mut queue, _)) => assert!(try_append(&mut queue, 300).unwrap_err().is_full()),
            }
        }
        let room = Room::look(&disk.path.join("queue"), 300).unwrap();
        assert!(room.missing() > 0, "{:?}: {room:?}", disk.kind);
        disk.free();
        assert_eq!(Room::look(&disk.path, 300).unwrap().missing(), 0);
        let (mut queue, report) = Queue::open(&disk.path, bounds(), stamp(0)).unwrap();
        assert_eq!((report.missing.len(), report.quarantined.len()), (0, 0));
        append_and_maintain(&mut queue, 10);
        assert_eq!(numbers(&mut queue, Set::Pending), (1..=10).collect::<Vec<_>>());
    }
}

#[test]
fn filled_while_running_it_delivers_all_it_holds_and_goes_on_when_there_is_room() {
    for disk in SmallDisk::each(8, 24) {
        let mut queue = open(&disk.path, &bounds());
        append_and_maintain(&mut queue, 500);
        assert!(queue.stats().ballast, "{:?}: made as soon as there is room", disk.kind);
        assert!(disk.path.join("queue/ballast").exists());

        disk.fill();
        let last = append_until_full(&mut queue);
        assert!(queue.has_ballast(), "a sample that can wait is not worth the ballast");
        assert_eq!(queue.position().pending, last);
        // Half of it now, and what that frees is taken by others at once.
        let half = queue.read(Set::Pending, 0, Limits { records: 300, ..ALL }).unwrap();
        queue.acknowledge(half.last().unwrap().seq, confirm(1)).unwrap();
        let _ = queue.maintain(stamp(1));
        disk.fill();
        assert!(try_append(&mut queue, 300).unwrap_err().is_full());
        let rest = deliver(&mut queue, 100);
        assert_eq!(rest, (half.last().unwrap().seq + 1..=last).collect::<Vec<_>>());
        assert_eq!(queue.position(), Position { cursor: last, next_seq: last + 1, pending: 0 });
        // What was delivered is deleted, so there is room without anybody's help.
        append_and_maintain(&mut queue, 1);

        disk.free();
        append_and_maintain(&mut queue, 500);
        assert!(queue.has_ballast(), "{:?}: made again", disk.kind);
        assert_eq!(deliver(&mut queue, 1000), (last + 1..=last + 501).collect::<Vec<_>>());
        assert_eq!(queue.gaps(), []);
        queue.close().unwrap();
    }
}

#[test]
fn filled_before_a_restart_with_a_backlog_it_opens_and_delivers_it() {
    for disk in SmallDisk::each(8, 24) {
        // The second time nobody has closed the queue, and after a failure of its own.
        for (round, closes) in [true, false].into_iter().enumerate() {
            let mut queue = open(&disk.path, &bounds());
            let first = queue.position().next_seq;
            append_and_maintain(&mut queue, 450);
            assert!(queue.has_ballast());
            let kept = if closes {
                queue.close().unwrap();
                disk.fill();
                first + 449
            } else {
                disk.fill();
                let last = append_until_full(&mut queue);
                drop(queue);
                last
            };
            let (mut queue, report) = Queue::open(&disk.path, bounds(), stamp(9)).unwrap();
            let context = format!("{:?}, round {round}", disk.kind);
            assert_eq!((report.missing.len(), report.quarantined.len()), (0, 0), "{context}");
            // What failed may have reached the disk all the same; then it counts.
            let last = queue.position().next_seq - 1;
            assert!(last >= kept, "{context}: {last} of {kept}");
            let delivered = deliver(&mut queue, 150);
            assert_eq!(delivered, (first..=last).collect::<Vec<_>>(), "{context}");
            assert_eq!(queue.gaps(), [], "{context}");
            drop(queue);
            // Nothing that was acknowledged comes back, full or not.
            let (mut queue, _) = Queue::open(&disk.path, bounds(), stamp(10)).unwrap();
            assert_eq!(numbers(&mut queue, Set::Pending), Vec::<u64>::new(), "{context}");
            assert_eq!(queue.position().next_seq, last + 1, "{context}");
            disk.free();
            assert_eq!(try_append(&mut queue, 300).unwrap(), last + 1, "{context}");
            deliver(&mut queue, 150);
            queue.close().unwrap();
        }
    }
}

#[test]
fn without_a_ballast_sealed_generations_open_on_a_full_disk_all_the_same() {
    for disk in SmallDisk::each(8, 24) {
        let mut queue = open(&disk.path, &bounds());
        append_and_maintain(&mut queue, 450);
        // Opened once, the newest has a current snapshot too.
        drop(queue);
        let mut queue = open(&disk.path, &bounds());
        assert!(queue.give_up_ballast() && !queue.give_up_ballast());
        drop(queue);
        disk.fill();
        let mut queue = open(&disk.path, &bounds());
        assert!(!queue.has_ballast());
        assert_eq!(deliver(&mut queue, 100), (1..=450).collect::<Vec<_>>(), "{:?}", disk.kind);
    }
}

#[test]
fn what_was_delivered_goes_before_what_is_to_come_and_before_the_ballast() {
    for disk in SmallDisk::each(10, 24) {
        let day = Duration::from_secs(86_400);
        let options = Options { retain_sent: day, ..bounds() };
        let mut queue = open(&disk.path, &options);
        append_and_maintain(&mut queue, 650);
        deliver(&mut queue, 500);
        append_and_maintain(&mut queue, 100);
        assert!(queue.stats().sent.records >= 600, "{:?}", queue.stats());
        let success = queue.last_success().unwrap().clone();
        disk.fill();
        let begun = queue.position().next_seq;
        let last = append_until_full(&mut queue);
        assert!(last > begun + 100, "{:?}: sent ones made room for {begun}..{last}", disk.kind);
        assert!(queue.has_ballast());
        assert_eq!(generations(&disk.path, "sent").len(), 0);
        assert_eq!(queue.last_success(), Some(&success));
        // A caller about to stop has no more time to wait.
        assert!(queue.give_up_ballast());
        assert_eq!(try_append(&mut queue, 300).unwrap(), last + 1);
        assert_eq!(queue.ballast_given_up(), 1);
        assert_eq!(deliver(&mut queue, 100), (651..=last + 1).collect::<Vec<_>>());
    }
}

#[test]
fn a_gap_and_a_rejection_are_written_on_a_full_disk() {
    for disk in SmallDisk::each(8, 24) {
        let mut queue = open(&disk.path, &bounds());
        append_and_maintain(&mut queue, 250);
        disk.fill();
        let last = append_until_full(&mut queue);
        queue.give_up(1..=5, GapReason::QueueFull, false, stamp(3)).unwrap();
        queue.reject(7, "no", stamp(3)).unwrap();
        assert_eq!(queue.gaps().len(), 1);
        disk.fill();
        queue.acknowledge(6, confirm(3)).unwrap();
        // Others have taken even what the ballast gave: what opening takes is not to be had.
        drop(queue);
        disk.free();
        let mut queue = open(&disk.path, &bounds());
        assert_eq!((queue.gaps()[0].from, queue.gaps()[0].to), (1, 5), "{:?}", disk.kind);
        assert_eq!(numbers(&mut queue, Set::Rejected), [7]);
        assert!(deliver(&mut queue, 100).starts_with(&(8..=last).collect::<Vec<_>>()));
    }
}

/// Filled and freed again and again, with and without a restart, and the ballast never there.
#[test]
fn a_disk_too_small_for_a_ballast_loses_nothing_either() {
    let Some(disk) = SmallDisk::mount(Kind::Tmpfs, 3) else {
        eprintln!("SKIPPED: mounting a small file system needs root");
        return;
    };
    let mut queue = open(&disk.path, &bounds());
    let mut appended = 0;
    for round in 0..4 {
        for _ in 0..100 {
            try_append(&mut queue, 300).unwrap();
            appended += 1;
        }
        disk.fill();
        let mut failures = 0;
        while failures < 3 {
            match try_append(&mut queue, 300) {
                Ok(_) => appended += 1,
                Err(error) => {
                    failures += 1;
                    assert!(error.is_full() && error.is_retryable(), "round {round}: {error:?}");
                }
            }
            let _ = queue.maintain(stamp(round));
        }
        assert_eq!(queue.stats().next_seq, appended + 1);
        assert!(!queue.has_ballast());
        // Reading may need the database opened afresh, which a full disk without ballast may
        // refuse; it never takes that for damage.
        match queue.read(Set::Pending, 0, ALL) {
            Ok(records) => assert!(!records.is_empty()),
            Err(error) => assert!(error.is_full(), "round {round}: {error:?}"),
        }
        assert_eq!(queue.stats().pending.records, appended);
        if round % 2 == 0 {
            drop(queue);
            disk.free();
            let (reopened, report) = Queue::open(&disk.path, bounds(), stamp(0)).unwrap();
            assert_eq!(report.missing, []);
            queue = reopened;
            // What failed may have reached the disk all the same; then it counts.
            appended = appended.max(queue.stats().next_seq - 1);
        } else {
            disk.free();
        }
        assert_eq!(numbers(&mut queue, Set::Pending), (1..=appended).collect::<Vec<_>>());
    }
    assert!(queue.gaps().is_empty());
    assert_eq!(deliver(&mut queue, 1000).len() as u64, appended);
    assert_eq!(queue.stats().pending, Tally::default());
}

/// What a kill left half made, and what cannot be deleted either, since something is mounted on
/// it: it must not claim the numbers that are given out next.
#[test]
fn a_directory_that_cannot_be_deleted_takes_no_number_with_it() {
    let Some(disk) = SmallDisk::mount(Kind::Tmpfs, 8) else {
        eprintln!("SKIPPED: mounting a small file system needs root");
        return;
    };
    let mut queue = open(&disk.path, &options());
    append(&mut queue, 10, 100);
    drop(queue);
    let stuck = disk.path.join("queue/00000000000000000011-00000009.pending");
    fs::create_dir(&stuck).unwrap();
    let mount = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).arg(&stuck).status();
        assert!(status.unwrap().success());
    };
    mount("mount", &["-t", "tmpfs", "tmpfs"]);
    let mut queue = open(&disk.path, &options());
    assert_eq!(append(&mut queue, 5, 100), 11..=15);
    queue.maintain(stamp(1)).unwrap();
    drop(queue);
    mount("umount", &[]);
    let (mut queue, report) = Queue::open(&disk.path, options(), stamp(2)).unwrap();
    assert_eq!((report.missing, report.quarantined), (vec![], vec![]));
    assert_eq!(numbers(&mut queue, Set::Pending), (1..=15).collect::<Vec<_>>());
    assert!(!stuck.exists());
}

#[test]
fn a_rejection_that_fails_leaves_no_directory_behind() {
    let Some(disk) = SmallDisk::mount(Kind::Tmpfs, 3) else {
        eprintln!("SKIPPED: a file system of its own needs root");
        return;
    };
    let mut queue = open(&disk.path, &options());
    append(&mut queue, 1, 60_000);
    append(&mut queue, 20, 40_000);
    // Room for an empty generation, not for the record.
    disk.fill();
    let filler = disk.path.join("filler");
    let size = fs::metadata(&filler).unwrap().len();
    fs::File::options().write(true).open(&filler).unwrap().set_len(size - 40_960).unwrap();
    assert!(disk.free_bytes() >= 40_960);
    for _ in 0..3 {
        assert!(queue.reject(1, "no", stamp(1)).is_err());
        assert_eq!(generations(&disk.path, "rejected").len(), 0);
    }
    assert_eq!(queue.stats().rejected.records, 0);
    disk.free();
    queue.reject(1, "no", stamp(1)).unwrap();
    assert_eq!(numbers(&mut queue, Set::Rejected), [1]);
    assert_eq!(numbers(&mut queue, Set::Pending), (2..=21).collect::<Vec<_>>());
}
