//! What the log says to do about a failure. Pure.

use std::time::Duration;

use super::machine::FailureKind;
use super::skew::Skew;

/// A Monitor refuses a proof whose time is further from its own (docs/PROTOCOL.md 3).
const PROOF_TOLERANCE: Duration = Duration::from_secs(120);

/// What the operator can do about a failure of this kind.
pub(super) fn advice(
    kind: FailureKind,
    api_key: bool,
    skew: Option<Skew>,
    key_changed: bool,
) -> &'static str {
    let skew = Duration::from_millis(skew.unwrap_or_default().millis.unsigned_abs());
    match kind {
        // An API key has neither a time nor to do with the Monitor's key.
        FailureKind::NotAccepted if api_key => {
            "have the Monitor issue a new API key, then type: sudo harborforge-connector enroll \
             --api-key (or put it into the configuration and send SIGHUP)"
        }
        // Neither is cured by a new challenge.
        FailureKind::NotAccepted if skew > PROOF_TOLERANCE => {
            "set this host's clock (NTP), it is more than 120 s from the Monitor's; if that does \
             not help, have the Monitor issue a new challenge, then type: sudo \
             harborforge-connector enroll (or put it into the configuration and send SIGHUP)"
        }
        FailureKind::NotAccepted if key_changed => {
            "the Monitor's key has changed and the next tries use the new one: make sure that \
             backend_url is the Monitor you mean; only if they are refused as well, have it issue \
             a new challenge"
        }
        FailureKind::Unreachable => "run `harborforge-connector check` if it lasts",
        FailureKind::Key => {
            "compare the Monitor's key with public_key_sha256; where the reason names a fault of \
             the key itself, have the Monitor's key replaced"
        }
        FailureKind::Answer => "check backend_url and what stands between here and the Monitor",
        FailureKind::Busy => "none needed",
        FailureKind::NotAccepted => {
            "have the Monitor issue a new challenge, then type: sudo \
             harborforge-connector enroll (or put it into the configuration and send SIGHUP)"
        }
        FailureKind::Unacceptable => "none needed unless it repeats",
        FailureKind::Local => "mend what the reason names; nothing was sent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new challenge is no cure for a wrong clock, nor for a key that has changed.
    #[test]
    fn advice_for_a_refusal_names_the_cure() {
        let refused = |millis, changed| {
            advice(FailureKind::NotAccepted, false, Some(Skew { millis }), changed)
        };
        assert!(refused(-121_000, false).starts_with("set this host's clock"));
        assert!(refused(0, true).starts_with("the Monitor's key has changed"));
        assert!(refused(119_000, false).starts_with("have the Monitor issue a new challenge"));
        assert!(advice(FailureKind::Unreachable, false, None, true).contains("check"));
        let skew = Some(Skew { millis: -121_000 });
        let keyed = advice(FailureKind::NotAccepted, true, skew, true);
        assert!(keyed.contains("API key") && !keyed.contains("clock"), "{keyed}");
    }
}
