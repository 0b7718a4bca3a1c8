//! `scope = "cgroup"` in real control groups, held against their files, read here independently.
//!
//! A group is made only where the test's own group is the root of what it sees: elsewhere it is
//! somebody else's to divide, and a process taken out of it would escape its limits. What cannot be
//! had here says so.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test that is left out says so")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

use harborforge_connector::collector::{OpenClawView, Settings, SystemCollector};
use harborforge_connector::sample::Sample;

const MOUNT: &str = "/sys/fs/cgroup";

fn collector() -> SystemCollector {
    SystemCollector::new(Settings { own_cgroup: true, ..Settings::default() })
}

fn take(collector: &mut SystemCollector) -> Sample {
    collector.collect(SystemTime::now(), OpenClawView::default())
}

/// The own group's path for a controller of version 1, or of version 2 for an empty name.
fn own(controller: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        names.split(',').any(|name| name == controller).then(|| path.to_owned())
    })
}

fn number(path: &Path) -> Option<f64> {
    fs::read_to_string(path).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

fn field(path: &Path, name: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.split(' ').next() == Some(name))?;
    line.split(' ').nth(1)?.parse().ok()
}

/// A group of the test's own, in one hierarchy or several; gone when dropped.
struct Group {
    directories: Vec<PathBuf>,
}

impl Group {
    /// One for these controllers: those of version 1, each in its hierarchy, or those of version 2.
    fn make(one: &[&str], two: &[&str]) -> Option<Self> {
        let name = format!("harborforge-test-{}-{}", std::process::id(), two.join("-"));
        let hierarchies: Vec<PathBuf> = if one.iter().all(|name| own(name).is_some()) {
            let alone = one.iter().all(|name| own(name).as_deref() == Some("/"));
            one.iter().filter(|_| alone).map(|name| Path::new(MOUNT).join(name)).collect()
        } else {
            let enabled = fs::read_to_string(Path::new(MOUNT).join("cgroup.subtree_control"));
            let enabled = enabled.unwrap_or_default();
            let has = |name: &&str| enabled.split_ascii_whitespace().any(|it| it == *name);
            let ours = own("").as_deref() == Some("/") && two.iter().all(has);
            ours.then(|| PathBuf::from(MOUNT)).into_iter().collect()
        };
        if hierarchies.is_empty() {
            return None;
        }
        let mut group = Self { directories: Vec::new() };
        for hierarchy in hierarchies {
            let directory = hierarchy.join(&name);
            // `cpu` and `cpuacct` may be two names of one hierarchy.
            if !directory.exists() {
                fs::create_dir(&directory).ok()?;
                group.directories.push(directory);
            }
        }
        Some(group)
    }

    /// Sets a limit in whichever directory has the file.
    fn limit(&self, file: &str, text: &str) {
        for path in self.directories.iter().map(|directory| directory.join(file)) {
            if path.exists() {
                fs::write(path, text).unwrap();
            }
        }
    }

    /// Runs a test of this file in the group, to its good end.
    fn run(&self, test: &str) {
        let paths: Vec<&str> = self.directories.iter().map(|it| it.to_str().unwrap()).collect();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", test])
            .env("JOIN", paths.join(":"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("COMPARED"), "{output:?}");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for directory in &self.directories {
            // What is left behind holds no process and costs nothing.
            let _ = fs::remove_dir(directory);
        }
    }
}

/// In the child: moves this process into the groups. `None`: it was not started by the test.
fn join() -> Option<Vec<PathBuf>> {
    let directories = std::env::var("JOIN").ok()?;
    let directories: Vec<PathBuf> = directories.split(':').map(PathBuf::from).collect();
    for directory in &directories {
        fs::write(directory.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    }
    Some(directories)
}

/// A fifth of a processor.
const QUOTA: f64 = 0.2;

#[test]
fn cpu_is_the_share_of_the_quota() {
    let Some(group) = Group::make(&["cpu", "cpuacct"], &["cpu"]) else {
        eprintln!("SKIPPED: no control group with a CPU quota can be made here");
        return;
    };
    group.limit("cpu.max", "20000 100000");
    group.limit("cpu.cfs_period_us", "100000");
    group.limit("cpu.cfs_quota_us", "20000");
    group.run("under_a_quota");
}

/// Seconds of processor time the group has used.
fn used(directories: &[PathBuf]) -> f64 {
    let one = directories.iter().find_map(|it| number(&it.join("cpuacct.usage")));
    let two = || directories.iter().find_map(|it| field(&it.join("cpu.stat"), "usage_usec"));
    one.map(|nanoseconds| nanoseconds / 1e9).or_else(|| two().map(|count| count / 1e6)).unwrap()
}

#[test]
#[ignore = "run by cpu_is_the_share_of_the_quota in a control group of its own"]
fn under_a_quota() {
    let Some(directories) = join() else { return };
    let (begun, at_first) = (Instant::now(), used(&directories));
    let mut collector = collector();
    let (baseline, after_baseline) = (Instant::now(), used(&directories));
    // Counted in processor time, however long that takes on a busy machine.
    while used(&directories) - after_baseline < 0.1 || baseline.elapsed().as_millis() < 250 {
        std::hint::black_box(0);
    }
    let (before, used_before) = (Instant::now(), used(&directories));
    let figure = take(&mut collector).cpu_pct.unwrap();
    let used_after = used(&directories);
    let (shortest, longest) = (before - baseline, begun.elapsed());
    // The collector's readings lie within these.
    let least = (used_before - after_baseline) / longest.as_secs_f64() / QUOTA * 100.0;
    let most = (used_after - at_first) / shortest.as_secs_f64() / QUOTA * 100.0;
    assert!(
        figure >= least.min(100.0) - 1.0 && figure <= most + 1.0 && figure > 0.0,
        "{figure} is not between {least} and {most}"
    );
    println!("COMPARED {figure} with {least} to {most}");
}

const LIMIT: u64 = 256 << 20;

#[test]
fn memory_is_the_share_of_the_limit() {
    let Some(group) = Group::make(&["memory"], &["memory"]) else {
        eprintln!("SKIPPED: no control group with a memory limit can be made here");
        return;
    };
    group.limit("memory.max", &LIMIT.to_string());
    group.limit("memory.limit_in_bytes", &LIMIT.to_string());
    group.run("under_a_limit");
}

/// Bytes that a group uses and cannot give back.
fn resident(directory: &Path) -> Option<f64> {
    let stat = directory.join("memory.stat");
    match number(&directory.join("memory.usage_in_bytes")) {
        Some(all) => Some(all - field(&stat, "total_inactive_file")?),
        None => Some(number(&directory.join("memory.current"))? - field(&stat, "inactive_file")?),
    }
}

/// Whether one sample of several has the share of `whole` that the group uses, to a point.
fn agrees(directory: &Path, whole: f64) -> bool {
    const TRIES: usize = 50;
    let mut collector = collector();
    (0..TRIES).any(|_| {
        let share = || resident(directory).unwrap() / whole * 100.0;
        let (before, sample, after) = (share(), take(&mut collector), share());
        let figure = sample.mem_pct.unwrap();
        let agrees = (figure - before).abs() <= 1.0 && (figure - after).abs() <= 1.0;
        println!("{} {figure} with {before} to {after}", if agrees { "COMPARED" } else { "not" });
        agrees
    })
}

#[test]
#[ignore = "run by memory_is_the_share_of_the_limit in a control group of its own"]
fn under_a_limit() {
    let Some(directories) = join() else { return };
    let load = std::hint::black_box(vec![1_u8; 64 << 20]);
    assert!(resident(&directories[0]).unwrap() >= load.len() as f64);
    assert!(agrees(&directories[0], LIMIT as f64));
    drop(load);
}

/// Wherever the test runs: its own group as it is, limited or not.
#[test]
fn memory_is_what_the_own_group_uses() {
    let (hierarchy, path) = match (own("memory"), own("")) {
        (Some(path), _) => (Path::new(MOUNT).join("memory"), path),
        (None, Some(path)) => (PathBuf::from(MOUNT), path),
        (None, None) => (PathBuf::new(), String::new()),
    };
    let directory = hierarchy.join(path.trim_start_matches('/'));
    if resident(&directory).is_none() {
        eprintln!("SKIPPED: no own control group that counts memory is mounted at {MOUNT}");
        return;
    }
    let total = field_of_meminfo("MemTotal:") * 1024.0;
    let limit = directory
        .ancestors()
        .take_while(|it| it.starts_with(&hierarchy))
        .flat_map(|it| [it.join("memory.max"), it.join("memory.limit_in_bytes")])
        .filter_map(|path| number(&path))
        .fold(total, f64::min);
    assert!(agrees(&directory, limit));
}

fn field_of_meminfo(name: &str) -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse().unwrap()
}
