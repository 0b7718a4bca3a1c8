//! Damage anywhere: whatever is flipped, cut off, emptied or missing, everything else is delivered,
//! and what is not is told.
//!
//! More trials: `HARBORFORGE_FLIPS=20000 cargo test --test sweep -- --nocapture`; the outcomes are
//! counted and printed. One trial again: `HARBORFORGE_FLIPS_FROM=1234 HARBORFORGE_FLIPS=1`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests may panic, and print what they counted"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use harborforge_storage::*;
use support::*;

/// Numbers appended.
const RECORDS: u64 = 200;
/// Confirmed ones: the first generation is kept as sent, the next is delivered in part.
const CONFIRMED: u64 = 66;
/// The end of the second generation.
const WHOLE: u64 = 80;
const REJECTED: [u64; 3] = [90, 103, 155];
const GIVEN_UP: std::ops::RangeInclusive<u64> = 110..=112;

fn small() -> Options {
    Options {
        generation_max_records: 40,
        retain_sent: Duration::from_secs(1_000_000),
        ..Options::default()
    }
}

/// Mostly like a sample; some of several chunks, a few of many.
fn size_of(number: u64) -> usize {
    match number % 20 {
        7 => 3_000,
        13 => 9_000,
        rest => 250 + rest as usize * 20,
    }
}

fn append_to(queue: &mut Queue, count: u64) {
    for _ in 0..count {
        let number = queue.position().next_seq;
        let payload = payload(number, size_of(number));
        queue.append(&[NewRecord { stamp: stamp(0), payload: &payload }]).unwrap();
    }
}

/// A queue with something of everything in its directory. Not closed: as a kill leaves it.
fn build(dir: &Path) -> Queue {
    let mut queue = open(dir, &small());
    for batch in 0..RECORDS / 10 {
        append_to(&mut queue, 10);
        queue.maintain(stamp(batch)).unwrap();
    }
    queue.acknowledge(CONFIRMED, confirm(1)).unwrap();
    queue.reject(REJECTED[0], "no", stamp(2)).unwrap();
    // A second generation of rejected records, the first is sealed.
    queue.maintain(stamp(4_000)).unwrap();
    queue.reject(REJECTED[1], "no", stamp(4_000)).unwrap();
    queue.reject(REJECTED[2], "no", stamp(4_000)).unwrap();
    queue.give_up(GIVEN_UP, GapReason::Expired, false, stamp(4_000)).unwrap();
    queue
}

/// A directory to be harmed.
struct Prepared {
    dir: PathBuf,
    confirmed: u64,
    files: Vec<PathBuf>,
}

/// The prepared directories: cleanly closed, as a kill left it, and one with a generation in
/// quarantine and the last success in a file of its own.
fn prepare(root: &Path) -> [Prepared; 3] {
    let [closed, killed, third] = ["closed", "killed", "third"].map(|name| root.join(name));
    build(&closed).close().unwrap();
    let queue = build(&killed);
    copy_tree(&killed, &root.join("copy"));
    drop(queue);
    fs::remove_dir_all(&killed).unwrap();
    fs::rename(root.join("copy"), &killed).unwrap();
    copy_tree(&closed, &third);
    fs::remove_file(generations(&third, "sent")[0].join("db")).unwrap();
    fs::remove_dir_all(generations(&third, "sent")[0].join("blobs")).unwrap();
    let broken = generations(&third, "sent")[0].clone();
    let quarantine = third.join("queue/quarantine");
    fs::create_dir(&quarantine).unwrap();
    fs::rename(&broken, quarantine.join(broken.file_name().unwrap())).unwrap();
    let options = Options { retain_sent: Duration::ZERO, ..small() };
    let mut queue = Queue::open(&third, options, stamp(4_001)).unwrap().0;
    queue.acknowledge(WHOLE, confirm(2)).unwrap();
    queue.maintain(stamp(4_001)).unwrap();
    queue.close().unwrap();
    assert!(third.join("queue/last-success").exists());
    [(closed, CONFIRMED), (killed, CONFIRMED), (third, WHOLE)].map(|(dir, confirmed)| {
        let files = files_below(&dir);
        let files = files.iter().map(|f| f.strip_prefix(&dir).unwrap().to_owned()).collect();
        Prepared { dir, confirmed, files }
    })
}

/// What was done to one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    Flip,
    Cut,
    Empty,
    Missing,
}

/// As a disk would: in place.
fn flip(path: &Path, at: u64, bit: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, at).unwrap();
}

fn harm(path: &Path, random: &mut Random) -> (Harm, String) {
    let bytes = fs::read(path).unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let parent = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    let at = random.below(bytes.len() as u64) as usize;
    let kind = match random.below(10) {
        0 => Harm::Cut,
        1 => Harm::Empty,
        2 => Harm::Missing,
        _ if bytes.is_empty() => Harm::Missing,
        _ => Harm::Flip,
    };
    match kind {
        Harm::Flip => flip(path, at as u64, random.below(8)),
        Harm::Cut => {
            fs::File::options().write(true).open(path).unwrap().set_len(at as u64).unwrap()
        }
        Harm::Empty => fs::write(path, b"").unwrap(),
        Harm::Missing => fs::remove_file(path).unwrap(),
    }
    (kind, format!("{kind:?} of {parent}/{name} at {at}"))
}

/// What became of one trial.
#[derive(Debug, Default, Clone)]
struct Outcome {
    refused: bool,
    mended: bool,
    salvaged: bool,
    quarantined: bool,
    lost: BTreeSet<u64>,
}

fn is(harmed: &[PathBuf], what: &str) -> bool {
    harmed.iter().any(|path| path.to_string_lossy().contains(what))
}

/// Reads everything; every number must be delivered, rejected, or told as a gap.
fn account(queue: &mut Queue, confirmed: u64, harmed: &[PathBuf], what: &str) -> BTreeSet<u64> {
    let mut delivered = BTreeSet::new();
    let mut from = 0;
    loop {
        let limits = Limits { records: 30, bytes: 1 << 20 };
        let records = queue.read(Set::Pending, from, limits).unwrap();
        let Some(last) = records.last() else { break };
        from = last.seq + 1;
        for record in records {
            assert_eq!(record.payload, payload(record.seq, size_of(record.seq)), "{what}");
            assert!(delivered.insert(record.seq), "{what}: {} twice", record.seq);
        }
    }
    let gaps: BTreeSet<u64> = queue.gaps().iter().flat_map(|gap| gap.from..=gap.to).collect();
    let position = queue.position();
    assert!(position.next_seq > RECORDS, "{what}: numbers would be used twice");
    assert_eq!(position.pending, delivered.len() as u64, "{what}");
    assert!(gaps.is_disjoint(&delivered), "{what}");
    let mut lost = BTreeSet::new();
    for number in 1..=RECORDS {
        let was_due =
            number > confirmed && !REJECTED.contains(&number) && !GIVEN_UP.contains(&number);
        if was_due {
            assert!(
                delivered.contains(&number) || gaps.contains(&number),
                "{what}: {number} is gone without a word; {:?} {:?}",
                queue.position(),
                queue.gaps()
            );
            if !delivered.contains(&number) {
                lost.insert(number);
            }
        } else if delivered.contains(&number) {
            // What was settled comes back only where the file is damaged that settled it.
            let excused = (number <= confirmed && is(harmed, "cursor"))
                || (REJECTED.contains(&number) && is(harmed, "rejected"))
                || (GIVEN_UP.contains(&number) && is(harmed, "manifest"));
            assert!(excused, "{what}: {number} was settled and comes back");
        }
    }
    lost
}

/// Opens, accounts, goes on, and accounts again.
fn survive(dir: &Path, confirmed: u64, harmed: &[PathBuf], what: &str) -> Outcome {
    let (mut queue, report) = match Queue::open(dir, small(), stamp(5_000)) {
        Ok(opened) => opened,
        Err(Error::NewerFormat { .. }) if is(harmed, "FORMAT") => {
            return Outcome { refused: true, ..Outcome::default() };
        }
        Err(error) => panic!("{what}: {error}"),
    };
    let lost = account(&mut queue, confirmed, harmed, what);
    let next = queue.position().next_seq;
    let payload = payload(next, size_of(next));
    queue.append(&[NewRecord { stamp: stamp(5_001), payload: &payload }]).unwrap();
    let done = queue.maintain(stamp(5_001)).unwrap();
    assert_eq!(queue.read(Set::Pending, next, ALL).unwrap().len(), 1, "{what}");
    queue.read(Set::Sent, 0, ALL).unwrap();
    queue.rejected(0, ALL).unwrap();
    queue.close().unwrap();
    Outcome {
        refused: false,
        mended: !report.rebuilt.is_empty()
            || !report.moved_aside.is_empty()
            || !report.removed_snapshots.is_empty(),
        salvaged: !report.salvaged.is_empty() || !done.salvaged.is_empty(),
        quarantined: !report.quarantined.is_empty() || !done.quarantined.is_empty(),
        lost,
    }
}

fn env(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

/// One trial and what came of it.
struct Trial {
    what: String,
    kinds: Vec<Harm>,
    in_database: bool,
    outcome: Outcome,
}

/// Runs trials on two threads: the engine's own threads are shared by all databases anyway.
fn trials(count: usize, run: impl Fn(u64) -> Trial + Sync) -> Vec<Trial> {
    let first = env("HARBORFORGE_FLIPS_FROM").unwrap_or(0) as u64;
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (outcomes, run) = (&outcomes, &run);
            scope.spawn(move || {
                for trial in (thread..count as u64).step_by(2) {
                    let outcome = run(first + trial);
                    outcomes.lock().unwrap().push(outcome);
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}

fn print_table(rows: &[(&str, Vec<&Trial>)]) {
    println!(
        "{:24} trials  no effect  mended  salvaged  quarantined  loss  refused   lost: sum  median  worst",
        ""
    );
    for (name, trials) in rows {
        let count =
            |test: &dyn Fn(&Outcome) -> bool| trials.iter().filter(|t| test(&t.outcome)).count();
        let mut lost: Vec<_> = trials.iter().map(|trial| trial.outcome.lost.len()).collect();
        lost.sort_unstable();
        let untouched = |o: &Outcome| !(o.refused || o.mended || o.salvaged || o.quarantined);
        println!(
            "{name:24} {:6} {:10} {:7} {:9} {:12} {:5} {:8} {:11} {:7} {:6}",
            trials.len(),
            count(&|o| untouched(o) && o.lost.is_empty()),
            count(&|o| o.mended),
            count(&|o| o.salvaged),
            count(&|o| o.quarantined),
            count(&|o| !o.lost.is_empty()),
            count(&|o| o.refused),
            lost.iter().sum::<usize>(),
            lost.get(lost.len() / 2).unwrap_or(&0),
            lost.last().unwrap_or(&0),
        );
    }
}

#[test]
fn damage_anywhere_is_survived_and_told() {
    let root = scratch();
    let prepared = prepare(root.path());
    let count = env("HARBORFORGE_FLIPS").unwrap_or(520);
    let outcomes = trials(count, |trial| {
        let mut random = Random(trial * 7919 + 1);
        let Prepared { dir: origin, confirmed, files: all } = &prepared[random.below(3) as usize];
        let dir = root.path().join(format!("trial-{trial}"));
        copy_tree(origin, &dir);
        let mut harmed: Vec<PathBuf> = Vec::new();
        let mut kinds = Vec::new();
        let name = origin.file_name().unwrap().to_string_lossy();
        let mut what = format!("trial {trial}, {name}:");
        // One in five hits two files at once. Databases are hit as often as all the rest.
        for _ in 0..if random.below(5) == 0 { 2 } else { 1 } {
            let databases: Vec<_> = all.iter().filter(|file| file.ends_with("db")).collect();
            let file = match random.below(2) {
                0 => databases[random.below(databases.len() as u64) as usize],
                _ => &all[random.below(all.len() as u64) as usize],
            };
            if !harmed.contains(file) {
                let (kind, text) = harm(&dir.join(file), &mut random);
                what = format!("{what} {text};");
                kinds.push(kind);
                harmed.push(file.clone());
            }
        }
        let outcome = survive(&dir, *confirmed, &harmed, &what);
        fs::remove_dir_all(&dir).unwrap();
        Trial { what, kinds, in_database: harmed.iter().all(|f| f.ends_with("db")), outcome }
    });
    let single = |test: &dyn Fn(&Trial) -> bool| -> Vec<&Trial> {
        outcomes.iter().filter(|trial| trial.kinds.len() == 1 && test(trial)).collect()
    };
    let flips = single(&|trial| trial.kinds[0] == Harm::Flip && trial.in_database);
    print_table(&[
        ("a flip in a database", flips.clone()),
        ("a flip elsewhere", single(&|t| t.kinds[0] == Harm::Flip && !t.in_database)),
        ("a file cut off", single(&|t| t.kinds[0] == Harm::Cut)),
        ("a file emptied", single(&|t| t.kinds[0] == Harm::Empty)),
        ("a file missing", single(&|t| t.kinds[0] == Harm::Missing)),
        ("two files at once", outcomes.iter().filter(|t| t.kinds.len() == 2).collect()),
    ]);
    expect_little_loss(&flips);
    for trial in single(&|trial| !trial.in_database) {
        // A snapshot, settings, marks and lists can be made again from the databases.
        assert_eq!(trial.outcome.lost, BTreeSet::new(), "{}", trial.what);
    }
    assert!(outcomes.iter().filter(|trial| trial.outcome.salvaged).count() > outcomes.len() / 20);
}

/// A record is lost only where the flip is in the record itself, and not even there if the log
/// still has it from before its page was written anew.
fn expect_little_loss(flips: &[&Trial]) {
    let mut sum = 0;
    for trial in flips {
        assert!(trial.outcome.lost.len() <= 1, "{}: {:?}", trial.what, trial.outcome.lost);
        sum += trial.outcome.lost.len();
    }
    assert!(sum <= 2 + flips.len() / 4, "{sum} records lost by {} flips", flips.len());
}

/// The pending numbers and those in gaps; each from [`RECORDS`] on is one or the other.
fn read_or_told(queue: &mut Queue, what: &str) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let last = queue.position().next_seq - 1;
    let read: BTreeSet<u64> = numbers(queue, Set::Pending).into_iter().collect();
    let told: BTreeSet<u64> = queue.gaps().iter().flat_map(|gap| gap.from..=gap.to).collect();
    for number in RECORDS + 1..=last {
        assert!(read.contains(&number) != told.contains(&number), "{what}: {number}");
    }
    (read, told)
}

/// The disk changes what is read while the queue is open, and goes on being written to.
#[test]
fn a_flip_while_the_queue_is_open_is_survived_and_told() {
    let root = scratch();
    let origin = root.path().join("origin");
    build(&origin).close().unwrap();
    let count = env("HARBORFORGE_FLIPS").map_or(100, |count| count / 5);
    let outcomes = trials(count, |trial| {
        let mut random = Random(trial * 104_729 + 3);
        let dir = root.path().join(format!("open-{trial}"));
        copy_tree(&origin, &dir);
        let mut queue = Queue::open(&dir, small(), stamp(4_001)).unwrap().0;
        let fresh = random.below(30);
        append_to(&mut queue, fresh);
        let databases: Vec<_> =
            files_below(&dir).into_iter().filter(|file| file.ends_with("db")).collect();
        let path = &databases[random.below(databases.len() as u64) as usize];
        let at = random.below(fs::metadata(path).unwrap().len());
        flip(path, at, random.below(8));
        let what = format!("trial {trial}: {} flipped at {at} while open", path.display());
        let mut lost = account(&mut queue, CONFIRMED, std::slice::from_ref(path), &what);
        // What was appended meanwhile is sealed over the damage.
        append_to(&mut queue, 5);
        let done = queue.maintain(stamp(20_000)).unwrap();
        lost.append(&mut account(&mut queue, CONFIRMED, std::slice::from_ref(path), &what));
        let (read, told) = read_or_told(&mut queue, &what);
        lost.extend(told.range(RECORDS + 1..));
        queue.close().unwrap();
        let (mut queue, report) = Queue::open(&dir, small(), stamp(20_001)).unwrap();
        lost.append(&mut account(&mut queue, CONFIRMED, std::slice::from_ref(path), &what));
        // What came out of memory before may be what was hit on the disk: it is told now.
        let (left, told) = read_or_told(&mut queue, &what);
        let excused = is(std::slice::from_ref(path), "rejected");
        for number in left.difference(&read) {
            // A copy that is lost keeps its record from nobody.
            assert!(excused && REJECTED.contains(number), "{what}: {number} comes back");
        }
        lost.extend(told.range(RECORDS + 1..));
        drop(queue);
        fs::remove_dir_all(&dir).unwrap();
        let outcome = Outcome {
            refused: false,
            mended: false,
            salvaged: !done.salvaged.is_empty() || !report.salvaged.is_empty(),
            quarantined: !done.quarantined.is_empty() || !report.quarantined.is_empty(),
            lost,
        };
        Trial { what, kinds: vec![Harm::Flip], in_database: true, outcome }
    });
    let all: Vec<_> = outcomes.iter().collect();
    print_table(&[("a flip while it is open", all.clone())]);
    expect_little_loss(&all);
}
