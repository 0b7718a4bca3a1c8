//! Whether the bridge can listen, or does: nothing is bound here, since a daemon that starts at
//! this moment would find the port taken.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::{Facts, Line, Verdict};
use crate::bridge::advice;
use crate::control::client::{Answer, Client, ClientError};
use crate::control::protocol::Request;
use crate::control::status::{Bridge, Status};
use crate::oneshot::oneshot;

const NAME: &str = "bridge";

/// How long the daemon and the port may take to answer.
const WITHIN: Duration = Duration::from_secs(5);

/// Nothing, when no bridge is configured.
pub(super) fn bridge(facts: &Facts<'_>) -> Vec<Line> {
    let Some(address) = facts.config().bridge_listen else { return Vec::new() };
    let (sender, asked) = oneshot();
    let path = facts.config().control_socket.clone();
    // On a thread of its own: one that hangs is left behind, and a line above has told of it.
    std::thread::spawn(move || sender.send(told(&path)));
    vec![match asked.wait(WITHIN) {
        Ok(Ok(Some(bridge))) => of_daemon(address, bridge.as_ref()),
        Ok(Err(ClientError::NoDaemon { .. })) => without_daemon(address, &probe(address)),
        // There may be a daemon that has the address.
        Ok(Err(error)) => unasked(address, &probe(address), &error.to_string()),
        Ok(Ok(None)) | Err(_) => {
            unasked(address, &probe(address), "the daemon does not say how its bridge is")
        }
    }]
}

/// The word of the daemon; `None` when it answers and says nothing.
fn told(path: &Path) -> Result<Option<Option<Bridge>>, ClientError> {
    let client = Client::connect(path)?;
    let mut answer: Answer<Status, serde_json::Value> = client.ask(&Request::Status, false)?;
    Ok(answer.next_item()?.map(|status| status.bridge))
}

fn of_daemon(address: SocketAddr, bridge: Option<&Bridge>) -> Line {
    let warn = |text: String| Line::new(Verdict::Warn, NAME, text);
    let Some(bridge) = bridge.filter(|bridge| bridge.configured == address.to_string()) else {
        let used = bridge.map_or("off".to_owned(), |bridge| format!("on {}", bridge.configured));
        return warn(format!(
            "{address} is configured, but the daemon's is {used}: send it SIGHUP (under systemd: \
             systemctl reload harborforge-connector)"
        ));
    };
    match (&bridge.listening, &bridge.last_error) {
        (Some(listening), _) => {
            Line::new(Verdict::Ok, NAME, format!("the daemon listens on {listening}"))
        }
        (None, None) => Line::new(Verdict::Ok, NAME, format!("the daemon is opening {address}")),
        (None, Some(error)) => {
            // The daemon's words; what the port itself says gives the advice.
            let mend = match probe(address) {
                Probe::Taken => advice(address, io::ErrorKind::AddrInUse),
                Probe::Free if address.port() < 1024 => {
                    advice(address, io::ErrorKind::PermissionDenied)
                }
                Probe::Free => "it is free by now, the next try takes it".to_owned(),
                Probe::Unusable(_) => advice(address, io::ErrorKind::AddrNotAvailable),
            };
            warn(format!("the daemon cannot listen on {address}: {error}; {mend}"))
        }
    }
}

/// What is at an address while no daemon of ours is.
enum Probe {
    Free,
    Taken,
    Unusable(io::Error),
}

fn probe(address: SocketAddr) -> Probe {
    match TcpStream::connect_timeout(&address, WITHIN) {
        Ok(_) => Probe::Taken,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Probe::Free,
        // Somebody listens and accepts nobody.
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Probe::Taken,
        Err(error) => Probe::Unusable(error),
    }
}

fn without_daemon(address: SocketAddr, found: &Probe) -> Line {
    // 0 is "any port": nothing can be in its way.
    match found {
        _ if address.port() == 0 => {
            Line::new(Verdict::Ok, NAME, format!("{address}: any port that is free"))
        }
        Probe::Free => Line::new(Verdict::Ok, NAME, format!("{address} is free")),
        Probe::Taken => {
            let mend = advice(address, io::ErrorKind::AddrInUse);
            Line::new(Verdict::Warn, NAME, format!("{address} is taken by another process; {mend}"))
        }
        Probe::Unusable(error) => {
            let mend = advice(address, io::ErrorKind::AddrNotAvailable);
            Line::new(Verdict::Warn, NAME, format!("{address} cannot be used: {error}; {mend}"))
        }
    }
}

/// The same where a daemon may run and could not be asked, for this reason.
fn unasked(address: SocketAddr, found: &Probe, reason: &str) -> Line {
    match found {
        Probe::Taken if address.port() != 0 => {
            let text = format!(
                "{address} is taken, and whether by the daemon cannot be told: {reason}; mend \
                 that, then run check again"
            );
            Line::new(Verdict::Warn, NAME, text)
        }
        Probe::Taken | Probe::Free | Probe::Unusable(_) => without_daemon(address, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn address() -> SocketAddr {
        "127.0.0.1:9100".parse().unwrap()
    }

    fn told(listening: Option<&str>, last_error: Option<&str>) -> Bridge {
        Bridge {
            configured: "127.0.0.1:9100".to_owned(),
            listening: listening.map(str::to_owned),
            last_error: last_error.map(str::to_owned),
            next_attempt_at: None,
        }
    }

    #[test]
    fn the_daemons_word_counts() {
        let says = |bridge: Option<&Bridge>| of_daemon(address(), bridge).to_string();
        assert_eq!(
            says(Some(&told(Some("127.0.0.1:9100"), None))),
            "ok   bridge: the daemon listens on 127.0.0.1:9100"
        );
        assert!(says(Some(&told(None, None))).starts_with("ok"));
        let off = says(None);
        assert!(off.starts_with("warn") && off.contains("is off: send it SIGHUP"), "{off}");
        let other = Bridge { configured: "127.0.0.1:1".to_owned(), ..told(None, None) };
        assert!(says(Some(&other)).contains("on 127.0.0.1:1: send it SIGHUP"));
    }

    #[test]
    fn without_a_daemon_the_port_is_looked_at() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap();
        let line = without_daemon(taken, &probe(taken)).to_string();
        let port = format!("ss -ltnp 'sport = :{}'", taken.port());
        assert!(line.starts_with("warn bridge: ") && line.contains(&port), "{line}");
        let said = told(None, Some("Address already in use"));
        let bridge = Bridge { configured: taken.to_string(), ..said };
        let line = of_daemon(taken, Some(&bridge)).to_string();
        assert!(line.contains("cannot listen") && line.contains(&port), "{line}");
        let line = without_daemon(address(), &Probe::Free);
        assert_eq!(line.to_string(), "ok   bridge: 127.0.0.1:9100 is free");
        let broken = Probe::Unusable(io::Error::from(io::ErrorKind::AddrNotAvailable));
        let line = without_daemon(address(), &broken).to_string();
        assert!(line.starts_with("warn") && line.contains("choose another"), "{line}");
        let line = unasked(taken, &Probe::Taken, "too many are asking at once").to_string();
        assert!(line.starts_with("warn") && !line.contains("another process"), "{line}");
        assert!(line.contains("cannot be told: too many are asking at once"), "{line}");
        let free = unasked(address(), &Probe::Free, "too many").to_string();
        assert_eq!(free, "ok   bridge: 127.0.0.1:9100 is free");
        let any = "127.0.0.1:0".parse().unwrap();
        assert!(without_daemon(any, &Probe::Taken).to_string().starts_with("ok"));
    }
}
