//! `sample` against the kernel's own figures, read here independently: the figures of a sample
//! must lie between what is read just before and just after it.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use harborforge_connector::cli::sample::{TakeError, take_and_print};
use harborforge_connector::collector::{OpenClawView, Settings, SystemCollector};
use harborforge_connector::sample::Sample;
use serde_json::Value;

/// Half of a percentage's last decimal, and what f32 arithmetic may add.
const ROUNDING: f64 = 0.051;

fn take(collector: &mut SystemCollector) -> Sample {
    collector.collect(SystemTime::now(), OpenClawView::default())
}

/// The ticks of all cores since boot: all, and those not idle.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    all: f64,
    busy: f64,
}

fn ticks() -> Ticks {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .unwrap()
        .split_ascii_whitespace()
        .skip(1)
        .take(8)
        .map(|field| field.parse().unwrap())
        .collect();
    let all: f64 = fields.iter().sum();
    // Idle and waiting for a disk.
    Ticks { all, busy: all - fields[3] - fields[4] }
}

#[test]
fn cpu_is_the_busy_share_of_the_interval_under_load() {
    let before_baseline = ticks();
    let mut collector = SystemCollector::new(Settings::default());
    let after_baseline = ticks();

    // Load until the kernel has counted a second of it: 100 ticks, whoever else adds to them.
    let enough = AtomicBool::new(false);
    let cores = std::thread::available_parallelism().unwrap().get();
    std::thread::scope(|scope| {
        for _ in 0..cores.div_ceil(2) {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        while ticks().busy - after_baseline.busy < 100.0 {
            std::thread::yield_now();
        }
        enough.store(true, Ordering::Relaxed);
    });

    let before = ticks();
    let cpu = take(&mut collector).cpu_pct.unwrap();
    let after = ticks();

    // The collector's readings lie within these, however slow the machine is. The kernel's idle
    // counters may go back by a tick when they are read from another core: one point of slack.
    let least = (before.busy - after_baseline.busy) / (after.all - before_baseline.all) * 100.0;
    let most = (after.busy - before_baseline.busy) / (before.all - after_baseline.all) * 100.0;
    assert!(
        (least - 1.0 - ROUNDING..=most + 1.0 + ROUNDING).contains(&cpu),
        "{cpu} is not between {least} and {most}"
    );
    assert!(cpu > 0.0);
}

#[test]
fn the_first_sample_waits_for_an_interval_and_no_other_does() {
    let mut collector = SystemCollector::new(Settings::default());
    assert!(collector.warm_up() <= Duration::from_millis(200));
    assert!(take(&mut collector).cpu_pct.is_some());
    assert!(collector.warm_up().is_zero());
}

fn meminfo(key: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

fn memory_used() -> f64 {
    let total = meminfo("MemTotal:");
    (total - meminfo("MemAvailable:")) / total * 100.0
}

fn swap_used() -> f64 {
    let total = meminfo("SwapTotal:");
    if total == 0.0 { 0.0 } else { (total - meminfo("SwapFree:")) / total * 100.0 }
}

/// Asserts that `figure` lies between two readings, give or take `slack`.
fn assert_between(figure: f64, before: f64, after: f64, slack: f64, what: &str) {
    assert!(
        figure >= before.min(after) - slack && figure <= before.max(after) + slack,
        "{what}: {figure} is not between {before} and {after}"
    );
}

#[test]
fn memory_and_swap_are_what_proc_says() {
    let mut collector = SystemCollector::new(Settings::default());
    let (memory_before, swap_before) = (memory_used(), swap_used());
    let sample = take(&mut collector);
    let (memory_after, swap_after) = (memory_used(), swap_used());
    assert_between(sample.mem_pct.unwrap(), memory_before, memory_after, 1.0, "memory");
    assert_between(sample.swap_pct.unwrap(), swap_before, swap_after, 1.0, "swap");
}

fn uptime() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap();
    text.split('.').next().unwrap().parse().unwrap()
}

fn load() -> Vec<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap();
    text.split(' ').take(3).map(|field| field.parse().unwrap()).collect()
}

#[test]
fn uptime_and_load_are_what_proc_says() {
    let mut collector = SystemCollector::new(Settings::default());
    let (uptime_before, load_before) = (uptime(), load());
    let sample = take(&mut collector);
    let (load_after, uptime_after) = (load(), uptime());
    assert!((uptime_before..=uptime_after).contains(&sample.uptime_seconds.unwrap()));
    // The kernel computes them anew every 5 s; more than once in between on a slow machine.
    for (n, figure) in sample.load_avg.unwrap().into_iter().enumerate() {
        assert_between(figure, load_before[n], load_after[n], 0.05, "load");
    }
}

/// `df`'s figure, computed from its columns since it rounds its percentage up.
fn df(path: &Path) -> Option<f64> {
    let output = Command::new("df")
        .args(["--block-size=1", "--output=used,avail"])
        .arg(path)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).unwrap();
    let mut columns = text.lines().nth(1)?.split_ascii_whitespace();
    let used: f64 = columns.next()?.parse().unwrap();
    let available: f64 = columns.next()?.parse().unwrap();
    Some(used / (used + available) * 100.0)
}

#[test]
fn disk_is_what_df_says() {
    let own = tempfile::tempdir().unwrap();
    for path in [Path::new("/"), own.path(), Path::new("/dev/shm")] {
        let mut collector =
            SystemCollector::new(Settings { disk_path: path.to_owned(), ..Settings::default() });
        let Some(before) = df(path) else {
            eprintln!("SKIPPED: no df with --output, or nothing mounted at {}", path.display());
            continue;
        };
        let figure = take(&mut collector).disk_pct.unwrap();
        let after = df(path).unwrap();
        assert_between(figure, before, after, 0.5, "disk");
    }
}

/// What `free` says of memory and swap, in percent; it counts what is not available as used.
fn free() -> Option<[f64; 2]> {
    let output = Command::new("free").arg("--bytes").env("LC_ALL", "C").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let column = |row: &str, n: usize| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(row))?;
        line.split_ascii_whitespace().nth(n)?.parse().ok()
    };
    let (total, available) = (column("Mem:", 0)?, column("Mem:", 5)?);
    let (swap, used) = (column("Swap:", 0)?, column("Swap:", 1)?);
    let swapped = if swap == 0.0 { 0.0 } else { used / swap * 100.0 };
    Some([(total - available) / total * 100.0, swapped])
}

/// Under a load of the test's own. Others load the machine as well, so that a reading may be old
/// before the next is made: one try of several has to agree in everything.
#[test]
fn under_a_known_load_the_figures_are_those_of_free_and_df() {
    const TRIES: usize = 25;
    const SLACK: f64 = 1.0;
    let dir = tempfile::tempdir().unwrap();
    let figures = || {
        let [memory, swap] = free()?;
        Some([memory, swap, df(dir.path())?])
    };
    if figures().is_none() {
        eprintln!("SKIPPED: there is no `free` or `df` that tells what is to be compared");
        return;
    }
    let memory = std::hint::black_box(vec![1_u8; 128 << 20]);
    std::fs::write(dir.path().join("load"), &memory[..32 << 20]).unwrap();
    let disk_path = dir.path().to_owned();
    let mut collector = SystemCollector::new(Settings { disk_path, ..Settings::default() });
    let mut seen = Vec::new();
    let agrees = (0..TRIES).any(|_| {
        let before = figures().unwrap();
        let sample = take(&mut collector);
        let after = figures().unwrap();
        let ours = [sample.mem_pct, sample.swap_pct, sample.disk_pct].map(Option::unwrap);
        seen.push((before, ours, after));
        ours.iter().zip(before.iter().zip(after)).all(|(figure, (before, after))| {
            (figure - before).abs() <= SLACK && (figure - after).abs() <= SLACK
        })
    });
    assert!(agrees, "memory, swap and disk before, in the sample, and after: {seen:?}");
    drop(memory);
}

#[test]
fn a_disk_path_that_is_not_there_is_null_and_the_rest_is_there() {
    let disk_path = tempfile::tempdir().unwrap().path().join("gone");
    let sample = take(&mut SystemCollector::new(Settings { disk_path, ..Settings::default() }));
    assert_eq!(sample.disk_pct, None);
    assert!(sample.mem_pct.is_some() && sample.cpu_pct.is_some());
}

/// Takes samples in a mount namespace in which `file` of /proc is hidden behind `cover`: one of a
/// collector that had read it before, one of a collector that never did. `None` where namespaces
/// cannot be made.
fn with_hidden(file: &str, cover: &Path) -> Option<[Value; 2]> {
    let unshare = |program: &Path, arguments: &[&str]| {
        Command::new("unshare")
            .args(["--map-root-user", "--mount"])
            .arg(program)
            .args(arguments)
            .env("HIDE_FILE", file)
            .env("HIDE_COVER", cover)
            .output()
            .ok()
    };
    let may_mount = unshare(Path::new("mount"), &["--bind", cover.to_str().unwrap(), file])?;
    if !may_mount.status.success() {
        return None;
    }
    let this = std::env::current_exe().unwrap();
    let output = unshare(&this, &["--ignored", "--exact", "--nocapture", "child"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let samples = text.lines().filter_map(|line| line.split_once("SAMPLE "));
    let samples: Vec<Value> =
        samples.map(|(_, json)| serde_json::from_str(json).unwrap()).collect();
    Some(samples.try_into().unwrap_or_else(|_| panic!("{output:?}")))
}

/// Prints the samples for [`with_hidden`]; without it there is nothing to hide and to print.
#[test]
#[ignore = "run by hidden_files_of_proc_are_null in a mount namespace of its own"]
fn child() {
    let (Some(file), Some(cover)) = (std::env::var_os("HIDE_FILE"), std::env::var_os("HIDE_COVER"))
    else {
        return;
    };
    let mut collector = SystemCollector::new(Settings::default());
    take(&mut collector);
    let mount = Command::new("mount").arg("--bind").args([cover, file]).status().unwrap();
    assert!(mount.success());
    // Within 200 ms the CPU figure before is repeated, rightly.
    std::thread::sleep(Duration::from_millis(200));
    let mut out = b"\nSAMPLE ".to_vec();
    serde_json::to_writer(&mut out, &take(&mut collector)).unwrap();
    out.extend(b"\nSAMPLE ");
    take_and_print("child", Settings::default(), OpenClawView::default(), false, &mut out).unwrap();
    std::io::stdout().write_all(&out).unwrap();
}

#[test]
fn hidden_files_of_proc_are_null() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage");
    std::fs::write(&garbage, "garbage\n").unwrap();
    // What a sandbox that does not count shows.
    let zeros = dir.path().join("zeros");
    std::fs::write(&zeros, "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n").unwrap();
    let all = ["cpu_pct", "mem_pct", "disk_pct", "swap_pct", "uptime_seconds", "load_avg"];
    let cases: [(&str, &Path, &[&str]); 6] = [
        ("/proc/stat", Path::new("/dev/null"), &["cpu_pct"]),
        ("/proc/stat", &zeros, &["cpu_pct"]),
        ("/proc/stat", &garbage, &["cpu_pct"]),
        ("/proc/meminfo", Path::new("/dev/null"), &["mem_pct", "swap_pct"]),
        ("/proc/loadavg", Path::new("/dev/null"), &["load_avg"]),
        ("/proc/loadavg", &garbage, &["load_avg"]),
    ];
    for (file, cover, missing) in cases {
        let Some(samples) = with_hidden(file, cover) else {
            eprintln!("SKIPPED: no mount namespace could be made to hide {file} in");
            return;
        };
        for (sample, figure) in samples.iter().flat_map(|sample| all.map(|name| (sample, name))) {
            let is_null = sample[figure].is_null();
            assert_eq!(is_null, missing.contains(&figure), "{file} hidden: {figure} in {sample}");
        }
    }
}

#[test]
fn sample_prints_one_telemetry_object_on_one_line_or_for_people() {
    for pretty in [false, true] {
        let mut out = Vec::new();
        take_and_print(
            "vps \"t1\"",
            Settings::default(),
            OpenClawView::default(),
            pretty,
            &mut out,
        )
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("}\n"));
        assert_eq!(text.lines().count() == 1, !pretty);
        // Who it is comes first.
        assert!(text.trim_start_matches(['{', '\n', ' ']).starts_with("\"identifier\""));
        let object: Value = serde_json::from_str(&text).unwrap();
        let mut keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        // Nothing that only the queue knows, nothing empty that is optional.
        assert_eq!(
            keys,
            [
                "agents",
                "connector_version",
                "cpu_pct",
                "disk_pct",
                "identifier",
                "last_seen_at",
                "load_avg",
                "mem_pct",
                "openclaw_version",
                "swap_pct",
                "uptime_seconds",
            ]
        );
        assert_eq!(object["identifier"], "vps \"t1\"");
        for figure in ["cpu_pct", "mem_pct", "disk_pct", "swap_pct"] {
            let percent = object[figure].as_f64().unwrap();
            assert!((0.0..=100.0).contains(&percent), "{figure}: {percent}");
            assert_eq!((percent * 10.0).round() / 10.0, percent, "{figure} has one decimal");
        }
        let taken = humantime::parse_rfc3339(object["last_seen_at"].as_str().unwrap()).unwrap();
        assert!(taken.elapsed().is_ok());
    }
}

#[test]
fn a_reader_that_went_away_is_told_apart() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error =
        take_and_print("t", Settings::default(), OpenClawView::default(), false, &mut Closed)
            .unwrap_err();
    let TakeError::Write(cause) = error else { panic!("{error:?}") };
    assert_eq!(cause.kind(), std::io::ErrorKind::BrokenPipe);
}
