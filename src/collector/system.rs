//! This host's figures, by sysinfo: the only file that names it.
//!
//! sysinfo reports no failure: when a file of /proc is missing, empty or cut off (a unit with
//! `ProcSubset=pid`, a container whose lxcfs died), it keeps the figure it had. So each file is
//! looked at here first, and only then is sysinfo asked; its traps that this file goes round:
//! - The first CPU reading is the average since boot, so a baseline is taken at the start and
//!   a figure needs an interval; how the daemon's first one comes by it, see [`super::baseline`].
//! - CPU readings less than 200 ms apart give the figure before; it is then repeated here
//!   knowingly.
//! - When the CPU counters stand still or go back (sandboxes, restored containers), it makes up
//!   0 or 100 %.
//! - `used_memory` subtracts without a check, and containers report more available than there is.
//! - A /proc/loadavg it cannot parse is three zeros; it is read here.
//! - Its disk figures know nothing of reserved blocks; see [`super::disk`].
//!
//! Nothing is refreshed that is not reported: a whole reading takes well under a millisecond.

use std::path::Path;
use std::time::{Duration, Instant};

use sysinfo::{MINIMUM_CPU_UPDATE_INTERVAL, MemoryRefreshKind, System};

use super::baseline::Counters;
use super::disk::DiskProbe;
use super::host::{Host, Memory, Unreadable, Usage};
use super::proc::{counters, head, load_averages};

/// Where sysinfo reads the CPU's counters.
const STAT: &str = "/proc/stat";

/// This host.
pub struct SystemHost {
    /// `None` where sysinfo does not start, which on Linux it always does.
    system: Option<System>,
    /// The CPU's counters just before sysinfo read them last.
    counters: Option<Counters>,
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
            counters: None,
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
        let counters = counters(Path::new(STAT))?;
        let ticks = counters.ticks.all();
        system.refresh_cpu_usage();
        let now = Instant::now();
        self.cpu_read = Some((self.cpu_read.map_or(now, |(first, _)| first), now));
        match self.counters.replace(counters).map(|before| before.ticks.all()) {
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

    fn counters(&self) -> Option<Counters> {
        self.counters.clone()
    }

    fn memory(&mut self) -> Result<Memory, Unreadable> {
        let system = self.system.as_mut().ok_or_else(no_system)?;
        head(Path::new("/proc/meminfo"), |text| text.starts_with("MemTotal:").then_some(()))?;
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
        head(Path::new("/proc/loadavg"), load_averages)
    }
}

fn no_system() -> Unreadable {
    Unreadable("sysinfo does not support this system".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::proc::Ticks;

    #[test]
    fn counters_that_stand_still_or_go_back_are_no_figure() {
        let mut host = SystemHost::new();
        // As if the reading before had been later than any to come.
        let counters = host.counters.take().unwrap();
        host.counters = Some(Counters { ticks: Ticks::of(u64::MAX, 0), ..counters });
        host.cpu_read = None;
        let why = host.cpu().unwrap_err().0;
        assert!(why.contains("do not advance"), "{why}");
        // Too soon to read again: the same answer, not a new one.
        assert_eq!(host.cpu().unwrap_err().0, why);
    }

    /// The first figure is made of counters, all others by sysinfo: they mean the same. Compared
    /// where nothing was counted between our reading and sysinfo's, at both ends of an interval.
    #[test]
    fn a_share_of_the_counters_is_what_sysinfo_says() {
        const TRIES: usize = 25;
        let read = || counters(Path::new(STAT)).unwrap().ticks;
        let mut system = System::new().unwrap();
        let mut before: Option<Ticks> = None;
        let mut compared = 0;
        for _ in 0..TRIES {
            let now = read();
            system.refresh_cpu_usage();
            let undisturbed = (read() == now).then_some(now);
            if let (Some(before), Some(now)) = (before, undisturbed) {
                let (theirs, ours) = (system.global_cpu_usage(), now.busy_since(before).unwrap());
                assert!((f64::from(theirs) - ours).abs() < 0.001, "{theirs}, and not {ours}");
                compared += 1;
                if compared == 3 {
                    return;
                }
            }
            before = undisturbed;
            // A reading sooner than this gives the figure before.
            std::thread::sleep(MINIMUM_CPU_UPDATE_INTERVAL);
        }
        if compared == 0 {
            // Hundreds of processors tick all the time; tests/sample.rs compares there as well.
            eprintln!("SKIPPED: something was counted between any two readings");
        }
    }
}
