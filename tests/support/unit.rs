//! The environment in which the systemd unit starts the daemon.

const UNIT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/harborforge-connector.service"));

/// Its variables and their values.
pub fn environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    UNIT.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('='))
}
