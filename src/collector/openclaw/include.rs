//! A configuration with the files it takes in by `$include`.
//!
//! As OpenClaw does it: a text names one file, a list several that are merged in order; members
//! beside `$include` are merged over what was included; lists are appended, objects merged, and
//! anything else replaced.
//!
//! Invariants:
//! - Only files beneath the configuration's own directory are opened; a name or a link that leads
//!   out of it is an error.
//! - Circles, depth, number of files and their bytes together are bounded, and so is what is kept
//!   of them together ([`Keep::First`]).
//! - Whatever happened, every file that was looked at is listed with its stamp, so that the caller
//!   knows when to read again.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::file::{self, FileError, MAX_FILE, Stamp};
use super::node::{INCLUDE, Keep, Node, SyntaxError, included_names, read_json5_counting};

/// How deep files may include others; OpenClaw's own limit.
const MAX_LEVELS: usize = 10;
/// How many files one configuration may consist of.
const MAX_FILES: usize = 64;
/// Bytes of all its files together.
const MAX_TOTAL: u64 = 2 * MAX_FILE;

/// Why a configuration was not read: which file, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct IncludeError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with one file of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not JSON5.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// It includes itself, directly or not.
    #[error("includes itself")]
    Circle,
    /// Too many or too large.
    #[error("too many files or levels of $include")]
    TooMany,
    /// Not the name of a file.
    #[error("$include is neither a file's name nor a list of them")]
    NotNames,
    /// Members stand beside an `$include` of something that has none.
    #[error("what $include brings in is no object, but has members beside it")]
    NoObject,
}

/// A file that was looked at; `None` when it could not be read.
pub type Looked = (PathBuf, Option<Stamp>);

/// Reads a configuration and what it includes. `looked` is filled in either case, and how much more
/// there was than is kept is added to `left_out`.
///
/// # Errors
/// The first thing that is wrong, as OpenClaw refuses the whole configuration for it.
pub fn read(
    path: &Path,
    keep: &'static Keep,
    looked: &mut Vec<Looked>,
    left_out: &Cell<usize>,
) -> Result<Node, IncludeError> {
    let fail = |why: Why| IncludeError { path: path.to_owned(), why };
    let (bytes, stamp) = match file::read(path, MAX_FILE) {
        Ok(read) => read,
        Err(error) => {
            looked.push((path.to_owned(), file::look(path).ok()));
            return Err(fail(error.into()));
        }
    };
    looked.push((path.to_owned(), Some(stamp)));
    let node = read_json5_counting(&bytes, keep, left_out).map_err(|error| fail(error.into()))?;
    let root = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().map(PathBuf::from).unwrap_or_default();
    let mut reading = Reading { root, looked, left_out, bytes: bytes.len() as u64 };
    reading.expand(node, keep, &mut vec![name])
}

struct Reading<'a> {
    root: &'a Path,
    looked: &'a mut Vec<Looked>,
    left_out: &'a Cell<usize>,
    bytes: u64,
}

impl Reading<'_> {
    /// `chain` is the files that led here, relative to the root, the present one last.
    fn expand(
        &mut self,
        node: Node,
        keep: &'static Keep,
        chain: &mut Vec<PathBuf>,
    ) -> Result<Node, IncludeError> {
        match node {
            Node::List(items) => {
                // Keep::Each looks the same for every name.
                let Some(each) = keep.member("") else { return Ok(Node::List(items)) };
                let items = items.into_iter().map(|item| self.expand(item, each, chain));
                Ok(Node::List(items.collect::<Result<_, _>>()?))
            }
            Node::Object(members) => {
                let (mut rest, mut included) = (Vec::new(), None);
                for (name, value) in members {
                    if name == INCLUDE {
                        included = Some(value);
                    } else if let Some(keep) = keep.member(&name) {
                        rest.push((name, self.expand(value, keep, chain)?));
                    }
                }
                match included {
                    None => Ok(Node::Object(rest)),
                    Some(names) => self.include(&names, rest, keep, chain),
                }
            }
            Node::Text(_) | Node::Number(_) | Node::Other => Ok(node),
        }
    }

    fn include(
        &mut self,
        names: &Node,
        rest: Vec<(String, Node)>,
        keep: &'static Keep,
        chain: &mut Vec<PathBuf>,
    ) -> Result<Node, IncludeError> {
        let Ok(names) = included_names(names) else {
            return Err(self.fail(chain.last(), Why::NotNames));
        };
        let mut merged: Option<Node> = None;
        for name in names {
            let node = self.load(name, keep, chain)?;
            merged = Some(match merged {
                Some(earlier) => self.merge(earlier, node, Some(keep)),
                None => node,
            });
        }
        let merged = merged.unwrap_or_else(|| Node::Object(Vec::new()));
        if rest.is_empty() {
            return Ok(merged);
        }
        if !matches!(merged, Node::Object(_)) {
            return Err(self.fail(chain.last(), Why::NoObject));
        }
        Ok(self.merge(merged, Node::Object(rest), Some(keep)))
    }

    fn load(
        &mut self,
        name: &str,
        keep: &'static Keep,
        chain: &mut Vec<PathBuf>,
    ) -> Result<Node, IncludeError> {
        let name = Path::new(name);
        let relative = if name.is_absolute() {
            file::normalized(name)
                .and_then(|path| path.strip_prefix(self.root).map(Path::to_owned).ok())
        } else {
            let directory = chain.last().and_then(|file| file.parent()).unwrap_or(Path::new(""));
            file::normalized(&directory.join(name))
        };
        let Some(relative) = relative else {
            return Err(IncludeError { path: name.to_owned(), why: FileError::Outside.into() });
        };
        if chain.contains(&relative) {
            return Err(self.fail(Some(&relative), Why::Circle));
        }
        if chain.len() > MAX_LEVELS || self.looked.len() >= MAX_FILES || self.bytes > MAX_TOTAL {
            return Err(self.fail(Some(&relative), Why::TooMany));
        }
        let read = file::read_beneath(self.root, &relative, MAX_FILE);
        let full = self.root.join(&relative);
        match &read {
            Ok((_, stamp)) => self.looked.push((full, Some(*stamp))),
            Err(_) => {
                let stamp = file::look(&full).ok();
                self.looked.push((full, stamp));
            }
        }
        let (bytes, _) = read.map_err(|error| self.fail(Some(&relative), error.into()))?;
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let node = read_json5_counting(&bytes, keep, self.left_out)
            .map_err(|error| self.fail(Some(&relative), error.into()))?;
        drop(bytes);
        chain.push(relative);
        let expanded = self.expand(node, keep, chain);
        chain.pop();
        expanded
    }

    /// Puts `later` over `earlier`; the order of the agents is the order of the files.
    fn merge(&self, earlier: Node, later: Node, keep: Option<&'static Keep>) -> Node {
        let most = keep.map_or(usize::MAX, Keep::most);
        match (earlier, later) {
            (Node::List(mut items), Node::List(more)) => {
                items.extend(more);
                self.leave_out(items.len().saturating_sub(most));
                items.truncate(most);
                Node::List(items)
            }
            (Node::Object(mut members), Node::Object(more)) => {
                let places: HashMap<String, usize> =
                    members.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
                for (name, value) in more {
                    let room = members.len() < most;
                    match places.get(&name).and_then(|at| members.get_mut(*at)) {
                        Some((_, place)) => {
                            let known = std::mem::replace(place, Node::Other);
                            let keep = keep.and_then(|keep| keep.member(&name));
                            *place = self.merge(known, value, keep);
                        }
                        None if room => members.push((name, value)),
                        None => self.leave_out(1),
                    }
                }
                Node::Object(members)
            }
            (_, later) => later,
        }
    }

    fn leave_out(&self, count: usize) {
        self.left_out.set(self.left_out.get().saturating_add(count));
    }

    fn fail(&self, relative: Option<&PathBuf>, why: Why) -> IncludeError {
        IncludeError { path: relative.map_or(self.root.to_owned(), |p| self.root.join(p)), why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    static KEEP: Keep = Keep::Members(&[("list", Keep::Each(&Keep::Text)), ("a", ENTRY)]);
    const ENTRY: Keep = Keep::Members(&[("x", Keep::Text), ("y", Keep::Text)]);

    fn texts(node: &Node, name: &str) -> Vec<String> {
        let values = node.get(name).into_iter().flat_map(Node::values);
        values.filter_map(|value| value.text().map(str::to_owned)).collect()
    }

    fn site(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn read_site(dir: &tempfile::TempDir) -> (Result<Node, IncludeError>, usize) {
        let mut looked = Vec::new();
        let node = read(&dir.path().join("main.json"), &KEEP, &mut looked, &Cell::new(0));
        (node, looked.len())
    }

    #[test]
    fn included_files_are_merged_as_openclaw_merges_them() {
        let dir = site(&[
            ("main.json", "{$include: ['one.json', './sub/two.json'], a: {x: 'main'}}"),
            ("one.json", "{list: ['1'], a: {x: 'one', y: 'one'}, secret: 'geheim'}"),
            ("sub/two.json", "{list: ['2'], a: {$include: 'three.json'}}"),
            ("sub/three.json", "{y: 'three'}"),
        ]);
        let (node, looked) = read_site(&dir);
        let node = node.unwrap();
        assert_eq!(looked, 4);
        assert_eq!(texts(&node, "list"), ["1", "2"], "lists are appended");
        assert_eq!(texts(&node, "a"), ["main", "three"], "what stands beside wins");
    }

    #[test]
    fn what_is_kept_is_bounded_over_all_files_together() {
        static FEW: Keep = Keep::Members(&[("list", Keep::First(3, &Keep::Text)), ("map", MAP)]);
        const MAP: Keep = Keep::First(3, &Keep::Text);
        let dir = site(&[
            ("main.json", "{$include: ['one.json', 'two.json'], map: {e: 'main', a: 'main'}}"),
            ("one.json", "{list: ['1', '2'], map: {a: 'one', b: 'one'}}"),
            ("two.json", "{list: ['3', '4'], map: {b: 'two', c: 'two', d: 'two', f: 'two'}}"),
        ]);
        let left_out = Cell::new(0);
        let node = read(&dir.path().join("main.json"), &FEW, &mut Vec::new(), &left_out).unwrap();
        assert_eq!(texts(&node, "list"), ["1", "2", "3"]);
        assert_eq!(texts(&node, "map"), ["main", "two", "two"], "a, b and c, the last values");
        // The list's fourth, f of the one file, then d and e.
        assert_eq!(left_out.get(), 4);
    }

    #[test]
    fn a_list_may_be_included_as_a_whole() {
        let dir = site(&[("main.json", "{list: {$include: 'l.json'}}"), ("l.json", "['1']")]);
        assert_eq!(texts(&read_site(&dir).0.unwrap(), "list"), ["1"]);
        let dir = site(&[("main.json", "{a: {$include: 'l.json', x: 'x'}}"), ("l.json", "['1']")]);
        // A list is not what is kept of `a`, so it is no object either.
        assert_eq!(read_site(&dir).0.unwrap_err().why, Why::NoObject);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_file() {
        let cases: [(&str, &str, Why); 6] = [
            ("'../x.json'", "", FileError::Outside.into()),
            ("'/etc/passwd'", "", FileError::Outside.into()),
            ("'one.json'", "{$include: 'main.json'}", Why::Circle),
            ("'none.json'", "", FileError::Missing.into()),
            ("{}", "", Why::NotNames),
            ("['one.json', 1]", "{}", Why::NotNames),
        ];
        for (include, one, why) in cases {
            let main = format!("{{$include: {include}}}");
            let dir = site(&[("main.json", main.as_str()), ("one.json", one)]);
            assert_eq!(read_site(&dir).0.unwrap_err().why, why, "{include}");
        }
        let dir = site(&[("main.json", "{$include: 'one.json'}"), ("one.json", "{\n\n x")]);
        let error = read_site(&dir).0.unwrap_err();
        assert!(error.path.ends_with("one.json"), "{error}");
        assert!(matches!(error.why, Why::Syntax(_)));
    }

    #[test]
    fn a_link_that_leads_out_is_not_followed() {
        let outside = site(&[("secret.json", "{list: ['geheim']}")]);
        let dir = site(&[("main.json", "{$include: 'link.json'}")]);
        symlink(outside.path().join("secret.json"), dir.path().join("link.json")).unwrap();
        assert_eq!(read_site(&dir).0.unwrap_err().why, FileError::Outside.into());
    }

    #[test]
    fn files_that_include_each_other_many_times_end() {
        let many = ["'x.json'"; 10].join(",");
        let text = |n: usize| format!("{{$include: [{}]}}", many.replace('x', &format!("f{n}")));
        let files: Vec<(String, String)> =
            (0..9).map(|n| (format!("f{n}.json"), text(n + 1))).collect();
        let mut all: Vec<(&str, &str)> =
            files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let main = text(0);
        all.push(("main.json", &main));
        all.push(("f9.json", "{}"));
        let (node, looked) = read_site(&site(&all));
        assert_eq!(node.unwrap_err().why, Why::TooMany);
        assert!(looked <= MAX_FILES);
    }
}
