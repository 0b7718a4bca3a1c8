//! The table of keys: the one source of each name, default, permitted values and meaning.
//! `deploy/config.toml` and `docs/CONFIGURATION.md` repeat it, and tests bind them to it.

/// What holds when no layer sets a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// This text, parsed as if a user had written it.
    Text(&'static str),
    /// Nothing fixed: the prose says what is done instead.
    Described(&'static str),
}

/// What a change of a key means to a running daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The proof or the API key: used at the next try, without losing a sample.
    Credentials,
    /// Where and as whom the connector reports: the link is made anew.
    Endpoint,
    /// Intervals and caps.
    Schedule,
    /// The log filter.
    Logging,
    /// Bounds of the queue.
    Queue,
    /// What is sampled.
    Collector,
    /// The loopback bridge.
    Bridge,
    /// Takes effect only when the daemon is started again.
    Restart,
}

macro_rules! keys {
    ($($variant:ident $name:literal $group:ident $fallback:expr, $values:literal, $meaning:literal;)+) => {
        /// One key of the configuration.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Key {
            $(#[doc = concat!("`", $name, "`: ", $meaning)] $variant,)+
        }

        impl Key {
            /// Every key, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name in the file.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What a change of it means to a running daemon.
            #[must_use]
            pub const fn group(self) -> Group {
                match self { $(Self::$variant => Group::$group,)+ }
            }

            /// What holds when it is not set.
            #[must_use]
            pub const fn fallback(self) -> Fallback {
                use Fallback::{Described, Text};
                match self { $(Self::$variant => $fallback,)+ }
            }

            /// The values it takes, in words that follow "expected".
            #[must_use]
            pub const fn values(self) -> &'static str {
                match self { $(Self::$variant => $values,)+ }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }
        }
    };
}

keys! {
    BackendUrl "backend_url" Endpoint Described("required"),
        "an http or https URL without query, fragment, user name or password",
        "the Monitor's base URL; a path prefix is kept";
    Identifier "identifier" Endpoint Described("the host name"),
        "1 to 255 bytes of text without control characters",
        "this server's name at the Monitor";
    ChallengeUuid "challenge_uuid" Credentials Described("none"),
        "a UUID such as 8f14e45f-ceea-467f-9575-1d2f3a4b5c6d",
        "the challenge the Monitor issued for this server; a secret";
    ChallengeUuidFile "challenge_uuid_file" Credentials Described("the systemd credential `challenge_uuid`, if there is one"),
        "the path of a file",
        "a file that holds the challenge";
    ApiKey "api_key" Credentials Described("none"),
        "1 to 4096 printable ASCII characters without spaces",
        "the API key to report with, instead of a challenge; a secret";
    ApiKeyFile "api_key_file" Credentials Described("the systemd credential `api_key`, if there is one"),
        "the path of a file",
        "a file that holds the API key";
    ReportInterval "report_interval" Schedule Text("30s"),
        "a duration such as \"30s\", 1s to 1h",
        "time between two samples";
    ReportIntervalSec "report_interval_sec" Schedule Described("see `report_interval`"),
        "a whole number of seconds, 1 to 3600",
        "another spelling of report_interval; only one of the two may be set";
    HttpFallbackInterval "http_fallback_interval" Schedule Text("60s"),
        "a duration such as \"60s\", 1s to 1h",
        "time between two heartbeats while the WebSocket is unavailable";
    HttpFallbackIntervalSec "http_fallback_interval_sec" Schedule Described("see `http_fallback_interval`"),
        "a whole number of seconds, 1 to 3600",
        "another spelling of http_fallback_interval; only one of the two may be set";
    BackoffCap "backoff_cap" Schedule Text("5m"),
        "a duration such as \"5m\", 1s to 10m",
        "the longest wait between two tries to reach the Monitor";
    LogLevel "log_level" Logging Text("info"),
        "error, warn, info, debug, trace, or a filter such as \"info,harborforge_connector::sender=debug\"",
        "how much is logged";
    LogFormat "log_format" Restart Text("auto"),
        "auto, text or json",
        "what log lines look like; auto is text on a terminal and with priority prefixes under systemd";
    DataDir "data_dir" Restart Described("`STATE_DIRECTORY` under systemd, else `/var/lib/harborforge-connector` as root, else `$XDG_STATE_HOME/harborforge-connector`"),
        "the path of a directory",
        "queue and state; made with mode 0700";
    ControlSocket "control_socket" Restart Described("`control.sock` in `RUNTIME_DIRECTORY` under systemd, else in `/run/harborforge-connector` as root, else in `$XDG_RUNTIME_DIR/harborforge-connector`"),
        "a path of at most 107 bytes",
        "the Unix socket through which commands talk to the daemon";
    QueueMaxBytes "queue_max_bytes" Queue Text("256MiB"),
        "a size such as \"256MiB\", at least 1MiB",
        "sample bytes kept for sending, up to three times as much on disk; beyond either the oldest go, counted and announced";
    QueueMaxAge "queue_max_age" Queue Text("none"),
        "a duration such as \"30d\", 1s to 10years, or \"none\"",
        "unsent samples older than this are dropped, counted and announced; time switched off does not count";
    RetainSent "retain_sent" Queue Text("24h"),
        "a duration such as \"24h\", at most 1year, or 0 to turn it off",
        "how long delivered samples are kept, to be delivered again on request";
    RetainSentMaxBytes "retain_sent_max_bytes" Queue Text("32MiB"),
        "a size such as \"32MiB\"",
        "bytes of delivered samples kept; the oldest go";
    RejectedMaxBytes "rejected_max_bytes" Queue Text("64MiB"),
        "a size such as \"64MiB\"",
        "bytes of rejected samples kept; the oldest go";
    QuarantineMaxBytes "quarantine_max_bytes" Queue Text("256MiB"),
        "a size such as \"256MiB\"",
        "bytes of broken queue files kept for inspection; the oldest go";
    CaFile "ca_file" Endpoint Described("the system's roots alone"),
        "the path of a PEM file",
        "trust anchors in addition to the system's";
    PublicKeySha256 "public_key_sha256" Endpoint Described("none"),
        "64 hexadecimal digits",
        "pin of the Monitor's RSA key: SHA-256 of its SubjectPublicKeyInfo in DER";
    AllowInsecure "allow_insecure" Endpoint Text("false"),
        "true or false",
        "permit plain http to a host that is not loopback; never with an API key, with a challenge only together with public_key_sha256";
    Proxy "proxy" Endpoint Described("`HTTPS_PROXY` or `HTTP_PROXY`, unless `NO_PROXY` names the host"),
        "http://[user:password@]host:port, or \"none\"",
        "HTTP CONNECT proxy; none ignores the environment";
    Transport "transport" Endpoint Text("auto"),
        "auto, websocket or http",
        "auto is the WebSocket with the heartbeat as its fallback; an API key allows the heartbeat alone";
    DiskPath "disk_path" Collector Text("/"),
        "an absolute path",
        "the file system that disk_pct speaks of";
    RootFs "root_fs" Collector Text("/"),
        "an absolute path",
        "where the host's root is mounted, as in a container; disk_path, nginx and /proc are looked up in it";
    Scope "scope" Collector Text("host"),
        "host or cgroup",
        "what cpu_pct and mem_pct speak of";
    ReportNginx "report_nginx" Collector Text("false"),
        "true or false",
        "nginx_installed and nginx_sites in the telemetry";
    OpenClaw "openclaw" Collector Text("auto"),
        "auto or off",
        "whether OpenClaw is looked for";
    OpenClawHome "openclaw_home" Collector Described("found by themselves"),
        "a list of paths such as [\"/home/claw/.openclaw\"]",
        "OpenClaw's state directories to read";
    BridgeListen "bridge_listen" Bridge Text("off"),
        "a loopback address with port such as \"127.0.0.1:9100\", or \"off\"",
        "where OpenClaw plugins and Prometheus reach the connector";
}

impl Key {
    /// The key with this name in the file.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|key| key.name() == name)
    }

    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(self) -> String {
        format!("{PREFIX}{}", self.name().to_ascii_uppercase())
    }

    /// Whether its value is a secret, which stands in no error, log or process list.
    #[must_use]
    pub fn is_secret(self) -> bool {
        matches!(self, Self::ChallengeUuid | Self::ApiKey)
    }

    /// The known key most like `name`, if one is like it enough to be meant.
    #[must_use]
    pub fn nearest(name: &str) -> Option<Self> {
        /// Beyond it nothing is like a key, and comparing takes long.
        const LONGEST: usize = 64;
        if name.len() > LONGEST {
            return None;
        }
        let wanted = snake_case(name);
        let tolerance = (wanted.chars().count() / 3).max(2);
        Self::ALL
            .iter()
            .map(|key| (strsim::damerau_levenshtein(&wanted, key.name()), *key))
            .filter(|(distance, _)| *distance <= tolerance)
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, key)| key)
    }
}

/// What the environment variables of all keys begin with.
pub(super) const PREFIX: &str = "HARBORFORGE_";

/// `reportInterval` and `report-interval` as `report_interval`.
fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut before = '_';
    for c in name.chars() {
        if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
            out.push('_');
        }
        out.push(if c == '-' { '_' } else { c.to_ascii_lowercase() });
        before = c;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_across_typos_and_spellings() {
        for (typed, meant) in [
            ("backend_ulr", "backend_url"),
            ("reprot_interval", "report_interval"),
            ("reportIntervalSec", "report_interval_sec"),
            ("report-interval", "report_interval"),
            ("LOG_LEVEL", "log_level"),
            ("challange_uuid", "challenge_uuid"),
            ("ca-file", "ca_file"),
        ] {
            assert_eq!(Key::nearest(typed).map(Key::name), Some(meant), "{typed}");
        }
        assert_eq!(Key::nearest("colour"), None);
        assert_eq!(Key::nearest(""), None);
    }

    #[test]
    fn names_are_unique_and_lower_case() {
        for key in Key::ALL {
            assert_eq!(Key::from_name(key.name()), Some(*key));
            assert_eq!(key.name(), key.name().to_ascii_lowercase());
        }
    }
}
