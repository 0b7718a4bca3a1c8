//! `enroll` over the control socket: hands new credentials to the part of the daemon that reads
//! its configuration, and tells what became of them.
//!
//! Invariants: a request is judged for its form here, so that nothing malformed is kept; one is
//! carried out at a time; no refusal repeats a secret.

use zeroize::Zeroizing;

use super::protocol::{Enroll, Enrolled, Refusal, RefusalKind};
use crate::config::Credential;
use crate::oneshot;
use crate::runtime::channel;

/// A request on its way to the daemon.
#[derive(Debug)]
pub struct Enrolling {
    /// The Monitor the credentials are for.
    pub backend_url: String,
    /// This server's name there.
    pub identifier: String,
    /// The credentials, unless only the configuration is to be read again.
    pub credential: Option<Credential>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Enrolled, Refusal>>,
}

/// Asks the daemon to take new credentials up.
///
/// # Errors
/// What is malformed, and what the daemon refuses.
pub async fn ask(
    daemon: &channel::Sender<Enrolling>,
    request: Enroll,
) -> Result<Enrolled, Refusal> {
    let malformed = |what| Refusal::new(RefusalKind::Request, what);
    let Enroll { backend_url, identifier, challenge_uuid, api_key } = request;
    let wiped = |secret: Option<String>| secret.map(Zeroizing::new);
    let credential = match (wiped(challenge_uuid), wiped(api_key)) {
        (None, None) => None,
        (Some(challenge), None) => Some(
            Credential::challenge(&challenge)
                .ok_or_else(|| malformed("the challenge is not a UUID"))?,
        ),
        (None, Some(key)) => Some(Credential::api_key(&key).ok_or_else(|| {
            malformed("the API key is not 1 to 4096 printable ASCII characters without spaces")
        })?),
        (Some(_), Some(_)) => return Err(malformed("either a challenge or an API key, not both")),
    };
    let (reply, answer) = oneshot::oneshot();
    let stops = || Refusal::new(RefusalKind::Failed, "the daemon is stopping: try again");
    let request = Enrolling { backend_url, identifier, credential, reply };
    daemon.send(request).await.map_err(|_| stops())?;
    answer.await.ok_or_else(stops)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block_on;

    fn request(challenge: Option<&str>, key: Option<&str>) -> Enroll {
        Enroll {
            backend_url: "https://m.example/".to_owned(),
            identifier: "vps.t1".to_owned(),
            challenge_uuid: challenge.map(str::to_owned),
            api_key: key.map(str::to_owned),
        }
    }

    #[test]
    fn what_is_malformed_does_not_reach_the_daemon() {
        let (daemon, receiver) = channel::unbounded();
        let uuid = "8f14e45f-ceea-467f-9575-1d2f3a4b5c6d";
        for (challenge, key) in [
            (Some("geheim"), None),
            (Some(""), None),
            (None, Some("geheim mit Leerzeichen")),
            (None, Some("")),
            (Some(uuid), Some("geheim")),
        ] {
            let refusal = block_on(ask(&daemon, request(challenge, key))).unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::Request);
            assert!(!refusal.message.contains("geheim"), "{refusal}");
        }
        assert!(receiver.try_recv().is_err());
        drop(receiver);
        let refusal = block_on(ask(&daemon, request(Some(uuid), None))).unwrap_err();
        assert!(refusal.message.contains("stopping"), "{refusal}");
    }
}
