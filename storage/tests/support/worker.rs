//! A child process that works on a queue until it is killed, and says what it does.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "that is how a child speaks")]

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use harborforge_storage::*;

use super::calls::Control;
use super::*;

/// So small that every bound is met within a few dozen steps.
pub fn small() -> Options {
    Options {
        queue_max_bytes: 100_000,
        generation_max_records: 30,
        generation_max_age: Duration::from_secs(100),
        retain_sent: Duration::from_secs(60),
        retain_sent_max_bytes: 100_000,
        mark_sync_interval: Duration::from_secs(1),
        ..Options::default()
    }
}

/// What a number's payload must be, by the run that appended it.
fn content(run: u64, number: u64) -> Vec<u8> {
    // Now and then a large one, which takes several chunks and syncs.
    let size = if number.is_multiple_of(37) { 40_000 } else { 30 + (number % 600) as usize };
    let mut bytes = format!("run {run} ").into_bytes();
    bytes.extend(payload(number, size));
    bytes
}

/// The run that appended a record; none if its bytes are not what a run appends.
pub fn run_of(record: &Record) -> Option<u64> {
    let mut words = record.payload.strip_prefix(b"run ")?.split(|&byte| byte == b' ');
    let run = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    (record.payload == content(run, record.seq)).then_some(run)
}

/// What a child says: on its way into a step, and when the step is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Run and first and last number.
    Appended(u64, u64, u64),
    /// The records of these numbers were read, and are about to be confirmed.
    Delivering(u64, u64),
    /// All that was about to be is confirmed.
    Delivered,
    Rejecting(u64),
    Rejected(u64),
    /// A file that holds these numbers, and whatever lies between, is about to be damaged.
    Damaging(u64, u64),
    /// The script is through.
    Finished,
}

/// A line of the child's output as a report; none for what the test harness says, and for a
/// line that the kill cut off.
pub fn parse(line: &str) -> Option<Report> {
    let mut words = line.strip_prefix("@ ")?.strip_suffix(" .")?.split(' ');
    let what = words.next()?.to_owned();
    let mut number = || words.next()?.parse::<u64>().ok();
    Some(match what.as_str() {
        "appended" => Report::Appended(number()?, number()?, number()?),
        "delivering" => Report::Delivering(number()?, number()?),
        "delivered" => Report::Delivered,
        "rejecting" => Report::Rejecting(number()?),
        "rejected" => Report::Rejected(number()?),
        "damaging" => Report::Damaging(number()?, number()?),
        "finished" => Report::Finished,
        _ => panic!("{line}"),
    })
}

fn say(line: &str) {
    println!("@ {line} .");
}

/// The child's work; does nothing in a process that was not started as one.
pub fn work() {
    let Some(dir) = std::env::var_os("HARBORFORGE_CHILD_DIR") else { return };
    let run: u64 = std::env::var("HARBORFORGE_CHILD_RUN").unwrap().parse().unwrap();
    let task = std::env::var("HARBORFORGE_CHILD_TASK").unwrap();
    // As the daemon does: a call that waits for such a thread would wait for ever.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        usual(info);
        if std::thread::current().name().is_some_and(is_engine_thread) {
            std::process::exit(ENGINE_DIED);
        }
    }));
    let tries = if task == STUBBORN { 40 } else { 1 };
    let mut worker = Worker { dir: PathBuf::from(dir), run, tries, now: run * 1000, queue: None };
    match task.as_str() {
        AT_RANDOM => worker.at_random(),
        SCRIPT | STUBBORN => worker.script(),
        _ => panic!("{task}"),
    }
}

/// A mixed load without an end.
pub const AT_RANDOM: &str = "random";
/// A fixed sequence of steps, of every kind there is.
pub const SCRIPT: &str = "script";
/// The same by one who tries again what fails.
pub const STUBBORN: &str = "stubborn";

/// How a child ends when the engine's own threads have died.
pub const ENGINE_DIED: i32 = 70;

struct Worker {
    dir: PathBuf,
    run: u64,
    tries: u32,
    now: u64,
    queue: Option<Queue>,
}

impl Worker {
    /// Tries until it works, or as often as this worker does.
    fn insist<T>(&mut self, mut step: impl FnMut(&mut Queue, Stamp) -> Result<T, Error>) -> T {
        let mut tries = 0;
        loop {
            tries += 1;
            let stamp = stamp(self.now);
            match step(self.queue.as_mut().unwrap(), stamp) {
                Ok(done) => return done,
                Err(error) if tries >= self.tries => panic!("{error:?}"),
                Err(error) => eprintln!("try {tries}: {error}"),
            }
            self.now += 1;
        }
    }

    fn open(&mut self) {
        // Each opening is a run of its own to the books, since it has an epoch of its own.
        self.run += 1;
        let mut tries = 0;
        self.queue = Some(loop {
            tries += 1;
            match Queue::open(&self.dir, small(), stamp(self.now)) {
                Ok((queue, _)) => break queue,
                Err(error) if tries >= self.tries => panic!("{error:?}"),
                Err(error) => eprintln!("open, try {tries}: {error}"),
            }
        });
    }

    fn reopen(&mut self, cleanly: bool) {
        let queue = self.queue.take().unwrap();
        if !cleanly {
            drop(queue);
        } else if let Err(error) = queue.close() {
            assert!(self.tries > 1, "{error:?}");
        }
        self.open();
    }

    fn append(&mut self, count: u64) {
        let run = self.run;
        let range = self.insist(|queue, stamp| {
            let first = queue.position().next_seq;
            let payloads: Vec<_> = (first..first + count).map(|n| content(run, n)).collect();
            let records: Vec<_> =
                payloads.iter().map(|payload| NewRecord { stamp, payload }).collect();
            queue.append(&records)
        });
        if !range.is_empty() {
            say(&format!("appended {run} {} {}", range.start(), range.end()));
        }
    }

    fn read(&mut self, limits: Limits) -> Vec<Record> {
        let records = self.insist(|queue, _| queue.read(Set::Pending, 0, limits));
        for record in &records {
            assert!(run_of(record).is_some(), "{} is not what was appended", record.seq);
        }
        records
    }

    fn deliver(&mut self, limits: Limits) {
        let records = self.read(limits);
        let Some(last) = records.last().map(|record| record.seq) else { return };
        for run in records.chunk_by(|a, b| a.seq + 1 == b.seq) {
            say(&format!("delivering {} {}", run[0].seq, run[run.len() - 1].seq));
        }
        self.insist(|queue, stamp| {
            queue.acknowledge(last, Confirmation { wall_ms: stamp.wall_ms, tag: 1 })
        });
        say("delivered");
    }

    fn reject(&mut self, place: usize) {
        let records = self.read(Limits { records: place + 1, bytes: usize::MAX });
        let Some(record) = records.get(place) else { return };
        say(&format!("rejecting {}", record.seq));
        self.insist(|queue, stamp| queue.reject(record.seq, "no", stamp));
        say(&format!("rejected {}", record.seq));
    }

    fn maintain(&mut self, seconds: u64) {
        self.now += seconds;
        self.insist(|queue, stamp| queue.maintain(stamp));
    }

    fn announce(&mut self) {
        self.insist(|queue, _| {
            let told = queue.unannounced_gaps();
            queue.gaps_announced(&told)
        });
    }

    /// Removes the database of the generation after the head's, and opens the queue again.
    fn damage(&mut self) {
        drop(self.queue.take());
        let pending = generations(&self.dir, "pending");
        let number = |at: usize| -> u64 {
            let name = pending[at].file_name().unwrap().to_str().unwrap();
            name.split_once('-').unwrap().0.parse().unwrap()
        };
        // What failed appends left behind may lie between; more than this is in no generation.
        let last = if self.tries > 1 { number(1) + 29 } else { number(2) - 1 };
        say(&format!("damaging {} {last}", number(1)));
        if let Err(error) = std::fs::remove_file(pending[1].join("db")) {
            assert!(self.tries > 1, "{error:?}");
        }
        self.open();
    }

    fn at_random(&mut self) {
        let mut random = Random(self.run);
        self.open();
        let mut outage = 0;
        loop {
            self.append(random.below(13));
            if random.below(30) == 0 {
                outage = 20;
            }
            outage -= i32::from(outage > 0);
            let records = 1 + random.below(20) as usize;
            match random.below(10) {
                0 => self.reject(random.below(20) as usize),
                1..8 if outage == 0 => self.deliver(Limits { records, bytes: 100_000 }),
                _ => drop(self.read(Limits { records, bytes: 20_000 })),
            }
            match random.below(30) {
                0 => self.reopen(true),
                1 => self.reopen(false),
                2 => self.announce(),
                3..13 => self.maintain(random.below(40)),
                _ => {}
            }
        }
    }

    fn script(&mut self) {
        const SOME: Limits = Limits { records: 20, bytes: usize::MAX };
        self.open();
        self.append(1);
        self.append(10);
        // Over the end of a generation, and rolled over by maintenance.
        self.append(25);
        self.maintain(1);
        self.append(20);
        self.deliver(SOME);
        // Ahead of the cursor, then at the head; the second copy goes to a generation that is
        // there.
        self.reject(3);
        self.reject(0);
        self.maintain(1);
        // Drains the first generation, which becomes a sent one.
        self.deliver(SOME);
        self.maintain(1);
        self.append(30);
        self.maintain(120);
        self.append(30);
        self.maintain(1);
        self.damage();
        self.append(3);
        for _ in 0..3 {
            self.deliver(SOME);
        }
        // An outage: the oldest are given up.
        for _ in 0..14 {
            self.append(30);
            self.maintain(1);
        }
        self.announce();
        self.reject(2);
        self.reopen(true);
        self.append(2);
        self.reopen(false);
        // And everything is delivered; what was kept is too old in the end.
        while self.queue.as_ref().unwrap().position().pending > 0 {
            self.deliver(Limits { records: 100, ..SOME });
            self.maintain(1);
        }
        self.append(1);
        self.deliver(SOME);
        self.maintain(120);
        self.append(1);
        while let Err(error) = self.queue.take().unwrap().close() {
            assert!(self.tries > 1, "{error:?}");
            self.open();
        }
        say("finished");
    }
}

/// This binary again, with its test `child` alone, which is to call [`work`].
pub fn command(dir: &Path, run: u64, task: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env("HARBORFORGE_CHILD_DIR", dir)
        .env("HARBORFORGE_CHILD_RUN", run.to_string())
        .env("HARBORFORGE_CHILD_TASK", task)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Starts a child and hands out what it says, line by line.
pub fn start(mut command: Command) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// Runs a child under the layer of `calls.rs` to its end; what it said, and how it ended.
pub fn finish(
    dir: &Path,
    run: u64,
    task: &str,
    control: &Control,
    with_log: bool,
) -> (Vec<Report>, std::process::ExitStatus) {
    let mut command = command(dir, run, task);
    control.apply(&mut command, with_log);
    command.stderr(control.words());
    let (mut child, lines) = start(command);
    let reports = lines.map_while(Result::ok).filter_map(|line| parse(&line)).collect();
    (reports, child.wait().unwrap())
}
