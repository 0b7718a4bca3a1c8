//! The figures of a host whose root is mounted elsewhere, as in a container: read from that root's
//! `/proc`. The host's own `/proc` is sysinfo's, which knows no other place.
//!
//! Invariants:
//! - What is not there or not in the form Linux gives it is a reason, never a 0.
//! - CPU is the share of time that was neither idle nor waiting for a disk, as with sysinfo.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sysinfo::MINIMUM_CPU_UPDATE_INTERVAL;

use super::baseline::Counters;
use super::clock::{milliseconds, since_boot};
use super::disk::DiskProbe;
use super::host::{Host, Memory, Unreadable, Usage};

/// What is parsed stands in the first lines of each file.
const HEAD: usize = 4096;

/// The lines of some thousand processors in `/proc/stat`.
const MOST: usize = 1024 * 1024;

/// The host that a `/proc` speaks of.
pub struct ProcHost {
    proc: PathBuf,
    last: Option<(Counters, Instant)>,
    /// Until when there is no interval to speak of.
    warm: Option<Instant>,
    cpu: Result<f64, Unreadable>,
    disk: DiskProbe,
}

impl ProcHost {
    /// The host of this directory, such as `/host/proc`, with the CPU's baseline taken.
    #[must_use]
    pub fn new(proc: &Path) -> Self {
        let first = Err(Unreadable("no interval yet".into()));
        let mut host = Self {
            proc: proc.to_owned(),
            last: None,
            warm: None,
            cpu: first,
            disk: DiskProbe::new(),
        };
        host.cpu = host.read_cpu();
        host.warm = host.last.as_ref().map(|(_, at)| *at);
        host
    }

    fn head<T>(&self, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Unreadable> {
        head(&self.proc.join(name), parse)
    }

    fn read_cpu(&mut self) -> Result<f64, Unreadable> {
        let now = counters(&self.proc.join("stat"))?;
        let (ticks, shown) = (now.ticks, now.source.clone());
        match self.last.replace((now, Instant::now())) {
            None => Err(Unreadable(format!(
                "{} was read for the first time; a figure needs two readings",
                shown.display()
            ))),
            Some((Counters { ticks: before, .. }, _)) => {
                ticks.busy_since(before).ok_or_else(|| {
                    Unreadable(format!(
                        "the CPU counters in {} do not advance ({} ticks, then {})",
                        shown.display(),
                        before.all,
                        ticks.all
                    ))
                })
            }
        }
    }
}

impl Host for ProcHost {
    fn cpu(&mut self) -> Result<f64, Unreadable> {
        let fresh =
            self.last.as_ref().is_some_and(|(_, at)| at.elapsed() < MINIMUM_CPU_UPDATE_INTERVAL);
        if !fresh {
            self.warm = None;
            self.cpu = self.read_cpu();
        }
        self.cpu.clone()
    }

    fn warm_up(&self) -> Duration {
        let left = |at: Instant| MINIMUM_CPU_UPDATE_INTERVAL.saturating_sub(at.elapsed());
        self.warm.map_or(Duration::ZERO, left)
    }

    fn counters(&self) -> Option<Counters> {
        self.last.as_ref().map(|(counters, _)| counters.clone())
    }

    fn memory(&mut self) -> Result<Memory, Unreadable> {
        self.head("meminfo", memory)
    }

    fn disk(&mut self, path: &Path) -> Result<Usage, Unreadable> {
        self.disk.usage(path)
    }

    fn uptime(&mut self) -> Result<u64, Unreadable> {
        self.head("uptime", |text| text.split(['.', ' ']).next()?.parse().ok())
    }

    fn load(&mut self) -> Result<[f64; 3], Unreadable> {
        self.head("loadavg", load_averages)
    }
}

/// The CPU's counters in a `/proc/stat`.
pub(super) fn counters(stat: &Path) -> Result<Counters, Unreadable> {
    let ticks = head(stat, Ticks::parse)?;
    Ok(Counters { source: stat.to_owned(), boot_ms: milliseconds(since_boot()), ticks })
}

/// How many ticks the processors of a `/proc/stat` that are online make in a second, all together.
pub(super) fn per_second(stat: &Path) -> Option<u64> {
    let processors = beginning(stat, MOST, processors).ok()?;
    processors.checked_mul(rustix::param::clock_ticks_per_second())
}

/// Each has a line of its own.
fn processors(stat: &str) -> Option<u64> {
    let own = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    u64::try_from(stat.lines().filter(own).count()).ok().filter(|count| *count > 0)
}

/// Reads the beginning of a file and parses it.
pub(super) fn head<T>(path: &Path, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Unreadable> {
    beginning(path, HEAD, parse)
}

fn beginning<T>(
    path: &Path,
    most: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Unreadable> {
    let shown = path.display();
    let mut bytes = Vec::with_capacity(HEAD);
    File::open(path)
        .and_then(|file| file.take(most as u64).read_to_end(&mut bytes))
        .map_err(|error| Unreadable(format!("{shown}: {error}")))?;
    // What is parsed is ASCII; a character cut in two at the end is after it.
    let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    parse(text).ok_or_else(|| {
        let line = text.lines().next().unwrap_or_default();
        Unreadable(format!("{shown}: not in the form Linux gives it, it begins {line:?}"))
    })
}

/// The first line of `/proc/stat`: the time of all processors that are online, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticks {
    /// All of it.
    all: u64,
    /// Idle, or waiting for a disk.
    idle: u64,
}

impl Ticks {
    /// Reads user, nice, system, idle, iowait, irq, softirq, steal. What follows, the guests'
    /// time, is contained in user and nice.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (line, _) = text.split_once('\n')?;
        let mut ticks = Self { all: 0, idle: 0 };
        let mut count = 0;
        for field in line.strip_prefix("cpu ")?.split_ascii_whitespace().take(8) {
            let field = field.parse().ok()?;
            ticks.all = ticks.all.saturating_add(field);
            if matches!(count, 3 | 4) {
                ticks.idle = ticks.idle.saturating_add(field);
            }
            count += 1;
        }
        // Linux 2.4 had the first four.
        (count >= 4).then_some(ticks)
    }

    /// These counters, for tests of what is made of them.
    #[cfg(test)]
    pub(crate) fn of(all: u64, idle: u64) -> Self {
        Self { all, idle }
    }

    /// All of the time.
    pub(super) fn all(self) -> u64 {
        self.all
    }

    /// Whether time has passed since an earlier reading, and neither idle nor busy time went back;
    /// a few ticks of idle time may, see [`Self::busy_since`].
    pub(super) fn have_run_on_since(self, before: Self) -> bool {
        let Some(all) = self.all.checked_sub(before.all) else { return false };
        let back = before.idle.saturating_sub(self.idle);
        all > 0 && self.idle.saturating_sub(before.idle) <= all && back <= all / 10
    }

    /// The busy share since an earlier reading in percent; nothing when no time passed.
    pub(super) fn busy_since(self, before: Self) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        // The idle counters may go back by a tick when a processor is switched off.
        let idle = self.idle.saturating_sub(before.idle).min(all);
        Some((all - idle) as f64 / all as f64 * 100.0)
    }
}

/// Memory and swap of `/proc/meminfo`; all four lines are there on every kernel since 3.14.
fn memory(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let value: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
        value.checked_mul(1024)
    };
    let usage = |total: u64, free: u64| Usage { used: total.saturating_sub(free), total };
    let total = bytes("MemTotal").filter(|total| *total > 0)?;
    Some(Memory {
        ram: usage(total, bytes("MemAvailable")?),
        swap: usage(bytes("SwapTotal")?, bytes("SwapFree")?),
    })
}

/// The first three fields of /proc/loadavg.
pub(super) fn load_averages(text: &str) -> Option<[f64; 3]> {
    let mut fields = text.split_ascii_whitespace().map(|field| {
        let value: f64 = field.parse().ok()?;
        (value.is_finite() && value >= 0.0).then_some(value)
    });
    Some([fields.next()??, fields.next()??, fields.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn cpu_ticks_are_the_sum_without_the_guests() {
        let text = "cpu  10 20 30 40 5 6 7 8 1000 1000\ncpu0 1 2 3";
        assert_eq!(Ticks::parse(text), Some(Ticks { all: 126, idle: 45 }));
        for broken in
            ["", "cpu", "cpu  1 2 3\n", "cpu  1 2 3 x\n", "cpu0 1 2 3 4\n", "cpu  1 2 3 4"]
        {
            assert_eq!(Ticks::parse(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn busy_is_what_is_neither_idle_nor_waiting() {
        let at = |all, idle| Ticks { all, idle };
        assert_eq!(at(200, 150).busy_since(at(100, 75)), Some(25.0));
        assert_eq!(at(200, 100).busy_since(at(100, 100)), Some(100.0));
        assert_eq!(at(200, 99).busy_since(at(100, 100)), Some(100.0), "idle went back");
        assert_eq!(at(200, 201).busy_since(at(100, 0)), Some(0.0));
        assert_eq!(at(100, 0).busy_since(at(100, 0)), None);
        assert_eq!(at(99, 0).busy_since(at(100, 0)), None);
    }

    #[test]
    fn processors_that_are_online_are_counted() {
        let (dir, host) = host("");
        let stat = dir.path().join("stat");
        assert_eq!(per_second(&stat), Some(64 * rustix::param::clock_ticks_per_second()));
        let counters = host.counters().unwrap();
        assert_eq!((counters.source, counters.ticks), (stat, Ticks { all: 1000, idle: 800 }));
        for none in ["", "cpu  1 2 3 4\n", "cpu  1 2 3 4\ncpufreq 1\nintr 5 6\n"] {
            assert_eq!(processors(none), None, "{none:?}");
        }
        assert_eq!(per_second(&dir.path().join("none")), None);
    }

    #[test]
    fn load_averages_are_three_or_none() {
        assert_eq!(load_averages("0.12 0.09 0.03 2/90 11544\n"), Some([0.12, 0.09, 0.03]));
        for broken in ["", "0.1 0.2", "0.1 x 0.3 1/2 3", "0.1 nan 0.3", "0.1 -1 0.3", "inf 0 0"] {
            assert_eq!(load_averages(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn a_file_that_is_missing_empty_or_garbage_is_named_with_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loadavg");
        let why = || head(&path, load_averages).unwrap_err().0;
        assert!(why().contains("loadavg: No such file"), "{}", why());
        fs::write(&path, "").unwrap();
        assert!(why().contains("it begins \"\""), "{}", why());
        fs::write(&path, b"gar\xffbage\nmore").unwrap();
        assert!(why().contains("it begins \"gar\""), "{}", why());
        // Longer than the buffer, with a character across its end.
        let long = format!("0.1 0.2 0.3 {}", "é".repeat(HEAD));
        fs::write(&path, long).unwrap();
        assert_eq!(head(&path, load_averages), Ok([0.1, 0.2, 0.3]));
    }

    const MEMINFO: &str = "MemTotal:        1000 kB\nMemFree:          100 kB\n\
                           MemAvailable:     400 kB\nSwapCached:         0 kB\n\
                           SwapTotal:          0 kB\nSwapFree:           0 kB\n";

    /// A host with 128 processors of which half are switched off.
    fn host(skip: &str) -> (tempfile::TempDir, ProcHost) {
        let dir = tempfile::tempdir().unwrap();
        let mut stat = "cpu  100 0 100 700 100 0 0 0 0 0\n".to_owned();
        for n in (0..128).step_by(2) {
            stat.push_str(&format!("cpu{n} 1 0 1 7 1 0 0 0 0 0\n"));
        }
        for (name, text) in [
            ("stat", stat.as_str()),
            ("meminfo", MEMINFO),
            ("loadavg", "0.50 0.40 0.30 1/100 1234\n"),
            ("uptime", "4711.23 9000.00\n"),
        ] {
            if name != skip {
                fs::write(dir.path().join(name), text).unwrap();
            }
        }
        let host = ProcHost::new(dir.path());
        (dir, host)
    }

    #[test]
    fn a_proc_elsewhere_is_read_whole() {
        let (dir, mut host) = host("");
        assert!(host.warm_up() <= MINIMUM_CPU_UPDATE_INTERVAL);
        let memory = host.memory().unwrap();
        assert_eq!(memory.ram, Usage { used: 600 * 1024, total: 1000 * 1024 });
        // No swap is no fault: none of it is used.
        assert_eq!(memory.swap.percent(), 0.0);
        assert_eq!((host.uptime(), host.load()), (Ok(4711), Ok([0.5, 0.4, 0.3])));
        fs::write(dir.path().join("stat"), "cpu  150 0 100 850 200 0 0 0 0 0\n").unwrap();
        let (ticks, at) = host.last.take().unwrap();
        host.last = Some((ticks, at.checked_sub(Duration::from_secs(1)).unwrap()));
        let busy = host.cpu().unwrap();
        assert!((busy - 100.0 / 6.0).abs() < 0.01, "{busy}");
        assert!(host.warm_up().is_zero());
        assert_eq!(host.cpu(), Ok(busy), "too soon for another");
    }

    #[test]
    fn a_file_that_is_not_shown_is_a_reason_and_holds_up_no_other() {
        for missing in ["stat", "meminfo", "loadavg", "uptime"] {
            let (_dir, mut host) = host(missing);
            assert_eq!(host.memory().is_err(), missing == "meminfo");
            assert_eq!(host.load().is_err(), missing == "loadavg");
            assert_eq!(host.uptime().is_err(), missing == "uptime");
            if missing == "stat" {
                assert!(host.cpu().unwrap_err().0.contains("stat: No such file"));
                assert!(host.warm_up().is_zero(), "there is nothing to wait for");
            }
        }
    }

    #[test]
    fn a_meminfo_without_a_line_is_not_read_as_zero() {
        for line in ["MemTotal", "MemAvailable", "SwapTotal", "SwapFree"] {
            let text: String =
                MEMINFO.split_inclusive('\n').filter(|text| !text.starts_with(line)).collect();
            assert_eq!(memory(&text), None, "{line}");
        }
        assert_eq!(memory(&MEMINFO.replace("1000 kB", "0 kB")), None);
        assert_eq!(memory(&MEMINFO.replace("1000 kB", "18446744073709551615 kB")), None);
    }
}
