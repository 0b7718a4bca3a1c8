//! The HTTP proxy that opens tunnels with CONNECT (RFC 9110, 9.3.6).
//!
//! Whether one is used, and which, is decided where the configuration is read
//! ([`crate::config::Proxy`]). Invariant: a proxy's password is in no message and no `Debug`
//! output.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::endpoint::Target;

/// An HTTP proxy that opens tunnels with CONNECT.
#[derive(Debug, Clone)]
pub struct Proxy {
    target: Target,
    /// The value of `Proxy-Authorization`.
    authorization: Option<SecretString>,
}

impl Proxy {
    /// A proxy at a host and port, with user name and password for Basic authentication where it
    /// wants them.
    #[must_use]
    pub fn new(target: Target, credentials: Option<(&str, &SecretString)>) -> Self {
        let authorization = credentials.map(|(user, password)| {
            let pair = Zeroizing::new(format!("{user}:{}", password.expose_secret()));
            SecretString::from(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
        });
        Self { target, authorization }
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
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use url::Host;

    #[test]
    fn credentials_are_sent_and_never_printed() {
        let target = Target { host: Host::Domain("proxy.example".to_owned()), port: 3128 };
        assert_eq!(Proxy::new(target.clone(), None).authorization(), None);
        let password = SecretString::from("p:ss");
        let proxy = Proxy::new(target, Some(("us@er", &password)));
        let encoded = STANDARD.encode("us@er:p:ss");
        assert_eq!(proxy.authorization(), Some(format!("Basic {encoded}").as_str()));
        assert_eq!(proxy.to_string(), "proxy.example:3128");
        assert!(!format!("{proxy:?}").contains(&encoded));
    }
}
