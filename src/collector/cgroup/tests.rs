//! Groups of hosts that the tests make: files below a directory.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

const MIB: u64 = 1 << 20;

/// A host's `/proc` and `/sys`.
struct Fake(TempDir);

impl Fake {
    fn new(cgroup: &str, mountinfo: &str) -> Self {
        let fake = Self(tempfile::tempdir().unwrap());
        fake.file("proc/self/cgroup", cgroup)
            .file("proc/self/mountinfo", mountinfo)
            .file("proc/self/status", "Name:\thf\nCpus_allowed_list:\t0-3\nSeccomp:\t0\n")
            .file("sys/devices/system/cpu/online", "0-3\n");
        fake
    }

    /// Version 2, the process in `/a/b`.
    fn two() -> Self {
        Self::new("0::/a/b\n", "35 24 0:30 / /cg rw - cgroup2 cgroup2 rw\n")
    }

    /// Version 1 as Docker shows it: the own group is all there is.
    fn one() -> Self {
        Self::new(
            "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/docker/x\n",
            "40 39 0:33 /docker/x /cg/memory ro - cgroup cgroup rw,memory\n\
             41 39 0:34 /docker/x /cg/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
             42 39 0:35 /docker/x /cg/unified ro - cgroup2 cgroup2 rw\n",
        )
    }

    fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn memory(&self) -> Result<Usage, Unreadable> {
        Cgroup::of(self.0.path()).memory(Ok(host()))
    }

    /// The figure after a second in which the group has used `microseconds`; `file` holds the
    /// counter that `text` writes.
    fn cpu(
        &self,
        file: &str,
        text: fn(u64) -> String,
        microseconds: u64,
    ) -> Result<f64, Unreadable> {
        const BEFORE: u64 = 5_000_000;
        self.file(file, &text(BEFORE));
        let mut group = Cgroup::of(self.0.path());
        let last = group.last.as_mut().unwrap();
        last.at = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        self.file(file, &text(BEFORE + microseconds));
        group.cpu()
    }

    fn cpu_two(&self, microseconds: u64) -> Result<f64, Unreadable> {
        let text = |count| format!("usage_usec {count}\nuser_usec 1\nsystem_usec 2\n");
        self.cpu("cg/a/b/cpu.stat", text, microseconds)
    }
}

fn host() -> Memory {
    Memory { ram: Usage { used: 300 * MIB, total: 1000 * MIB }, swap: Usage { used: 0, total: 0 } }
}

/// The test's own way between two readings takes some time: the figure is at most the expected.
fn about(figure: Result<f64, Unreadable>, expected: f64) {
    let figure = figure.unwrap();
    assert!(figure > 0.0 && figure <= expected + 0.01, "{figure}, expected at most {expected}");
}

#[test]
fn memory_is_what_cannot_be_given_back_of_the_least_that_is_allowed() {
    let fake = Fake::two();
    fake.file("cg/a/b/memory.current", &format!("{}\n", 120 * MIB))
        .file("cg/a/b/memory.stat", &format!("anon 5\ninactive_file {}\nfile 9\n", 20 * MIB))
        .file("cg/a/b/memory.max", "max\n");
    // No limit: the host's memory.
    assert_eq!(fake.memory(), Ok(Usage { used: 100 * MIB, total: 1000 * MIB }));
    fake.file("cg/a/memory.max", &format!("{}\n", 200 * MIB));
    assert_eq!(fake.memory(), Ok(Usage { used: 100 * MIB, total: 200 * MIB }));
    fake.file("cg/a/b/memory.max", &format!("{}\n", 150 * MIB));
    assert_eq!(fake.memory().unwrap().total, 150 * MIB);
    // A limit beyond what there is limits nothing.
    fake.file("cg/a/b/memory.max", &format!("{}\n", 5000 * MIB));
    assert_eq!(fake.memory().unwrap().total, 200 * MIB);
}

#[test]
fn a_group_without_the_controller_is_counted_above_and_the_root_is_the_host() {
    let fake = Fake::two();
    fake.file("cg/a/memory.current", &MIB.to_string()).file("cg/a/memory.max", "max");
    assert_eq!(fake.memory(), Ok(Usage { used: MIB, total: 1000 * MIB }));
    let root = Fake::new("0::/\n", "35 24 0:30 / /cg rw - cgroup2 cgroup2 rw\n");
    assert_eq!(root.memory(), Ok(host().ram));
}

#[test]
fn version_one_counts_with_its_own_names() {
    let fake = Fake::one();
    let stat = |limit: u64| {
        format!(
            "inactive_file 7\nhierarchical_memory_limit {limit}\ntotal_inactive_file {}\n",
            20 * MIB
        )
    };
    // No limit is a number beyond any memory.
    const NONE: u64 = 9_223_372_036_854_771_712;
    fake.file("cg/memory/memory.usage_in_bytes", &format!("{}\n", 120 * MIB))
        .file("cg/memory/memory.limit_in_bytes", &format!("{NONE}\n"))
        .file("cg/memory/memory.stat", &stat(NONE));
    assert_eq!(fake.memory(), Ok(Usage { used: 100 * MIB, total: 1000 * MIB }));
    let alone = Cgroup::of(fake.0.path()).memory(Err(Unreadable("no /proc/meminfo".into())));
    assert_eq!(alone.unwrap_err().0, "no /proc/meminfo");
    // A group above the container's root that has a limit is seen here alone.
    fake.file("cg/memory/memory.stat", &stat(400 * MIB));
    assert_eq!(fake.memory().unwrap().total, 400 * MIB);
    fake.file("cg/memory/memory.limit_in_bytes", &(250 * MIB).to_string());
    assert_eq!(fake.memory().unwrap().total, 250 * MIB);
    let alone = Cgroup::of(fake.0.path()).memory(Err(Unreadable("x".into())));
    assert_eq!(alone.unwrap().total, 250 * MIB, "a limit needs no host");
}

#[test]
fn cpu_is_a_share_of_the_quota_or_of_the_processors() {
    let fake = Fake::two();
    // Four processors, no quota: one of them busy is a quarter.
    about(fake.cpu_two(1_000_000), 25.0);
    fake.file("cg/a/b/cpu.max", "max 100000\n").file("cg/a/cpu.max", "200000 100000\n");
    about(fake.cpu_two(1_000_000), 50.0);
    fake.file("cg/a/b/cpu.max", "50000 100000\n");
    about(fake.cpu_two(250_000), 50.0);
    // A quota of more than there is limits nothing.
    fake.file("cg/a/b/cpu.max", "800000 100000").file("cg/a/cpu.max", "max");
    about(fake.cpu_two(1_000_000), 25.0);
    // An idle group is a figure.
    assert_eq!(fake.cpu_two(0), Ok(0.0));
}

#[test]
fn version_one_has_quota_and_use_in_hierarchies_of_their_own() {
    let fake = Fake::one();
    let text = |count: u64| format!("{}\n", count * 1000);
    let usage = "cg/cpu,cpuacct/cpuacct.usage";
    about(fake.cpu(usage, text, 2_000_000), 50.0);
    fake.file("cg/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
        .file("cg/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    about(fake.cpu(usage, text, 2_000_000), 50.0);
    fake.file("cg/cpu,cpuacct/cpu.cfs_quota_us", "50000\n");
    about(fake.cpu(usage, text, 250_000), 50.0);
}

#[test]
fn processors_that_are_off_or_not_allowed_do_not_count() {
    let fake = Fake::two();
    // 128 of which the second half is off, and the process is kept on a few.
    fake.file("sys/devices/system/cpu/online", "0-63\n")
        .file("proc/self/status", "Cpus_allowed_list:\t0-127\n");
    about(fake.cpu_two(32_000_000), 50.0);
    fake.file("proc/self/status", "Cpus_allowed_list:\t2-4,60-70\n");
    about(fake.cpu_two(3_500_000), 50.0);
    fake.file("proc/self/status", "Cpus_allowed_list:\t64-127\n");
    assert!(fake.cpu_two(1).unwrap_err().0.contains("no processor that is online"));
}

#[test]
fn the_first_reading_and_another_group_have_no_figure() {
    let fake = Fake::two();
    fake.file("cg/a/b/cpu.stat", "usage_usec 5\n").file("cg/a/c/cpu.stat", "usage_usec 7\n");
    let mut group = Cgroup::of(fake.0.path());
    assert!(group.cpu().unwrap_err().0.contains("first time"));
    fake.file("proc/self/cgroup", "0::/a/c\n");
    group.last.as_mut().unwrap().at = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
    assert!(group.cpu().unwrap_err().0.contains("first time"));
    fake.file("cg/a/c/cpu.stat", "usage_usec 6\n");
    group.last.as_mut().unwrap().at = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
    assert!(group.cpu().unwrap_err().0.contains("goes back"));
}

#[test]
fn a_file_that_is_missing_or_garbage_is_named_and_no_zero() {
    let fake = Fake::two();
    fake.file("cg/a/b/memory.current", "many\n");
    assert!(fake.memory().unwrap_err().0.contains("/cg/a/b/memory.current"));
    fake.file("cg/a/b/memory.current", "5\n").file("cg/a/memory.max", "");
    assert!(fake.memory().unwrap_err().0.contains("/cg/a/memory.max"));
    for (file, text, part) in [
        ("cg/a/b/cpu.max", "x y\n", "/cg/a/b/cpu.max"),
        ("cg/a/b/cpu.max", "0 100000\n", "/cg/a/b/cpu.max"),
        ("cg/a/b/cpu.max", "\n", "/cg/a/b/cpu.max"),
        ("proc/self/status", "Name: x\n", "Cpus_allowed_list"),
        ("sys/devices/system/cpu/online", "3-1\n", "cpu/online"),
    ] {
        let fake = Fake::two();
        fake.file(file, text);
        let why = fake.cpu_two(1).unwrap_err().0;
        assert!(why.contains(part), "{part} in {why}");
    }
    let nothing = tempfile::tempdir().unwrap();
    let mut group = Cgroup::of(nothing.path());
    assert!(group.cpu().unwrap_err().0.contains("/proc/self/cgroup"));
    assert!(group.memory(Ok(host())).unwrap_err().0.contains("/proc/self/cgroup"));
    let without = Fake::two();
    let why = Cgroup::of(without.0.path()).cpu().unwrap_err().0;
    assert!(why.contains("/cg/a/b/cpu.stat: there is no such file"), "{why}");
}

#[test]
fn lists_of_processors_are_counted_without_making_them() {
    assert_eq!(cpu_list("0\n"), Some(vec![(0, 0)]));
    assert_eq!(cpu_list("0-3,8,10-11"), Some(vec![(0, 3), (8, 8), (10, 11)]));
    for broken in ["", "a", "1-", "-1", "3-1", "1,,2", "4294967296"] {
        assert_eq!(cpu_list(broken), None, "{broken:?}");
    }
    let all = cpu_list("0-4294967295").unwrap();
    assert_eq!(common(&all, &all), 1 << 32);
    assert_eq!(common(&all, &[(5, 7), (9, 9)]), 4);
    assert_eq!(common(&[(0, 1)], &[(2, 3)]), 0);
}
