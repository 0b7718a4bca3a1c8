//! What a Monitor's answer to a heartbeat means: the table of docs/PROTOCOL.md 5 as one pure
//! function, pinned line by line in the tests.
//!
//! Invariants: every answer has exactly one [`Outcome`]; nothing but what the table names as
//! delivered is ever taken for delivered, so a portal's page or a proxy's courtesy loses nothing.

use std::time::{Duration, SystemTime};

use crate::protocol::{AnswerBody, AnswerObject, Rejection, read_answer};

/// What was asked for, since a batch is answered differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// One sample.
    Single,
    /// A batch, first to last number.
    Batch {
        /// Number of the batch's first sample.
        first: u64,
        /// Number of its last sample.
        last: u64,
    },
}

/// An answer as it came off the wire.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// HTTP status code.
    pub status: u16,
    /// `Retry-After`, as written.
    pub retry_after: Option<&'a str>,
    /// `Location`, as written.
    pub location: Option<&'a str>,
    /// The body, at most [`crate::protocol::MAX_ANSWER`] bytes.
    pub body: &'a [u8],
}

/// What an answer means for what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The single sample is stored.
    Delivered,
    /// A batch is stored up to and including `acked`, except for the rejected.
    Progress {
        /// Last number stored; lower than the batch's first when nothing was.
        acked: u64,
        /// Samples that will never be accepted, each within the batch.
        rejected: Vec<Rejection>,
    },
    /// What was sent is unacceptable: three tries, then the rejected set; a batch is halved.
    Unacceptable(String),
    /// This server is not enrolled or not accepted; nothing is dropped.
    NotAccepted(String),
    /// The Monitor asks to wait: this long, or the backoff when it does not say.
    Wait(Option<Duration>, String),
    /// Anything else: try again at the backoff.
    Backoff(String),
}

/// Tells what an answer means. `now` is needed for a `Retry-After` that is a date.
#[must_use]
pub fn classify(asked: Asked, reply: &Reply<'_>, now: SystemTime) -> Outcome {
    let body = read_answer(reply.body);
    let said = describe(reply.status, &body);
    match reply.status {
        200..=299 => accepted(asked, body, said),
        409 => match (&body, asked) {
            (AnswerBody::Object(AnswerObject { duplicate: Some(true), .. }), Asked::Single) => {
                Outcome::Delivered
            }
            _ => Outcome::Unacceptable(said),
        },
        400 | 413 | 422 => Outcome::Unacceptable(said),
        401 | 403 | 404 => Outcome::NotAccepted(said),
        429 | 503 => Outcome::Wait(retry_after_wait(reply.retry_after, now), said),
        300..=399 => Outcome::Backoff(match reply.location {
            Some(target) => format!(
                "{said}: a redirect to {} (not followed; set backend_url to where the Monitor is)",
                printable(target)
            ),
            None => format!("{said}: a redirect without a target"),
        }),
        _ => Outcome::Backoff(said),
    }
}

fn accepted(asked: Asked, body: AnswerBody, said: String) -> Outcome {
    match (asked, body) {
        (Asked::Single, AnswerBody::Empty) => Outcome::Delivered,
        (_, AnswerBody::Empty) => {
            Outcome::Backoff(format!("{said}: a batch's answer must name its acked_seq"))
        }
        (_, AnswerBody::Foreign) => Outcome::Backoff(format!(
            "{said}: the answer is not the Monitor's (a captive portal or proxy in between?)"
        )),
        (_, AnswerBody::Object(object))
            if object.ok == Some(false) || object.complaint.is_some() =>
        {
            Outcome::Backoff(said)
        }
        (Asked::Single, AnswerBody::Object(_)) => Outcome::Delivered,
        (Asked::Batch { first, last }, AnswerBody::Object(object)) => {
            progress(first, last, object, &said)
        }
    }
}

fn progress(first: u64, last: u64, object: AnswerObject, said: &str) -> Outcome {
    let Some(acked) = object.acked_seq else {
        return Outcome::Backoff(format!("{said}: a batch's answer must name its acked_seq"));
    };
    // A number beyond what was sent shows that the answer is not about this batch: believing
    // any of it could drop samples that were never stored.
    if acked > last {
        return Outcome::Backoff(format!(
            "{said}: acked_seq {acked} is beyond {last}, the last sent"
        ));
    }
    if let Some(stray) = object.rejected.iter().find(|r| !(first..=last).contains(&r.seq)) {
        return Outcome::Backoff(format!(
            "{said}: rejects {}, which is not in the batch {first}..{last}",
            stray.seq
        ));
    }
    let mut rejected: Vec<_> = object.rejected.into_iter().enumerate().collect();
    rejected.sort_unstable_by_key(|(place, rejection)| (rejection.seq, *place));
    rejected.dedup_by_key(|(_, rejection)| rejection.seq);
    let rejected: Vec<_> = rejected
        .into_iter()
        .map(|(_, rejection)| Rejection { error: printable(&rejection.error), ..rejection })
        .collect();
    if acked < first && rejected.is_empty() {
        return Outcome::Backoff(format!(
            "{said}: nothing of the batch {first}..{last} was stored"
        ));
    }
    Outcome::Progress { acked, rejected }
}

/// `Retry-After` in seconds or as an HTTP date (RFC 9110, 10.2.3). What lies in the past or says
/// nothing is `None`: the backoff decides, so that a "0" is no licence for a busy loop.
#[must_use]
pub fn retry_after_wait(text: Option<&str>, now: SystemTime) -> Option<Duration> {
    let text = text?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => Duration::MAX,
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok()?,
    };
    (wait >= Duration::from_secs(1)).then_some(wait)
}

fn describe(status: u16, body: &AnswerBody) -> String {
    match body {
        AnswerBody::Object(AnswerObject { complaint: Some(said), .. }) => {
            format!("HTTP {status}: {}", printable(said))
        }
        AnswerBody::Object(AnswerObject { ok: Some(false), .. }) => {
            format!("HTTP {status} with \"ok\":false")
        }
        AnswerBody::Object(_) | AnswerBody::Empty | AnswerBody::Foreign => {
            format!("HTTP {status}")
        }
    }
}

/// A stranger's words for a log line: control characters escaped, at most 200 characters.
#[must_use]
pub fn printable(text: &str) -> String {
    const MOST: usize = 200;
    let mut out: String = text
        .chars()
        .take(MOST)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect();
    if text.chars().nth(MOST).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_773_262_800; // 2026-03-11T21:00:00Z

    fn of(asked: Asked, status: u16, body: &str) -> Outcome {
        with(asked, status, body, None, None)
    }

    fn with(
        asked: Asked,
        status: u16,
        body: &str,
        retry_after: Option<&str>,
        location: Option<&str>,
    ) -> Outcome {
        let reply = Reply { status, retry_after, location, body: body.as_bytes() };
        classify(asked, &reply, SystemTime::UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[derive(Debug, PartialEq)]
    enum Class {
        Delivered,
        Unacceptable,
        NotAccepted,
        Wait,
        Backoff,
    }

    fn class(outcome: &Outcome) -> Class {
        match outcome {
            Outcome::Delivered => Class::Delivered,
            Outcome::Progress { .. } => unreachable!("a single sample makes no progress"),
            Outcome::Unacceptable(_) => Class::Unacceptable,
            Outcome::NotAccepted(_) => Class::NotAccepted,
            Outcome::Wait(..) => Class::Wait,
            Outcome::Backoff(_) => Class::Backoff,
        }
    }

    #[test]
    fn the_table_of_the_protocol() {
        use Class::{Backoff, Delivered, NotAccepted, Unacceptable, Wait};
        for (status, body, expected) in [
            (200, "", Delivered),
            (204, "", Delivered),
            (200, "{}", Delivered),
            (200, r#"{"ok":true}"#, Delivered),
            (201, r#"{"status":"accepted","id":7}"#, Delivered),
            (200, r#"{"ok":false}"#, Backoff),
            (200, r#"{"error":"x"}"#, Backoff),
            (200, r#"{"ok":true,"detail":"x"}"#, Backoff),
            (200, "<html>Sign in to the hotel's network</html>", Backoff),
            (200, "[]", Backoff),
            (409, r#"{"duplicate":true}"#, Delivered),
            (409, r#"{"detail":"seen","duplicate":true}"#, Delivered),
            (409, r#"{"duplicate":false}"#, Unacceptable),
            (409, "", Unacceptable),
            (400, "", Unacceptable),
            (413, "", Unacceptable),
            (422, r#"{"detail":[]}"#, Unacceptable),
            (401, "", NotAccepted),
            (403, "", NotAccepted),
            (404, "", NotAccepted),
            (429, "", Wait),
            (503, "", Wait),
            (301, "", Backoff),
            (304, "", Backoff),
            (402, "", Backoff),
            (405, "", Backoff),
            (418, "", Backoff),
            (500, "", Backoff),
            (502, "<html>bad gateway</html>", Backoff),
            (100, "", Backoff),
            (0, "", Backoff),
            (999, "", Backoff),
        ] {
            assert_eq!(class(&of(Asked::Single, status, body)), expected, "{status} {body}");
        }
    }

    const BATCH: Asked = Asked::Batch { first: 10, last: 19 };

    #[test]
    fn a_batch_is_believed_only_about_itself() {
        let progress = |acked, rejected: &[u64]| Outcome::Progress {
            acked,
            rejected: rejected
                .iter()
                .map(|seq| Rejection { seq: *seq, error: "no".into() })
                .collect(),
        };
        assert_eq!(of(BATCH, 200, r#"{"ok":true,"acked_seq":19}"#), progress(19, &[]));
        assert_eq!(of(BATCH, 200, r#"{"acked_seq":12}"#), progress(12, &[]));
        assert_eq!(
            of(
                BATCH,
                200,
                r#"{"acked_seq":19,"rejected":[{"seq":15,"error":"no"},{"seq":11,"error":"no"},{"seq":15,"error":"no"}]}"#
            ),
            progress(19, &[11, 15])
        );
        assert_eq!(
            of(BATCH, 200, r#"{"acked_seq":9,"rejected":[{"seq":10,"error":"no"}]}"#),
            progress(9, &[10])
        );
        for body in [
            "",
            "{}",
            r#"{"acked_seq":20}"#,
            r#"{"acked_seq":9}"#,
            r#"{"acked_seq":0}"#,
            r#"{"ok":false,"acked_seq":19}"#,
            r#"{"acked_seq":19,"error":"x"}"#,
            r#"{"acked_seq":19,"rejected":[{"seq":20}]}"#,
            r#"{"acked_seq":19,"rejected":[{"seq":9}]}"#,
            "<html>",
        ] {
            assert_eq!(class(&of(BATCH, 200, body)), Class::Backoff, "{body}");
        }
        let forged =
            of(BATCH, 200, r#"{"acked_seq":19,"rejected":[{"seq":15,"error":"x\n<0>y"}]}"#);
        let Outcome::Progress { rejected, .. } = forged else { unreachable!("{forged:?}") };
        assert_eq!(rejected[0].error, "x\\n<0>y", "a stranger's words forge no log line");
        // A batch cannot be a duplicate as a whole.
        assert_eq!(class(&of(BATCH, 409, r#"{"duplicate":true}"#)), Class::Unacceptable);
    }

    #[test]
    fn retry_after_in_seconds_or_as_a_date() {
        let wait = |text| {
            let outcome = with(Asked::Single, 503, "", Some(text), None);
            let Outcome::Wait(wait, _) = outcome else { unreachable!("{outcome:?}") };
            wait
        };
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(wait("Wed, 11 Mar 2026 21:01:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(wait("99999999999999999999999"), Some(Duration::MAX));
        for nothing in ["0", "", "-1", "soon", "Wed, 11 Mar 2026 20:59:00 GMT"] {
            assert_eq!(wait(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_redirect_names_its_target_and_strangers_words_are_made_printable() {
        let Outcome::Backoff(said) =
            with(Asked::Single, 302, "", None, Some("https://elsewhere/\u{1b}[2J"))
        else {
            unreachable!("a redirect backs off")
        };
        assert!(said.contains("https://elsewhere/\\u{1b}[2J"), "{said}");
        assert_eq!(printable(&"x".repeat(500)).chars().count(), 201);
    }
}
