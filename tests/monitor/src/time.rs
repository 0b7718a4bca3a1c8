//! Times as the protocol writes them. Pure: every function takes its time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long ago `then` was at `now`; zero when it lies ahead.
#[must_use]
pub fn age(now: SystemTime, then: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}

/// How far two times are apart, whichever comes first.
#[must_use]
pub fn distance(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|ahead| ahead.duration())
}

/// `time` moved by whole seconds either way; a time that cannot be represented stays as it was.
#[must_use]
pub fn shifted(time: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    let moved = if seconds < 0 { time.checked_sub(by) } else { time.checked_add(by) };
    moved.unwrap_or(time)
}

/// RFC 3339, UTC, whole seconds: `2026-03-11T21:00:00Z`.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    // humantime can write the years 1970 to 9999 only.
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let last = 253_402_300_799;
    let time = UNIX_EPOCH + Duration::from_secs(seconds.min(last));
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Reads exactly the form [`rfc3339`] writes; `None` for every other one.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    (text.len() == 20).then_some(())?;
    humantime::parse_rfc3339(text).ok()
}

/// An HTTP date (RFC 9110 5.6.7): `Wed, 11 Mar 2026 21:00:00 GMT`.
#[must_use]
pub fn http_date(time: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let stamp = rfc3339(time);
    let part = |from: usize, to: usize| stamp.get(from..to).unwrap_or_default();
    // The first of January 1970 was a Thursday.
    let days = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
    let weekday = DAYS.iter().cycle().nth((days % 7) as usize).copied().unwrap_or_default();
    let number: usize = part(5, 7).parse().unwrap_or(1);
    let month = MONTHS.get(number.saturating_sub(1)).copied().unwrap_or_default();
    format!("{weekday}, {} {month} {} {} GMT", part(8, 10), part(0, 4), part(11, 19))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_two_formats_ask() {
        let time = UNIX_EPOCH + Duration::from_secs(1_773_262_800);
        assert_eq!(rfc3339(time), "2026-03-11T21:00:00Z");
        assert_eq!(http_date(time), "Wed, 11 Mar 2026 21:00:00 GMT");
        assert_eq!(http_date(UNIX_EPOCH), "Thu, 01 Jan 1970 00:00:00 GMT");
        let leap = UNIX_EPOCH + Duration::from_secs(951_782_400);
        assert_eq!(http_date(leap), "Tue, 29 Feb 2000 00:00:00 GMT");
    }

    #[test]
    fn only_whole_utc_seconds_are_read() {
        let time = UNIX_EPOCH + Duration::from_secs(1_773_262_800);
        assert_eq!(parse_rfc3339("2026-03-11T21:00:00Z"), Some(time));
        for wrong in ["2026-03-11T21:00:00.5Z", "2026-03-11 21:00:00", "yesterday", ""] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn distances_and_shifts_work_both_ways() {
        let time = UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(shifted(time, -400), UNIX_EPOCH + Duration::from_secs(600));
        assert_eq!(distance(time, shifted(time, 7)), Duration::from_secs(7));
        assert_eq!(distance(shifted(time, 7), time), Duration::from_secs(7));
        assert_eq!(age(time, shifted(time, 7)), Duration::ZERO);
    }
}
