//! What `enroll` is going to write: which files, with which text. Pure but for what
//! `sources.files` reads.
//!
//! Invariants:
//! - A plan exists only if the configuration it leads to holds as a whole: [`super::load()`] reads
//!   it from the planned texts before anything is written.
//! - A secret goes where the configuration has it: into the file that `challenge_uuid_file` or
//!   `api_key_file` names, else into the configuration itself. Only where that has none yet and a
//!   group may read it, it goes into a file beside it, which no group reads, and the configuration
//!   comes to name that: who may look at the queue need not know the secret. The keys of the other
//!   mode are commented out, since both modes at once are an error.
//! - A file that holds a secret afterwards is one that others cannot read.

use std::io;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::error::{ConfigError, ConfigErrors, Origin, Problem, Warning};
use super::keys::Key;
use super::load::{self, Loaded, Need, load};
use super::settings::Setting;
use super::sources::{FileText, Files, Sources};
use super::{Credential, EXAMPLE, edit, file, paths, value};

/// The mode of a file that is made.
const NEW: u32 = 0o600;
/// Whatever others may do with a file.
const OTHERS: u32 = 0o007;

/// What is to be changed.
#[derive(Debug, Default)]
pub struct Wish {
    /// The Monitor's base URL.
    pub backend_url: Option<String>,
    /// This server's name.
    pub identifier: Option<String>,
    /// The challenge or the API key.
    pub credential: Option<Credential>,
}

/// What is to be written, and what it leads to.
pub struct Plan {
    /// The files that change, in the order they are to be written; those that are right already
    /// are not among them.
    pub files: Vec<PlannedFile>,
    /// The configuration as it will be.
    pub loaded: Loaded,
    /// Values of this process's own surroundings that come before what is written.
    pub overridden: Vec<Warning>,
}

/// A file that changes.
pub struct PlannedFile {
    /// The file, as the configuration or the user names it.
    pub path: PathBuf,
    /// What stands in it now; `None` when there is none.
    pub before: Option<Zeroizing<String>>,
    /// What will.
    pub after: Zeroizing<String>,
    /// The keys that this sets.
    pub set: Vec<Key>,
    /// The keys that are commented out.
    pub unset: Vec<Key>,
    /// It holds a secret afterwards.
    pub private: bool,
    /// It holds the secret and nothing else: the daemon alone has to read it.
    pub secret: bool,
}

/// Plans the change of the configuration file that [`load()`] would read, or of the one it would
/// look for.
///
/// # Errors
/// All faults of the file as it is or as it would be.
pub fn plan(sources: &Sources<'_>, wish: &Wish) -> Result<Plan, ConfigErrors> {
    let (path, before) = target(sources).map_err(only)?;
    let text = before.as_ref().map_or(EXAMPLE, |before| before.text.as_str());
    let (settings, faults) = file::parse(&path, text);
    if !faults.is_empty() {
        return Err(ConfigErrors(faults));
    }
    let mut draft = Draft::new(&path, text);
    if let Some(url) = &wish.backend_url {
        draft.set(Key::BackendUrl, url)?;
    }
    if let Some(name) = &wish.identifier {
        draft.set(Key::Identifier, name)?;
    }
    let mut files = Vec::new();
    if let Some(credential) = &wish.credential {
        let (inline, own_file, others) = keys_of(credential);
        let named = settings.iter().find(|setting| setting.key == own_file);
        let inside = settings.iter().any(|setting| setting.key == inline);
        let shared = !inside && before.as_ref().is_some_and(|before| before.shared);
        match named {
            Some(setting) => {
                let base = load::base(setting, Some(&path));
                let own_path =
                    value::path(&setting.raw, &base).ok_or_else(|| only(setting.value_error()))?;
                files.extend(own(own_path, credential, sources, |problem| setting.error(problem))?);
            }
            None if shared => {
                let own_path = path.with_file_name(inline.name());
                files.extend(own(own_path, credential, sources, |problem| {
                    let origin = Origin::Path(path.clone());
                    ConfigError { origin, key: Some(own_file.name().into()), problem }
                })?);
                // Relative to the configuration, so that both can be moved together.
                draft.set(own_file, inline.name())?;
            }
            None => draft.set(inline, secret_of(credential))?,
        }
        for other in others {
            draft.unset(other)?;
        }
    }
    if before.is_none() || draft.text.as_str() != text {
        let (settings, _) = file::parse(&path, &draft.text);
        files.push(PlannedFile {
            path: path.clone(),
            private: settings.iter().any(Setting::holds_secret),
            secret: false,
            before: before.as_ref().map(|before| before.text.clone()),
            after: draft.text,
            set: draft.set,
            unset: draft.unset,
        });
    }
    let overlay = Overlay { files: &files, below: sources.files };
    let then = Sources {
        flags: sources.flags.clone(),
        env: sources.env.clone(),
        host_name: sources.host_name.clone(),
        uid: sources.uid,
        files: &overlay,
    };
    let loaded = load(&then, Need::Backend)?;
    let overridden = overridden(&loaded, wish);
    Ok(Plan { files, loaded, overridden })
}

fn only(error: ConfigError) -> ConfigErrors {
    ConfigErrors(vec![error])
}

/// The file to be changed, and what stands in it.
fn target(sources: &Sources<'_>) -> Result<(PathBuf, Option<FileText>), ConfigError> {
    let search = file::search(sources);
    if file::is_json(&search.path) {
        let origin = Origin::Path(search.path);
        return Err(ConfigError { origin, key: None, problem: Problem::JsonNotWritten });
    }
    match search.error {
        Some(ConfigError { problem: Problem::Unreadable { error, .. }, .. })
            if error.kind() == io::ErrorKind::NotFound =>
        {
            Ok((search.path, None))
        }
        Some(error) => Err(error),
        None => Ok(match search.found {
            Some(found) => (found.path, Some(found.content)),
            // Nobody's own is there yet: a user gets one of his own, root the system's.
            None => (paths::user_config(sources).unwrap_or(search.path), None),
        }),
    }
}

/// The key of a credential, the one that names a file for it, and those of the other mode.
fn keys_of(credential: &Credential) -> (Key, Key, [Key; 2]) {
    let challenge = (Key::ChallengeUuid, Key::ChallengeUuidFile);
    let api_key = (Key::ApiKey, Key::ApiKeyFile);
    let ((inline, file), other) = match credential {
        Credential::Challenge(_) => (challenge, api_key),
        Credential::ApiKey(_) => (api_key, challenge),
    };
    (inline, file, [other.0, other.1])
}

fn secret_of(credential: &Credential) -> &str {
    credential.secret().expose_secret()
}

/// The secret in a file of its own; `None` when it stands there already.
fn own(
    path: PathBuf,
    credential: &Credential,
    sources: &Sources<'_>,
    fault: impl FnOnce(Problem) -> ConfigError,
) -> Result<Option<PlannedFile>, ConfigErrors> {
    let before = match sources.files.read(&path) {
        Ok(content) => Some(content.text),
        Err(error) if file::is_absent(&error) => None,
        Err(error) => {
            return Err(only(fault(Problem::Unreadable { path, error, group: None })));
        }
    };
    let secret = secret_of(credential);
    if before.as_ref().is_some_and(|before| before.trim() == secret) {
        return Ok(None);
    }
    let mut after = Zeroizing::new(String::with_capacity(secret.len() + 1));
    after.push_str(secret);
    after.push('\n');
    let (set, unset) = (vec![keys_of(credential).0], Vec::new());
    Ok(Some(PlannedFile { path, before, after, set, unset, private: true, secret: true }))
}

/// What the environment or flags of this process say instead of what is written.
fn overridden(loaded: &Loaded, wish: &Wish) -> Vec<Warning> {
    let mut keys = Vec::new();
    keys.extend(wish.backend_url.as_ref().map(|_| Key::BackendUrl));
    keys.extend(wish.identifier.as_ref().map(|_| Key::Identifier));
    if let Some(credential) = &wish.credential {
        let (inline, file, _) = keys_of(credential);
        keys.extend([inline, file]);
    }
    let above = |key: &Key| {
        let origin = loaded.origins.get(key)?;
        (origin.layer() > 1).then(|| Warning {
            origin: origin.clone(),
            key: None,
            text: format!("comes before the file: what is written there for {} has no effect where this is set", key.name()),
        })
    };
    keys.iter().filter_map(above).collect()
}

/// The text of the configuration while it is changed.
struct Draft<'a> {
    path: &'a Path,
    text: Zeroizing<String>,
    set: Vec<Key>,
    unset: Vec<Key>,
}

impl<'a> Draft<'a> {
    fn new(path: &'a Path, text: &str) -> Self {
        let text = Zeroizing::new(text.to_owned());
        Self { path, text, set: Vec::new(), unset: Vec::new() }
    }

    fn set(&mut self, key: Key, value: &str) -> Result<(), ConfigErrors> {
        let next = edit::set(&self.text, key, value).map_err(|edit::NotToml| self.broken())?;
        if *next != *self.text {
            self.set.push(key);
        }
        self.text = next;
        Ok(())
    }

    fn unset(&mut self, key: Key) -> Result<(), ConfigErrors> {
        let next = edit::unset(&self.text, key).map_err(|edit::NotToml| self.broken())?;
        if *next != *self.text {
            self.unset.push(key);
        }
        self.text = next;
        Ok(())
    }

    /// Its form was found right before; should the two readers ever differ, nothing is written.
    fn broken(&self) -> ConfigErrors {
        let origin = Origin::Path(self.path.to_owned());
        let message = "it cannot be changed by a program, change it with an editor".to_owned();
        let found = "a form that is not understood".into();
        let problem = Problem::Syntax { language: "TOML", message, found };
        only(ConfigError { origin, key: None, problem })
    }
}

/// The files as they will be.
struct Overlay<'a> {
    files: &'a [PlannedFile],
    below: &'a dyn Files,
}

impl Files for Overlay<'_> {
    fn read(&self, path: &Path) -> io::Result<FileText> {
        let Some(planned) = self.files.iter().find(|planned| planned.path == path) else {
            return self.below.read(path);
        };
        let mode = match &planned.before {
            Some(_) => self.below.read(path)?.mode,
            None => NEW,
        };
        let mode = if planned.private { mode & !OTHERS } else { mode };
        Ok(FileText { text: planned.after.clone(), mode, shared: false })
    }
}
