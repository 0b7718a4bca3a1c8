//! The texts that were made when the program was built: completions and manual pages.
//!
//! Invariants:
//! - They come from the definitions of the command line (`src/build.rs`), so they know every command
//!   and option there is, and no other.
//! - They are carried as one LZ4 block, in a seventh of their size, and unpacked when one is asked for.

use std::io::Write as _;

use lz4_flex::block::decompress_into;

use super::{CliError, Exit};

/// Each text's name and its length in bytes, in their order in the block.
const TEXTS: &[(&str, usize)] = include!(concat!(env!("OUT_DIR"), "/texts.rs"));
const BLOCK: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/texts.lz4"));

/// Prints the text of this name to stdout.
///
/// # Errors
/// When there is none, and when stdout does not take it.
pub(super) fn print(name: &str) -> Result<(), CliError> {
    let text = text(name)
        .ok_or_else(|| CliError::new(Exit::Usage, format!("this program has no {name:?}")))?;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| CliError::of_output(&error))
}

/// The names of all texts.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TEXTS.iter().map(|(name, _)| *name)
}

/// The text of this name: `completions SHELL`, `man COMMAND`, or `man ` for the program's own page.
#[must_use]
pub(super) fn text(name: &str) -> Option<String> {
    let mut all = vec![0; TEXTS.iter().map(|(_, length)| length).sum()];
    decompress_into(BLOCK, &mut all).ok()?;
    let mut rest = all.as_slice();
    for (of, length) in TEXTS {
        let (text, after) = rest.split_at_checked(*length)?;
        if *of == name {
            return String::from_utf8(text.to_vec()).ok();
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_comes_out_whole_and_at_a_seventh_of_its_size() {
        let mut size = 0;
        for (name, length) in TEXTS {
            let text = text(name).expect(name);
            assert_eq!(text.len(), *length, "{name}");
            assert!(text.contains("harborforge") && text.ends_with('\n'), "{name}");
            size += length;
        }
        assert!(BLOCK.len() * 6 < size && size < BLOCK.len() * 8, "{} of {size}", BLOCK.len());
        assert_eq!(text("man nonsense"), None);
    }
}
