//! A machine as the queue sees it: its clocks, its boots, and the time that really passes.

use harborforge_storage::Stamp;

pub const SECOND: u64 = 1000;
pub const HOUR: u64 = 3_600_000;
pub const YEAR: u64 = 365 * 24 * HOUR;

/// Milliseconds everywhere.
#[derive(Debug, Clone)]
pub struct Host {
    boot: u8,
    up: u64,
    wall: u64,
    /// Time since the beginning, time switched off included.
    pub passed: u64,
}

impl Host {
    pub fn new() -> Self {
        Self { boot: 1, up: 10 * SECOND, wall: 55 * YEAR, passed: 0 }
    }

    /// A machine whose boots cannot be told apart.
    pub fn without_boot_id() -> Self {
        Self { boot: 0, ..Self::new() }
    }

    pub fn stamp(&self) -> Stamp {
        Stamp { wall_ms: self.wall, boot_ms: self.up, boot_id: [self.boot; 16] }
    }

    pub fn pass(&mut self, time: u64) {
        self.up += time;
        self.wall = self.wall.saturating_add(time);
        self.passed += time;
    }

    /// Switched off, and up again for `up` when it is looked at next.
    pub fn reboot(&mut self, off: u64, up: u64) {
        self.boot = if self.boot == 0 { 0 } else { self.boot + 1 };
        self.up = up;
        self.wall = self.wall.saturating_add(off + up);
        self.passed += off + up;
    }

    /// The files were carried to a machine that has been up for long.
    pub fn carried_to(&mut self, up: u64) {
        self.reboot(0, 0);
        self.up = up;
    }

    pub fn set_wall(&mut self, wall: u64) {
        self.wall = wall;
    }

    pub fn jump(&mut self, by: i64) {
        self.wall = self.wall.saturating_add_signed(by);
    }
}
