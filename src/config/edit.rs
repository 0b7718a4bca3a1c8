//! Changes single keys in the text of a TOML configuration. Pure.
//!
//! Invariants: every byte outside the statement that is changed stays as it is: comments, order,
//! spaces, line ends. (That is why the text is spliced where the parser says the value stands,
//! and not printed anew from a tree.) A key that is set for the first time stands right behind
//! the line that has it commented out, where the shipped file says what it means; a key that is
//! taken out is commented out, and its value goes if it is a secret.

use std::ops::Range;

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::keys::Key;

/// A text that is no TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotToml;

/// The text with a key set to a string.
///
/// # Errors
/// When the text is no TOML.
pub(super) fn set(text: &str, key: Key, value: &str) -> Result<Zeroizing<String>, NotToml> {
    let found = Found::of(text, key)?;
    let value = quoted(value);
    if let Some((_, at)) = found.set {
        return Ok(spliced(text, at, &value));
    }
    let end = line_end(text);
    let at = found.commented.map_or(text.len(), |line| line.end);
    let before = text.get(..at).unwrap_or_default();
    let open = if before.is_empty() || before.ends_with('\n') { "" } else { end };
    let line = Zeroizing::new(format!("{open}{} = {}{end}", key.name(), value.as_str()));
    Ok(spliced(text, at..at, &line))
}

/// The text with a key that is set commented out; unchanged when it is not set.
///
/// # Errors
/// When the text is no TOML.
pub(super) fn unset(text: &str, key: Key) -> Result<Zeroizing<String>, NotToml> {
    let found = Found::of(text, key)?;
    let Some((name, value)) = found.set else { return Ok(Zeroizing::new(text.to_owned())) };
    let line = line_of(text, name.start..value.end);
    let rest = text.get(value.end..line.end).unwrap_or_default();
    if found.commented.is_some() && rest.trim().is_empty() {
        return Ok(spliced(text, line, ""));
    }
    let old = text.get(value.clone()).unwrap_or_default();
    let kept = if key.is_secret() || old.contains('\n') { "\"\"" } else { old };
    let head = text.get(name.start..value.start).unwrap_or_default();
    let out = Zeroizing::new(format!("#{head}{kept}"));
    Ok(spliced(text, name.start..value.end, &out))
}

/// Where a key stands.
struct Found {
    /// Its name and its value.
    set: Option<(Range<usize>, Range<usize>)>,
    /// The line that has it commented out, with its end.
    commented: Option<Range<usize>>,
}

impl Found {
    fn of(text: &str, key: Key) -> Result<Self, NotToml> {
        let table = DeTable::parse(text).map_err(|_| NotToml)?;
        let mut set = None;
        let mut values = Vec::new();
        for (name, value) in table.get_ref() {
            if Key::from_name(name.get_ref()) == Some(key) {
                set = Some((name.span(), value.span()));
            }
            values.push(value.span());
        }
        // What looks like a comment inside a text of several lines is none.
        let inside = |at: usize| values.iter().any(|value| value.contains(&at));
        let mut at = 0;
        let commented = text.split_inclusive('\n').find_map(|line| {
            let range = at..at + line.len();
            at = range.end;
            (!inside(range.start) && comments_out(line, key)).then_some(range)
        });
        Ok(Self { set, commented })
    }
}

/// Whether a line is `#key = ...`.
fn comments_out(line: &str, key: Key) -> bool {
    line.trim_start()
        .strip_prefix('#')
        .and_then(|line| line.trim_start().strip_prefix(key.name()))
        .is_some_and(|rest| rest.trim_start().starts_with('='))
}

/// The lines a statement stands on, with the end of the last.
fn line_of(text: &str, statement: Range<usize>) -> Range<usize> {
    let before = text.get(..statement.start).unwrap_or_default();
    let after = text.get(statement.end..).unwrap_or_default();
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let end = after.find('\n').map_or(text.len(), |at| statement.end + at + 1);
    start..end
}

/// The line end of the text: that of its first line.
fn line_end(text: &str) -> &'static str {
    match text.split_once('\n') {
        Some((first, _)) if first.ends_with('\r') => "\r\n",
        Some(_) | None => "\n",
    }
}

fn spliced(text: &str, range: Range<usize>, new: &str) -> Zeroizing<String> {
    let (before, after) = (text.get(..range.start), text.get(range.end..));
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    // At once in its full size: a secret is not left behind in a smaller buffer.
    let mut out = Zeroizing::new(String::with_capacity(before.len() + new.len() + after.len()));
    out.push_str(before);
    out.push_str(new);
    out.push_str(after);
    out
}

/// A text as a basic string of TOML.
fn quoted(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(6 * text.len() + 2));
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() && u32::from(c) < 0x10000 => {
                out.push_str(&format!("\\u{:04X}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EXAMPLE;

    fn set_to(text: &str, key: Key, value: &str) -> String {
        set(text, key, value).unwrap().to_string()
    }

    #[test]
    fn only_the_value_changes_whatever_stands_around_it() {
        for (before, after) in [
            ("identifier = \"a\"", "identifier = \"new\""),
            ("\u{feff}identifier = \"ä\" # ö\n", "\u{feff}identifier = \"new\" # ö\n"),
            ("identifier='a' # ours\n", "identifier=\"new\" # ours\n"),
            (
                "  \"identifier\"\t=  \"\"\"\na\nb\"\"\"  # c\r\n",
                "  \"identifier\"\t=  \"new\"  # c\r\n",
            ),
            ("'identifier' = \"a\"\n", "'identifier' = \"new\"\n"),
            (
                "#identifier = \"x\"\nidentifier = 7\n",
                "#identifier = \"x\"\nidentifier = \"new\"\n",
            ),
            (
                "# top\r\n\r\nreport_interval = \"30s\"\r\nidentifier = \"a\"\r\ndisk_path = \"/\"",
                "# top\r\n\r\nreport_interval = \"30s\"\r\nidentifier = \"new\"\r\ndisk_path = \"/\"",
            ),
            (
                "openclaw_home = [\n  \"/a\", # one\n  \"/b\",\n]\nidentifier = { name = \"a\", of = [1] }\n",
                "openclaw_home = [\n  \"/a\", # one\n  \"/b\",\n]\nidentifier = \"new\"\n",
            ),
        ] {
            assert_eq!(set_to(before, Key::Identifier, "new"), after);
        }
    }

    #[test]
    fn a_new_key_stands_behind_its_commented_out_line_or_at_the_end() {
        for (before, after) in [
            ("", "identifier = \"new\"\n"),
            ("\u{feff}# nothing\n", "\u{feff}# nothing\nidentifier = \"new\"\n"),
            ("# nothing", "# nothing\nidentifier = \"new\"\n"),
            ("disk_path = \"/\"\n", "disk_path = \"/\"\nidentifier = \"new\"\n"),
            ("disk_path = \"/\"\r\n", "disk_path = \"/\"\r\nidentifier = \"new\"\r\n"),
            (
                "# identifier is a name\n# identifier = \"x\"\n\nscope = \"host\"\n",
                "# identifier is a name\n# identifier = \"x\"\nidentifier = \"new\"\n\nscope = \"host\"\n",
            ),
            ("\t#identifier=1\r\n#\r\n", "\t#identifier=1\r\nidentifier = \"new\"\r\n#\r\n"),
            ("#identifier = 1", "#identifier = 1\nidentifier = \"new\"\n"),
            (
                "disk_path = \"\"\"\n#identifier = 1\n\"\"\"\n",
                "disk_path = \"\"\"\n#identifier = 1\n\"\"\"\nidentifier = \"new\"\n",
            ),
        ] {
            assert_eq!(set_to(before, Key::Identifier, "new"), after);
        }
    }

    #[test]
    fn a_secret_that_is_taken_out_leaves_its_place_and_not_its_value() {
        for (before, after) in [
            ("api_key = \"geheim\"\n", "#api_key = \"\"\n"),
            ("  api_key = 'geheim' # from ops\r\n", "  #api_key = \"\" # from ops\r\n"),
            (
                "api_key = \"\"\"\ngeheim\"\"\"\nscope = \"host\"\n",
                "#api_key = \"\"\nscope = \"host\"\n",
            ),
            (
                "# api_key = \"example\"\napi_key = \"geheim\"\n#x\n",
                "# api_key = \"example\"\n#x\n",
            ),
            ("scope = \"host\"\n", "scope = \"host\"\n"),
        ] {
            assert_eq!(unset(before, Key::ApiKey).unwrap().as_str(), after);
        }
        let path = "api_key_file = \"/etc/key\"";
        assert_eq!(unset(path, Key::ApiKeyFile).unwrap().as_str(), "#api_key_file = \"/etc/key\"");
    }

    #[test]
    fn the_shipped_file_takes_every_text_and_gives_it_back() {
        let lines = |text: &str| text.lines().count();
        for value in
            ["plain", "with \"quotes\" and \\", "tab\tbell\u{7}del\u{7f}", "ü→🦀", "'''", ""]
        {
            let text = set_to(EXAMPLE, Key::ChallengeUuid, value);
            let table: toml::Table = toml::from_str(&text).unwrap();
            assert_eq!(table["challenge_uuid"].as_str(), Some(value));
            assert_eq!((table.len(), lines(&text)), (1, lines(EXAMPLE) + 1));
            assert_eq!(unset(&text, Key::ChallengeUuid).unwrap().as_str(), EXAMPLE);
        }
    }

    #[test]
    fn what_is_no_toml_is_left_alone() {
        assert_eq!(set("a = ", Key::Scope, "x").unwrap_err(), NotToml);
        assert_eq!(unset("= 1", Key::Scope).unwrap_err(), NotToml);
    }
}
