//! OpenClaw on this host: its version and its agents, from local state only.

pub mod known;
