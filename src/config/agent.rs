//! The names under which HarborForge.Monitor, the platform's own agent, is configured: the keys of
//! its `config.json` and its environment variables. Who swaps that agent for this connector keeps
//! both (docs/MIGRATING.md).
//!
//! Invariants:
//! - Each name stands for one [`Key`], and its value is checked as that key's is.
//! - Its variables come before a file and after `HARBORFORGE_*`.
//! - As in the agent, an empty variable counts as not set.

use super::error::{ConfigError, Origin, Problem, Warning};
use super::keys::Key;
use super::settings::{Raw, Setting};
use super::sources::Sources;

/// What the agent's environment variables begin with; the spelling is its own.
pub(super) const PREFIX: &str = "HF_MONITER_";

/// A setting of the agent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    /// Its key in `config.json`.
    pub(super) json: &'static str,
    /// Its environment variable.
    pub(super) variable: &'static str,
    /// What it is here.
    pub(super) key: Key,
}

/// Every setting of the agent.
pub(super) const NAMES: &[Name] = &[
    name("backendUrl", "HF_MONITER_BACKEND_URL", Key::BackendUrl),
    name("identifier", "HF_MONITER_IDENTIFIER", Key::Identifier),
    name("apiKey", "HF_MONITER_API_KEY", Key::ApiKey),
    name("reportIntervalSec", "HF_MONITER_REPORT_INTERVAL", Key::ReportIntervalSec),
    name("logLevel", "HF_MONITER_LOG_LEVEL", Key::LogLevel),
    name("rootFs", "HF_MONITER_ROOTFS", Key::RootFs),
    name("monitorPort", "MONITOR_PORT", Key::BridgeListen),
];

const fn name(json: &'static str, variable: &'static str, key: Key) -> Name {
    Name { json, variable, key }
}

/// The agent's key for one of ours, for advice about its file.
pub(super) fn json_name(key: Key) -> Option<&'static str> {
    NAMES.iter().find(|name| name.key == key).map(|name| name.json)
}

/// The agent's key most like `typed`, in whatever way that is written.
pub(super) fn nearest(typed: &str) -> Option<&'static str> {
    /// Beyond it nothing is like a key, and comparing takes long.
    const LONGEST: usize = 64;
    let plain = |text: &str| text.replace(['_', '-'], "").to_ascii_lowercase();
    let wanted = plain(typed);
    if typed.len() > LONGEST {
        return None;
    }
    let tolerance = (wanted.chars().count() / 3).max(2);
    NAMES
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&wanted, &plain(name.json)), name.json))
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, json)| json)
}

/// The setting that a value makes.
///
/// # Errors
/// For a port that is none; all other values are judged with the key they stand for.
pub(super) fn setting(name: Name, raw: Raw, origin: Origin) -> Result<Setting, ConfigError> {
    let setting = Setting { name: name.json, ..Setting::new(name.key, raw, origin) };
    if name.key != Key::BridgeListen {
        return Ok(setting);
    }
    match listen(&setting.raw) {
        Some(raw) => Ok(Setting { raw, ..setting }),
        None => Err(setting.value_error_with("a port, 1 to 65535, or 0 for none")),
    }
}

/// The agent listens for its plugin on a port of its own choice; here on loopback.
fn listen(raw: &Raw) -> Option<Raw> {
    let port: u16 = match raw {
        Raw::Integer(number) => u16::try_from(*number).ok()?,
        Raw::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
        Raw::Text(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Other(_) => return None,
    };
    Some(match port {
        0 => Raw::text("off"),
        port => Raw::text(format!("127.0.0.1:{port}")),
    })
}

/// The settings of the agent's variables.
pub(super) fn of_environment(
    sources: &Sources<'_>,
    errors: &mut Vec<ConfigError>,
    warnings: &mut Vec<Warning>,
) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (variable, value) in sources.env.iter().filter(|(_, value)| !value.is_empty()) {
        let origin = Origin::Environment(variable.clone());
        let Some(name) = NAMES.iter().find(|name| name.variable == variable) else {
            if let Some(rest) = variable.strip_prefix(PREFIX) {
                let meant = nearest(rest)
                    .and_then(|json| NAMES.iter().find(|name| name.json == json))
                    .map_or_else(String::new, |name| format!("; did you mean {}?", name.variable));
                let text = format!("no such setting, it has no effect{meant}");
                warnings.push(Warning { origin, key: None, text });
            }
            continue;
        };
        let Some(text) = value.to_str() else {
            let found = "a value that is not UTF-8".into();
            let expected = name.key.values().into();
            let problem = Problem::Value { found, expected };
            errors.push(ConfigError { origin, key: Some(name.json.into()), problem });
            continue;
        };
        // Kubernetes sets such a variable in every pod beside a service that is called `monitor`.
        if name.key == Key::BridgeListen && text.contains("://") {
            let text = "an address as Kubernetes sets it for a service called monitor, and no \
                        port: it has no effect; set HARBORFORGE_BRIDGE_LISTEN if a bridge is meant";
            warnings.push(Warning { origin, key: None, text: text.into() });
            continue;
        }
        match setting(*name, Raw::text(text), origin) {
            Ok(setting) => settings.push(setting),
            Err(error) => errors.push(error),
        }
    }
    settings
}
