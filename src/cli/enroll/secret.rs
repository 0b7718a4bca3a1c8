//! The secret: from a file, the standard input, or a prompt that does not show it.
//!
//! Invariants: it stands in wiped memory only; no message repeats it; a terminal is put back as
//! it was, also when the prompt is interrupted.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::Path;

use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use zeroize::Zeroizing;

use super::super::{CliError, Exit};
use crate::config::Credential;

/// No secret has more bytes, line end included.
const MOST: usize = 8 * 1024;

/// Which kind of secret is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Challenge,
    ApiKey,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Challenge => "challenge",
            Self::ApiKey => "API key",
        }
    }

    /// The credential a text is, spaces and line ends around it left out; `from` says where it
    /// was read.
    fn credential(self, text: &str, from: &str) -> Result<Credential, CliError> {
        let text = text.trim();
        let made = match self {
            Self::Challenge => Credential::challenge(text),
            Self::ApiKey => Credential::api_key(text),
        };
        made.ok_or_else(|| {
            let expected = match self {
                Self::Challenge => crate::config::Key::ChallengeUuid,
                Self::ApiKey => crate::config::Key::ApiKey,
            };
            let count = text.chars().count();
            let text = format!(
                "{from}: found a text of {count} characters, expected the {}: {}",
                self.name(),
                expected.values()
            );
            CliError::new(Exit::Config, text)
        })
    }
}

/// Reads it from a file; `-` is the standard input.
pub(super) fn from_file(path: &Path, kind: Kind) -> Result<Credential, CliError> {
    if path == Path::new("-") {
        return from_stdin(kind);
    }
    let shown = path.display().to_string();
    let file = File::open(path)
        .map_err(|error| CliError::new(Exit::Config, format!("cannot read {shown}: {error}")))?;
    kind.credential(&limited(file, &shown)?, &shown)
}

/// Reads it from the standard input, to its end.
pub(super) fn from_stdin(kind: Kind) -> Result<Credential, CliError> {
    if io::stdin().is_terminal() {
        return prompt(kind);
    }
    let from = "standard input";
    kind.credential(&limited(io::stdin().lock(), from)?, from)
}

fn limited(reader: impl Read, from: &str) -> Result<Zeroizing<String>, CliError> {
    let failed = |what: String| CliError::new(Exit::Config, format!("cannot read {from}: {what}"));
    // In its full size from the start, so that no copy is left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST + 1));
    reader
        .take(MOST as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(error.to_string()))?;
    if bytes.len() > MOST {
        return Err(failed(format!("it has more than {MOST} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| failed("it is not text".to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Asks for it on the terminal, without an echo.
pub(super) fn prompt(kind: Kind) -> Result<Credential, CliError> {
    let failed = |error: io::Error| {
        CliError::new(Exit::Failed, format!("cannot read the terminal: {error}"))
    };
    let mut err = io::stderr();
    let line = {
        // First silence, then the question: what is pasted as soon as it is asked is neither shown
        // nor thrown away.
        let _silent = Silent::begin().map_err(failed)?;
        write!(err, "The {} (it is not shown): ", kind.name())
            .and_then(|()| err.flush())
            .map_err(failed)?;
        line(io::stdin().lock()).map_err(failed)?
    };
    // The Enter was not echoed either.
    writeln!(err).map_err(failed)?;
    match line {
        Typed::Line(text) => kind.credential(&text, "the terminal"),
        Typed::Interrupted => Err(CliError::quiet(Exit::Interrupted)),
    }
}

/// The terminal without echo, byte by byte; put back when this is dropped.
struct Silent(Termios);

impl Silent {
    fn begin() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = termios::tcgetattr(&stdin)?;
        let mut silent = before.clone();
        // Signals too: one that ends the process would leave the terminal silent. Ctrl-C is seen
        // as a byte.
        silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios::tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // A terminal that has gone needs no mending.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// How a line that was typed ended.
#[derive(Debug)]
enum Typed {
    Line(Zeroizing<String>),
    Interrupted,
}

/// A line as it is typed, with the keys that mend it.
fn line(mut reader: impl Read) -> io::Result<Typed> {
    let mut line = Zeroizing::new(Vec::with_capacity(MOST));
    let mut byte = [0];
    loop {
        if reader.read(&mut byte)? == 0 {
            break;
        }
        match byte {
            // Ctrl-C, Ctrl-\.
            [0x03 | 0x1c] => return Ok(Typed::Interrupted),
            [b'\r' | b'\n' | 0x04] => break,
            // Backspace, of either kind.
            [0x7f | 0x08] => {
                // A character of several bytes goes as a whole.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            // Ctrl-U.
            [0x15] => line.clear(),
            [byte] if line.len() < MOST => line.push(byte),
            _ => return Err(io::Error::other("the line is too long")),
        }
    }
    let text = std::str::from_utf8(&line).map_err(|_| io::Error::other("it is not UTF-8"))?;
    Ok(Typed::Line(Zeroizing::new(text.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_mended_as_it_is_typed() {
        for (typed, read) in [
            ("abc\nrest", Some("abc")),
            ("abc\r", Some("abc")),
            ("abc", Some("abc")),
            ("ab\u{4}", Some("ab")),
            ("aü\u{7f}b\u{8}\u{8}\u{8}\u{8}c\n", Some("c")),
            ("abc\u{15}d\n", Some("d")),
            ("", Some("")),
            ("abc\u{3}", None),
            ("\u{1c}", None),
        ] {
            match line(typed.as_bytes()).unwrap() {
                Typed::Line(text) => assert_eq!(Some(text.as_str()), read, "{typed:?}"),
                Typed::Interrupted => assert_eq!(None, read, "{typed:?}"),
            }
        }
        assert!(line("x".repeat(MOST + 1).as_bytes()).is_err());
        assert!(line(&b"\xff\n"[..]).is_err());
    }

    #[test]
    fn what_is_no_secret_is_described_and_not_repeated() {
        let error = Kind::Challenge.credential(" geheim\n", "the terminal").unwrap_err();
        assert_eq!(error.exit, Exit::Config);
        assert_eq!(
            error.message,
            "the terminal: found a text of 6 characters, expected the challenge: a UUID such as \
             8f14e45f-ceea-467f-9575-1d2f3a4b5c6d"
        );
        assert!(Kind::ApiKey.credential(" geheim\r\n", "x").is_ok());
        assert!(Kind::ApiKey.credential("ge heim", "x").is_err());
        let error = limited("x".repeat(MOST + 1).as_bytes(), "x").unwrap_err();
        assert!(error.message.contains("more than 8192 bytes"), "{error}");
    }
}
