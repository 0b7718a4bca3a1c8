//! The `config.json` of HarborForge.Monitor, with the line of each value.
//!
//! Invariants:
//! - The file is one JSON object with the keys of [`agent::NAMES`]; any other key is an error.
//! - `null` and an empty text count as not set, as in the agent itself.
//! - No text made here holds a value of the file: one may be the API key.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::agent;
use super::error::{ConfigError, Origin, Problem};
use super::file::{Lines, shown_name};
use super::settings::{Raw, Setting};

/// The settings of a file's text, and every fault of its form. A syntax error ends the reading:
/// what follows it means nothing.
pub(super) fn parse(path: &Path, text: &str) -> (Vec<Setting>, Vec<ConfigError>) {
    let lines = Lines::of(text);
    let at = |line| Origin::File { path: path.to_owned(), line };
    let members = match read(text) {
        Ok(Members(members)) => members,
        Err((line, problem)) => {
            return (Vec::new(), vec![ConfigError { origin: at(line), key: None, problem }]);
        }
    };
    let (mut settings, mut errors) = (Vec::new(), Vec::new());
    let mut first: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (name, value) in members {
        // The value is borrowed from the text, so its place in memory is its place in the text.
        let offset = value.get().as_ptr().addr().saturating_sub(text.as_ptr().addr());
        let line = lines.number(offset);
        let Some(known) = agent::NAMES.iter().find(|known| known.json == name) else {
            let suggestion = agent::nearest(&name).map(str::to_owned);
            let problem = Problem::UnknownJsonKey { suggestion };
            errors.push(ConfigError { origin: at(line), key: Some(shown_name(&name)), problem });
            continue;
        };
        if let Some(before) = first.insert(known.json, line) {
            let problem = Problem::Conflict { other: known.json, other_origin: at(before) };
            errors.push(ConfigError { origin: at(line), key: Some(known.json.into()), problem });
            continue;
        }
        let Some(raw) = raw(value.get()) else { continue };
        match agent::setting(*known, raw, at(line)) {
            Ok(setting) => settings.push(setting),
            Err(error) => errors.push(error),
        }
    }
    (settings, errors)
}

/// Keys and values in the order of the file, duplicates included.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The members, or the line of the first fault of the form.
fn read(text: &str) -> Result<Members<'_>, (usize, Problem)> {
    let syntax =
        |message: String, found: String| Problem::Syntax { language: "JSON", message, found };
    serde_json::from_str(text).map_err(|error| {
        let line = error.line().max(1);
        let problem = match error.classify() {
            // Its own text would show the value that stands there.
            Category::Data => {
                syntax("expected an object with keys".into(), "a value of another kind".into())
            }
            Category::Eof => syntax(message(&error), "the end of the file".into()),
            Category::Syntax | Category::Io => {
                syntax(message(&error), format!("something else in column {}", error.column()))
            }
        };
        (line, problem)
    })
}

/// What the parser says without the place, which is told apart.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned()
}

/// A value as it was written; `None` for what counts as not set.
fn raw(json: &str) -> Option<Raw> {
    let whole = |json: &str| match json.parse() {
        Ok(number) => Raw::Integer(number),
        Err(_) if json.contains(['.', 'e', 'E']) => Raw::Other("a number with a fraction"),
        Err(_) => Raw::Other("an integer beyond 64 bits"),
    };
    Some(match json.as_bytes().first()? {
        b'n' => return None,
        b't' => Raw::Boolean(true),
        b'f' => Raw::Boolean(false),
        b'[' => Raw::Other("a list"),
        b'{' => Raw::Other("an object"),
        b'"' => match serde_json::from_str::<String>(json) {
            Ok(text) if text.is_empty() => return None,
            Ok(text) => Raw::text(text),
            Err(_) => Raw::Other("a text with a broken escape"),
        },
        _ => whole(json),
    })
}
