//! What the Monitor's answer to the request for its key says: the document, the key, the clock,
//! the capabilities, the room for the proof. Pure.

use std::time::SystemTime;

use super::network::Report;
use super::{Exit, Line, Verdict, local};
use crate::config::{Config, Credential};
use crate::crypto::{self, Fingerprint, KeyDocument, KeyError, check_identifier};
use crate::protocol::Capabilities;
use crate::sender::classify::printable;
use crate::sender::skew::Skew;
use crate::store::chain;
use crate::transport::Answer;

/// Judges the answer to the request for the key document; `None` when it is not what is needed.
pub(super) fn judge(
    config: &Config,
    remembered: Option<Fingerprint>,
    answer: &Answer,
    now: SystemTime,
    report: &mut Report,
) -> Option<()> {
    let skew = |report: &mut Report| {
        report.step = "clock skew";
        report.lines.push(skew_line(answer, now));
    };
    if matches!(config.credential, Some(Credential::ApiKey(_))) {
        reached(answer, report)?;
        skew(report);
        return Some(());
    }
    report.step = "key document";
    if answer.status != 200 {
        refused(answer, report);
        return None;
    }
    let document = match KeyDocument::parse(&answer.body) {
        Ok(document) => document,
        Err(error) => {
            report.fail(exit_of(&error), not_a_key(&error, &answer.body));
            return None;
        }
    };
    report.ok("comes, and is in order");
    key(config, remembered, &document, report)?;
    skew(report);
    report.step = "capabilities";
    report.ok(offers(document.capabilities));
    report.step = "proof";
    let room = crypto::room_for_identifier(document.bits);
    match check_identifier(document.bits, &config.identifier) {
        Ok(()) => {
            let taken = local::bytes_in_proof(&config.identifier);
            report.ok(format!("the identifier takes {taken} of the {room} bytes there are for it"));
        }
        Err(error) => report.fail(Exit::Config, chain(&error)),
    }
    Some(())
}

/// In mode `api_key` there is no document to be had: any answer that is the Monitor's will do.
fn reached(answer: &Answer, report: &mut Report) -> Option<()> {
    if (300..=399).contains(&answer.status) || answer.status >= 500 {
        refused(answer, report);
        return None;
    }
    report.ok(format!(
        "answers (HTTP {}); the API key itself can only be tried with the first heartbeat",
        answer.status
    ));
    Some(())
}

/// The answer is none that a document could be in.
fn refused(answer: &Answer, report: &mut Report) {
    let status = answer.status;
    let page = page(&answer.body);
    let said = printable(String::from_utf8_lossy(&answer.body).trim());
    let said = match page {
        true => " with a web page".to_owned(),
        false if said.is_empty() => String::new(),
        false => format!(": {said}"),
    };
    let (exit, text) = match (status, &answer.location) {
        (300..=399, Some(to)) => {
            let to = printable(to);
            let mend = "a redirect is not followed: put the Monitor's own URL into backend_url";
            (Exit::Unreachable, format!("HTTP {status}, redirected to {to}; {mend}"))
        }
        (401 | 403 | 407, _) => (
            Exit::Refused,
            format!(
                "HTTP {status}{said}; the key is public, so something before the Monitor refuses: a gateway, a firewall, a proxy?"
            ),
        ),
        (404, _) => (
            Exit::Unreachable,
            format!("HTTP 404{said}; is backend_url right, path prefix included?"),
        ),
        (status, _) => (
            Exit::Unreachable,
            format!("HTTP {status}{said}; the Monitor, or what stands before it, has trouble"),
        ),
    };
    report.fail(exit, text);
}

/// Whether a body is a page for people.
fn page(body: &[u8]) -> bool {
    let start: String = String::from_utf8_lossy(body).trim_start().chars().take(16).collect();
    let start = start.to_ascii_lowercase();
    start.starts_with("<!doctype") || start.starts_with("<html")
}

fn not_a_key(error: &KeyError, body: &[u8]) -> String {
    if page(body) {
        return "a web page came instead of the Monitor's key: is backend_url right, or does a \
                portal (a hotel's, a provider's) stand before the network?"
            .to_owned();
    }
    chain(error)
}

/// A document that is the Monitor's with a key that is not accepted is a refusal; what is no
/// such document does not come from a Monitor.
fn exit_of(error: &KeyError) -> Exit {
    if error.is_of_the_key() { Exit::Refused } else { Exit::Unreachable }
}

fn key(
    config: &Config,
    remembered: Option<Fingerprint>,
    document: &KeyDocument,
    report: &mut Report,
) -> Option<()> {
    report.step = "key";
    let KeyDocument { fingerprint, bits, .. } = document;
    let pinned = config.public_key_sha256.map(Fingerprint::from);
    match crypto::judge(*fingerprint, pinned, remembered) {
        crypto::Verdict::Accept if pinned.is_some() => {
            report.ok(format!("RSA, {bits} bits, SHA-256 {fingerprint}, the pinned one"));
        }
        crypto::Verdict::Accept => report.ok(format!(
            "RSA, {bits} bits, SHA-256 {fingerprint}; to accept no other, set public_key_sha256"
        )),
        crypto::Verdict::AcceptChanged { old, new } => report.warn(format!(
            "RSA, {bits} bits, SHA-256 {new}; it was {old} before: ask who runs the Monitor \
             whether it was changed, and pin it with public_key_sha256"
        )),
        crypto::Verdict::Refuse { pinned, seen } => {
            report.fail(
                Exit::Refused,
                format!(
                    "the Monitor's is {seen}, public_key_sha256 allows only {pinned}: ask who runs \
                     the Monitor which one is right"
                ),
            );
            return None;
        }
    }
    Some(())
}

/// What the Monitor offers beyond the least.
fn offers(capabilities: Capabilities) -> String {
    let Capabilities { ack, resume, batch } = capabilities;
    let named = [(ack, "ack"), (resume, "resume"), (batch, "batch")];
    let names: Vec<_> = named.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
    if names.is_empty() { "none, and none is needed".to_owned() } else { names.join(", ") }
}

pub(super) fn skew_line(answer: &Answer, now: SystemTime) -> Line {
    const NAME: &str = "clock skew";
    let Some(theirs) = answer.date else {
        return Line::new(
            Verdict::Ok,
            NAME,
            "skipped: the answer does not tell the Monitor's time",
        );
    };
    let skew = Skew::measure(theirs, now);
    if !skew.matters() {
        return Line::new(Verdict::Ok, NAME, "this clock agrees with the Monitor's");
    }
    let seconds = (skew.millis.unsigned_abs() + 500) / 1000;
    let side = if skew.millis > 0 { "behind" } else { "ahead of" };
    let text = format!(
        "this clock is {seconds} s {side} the Monitor's; proofs carry the Monitor's time, samples \
         this one: set up NTP (type: timedatectl set-ntp true)"
    );
    Line::new(Verdict::Warn, NAME, text)
}
