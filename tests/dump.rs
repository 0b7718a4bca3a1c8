//! `dump` of a queue at rest: the real program over real files.

// A test may say in one word what must hold; clippy only knows that inside `#[test]`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/alone.rs"]
mod alone;
#[path = "support/at_rest.rs"]
mod at_rest;
#[path = "support/terminal.rs"]
mod terminal;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant, UNIX_EPOCH};

use harborforge_connector::collector::{OpenClawView, Settings, SystemCollector};
use harborforge_connector::sample::{Agent, AgentStatus};
use harborforge_storage::{Confirmation, NewRecord, Options, Queue};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use alone::{alone, output, spawn};
use at_rest::{START, stamp};

fn payload(seq: u64) -> Vec<u8> {
    format!(
        r#"{{"openclaw_version":null,"cpu_pct":{}.5,"mem_pct":41.2,"disk_pct":62.0,"swap_pct":0.0,"uptime_seconds":12345,"load_avg":[0.1,0.1,0.1],"agents":[],"last_seen_at":"2026-03-11T21:00:00Z","connector_version":"0.1.0"}}"#,
        seq % 100
    )
    .into_bytes()
}

/// A queue of 600 samples: 1 to 100 sent, 101 and 103 rejected, the rest pending.
fn filled(dir: &Path) {
    let _alone = alone();
    let (mut queue, _) = Queue::open(dir, Options::default(), stamp(0)).unwrap();
    let samples: Vec<_> = (1..=600).map(|seq| (stamp(seq), payload(seq))).collect();
    for portion in samples.chunks(50) {
        let records = portion.iter().map(|(stamp, payload)| NewRecord { stamp: *stamp, payload });
        queue.append(&records.collect::<Vec<_>>()).unwrap();
    }
    queue.acknowledge(100, Confirmation { wall_ms: START, tag: 2 }).unwrap();
    queue.reject(101, "HTTP 422: odd", stamp(601)).unwrap();
    queue.reject(103, "HTTP 422: odder", stamp(601)).unwrap();
    queue.close().unwrap();
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { dir: at_rest::place() };
        filled(&bench.data_dir());
        bench
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, args: &[&str]) -> Command {
        self.program(&[&["dump"], args].concat())
    }

    fn program(&self, args: &[&str]) -> Command {
        at_rest::program(self.dir.path(), args)
    }

    /// Private copies there are.
    fn copies(&self) -> Vec<PathBuf> {
        let beside = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        beside.filter(|path| path.display().to_string().contains("harborforge-queue-")).collect()
    }

    fn dump(&self, args: &[&str]) -> Output {
        output(&mut self.command(args))
    }

    fn lines(&self, args: &[&str]) -> Vec<Value> {
        let output = self.dump(args);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn numbers(&self, args: &[&str]) -> Vec<u64> {
        self.lines(args).iter().map(|line| line["seq"].as_u64().unwrap()).collect()
    }
}

#[test]
fn states_numbers_times_and_counts_are_picked() {
    let bench = Bench::new();
    let pending: Vec<u64> = (102..=600).filter(|seq| *seq != 103).collect();
    assert_eq!(bench.numbers(&[]), pending);
    assert_eq!(bench.numbers(&["--state", "sent"]), (1..=100).collect::<Vec<_>>());
    assert_eq!(bench.numbers(&["--state", "rejected"]), [101, 103]);
    assert_eq!(bench.numbers(&["--state", "all"]), (1..=600).collect::<Vec<_>>());
    assert_eq!(bench.numbers(&["--seq", "102..105"]), [102, 104, 105]);
    assert_eq!(bench.numbers(&["--limit", "2"]), [102, 104]);
    assert_eq!(bench.numbers(&["--tail", "2"]), [599, 600]);
    assert_eq!(
        bench.numbers(&["--since", "2026-03-12T01:59:30Z", "--until", "2026-03-12T02:00:00Z"]),
        [599, 600]
    );
    assert_eq!(bench.numbers(&["--since", "1s"]), [0; 0]);
}

#[test]
fn a_line_has_what_scripts_depend_on() {
    let bench = Bench::new();
    let line = &bench.lines(&["--seq", "200"])[0];
    assert_eq!(line["state"], "pending");
    assert_eq!(line["sampled_at"], "2026-03-11T22:40:00Z");
    assert_eq!(line["size"], payload(200).len());
    assert_eq!((&line["attempts"], &line["last_error"]), (&Value::from(0), &Value::Null));
    assert_eq!(line["payload"]["identifier"], "vps.t1");
    assert_eq!(line["payload"]["seq"], 200);
    let id = line["payload"]["sample_id"].as_str().unwrap();
    assert!(id.len() == 40 && id.ends_with("-200"), "{id}");
    let rejected = &bench.lines(&["--state", "rejected"])[1];
    assert_eq!(rejected["last_error"], "HTTP 422: odder");
}

#[test]
fn every_format_says_the_same_samples() {
    let bench = Bench::new();
    let text = |format| {
        let output = bench.dump(&["--format", format, "--seq", "200..209"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let raw: Vec<u8> =
        (200..=209).flat_map(|seq| [payload(seq), b"\n".to_vec()].concat()).collect();
    assert_eq!(text("raw").as_bytes(), raw);
    assert_eq!(text("table").lines().count(), 11);
    let csv = text("csv");
    assert_eq!(csv.lines().count(), 11);
    assert!(csv.starts_with("seq,state,sampled_at,size,"), "{csv}");
    let summary = bench.dump(&["--summary", "--state", "all"]);
    let summary: Value = serde_json::from_slice(&summary.stdout).unwrap();
    let counts: Vec<_> = summary["sets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|set| (set["state"].as_str().unwrap(), set["samples"].as_u64().unwrap()))
        .collect();
    assert_eq!(counts, [("pending", 498), ("sent", 100), ("rejected", 2)]);
}

/// Every file below, with what would show a change.
fn files(dir: &Path, found: &mut Vec<(PathBuf, Vec<u8>, i64)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::metadata(&path).unwrap();
        if metadata.is_dir() {
            files(&path, found);
        } else {
            let content = fs::read(&path).unwrap();
            found.push((path, content, metadata.mtime_nsec()));
        }
    }
    found.sort();
}

#[test]
fn nothing_is_changed_and_nothing_left_behind() {
    let bench = Bench::new();
    let (mut before, mut after) = (Vec::new(), Vec::new());
    files(&bench.data_dir(), &mut before);
    assert!(bench.dump(&["--state", "all"]).status.success());
    files(&bench.data_dir(), &mut after);
    assert!(before.len() > 5 && before == after, "a reader changed the queue");
    at_rest::nothing_is_left_behind(bench.dir.path());
}

#[test]
fn a_queue_that_is_in_use_names_its_holder() {
    let bench = Bench::new();
    let guard = alone();
    let (queue, _) = Queue::open(&bench.data_dir(), Options::default(), stamp(700)).unwrap();
    let output = bench.command(&[]).spawn().unwrap().wait_with_output().unwrap();
    queue.close().unwrap();
    drop(guard);
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn no_queue_is_no_empty_queue() {
    let bench = Bench::new();
    let output = output(bench.command(&[]).env("HARBORFORGE_DATA_DIR", "/nonexistent/harborforge"));
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("/nonexistent/harborforge"), "{said}");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let bench = Bench::new();
    let mut child = spawn(&mut bench.command(&["--state", "all"]));
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

/// Reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again, and gives up on a process that never gets there.
fn until<T>(child: &mut Child, mut look: impl FnMut(&mut Child) -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look(child) {
            return found;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("nothing has come of it");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signalled(child: &mut Child, signal: Signal) -> Option<i32> {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
    until(child, |child| child.try_wait().unwrap()).code()
}

#[test]
fn a_signal_ends_a_dump_that_nobody_reads() {
    let bench = Bench::new();
    // Under nohup it is ignored, here as in the program.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1;
    let hang_up = (!ignored).then_some(Signal::HUP);
    for signal in [Signal::INT, Signal::TERM].into_iter().chain(hang_up) {
        let mut child = spawn(&mut bench.command(&["--state", "all"]));
        // It has begun, and more comes than a pipe holds.
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        assert_eq!(bench.copies().len(), 1, "it reads a copy");
        assert_eq!(signalled(&mut child, signal), Some(130), "{signal:?}");
        assert!(bench.copies().is_empty(), "{signal:?}");
        drop(stdout);
    }
}

/// Whatever reads the files leaves no copy of the telemetry behind, wherever it is interrupted.
#[test]
fn no_reader_leaves_a_copy_when_it_is_interrupted() {
    let bench = Bench::new();
    // Copying waits for ever in the middle of each part of the queue.
    for entry in fs::read_dir(bench.data_dir().join("queue")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path.join("fifo"), fifo, mode, 0).unwrap();
        }
    }
    for args in [&["dump"][..], &["verify"], &["status"], &["replay", "--dry-run"]] {
        let mut child = spawn(&mut bench.program(args));
        until(&mut child, |child| {
            assert!(child.try_wait().unwrap().is_none(), "{args:?} copies nothing");
            bench.copies().iter().find(|copy| fs::read_dir(copy).unwrap().count() > 0).cloned()
        });
        assert_eq!(signalled(&mut child, Signal::INT), Some(130), "{args:?}");
        assert!(bench.copies().is_empty(), "{args:?}");
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{args:?}");
    }
}

/// As `dump` tells it.
#[test]
fn a_dry_run_tells_what_it_cannot_read() {
    let bench = Bench::new();
    fs::write(bench.data_dir().join("queue/manifest"), "damaged").unwrap();
    let output = output(&mut bench.program(&["replay", "--dry-run"]));
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("manifest: it cannot be read and will be rebuilt"), "{said}");
}

/// Where the engine's log has the stored form of a waiting sample, which begins with version, kind,
/// codec, 0, its length in four bytes and its number in eight.
fn records_of(seq: u64, log: &[u8]) -> Vec<usize> {
    let begins =
        |part: &[u8]| part[..2] == [1, 1] && part[3] == 0 && part[8..] == seq.to_le_bytes();
    log.windows(16).enumerate().filter(|(_, part)| begins(part)).map(|(at, _)| at).collect()
}

#[test]
fn real_samples_are_stored_packed_and_shown_as_they_were_taken() {
    let place = at_rest::place();
    let data = place.path().join("data");
    let mut collector = SystemCollector::new(Settings::default());
    let mut samples = Vec::new();
    for agents in 0..5 {
        let now = UNIX_EPOCH + Duration::from_millis(START + agents * 30_000);
        let mut sample = collector.collect(now, OpenClawView::default());
        sample.openclaw_version = (agents > 0).then(|| "2026.3.13".to_owned());
        let agent = |at: u64| Agent {
            id: format!("agent-{at}"),
            name: format!("Büro {at}"),
            status: if at == 1 { AgentStatus::Running } else { AgentStatus::Idle },
        };
        sample.agents = (0..agents).map(agent).collect();
        samples.push(sample.encode().unwrap());
    }
    {
        let _alone = alone();
        let (mut queue, _) = Queue::open(&data, Options::default(), stamp(0)).unwrap();
        for payload in &samples {
            queue.append(&[NewRecord { stamp: stamp(1), payload }]).unwrap();
        }
        queue.close().unwrap();
    }
    let mut all = Vec::new();
    files(&data, &mut all);
    for (number, sample) in (1..).zip(&samples) {
        let stored = all.iter().flat_map(|(_, content, _)| {
            records_of(number, content).into_iter().map(|at| content[at..].to_vec())
        });
        let stored: Vec<_> = stored.collect();
        assert!(!stored.is_empty(), "sample {number} was not found in the files");
        for record in stored {
            let length = u32::from_le_bytes(record[4..8].try_into().unwrap()) as usize;
            assert_eq!(record[2], 1, "sample {number} is not packed");
            assert!(length * 2 < sample.len(), "sample {number}: {length} of {}", sample.len());
        }
    }
    let output = output(&mut at_rest::program(place.path(), &["dump", "--format", "raw"]));
    assert!(output.status.success(), "{output:?}");
    let mut expected = samples.join(&b'\n');
    expected.push(b'\n');
    assert_eq!(output.stdout, expected);
}

#[test]
fn a_damaged_sample_is_told_and_the_others_shown() {
    let bench = Bench::new();
    let mut damaged = 0;
    let mut all = Vec::new();
    files(&bench.data_dir(), &mut all);
    for (path, mut content, _) in all {
        for at in records_of(311, &content) {
            // In what follows the header.
            content[at + 80] ^= 1;
            damaged += 1;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            fs::write(&path, &content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    assert!(damaged > 0, "the sample was not found in the files");
    let output = bench.dump(&["--format", "raw", "--state", "all"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.is_empty(), "damage must be told");
    let shown = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    assert!(shown < 600, "a damaged sample was shown as good");
}

/// The screens in docs/OPERATIONS.md are what the program prints.
#[test]
fn the_screen_in_the_handbook_is_a_real_one() {
    let bench = Bench::new();
    let args = ["--state", "all", "--seq", "99..104", "--format", "table"];
    let shown = String::from_utf8(bench.dump(&args).stdout).unwrap();
    let doc = include_str!("../docs/OPERATIONS.md");
    let line = "    $ harborforge-connector dump --state all --seq 99..104 --format table\n";
    let after = doc.split(line).nth(1).expect("the example");
    let told: Vec<_> =
        after.lines().map_while(|line| line.strip_prefix("    ")).map(str::to_owned).collect();
    assert_eq!(shown.lines().collect::<Vec<_>>(), told, "docs/OPERATIONS.md should show:\n{shown}");

    let program = env!("CARGO_BIN_EXE_harborforge-connector");
    let config = bench.dir.path().join("config.toml");
    let data = bench.data_dir();
    let line = format!(
        "{program} --config {} --set data_dir={} dump --summary --state all",
        config.display(),
        data.display()
    );
    let Some((code, shown)) = terminal::on_terminal_with(&line, 80, "", &[("NO_COLOR", "1")])
    else {
        return;
    };
    assert_eq!(code, 0, "{shown}");
    let (_, told) =
        doc.split_once("```text\n$ harborforge-connector dump --summary --state all\n").unwrap();
    let (told, _) = told.split_once("```").unwrap();
    assert_eq!(shown, told, "docs/OPERATIONS.md should show:\n{shown}");
}
