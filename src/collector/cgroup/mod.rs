//! CPU and memory of the own control group, versions 1 and 2.
//!
//! Invariants:
//! - What the group may have is the smallest limit between it and the highest group that can be
//!   seen, and never more than the host has; without a limit it is the host's memory and the
//!   processors the process may run on.
//! - Memory counts without file cache that is given back on demand (`inactive_file`), as
//!   `docker stats` counts it.
//! - A file that is missing or not understood is a reason, never a 0.
//! - Everything is read below one directory, so that tests bring a host of their own.

mod place;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::host::{Memory, Unreadable, Usage};
use place::{Place, Version};

/// Bytes of a file that are read; a host with thousands of mounts has a mountinfo of this size.
const MOST: u64 = 4 * 1024 * 1024;

/// The shortest interval that a figure may speak of. Counted in nanoseconds, it can be shorter than
/// the host's, so that whoever waits for the host's first figure has this one as well.
const SHORTEST: Duration = Duration::from_millis(100);

/// The own control group.
pub struct Cgroup {
    /// Where `/proc` and `/sys` are found.
    root: PathBuf,
    last: Option<Reading>,
    cpu: Result<f64, Unreadable>,
}

/// Processor time used so far.
struct Reading {
    group: PathBuf,
    nanoseconds: u64,
    at: Instant,
}

impl Cgroup {
    /// This process's group, with the CPU's baseline taken.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Path::new("/"))
    }

    /// The group of the process whose `/proc/self` and `/sys` lie below `root`.
    #[must_use]
    pub fn of(root: &Path) -> Self {
        let first = Err(Unreadable("no interval yet".into()));
        let mut group = Self { root: root.to_owned(), last: None, cpu: first };
        group.cpu = group.read_cpu();
        group
    }

    /// Whether its processor time could be read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.last.is_some()
    }

    /// CPU use since the reading before, in percent of what the group may use; the same figure
    /// again within 100 ms.
    ///
    /// # Errors
    /// When it cannot be read, or there is no reading before in the same group.
    pub fn cpu(&mut self) -> Result<f64, Unreadable> {
        let fresh = self.last.as_ref().is_some_and(|last| last.at.elapsed() < SHORTEST);
        if !fresh {
            self.cpu = self.read_cpu();
        }
        self.cpu.clone()
    }

    /// Memory in use in bytes, and what the group may have; `host` is the host's own.
    ///
    /// # Errors
    /// When it cannot be read, or nothing limits the group and the host's cannot be read.
    pub fn memory(&self, host: Result<Memory, Unreadable>) -> Result<Usage, Unreadable> {
        let Place { version, directories } = self.place("memory")?;
        let (current, cache, limit) = match version {
            Version::One => {
                ("memory.usage_in_bytes", "total_inactive_file", "memory.limit_in_bytes")
            }
            Version::Two => ("memory.current", "inactive_file", "memory.max"),
        };
        // A group without the controller is counted in the nearest above that has it; the root of
        // version 2 counts nothing, since it is the host.
        let mut used = None;
        let mut limits = Vec::new();
        for directory in &directories {
            if used.is_none()
                && let Some(text) = self.read(&directory.join(current))?
            {
                let stat = self.read(&directory.join("memory.stat"))?.unwrap_or_default();
                let cached = field(&stat, cache).unwrap_or(0);
                let all: u64 = number(&directory.join(current), &text)?;
                used = Some(all.saturating_sub(cached));
                // What groups above allow that cannot be seen from a container.
                limits.extend(field(&stat, "hierarchical_memory_limit"));
            }
            if let Some(text) = self.read(&directory.join(limit))?
                && text.trim() != "max"
            {
                limits.push(number(&directory.join(limit), &text)?);
            }
        }
        let Some(used) = used else { return host.map(|memory| memory.ram) };
        match (host, limits.into_iter().min()) {
            // Version 1 says "no limit" with a number beyond any memory.
            (Ok(memory), limit) => {
                let total = limit.map_or(memory.ram.total, |limit| limit.min(memory.ram.total));
                Ok(Usage { used, total })
            }
            (Err(_), Some(limit)) if limit < 1 << 62 => Ok(Usage { used, total: limit }),
            (Err(why), _) => Err(why),
        }
    }

    fn read_cpu(&mut self) -> Result<f64, Unreadable> {
        let (group, nanoseconds) = self.cpu_time()?;
        let at = Instant::now();
        let before = self.last.replace(Reading { group: group.clone(), nanoseconds, at });
        let Some(before) = before.filter(|before| before.group == group) else {
            return Err(Unreadable(format!(
                "{} was read for the first time; a figure needs two readings",
                group.display()
            )));
        };
        let used = nanoseconds.checked_sub(before.nanoseconds).ok_or_else(|| {
            Unreadable(format!("the processor time in {} goes back", group.display()))
        })?;
        let passed = at.duration_since(before.at).as_nanos();
        share(used, passed, self.processors()?).ok_or_else(|| Unreadable("no time passed".into()))
    }

    /// The own group and the processor time it has used, in nanoseconds.
    fn cpu_time(&self) -> Result<(PathBuf, u64), Unreadable> {
        let Place { version, directories } = self.place("cpuacct")?;
        let own = directories.into_iter().next().unwrap_or_default();
        let (name, key, factor) = match version {
            Version::One => ("cpuacct.usage", None, 1),
            Version::Two => ("cpu.stat", Some("usage_usec"), 1000),
        };
        let path = own.join(name);
        let text = self.read(&path)?.ok_or_else(|| missing(&path))?;
        let count: u64 = match key {
            Some(key) => field(&text, key).ok_or_else(|| garbled(&path, &text))?,
            None => number(&path, &text)?,
        };
        Ok((own, count.saturating_mul(factor)))
    }

    /// How many processors' time the group may use: its quota, and no more than it may run on.
    fn processors(&self) -> Result<f64, Unreadable> {
        let Place { version, directories } = self.place("cpu")?;
        let mut least = self.allowed()?;
        for directory in directories {
            let quota = match version {
                Version::One => self.quota_v1(&directory)?,
                Version::Two => self.quota_v2(&directory)?,
            };
            least = quota.map_or(least, |quota| quota.min(least));
        }
        Ok(least)
    }

    fn quota_v1(&self, directory: &Path) -> Result<Option<f64>, Unreadable> {
        let (quota, period) =
            (directory.join("cpu.cfs_quota_us"), directory.join("cpu.cfs_period_us"));
        let (Some(most), Some(of)) = (self.read(&quota)?, self.read(&period)?) else {
            return Ok(None);
        };
        // -1 is no quota.
        if most.trim().starts_with('-') {
            return Ok(None);
        }
        ratio(number(&quota, &most)?, number(&period, &of)?)
            .map(Some)
            .ok_or_else(|| garbled(&quota, &most))
    }

    fn quota_v2(&self, directory: &Path) -> Result<Option<f64>, Unreadable> {
        let path = directory.join("cpu.max");
        // The root has none, nor has a group without the controller.
        let Some(text) = self.read(&path)? else { return Ok(None) };
        let mut fields = text.split_ascii_whitespace();
        match (fields.next(), fields.next().unwrap_or("100000")) {
            (Some("max"), _) => Ok(None),
            (Some(quota), period) => quota
                .parse()
                .ok()
                .zip(period.parse().ok())
                .and_then(|(quota, period)| ratio(quota, period))
                .map(Some)
                .ok_or_else(|| garbled(&path, &text)),
            (None, _) => Err(garbled(&path, &text)),
        }
    }

    /// How many processors that are online the process may run on.
    fn allowed(&self) -> Result<f64, Unreadable> {
        let status = Path::new("/proc/self/status");
        let online = Path::new("/sys/devices/system/cpu/online");
        let text = self.read(status)?.ok_or_else(|| missing(status))?;
        let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let allowed = list.and_then(cpu_list).ok_or_else(|| {
            Unreadable("/proc/self/status has no line Cpus_allowed_list that is understood".into())
        })?;
        let text = self.read(online)?.ok_or_else(|| missing(online))?;
        let online_list = cpu_list(&text).ok_or_else(|| garbled(online, &text))?;
        // A process may be allowed on processors that are switched off.
        match common(&allowed, &online_list) {
            0 => Err(Unreadable("no processor that is online is allowed to this process".into())),
            count => Ok(count as f64),
        }
    }

    fn place(&self, controller: &str) -> Result<Place, Unreadable> {
        let read = |path: &str| {
            let path = Path::new(path);
            self.read(path)?.ok_or_else(|| missing(path))
        };
        place::find(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?, controller)
    }

    /// A file as the process itself would name it; `None` when there is none.
    fn read(&self, path: &Path) -> Result<Option<String>, Unreadable> {
        let below = self.root.join(path.strip_prefix("/").unwrap_or(path));
        let mut bytes = Vec::new();
        let read = File::open(below).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Ok(None)
            }
            Err(error) => Err(Unreadable(format!("{}: {error}", path.display()))),
        }
    }
}

impl Default for Cgroup {
    fn default() -> Self {
        Self::new()
    }
}

fn missing(path: &Path) -> Unreadable {
    Unreadable(format!("{}: there is no such file", path.display()))
}

fn garbled(path: &Path, text: &str) -> Unreadable {
    let line: String = text.lines().next().unwrap_or_default().chars().take(80).collect();
    Unreadable(format!("{}: not in the form Linux gives it, it begins {line:?}", path.display()))
}

fn number(path: &Path, text: &str) -> Result<u64, Unreadable> {
    text.trim().parse().map_err(|_| garbled(path, text))
}

/// The number after a name, in a file of such lines.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.split_once(' ').filter(|(key, _)| *key == name)?.1.parse().ok())
}

fn ratio(quota: u64, period: u64) -> Option<f64> {
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

/// The percentage of `processors` that `used` nanoseconds of `passed` are.
fn share(used: u64, passed: u128, processors: f64) -> Option<f64> {
    let whole = passed as f64 * processors;
    (whole > 0.0).then(|| used as f64 / whole * 100.0)
}

/// Runs of processors, `0-3,8`, in growing order.
fn cpu_list(text: &str) -> Option<Vec<(u32, u32)>> {
    let text = text.trim();
    text.split(',')
        .map(|run| {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some((first, last))
        })
        .collect()
}

/// How many processors are in both lists.
fn common(one: &[(u32, u32)], other: &[(u32, u32)]) -> u64 {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (a, b)));
    pairs
        .map(|(a, b)| {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            (u64::from(last) + 1).saturating_sub(u64::from(first))
        })
        .sum()
}
