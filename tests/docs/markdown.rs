//! Markdown as far as this documentation uses it. Pure but for [`documents`].

use std::fs;
use std::path::{Path, PathBuf};

/// A document.
pub struct Document {
    /// Its path from the root of the repository.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// A block of code or of a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The document's path.
    pub path: String,
    /// Where it begins, counted from 1.
    pub line: usize,
    /// The comment `<!-- ... -->` on the line before it.
    pub mark: Option<String>,
    /// What stands behind the fence; `None` of a block that is only indented.
    pub language: Option<String>,
    /// Its lines, without the indentation common to all.
    pub lines: Vec<String>,
}

impl Block {
    /// Its first line, by which it is known.
    pub fn first(&self) -> &str {
        &self.lines[0]
    }

    /// Its text.
    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// A line of a document outside its blocks.
pub struct Prose<'a> {
    /// Its number, counted from 1.
    pub line: usize,
    /// Its text.
    pub text: &'a str,
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document that users read: README.md and those in docs/ and deploy/.
pub fn documents() -> Vec<Document> {
    let mut paths = vec![root().join("README.md")];
    for directory in ["docs", "deploy"] {
        paths.extend(files(&root().join(directory), "md"));
    }
    paths.sort();
    let read = |path: PathBuf| Document {
        text: fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
    };
    paths.into_iter().map(read).collect()
}

/// Every file of a directory and those below it whose name ends so; what was built is left out.
pub fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

/// All blocks of all documents.
pub fn all_blocks() -> Vec<Block> {
    documents().iter().flat_map(|document| split(document).0).collect()
}

/// The one block of a document that begins with this line.
pub fn block(path: &str, first: &str) -> Block {
    let mut found: Vec<Block> =
        all_blocks().into_iter().filter(|b| b.path == path && b.first() == first).collect();
    assert_eq!(found.len(), 1, "{path}: blocks that begin with {first:?}");
    found.remove(0)
}

/// A document's blocks and the lines between them.
pub fn split(document: &Document) -> (Vec<Block>, Vec<Prose<'_>>) {
    let lines: Vec<&str> = document.text.lines().collect();
    let (mut blocks, mut prose) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < lines.len() {
        let begins = at;
        let mark = at.checked_sub(1).and_then(|before| comment(lines[before]));
        let (language, inside) = if let Some(language) = lines[at].strip_prefix("```") {
            let count = lines[at + 1..].iter().take_while(|line| **line != "```").count();
            assert!(at + 1 + count < lines.len(), "{}:{}: no end", document.path, at + 1);
            at += count + 2;
            (Some(language.to_owned()), &lines[begins + 1..begins + 1 + count])
        } else if is_indented(lines[at]) && (at == 0 || lines[at - 1].is_empty()) {
            let goes_on = |line: &&&str| is_indented(line) || line.is_empty();
            let mut count = lines[at..].iter().take_while(goes_on).count();
            while lines[at + count - 1].is_empty() {
                count -= 1;
            }
            at += count;
            (None, &lines[begins..begins + count])
        } else {
            prose.push(Prose { line: at + 1, text: lines[at] });
            at += 1;
            continue;
        };
        let lines = without_margin(inside);
        blocks.push(Block { path: document.path.clone(), line: begins + 1, mark, language, lines });
    }
    (blocks, prose)
}

fn is_indented(line: &str) -> bool {
    line.starts_with("    ")
}

fn comment(line: &str) -> Option<String> {
    let inside = line.strip_prefix("<!--")?.strip_suffix("-->")?;
    Some(inside.trim().to_owned())
}

fn without_margin(lines: &[&str]) -> Vec<String> {
    let margin = |line: &&&str| line.len() - line.trim_start().len();
    let least = lines.iter().filter(|line| !line.is_empty()).map(|line| margin(&line)).min();
    let least = least.unwrap_or(0);
    lines.iter().map(|line| line.get(least..).unwrap_or_default().to_owned()).collect()
}

/// What stands between backquotes in a line.
pub fn quoted(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// The anchors of a document's headings, as GitHub and most others make them.
pub fn anchors(document: &Document) -> Vec<String> {
    let (_, prose) = split(document);
    let headings = prose.iter().filter_map(|line| heading(line.text));
    headings.map(anchor).collect()
}

/// The text of a heading.
pub fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    (text.len() < line.len()).then(|| text.strip_prefix(' '))?
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The targets of a line's links.
pub fn targets(line: &str) -> Vec<&str> {
    // What is code is no link.
    let outside = line.split('`').step_by(2);
    let all = outside.flat_map(|part| part.split("](").skip(1));
    all.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

#[test]
fn blocks_are_found_with_what_surrounds_them() {
    let text = "# One\n\ntext\n\n    $ a\n      b\n\n    c\n\n<!-- mark -->\n```sh\nd\n\n```\ne\n";
    let document = Document { path: "x.md".to_owned(), text: text.to_owned() };
    let (blocks, prose) = split(&document);
    let shapes: Vec<_> = blocks
        .iter()
        .map(|b| (b.line, b.mark.as_deref(), b.language.as_deref(), b.lines.join("|")))
        .collect();
    assert_eq!(
        shapes,
        [(5, None, None, "$ a|  b||c".to_owned()), (11, Some("mark"), Some("sh"), "d|".to_owned())]
    );
    assert_eq!((prose.last().unwrap().line, prose.last().unwrap().text), (15, "e"));
    assert_eq!(anchors(&document), ["one"]);
}

#[test]
fn links_anchors_and_code_are_told_apart() {
    assert_eq!(targets("[a](b.md#c), `[d](e)` and [`f`](g)"), ["b.md#c", "g"], "code is no link");
    assert_eq!(targets("[a](b) [c](d)"), ["b", "d"]);
    assert_eq!(quoted("a `b` c `d`"), ["b", "d"]);
    assert_eq!(
        anchor("1. Endpoints (relative to `backend_url`)"),
        "1-endpoints-relative-to-backend_url"
    );
    assert_eq!((heading("## A b"), heading("#!x"), heading("a # b")), (Some("A b"), None, None));
}
