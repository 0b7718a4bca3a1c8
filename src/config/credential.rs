//! The challenge or the API key: inline, in a file, or as a systemd credential.
//!
//! Within one mode the higher layer wins, so that the environment can override a file's
//! `challenge_uuid_file`. Both modes at once, in whatever layers, are an error: nobody could tell
//! which is meant. systemd credentials count only when nothing is configured.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::Credential;
use super::error::{ConfigError, Origin, Problem, Warning};
use super::file;
use super::keys::Key;
use super::settings::{Raw, Setting, Settings, conflict};
use super::sources::{FileText, Sources};
use super::value;

/// Permission bits that let others than owner and group read a file.
const READABLE_BY_OTHERS: u32 = 0o004;

/// One of the two modes.
#[derive(Clone, Copy)]
struct Kind {
    inline: Key,
    file: Key,
    accepts: fn(&str) -> bool,
    wrap: fn(SecretString) -> Credential,
}

const CHALLENGE: Kind = Kind {
    inline: Key::ChallengeUuid,
    file: Key::ChallengeUuidFile,
    accepts: value::is_uuid,
    wrap: Credential::Challenge,
};

const API_KEY: Kind = Kind {
    inline: Key::ApiKey,
    file: Key::ApiKeyFile,
    accepts: value::is_api_key,
    wrap: Credential::ApiKey,
};

/// The credential that counts, and where it came from.
pub(super) struct Chosen {
    pub(super) credential: Credential,
    pub(super) key: Key,
    pub(super) origin: Origin,
    /// The file it was read from, to be looked at again for a change.
    pub(super) file: Option<PathBuf>,
}

/// Finds the credential; `Ok(None)` when none is configured.
pub(super) fn choose(
    settings: &Settings,
    base: &dyn Fn(&Setting) -> PathBuf,
    sources: &Sources<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Chosen>, Vec<ConfigError>> {
    let pick = |kind: Kind| settings.either(kind.inline, kind.file);
    let chosen = match (pick(CHALLENGE), pick(API_KEY)) {
        (Ok(None), Ok(None)) => return of_systemd(sources),
        (Ok(Some(setting)), Ok(None)) => configured(CHALLENGE, setting, base, sources),
        (Ok(None), Ok(Some(setting))) => configured(API_KEY, setting, base, sources),
        (Ok(Some(challenge)), Ok(Some(api_key))) => Err(conflict(api_key, challenge)),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        (Err(one), Err(other)) => return Err(vec![one, other]),
    };
    let chosen = chosen.map_err(|error| vec![error])?;
    warn_of_unused(&chosen, sources, warnings);
    Ok(Some(chosen))
}

fn configured(
    kind: Kind,
    setting: &Setting,
    base: &dyn Fn(&Setting) -> PathBuf,
    sources: &Sources<'_>,
) -> Result<Chosen, ConfigError> {
    if setting.key == kind.inline {
        let text = value::text(&setting.raw).filter(|text| (kind.accepts)(text));
        let text = text.ok_or_else(|| setting.value_error())?;
        return Ok(Chosen {
            credential: (kind.wrap)(SecretString::from(text)),
            key: kind.inline,
            origin: setting.origin.clone(),
            file: None,
        });
    }
    let path = value::path(&setting.raw, &base(setting)).ok_or_else(|| setting.value_error())?;
    let content = sources.files.read(&path).map_err(|error| {
        setting.error(Problem::Unreadable { path: path.clone(), error, group: None })
    })?;
    let credential = of_file(kind, &path, &content).map_err(|problem| setting.error(problem))?;
    let origin = setting.origin.clone();
    Ok(Chosen { credential, key: kind.file, origin, file: Some(path) })
}

/// The secret in a file of its own: one line, spaces and the line's end around it do not count.
fn of_file(kind: Kind, path: &Path, content: &FileText) -> Result<Credential, Problem> {
    exposed(path, content.mode)?;
    let text = content.text.trim();
    if (kind.accepts)(text) {
        Ok((kind.wrap)(SecretString::from(text)))
    } else {
        let found = Raw::Text(Zeroizing::new(text.to_owned())).describe(kind.inline);
        Err(Problem::Value {
            found: format!("{found} in {}", path.display()),
            expected: kind.inline.values().into(),
        })
    }
}

/// Refuses a file with a secret that everybody can read.
pub(super) fn exposed(path: &Path, mode: u32) -> Result<(), Problem> {
    if mode & READABLE_BY_OTHERS == 0 {
        Ok(())
    } else {
        Err(Problem::Exposed { path: path.to_owned(), mode: mode & 0o7777 })
    }
}

/// What systemd left in `$CREDENTIALS_DIRECTORY`.
fn of_systemd(sources: &Sources<'_>) -> Result<Option<Chosen>, Vec<ConfigError>> {
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for kind in [CHALLENGE, API_KEY] {
        let Some(path) = systemd_path(kind, sources) else { continue };
        let result = match sources.files.read(&path) {
            Ok(content) => of_file(kind, &path, &content),
            Err(error) if file::is_absent(&error) => continue,
            Err(error) => Err(Problem::Unreadable { path: path.clone(), error, group: None }),
        };
        let origin = Origin::Path(path.clone());
        match result {
            Ok(credential) => {
                found.push(Chosen { credential, key: kind.inline, origin, file: Some(path) });
            }
            Err(problem) => {
                errors.push(ConfigError { origin, key: Some(kind.inline.name().into()), problem });
            }
        }
    }
    let second = if found.len() > 1 { found.pop() } else { None };
    let first = found.pop();
    if let (Some(first), Some(second)) = (&first, second) {
        errors.push(ConfigError {
            origin: second.origin,
            key: Some(second.key.name().into()),
            problem: Problem::Conflict {
                other: first.key.name(),
                other_origin: first.origin.clone(),
            },
        });
    }
    if errors.is_empty() { Ok(first) } else { Err(errors) }
}

fn systemd_path(kind: Kind, sources: &Sources<'_>) -> Option<PathBuf> {
    Some(sources.path_var("CREDENTIALS_DIRECTORY")?.join(kind.inline.name()))
}

fn warn_of_unused(chosen: &Chosen, sources: &Sources<'_>, warnings: &mut Vec<Warning>) {
    for kind in [CHALLENGE, API_KEY] {
        let Some(path) = systemd_path(kind, sources) else { continue };
        if chosen.file.as_ref() != Some(&path) && sources.files.read(&path).is_ok() {
            let text =
                format!("this systemd credential is not used, since {} is set", chosen.key.name());
            warnings.push(Warning { origin: Origin::Path(path), key: None, text });
        }
    }
}
