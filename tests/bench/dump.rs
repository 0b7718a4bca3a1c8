//! What looking into a live queue costs: memory of `dump` and of the daemon with a million samples,
//! and how much a dump slows a writer at full speed. A plain program (`cargo bench --bench dump`);
//! it prints figures, and asserts only that the dump is right.
//!
//! The first half is the real program over its socket. The second half is the daemon's own store
//! and its answer to a dump, in this process, since no configuration makes a daemon sample at full
//! speed; the writer's time with and without a dump beside it is taken in turns.

// A bench may say in one word what must hold; clippy only knows that inside `#[test]`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod samples;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harborforge_connector::collector::clock::Clock;
use harborforge_connector::control::protocol::Dump;
use harborforge_connector::control::server::Client;
use harborforge_connector::runtime;
use harborforge_connector::store::{self, Store};
use harborforge_storage::{NewRecord, Options, Queue, Stamp};

use samples::sample;

const MANY: u64 = 1_000_000;
const BESIDE: u64 = 200_000;
const PAYLOAD: usize = 400;
const TURN: Duration = Duration::from_secs(2);
const TURNS: u32 = 8;

fn main() {
    // `cargo test --benches` and `cargo bench -- --test` only want to know that it builds.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    // `-- memory` or `-- writer` for one half of it.
    let only = |half: &str| std::env::args().any(|argument| argument == half);
    if !only("writer") {
        memory();
    }
    if !only("memory") {
        beside_a_writer();
    }
}

fn memory() {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir.path().join("data"), MANY);
    let config = configure(dir.path());
    let program = env!("CARGO_BIN_EXE_harborforge-connector");
    let command = |word: &str| {
        let mut command = Command::new(program);
        command.arg("--config").arg(&config).arg(word).stdin(Stdio::null());
        command
    };
    let mut daemon = command("run").spawn().unwrap();
    let socket = dir.path().join("control.sock");
    while !socket.exists() {
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(TURN);
    println!("1,000,000 samples of 400 bytes, daemon running{:>20} {:>8}", "RSS MiB", "peak MiB");
    told("daemon before", daemon.id());
    let began = Instant::now();
    let mut dump = command("dump").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(dump.stdout.take().unwrap());
    let (mut line, mut seen) = (Vec::new(), 0u64);
    while lines.read_until(b'\n', &mut line).unwrap() > 0 {
        seen += 1;
        assert!(line.starts_with(format!("{{\"seq\":{seen},").as_bytes()), "number {seen}");
        line.clear();
        if seen == MANY / 2 {
            told("daemon, half of it dumped", daemon.id());
            told("dump, half of it", dump.id());
        }
        if seen == MANY {
            told("daemon, all dumped", daemon.id());
            told("dump, all", dump.id());
        }
    }
    assert!(dump.wait().unwrap().success() && seen >= MANY);
    println!("dumped as JSON lines: {:.0} samples/s", seen as f64 / began.elapsed().as_secs_f64());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

fn told(what: &str, pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let figure = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    };
    println!("{what:<46}{:>20.1} {:>8.1}", figure("VmRSS"), figure("VmHWM"));
}

fn configure(dir: &Path) -> std::path::PathBuf {
    let config = dir.join("config.toml");
    // Nobody listens there: everything waits.
    let text = format!(
        "backend_url = \"http://127.0.0.1:9/\"\nidentifier = \"bench\"\n\
         challenge_uuid = \"8f14e45f-ceea-467f-9575-1d2f3a4b5c6d\"\nreport_interval = \"1s\"\n\
         queue_max_bytes = \"2GiB\"\nlog_level = \"error\"\ndata_dir = {:?}\n\
         control_socket = {:?}\n",
        dir.join("data"),
        dir.join("control.sock"),
    );
    fs::write(&config, text).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    config
}

fn fill(data_dir: &Path, count: u64) {
    fs::create_dir_all(data_dir).unwrap();
    let stamp = Stamp { wall_ms: 1_773_262_800_000, boot_ms: 1, boot_id: [1; 16] };
    let options = Options { queue_max_bytes: 2 << 30, ..Options::default() };
    let (mut queue, _) = Queue::open(data_dir, options, stamp).unwrap();
    for batch in 0..count / 500 {
        let payloads: Vec<_> = (0..500).map(|n| sample(batch * 500 + n, PAYLOAD)).collect();
        let records: Vec<_> = payloads.iter().map(|payload| NewRecord { stamp, payload }).collect();
        queue.append(&records).unwrap();
        queue.maintain(stamp).unwrap();
    }
    queue.close().unwrap();
}

fn beside_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), BESIDE);
    let options = Options { queue_max_bytes: 2 << 30, ..Options::default() };
    let (store, thread) = store::start(dir.path().to_owned(), options, Clock::new()).unwrap();
    let (mut alone, mut beside) = ((0u64, Duration::ZERO), (0u64, Duration::ZERO));
    let mut shown = 0;
    for _ in 0..TURNS {
        let (count, took) = write(&store);
        alone = (alone.0 + count, alone.1 + took);
        // Read as fast as it comes, for as long as the turn lasts.
        let (ours, theirs) = UnixStream::pair().unwrap();
        let answering = {
            let store = store.clone();
            runtime::spawn(async move {
                let everything = Dump {
                    pending: true,
                    sent: true,
                    rejected: true,
                    from: 1,
                    to: u64::MAX,
                    follow: false,
                    tail: None,
                };
                let mut client = Client::new(runtime::UnixStream::from(theirs));
                // The reader leaves when its turn is over.
                let _ =
                    harborforge_connector::control::dump::answer(&mut client, &everything, &store)
                        .await;
            })
        };
        let stop = ours.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let mut seen = 0u64;
            for line in BufReader::new(ours).lines().map_while(Result::ok) {
                if line.starts_with("{\"item\":{\"sample\"") {
                    seen += 1;
                    assert!(line.contains(&format!("\"seq\":{seen},")), "number {seen}: {line}");
                }
            }
            seen
        });
        let (count, took) = write(&store);
        beside = (beside.0 + count, beside.1 + took);
        stop.shutdown(std::net::Shutdown::Both).unwrap();
        shown += reader.join().unwrap();
        runtime::block_on(answering);
    }
    store.stop();
    drop(thread.join());
    let rate = |(count, took): (u64, Duration)| count as f64 / took.as_secs_f64();
    println!();
    println!("a writer at full speed, one durable sample after the other");
    println!("alone                      {:>8.0} samples/s", rate(alone));
    println!(
        "beside a dump              {:>8.0} samples/s, {:.1} % slower",
        rate(beside),
        (1.0 - rate(beside) / rate(alone)) * 100.0
    );
    let seconds = beside.1.as_secs_f64();
    println!(
        "the dump beside it         {:>8.0} samples/s",
        f64::from(u32::try_from(shown).unwrap()) / seconds
    );
}

/// Appends one sample after the other for a turn.
fn write(store: &Store) -> (u64, Duration) {
    let clock = Clock::new();
    let payload = sample(1, PAYLOAD);
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < TURN {
        store.submit(clock.stamp(), payload.clone());
        while store.view().in_memory > 0 {
            // Not in a loop that takes a processor from the others.
            runtime::block_on(store.changed());
        }
        count += 1;
    }
    (count, began.elapsed())
}
