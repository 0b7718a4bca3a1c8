//! What is going to happen, and when: the entries of a run's heap.

use std::cmp::Ordering;
use std::time::Duration;

use harborforge_connector::protocol::Capabilities;
use harborforge_connector::sender::machine::{Attempt, Event, LinkEvent, Proof};

use super::monitor::Proved;
use super::scenario::Turn;
use super::wire::Up;

/// A heartbeat that was asked for, and not read yet.
#[derive(Debug)]
pub struct Posting {
    pub attempt: Attempt,
    pub from: u64,
    /// At most so many samples and bytes; one sample without.
    pub batch: Option<(usize, usize)>,
    /// It tries whether the Monitor takes anything, out of order.
    pub probe: bool,
    pub proof: Proof,
}

/// Something that is going to happen.
#[derive(Debug)]
pub enum Due {
    /// An event for the process with this number; void when that one is gone.
    Machine(u32, Event),
    /// The driver looks at the queue.
    View,
    /// The collector takes a sample.
    Sample,
    /// A sample is on disk, if the process that wrote it still lives.
    Durable(u32),
    /// A request for the key document reaches the Monitor.
    KeyAsked { run: u32, known: u32, monitor: usize, attempt: Attempt },
    /// The key document is read by the link instance `known`.
    KeyCame { run: u32, known: u32, key: u64, capabilities: Capabilities, attempt: Attempt },
    /// The samples of a heartbeat are read from the queue.
    PostRead { run: u32, post: Posting },
    /// A heartbeat reaches the Monitor.
    Posted {
        run: u32,
        known: u32,
        monitor: usize,
        attempt: Attempt,
        sent: Vec<u64>,
        single: bool,
        proved: Proved,
    },
    /// An answer to a heartbeat is read: the clock's skew is known from then on.
    Dated(u32),
    /// A handshake reaches the Monitor.
    Knock { link: usize, proved: Proved },
    /// The writer of a link gets to reading samples.
    Read { link: usize, from: u64, records: usize, bytes: usize },
    /// The writer gets to a Ping.
    PingWritten { link: usize, payload: [u8; 8] },
    /// Something reaches the Monitor's end of a link.
    Up(usize, Up),
    /// The Monitor deals with samples it has read.
    Deal(usize, Vec<u64>),
    /// Something reaches our end of a link.
    Down(usize, LinkEvent),
    /// The world changes.
    Turn(Turn),
}

#[derive(Debug)]
pub struct Entry {
    pub at: Duration,
    pub order: u64,
    pub due: Due,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
