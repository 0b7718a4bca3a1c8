//! Where the Monitor is and how it may be reached: URL, trust anchors, proxy, time allowed.
//!
//! Invariants:
//! - The base URL's path prefix is kept under every URL derived from it.
//! - An endpoint holds no secret but the proxy's password, whose type does not print it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::{Host, Url};

use super::proxy::Proxy;
use crate::protocol::{
    CONNECT_DEADLINE, HEARTBEAT_PATH, KEY_PATH, REQUEST_DEADLINE, WEBSOCKET_PATH,
};

/// Time allowed for what the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// DNS, TCP, proxy and TLS together (docs/PROTOCOL.md 4).
    pub dial: Duration,
    /// One HTTP request from its first step to the answer's last byte, dialling included
    /// (docs/PROTOCOL.md 5).
    pub request: Duration,
    /// How long a connection may lie unused and still be used again. Below the minute after
    /// which servers and address translators commonly forget one.
    pub idle: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { dial: CONNECT_DEADLINE, request: REQUEST_DEADLINE, idle: Duration::from_secs(50) }
    }
}

/// A `backend_url` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error("not a URL ({0}): something like https://monitor.example.com is expected")]
    NotAUrl(url::ParseError),
    /// A scheme other than http and https.
    #[error("the scheme {0} is not usable: https (or http for loopback) is expected")]
    Scheme(String),
    /// User name or password in the URL.
    #[error("user name and password do not belong into the URL: remove what stands before the @")]
    UserInfo,
    /// Query or fragment.
    #[error("what follows the ? or # is not usable: end the URL before it")]
    QueryOrFragment,
}

/// A Monitor and the way to it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Ends with a slash; http or https; has a host; no user info, query or fragment.
    base: Url,
    ca_file: Option<PathBuf>,
    proxy: Option<Proxy>,
    deadlines: Deadlines,
}

impl Endpoint {
    /// The endpoint at a base URL, with the system's trust anchors, no proxy and the default
    /// deadlines.
    ///
    /// # Errors
    /// The URL is none, or has a scheme, user info, query or fragment that cannot be used.
    pub fn parse(backend_url: &str) -> Result<Self, EndpointError> {
        let mut base = Url::parse(backend_url.trim()).map_err(EndpointError::NotAUrl)?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(EndpointError::Scheme(base.scheme().to_owned()));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(EndpointError::UserInfo);
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(EndpointError::QueryOrFragment);
        }
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        Ok(Self { base, ca_file: None, proxy: None, deadlines: Deadlines::default() })
    }

    /// Trusts the certificates of a PEM file besides the system's.
    #[must_use]
    pub fn with_ca_file(mut self, ca_file: Option<PathBuf>) -> Self {
        self.ca_file = ca_file;
        self
    }

    /// Goes through a proxy.
    #[must_use]
    pub fn with_proxy(mut self, proxy: Option<Proxy>) -> Self {
        self.proxy = proxy;
        self
    }

    /// Allows other times than the protocol's.
    #[must_use]
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// The base URL; its path ends with a slash.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// The file with additional trust anchors.
    #[must_use]
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// The proxy.
    #[must_use]
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// The time allowed.
    #[must_use]
    pub fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    /// Where the key document is.
    #[must_use]
    pub fn key_url(&self) -> Url {
        self.below(KEY_PATH)
    }

    /// Where heartbeats go.
    #[must_use]
    pub fn heartbeat_url(&self) -> Url {
        self.below(HEARTBEAT_PATH)
    }

    /// Where the WebSocket is; `ws`, or `wss` when the base is https.
    #[must_use]
    pub fn websocket_url(&self) -> Url {
        let mut url = self.below(WEBSOCKET_PATH);
        // Cannot fail: both pairs are schemes of the same kind.
        let _ = url.set_scheme(if self.is_tls() { "wss" } else { "ws" });
        url
    }

    /// Where an OpenClaw gateway says how far its start has come.
    #[must_use]
    pub fn startup_url(&self) -> Url {
        self.below("startupz")
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// Host and port to reach.
    #[must_use]
    pub fn target(&self) -> Target {
        Target::of(&self.base)
    }

    fn below(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let path = format!("{}{path}", self.base.path());
        url.set_path(&path);
        url
    }
}

/// A host and a port. Prints as `host:port`, IPv6 addresses in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name or address.
    pub host: Host<String>,
    /// TCP port.
    pub port: u16,
}

impl Target {
    /// The host and port of a URL whose scheme requires a host.
    #[must_use]
    pub fn of(url: &Url) -> Self {
        let host = match url.host() {
            Some(Host::Domain(name)) => Host::Domain(name.to_owned()),
            Some(Host::Ipv4(address)) => Host::Ipv4(address),
            Some(Host::Ipv6(address)) => Host::Ipv6(address),
            // http and https URLs without a host are refused by the parser.
            None => Host::Domain(String::new()),
        };
        Self { host, port: url.port_or_known_default().unwrap_or(80) }
    }

    /// Whether it is this machine by its loopback interface: 127.0.0.0/8, ::1, `localhost` and
    /// names below it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Domain(name) => {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                name == "localhost" || name.ends_with(".localhost")
            }
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address
                .to_ipv4_mapped()
                .map_or_else(|| address.is_loopback(), |mapped| mapped.is_loopback()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_keep_the_prefix() {
        for (base, http, socket) in [
            ("https://m.example", "https://m.example/", "wss://m.example/"),
            ("https://m.example/harbor", "https://m.example/harbor/", "wss://m.example/harbor/"),
            (" http://127.0.0.1:80/a/b/ ", "http://127.0.0.1/a/b/", "ws://127.0.0.1/a/b/"),
            ("https://[::1]:8443", "https://[::1]:8443/", "wss://[::1]:8443/"),
        ] {
            let endpoint = Endpoint::parse(base).unwrap();
            let expected = [
                format!("{http}monitor/public/server-public-key"),
                format!("{http}monitor/server/heartbeat"),
                format!("{socket}monitor/server/ws"),
            ];
            let urls = [endpoint.key_url(), endpoint.heartbeat_url(), endpoint.websocket_url()];
            assert_eq!(urls.map(String::from), expected);
        }
    }

    #[test]
    fn unusable_urls_say_why() {
        for (url, word) in [
            ("monitor.example.com", "https://monitor.example.com is expected"),
            ("", "not a URL"),
            ("https://", "not a URL"),
            ("ftp://m.example/", "scheme ftp"),
            ("https://user:geheim@m.example/", "before the @"),
            ("https://m.example/?a=1", "? or #"),
            ("https://m.example/#x", "? or #"),
        ] {
            let error = Endpoint::parse(url).unwrap_err().to_string();
            assert!(error.contains(word), "{url}: {error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        for (url, loopback) in [
            ("http://127.0.0.1", true),
            ("http://127.9.9.9:1", true),
            ("http://[::1]", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://localhost", true),
            ("http://LocalHost.", true),
            ("http://a.localhost", true),
            ("http://localhost.example", false),
            ("http://10.0.0.1", false),
            ("http://[fe80::1]", false),
        ] {
            assert_eq!(Endpoint::parse(url).unwrap().target().is_loopback(), loopback, "{url}");
        }
    }
}
