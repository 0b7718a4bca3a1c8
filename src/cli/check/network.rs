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

use super::monitor::judge;
use super::{Exit, Line, Verdict};
use crate::config::Config;
use crate::crypto::Fingerprint;
use crate::runtime::{self, TcpStream};
use crate::sender::link::{LinkError, endpoint};
use crate::store::chain;
use crate::transport::{
    Dialer, Examined, HttpTransport, MAX_ADDRESSES, Proxy, TlsFault, TransportError, Tried,
};

/// Time for everything together.
const WITHIN: Duration = Duration::from_secs(15);
/// Time for an address to take a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A certificate that ends sooner is warned of. Some live for six days and are renewed at half.
const ENDS_SOON: Duration = Duration::from_secs(2 * 24 * 3600);

/// What is found, and which step is being tried.
pub(super) struct Report {
    pub(super) lines: Vec<Line>,
    pub(super) step: &'static str,
}

impl Report {
    pub(super) fn ok(&mut self, text: impl Into<String>) {
        self.lines.push(Line::new(Verdict::Ok, self.step, text));
    }

    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.lines.push(Line::new(Verdict::Warn, self.step, text));
    }

    pub(super) fn fail(&mut self, exit: Exit, text: impl Into<String>) {
        self.lines.push(Line::fail(exit, self.step, text));
    }

    /// The Monitor is not reached, for causes that the text leaves out.
    fn unreached(&mut self, text: String, error: &TransportError) {
        self.lines.push(Line::fail(Exit::Unreachable, self.step, text).because(error));
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
            report.fail(Exit::Unreachable, unresolved(dialer.proxy(), &error));
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
    report.lines.extend(tcp(&open, &closed, dialer.proxy().is_some()));
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

/// Where a proxy can come from.
const PROXY_FROM: &str = "`proxy`, HTTPS_PROXY or HTTP_PROXY";

/// Why the first hop's name has no address.
fn unresolved(proxy: Option<&Proxy>, error: &TransportError) -> String {
    let said = chain(error);
    match proxy {
        Some(proxy) => format!("the proxy {proxy} ({PROXY_FROM} names it): {said}"),
        None => said,
    }
}

/// What the addresses say: the Monitor's, or those of the proxy before it.
fn tcp(open: &[SocketAddr], closed: &[Tried], of_proxy: bool) -> Vec<Line> {
    const NAME: &str = "tcp";
    let mut lines = Vec::new();
    if !open.is_empty() {
        let list: Vec<String> = open.iter().map(ToString::to_string).collect();
        let verb = if open.len() == 1 { "takes" } else { "take" };
        lines.push(Line::new(Verdict::Ok, NAME, format!("{} {verb} connections", list.join(", "))));
    }
    for tried in closed {
        let mend = mend(tried.error.kind(), of_proxy);
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

fn mend(kind: io::ErrorKind, of_proxy: bool) -> String {
    let mend = if kind == io::ErrorKind::ConnectionRefused && of_proxy {
        "no proxy listens there; is the port right, and does the proxy run?"
    } else if kind == io::ErrorKind::ConnectionRefused {
        "nothing listens there; is the port right, and does the Monitor run?"
    } else if kind == io::ErrorKind::TimedOut {
        "the host is down, or a firewall on the way drops packets"
    } else if no_route(kind) {
        "look at this machine's addresses and routes (ip addr, ip route)"
    } else {
        "look at this machine's network and firewall"
    };
    if of_proxy { format!("{mend} ({PROXY_FROM} names it)") } else { mend.to_owned() }
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
        Err(ref error @ TransportError::Tls { ref host, fault: TlsFault::UnknownIssuer, .. })
            if certificate.is_some_and(|it| it.is_self_signed()) =>
        {
            let text = format!(
                "TLS with {host}: the certificate is self-signed and nobody this machine trusts vouches for it: if it is your own, name it in ca_file{shown}"
            );
            report.unreached(text, error);
            None
        }
        Err(error @ TransportError::Tls { .. }) => {
            report.unreached(format!("{error}{shown}"), &error);
            None
        }
        Err(error) => {
            report.fail(Exit::Unreachable, chain(&error));
            None
        }
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
