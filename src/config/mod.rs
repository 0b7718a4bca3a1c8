//! The configuration: keys, layers, validation.
//!
//! Invariants:
//! - [`load()`] is pure: all it knows comes from a [`Sources`] value; [`Sources::of_process`] is
//!   the one place that asks the operating system. The same sources give the same answer.
//! - A layer overrides the one before: built-in default < file < environment < flag; of the
//!   environment, our own variables override those of HarborForge.Monitor. Each key's
//!   name, default, permitted values and meaning stand once, in [`Key`]; the defaults are texts
//!   that take the same way as a user's.
//! - Nothing is repaired silently. All faults of all layers are reported at once, each with its
//!   place, the key, what was found and what is expected.
//! - A secret stands only in a [`SecretString`]: no error, warning or `Debug` output holds one.
//! - A [`Config`] never changes. A reload makes a new one, and [`diff()`] tells what differs.

mod agent;
mod credential;
mod diff;
mod edit;
mod endpoint;
mod error;
mod file;
mod json;
mod keys;
mod load;
mod paths;
mod plan;
mod proxy;
mod rules;
mod settings;
mod sources;
#[cfg(test)]
mod tests;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

pub use diff::{Change, diff};
pub(crate) use error::shell_quoted;
pub use error::{ConfigError, ConfigErrors, Origin, Problem, Warning};
pub use keys::{Fallback, Group, Key};
pub use load::{Loaded, Need, load};
pub use plan::{Plan, PlannedFile, Wish, plan};
pub use proxy::Proxy;
pub use sources::{DiskFiles, FileText, Files, Flags, Sources};

/// The commented configuration file that is shipped: every key with its default.
pub const EXAMPLE: &str = include_str!("../../deploy/config.toml");

/// The whole configuration, parsed and checked. Immutable; shared as `Arc<Config>`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Base URL of the Monitor. Its path ends in `/`, so that `Url::join` with a relative
    /// path keeps the prefix. Present when loaded for [`Need::Backend`].
    pub backend_url: Option<Url>,
    /// This server's name at the Monitor: 1 to 255 bytes without control characters.
    pub identifier: String,
    /// How the connector shows who it is. Present when loaded for [`Need::Backend`].
    pub credential: Option<Credential>,
    /// Time between two samples.
    pub report_interval: Duration,
    /// Time between two heartbeats while the WebSocket is unavailable.
    pub http_fallback_interval: Duration,
    /// Longest wait between two tries.
    pub backoff_cap: Duration,
    /// A level or a filter, as [`crate::logging::parse_filter`] reads it.
    pub log_level: String,
    /// What log lines look like.
    pub log_format: LogFormat,
    /// Directory of queue and state.
    pub data_dir: PathBuf,
    /// The daemon's Unix socket.
    pub control_socket: PathBuf,
    /// Bounds of everything that is kept on disk.
    pub queue: QueueBounds,
    /// PEM file with trust anchors in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the SPKI DER of the only RSA key that is accepted.
    pub public_key_sha256: Option<[u8; 32]>,
    /// Plain http to a host that is not loopback was permitted.
    pub allow_insecure: bool,
    /// Proxy for `backend_url`, from the key or the environment.
    pub proxy: Option<Proxy>,
    /// Which transports are used.
    pub transport: Transport,
    /// A path on the file system that `disk_pct` speaks of.
    pub disk_path: PathBuf,
    /// Where the host's root is mounted.
    pub root_fs: PathBuf,
    /// What `cpu_pct` and `mem_pct` speak of.
    pub scope: Scope,
    /// Whether nginx is reported.
    pub report_nginx: bool,
    /// Whether OpenClaw is looked for.
    pub openclaw: OpenClaw,
    /// OpenClaw's state directories; empty: found by themselves.
    pub openclaw_home: Vec<PathBuf>,
    /// Loopback address of the bridge; `None`: no bridge.
    pub bridge_listen: Option<SocketAddr>,
}

/// How the connector shows the Monitor who it is (docs/PROTOCOL.md 3).
#[derive(Debug, Clone)]
pub enum Credential {
    /// A challenge, proved by encryption under the Monitor's key.
    Challenge(SecretString),
    /// A key sent with each heartbeat.
    ApiKey(SecretString),
}

impl Credential {
    /// A challenge, if the text has the form of one.
    #[must_use]
    pub fn challenge(text: &str) -> Option<Self> {
        value::is_uuid(text).then(|| Self::Challenge(SecretString::from(text)))
    }

    /// An API key, if the text has the form of one.
    #[must_use]
    pub fn api_key(text: &str) -> Option<Self> {
        value::is_api_key(text).then(|| Self::ApiKey(SecretString::from(text)))
    }

    /// Its key in the configuration.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Challenge(_) => Key::ChallengeUuid,
            Self::ApiKey(_) => Key::ApiKey,
        }
    }

    /// The secret itself.
    #[must_use]
    pub fn secret(&self) -> &SecretString {
        match self {
            Self::Challenge(secret) | Self::ApiKey(secret) => secret,
        }
    }

    /// Whether both are the same secret of the same kind.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.key() == other.key() && self.secret().expose_secret() == other.secret().expose_secret()
    }
}

/// Bounds of the queue's sets, in payload bytes as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueBounds {
    /// Bytes kept for sending.
    pub max_bytes: u64,
    /// Age at which unsent samples are given up; `None`: never.
    pub max_age: Option<Duration>,
    /// How long delivered samples are kept; zero: not at all.
    pub retain_sent: Duration,
    /// Bytes of delivered samples kept.
    pub retain_sent_max_bytes: u64,
    /// Bytes of rejected samples kept.
    pub rejected_max_bytes: u64,
    /// Bytes of broken generations kept.
    pub quarantine_max_bytes: u64,
}

/// What log lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, with priority prefixes under systemd, else text with the time.
    Auto,
    /// Text with the time.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which transports are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// WebSocket, with the heartbeat while it is unavailable.
    Auto,
    /// WebSocket only.
    Websocket,
    /// Heartbeat only.
    Http,
}

/// What CPU and memory figures speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole machine.
    Host,
    /// The control group the daemon runs in.
    Cgroup,
}

/// Whether OpenClaw is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenClaw {
    /// Reported where it is found.
    Auto,
    /// Never looked for.
    Off,
}
