//! A credential that was handed to the running daemon and that its configuration does not have:
//! the file may not be readable for it, or a systemd credential is fixed until the restart.
//!
//! Invariants: `enrolled.json` in `data_dir` is replaced as a whole and durably, before the
//! credential is used, and only its owner may read it. It holds a fingerprint of the configured
//! credential that it stands in for, and its Monitor: it is preferred as long as both are what they
//! were, never sent to another Monitor, and dropped once the configured credential has changed.
//! No text made here holds a secret.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::config::{Config, Credential};
use crate::replace::{self, New, ReplaceError};

const FILE: &str = "enrolled.json";
/// No such file has more bytes.
const MOST: u64 = 64 * 1024;

/// A credential that stands in for the configured one.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// What is used.
    pub credential: Credential,
    /// The Monitor it is for: its base URL.
    backend_url: String,
    /// The fingerprint of the configured credential it stands in for.
    replaces: String,
}

/// What an enrolled credential is worth beside a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is to be used.
    Preferred,
    /// The configuration has the same one: it has done its work.
    CaughtUp,
    /// The configured credential has changed since, and counts again.
    Superseded,
    /// It was given for another Monitor.
    Elsewhere,
}

/// A configuration with the credential that counts, and the standing of the enrolled one.
pub type Weighed = (Arc<Config>, Option<Standing>);

impl Enrolled {
    /// A credential to be used in place of the one that `configured` has; `None` when there is
    /// nothing it could stand in for.
    #[must_use]
    pub fn new(credential: Credential, configured: &Config) -> Option<Self> {
        Some(Self {
            credential,
            backend_url: configured.backend_url.as_ref()?.to_string(),
            replaces: fingerprint(configured.credential.as_ref()?),
        })
    }

    /// What it is worth now.
    #[must_use]
    pub fn standing(&self, configured: &Config) -> Standing {
        let Some(credential) = &configured.credential else { return Standing::Preferred };
        if self.credential.is_same(credential) {
            Standing::CaughtUp
        } else if self.replaces != fingerprint(credential) {
            Standing::Superseded
        } else if configured.backend_url.as_ref().is_none_or(|url| url.as_str() != self.backend_url)
        {
            Standing::Elsewhere
        } else {
            Standing::Preferred
        }
    }

    /// The configuration with the credential that counts, and what the enrolled one is worth
    /// beside it; nothing is changed by looking. `None` when there is none.
    ///
    /// # Errors
    /// As for [`load`](Self::load): the configured credential counts then.
    pub fn weigh(configured: &Arc<Config>, data_dir: &Path) -> io::Result<Weighed> {
        let as_configured = || configured.clone();
        let Some(enrolled) = Self::load(data_dir)? else { return Ok((as_configured(), None)) };
        let standing = enrolled.standing(configured);
        let config = match standing {
            Standing::Preferred => {
                let credential = Some(enrolled.credential);
                Arc::new(Config { credential, ..(**configured).clone() })
            }
            Standing::CaughtUp | Standing::Superseded | Standing::Elsewhere => as_configured(),
        };
        Ok((config, Some(standing)))
    }

    /// What is kept in a data directory; `None` when nothing is.
    ///
    /// # Errors
    /// When there is something that cannot be read or understood.
    pub fn load(data_dir: &Path) -> io::Result<Option<Self>> {
        let path = path(data_dir);
        let size = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        if size > MOST {
            return Err(invalid("it is too large"));
        }
        let text = Zeroizing::new(fs::read(&path)?);
        // The parser's own words may quote what it reads.
        let kept: Kept = serde_json::from_slice(&text).map_err(|_| invalid("it is broken"))?;
        let Kept { backend_url, replaces, challenge_uuid, api_key } = kept;
        let (challenge, key) = (challenge_uuid.map(Zeroizing::new), api_key.map(Zeroizing::new));
        let credential = match (challenge, key) {
            (Some(challenge), None) => Credential::challenge(&challenge),
            (None, Some(key)) => Credential::api_key(&key),
            (Some(_), Some(_)) | (None, None) => None,
        };
        let credential = credential.ok_or_else(|| invalid("it holds no credential"))?;
        Ok(Some(Self { credential, backend_url, replaces }))
    }

    /// Keeps it, durably.
    ///
    /// # Errors
    /// When the file cannot be replaced; the old one is as it was then.
    pub fn write(&self, data_dir: &Path) -> Result<(), ReplaceError> {
        let secret = self.credential.secret().expose_secret();
        let (challenge_uuid, api_key) = match self.credential {
            Credential::Challenge(_) => (Some(secret), None),
            Credential::ApiKey(_) => (None, Some(secret)),
        };
        let (backend_url, replaces) = (self.backend_url.as_str(), self.replaces.as_str());
        let written = Written { backend_url, replaces, challenge_uuid, api_key };
        let path = path(data_dir);
        let text = serde_json::to_vec(&written).map_err(|error| ReplaceError::Io {
            what: "write",
            path: path.clone(),
            source: error.into(),
        })?;
        let text = Zeroizing::new(text);
        replace::replace(&path, New { text: &text, before: None, private: true, owner: None })
            .map(drop)
    }

    /// Removes what is kept.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn forget(data_dir: &Path) -> io::Result<()> {
        replace::remove(&path(data_dir))
    }
}

/// The file in a data directory.
#[must_use]
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// The file as it is written.
#[derive(Serialize)]
struct Written<'a> {
    backend_url: &'a str,
    replaces: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    challenge_uuid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
}

/// The file as it is read.
#[derive(Deserialize)]
struct Kept {
    backend_url: String,
    replaces: String,
    challenge_uuid: Option<String>,
    api_key: Option<String>,
}

/// SHA-256 of a credential and its kind, in hexadecimal.
fn fingerprint(credential: &Credential) -> String {
    let mut digest = Sha256::new();
    digest.update(credential.key().name());
    digest.update([0]);
    digest.update(credential.secret().expose_secret());
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;

    use crate::config::{DiskFiles, Flags, Need, Sources, load};

    const OLD: &str = "11111111-1111-4111-8111-111111111111";
    const NEW: &str = "22222222-2222-4222-8222-222222222222";
    const URL: &str = "https://monitor.example";

    fn config(url: &str, key: &str, secret: &str) -> Config {
        let env = [
            ("HARBORFORGE_CONFIG", "/dev/null"),
            ("HARBORFORGE_BACKEND_URL", url),
            (key, secret),
            ("HOME", "/nonexistent"),
        ];
        let env: BTreeMap<_, _> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let host_name = Some("host".to_owned());
        let sources =
            Sources { flags: Flags::default(), env, host_name, uid: 1, files: &DiskFiles };
        (*load(&sources, Need::Backend).unwrap().config).clone()
    }

    fn challenge(secret: &str) -> Config {
        config(URL, "HARBORFORGE_CHALLENGE_UUID", secret)
    }

    fn new() -> Enrolled {
        Enrolled::new(Credential::challenge(NEW).unwrap(), &challenge(OLD)).unwrap()
    }

    #[test]
    fn it_is_preferred_until_the_configured_one_changes() {
        let other = "33333333-3333-4333-8333-333333333333";
        for (configured, standing) in [
            (challenge(OLD), Standing::Preferred),
            (challenge(NEW), Standing::CaughtUp),
            (challenge(other), Standing::Superseded),
            (config(URL, "HARBORFORGE_API_KEY", OLD), Standing::Superseded),
            (config(URL, "HARBORFORGE_API_KEY", NEW), Standing::Superseded),
            (
                config("https://other.example", "HARBORFORGE_CHALLENGE_UUID", OLD),
                Standing::Elsewhere,
            ),
        ] {
            assert_eq!(new().standing(&configured), standing, "{configured:?}");
        }
    }

    #[test]
    fn it_is_kept_for_its_owner_alone_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Enrolled::load(dir.path()).unwrap().is_none());
        new().write(dir.path()).unwrap();
        let file = path(dir.path());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(NEW) && !text.contains(OLD), "{text}");
        let read = Enrolled::load(dir.path()).unwrap().unwrap();
        assert_eq!(read.standing(&challenge(OLD)), Standing::Preferred);
        assert_eq!(read.standing(&challenge(NEW)), Standing::CaughtUp);
        assert!(!format!("{read:?}").contains(NEW));
        let key = Enrolled::new(Credential::api_key("k").unwrap(), &challenge(OLD)).unwrap();
        key.write(dir.path()).unwrap();
        let read = Enrolled::load(dir.path()).unwrap().unwrap();
        assert!(read.credential.is_same(&Credential::api_key("k").unwrap()));
        Enrolled::forget(dir.path()).unwrap();
        Enrolled::forget(dir.path()).unwrap();
        assert!(Enrolled::load(dir.path()).unwrap().is_none());
    }

    #[test]
    fn weighing_it_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let weigh = |configured: Config| Enrolled::weigh(&Arc::new(configured), dir.path());
        let (config, standing) = weigh(challenge(OLD)).unwrap();
        assert_eq!(standing, None);
        assert!(config.credential.as_ref().unwrap().is_same(&Credential::challenge(OLD).unwrap()));
        new().write(dir.path()).unwrap();
        let other = "33333333-3333-4333-8333-333333333333";
        for (configured, used) in [(OLD, NEW), (NEW, NEW), (other, other)] {
            let (config, standing) = weigh(challenge(configured)).unwrap();
            let used = Credential::challenge(used).unwrap();
            assert!(config.credential.as_ref().unwrap().is_same(&used), "{standing:?}");
            assert!(path(dir.path()).exists(), "{standing:?}");
        }
        fs::write(path(dir.path()), "{").unwrap();
        assert!(weigh(challenge(OLD)).is_err());
    }

    #[test]
    fn a_broken_file_is_an_error_without_its_contents() {
        let dir = tempfile::tempdir().unwrap();
        let both = format!(
            r#"{{"backend_url":"u","replaces":"r","challenge_uuid":"{NEW}","api_key":"geheim"}}"#
        );
        let typed = r#"{"backend_url":"geheim","replaces":{},"api_key":"geheim"}"#.to_owned();
        for broken in [String::new(), "{".into(), "[]".into(), both, typed, "x".repeat(70_000)] {
            fs::write(path(dir.path()), &broken).unwrap();
            let error = Enrolled::load(dir.path()).unwrap_err().to_string();
            assert!(!error.contains("geheim") && !error.contains(NEW), "{error}");
        }
    }
}
