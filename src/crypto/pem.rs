//! PEM as it comes in practice, made into DER.
//!
//! Accepted beyond RFC 7468: a byte order mark, CR, CRLF or LF, the two characters `\n` in place
//! of a line's end, base64 in lines of any length or in one line with its markers, spaces at the
//! ends of lines, and text before and after the one block.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::document::KeyError;

/// Padding may be missing: some writers leave it out, and it carries nothing.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// The one block of a PEM text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// What stands after `BEGIN`.
    pub(super) label: String,
    /// What the base64 says.
    pub(super) der: Vec<u8>,
}

/// Finds the block.
///
/// # Errors
/// No block, more than one, one without its end, or one that is not base64.
pub(super) fn only_block(text: &str) -> Result<Block, KeyError> {
    let text = text.replace("\\r", "\n").replace("\\n", "\n");
    let mut blocks = text.split(BEGIN);
    // What stands before the first marker is text.
    blocks.next();
    let block = blocks.next().ok_or(KeyError::NoPem)?;
    let more = blocks.count();
    if more > 0 {
        return Err(KeyError::SeveralBlocks { found: more + 1 });
    }
    let (label, rest) = block.split_once(DASHES).ok_or(KeyError::NoPem)?;
    if label.len() > 64 || !label.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return Err(KeyError::NoPem);
    }
    let end = format!("{END}{label}{DASHES}");
    let (body, _) =
        rest.split_once(&end).ok_or_else(|| KeyError::NoEnd { label: label.to_owned() })?;
    let base64: Vec<u8> = body.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let der = LENIENT.decode(base64).map_err(|source| KeyError::NotBase64 { source })?;
    Ok(Block { label: label.to_owned(), der })
}
