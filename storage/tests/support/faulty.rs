//! A child process that works on a queue while the system calls fail around it, beside a model of
//! what the queue must then hold.
//!
//! A number's content tells the number and the try that wrote it, so a number that is used twice,
//! or that comes back as an older try left it, is noticed. What returned without an error counts;
//! what failed may or may not have reached the disk, and that shows at the next reopening, when
//! the model takes it over from the queue, but within these limits alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harborforge_storage::*;

use crate::journal;
use crate::support::{ALL, Random, confirm, payload, stamp};

/// Tries of something that fails at random, before it is taken for broken.
const TRIES: u32 = 500;

pub fn small() -> Options {
    Options {
        generation_max_records: 30,
        retain_sent: Duration::from_secs(60),
        retain_sent_max_bytes: 300_000,
        mark_sync_interval: Duration::from_secs(1),
        ..Options::default()
    }
}

/// What a child did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    pub operations: u64,
    /// Operations that returned an error.
    pub refused: u64,
    pub reopened: u64,
    pub appended: u64,
    /// The engine's threads had died and it was said so.
    pub broken: u64,
    /// It came to its end, and the queue could be emptied.
    pub finished: u64,
}

impl Told {
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.refused += other.refused;
        self.reopened += other.reopened;
        self.appended += other.appended;
        self.broken += other.broken;
        self.finished += other.finished;
    }

    pub fn parse(words: &str) -> Self {
        let mut numbers = words.split(' ').map(|word| word.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        Self {
            operations: next(),
            refused: next(),
            reopened: next(),
            appended: next(),
            broken: next(),
            finished: next(),
        }
    }

    fn words(&self) -> String {
        let Self { operations, refused, reopened, appended, broken, finished } = self;
        format!("@ told {operations} {refused} {reopened} {appended} {broken} {finished}")
    }
}

/// The way to the parent, which must hear it all although writing fails at random.
struct Parent(File);

impl Parent {
    fn hear(&mut self, line: &str) {
        let mut rest = format!("\n{line}\n").into_bytes();
        while !rest.is_empty() {
            if let Ok(written) = self.0.write(&rest) {
                rest.drain(..written);
            }
        }
    }
}

/// The child's work; does nothing in a process that was not started as one.
pub fn work() {
    let Some(dir) = std::env::var_os("HARBORFORGE_FAILING_DIR") else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (seed, operations) =
        (number("HARBORFORGE_FAILING_SEED"), number("HARBORFORGE_FAILING_OPERATIONS"));
    let mut parent = Parent(persistent(|| File::options().write(true).open("/proc/self/fd/1")));
    parent.hear("@ begun");
    journal::keep();
    // As the daemon does: a panic in the engine's threads is the end of the process.
    let out = parent.0.try_clone().unwrap();
    std::panic::set_hook(Box::new(move |info| {
        let mut parent = Parent(out.try_clone().unwrap());
        let text = info.to_string().replace('\n', " ");
        if std::thread::current().name().is_some_and(is_engine_thread) {
            parent.hear(&format!("@ engine {text}"));
            std::process::exit(70);
        }
        // The queue catches one while it closes a database that cannot be synced.
        if !info.location().is_some_and(|place| place.file().ends_with("pagecache/logger.rs")) {
            parent.hear(&format!("@ panic {text}"));
            for line in journal::lines() {
                parent.hear(&format!("@ panic   before it: {line}"));
            }
        }
    }));
    let mut worker = Worker::start(PathBuf::from(dir), seed);
    while worker.told.operations < operations {
        if worker.step().is_err() {
            worker.told.broken = 1;
            parent.hear(&worker.told.words());
            // Closing would wait for what is dead.
            std::process::exit(70);
        }
        if worker.told.operations.is_multiple_of(100) {
            parent.hear(&worker.told.words());
        }
    }
    worker.finish();
    worker.told.finished = 1;
    parent.hear(&worker.told.words());
    // The harness would print, and that fails at random too.
    std::process::exit(0);
}

fn persistent<T>(mut run: impl FnMut() -> std::io::Result<T>) -> T {
    for _ in 0..TRIES {
        if let Ok(value) = run() {
            return value;
        }
    }
    panic!("it never works");
}

/// The engine's threads are gone; only a new process can go on.
#[derive(Debug)]
struct Broken;

struct Worker {
    dir: PathBuf,
    queue: Option<Queue>,
    model: Model,
    random: Random,
    told: Told,
    /// Every append has a number of its own, successful or not.
    attempt: u64,
}

/// What is known of the queue.
#[derive(Default)]
struct Model {
    next: u64,
    cursor: u64,
    /// By number, which attempts it may be of: one if it was appended, more if none succeeded.
    content: BTreeMap<u64, BTreeSet<u64>>,
    rejected: BTreeSet<u64>,
    given_up: BTreeSet<u64>,
    /// What was asked for and failed, since the last opening.
    maybe_confirmed: u64,
    maybe_rejected: BTreeSet<u64>,
    maybe_given_up: BTreeSet<u64>,
    maybe_appended: BTreeMap<u64, BTreeSet<u64>>,
}

impl Model {
    fn is_pending(&self, seq: u64) -> bool {
        seq > self.cursor
            && seq < self.next
            && !self.rejected.contains(&seq)
            && !self.given_up.contains(&seq)
    }

    fn pending(&self) -> Vec<u64> {
        (self.cursor + 1..self.next).filter(|&seq| self.is_pending(seq)).collect()
    }

    fn holds(&self, record: &Record) -> bool {
        let attempts = self.content.get(&record.seq);
        attempts.is_some_and(|attempts| {
            attempts.iter().any(|&attempt| record.payload == content(record.seq, attempt))
        })
    }
}

fn content(seq: u64, attempt: u64) -> Vec<u8> {
    // Now and then a large one, which takes several chunks and syncs.
    let size = if seq.is_multiple_of(41) { 40_000 } else { 40 + (seq % 500) as usize };
    let mut bytes = format!("try {attempt} ").into_bytes();
    bytes.extend(payload(seq, size));
    bytes
}

impl Worker {
    /// Takes over what lies in `dir`, from a child before this one or nothing.
    fn start(dir: PathBuf, seed: u64) -> Self {
        let queue = open(&dir);
        let mut worker = Self {
            dir,
            queue: None,
            model: Model { next: 1, ..Model::default() },
            random: Random(seed),
            told: Told::default(),
            attempt: seed * 1_000_000,
        };
        worker.take_over(queue);
        worker
    }

    /// What an earlier child left is taken as it is; the gaps it made are its own.
    fn take_over(&mut self, mut queue: Queue) {
        let position = queue.position();
        self.model.next = position.next_seq;
        self.model.cursor = position.cursor;
        self.model.given_up = gap_numbers(&queue);
        let rejected = always(|| queue.rejected(0, ALL));
        self.model.rejected = rejected.iter().map(|r| r.record.seq).collect();
        for record in read_all(&mut queue) {
            let attempt = attempt_of(&record);
            self.model.content.insert(record.seq, BTreeSet::from([attempt]));
        }
        assert_eq!(self.model.pending(), self.model.content.keys().copied().collect::<Vec<_>>());
        self.queue = Some(queue);
    }

    /// One operation. What it returns is held against the model.
    fn step(&mut self) -> Result<(), Broken> {
        self.told.operations += 1;
        let done = match self.random.below(100) {
            0..40 => self.append(),
            40..60 => self.read(),
            60..80 => self.acknowledge(),
            80..84 => self.reject(),
            84..86 => self.give_up(),
            86..97 => self.maintain(),
            _ => {
                self.reopen();
                Ok(())
            }
        };
        if let Err(error) = done {
            self.told.refused += 1;
            if matches!(error, Error::EngineBroken { .. }) {
                return Err(Broken);
            }
            assert!(error.is_retryable(), "{error:?}");
            assert!(!matches!(error, Error::Engine { .. }), "a refusal, not damage: {error:?}");
        }
        let queue = self.queue.as_ref().unwrap();
        let position = queue.position();
        assert_eq!(position.next_seq, self.model.next);
        assert_eq!(position.pending, self.model.pending().len() as u64);
        let gaps = gap_numbers(queue);
        let differ: Vec<_> = gaps.symmetric_difference(&self.model.given_up).collect();
        assert_eq!(differ, Vec::<&u64>::new(), "{:?}", queue.stats());
        Ok(())
    }

    fn append(&mut self) -> Result<(), Error> {
        let first = self.model.next;
        self.attempt += 1;
        let last = first + self.random.below(8);
        let payloads: Vec<_> = (first..=last).map(|seq| content(seq, self.attempt)).collect();
        let records: Vec<_> =
            payloads.iter().map(|payload| NewRecord { stamp: self.now(), payload }).collect();
        match self.queue.as_mut().unwrap().append(&records) {
            Ok(range) => {
                assert_eq!(range, first..=last);
                for seq in range {
                    self.model.content.insert(seq, BTreeSet::from([self.attempt]));
                    self.model.maybe_appended.remove(&seq);
                }
                self.model.next = last + 1;
                self.told.appended += last - first + 1;
                Ok(())
            }
            Err(error) => {
                for seq in first..=last {
                    self.model.maybe_appended.entry(seq).or_default().insert(self.attempt);
                }
                Err(error)
            }
        }
    }

    fn read(&mut self) -> Result<(), Error> {
        let limits = Limits { records: 1 + self.random.below(60) as usize, bytes: 200_000 };
        let pending = self.model.pending();
        let from = match pending.get(self.random.below(pending.len() as u64) as usize) {
            Some(&seq) if self.random.below(3) == 0 => seq,
            Some(_) | None => 0,
        };
        let records = self.queue.as_mut().unwrap().read(Set::Pending, from, limits)?;
        let expected: Vec<u64> = pending.into_iter().filter(|&seq| seq >= from).collect();
        let numbers: Vec<u64> = records.iter().map(|record| record.seq).collect();
        assert!(expected.starts_with(&numbers), "{numbers:?} of {expected:?}");
        assert_eq!(numbers.is_empty(), expected.is_empty());
        for record in &records {
            assert!(self.model.holds(record), "{}: {:?}", record.seq, attempt_of(record));
        }
        Ok(())
    }

    fn acknowledge(&mut self) -> Result<(), Error> {
        let pending = self.model.pending();
        let at = self.random.below((pending.len() as u64).min(40)) as usize;
        let Some(&up_to) = pending.get(at) else { return Ok(()) };
        match self.queue.as_mut().unwrap().acknowledge(up_to, confirm(1)) {
            Ok(()) => {
                self.model.cursor = self.model.cursor.max(up_to);
                Ok(())
            }
            Err(error) => {
                self.model.maybe_confirmed = self.model.maybe_confirmed.max(up_to);
                Err(error)
            }
        }
    }

    fn reject(&mut self) -> Result<(), Error> {
        let pending = self.model.pending();
        let at = self.random.below((pending.len() as u64).min(10)) as usize;
        let Some(&seq) = pending.get(at) else { return Ok(()) };
        let now = self.now();
        match self.queue.as_mut().unwrap().reject(seq, "no", now) {
            Ok(()) => {
                self.model.rejected.insert(seq);
                Ok(())
            }
            Err(error) => {
                self.model.maybe_rejected.insert(seq);
                Err(error)
            }
        }
    }

    fn give_up(&mut self) -> Result<(), Error> {
        let pending = self.model.pending();
        let Some(&from) = pending.first() else { return Ok(()) };
        let to = (from + self.random.below(5)).min(self.model.next - 1);
        let numbers: Vec<u64> = pending.into_iter().filter(|&seq| seq <= to).collect();
        let now = self.now();
        let queue = self.queue.as_mut().unwrap();
        match queue.give_up(from..=to, GapReason::QueueFull, true, now) {
            Ok(()) => {
                self.model.given_up.extend(numbers);
                Ok(())
            }
            Err(error) => {
                self.model.maybe_given_up.extend(numbers);
                Err(error)
            }
        }
    }

    fn maintain(&mut self) -> Result<(), Error> {
        let now = self.now();
        let done = self.queue.as_mut().unwrap().maintain(now)?;
        // A copy of a rejected record that was not written whole is a torn log, which cannot be told
        // from damage; what is in it is taken over, as the next audit sees.
        let torn = |path: &PathBuf| path.extension().is_some_and(|role| role == "rejected");
        let broken: Vec<_> = done.quarantined.iter().filter(|path| !torn(path)).collect();
        assert_eq!(broken, Vec::<&PathBuf>::new(), "a refusal is no damage");
        Ok(())
    }

    fn now(&self) -> Stamp {
        stamp(self.told.operations)
    }

    /// Closes the queue well or not at all, opens it again, and audits it: what returned well is
    /// as it was, and nothing else is than what was tried.
    fn reopen(&mut self) {
        let queue = self.queue.take().unwrap();
        if self.random.below(2) == 0 {
            // What it could not write is no more than what a kill would have kept from the disk.
            let _ = queue.close();
        } else {
            drop(queue);
        }
        let mut queue = open(&self.dir);
        self.told.reopened += 1;
        let (model, position) = (&mut self.model, queue.position());
        let lowest = model.next;
        assert!(position.next_seq >= lowest, "{lowest} would be used again: {position:?}");
        for seq in lowest..position.next_seq {
            let attempts = model.maybe_appended.get(&seq).cloned();
            model
                .content
                .insert(seq, attempts.unwrap_or_else(|| panic!("{seq} came from nowhere")));
        }
        model.next = position.next_seq;

        let gone = gap_numbers(&queue);
        for seq in &gone {
            let known = model.given_up.contains(seq) || model.maybe_given_up.contains(seq);
            assert!(known, "{seq} is lost: {:?}", queue.gaps());
        }
        let rejected = always(|| queue.rejected(0, ALL));
        let rejected: BTreeSet<u64> = rejected.iter().map(|r| r.record.seq).collect();
        assert!(model.rejected.is_subset(&rejected), "{:?} of {rejected:?}", model.rejected);
        for seq in rejected.difference(&model.rejected) {
            assert!(model.maybe_rejected.contains(seq), "{seq} was never rejected");
        }
        // A gap that was passed by long ago may be forgotten; a new one may not.
        for seq in &model.given_up {
            assert!(gone.contains(seq) || *seq <= model.cursor, "the gap at {seq} is forgotten");
        }
        assert!(position.cursor >= model.cursor, "{} was confirmed: {position:?}", model.cursor);
        for seq in model.cursor + 1..=position.cursor {
            let settled =
                seq <= model.maybe_confirmed || rejected.contains(&seq) || gone.contains(&seq);
            assert!(settled, "{seq} was passed over: {position:?}");
        }
        model.cursor = position.cursor;
        (model.rejected, model.given_up) = (rejected, gone);
        let records = read_all(&mut queue);
        let numbers: Vec<u64> = records.iter().map(|record| record.seq).collect();
        assert_eq!(numbers, model.pending());
        for record in &records {
            assert!(model.holds(record), "{}: {:?}", record.seq, attempt_of(record));
            model.content.insert(record.seq, BTreeSet::from([attempt_of(record)]));
        }
        let head = model.cursor;
        model.content.retain(|&seq, _| seq > head);
        model.maybe_confirmed = 0;
        model.maybe_rejected.clear();
        model.maybe_given_up.clear();
        model.maybe_appended.clear();
        self.queue = Some(queue);
    }

    /// Everything out, from the queue as it is.
    fn finish(&mut self) {
        for (at, &seq) in self.model.pending().iter().enumerate() {
            if at % 25 == 0 {
                let queue = self.queue.as_mut().unwrap();
                let records =
                    always(|| queue.read(Set::Pending, seq, Limits { records: 1, ..ALL }));
                assert_eq!(records[0].seq, seq);
                always(|| queue.acknowledge(seq, confirm(2)));
            }
        }
        let now = self.now();
        let queue = self.queue.as_mut().unwrap();
        always(|| queue.append(&[NewRecord { stamp: now, payload: b"last" }]));
        let last = read_all(queue).pop().unwrap();
        assert_eq!(last.payload, b"last");
        always(|| queue.acknowledge(last.seq, confirm(2)));
        always(|| queue.maintain(now));
        assert_eq!(queue.position().pending, 0);
    }
}

/// Something that may fail at random and has to work in the end.
fn always<T>(mut run: impl FnMut() -> Result<T, Error>) -> T {
    let mut last = None;
    for _ in 0..TRIES {
        match run() {
            Ok(value) => return value,
            Err(error) => last = Some(error),
        }
    }
    panic!("it never works: {last:?}");
}

fn open(dir: &Path) -> Queue {
    let (queue, report) = always(|| Queue::open(dir, small(), stamp(0)));
    assert_eq!(report.missing, [], "{report:?}");
    // A directory that could neither be made nor deleted looks like damage and is set aside; nobody
    // is owed what it held, or it would be missing.
    assert_eq!(report.rebuilt, Vec::<PathBuf>::new(), "{report:?}");
    queue
}

/// All that is pending, in portions, since any of them may fail.
fn read_all(queue: &mut Queue) -> Vec<Record> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let from = all.last().map_or(0, |record| record.seq + 1);
        let portion = always(|| queue.read(Set::Pending, from, ALL));
        if portion.is_empty() {
            return all;
        }
        all.extend(portion);
    }
}

fn gap_numbers(queue: &Queue) -> BTreeSet<u64> {
    queue.gaps().iter().flat_map(|gap| gap.from..=gap.to).collect()
}

fn attempt_of(record: &Record) -> u64 {
    let text = record.payload.strip_prefix(b"try ").unwrap_or_default();
    let word = text.split(|&byte| byte == b' ').next().unwrap_or_default();
    std::str::from_utf8(word).unwrap_or_default().parse().unwrap_or(0)
}
