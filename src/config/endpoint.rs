//! The Monitor's URL: its form, and where plain http is permitted (docs/PROTOCOL.md 1).

use url::{Host, Url};

use super::Credential;
use super::error::{ConfigError, Problem};
use super::settings::Setting;
use super::value;

/// The URL with a path that ends in `/`, so that joining keeps a path prefix.
pub(super) fn parse(setting: &Setting) -> Result<Url, ConfigError> {
    let fault = |found: &str| {
        let expected = setting.key.values().into();
        Err(setting.error(Problem::Value { found: found.into(), expected }))
    };
    let Some(text) = value::text(&setting.raw) else { return Err(setting.value_error()) };
    let Ok(mut url) = Url::parse(text) else { return Err(setting.value_error()) };
    if !url.username().is_empty() || url.password().is_some() {
        return fault("a URL with user name or password");
    }
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(setting.value_error());
    }
    if url.query().is_some() {
        return fault("a URL with a query (?...)");
    }
    if url.fragment().is_some() {
        return fault("a URL with a fragment (#...)");
    }
    if url.port() == Some(0) {
        return fault("a URL with port 0");
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// Whether the host is this machine by its name or address.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether the URL carries telemetry and proof unprotected over a network.
pub(super) fn is_exposed(url: &Url) -> bool {
    url.scheme() == "http" && !is_loopback(url)
}

/// The rules of plain http.
pub(super) fn plain_http(
    setting: &Setting,
    url: &Url,
    credential: Option<&Credential>,
    allowed: bool,
    pinned: bool,
) -> Result<(), ConfigError> {
    if !is_exposed(url) {
        return Ok(());
    }
    let rule = match credential {
        Some(Credential::ApiKey(_)) => {
            "an API key is never sent over plain http to another host; use https"
        }
        Some(Credential::Challenge(_)) | None if !allowed => {
            "plain http to another host needs allow_insecure = true; better use https"
        }
        Some(Credential::Challenge(_)) if !pinned => {
            "plain http with a challenge needs public_key_sha256, else anyone on the way could \
             swap the Monitor's key; better use https"
        }
        Some(Credential::Challenge(_)) | None => return Ok(()),
    };
    Err(setting.error(Problem::Rule { found: format!("\"{url}\""), rule: rule.into() }))
}
