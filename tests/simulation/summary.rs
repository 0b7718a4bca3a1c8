//! What a run came to.

use std::time::Duration;

/// What happened in a run, for tests that want to see that something did.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    pub events: u64,
    pub samples: u64,
    pub by_link: u64,
    pub by_heartbeat: u64,
    pub rejected: u64,
    pub links: u64,
    pub refused_links: u64,
    pub restarts: u64,
    pub fallbacks: u64,
    pub probes: u64,
    pub forced: u64,
    pub verdicts: u64,
    /// When each try began: a link's, or a heartbeat's after a wait.
    pub tries: Vec<Duration>,
}

impl Summary {
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.samples += other.samples;
        self.by_link += other.by_link;
        self.by_heartbeat += other.by_heartbeat;
        self.rejected += other.rejected;
        self.links += other.links;
        self.refused_links += other.refused_links;
        self.restarts += other.restarts;
        self.fallbacks += other.fallbacks;
        self.probes += other.probes;
        self.forced += other.forced;
        self.verdicts += other.verdicts;
    }
}
