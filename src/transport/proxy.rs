//! Which proxy, if any, stands between the connector and the Monitor: a pure decision over the
//! configuration and the environment.
//!
//! Invariants:
//! - A proxy named in the configuration is used whatever `NO_PROXY` says; one from the
//!   environment never stands before a loopback address and yields to `NO_PROXY`.
//! - A proxy's password is in no message and no `Debug` output.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use url::{Host, Url};

use super::endpoint::Target;

/// An HTTP proxy that opens tunnels with CONNECT.
#[derive(Debug, Clone)]
pub struct Proxy {
    target: Target,
    /// The value of `Proxy-Authorization`.
    authorization: Option<SecretString>,
}

/// A proxy setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct ProxyError {
    /// Where the setting comes from: `proxy`, or the environment variable's name.
    pub place: String,
    /// What is wrong with it.
    pub fault: ProxySettingFault,
}

/// What is wrong with a proxy setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxySettingFault {
    /// Not a URL.
    #[error("not a URL ({0}): something like http://proxy.example.com:3128 is expected")]
    NotAUrl(url::ParseError),
    /// A proxy spoken to in another way than plain HTTP.
    #[error(
        "a proxy of kind {0} is not supported: an HTTP proxy (http://host:port) that allows CONNECT is expected"
    )]
    Scheme(String),
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port]`; the scheme may be left out; the port is 80
    /// unless given. User and password may be percent-encoded.
    ///
    /// # Errors
    /// Not a URL, or not an HTTP proxy.
    pub fn parse(text: &str) -> Result<Self, ProxySettingFault> {
        let text = text.trim();
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&full).map_err(ProxySettingFault::NotAUrl)?;
        if url.scheme() != "http" {
            return Err(ProxySettingFault::Scheme(url.scheme().to_owned()));
        }
        let authorization = (!url.username().is_empty() || url.password().is_some()).then(|| {
            let mut pair = percent_decoded(url.username());
            pair.push(b':');
            pair.extend(percent_decoded(url.password().unwrap_or_default()));
            SecretString::from(format!("Basic {}", STANDARD.encode(&pair)))
        });
        Ok(Self { target: Target::of(&url), authorization })
    }

    /// Its host and port.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The value of `Proxy-Authorization`, if it wants one.
    pub(super) fn authorization(&self) -> Option<&str> {
        self.authorization.as_ref().map(|value| value.expose_secret())
    }

    /// The proxy for a base URL: `setting` is the key `proxy` (`none` ignores the environment),
    /// `env` looks an environment variable up. For an https base `HTTPS_PROXY` counts, for an http
    /// base `HTTP_PROXY`; lower-case names go first, an empty variable is as good as none.
    ///
    /// # Errors
    /// The setting or the variable that counts is not usable.
    pub fn choose(
        setting: Option<&str>,
        base: &Url,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ProxyError> {
        if let Some(setting) = setting.map(str::trim).filter(|setting| !setting.is_empty()) {
            if setting.eq_ignore_ascii_case("none") {
                return Ok(None);
            }
            return Self::parse(setting)
                .map(Some)
                .map_err(|fault| ProxyError { place: "proxy".to_owned(), fault });
        }
        let look = |name: &str| {
            [name.to_ascii_lowercase(), name.to_owned()].into_iter().find_map(|name| {
                let value = env(&name)?.trim().to_owned();
                (!value.is_empty()).then_some((name, value))
            })
        };
        let target = Target::of(base);
        let name = if base.scheme() == "https" { "HTTPS_PROXY" } else { "HTTP_PROXY" };
        let Some((place, value)) = look(name).filter(|_| !target.is_loopback()) else {
            return Ok(None);
        };
        if look("NO_PROXY").is_some_and(|(_, list)| excluded(&list, &target)) {
            return Ok(None);
        }
        Self::parse(&value).map(Some).map_err(|fault| ProxyError { place, fault })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

/// Whether a `NO_PROXY` list names the target: `*`, a domain (itself and all below it, with or
/// without a leading dot), an address, or a network as `10.0.0.0/8`; the first three may end in
/// `:port`. Entries are parted by commas or spaces.
fn excluded(list: &str, target: &Target) -> bool {
    list.split([',', ' ', '\t'])
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .any(|entry| entry_matches(entry, target))
}

fn entry_matches(entry: &str, target: &Target) -> bool {
    let address = match &target.host {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(IpAddr::V4(*address)),
        Host::Ipv6(address) => Some(IpAddr::V6(*address)),
    };
    if let Some((network, bits)) = entry.split_once('/') {
        let (Ok(network), Ok(bits), Some(address)) =
            (network.parse::<IpAddr>(), bits.parse::<u8>(), address)
        else {
            return false;
        };
        return in_network(address, network, bits);
    }
    let (host, port) = split_port(entry);
    if port.is_some_and(|port| port != target.port) {
        return false;
    }
    if host == "*" {
        return true;
    }
    match &target.host {
        Host::Ipv4(_) | Host::Ipv6(_) => host.parse::<IpAddr>().ok() == address,
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let host = host.trim_start_matches("*.").trim_matches('.').to_ascii_lowercase();
            !host.is_empty()
                && (name == host
                    || name.strip_suffix(&host).is_some_and(|rest| rest.ends_with('.')))
        }
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; a bare IPv6 address has no port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some((host, rest)) = entry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        Some(_) | None => (entry, None),
    }
}

fn in_network(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) if bits <= 32 => {
            let shift = 32 - u32::from(bits);
            let cut = |ip: u32| ip.checked_shr(shift).unwrap_or(0);
            cut(a.to_bits()) == cut(n.to_bits())
        }
        (IpAddr::V6(a), IpAddr::V6(n)) if bits <= 128 => {
            let shift = 128 - u32::from(bits);
            let cut = |ip: u128| ip.checked_shr(shift).unwrap_or(0);
            cut(a.to_bits()) == cut(n.to_bits())
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => false,
    }
}

/// Undoes percent-encoding; a `%` that starts no code stands for itself.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digit = |place: usize| after.get(place).and_then(|d| char::from(*d).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits fit a byte.
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        Target::of(&Url::parse(url).unwrap())
    }

    #[test]
    fn proxies_are_read_with_and_without_credentials() {
        let plain = Proxy::parse("proxy.example:3128").unwrap();
        assert_eq!(
            (plain.to_string().as_str(), plain.authorization()),
            ("proxy.example:3128", None)
        );
        let with = Proxy::parse("http://us%40er:p%3Ass%zz@[::1]").unwrap();
        assert_eq!(with.to_string(), "[::1]:80");
        let expected = format!("Basic {}", STANDARD.encode("us@er:p:ss%zz"));
        assert_eq!(with.authorization(), Some(expected.as_str()));
        assert!(!format!("{with:?}").contains(&STANDARD.encode("us@er:p:ss%zz")));
        for (bad, word) in [("socks5://p:1", "socks5"), ("https://p", "https"), ("http://", "URL")]
        {
            let error = Proxy::parse(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_setting_goes_before_the_environment() {
        let https = Url::parse("https://m.example/").unwrap();
        let http = Url::parse("http://m.example/").unwrap();
        let env = |name: &str| match name {
            "https_proxy" => Some("http://low:1".to_owned()),
            "HTTPS_PROXY" => Some("http://high:2".to_owned()),
            "HTTP_PROXY" => Some(" ".to_owned()),
            _ => None,
        };
        let chosen = |setting, base: &Url| {
            Proxy::choose(setting, base, env).unwrap().map(|proxy| proxy.to_string())
        };
        assert_eq!(chosen(None, &https).as_deref(), Some("low:1"));
        assert_eq!(chosen(Some(""), &https).as_deref(), Some("low:1"));
        assert_eq!(chosen(Some("mine:9"), &https).as_deref(), Some("mine:9"));
        assert_eq!(chosen(Some("None"), &https), None);
        assert_eq!(chosen(None, &http), None);
        let loopback = Url::parse("https://localhost/").unwrap();
        assert_eq!(chosen(None, &loopback), None);
        assert_eq!(chosen(Some("mine:9"), &loopback).as_deref(), Some("mine:9"));
        let error = Proxy::choose(None, &https, |_| Some("socks5://x".to_owned())).unwrap_err();
        assert!(error.to_string().starts_with("https_proxy: a proxy of kind socks5"), "{error}");
    }

    #[test]
    fn no_proxy_matches_as_operators_expect() {
        for (list, url, out) in [
            ("*", "https://m.example", true),
            ("example", "https://m.example", true),
            (".example", "https://m.example", true),
            ("*.example", "https://m.example", true),
            ("M.Example.", "https://m.example", true),
            ("ample", "https://m.example", false),
            ("a.m.example", "https://m.example", false),
            ("x, m.example:443 ,y", "https://m.example", true),
            ("m.example:444", "https://m.example", false),
            ("10.0.0.0/8", "https://10.2.3.4", true),
            ("10.0.0.0/8", "https://11.2.3.4", false),
            ("10.0.0.0/99", "https://10.2.3.4", false),
            ("0.0.0.0/0", "https://10.2.3.4", true),
            ("0.0.0.0/0", "https://[fd00::1]", false),
            ("fd00::/8", "https://[fd00::1]", true),
            ("::/0", "https://[fd00::1]", true),
            ("fd00::1", "https://[fd00::1]", true),
            ("[fd00::1]:443", "https://[fd00::1]", true),
            ("[fd00::1]:1", "https://[fd00::1]", false),
            ("10.2.3.4:443", "https://10.2.3.4", true),
            ("10.2.3", "https://10.2.3.4", false),
            (" , ,", "https://m.example", false),
        ] {
            assert_eq!(excluded(list, &target(url)), out, "{list} against {url}");
        }
    }
}
