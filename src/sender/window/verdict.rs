//! What the Monitor's words come to.

/// Samples that are stored at the Monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmed {
    /// The last of them. Everything sent on this link up to here is confirmed or was rejected.
    pub up_to: u64,
    /// How many they are.
    pub samples: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// An acknowledgement of something that was never sent on this link: the link is to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Monitor acknowledges sample {acked}, and the last one sent on this connection is {}", Last(.sent))]
pub struct AckBeyond {
    /// The number it acknowledged.
    pub acked: u64,
    /// The last one sent on this link.
    pub sent: Option<u64>,
}

struct Last<'a>(&'a Option<u64>);

impl std::fmt::Display for Last<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(seq) => write!(f, "{seq}"),
            None => f.write_str("none"),
        }
    }
}

/// What an `"ok":false` in [`Mode::Ping`](super::Mode::Ping) came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is about nothing that is on its way, or about what an earlier one has already called
    /// back.
    Stale,
    /// The window is halved, and everything unconfirmed is to be sent again, from
    /// [`oldest`](Refusal::Halved::oldest) on, when there is [room](super::Window::room).
    Halved {
        /// The first sample to send again.
        oldest: u64,
    },
    /// Only this sample was on its way: it is the one that is refused, as by a 422
    /// (docs/PROTOCOL.md 5). It is no longer on its way.
    Sample(u64),
}
