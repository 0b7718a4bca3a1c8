//! This host's figures, by sysinfo: the only file that names it.
//!
//! sysinfo reports no failure: when a file of /proc is missing, empty or cut off (a unit with
//! `ProcSubset=pid`, a container whose lxcfs died), it keeps the figure it had. So each file is
//! looked at here first, and only then is sysinfo asked; its traps that this file goes round:
//! - The first CPU reading is the average since boot, so a baseline is taken at the start and
//!   a figure needs an interval.
//! - CPU readings less than 200 ms apart give the figure before; it is then repeated here
//!   knowingly.
//! - When the CPU counters stand still or go back (sandboxes, restored containers), it makes up
//!   0 or 100 %.
//! - `used_memory` subtracts without a check, and containers report more available than there is.
//! - A /proc/loadavg it cannot parse is three zeros; it is read here.
//! - Its disk figures know nothing of reserved blocks; see [`super::disk`].
//!
//! Nothing is refreshed that is not reported: a whole reading takes well under a millisecond.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use sysinfo::{MINIMUM_CPU_UPDATE_INTERVAL, MemoryRefreshKind, System};

use super::disk::DiskProbe;
use super::host::{Host, Memory, Unreadable, Usage};

/// Enough of a file of /proc to tell that it is there and in order.
const HEAD: usize = 512;

/// This host.
pub struct SystemHost {
    /// `None` where sysinfo does not start, which on Linux it always does.
    system: Option<System>,
    /// Sum of the CPU counters at the last reading, in ticks.
    ticks: Option<u64>,
    /// When sysinfo read the CPU counters first, and last.
    cpu_read: Option<(Instant, Instant)>,
    /// The last CPU figure.
    cpu: Result<f64, Unreadable>,
    disk: DiskProbe,
}

impl SystemHost {
    /// This host, with the CPU's baseline taken.
    #[must_use]
    pub fn new() -> Self {
        let mut host = Self {
            system: System::new().ok(),
            ticks: None,
            cpu_read: None,
            cpu: Err(Unreadable("no interval yet".into())),
            disk: DiskProbe::new(),
        };
        host.cpu = host.read_cpu();
        host
    }

    fn read_cpu(&mut self) -> Result<f64, Unreadable> {
        let system = self.system.as_mut().ok_or_else(no_system)?;
        // Before sysinfo's reading: when this fails, both keep the same reading as the last.
        let ticks = head("/proc/stat", cpu_ticks)?;
        system.refresh_cpu_usage();
        let now = Instant::now();
        self.cpu_read = Some((self.cpu_read.map_or(now, |(first, _)| first), now));
        match self.ticks.replace(ticks) {
            None => Err(Unreadable(
                "/proc/stat was read for the first time; a figure needs two \
                 readings"
                    .into(),
            )),
            Some(before) if before < ticks => Ok(f64::from(system.global_cpu_usage())),
            Some(before) => Err(Unreadable(format!(
                "the CPU counters in /proc/stat do not advance ({before} ticks, then {ticks})"
            ))),
        }
    }
}

impl Default for SystemHost {
    fn default() -> Self {
        Self::new()
    }
}

impl Host for SystemHost {
    fn cpu(&mut self) -> Result<f64, Unreadable> {
        let fresh =
            self.cpu_read.is_some_and(|(_, last)| last.elapsed() < MINIMUM_CPU_UPDATE_INTERVAL);
        if !fresh {
            self.cpu = self.read_cpu();
        }
        self.cpu.clone()
    }

    fn warm_up(&self) -> Duration {
        match self.cpu_read {
            Some((first, last)) if first == last => {
                MINIMUM_CPU_UPDATE_INTERVAL.saturating_sub(last.elapsed())
            }
            Some(_) | None => Duration::ZERO,
        }
    }

    fn memory(&mut self) -> Result<Memory, Unreadable> {
        let system = self.system.as_mut().ok_or_else(no_system)?;
        head("/proc/meminfo", |text| text.starts_with("MemTotal:").then_some(()))?;
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram().with_swap());
        let total = system.total_memory();
        if total == 0 {
            return Err(Unreadable("/proc/meminfo says MemTotal is 0".into()));
        }
        let swap = system.total_swap();
        Ok(Memory {
            ram: Usage { used: total.saturating_sub(system.available_memory()), total },
            swap: Usage { used: swap.saturating_sub(system.free_swap()), total: swap },
        })
    }

    fn disk(&mut self, path: &Path) -> Result<Usage, Unreadable> {
        self.disk.usage(path)
    }

    fn uptime(&mut self) -> Result<u64, Unreadable> {
        System::uptime().map_err(|error| Unreadable(error.to_string()))
    }

    fn load(&mut self) -> Result<[f64; 3], Unreadable> {
        head("/proc/loadavg", load_averages)
    }
}

fn no_system() -> Unreadable {
    Unreadable("sysinfo does not support this system".into())
}

/// Reads the beginning of a file of /proc and parses it.
fn head<T>(path: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Unreadable> {
    let mut bytes = Vec::with_capacity(HEAD);
    File::open(path)
        .and_then(|file| file.take(HEAD as u64).read_to_end(&mut bytes))
        .map_err(|error| Unreadable(format!("{path}: {error}")))?;
    // What is parsed is ASCII; a character cut in two at the end is after it.
    let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    parse(text).ok_or_else(|| {
        let line = text.lines().next().unwrap_or_default();
        Unreadable(format!("{path}: not in the form Linux gives it, it begins {line:?}"))
    })
}

/// The sum of the first line of /proc/stat, in ticks: user, nice, system, idle, iowait, irq,
/// softirq, steal. What follows, the guests' time, is contained in user and nice.
fn cpu_ticks(text: &str) -> Option<u64> {
    let (line, _) = text.split_once('\n')?;
    let mut sum = 0_u64;
    let mut count = 0;
    for field in line.strip_prefix("cpu ")?.split_ascii_whitespace().take(8) {
        sum = sum.saturating_add(field.parse().ok()?);
        count += 1;
    }
    // Linux 2.4 had the first four.
    (count >= 4).then_some(sum)
}

/// The first three fields of /proc/loadavg.
fn load_averages(text: &str) -> Option<[f64; 3]> {
    let mut fields = text.split_ascii_whitespace().map(|field| {
        let value: f64 = field.parse().ok()?;
        (value.is_finite() && value >= 0.0).then_some(value)
    });
    Some([fields.next()??, fields.next()??, fields.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_ticks_are_the_sum_without_the_guests() {
        let text = "cpu  10 20 30 40 5 6 7 8 1000 1000\ncpu0 1 2 3";
        assert_eq!(cpu_ticks(text), Some(126));
        for broken in
            ["", "cpu", "cpu  1 2 3\n", "cpu  1 2 3 x\n", "cpu0 1 2 3 4\n", "cpu  1 2 3 4"]
        {
            assert_eq!(cpu_ticks(broken), None, "{broken:?}");
        }
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
        let path = path.to_str().unwrap();
        let why = |path| head(path, load_averages).unwrap_err().0;
        assert!(why(path).contains("loadavg: No such file"), "{}", why(path));
        std::fs::write(path, "").unwrap();
        assert!(why(path).contains("it begins \"\""), "{}", why(path));
        std::fs::write(path, b"gar\xffbage\nmore").unwrap();
        assert!(why(path).contains("it begins \"gar\""), "{}", why(path));
        // Longer than the buffer, with a character across its end.
        let long = format!("0.1 0.2 0.3 {}", "é".repeat(HEAD));
        std::fs::write(path, long).unwrap();
        assert_eq!(head(path, load_averages), Ok([0.1, 0.2, 0.3]));
    }

    #[test]
    fn counters_that_stand_still_or_go_back_are_no_figure() {
        let mut host = SystemHost::new();
        // As if the reading before had been later than any to come.
        host.ticks = Some(u64::MAX);
        host.cpu_read = None;
        let why = host.cpu().unwrap_err().0;
        assert!(why.contains("do not advance"), "{why}");
        // Too soon to read again: the same answer, not a new one.
        assert_eq!(host.cpu().unwrap_err().0, why);
    }
}
