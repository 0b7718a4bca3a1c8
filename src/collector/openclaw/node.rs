//! What is kept of a JSON or JSON5 document: the few members that are asked for, and nothing else.
//!
//! Invariants:
//! - A member that is not in the [`Keep`] tree is parsed and dropped at once: it is in no
//!   structure, no log line and no error.
//! - An error says what is wrong and at which line and column, and quotes nothing.
//! - Nesting is limited before a recursive reader sees the text.
//! - Where somebody may write as many members as he likes, [`Keep::First`] bounds what is kept; the
//!   others are counted.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Levels of objects and lists a document may have.
pub const MAX_DEPTH: usize = 64;

/// Names after [`INCLUDE`] that are kept: more than may be read.
const MAX_NAMES: usize = 100;

/// The member by which a configuration takes in other files.
pub const INCLUDE: &str = "$include";

/// What to keep of a value.
#[derive(Debug, PartialEq, Eq)]
pub enum Keep {
    /// A text.
    Text,
    /// A number that is a natural one.
    Number,
    /// These members of an object.
    Members(&'static [(&'static str, Keep)]),
    /// This of each item of a list and each member of an object.
    Each(&'static Keep),
    /// The same of the first so many alone.
    First(usize, &'static Keep),
    /// A text, or a list of texts.
    Names,
}

impl Keep {
    /// What to keep of a member.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&'static Keep> {
        match self {
            Self::Text | Self::Number | Self::Names => None,
            Self::Members(members) => members.iter().find(|(key, _)| *key == name).map(|(_, k)| k),
            Self::Each(keep) | Self::First(_, keep) => Some(keep),
        }
    }

    /// How many items or members are kept.
    #[must_use]
    pub fn most(&self) -> usize {
        match self {
            Self::First(most, _) => *most,
            Self::Names => MAX_NAMES,
            Self::Text | Self::Number | Self::Members(_) | Self::Each(_) => usize::MAX,
        }
    }
}

/// What was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A text that was asked for.
    Text(String),
    /// A number that was asked for.
    Number(u64),
    /// A list of what was asked for.
    List(Vec<Node>),
    /// An object; a name comes once, the last of its values counts.
    Object(Vec<(String, Node)>),
    /// Something else than was asked for.
    Other,
}

impl Node {
    /// A member of an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Node> {
        match self {
            Self::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, n)| n),
            Self::Text(_) | Self::Number(_) | Self::List(_) | Self::Other => None,
        }
    }

    /// The text it is.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::List(_) | Self::Object(_) | Self::Other => None,
        }
    }

    /// The number it is.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(_) | Self::List(_) | Self::Object(_) | Self::Other => None,
        }
    }

    /// The items of a list and the members' values of an object.
    pub fn values(&self) -> impl Iterator<Item = &Node> {
        let (items, members): (&[Node], &[(String, Node)]) = match self {
            Self::List(items) => (items, &[]),
            Self::Object(members) => (&[], members),
            Self::Text(_) | Self::Number(_) | Self::Other => (&[], &[]),
        };
        items.iter().chain(members.iter().map(|(_, value)| value))
    }
}

/// What is wrong with a document. Quotes nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// Not UTF-8.
    #[error("not UTF-8 text")]
    NotText,
    /// Too many levels.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Not the syntax that is expected.
    #[error("line {line}, column {column}: {what}")]
    At {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong there.
        what: String,
    },
    /// Not the syntax that is expected, the place unknown.
    #[error("{0}")]
    Somewhere(String),
}

/// Reads JSON5.
///
/// # Errors
/// See [`SyntaxError`].
pub fn read_json5(bytes: &[u8], keep: &'static Keep) -> Result<Node, SyntaxError> {
    read_json5_counting(bytes, keep, &Cell::new(0))
}

/// Reads JSON5, and adds to `left_out` what [`Keep::First`] keeps no more.
///
/// # Errors
/// See [`SyntaxError`].
pub fn read_json5_counting(
    bytes: &[u8],
    keep: &'static Keep,
    left_out: &Cell<usize>,
) -> Result<Node, SyntaxError> {
    let text = std::str::from_utf8(bytes).map_err(|_| SyntaxError::NotText)?;
    // Windows' editors put one in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if depth(text) > MAX_DEPTH {
        return Err(SyntaxError::TooDeep);
    }
    let mut reader = json5::Deserializer::from_str(text);
    let said = |error: &json5::Error| {
        // The code alone: a message of serde's may quote the value it stumbled over.
        let what = error.code().map_or("unexpected value".to_owned(), |code| code.to_string());
        match error.position() {
            Some(at) => SyntaxError::At {
                line: at.line.saturating_add(1),
                column: at.column.saturating_add(1),
                what,
            },
            None => SyntaxError::Somewhere(what),
        }
    };
    let node = Kept { keep, left_out }.deserialize(&mut reader).map_err(|error| said(&error))?;
    // Whatever follows but blanks and comments is an error, which the reader says on a null.
    match IgnoredAny::deserialize_in(&mut reader) {
        Err(error) if error.code() == Some(json5::ErrorCode::EofParsingValue) => Ok(node),
        Err(error) => Err(said(&error)),
        Ok(()) => Err(SyntaxError::Somewhere("something follows the document".to_owned())),
    }
}

/// Reads JSON.
///
/// # Errors
/// See [`SyntaxError`].
pub fn read_json(bytes: &[u8], keep: &'static Keep) -> Result<Node, SyntaxError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let said = |error: &serde_json::Error| SyntaxError::At {
        line: error.line(),
        column: error.column(),
        what: match error.classify() {
            serde_json::error::Category::Eof => "ends too early",
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Data => "not JSON",
        }
        .to_owned(),
    };
    let left_out = &Cell::new(0);
    let node = Kept { keep, left_out }.deserialize(&mut reader).map_err(|error| said(&error))?;
    reader.end().map_err(|error| said(&error))?;
    Ok(node)
}

/// The deepest nesting of brackets in a JSON5 text, those in strings and comments not counted.
/// Strings end at a line's end, where JSON5 has an error: nothing hides behind an open quote.
fn depth(text: &str) -> usize {
    let line_end = |c: char| matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}');
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '[' | '{' => {
                depth = depth.saturating_add(1);
                deepest = deepest.max(depth);
            }
            ']' | '}' => depth = depth.saturating_sub(1),
            '"' | '\'' => {
                while let Some(inner) = rest.next() {
                    if inner == '\\' {
                        // A line's end may be escaped, one of two characters too.
                        if rest.next() == Some('\r') {
                            let _ = rest.next_if_eq(&'\n');
                        }
                    } else if inner == c || matches!(inner, '\n' | '\r') {
                        break;
                    }
                }
            }
            '/' if rest.next_if_eq(&'/').is_some() => {
                while rest.next_if(|inner| !line_end(*inner)).is_some() {}
            }
            '/' if rest.next_if_eq(&'*').is_some() => {
                while let Some(inner) = rest.next() {
                    if inner == '*' && rest.next_if_eq(&'/').is_some() {
                        break;
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

/// Reads and forgets a value.
trait DeserializeIn: Sized {
    fn deserialize_in<'de, D: Deserializer<'de>>(reader: D) -> Result<(), D::Error>;
}

impl DeserializeIn for IgnoredAny {
    fn deserialize_in<'de, D: Deserializer<'de>>(reader: D) -> Result<(), D::Error> {
        <IgnoredAny as serde::Deserialize>::deserialize(reader).map(|_| ())
    }
}

/// Reads what is kept.
#[derive(Clone, Copy)]
struct Kept<'a> {
    keep: &'static Keep,
    left_out: &'a Cell<usize>,
}

impl Kept<'_> {
    fn leave_out(self) {
        self.left_out.set(self.left_out.get().saturating_add(1));
    }
}

impl<'de> DeserializeSeed<'de> for Kept<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Node, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Kept<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        let asked = matches!(self.keep, Keep::Text | Keep::Names);
        Ok(if asked { Node::Text(text.to_owned()) } else { Node::Other })
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(if *self.keep == Keep::Number { Node::Number(number) } else { Node::Other })
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(match u64::try_from(number) {
            Ok(number) if *self.keep == Keep::Number => Node::Number(number),
            Ok(_) | Err(_) => Node::Other,
        })
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let natural = (0.0..=EXACT).contains(&number);
        // Within what both types say exactly; a fraction (of a millisecond) is nothing here.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let node = Node::Number(number as u64);
        Ok(if natural && *self.keep == Keep::Number { node } else { Node::Other })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let each = match self.keep {
            Keep::Each(keep) | Keep::First(_, keep) => Some(*keep),
            Keep::Names => Some(&Keep::Text),
            Keep::Text | Keep::Number | Keep::Members(_) => None,
        };
        if let Some(keep) = each {
            let mut list = Vec::new();
            while list.len() < self.keep.most() {
                let Some(item) = items.next_element_seed(Kept { keep, ..self })? else {
                    return Ok(Node::List(list));
                };
                list.push(item);
            }
            while items.next_element::<IgnoredAny>()?.is_some() {
                self.leave_out();
            }
            return Ok(Node::List(list));
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let mut object: Vec<(String, Node)> = Vec::new();
        let mut included = false;
        // Where the names are the agents', there are as many as somebody wrote.
        let mut seen = std::collections::HashMap::new();
        while let Some(name) = members.next_key::<String>()? {
            let keep = if name == INCLUDE {
                included = true;
                Some(&Keep::Names)
            } else {
                self.keep.member(&name)
            };
            let Some(keep) = keep else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            if name != INCLUDE && object.len() >= self.keep.most() && !seen.contains_key(&name) {
                members.next_value::<IgnoredAny>()?;
                self.leave_out();
                continue;
            }
            let value = members.next_value_seed(Kept { keep, ..self })?;
            match seen.get(&name).and_then(|at: &usize| object.get_mut(*at)) {
                Some((_, earlier)) => *earlier = value,
                None => {
                    seen.insert(name.clone(), object.len());
                    object.push((name, value));
                }
            }
        }
        let asked = matches!(self.keep, Keep::Members(_) | Keep::Each(_) | Keep::First(..));
        Ok(if asked || included { Node::Object(object) } else { Node::Other })
    }
}

/// A file's name or names after [`INCLUDE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotNames;

/// The names after [`INCLUDE`].
///
/// # Errors
/// When it is neither a text nor a list of texts.
pub fn included_names(node: &Node) -> Result<Vec<&str>, NotNames> {
    match node {
        Node::Text(name) => Ok(vec![name]),
        Node::List(items) => items.iter().map(|item| item.text().ok_or(NotNames)).collect(),
        Node::Number(_) | Node::Object(_) | Node::Other => Err(NotNames),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static KEEP: Keep = Keep::Members(&[
        ("port", Keep::Number),
        ("agents", Keep::Each(&Keep::Members(&[("name", Keep::Text)]))),
    ]);

    #[test]
    fn what_was_asked_for_is_kept_and_nothing_else() {
        let text = r#"// JSON5
            { port: 1e3, token: "geheim", 'agents': { a: { name: 'A', key: 'geheim', }, }, }"#;
        let node = read_json5(text.as_bytes(), &KEEP).unwrap();
        assert_eq!(node.get("port").and_then(Node::number), Some(1000));
        let agent = node.get("agents").and_then(|agents| agents.get("a")).unwrap();
        assert_eq!(agent.get("name").and_then(Node::text), Some("A"));
        assert!(!format!("{node:?}").contains("geheim"));
        let json = br#"{"port":"geheim","agents":[{"name":1},{"name":"B"},"geheim"]}"#;
        let node = read_json(json, &KEEP).unwrap();
        assert_eq!(node.get("port"), Some(&Node::Other));
        assert_eq!(node.get("agents").map(|agents| agents.values().count()), Some(3));
        assert!(!format!("{node:?}").contains("geheim"));
    }

    #[test]
    fn the_last_of_several_values_counts() {
        let node = read_json5(b"{port: 1, port: 2}", &KEEP).unwrap();
        assert_eq!(node, Node::Object(vec![("port".to_owned(), Node::Number(2))]));
    }

    #[test]
    fn of_many_the_first_are_kept_and_the_others_counted() {
        static FEW: Keep = Keep::First(2, &Keep::Number);
        let numbers = |numbers: &[u64]| numbers.iter().copied().map(Node::Number).collect();
        for (text, node, left) in [
            ("[1, 2]", Node::List(numbers(&[1, 2])), 0),
            ("[1, 2, 3, 'x', {}]", Node::List(numbers(&[1, 2])), 3),
        ] {
            let left_out = Cell::new(0);
            assert_eq!(read_json5_counting(text.as_bytes(), &FEW, &left_out), Ok(node), "{text}");
            assert_eq!(left_out.get(), left, "{text}");
        }
        let left_out = Cell::new(0);
        let text = b"{a: 1, b: 2, c: 3, a: 4, $include: 'x', d: 5}";
        let node = read_json5_counting(text, &FEW, &left_out).unwrap();
        assert_eq!(node.get("a"), Some(&Node::Number(4)), "the last of its values");
        assert_eq!(
            node.get(INCLUDE).and_then(Node::text),
            Some("x"),
            "no agent, so never too many"
        );
        assert_eq!((node.values().count(), left_out.get()), (3, 2));
    }

    #[test]
    fn errors_name_the_place_and_quote_nothing() {
        for text in [
            "{\n  token: \"geheim-1\" geheim",
            "{ geheim-1: 2 }",
            "{ port: geheim }",
            "\"geheim\\xgeheim",
            "{} geheim",
            "{} \"geheim\"",
            "geheim",
        ] {
            let error = read_json5(text.as_bytes(), &KEEP).unwrap_err().to_string();
            assert!(!error.contains("geheim"), "{error}");
            let error = read_json(text.as_bytes(), &KEEP).unwrap_err().to_string();
            assert!(!error.contains("geheim"), "{error}");
        }
        let error = read_json5(b"{\n  a: 1,\n  b 2\n}", &KEEP).unwrap_err();
        assert_eq!(error.to_string(), "line 3, column 5: expected colon");
        assert_eq!(read_json5(b"\xff", &KEEP).unwrap_err(), SyntaxError::NotText);
    }

    #[test]
    fn depth_is_limited_before_the_reader_recurses() {
        let deep = |open: &str, levels: usize| open.repeat(levels).into_bytes();
        for open in ["[", "{a:", "[{a:"] {
            let error = read_json5(&deep(open, 1_000_000), &KEEP).unwrap_err();
            assert_eq!(error, SyntaxError::TooDeep, "{open}");
        }
        // serde_json has a limit of its own.
        assert!(read_json(&deep("[", 1_000_000), &KEEP).is_err());
        // Behind what looks like a string or a comment and is none to the reader.
        for hidden in ["// a\r", "// a\u{2028}", "/* a */", "'a\\'b'", "\"a\\\r\nb\","] {
            let text = format!("{hidden}{}", "[".repeat(1_000_000));
            assert!(read_json5(text.as_bytes(), &KEEP).is_err());
        }
        let brackets_in_text =
            format!("{{a: \"{}\", /* {} */ }}", "[".repeat(500), "{".repeat(500));
        assert!(read_json5(brackets_in_text.as_bytes(), &KEEP).is_ok());
        let allowed = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(read_json5(allowed.as_bytes(), &KEEP).is_ok());
    }
}
