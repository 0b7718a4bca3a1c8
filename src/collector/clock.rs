//! The clocks a sample is stamped with.
//!
//! Invariants:
//! - [`Stamp::boot_ms`] and [`since_boot`] read the same clock, CLOCK_BOOTTIME: it counts from
//!   boot, goes on while the machine is suspended, and no one can set it. Only the wall clock
//!   jumps.
//! - Two boot-time figures compare only under the same boot id; all zeros is "unknown" and
//!   compares with nothing.
//! - Reading a clock never fails and never blocks.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Where Linux tells one boot from the next.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// When a sample was taken, by every clock there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds since 1970 by the wall clock; 0 when it stands before 1970.
    pub wall_ms: u64,
    /// Milliseconds since boot, time in suspend included.
    pub boot_ms: u64,
    /// The boot that `boot_ms` counts from; zeros when it is unknown.
    pub boot_id: [u8; 16],
}

impl Stamp {
    /// The stamp's wall-clock time, for [`super::SystemCollector::collect`]; 1970 when the stamp
    /// cannot be represented.
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_millis(self.wall_ms)).unwrap_or(UNIX_EPOCH)
    }
}

/// Makes stamps; reads the boot id once, since it outlives the process.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    boot_id: [u8; 16],
}

impl Clock {
    /// A clock of this machine. Where the boot id cannot be read it is zeros, said once in the
    /// log.
    #[must_use]
    pub fn new() -> Self {
        Self { boot_id: read_boot_id(Path::new(BOOT_ID)) }
    }

    /// The boot that stamps count from; zeros when it is unknown.
    #[must_use]
    pub fn boot_id(&self) -> [u8; 16] {
        self.boot_id
    }

    /// The present moment.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Stamp {
            wall_ms: milliseconds(wall),
            boot_ms: milliseconds(since_boot()),
            boot_id: self.boot_id,
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Time since boot, suspend included: the clock [`super::schedule::Schedule`] runs on.
#[must_use]
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::from_secs(seconds).saturating_add(Duration::from_nanos(u64::from(nanoseconds)))
}

/// Whole milliseconds, as a stamp has them.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn read_boot_id(path: &Path) -> [u8; 16] {
    let parsed = std::fs::read_to_string(path)
        .map_err(|error| error.to_string())
        .and_then(|text| parse_uuid(text.trim()).ok_or_else(|| format!("not a UUID: {text:?}")));
    parsed.unwrap_or_else(|why| {
        tracing::warn!(path = %path.display(), why, "the boot id cannot be read; samples carry none");
        [0; 16]
    })
}

/// The 16 bytes of a UUID in its hyphenated form.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let groups = text.split('-').map(str::len);
    if !text.is_ascii() || !groups.eq([8, 4, 4, 4, 12]) {
        return None;
    }
    let mut digits = text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16));
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        let (high, low) = (digits.next()??, digits.next()??);
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_becomes_its_bytes_in_order() {
        assert_eq!(
            parse_uuid("00112233-4455-6677-8899-aabbccddeeFF"),
            Some([
                0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
                0xee, 0xff
            ])
        );
    }

    #[test]
    fn what_is_no_uuid_is_none() {
        for text in [
            "",
            "00112233-4455-6677-8899-aabbccddeef",
            "00112233-4455-6677-8899-aabbccddeefff",
            "00112233445566778899aabbccddeeff",
            "g0112233-4455-6677-8899-aabbccddeeff",
            "0011223-34455-6677-8899-aabbccddeeff",
            "ääääääääääääääääääääääääääääääääääää",
        ] {
            assert_eq!(parse_uuid(text), None, "{text}");
        }
    }

    #[test]
    fn a_boot_id_that_cannot_be_read_is_zeros() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_boot_id(&dir.path().join("none")), [0; 16]);
        let garbage = dir.path().join("garbage");
        std::fs::write(&garbage, "garbage\n").unwrap();
        assert_eq!(read_boot_id(&garbage), [0; 16]);
    }

    #[test]
    fn a_stamp_agrees_with_the_kernels_clocks() {
        let clock = Clock::new();
        let uptime = || {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            text.split(' ').next().unwrap().parse::<f64>().unwrap() * 1000.0
        };
        let wall = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let (uptime_before, wall_before) = (uptime(), wall());
        let stamp = clock.stamp();
        let (uptime_after, wall_after) = (uptime(), wall());
        // /proc/uptime counts in hundredths.
        assert!(uptime_before - 10.0 <= stamp.boot_ms as f64, "{uptime_before} {stamp:?}");
        assert!(stamp.boot_ms as f64 <= uptime_after + 10.0, "{uptime_after} {stamp:?}");
        assert!((wall_before..=wall_after).contains(&stamp.wall_ms));
        let id = std::fs::read_to_string(BOOT_ID).unwrap();
        let hex: String = stamp.boot_id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, id.trim().replace('-', ""));
    }
}
