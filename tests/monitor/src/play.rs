//! What is to go wrong on one WebSocket, sorted by where it is asked for. Pure.

use std::time::Duration;

use crate::fault::Fault;

/// What happens once, between two messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    /// The connection is dropped.
    Cut,
    /// Nothing happens any more.
    Freeze,
    /// The link is closed.
    Close { code: u16, reason: String },
    /// A text message is sent.
    Say(String),
    /// A text message of so many bytes is sent, in fragments of that many.
    Huge { bytes: usize, fragments: Option<usize> },
    /// A binary message of so many bytes is sent.
    Binary(usize),
}

/// The faults of one link.
#[derive(Debug, Default)]
pub(crate) struct Play {
    deeds: Vec<(u64, Deed)>,
    /// Nothing is said.
    pub silent: bool,
    /// Pings are not answered.
    pub never_pong: bool,
    /// Bytes of each fragment of what is said.
    pub fragments: Option<usize>,
    /// How late acknowledgements are.
    pub ack_late: Duration,
    /// How often each is sent.
    ack_times: usize,
    /// How far each goes beyond what was stored.
    ack_beyond: u64,
}

impl Play {
    pub fn new(faults: Vec<Fault>) -> Self {
        let mut play = Self { ack_times: 1, ..Self::default() };
        for fault in faults {
            play.add(fault);
        }
        play
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "the schedule hands out a link's faults only; the others are none of this file's"
    )]
    fn add(&mut self, fault: Fault) {
        let mut at = |messages, deed| self.deeds.push((messages, deed));
        match fault {
            Fault::Cut { messages } => at(messages, Deed::Cut),
            Fault::HalfOpen { messages } => at(messages, Deed::Freeze),
            Fault::Close { messages, code, reason } => at(messages, Deed::Close { code, reason }),
            Fault::Say { messages, text } => at(messages, Deed::Say(text)),
            Fault::Binary { messages, bytes } => at(messages, Deed::Binary(bytes)),
            Fault::HugeMessage { messages, bytes, fragments } => {
                at(messages, Deed::Huge { bytes, fragments });
            }
            Fault::Silent => self.silent = true,
            Fault::NeverPong => self.never_pong = true,
            Fault::Fragments { bytes } => self.fragments = Some(bytes.max(1)),
            Fault::NeverAck => self.ack_times = 0,
            Fault::AckTwice => self.ack_times *= 2,
            Fault::AckLate { millis } => self.ack_late = Duration::from_millis(millis),
            Fault::AckBeyond { by } => self.ack_beyond = by,
            _ => {}
        }
    }

    /// What happens when so many messages have been dealt with, in the order asked for.
    pub fn deeds(&self, messages: u64) -> Vec<Deed> {
        let now = self.deeds.iter().filter(|(at, _)| *at == messages);
        now.map(|(_, deed)| deed.clone()).collect()
    }

    /// The number to acknowledge when `stored` is stored, and how often.
    pub fn acknowledged(&self, stored: u64) -> (u64, usize) {
        (stored.saturating_add(self.ack_beyond), self.ack_times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_sorted_by_their_place() {
        let play = Play::new(vec![
            Fault::Say { messages: 2, text: "x".into() },
            Fault::AckTwice,
            Fault::Cut { messages: 2 },
            Fault::AckBeyond { by: 5 },
            Fault::Fragments { bytes: 0 },
        ]);
        assert_eq!(play.deeds(2), [Deed::Say("x".into()), Deed::Cut]);
        assert_eq!(play.deeds(1), []);
        assert_eq!(play.acknowledged(7), (12, 2));
        assert_eq!(play.fragments, Some(1));
        assert_eq!(Play::new(vec![Fault::NeverAck]).acknowledged(7).1, 0);
        assert_eq!(Play::new(vec![]).acknowledged(7), (7, 1));
    }
}
