//! The way to the Monitor, step by step: DNS, TCP, proxy, TLS, key document.
//!
//! Invariants: each step is the daemon's own ([`Dialer`], [`HttpTransport`]), so what works here
//! works there; nothing but the key is asked for, so no challenge is used up; all of it together
//! takes no longer than [`WITHIN`]; steps behind one that fails are left out.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use url::Host;

use super::{Exit, Line, Verdict};
use crate::config::{Config, Credential};
use crate::crypto::{self, Fingerprint, KeyDocument, KeyError, check_identifier};
use crate::protocol::Capabilities;
use crate::runtime::{self, TcpStream};
use crate::sender::classify::printable;
use crate::sender::link::{LinkError, endpoint};
use crate::sender::skew::Skew;
use crate::store::chain;
use crate::transport::{
    Answer, Dialer, Examined, HttpTransport, MAX_ADDRESSES, TlsFault, TransportError, Tried,
};

/// Time for everything together.
const WITHIN: Duration = Duration::from_secs(15);
/// Time for an address to take a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A certificate that ends sooner is warned of. Some live for six days and are renewed at half.
const ENDS_SOON: Duration = Duration::from_secs(2 * 24 * 3600);

/// What is found, and which step is being tried.
struct Report {
    lines: Vec<Line>,
    step: &'static str,
}

impl Report {
    fn ok(&mut self, text: impl Into<String>) {
        self.lines.push(Line::new(Verdict::Ok, self.step, text));
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.lines.push(Line::new(Verdict::Warn, self.step, text));
    }

    fn fail(&mut self, exit: Exit, text: impl Into<String>) {
        self.lines.push(Line::fail(exit, self.step, text));
    }
}

/// Goes the whole way and tells what it finds. `remembered` is the fingerprint of the Monitor's
/// key as the daemon knows it.
pub async fn examine(config: &Config, remembered: Option<Fingerprint>) -> Vec<Line> {
    let mut report = Report { lines: Vec::new(), step: "network" };
    within(WITHIN, config, remembered, &mut report).await;
    report.lines
}

async fn within(
    limit: Duration,
    config: &Config,
    remembered: Option<Fingerprint>,
    report: &mut Report,
) {
    if timed(limit, walk(config, remembered, report)).await.is_none() {
        let seconds = limit.as_secs_f64();
        report.fail(
            Exit::Unreachable,
            format!("no end after {seconds} s for all of the network: is something on the way slow, or does a firewall drop packets?"),
        );
    }
}

async fn timed<T>(limit: Duration, step: impl Future<Output = T>) -> Option<T> {
    runtime::timeout(limit, step).await
}

/// `None` at the first step that fails.
async fn walk(config: &Config, remembered: Option<Fingerprint>, report: &mut Report) -> Option<()> {
    let made =
        endpoint(config).and_then(|endpoint| HttpTransport::new(endpoint).map_err(LinkError::from));
    let transport = match made {
        Ok(transport) => transport,
        Err(error) => {
            report.fail(Exit::Config, chain(&error));
            return None;
        }
    };
    let dialer = transport.dialer();
    let stream = reach(dialer, report).await?;
    tls(dialer, stream, report).await?;
    report.step = "monitor";
    match transport.key_document().await {
        Ok(answer) => judge(config, remembered, &answer, SystemTime::now(), report),
        Err(error) => {
            report.fail(Exit::Unreachable, chain(&error));
            None
        }
    }
}

// --- to the Monitor's door ----------------------------------------------------------------

/// DNS, TCP and, where there is one, the proxy's tunnel.
async fn reach(dialer: &Dialer, report: &mut Report) -> Option<TcpStream> {
    report.step = "dns";
    let addresses = match dialer.addresses().await {
        Ok(addresses) => addresses,
        Err(error) => {
            report.fail(Exit::Unreachable, chain(&error));
            return None;
        }
    };
    if let Host::Domain(name) = &dialer.first_hop().host {
        let whose = if dialer.proxy().is_some() { " (the proxy)" } else { "" };
        let mut list: Vec<String> = addresses.iter().map(|it| it.ip().to_string()).collect();
        list.dedup();
        report.ok(format!("{name}{whose} is {}", list.join(", ")));
    }
    report.step = "tcp";
    let tries = addresses.into_iter().take(MAX_ADDRESSES).map(|address| async move {
        let tried = timed(CONNECT_WITHIN, runtime::connect_tcp(address)).await;
        (address, tried.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())))
    });
    let mut stream = None;
    let (mut open, mut closed) = (Vec::new(), Vec::new());
    for (address, tried) in join_all(tries).await {
        match tried {
            Ok(connected) => {
                stream.get_or_insert(connected);
                open.push(address);
            }
            Err(error) => closed.push(Tried { address, error }),
        }
    }
    report.lines.extend(tcp(&open, &closed));
    let stream = stream?;
    let Some(proxy) = dialer.proxy() else { return Some(stream) };
    report.step = "tunnel";
    match dialer.through_proxy(stream).await {
        Ok(stream) => {
            report.ok(format!("the proxy {proxy} opens one to {}", dialer.target()));
            Some(stream)
        }
        Err(error) => {
            report.fail(Exit::Unreachable, chain(&error));
            None
        }
    }
}

/// What the addresses say.
fn tcp(open: &[SocketAddr], closed: &[Tried]) -> Vec<Line> {
    const NAME: &str = "tcp";
    let mut lines = Vec::new();
    if !open.is_empty() {
        let list: Vec<String> = open.iter().map(ToString::to_string).collect();
        let verb = if open.len() == 1 { "takes" } else { "take" };
        lines.push(Line::new(Verdict::Ok, NAME, format!("{} {verb} connections", list.join(", "))));
    }
    for tried in closed {
        let mend = mend(tried.error.kind());
        lines.push(if open.is_empty() {
            Line::fail(Exit::Unreachable, NAME, format!("{tried}: {mend}"))
        } else if no_route(tried.error.kind()) {
            // A machine without IPv6, mostly: nothing is lost by it.
            Line::new(Verdict::Ok, NAME, format!("{tried}, which does no harm"))
        } else {
            let text = format!("{tried}, so tries may lose time on it: {mend}");
            Line::new(Verdict::Warn, NAME, text)
        });
    }
    lines
}

fn no_route(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::AddrNotAvailable
    )
}

fn mend(kind: io::ErrorKind) -> &'static str {
    if kind == io::ErrorKind::ConnectionRefused {
        "nothing listens there; is the port right, and does the Monitor run?"
    } else if kind == io::ErrorKind::TimedOut {
        "the host is down, or a firewall on the way drops packets"
    } else if no_route(kind) {
        "look at this machine's addresses and routes (ip addr, ip route)"
    } else {
        "look at this machine's network and firewall"
    }
}

async fn tls(dialer: &Dialer, stream: TcpStream, report: &mut Report) -> Option<()> {
    report.step = "tls";
    let Some(Examined { result, certificate }) = dialer.examine_tls(stream).await else {
        return Some(());
    };
    let shown = certificate.as_ref().map_or_else(String::new, |it| format!(" ({it})"));
    match result {
        Ok(version) => {
            let soon = |ends: SystemTime| {
                ends.duration_since(SystemTime::now()).is_ok_and(|left| left < ENDS_SOON)
            };
            if certificate.is_some_and(|it| soon(it.ends)) {
                report.warn(format!(
                    "version {version}; the certificate is about to expire: renew it{shown}"
                ));
            } else {
                report.ok(format!("version {version}{shown}"));
            }
            Some(())
        }
        Err(TransportError::Tls { host, fault: TlsFault::UnknownIssuer, .. })
            if certificate.is_some_and(|it| it.is_self_signed()) =>
        {
            report.fail(
                Exit::Unreachable,
                format!("TLS with {host}: the certificate is self-signed and nobody this machine trusts vouches for it: if it is your own, name it in ca_file{shown}"),
            );
            None
        }
        Err(error @ TransportError::Tls { .. }) => {
            report.fail(Exit::Unreachable, format!("{error}{shown}"));
            None
        }
        Err(error) => {
            report.fail(Exit::Unreachable, chain(&error));
            None
        }
    }
}

// --- what the Monitor says ----------------------------------------------------------------

/// Judges the answer to the request for the key document.
fn judge(
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
    report.ok("the Monitor's");
    key(config, remembered, &document, report)?;
    skew(report);
    report.step = "capabilities";
    report.ok(offers(document.capabilities));
    report.step = "proof";
    let room = crypto::room_for_identifier(document.bits);
    match check_identifier(document.bits, &config.identifier) {
        Ok(()) => report.ok(format!("the identifier fits, there are {room} bytes for it")),
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
    match error {
        KeyError::TooLarge { .. }
        | KeyError::NotText { .. }
        | KeyError::Empty
        | KeyError::BrokenJson { .. }
        | KeyError::NoKey { .. }
        | KeyError::KeyNotText { .. }
        | KeyError::Neither { .. } => Exit::Unreachable,
        KeyError::NoPem
        | KeyError::SeveralBlocks { .. }
        | KeyError::NoEnd { .. }
        | KeyError::NotBase64 { .. }
        | KeyError::PrivateKey { .. }
        | KeyError::WrongLabel { .. }
        | KeyError::NotRsa { .. }
        | KeyError::Malformed { .. }
        | KeyError::Bits { .. }
        | KeyError::NotSane { .. } => Exit::Refused,
    }
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

fn skew_line(answer: &Answer, now: SystemTime) -> Line {
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

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
