//! The file: found, read, and, when it is TOML, turned into settings with the line of each.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin, Problem};
use super::json;
use super::keys::Key;
use super::paths;
use super::settings::{Raw, Setting, quoted};
use super::sources::{FileText, Sources};

/// A configuration file that was read.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) content: FileText,
}

/// What the search for the file came to.
pub(super) struct Search {
    /// The file, if there is one.
    pub(super) found: Option<Found>,
    /// Where it is, or was looked for last.
    pub(super) path: PathBuf,
    /// Whether the user named it.
    pub(super) named: bool,
    /// Why it could not be read, other than that an unnamed one does not exist.
    pub(super) error: Option<ConfigError>,
}

/// Looks where docs/CONFIGURATION.md says: `--config`, `HARBORFORGE_CONFIG`, the user's own,
/// the system's.
pub(super) fn search(sources: &Sources<'_>) -> Search {
    let named = sources.flags.config.clone().or_else(|| sources.path_var("HARBORFORGE_CONFIG"));
    if let Some(path) = named {
        return read(sources, path, true);
    }
    if let Some(path) = paths::user_config(sources) {
        let search = read(sources, path, false);
        if search.found.is_some() || search.error.is_some() {
            return search;
        }
    }
    read(sources, PathBuf::from(paths::SYSTEM_CONFIG), false)
}

fn read(sources: &Sources<'_>, path: PathBuf, named: bool) -> Search {
    match sources.files.read(&path) {
        Ok(content) => {
            Search { found: Some(Found { path: path.clone(), content }), path, named, error: None }
        }
        Err(error) if !named && is_absent(&error) => {
            Search { found: None, path, named, error: None }
        }
        Err(error) => {
            let group = sources.files.group(&path);
            let problem = Problem::Unreadable { path: path.clone(), error, group };
            Search {
                found: None,
                error: Some(ConfigError { origin: Origin::Default, key: None, problem }),
                path,
                named,
            }
        }
    }
}

/// Whether a configuration of this name is JSON.
pub(super) fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The settings of a file's text, and every fault of its form. Values that stand on a line
/// with a syntax error are left out: what the parser made of them means nothing.
pub(super) fn parse(path: &Path, text: &str) -> (Vec<Setting>, Vec<ConfigError>) {
    if is_json(path) {
        return json::parse(path, text);
    }
    let (table, faults) = DeTable::parse_recoverable(text);
    let lines = Lines::of(text);
    let mut errors = Vec::new();
    let mut broken = BTreeSet::new();
    for fault in &faults {
        let span = fault.span().unwrap_or(text.len()..text.len());
        let line = lines.number(span.start);
        // One mistake can make the parser stumble several times on its line.
        if broken.insert(line) {
            let message = fault.message().to_owned();
            let found = found_at(text, &lines, span);
            let problem = Problem::Syntax { language: "TOML", message, found };
            errors.push(ConfigError { origin: at(path, line), key: None, problem });
        }
    }
    let mut settings = Vec::new();
    for (name, value) in table.get_ref() {
        let line = lines.number(name.span().start);
        if broken.contains(&line) {
            continue;
        }
        let origin = at(path, line);
        match Key::from_name(name.get_ref()) {
            Some(key) => settings.push(Setting::new(key, raw(value.get_ref()), origin)),
            None => errors.push(ConfigError {
                origin,
                key: Some(shown_name(name.get_ref())),
                problem: Problem::UnknownKey {
                    suggestion: suggestion(name.get_ref(), value.get_ref()),
                },
            }),
        }
    }
    (settings, errors)
}

fn at(path: &Path, line: usize) -> Origin {
    Origin::File { path: path.to_owned(), line }
}

/// Where the lines of a text begin, so that a file of nothing but faults is not read once for each.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect())
    }

    /// The line of a byte offset, counted from 1.
    pub(super) fn number(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }

    /// Where the line of a byte offset begins.
    fn start(&self, offset: usize) -> usize {
        self.0.get(self.number(offset).wrapping_sub(1)).copied().unwrap_or(0)
    }
}

/// A key as it can be shown in a line of its own.
pub(super) fn shown_name(name: &str) -> String {
    if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        name.to_owned()
    } else {
        quoted(name)
    }
}

/// The nearest key; for a table also the nearest to its first key with the table's name before
/// it, since `[queue] max_bytes` is a likely guess.
fn suggestion(name: &str, value: &DeValue<'_>) -> Option<String> {
    let inside = value.as_table().and_then(|table| {
        let (first, _) = table.iter().next()?;
        Key::nearest(first.get_ref())
            .or_else(|| Key::nearest(&format!("{name}_{}", first.get_ref())))
    });
    inside.or_else(|| Key::nearest(name)).map(|key| key.name().to_owned())
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::text(text.as_ref()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Other("an integer beyond 64 bits"), Raw::Integer),
        DeValue::Float(_) => Raw::Other("a number with a fraction"),
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Datetime(_) => Raw::Other("a date or time"),
        DeValue::Array(items) => items
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map_or(Raw::Other("a list of other things than texts"), Raw::List),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

/// What stands at a syntax error, as far as it cannot be part of a secret: only on a line that
/// sets a known key that is none.
fn found_at(text: &str, lines: &Lines, span: Range<usize>) -> String {
    let Some(rest) = text.get(span.start..).filter(|rest| !rest.is_empty()) else {
        return "the end of the file".into();
    };
    if rest.starts_with(['\n', '\r']) {
        return "the end of the line".into();
    }
    let start = lines.start(span.start);
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let key = line.split_once('=').and_then(|(name, _)| Key::from_name(name.trim()));
    let column = text.get(start..span.start).map_or(0, |before| before.chars().count()) + 1;
    match key {
        Some(key) if !key.is_secret() && key != Key::Proxy && key != Key::BackendUrl => {
            let shown = text.get(span).unwrap_or_default().lines().next().unwrap_or_default();
            let shown =
                if shown.is_empty() { rest.lines().next().unwrap_or_default() } else { shown };
            format!("{} in column {column}", quoted(shown))
        }
        Some(_) | None => format!("something else in column {column}"),
    }
}
