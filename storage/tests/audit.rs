//! Verifying a live queue says what verifying it at rest says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::time::Duration;

use harborforge_storage::*;
use support::all_sets::{at_rest, filled, keeping};
use support::*;

fn audited(
    queue: &mut Queue,
    mut between: impl FnMut(&mut Queue),
) -> (Vec<GenerationReport>, QueueReport) {
    let mut audit = queue.audit(stamp(5)).unwrap();
    let mut found = Vec::new();
    loop {
        match queue.audit_on(&mut audit, 7).unwrap() {
            Audited::More => between(queue),
            Audited::Generation(report) => found.push(*report),
            Audited::Whole(sum) => {
                queue.end_audit(audit);
                let all = sum.settled + sum.pending + sum.rejected + sum.in_gaps + sum.lost;
                assert_eq!(all, sum.next_seq - 1, "not every number is accounted for: {sum:?}");
                return (found, *sum);
            }
        }
    }
}

/// But for what it takes on disk, which a copy need not share.
fn same(
    (mut one, mut sum): (Vec<GenerationReport>, QueueReport),
) -> (Vec<GenerationReport>, QueueReport) {
    one.iter_mut().for_each(|report| report.disk_bytes = 0);
    sum.disk_bytes = 0;
    (one, sum)
}

#[test]
fn a_live_queue_is_as_sound_as_it_is_at_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = filled(dir.path());
    let copy = tempfile::tempdir().unwrap();
    copy_tree(dir.path(), copy.path());
    let live = audited(&mut queue, |_| ());
    assert!(live.1.good, "{live:?}");
    assert!(live.0.iter().all(|report| report.disk_bytes > 0));
    assert_eq!(same(live), same(at_rest(copy.path())));
    // Whatever happens meanwhile, it speaks of the moment it began.
    let mut confirmed = 45;
    let busy = audited(&mut queue, |queue| {
        append(queue, 3, 300);
        confirmed += 20;
        queue.acknowledge(confirmed.min(130), confirm(2)).unwrap();
        queue.maintain(stamp(6)).unwrap();
    });
    assert_eq!(same(busy), same(at_rest(copy.path())));
    assert!(queue.position().next_seq > 150);
    let after = audited(&mut queue, |_| ());
    assert!(after.1.good, "{after:?}");
    queue.purge(Purge::Rejected, stamp(7)).unwrap();
    let purged = audited(&mut queue, |_| ());
    assert!(purged.1.good, "{purged:?}");
    queue.close().unwrap();
    assert_eq!(same(purged), same(at_rest(dir.path())));
}

#[test]
fn damage_is_named_and_nothing_else_done_about_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = filled(dir.path());
    // A sealed generation loses a byte of a record, and another its database.
    let sealed = &generations(dir.path(), "pending")[1];
    let db = sealed.join("db");
    let mut bytes = std::fs::read(&db).unwrap();
    let wanted = payloads::noise(90, 300);
    assert_eq!(wanted, payload(90, 300));
    let needle = &wanted[100..160];
    let mut hits = 0;
    for at in 0..bytes.len() - needle.len() {
        if &bytes[at..at + needle.len()] == needle {
            bytes[at + 3] ^= 0xFF;
            hits += 1;
        }
    }
    assert!(hits > 0, "the record was not found in the file");
    std::fs::write(&db, bytes).unwrap();
    std::fs::write(dir.path().join("queue/mark"), [9; 8192]).unwrap();
    let (found, sum) = audited(&mut queue, |_| ());
    assert!(!sum.good);
    assert_eq!(sum.files.mark, FileState::Damaged);
    assert_eq!(sum.bad_generations, 1, "{found:?}");
    let bad: Vec<_> = found.iter().filter(|report| !report.is_good()).collect();
    assert_eq!(bad[0].name, sealed.file_name().unwrap().to_str().unwrap());
    assert!(sum.lost >= 1, "{sum:?}");
    assert!(sealed.exists(), "setting aside is for the reading that delivers");
    assert_eq!(queue.gaps().len(), 1);
}

#[test]
fn what_went_since_the_pin_ran_out_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        Options { retain_sent: Duration::ZERO, pin_limit: Duration::from_secs(10), ..keeping() };
    let mut queue = open(dir.path(), &options);
    for _ in 0..10 {
        append(&mut queue, 20, 300);
        queue.maintain(stamp(1)).unwrap();
    }
    let mut seconds = 5;
    let (found, sum) = audited(&mut queue, |queue| {
        seconds += 60;
        queue.acknowledge(160, confirm(seconds)).unwrap();
        queue.maintain(stamp(seconds)).unwrap();
    });
    assert!(sum.good && sum.pending == 200, "{sum:?}");
    assert_eq!(found.last().unwrap().last_seq, Some(200));
    assert!(found.len() < 5, "{found:?}");
    queue.close().unwrap();
}
