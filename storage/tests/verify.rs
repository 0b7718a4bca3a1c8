//! Verifying a queue: what is sound is called so, what is not is named, and nothing is changed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harborforge_storage::*;
use support::all_sets::{at_rest, filled, keeping};
use support::*;

fn build(dir: &Path) {
    filled(dir).close().unwrap();
}

fn verified(dir: &Path) -> (Vec<GenerationReport>, QueueReport) {
    let (generations, sum) = at_rest(dir);
    let all = sum.settled + sum.pending + sum.rejected + sum.in_gaps + sum.lost;
    assert_eq!(all, sum.next_seq - 1, "not every number is accounted for: {sum:?}");
    (generations, sum)
}

/// A damaged copy of `origin`, verified.
fn damaged(origin: &Path, damage: impl FnOnce(&Path)) -> (Vec<GenerationReport>, QueueReport) {
    let dir = tempfile::tempdir().unwrap();
    copy_tree(origin, dir.path());
    damage(dir.path());
    let found = verified(dir.path());
    // What is called lost is what the daemon lists as a gap, and what waits is what it delivers;
    // but for what it finds among the bytes of what is broken, which is delivered instead.
    let (mut queue, _) = Queue::open(dir.path(), keeping(), stamp(10)).unwrap();
    let delivered = numbers(&mut queue, Set::Pending);
    let gaps: u64 = queue.gaps().iter().filter(|gap| gap.to > 45).map(|g| g.to - g.from + 1).sum();
    if found.1.files.cursor == FileState::Good {
        let sum = &found.1;
        let refused = numbers(&mut queue, Set::Rejected);
        let refused = refused.into_iter().filter(|number| *number > sum.settled).count() as u64;
        let waiting = delivered.len() as u64;
        assert!(sum.pending <= waiting + refused - sum.rejected.min(refused), "{waiting}: {sum:?}");
        let told = sum.pending + sum.rejected + sum.lost + sum.in_gaps;
        assert_eq!(waiting + refused + gaps, told, "{sum:?}");
    }
    found
}

/// Path, content, and times, mode and inode: what would show a change.
type Entry = (PathBuf, Option<Vec<u8>>, (i64, i64, u32, u64));

/// Everything below.
fn tree(dir: &Path) -> Vec<Entry> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::metadata(&path).unwrap();
        let about = (metadata.mtime(), metadata.mtime_nsec(), metadata.mode(), metadata.ino());
        if metadata.is_dir() {
            found.extend(tree(&path));
        }
        let content = metadata.is_file().then(|| fs::read(&path).unwrap());
        found.push((path, content, about));
    }
    found.sort();
    found
}

fn run(from: u64, to: u64) -> Vec<Numbers> {
    vec![Numbers { from, to }]
}

#[test]
fn a_sound_queue_is_called_so_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let before = tree(dir.path());
    let (generations, sum) = verified(dir.path());
    assert!(tree(dir.path()) == before, "verifying changed the queue");
    assert!(before.len() > 15);
    let shape: Vec<_> = generations
        .iter()
        .map(|g| (g.set, g.records, g.pending, g.bytes, g.first_seq, g.last_seq, g.in_gaps))
        .collect();
    assert_eq!(
        shape,
        [
            (Set::Sent, 40, 0, 12_000, Some(1), Some(40), 0),
            (Set::Pending, 40, 32, 12_000, Some(41), Some(80), 3),
            (Set::Pending, 40, 39, 12_000, Some(81), Some(120), 0),
            (Set::Pending, 10, 10, 3000, Some(121), Some(130), 0),
            (Set::Rejected, 2, 0, 600, Some(30), Some(100), 0),
        ]
    );
    assert!(generations.iter().all(|g| g.is_good() && g.disk_bytes > g.bytes), "{generations:?}");
    assert!(generations[0].name.ends_with(".sent"), "{}", generations[0].name);
    assert!(sum.good, "{sum:?}");
    assert_eq!((sum.settled, sum.pending, sum.rejected, sum.in_gaps, sum.lost), (45, 81, 1, 3, 0));
    assert_eq!((sum.next_seq, sum.generations, sum.bad_generations), (131, 5, 0));
    assert_eq!((sum.records, sum.bytes), (132, 39_600));
    let state = sum.files;
    assert_eq!((state.format, state.manifest), (FileState::Good, FileState::Good));
    assert_eq!((state.mark, state.cursor), (FileState::Good, FileState::Good));
    assert_eq!(state.last_success, FileState::Absent, "its generation is still there");
    let json = serde_json::to_string(&(&generations, &sum)).unwrap();
    let back: (Vec<GenerationReport>, QueueReport) = serde_json::from_str(&json).unwrap();
    assert_eq!(back, (generations, sum));
}

#[test]
fn a_queue_at_any_stage_of_its_life_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { generation_max_records: 10, ..options() };
    let sound = |what: &str| {
        // As a kill at this moment would leave it.
        let copy = tempfile::tempdir().unwrap();
        copy_tree(dir.path(), copy.path());
        let (generations, sum) = verified(copy.path());
        assert!(sum.good, "{what}: {sum:?} {generations:?}");
        sum
    };
    let mut queue = open(dir.path(), &options);
    assert_eq!(sound("new").next_seq, 1);
    for round in 0..12 {
        append(&mut queue, 7, 2000);
        sound("appended");
        if round % 3 == 1 {
            queue.acknowledge(7 * round, confirm(round)).unwrap();
            sound("acknowledged");
            queue.reject(7 * round + 3, "no", stamp(round)).unwrap();
            sound("rejected");
        }
        queue.maintain(stamp(round)).unwrap();
        sound("maintained");
    }
    queue.give_up(80..=82, GapReason::QueueFull, false, stamp(20)).unwrap();
    sound("given up");
    queue.acknowledge(84, confirm(21)).unwrap();
    queue.maintain(stamp(100_000)).unwrap();
    let sum = sound("drained");
    assert_eq!((sum.settled, sum.files.last_success), (84, FileState::Good));
    drop(queue);
    let (queue, _) = Queue::open(dir.path(), options, stamp(100_001)).unwrap();
    sound("reopened");
    queue.close().unwrap();
    sound("closed");
}

/// Whatever a queue went through, as long as nothing harmed its files it is called sound; more:
/// `HARBORFORGE_LIVES=100`.
#[test]
fn no_life_of_a_queue_raises_a_false_alarm() {
    let lives = std::env::var("HARBORFORGE_LIVES").ok().and_then(|n| n.parse().ok());
    for seed in 0..lives.unwrap_or(1) {
        let mut random = Random(seed);
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            generation_max_records: 5 + random.below(20),
            queue_max_bytes: 20_000 + random.below(60_000),
            retain_sent: Duration::from_secs(random.below(2) * 3000),
            rejected_max_bytes: 40_000,
            ..Options::default()
        };
        let mut queue = open(dir.path(), &options);
        let mut seconds = 0;
        let mut trail = Vec::new();
        for step in 0..50 {
            seconds += random.below(400);
            let now = stamp(seconds);
            let position = queue.position();
            let waiting = position.next_seq - 1 - position.cursor;
            let some = position.cursor + 1 + random.below(waiting.max(1));
            let what = random.below(10);
            match what {
                0..=3 => {
                    let size = 50 + random.below(2000) as usize;
                    append(&mut queue, 1 + random.below(12), size);
                }
                4 if waiting > 0 => queue.acknowledge(some, confirm(seconds)).unwrap(),
                5 if waiting > 0 => queue.reject(some, "no", now).unwrap(),
                6 if waiting > 0 => {
                    let end = (some + random.below(3)).min(position.next_seq - 1);
                    queue.give_up(some..=end, GapReason::Expired, false, now).unwrap();
                }
                7 => {
                    let all = queue.unannounced_gaps();
                    queue.gaps_announced(&all).unwrap();
                }
                8 => {
                    if random.below(2) == 0 {
                        queue.close().unwrap()
                    } else {
                        drop(queue)
                    }
                    queue = Queue::open(dir.path(), options.clone(), now).unwrap().0;
                }
                _ => drop(queue.maintain(now).unwrap()),
            }
            trail.push(what);
            // Each look opens every generation.
            if random.below(3) > 0 {
                continue;
            }
            let copy = tempfile::tempdir().unwrap();
            copy_tree(dir.path(), copy.path());
            let (generations, sum) = verified(copy.path());
            assert!(sum.good, "seed {seed}, step {step}: {trail:?} {sum:?} {generations:?}");
            let position = queue.position();
            let told = (sum.settled, sum.next_seq, sum.pending);
            let known = (position.cursor, position.next_seq, position.pending);
            assert_eq!(told, known, "seed {seed}, step {step}: {trail:?}");
        }
    }
}

/// Between any two of its steps the daemon may be killed: what is half done then is not wrong.
#[test]
fn what_a_kill_leaves_half_done_is_not_wrong() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let queue = dir.path().join("queue");
    // A new generation without a database, one with an empty one, one being deleted, a manifest
    // being written, a snapshot being written.
    fs::create_dir(queue.join("00000000000000000131-00000009.pending")).unwrap();
    fs::create_dir(queue.join("00000000000000000030-00000010.rejected")).unwrap();
    fs::create_dir(queue.join("00000000000000000001-00000011.sent.deleted")).unwrap();
    fs::write(queue.join("manifest.tmp"), b"half").unwrap();
    let newest = generations(dir.path(), "pending")[2].clone();
    fs::write(newest.join("snap.0000000000000001.generating"), b"").unwrap();
    let (found, sum) = verified(dir.path());
    assert!(sum.good && sum.pending == 81 && sum.lost == 0, "{sum:?} {found:?}");
    assert_eq!(found.iter().filter(|g| g.unfinished).count(), 2, "{found:?}");
    assert!(found.iter().all(|g| g.is_good() && g.unreadable.is_none()), "{found:?}");
    // The same holds a step further, when the database is there and empty.
    copy_tree(&newest, &queue.join("00000000000000000131-00000009.pending"));
    for name in ["db", "conf"] {
        let file = queue.join("00000000000000000131-00000009.pending").join(name);
        fs::write(file, b"").unwrap();
    }
    let (found, sum) = verified(dir.path());
    assert!(sum.good && sum.pending == 81, "{sum:?} {found:?}");
}

/// Flips a byte of every place where a record's payload lies in a generation.
fn flip_record(generation: &Path, number: u64) {
    let needle = &payload(number, 300)[..200];
    let path = generation.join("db");
    let mut bytes = fs::read(&path).unwrap();
    let mut flipped = 0;
    while let Some(at) = bytes.windows(needle.len()).position(|part| part == needle) {
        bytes[at + 100] ^= 1;
        flipped += 1;
    }
    assert!(flipped > 0, "{number} was not found in {}", path.display());
    fs::write(path, bytes).unwrap();
}

#[test]
fn each_kind_of_damage_is_named() {
    let origin = tempfile::tempdir().unwrap();
    build(origin.path());
    let pending = |dir: &Path, at: usize| generations(dir, "pending")[at].clone();

    // A record: by its own checksum or, where the engine's finds it first, with its page.
    let (generations, sum) = damaged(origin.path(), |dir| flip_record(&pending(dir, 1), 97));
    let broken: Vec<_> = generations.iter().filter(|g| !g.is_good()).collect();
    assert_eq!(broken.len(), 1, "{broken:?}");
    let told = |list: &[Numbers]| list.iter().any(|run| (run.from..=run.to).contains(&97));
    assert!(told(&broken[0].damaged) || told(&broken[0].missing), "{broken:?}");
    assert!(!sum.good && sum.lost >= 1 && sum.bad_generations == 1, "{sum:?}");

    // A whole generation in the middle, and the newest.
    let (_, sum) = damaged(origin.path(), |dir| fs::remove_dir_all(pending(dir, 1)).unwrap());
    let nowhere = vec![Numbers { from: 81, to: 99 }, Numbers { from: 101, to: 120 }];
    assert_eq!((sum.lost, sum.nowhere, sum.bad_generations), (39, nowhere, 0));
    let (_, sum) = damaged(origin.path(), |dir| fs::remove_dir_all(pending(dir, 2)).unwrap());
    assert_eq!((sum.lost, sum.nowhere), (10, run(121, 130)));

    // One that cannot be opened says why, and what it held.
    let (generations, sum) =
        damaged(origin.path(), |dir| fs::remove_file(pending(dir, 0).join("db")).unwrap());
    assert!(generations[1].unreadable.as_ref().unwrap().contains("gone"), "{generations:?}");
    let held = vec![Numbers { from: 41, to: 59 }, Numbers { from: 63, to: 80 }];
    assert_eq!(generations[1].missing, held);
    // 41 to 45 are delivered: nobody is owed them.
    assert_eq!((sum.lost, sum.pending), (32, 49));

    // A tail cut off the newest: the high-water mark tells.
    let (generations, sum) = damaged(origin.path(), |dir| {
        let db = fs::File::options().write(true).open(pending(dir, 2).join("db")).unwrap();
        db.set_len(db.metadata().unwrap().len() / 40).unwrap();
    });
    assert!(sum.lost > 0 && !generations[3].missing.is_empty(), "{generations:?}");
    assert_eq!(generations[3].missing.last().unwrap().to, 130);

    // A sent one: nobody is owed anything, but it is not as it was.
    let (generations, sum) = damaged(origin.path(), |dir| {
        flip_record(&support::generations(dir, "sent")[0], 7);
    });
    assert!(!sum.good && !generations[0].is_good() && sum.lost == 0, "{sum:?}");

    // A rejected one, of a generation that is closed: how many there should be is known then.
    let closed = tempfile::tempdir().unwrap();
    copy_tree(origin.path(), closed.path());
    let mut queue = open(closed.path(), &keeping());
    queue.maintain(stamp(50_000)).unwrap();
    queue.close().unwrap();
    for number in [30, 100] {
        // The original of 100 is still there, so it is delivered once more at worst.
        let (generations, sum) = damaged(closed.path(), |dir| {
            flip_record(&support::generations(dir, "rejected")[0], number);
        });
        let rejected = &generations[4];
        let told = rejected.missing_rejected + rejected.damaged.len() as u64;
        assert!(!sum.good && told >= 1 && sum.lost == 0, "{rejected:?}");
    }

    // The engine's own settings, which are made anew.
    let (generations, sum) = damaged(origin.path(), |dir| {
        let conf = pending(dir, 0).join("conf");
        let mut bytes = fs::read(&conf).unwrap();
        bytes[4] ^= 1;
        fs::write(conf, bytes).unwrap();
    });
    assert_eq!(generations[1].engine_files, ["conf"]);
    assert!(!sum.good && sum.lost == 0 && sum.pending == 81, "{sum:?}");
}

#[test]
fn each_small_file_is_looked_at() {
    let origin = tempfile::tempdir().unwrap();
    build(origin.path());
    type State = fn(&SmallFiles) -> FileState;
    let cases: [(&str, State); 4] = [
        ("FORMAT", |files| files.format),
        ("manifest", |files| files.manifest),
        ("mark", |files| files.mark),
        ("cursor", |files| files.cursor),
    ];
    for (name, state) in cases {
        let (_, sum) = damaged(origin.path(), |dir| {
            let path = dir.join("queue").join(name);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, bytes.iter().map(|byte| byte ^ 1).collect::<Vec<_>>()).unwrap();
        });
        assert_eq!(state(&sum.files), FileState::Damaged, "{name}");
        assert!(!sum.good, "{name}");
        let (_, sum) = damaged(origin.path(), |dir| {
            fs::remove_file(dir.join("queue").join(name)).unwrap();
        });
        assert_eq!(state(&sum.files), FileState::Missing, "{name}");
        assert!(!sum.good, "{name}");
    }
}

#[test]
fn the_last_success_is_looked_for_where_it_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &options());
    append(&mut queue, 3, 100);
    queue.acknowledge(3, confirm(1)).unwrap();
    queue.maintain(stamp(100_000)).unwrap();
    queue.close().unwrap();
    let path = dir.path().join("queue/last-success");
    let state = || verified(dir.path()).1.files.last_success;
    assert_eq!(state(), FileState::Good);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(state(), FileState::Damaged);
    fs::remove_file(&path).unwrap();
    assert_eq!(state(), FileState::Missing);
    assert!(!verified(dir.path()).1.good);
}

#[test]
fn what_the_daemon_has_dealt_with_is_not_wrong_any_more() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    fs::remove_file(generations(dir.path(), "pending")[1].join("db")).unwrap();
    assert!(!verified(dir.path()).1.good);
    let (mut queue, _) = Queue::open(dir.path(), keeping(), stamp(10)).unwrap();
    numbers(&mut queue, Set::Pending);
    queue.maintain(stamp(11)).unwrap();
    queue.close().unwrap();
    let (_, sum) = verified(dir.path());
    assert!(sum.good, "{sum:?}");
    assert_eq!((sum.lost, sum.in_gaps), (0, 3 + 39));
    assert_eq!(sum.quarantined, 1);
    assert!(sum.quarantined_bytes > 0);
}

/// A flip anywhere is either without any effect or told, and what is told lost is what is lost;
/// more: `HARBORFORGE_FLIPS=2000`.
#[test]
fn flips_anywhere_are_told_as_the_daemon_tells_them() {
    let origin = tempfile::tempdir().unwrap();
    build(origin.path());
    let files: Vec<_> = files_below(&origin.path().join("queue"))
        .into_iter()
        .filter(|path| fs::metadata(path).unwrap().len() > 0)
        .filter(|path| !path.ends_with("LOCK"))
        .collect();
    let mut random = Random(4);
    let trials = std::env::var("HARBORFORGE_FLIPS").ok().and_then(|n| n.parse().ok());
    let mut wrong = 0;
    for trial in 0..trials.unwrap_or(24) {
        let inside = files[trial % files.len()].strip_prefix(origin.path()).unwrap().to_owned();
        let (_, sum) = damaged(origin.path(), |dir| {
            let target = dir.join(&inside);
            let mut bytes = fs::read(&target).unwrap();
            let at = random.below(bytes.len() as u64) as usize;
            if random.below(4) == 0 {
                bytes.truncate(at)
            } else {
                bytes[at] ^= 1 << random.below(8)
            }
            fs::write(&target, bytes).unwrap();
        });
        wrong += usize::from(!sum.good);
    }
    assert!(wrong > 3, "the trials hardly hurt: {wrong}");
}
