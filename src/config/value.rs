//! One value each: from what was written to what is meant. Every function answers `None` for
//! what is not permitted; the caller knows the place and the key.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::settings::Raw;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
/// A year as humantime counts it, 365.25 days.
pub(super) const YEAR: Duration = Duration::from_secs(31_557_600);

/// A text without spaces around it that is not empty.
pub(super) fn text(raw: &Raw) -> Option<&str> {
    match raw {
        Raw::Text(text) => {
            Some(text.as_str()).filter(|text| !text.is_empty() && text.trim() == *text)
        }
        Raw::Integer(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Other(_) => None,
    }
}

/// A duration such as `5m` in a range.
pub(super) fn duration(raw: &Raw, range: RangeInclusive<Duration>) -> Option<Duration> {
    humantime::parse_duration(text(raw)?).ok().filter(|duration| range.contains(duration))
}

/// The same, where zero stands for "off" and may be written without a unit.
pub(super) fn duration_or_zero(raw: &Raw, max: Duration) -> Option<Duration> {
    match raw {
        Raw::Integer(0) => Some(Duration::ZERO),
        Raw::Text(text) if text.as_str() == "0" => Some(Duration::ZERO),
        Raw::Text(_) | Raw::Integer(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Other(_) => {
            duration(raw, Duration::ZERO..=max)
        }
    }
}

/// A whole number of seconds in a range.
pub(super) fn seconds(raw: &Raw, range: RangeInclusive<Duration>) -> Option<Duration> {
    let number = match raw {
        Raw::Integer(number) => u64::try_from(*number).ok()?,
        Raw::Text(text) => digits(text)?,
        Raw::Boolean(_) | Raw::List(_) | Raw::Other(_) => return None,
    };
    Some(Duration::from_secs(number)).filter(|duration| range.contains(duration))
}

/// A size in bytes: a whole number, in a text with or without a unit. At most 2^63-1, so that
/// sums of a few never overflow.
pub(super) fn bytes(raw: &Raw, min: u64) -> Option<u64> {
    let number = match raw {
        Raw::Integer(number) => u64::try_from(*number).ok()?,
        Raw::Text(_) => {
            let text = text(raw)?;
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let (number, unit) = text.split_at_checked(end)?;
            let factor = match unit.trim_start() {
                "" | "B" => 1,
                "kB" => 1_000,
                "MB" => 1_000_000,
                "GB" => 1_000_000_000,
                "TB" => 1_000_000_000_000,
                "KiB" => 1 << 10,
                "MiB" => 1 << 20,
                "GiB" => 1 << 30,
                "TiB" => 1 << 40,
                _ => return None,
            };
            digits(number)?.checked_mul(factor)?
        }
        Raw::Boolean(_) | Raw::List(_) | Raw::Other(_) => return None,
    };
    Some(number).filter(|number| (min..=i64::MAX.unsigned_abs()).contains(number))
}

/// Decimal digits only: `parse` alone would take a sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// `true` or `false`, as TOML or as a text of the environment.
pub(super) fn boolean(raw: &Raw) -> Option<bool> {
    match raw {
        Raw::Boolean(value) => Some(*value),
        Raw::Text(text) => match text.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        },
        Raw::Integer(_) | Raw::List(_) | Raw::Other(_) => None,
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(raw: &Raw, words: &[(&str, T)]) -> Option<T> {
    let text = text(raw)?;
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
}

/// A path; a relative one is taken from `base`, the directory of the file it stands in.
pub(super) fn path(raw: &Raw, base: &Path) -> Option<PathBuf> {
    text(raw).filter(|text| is_path(text)).map(|text| base.join(text))
}

/// A control character in a path is a mistake, and would garble the lines that show the path.
fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

/// A list of paths; in the environment separated by colons, as in `PATH`.
pub(super) fn paths(raw: &Raw, base: &Path) -> Option<Vec<PathBuf>> {
    let items: Vec<&str> = match raw {
        Raw::List(items) => items.iter().map(String::as_str).collect(),
        Raw::Text(_) => text(raw)?.split(':').collect(),
        Raw::Integer(_) | Raw::Boolean(_) | Raw::Other(_) => return None,
    };
    items.into_iter().map(|item| is_path(item).then(|| base.join(item))).collect()
}

/// An address of this machine only, with a port; `off` is `Some(None)`.
pub(super) fn loopback(raw: &Raw) -> Option<Option<SocketAddr>> {
    let text = text(raw)?;
    if text == "off" {
        return Some(None);
    }
    let address: SocketAddr = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}").parse().ok()?,
        None => text.parse().ok()?,
    };
    address.ip().is_loopback().then_some(Some(address))
}

/// 32 bytes in hexadecimal digits of either case.
pub(super) fn sha256(raw: &Raw) -> Option<[u8; 32]> {
    let text = text(raw)?;
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; 32];
    for (index, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(out)
}

/// Whether a text has the form of a UUID: 8-4-4-4-12 hexadecimal digits.
pub(super) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Whether a text can be an API key: it goes into one header.
pub(super) fn is_api_key(text: &str) -> bool {
    (1..=4096).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether a text can be this server's name.
pub(super) fn is_identifier(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_units_and_nothing_doubtful() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("7B", Some(7)),
            ("2kB", Some(2000)),
            ("256MiB", Some(256 << 20)),
            ("256 MiB", Some(256 << 20)),
            ("3GiB", Some(3 << 30)),
            ("1TB", Some(1_000_000_000_000)),
            ("1.5GiB", None),
            ("256M", None),
            ("256mib", None),
            ("+1", None),
            ("-1", None),
            ("MiB", None),
            ("", None),
            ("99999999TiB", None),
            ("18446744073709551615", None),
        ] {
            assert_eq!(bytes(&Raw::text(text), 0), expected, "{text}");
        }
        assert_eq!(bytes(&Raw::Integer(-1), 0), None);
        assert_eq!(bytes(&Raw::Integer(5), 6), None);
    }

    #[test]
    fn a_uuid_has_its_form() {
        assert!(is_uuid("8f14e45f-ceea-467f-9575-1d2f3a4b5c6D"));
        for text in ["", "8f14e45fceea467f95751d2f3a4b5c6d", "8f14e45f-ceea-467f-9575-1d2f3a4b5c6g"]
        {
            assert!(!is_uuid(text), "{text}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for text in ["127.0.0.1:9100", "[::1]:9100", "127.8.8.8:1", "localhost:9100"] {
            assert!(loopback(&Raw::text(text)).flatten().is_some(), "{text}");
        }
        assert_eq!(loopback(&Raw::text("off")), Some(None));
        for text in ["0.0.0.0:9100", "[::]:1", "192.168.0.1:1", "127.0.0.1", "9100", "host:1"] {
            assert_eq!(loopback(&Raw::text(text)), None, "{text}");
        }
    }

    #[test]
    fn fingerprints_are_64_hexadecimal_digits() {
        let text = "0a".repeat(31) + "Ff";
        let bytes = sha256(&Raw::text(text.as_str())).unwrap();
        assert_eq!((bytes[0], bytes[31]), (0x0a, 0xff));
        assert_eq!(sha256(&Raw::text("0a".repeat(31))), None);
        assert_eq!(sha256(&Raw::text("é".repeat(32))), None);
        assert_eq!(sha256(&Raw::text("+a".repeat(32))), None);
    }
}
