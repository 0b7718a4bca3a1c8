//! What can be wrong with a configuration, in words a person can act on.
//!
//! Invariant: no text made here holds a secret; whoever builds a [`Problem`] passes a
//! description of a secret's value, never the value.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::agent;
use super::keys::PREFIX;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in default.
    Default,
    /// A line of a file; the first is 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// A whole file.
    Path(PathBuf),
    /// An environment variable.
    Environment(String),
    /// `--set` on the command line.
    Flag(String),
}

impl Origin {
    /// The layer: a higher one overrides a lower one.
    pub(super) fn layer(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } | Self::Path(_) => 1,
            // HarborForge.Monitor's variables come before ours.
            Self::Environment(variable) if !variable.starts_with(PREFIX) => 2,
            Self::Environment(_) => 3,
            Self::Flag(_) => 4,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::Flag(key) => write!(f, "--set {key}"),
        }
    }
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file is not TOML or JSON here.
    #[error("not valid {language}: {message}, found {found}")]
    Syntax {
        /// What it should be.
        language: &'static str,
        /// What the parser says, static texts only.
        message: String,
        /// What stands there.
        found: String,
    },
    /// A key nobody knows.
    #[error("unknown key{}", did_you_mean(suggestion.as_deref()))]
    UnknownKey {
        /// The nearest known name.
        suggestion: Option<String>,
    },
    /// A key that `config.json` does not have.
    #[error("unknown key{}", one_of_json(suggestion.as_deref()))]
    UnknownJsonKey {
        /// The nearest known name.
        suggestion: Option<String>,
    },
    /// A value of the wrong type, form or range.
    #[error("found {found}, expected {expected}")]
    Value {
        /// The value, or a description of it when it is secret.
        found: String,
        /// What is permitted.
        expected: String,
    },
    /// A key a command cannot do without.
    #[error("not set, expected {expected}")]
    Missing {
        /// What is permitted, and how to set it.
        expected: String,
    },
    /// Two keys of which only one may be set.
    #[error("set together with {other} ({other_origin}), expected only one of the two")]
    Conflict {
        /// The other key.
        other: &'static str,
        /// Where the other one is set.
        other_origin: Origin,
    },
    /// Each value is permitted, both together are not.
    #[error("found {found}, {rule}")]
    Rule {
        /// The value.
        found: String,
        /// What the rule says and what to do.
        rule: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {error}{}", path.display(), hint(error, group.as_deref()))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
        /// The group that may read it, as far as that can be seen.
        group: Option<String>,
    },
    /// A secret that everybody on the machine can read.
    #[error("{} holds a secret and has mode {mode:04o}, so that others can read it; type: chmod o-rwx {}", path.display(), shell_quoted(path))]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A kind of file that is not written.
    #[error(
        "a .json configuration is not written by enroll: change it with an editor, or name a TOML file with --config"
    )]
    JsonNotWritten,
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(
        || ", expected one of the keys of docs/CONFIGURATION.md".into(),
        |name| format!(", did you mean {name}?"),
    )
}

fn one_of_json(suggestion: Option<&str>) -> String {
    if let Some(name) = suggestion {
        return format!(", did you mean {name}?");
    }
    let names: Vec<_> = agent::NAMES.iter().map(|name| name.json).collect();
    format!(
        ", expected one of {}; all else is set in a TOML file, in the environment or by --set",
        names.join(", ")
    )
}

fn hint(error: &io::Error, group: Option<&str>) -> String {
    match group {
        _ if error.kind() != io::ErrorKind::PermissionDenied => String::new(),
        Some(group) => format!(
            "; join the group {group} (sudo usermod -aG {group} \"$USER\", then log in again), or \
             use sudo"
        ),
        None => "; run as the user that may read it, or use sudo".to_owned(),
    }
}

/// A path as it can be pasted into a shell.
pub(crate) fn shell_quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c)) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// One fault: where, which key, what.
#[derive(Debug)]
pub struct ConfigError {
    /// Where it stands. [`Origin::Default`] when nothing was set anywhere.
    pub origin: Origin,
    /// The key, as written.
    pub key: Option<String>,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        self.problem.fmt(f)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The causes stand in the text already; repeating one in a chain would print it twice.
        None
    }
}

/// All faults of a configuration, never empty, in the order of the layers and lines.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Something permitted that is probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where it stands.
    pub origin: Origin,
    /// The key, when it concerns one.
    pub key: Option<&'static str>,
    /// What, and what to do.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        if let Some(key) = self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.text)
    }
}
