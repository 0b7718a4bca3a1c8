//! Which `Host` a request may name. Pure.
//!
//! A page of any web site can have its own name resolve to 127.0.0.1 and then read the answers as
//! its own ("DNS rebinding"); the browser still names that site in `Host`.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether an authority (`Host`, or what stands in the request's target) is a loopback name or
/// address, with any port or none.
pub(super) fn is_loopback(authority: &str) -> bool {
    if let Some(rest) = authority.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port && address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    }
    let (name, port) = match authority.split_once(':') {
        Some((name, port)) => (name, is_port(port)),
        None => (authority, true),
    };
    let name_is_ours = name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    port && name_is_ours
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_and_addresses_are_ours() {
        for host in [
            "localhost",
            "LocalHost:9100",
            "127.0.0.1",
            "127.0.0.1:9100",
            "127.255.1.2:1",
            "[::1]",
            "[::1]:65535",
            "[0:0:0:0:0:0:0:1]:80",
        ] {
            assert!(is_loopback(host), "{host}");
        }
    }

    #[test]
    fn everything_else_is_not() {
        for host in [
            "",
            ":9100",
            "monitor.example",
            "localhost.attacker.example",
            "127.0.0.1.attacker.example",
            "127.0.0.1.attacker.example:9100",
            "attacker.example#127.0.0.1",
            "user@127.0.0.1",
            "0.0.0.0",
            "10.0.0.1:9100",
            "127.1",
            "0x7f.0.0.1",
            "2130706433",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[::]",
            "[::ffff:10.0.0.1]",
            "[::1%lo]",
            "localhost:http",
            "localhost:+80",
            "localhost:65536",
            "localhost:80:80",
            "localhost, attacker.example",
            "localhost ",
            "ｌocalhost",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
