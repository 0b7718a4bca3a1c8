//! From sources to a checked [`Config`]: lays the layers over each other and makes a typed value
//! of each setting; `rules.rs` then applies what binds several keys.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::credential::{self, Chosen};
use super::error::{ConfigError, ConfigErrors, Origin, Problem, Warning, shell_quoted};
use super::file::{self, Search};
use super::keys::Key;
use super::settings::{self, Raw, Setting, Settings};
use super::sources::Sources;
use super::value::{self, HOUR, MINUTE, SECOND, YEAR};
use super::{
    Config, LogFormat, OpenClaw, QueueBounds, Scope, Transport, agent, endpoint, paths, proxy,
};

/// How much of the configuration a command depends on. Whatever is set is checked in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Nothing: defaults do. A system-wide file that may not be read is only warned of.
    Nothing,
    /// The data directory must be known.
    DataDir,
    /// Also `backend_url` and a credential must be there.
    Backend,
}

/// A configuration that holds, and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Arc<Config>,
    /// What is permitted but probably not meant, to be told to the user.
    pub warnings: Vec<Warning>,
    /// Which layer each key's value came from; keys nobody set are absent.
    pub origins: BTreeMap<Key, Origin>,
    /// The configuration file that was read.
    pub file: Option<PathBuf>,
    /// The file the credential was read from, when it stands in one of its own: to be looked
    /// at again for a change.
    pub credential_file: Option<PathBuf>,
}

/// Loads and checks the configuration. Pure but for what `sources.files` reads.
///
/// # Errors
/// All faults at once: by layer, those of the file by line, what is missing last.
pub fn load(sources: &Sources<'_>, need: Need) -> Result<Loaded, ConfigErrors> {
    let mut loader = Loader {
        sources,
        settings: Settings::defaults(),
        errors: Vec::new(),
        warnings: Vec::new(),
        file: None,
        looked_at: PathBuf::new(),
        form_is_broken: false,
    };
    loader.read_layers(need);
    let (config, credential_file) = loader.build(need);
    if loader.errors.is_empty() {
        Ok(Loaded {
            config: Arc::new(config),
            warnings: loader.warnings,
            origins: loader.settings.origins(),
            file: loader.file,
            credential_file,
        })
    } else {
        let mut errors: Vec<_> = loader.errors.into_iter().enumerate().collect();
        errors.sort_unstable_by_key(|(found, error)| {
            let missing = matches!(error.problem, Problem::Missing { .. });
            (missing, error.origin.layer(), line(&error.origin), *found)
        });
        Err(ConfigErrors(errors.into_iter().map(|(_, error)| error).collect()))
    }
}

/// The permission bit that lets others than owner and group write a file.
const WRITABLE_BY_OTHERS: u32 = 0o002;

fn line(origin: &Origin) -> usize {
    match origin {
        Origin::File { line, .. } => *line,
        Origin::Default | Origin::Path(_) | Origin::Environment(_) | Origin::Flag(_) => 0,
    }
}

pub(super) struct Loader<'a> {
    sources: &'a Sources<'a>,
    pub(super) settings: Settings,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<Warning>,
    pub(super) file: Option<PathBuf>,
    /// Where the file is, or was looked for last.
    pub(super) looked_at: PathBuf,
    /// Part of the file could not be read, so that a key may be missing only for that.
    form_is_broken: bool,
}

impl Loader<'_> {
    fn read_layers(&mut self, need: Need) {
        let Search { found, path, named, error } = file::search(self.sources);
        self.looked_at = path;
        match error {
            Some(error) if need == Need::Nothing && !named && is_forbidden(&error) => {
                let text = format!("{error}; going on with the defaults");
                self.warnings.push(Warning { origin: Origin::Default, key: None, text });
            }
            Some(error) => {
                self.errors.push(error);
                self.form_is_broken = true;
            }
            None => {}
        }
        if let Some(found) = found {
            let (settings, errors) = file::parse(&found.path, &found.content.text);
            self.form_is_broken |= !errors.is_empty();
            self.errors.extend(errors);
            if let Some(secret) = settings.iter().find(|setting| setting.holds_secret())
                && let Err(problem) = credential::exposed(&found.path, found.content.mode)
            {
                self.errors.push(secret.error(problem));
            }
            if found.content.mode & WRITABLE_BY_OTHERS != 0 {
                let text = format!(
                    "others can write it and so decide where telemetry goes; type: chmod o-w {}",
                    shell_quoted(&found.path)
                );
                let origin = Origin::Path(found.path.clone());
                self.warnings.push(Warning { origin, key: None, text });
            }
            self.put_all(settings);
            self.file = Some(found.path);
        }
        let settings = agent::of_environment(self.sources, &mut self.errors, &mut self.warnings);
        self.put_all(settings);
        let settings = settings::of_environment(self.sources, &mut self.errors, &mut self.warnings);
        self.put_all(settings);
        let settings = settings::of_flags(self.sources, &mut self.errors);
        self.put_all(settings);
    }

    fn put_all(&mut self, settings: Vec<Setting>) {
        for setting in settings {
            self.settings.put(setting);
        }
    }

    fn build(&mut self, need: Need) -> (Config, Option<PathBuf>) {
        let data_dir = self.data_dir(need);
        let (credential, credential_file) = match self.credential(need) {
            Some(chosen) => (Some(chosen.credential), chosen.file),
            None => (None, None),
        };
        let backend_url = self.backend_url();
        let proxy = self.proxy(backend_url.as_ref());
        let config = Config {
            identifier: self.identifier(),
            report_interval: self.interval(Key::ReportInterval, Key::ReportIntervalSec),
            http_fallback_interval: self
                .interval(Key::HttpFallbackInterval, Key::HttpFallbackIntervalSec),
            backoff_cap: self.duration(Key::BackoffCap, SECOND..=10 * MINUTE),
            log_level: self.log_level(),
            log_format: self.word(
                Key::LogFormat,
                LogFormat::Auto,
                &[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)],
            ),
            control_socket: self.control_socket(&data_dir),
            data_dir,
            queue: self.queue(),
            ca_file: self.optional(Key::CaFile, value::path),
            public_key_sha256: self.optional(Key::PublicKeySha256, |raw, _| value::sha256(raw)),
            allow_insecure: self.required(Key::AllowInsecure, false, |raw, _| value::boolean(raw)),
            proxy,
            transport: self.word(
                Key::Transport,
                Transport::Auto,
                &[
                    ("auto", Transport::Auto),
                    ("websocket", Transport::Websocket),
                    ("http", Transport::Http),
                ],
            ),
            disk_path: self.required(Key::DiskPath, PathBuf::from("/"), |raw, _| {
                value::path(raw, Path::new("")).filter(|path| path.is_absolute())
            }),
            root_fs: self.required(Key::RootFs, PathBuf::from("/"), |raw, _| {
                value::path(raw, Path::new("")).filter(|path| path.is_absolute())
            }),
            scope: self.word(
                Key::Scope,
                Scope::Host,
                &[("host", Scope::Host), ("cgroup", Scope::Cgroup)],
            ),
            report_nginx: self.required(Key::ReportNginx, false, |raw, _| value::boolean(raw)),
            openclaw: self.word(
                Key::OpenClaw,
                OpenClaw::Auto,
                &[("auto", OpenClaw::Auto), ("off", OpenClaw::Off)],
            ),
            openclaw_home: self.optional(Key::OpenClawHome, value::paths).unwrap_or_default(),
            bridge_listen: self.required(Key::BridgeListen, None, |raw, _| value::loopback(raw)),
            backend_url,
            credential,
        };
        self.check_rules(&config);
        if need >= Need::Backend && !self.form_is_broken {
            self.check_backend(&config);
        }
        (config, credential_file)
    }

    // --- one key each -------------------------------------------------------------------

    fn backend_url(&mut self) -> Option<Url> {
        let setting = self.settings.get(Key::BackendUrl)?;
        endpoint::parse(setting).map_err(|error| self.errors.push(error)).ok()
    }

    fn proxy(&mut self, backend: Option<&Url>) -> Option<proxy::Proxy> {
        let setting = self.settings.get(Key::Proxy);
        proxy::choose(setting, backend, self.sources)
            .map_err(|error| self.errors.push(error))
            .ok()
            .flatten()
    }

    /// The credential. Who may not read a file of its own can still use the commands that need
    /// none: the group that may see the queue need not know the secret.
    fn credential(&mut self, need: Need) -> Option<Chosen> {
        let file = self.file.clone();
        let base = move |setting: &Setting| base(setting, file.as_deref());
        let chosen = credential::choose(&self.settings, &base, self.sources, &mut self.warnings);
        match chosen {
            Ok(chosen) => chosen,
            Err(errors) => {
                let needed = |error: &ConfigError| need >= Need::Backend || !is_forbidden(error);
                self.errors.extend(errors.into_iter().filter(needed));
                None
            }
        }
    }

    fn identifier(&mut self) -> String {
        if self.settings.get(Key::Identifier).is_some() {
            return self.required(Key::Identifier, String::new(), |raw, _| {
                value::text(raw).filter(|text| value::is_identifier(text)).map(str::to_owned)
            });
        }
        match self.sources.host_name.as_deref() {
            Some(name) if value::is_identifier(name) => name.to_owned(),
            Some(_) | None => {
                let expected =
                    format!("{}, since this host has no usable name", Key::Identifier.values());
                self.missing(Key::Identifier, expected);
                String::new()
            }
        }
    }

    fn interval(&mut self, key: Key, in_seconds: Key) -> Duration {
        let range = SECOND..=HOUR;
        match self.settings.either(key, in_seconds) {
            Ok(Some(setting)) if setting.key == in_seconds => {
                let setting = setting.clone();
                let duration = value::seconds(&setting.raw, range);
                duration.unwrap_or_else(|| {
                    self.errors.push(setting.value_error());
                    SECOND
                })
            }
            Ok(_) => self.duration(key, range),
            Err(error) => {
                self.errors.push(error);
                SECOND
            }
        }
    }

    fn log_level(&mut self) -> String {
        let Some(setting) = self.settings.get(Key::LogLevel).cloned() else {
            return String::new();
        };
        let Some(text) = value::text(&setting.raw) else {
            self.errors.push(setting.value_error());
            return String::new();
        };
        if let Err(reason) = crate::logging::parse_filter(text) {
            let expected = format!("{} ({reason})", Key::LogLevel.values());
            self.errors.push(setting.value_error_with(expected));
        }
        text.to_owned()
    }

    fn data_dir(&mut self, need: Need) -> PathBuf {
        if self.settings.get(Key::DataDir).is_some() {
            return self.required(Key::DataDir, PathBuf::new(), value::path);
        }
        paths::data_dir(self.sources).unwrap_or_else(|| {
            if need >= Need::DataDir && !self.form_is_broken {
                let expected =
                    "the path of a directory, since neither XDG_STATE_HOME nor HOME is set";
                self.missing(Key::DataDir, expected.into());
            }
            paths::system_data_dir()
        })
    }

    fn control_socket(&mut self, data_dir: &Path) -> PathBuf {
        let setting = self.settings.get(Key::ControlSocket).cloned();
        let path = match &setting {
            Some(_) => self.required(Key::ControlSocket, PathBuf::new(), value::path),
            None => paths::control_socket(self.sources, data_dir),
        };
        let length = path.as_os_str().len();
        if length > paths::MAX_SOCKET_PATH {
            self.errors.push(ConfigError {
                origin: setting.map_or(Origin::Default, |setting| setting.origin),
                key: Some(Key::ControlSocket.name().into()),
                problem: Problem::Value {
                    found: format!("{} ({length} bytes)", path.display()),
                    expected: Key::ControlSocket.values().into(),
                },
            });
        }
        path
    }

    fn queue(&mut self) -> QueueBounds {
        const MIB: u64 = 1 << 20;
        QueueBounds {
            max_bytes: self.bytes(Key::QueueMaxBytes, MIB),
            max_age: self.required(Key::QueueMaxAge, None, |raw, _| match value::text(raw) {
                Some("none") => Some(None),
                Some(_) | None => value::duration(raw, SECOND..=10 * YEAR).map(Some),
            }),
            retain_sent: self.required(Key::RetainSent, Duration::ZERO, |raw, _| {
                value::duration_or_zero(raw, YEAR)
            }),
            retain_sent_max_bytes: self.bytes(Key::RetainSentMaxBytes, 0),
            rejected_max_bytes: self.bytes(Key::RejectedMaxBytes, 0),
            quarantine_max_bytes: self.bytes(Key::QuarantineMaxBytes, 0),
        }
    }

    // --- by type ------------------------------------------------------------------------

    fn duration(&mut self, key: Key, range: RangeInclusive<Duration>) -> Duration {
        self.required(key, SECOND, |raw, _| value::duration(raw, range.clone()))
    }

    fn bytes(&mut self, key: Key, min: u64) -> u64 {
        self.required(key, min, |raw, _| value::bytes(raw, min))
    }

    fn word<T: Copy>(&mut self, key: Key, stand_in: T, words: &[(&str, T)]) -> T {
        self.required(key, stand_in, |raw, _| value::word(raw, words))
    }

    /// The value of a key that has a default. A bad one is an error; the stand-in lets the
    /// search for further errors go on and is never used otherwise.
    fn required<T>(
        &mut self,
        key: Key,
        stand_in: T,
        parse: impl FnOnce(&Raw, &Path) -> Option<T>,
    ) -> T {
        self.optional(key, parse).unwrap_or(stand_in)
    }

    /// The value of a key, if it is set.
    fn optional<T>(&mut self, key: Key, parse: impl FnOnce(&Raw, &Path) -> Option<T>) -> Option<T> {
        let setting = self.settings.get(key)?;
        let value = parse(&setting.raw, &base(setting, self.file.as_deref()));
        if value.is_none() {
            self.errors.push(setting.value_error());
        }
        value
    }

    fn missing(&mut self, key: Key, expected: String) {
        self.missing_as(key.name(), expected);
    }

    /// The same for a key under the name it has in the user's file.
    pub(super) fn missing_as(&mut self, name: &str, expected: String) {
        self.errors.push(ConfigError {
            origin: Origin::Default,
            key: Some(name.into()),
            problem: Problem::Missing { expected },
        });
    }
}

fn is_forbidden(error: &ConfigError) -> bool {
    matches!(&error.problem, Problem::Unreadable { error, .. }
        if error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Where a relative path of a setting starts: in the directory of the file it stands in, else
/// in the working directory.
pub(super) fn base(setting: &Setting, file: Option<&Path>) -> PathBuf {
    match (&setting.origin, file.and_then(Path::parent)) {
        (Origin::File { .. }, Some(directory)) => directory.to_owned(),
        (
            Origin::File { .. }
            | Origin::Default
            | Origin::Path(_)
            | Origin::Environment(_)
            | Origin::Flag(_),
            _,
        ) => PathBuf::new(),
    }
}
