//! The HTTP CONNECT proxy: from the key, or from the environment by the usual conventions.

use secrecy::SecretString;
use url::{Host, Url};

use super::endpoint;
use super::error::{ConfigError, Origin, Problem};
use super::keys::Key;
use super::settings::{Raw, Setting};
use super::sources::Sources;
use super::value;

/// A proxy that is asked to CONNECT.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Its host name or address, the latter without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User name and password for Basic authentication, if the URL had any; percent-encoding
    /// is undone.
    pub credentials: Option<(String, SecretString)>,
}

/// The proxy for the Monitor at `backend`: the key if set, else the environment's.
pub(super) fn choose(
    setting: Option<&Setting>,
    backend: Option<&Url>,
    sources: &Sources<'_>,
) -> Result<Option<Proxy>, ConfigError> {
    if let Some(setting) = setting {
        let text = value::text(&setting.raw).ok_or_else(|| setting.value_error())?;
        if text == "none" {
            return Ok(None);
        }
        return parse(text).map(Some).ok_or_else(|| setting.value_error());
    }
    // Without a Monitor there is nothing the environment could apply to.
    let Some(backend) = backend else { return Ok(None) };
    let names = if backend.scheme() == "https" {
        ["HTTPS_PROXY", "https_proxy"]
    } else {
        ["HTTP_PROXY", "http_proxy"]
    };
    let Some((name, value)) =
        names.iter().find_map(|name| sources.var(name).map(|value| (*name, value)))
    else {
        return Ok(None);
    };
    if endpoint::is_loopback(backend) || excepted(backend, &no_proxy(sources)) {
        return Ok(None);
    }
    value.to_str().and_then(parse).map(Some).ok_or_else(|| ConfigError {
        origin: Origin::Environment(name.into()),
        key: None,
        problem: Problem::Value {
            found: Raw::text(value.to_string_lossy()).describe(Key::Proxy),
            expected: "http://[user:password@]host:port; set proxy = \"none\" to ignore it".into(),
        },
    })
}

fn no_proxy(sources: &Sources<'_>) -> String {
    ["NO_PROXY", "no_proxy"]
        .iter()
        .find_map(|name| sources.var(name))
        .map(|value| value.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Reads `http://[user:password@]host:port`, the scheme may be left out.
fn parse(text: &str) -> Option<Proxy> {
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&whole).ok()?;
    if url.scheme() != "http" || !matches!(url.path(), "" | "/") {
        return None;
    }
    if url.query().is_some() || url.fragment().is_some() {
        return None;
    }
    let host = match url.host()? {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    let port = url.port_or_known_default().filter(|port| *port != 0)?;
    let credentials = if url.username().is_empty() && url.password().is_none() {
        None
    } else {
        let user = percent_decoded(url.username())?;
        let password = percent_decoded(url.password().unwrap_or_default())?;
        Some((user, SecretString::from(password)))
    };
    Some(Proxy { host, port, credentials })
}

/// Undoes percent-encoding; `None` for a bad escape, bytes that are no UTF-8, or control
/// characters, which have no place in a header.
fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            out.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok().filter(|text| !text.chars().any(char::is_control))
}

/// Whether `NO_PROXY` names the host: `*`, a name (which covers its subdomains, with or without
/// a leading dot), an address or a network in CIDR notation, each with an optional port.
fn excepted(backend: &Url, list: &str) -> bool {
    let Some(host) = backend.host() else { return false };
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let (name, port) = split_port(entry);
        if port.is_some() && port != backend.port_or_known_default() {
            return false;
        }
        name == "*"
            || match &host {
                Host::Domain(domain) => covers(name, domain),
                Host::Ipv4(address) => in_network(name, (*address).into()),
                Host::Ipv6(address) => in_network(name, (*address).into()),
            }
    })
}

/// `host:8443` in two; an IPv6 address with a port has brackets.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some(rest) = entry.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').unwrap_or((rest, ""));
        return (address, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry, None),
        },
        Some(_) | None => (entry, None),
    }
}

fn covers(entry: &str, domain: &str) -> bool {
    let entry = entry.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    !entry.is_empty()
        && domain
            .strip_suffix(entry.as_str())
            .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn in_network(entry: &str, address: std::net::IpAddr) -> bool {
    use std::net::IpAddr::{V4, V6};
    let (network, length) = match entry.split_once('/') {
        Some((network, length)) => (network, Some(length)),
        None => (entry, None),
    };
    let Ok(network) = network.parse() else { return false };
    let (a, b, bits) = match (address, network) {
        (V4(a), V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (V6(a), V6(b)) => (a.to_bits(), b.to_bits(), 128),
        (V4(_), V6(_)) | (V6(_), V4(_)) => return false,
    };
    let length = match length.map(str::parse::<u32>) {
        None => bits,
        Some(Ok(length)) if length <= bits => length,
        Some(_) => return false,
    };
    // A shift by the whole width (length 0) leaves nothing to compare.
    let shift = bits - length;
    a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn proxies_are_read_with_and_without_credentials() {
        let proxy = parse("http://us%40er:p%3Ass@proxy.example:3128").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 3128));
        let (user, password) = proxy.credentials.unwrap();
        assert_eq!((user.as_str(), password.expose_secret()), ("us@er", "p:ss"));

        let proxy = parse("[fd00::1]:8080").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("fd00::1", 8080));
        assert!(proxy.credentials.is_none());
        assert_eq!(parse("http://proxy.example/").unwrap().port, 80);
        for text in [
            "socks5://proxy:1080",
            "https://proxy:3128",
            "http://proxy:3128/path",
            "http://proxy:0",
            "http://u%0ax@proxy:3128",
            "",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_exceptions_follow_the_conventions() {
        for (url, list, expected) in [
            ("https://monitor.example/", "*", true),
            ("https://monitor.example/", "example", true),
            ("https://monitor.example/", ".monitor.example", true),
            ("https://monitor.example/", "a, MONITOR.example ,b", true),
            ("https://monitor.example/", "itor.example", false),
            ("https://monitor.example/", "monitor.example:8443", false),
            ("https://monitor.example/", "monitor.example:443", true),
            ("https://monitor.example:8443/", "*.example:8443", true),
            ("https://10.1.2.3/", "10.0.0.0/8", true),
            ("https://11.1.2.3/", "10.0.0.0/8", false),
            ("https://10.1.2.3/", "0.0.0.0/0", true),
            ("https://10.1.2.3/", "10.1.2.3", true),
            ("https://10.1.2.3/", "10.1.2.3/99", false),
            ("https://[fd00::5]/", "fd00::/8", true),
            ("https://[fd00::5]:9/", "[fd00::5]:9", true),
            ("https://[fd00::5]/", "::/0", true),
            ("https://monitor.example/", "", false),
        ] {
            assert_eq!(excepted(&Url::parse(url).unwrap(), list), expected, "{url} {list}");
        }
    }
}
