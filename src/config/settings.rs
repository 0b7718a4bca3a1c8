//! Settings as they were written, layer by layer, before anything is made of them.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::error::{ConfigError, Origin, Problem, Warning};
use super::keys::{Fallback, Key, PREFIX};
use super::sources::Sources;

/// A value as it was written. Texts are wiped when dropped, since some are secrets.
#[derive(Clone)]
pub(super) enum Raw {
    /// A string of the file, or any value of the environment or a flag.
    Text(Zeroizing<String>),
    /// An integer of the file.
    Integer(i64),
    /// A boolean of the file.
    Boolean(bool),
    /// A list of strings.
    List(Vec<String>),
    /// What no key takes, with its description for an error.
    Other(&'static str),
}

impl Raw {
    /// A text value.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(Zeroizing::new(text.into()))
    }

    /// The value for an error message; that of a secret key is only described.
    pub(super) fn describe(&self, key: Key) -> String {
        match self {
            Self::Text(text) if key.is_secret() => {
                format!("a text of {} characters", text.chars().count())
            }
            // A URL may hold a password before its host.
            Self::Text(text) if text.contains('@') && text.contains(':') => {
                "a text with user name or password (not shown)".into()
            }
            Self::Text(text) => quoted(text),
            Self::Integer(_) if key.is_secret() => "an integer".into(),
            Self::Integer(number) => format!("the integer {number}"),
            Self::Boolean(value) => value.to_string(),
            Self::List(_) => "a list".into(),
            Self::Other(what) => (*what).into(),
        }
    }
}

/// A text in quotes, control characters escaped, cut to what fits a line.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    let cut: String = text.chars().take(SHOWN).collect();
    format!("{cut:?}...")
}

/// One key set by one layer.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) key: Key,
    /// The key as the user wrote it, for errors.
    pub(super) name: &'static str,
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

impl Setting {
    /// A setting under the key's own name.
    pub(super) fn new(key: Key, raw: Raw, origin: Origin) -> Self {
        Self { key, name: key.name(), raw, origin }
    }

    /// Whether the value itself is to be kept from others: a challenge, a key, or a proxy's URL
    /// with a password.
    pub(super) fn holds_secret(&self) -> bool {
        let proxy_with_password =
            self.key == Key::Proxy && matches!(&self.raw, Raw::Text(text) if text.contains('@'));
        self.key.is_secret() || proxy_with_password
    }

    /// An error about this setting.
    pub(super) fn error(&self, problem: Problem) -> ConfigError {
        ConfigError { origin: self.origin.clone(), key: Some(self.name.into()), problem }
    }

    /// An error about its value.
    pub(super) fn value_error(&self) -> ConfigError {
        self.value_error_with(self.key.values())
    }

    /// An error about its value, with an expectation other than the key's own.
    pub(super) fn value_error_with(&self, expected: impl Into<String>) -> ConfigError {
        self.error(Problem::Value { found: self.raw.describe(self.key), expected: expected.into() })
    }
}

/// The setting that counts for each key.
#[derive(Default)]
pub(super) struct Settings {
    effective: BTreeMap<Key, Setting>,
}

impl Settings {
    /// The built-in defaults.
    pub(super) fn defaults() -> Self {
        let mut settings = Self::default();
        for key in Key::ALL {
            if let Fallback::Text(text) = key.fallback() {
                settings.put(Setting::new(*key, Raw::text(text), Origin::Default));
            }
        }
        settings
    }

    /// Sets a key, over what a layer before it said.
    pub(super) fn put(&mut self, setting: Setting) {
        self.effective.insert(setting.key, setting);
    }

    pub(super) fn get(&self, key: Key) -> Option<&Setting> {
        self.effective.get(&key)
    }

    pub(super) fn origins(&self) -> BTreeMap<Key, Origin> {
        self.effective.values().map(|setting| (setting.key, setting.origin.clone())).collect()
    }

    /// Of two keys that say the same thing in two ways, the one of the higher layer.
    ///
    /// # Errors
    /// A conflict when one layer sets both.
    pub(super) fn either(&self, one: Key, other: Key) -> Result<Option<&Setting>, ConfigError> {
        match (self.get(one), self.get(other)) {
            (None, None) => Ok(None),
            (Some(setting), None) | (None, Some(setting)) => Ok(Some(setting)),
            (Some(a), Some(b)) => match a.origin.layer().cmp(&b.origin.layer()) {
                std::cmp::Ordering::Greater => Ok(Some(a)),
                std::cmp::Ordering::Less => Ok(Some(b)),
                std::cmp::Ordering::Equal => Err(conflict(a, b)),
            },
        }
    }
}

/// Two settings that exclude each other.
pub(super) fn conflict(setting: &Setting, other: &Setting) -> ConfigError {
    setting.error(Problem::Conflict { other: other.name, other_origin: other.origin.clone() })
}

/// The settings of our own variables of the environment.
pub(super) fn of_environment(
    sources: &Sources<'_>,
    errors: &mut Vec<ConfigError>,
    warnings: &mut Vec<Warning>,
) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (variable, value) in &sources.env {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        let origin = Origin::Environment(variable.clone());
        let Some(key) = Key::ALL.iter().copied().find(|key| key.variable() == *variable) else {
            if name != "CONFIG" {
                let meant = Key::nearest(name)
                    .map_or_else(String::new, |key| format!("; did you mean {}?", key.variable()));
                let text = format!("no such key, it has no effect{meant}");
                warnings.push(Warning { origin, key: None, text });
            }
            continue;
        };
        match value.to_str() {
            Some(text) => settings.push(Setting::new(key, Raw::text(text), origin)),
            None => errors.push(ConfigError {
                origin,
                key: Some(key.name().into()),
                problem: Problem::Value {
                    found: "a value that is not UTF-8".into(),
                    expected: key.values().into(),
                },
            }),
        }
    }
    settings
}

/// The settings of the command line. A secret is refused there, since everybody on the machine
/// can read a process's arguments.
pub(super) fn of_flags(sources: &Sources<'_>, errors: &mut Vec<ConfigError>) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (name, value) in &sources.flags.set {
        let origin = Origin::Flag(name.clone());
        let Some(key) = Key::from_name(name) else {
            let suggestion = Key::nearest(name).map(|key| key.name().to_owned());
            let problem = Problem::UnknownKey { suggestion };
            errors.push(ConfigError { origin, key: None, problem });
            continue;
        };
        let setting = Setting::new(key, Raw::text(value.as_str()), origin);
        if setting.holds_secret() {
            errors.push(setting.value_error_with(format!(
                "no secret on the command line, where everybody can read it; use {} or the \
                 configuration file",
                key.variable()
            )));
        } else {
            settings.push(setting);
        }
    }
    settings
}
