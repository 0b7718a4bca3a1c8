//! What is wrong, and what to type. Pure.

use std::time::Duration;

use crate::control::status::{Queue, Status};
use crate::health::{LinkState, Standing};
use crate::protocol::SKEW_TOLERANCE;

/// Beyond this a Monitor refuses a proof whose time was not corrected (docs/PROTOCOL.md 3).
const PROOF_TOLERANCE: Duration = Duration::from_secs(120);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// Samples are not delivered, or are being lost.
    pub grave: bool,
    /// What it is, and what to do.
    pub text: String,
}

/// What is wrong, the gravest first.
pub fn advice(status: &Status) -> Vec<Advice> {
    let mut all = Vec::new();
    let mut say = |grave: bool, text: String| all.push(Advice { grave, text });
    if !status.running {
        say(true, "no daemon runs: systemctl start harborforge-connector".to_owned());
    }
    if let Some(link) = &status.link {
        if link.state == LinkState::Refused {
            say(true, refused(status).to_owned());
        } else if link.state == LinkState::Offline {
            say(true, "the Monitor is not reached: harborforge-connector check".to_owned());
        }
        if link.probing {
            let text = "three samples in a row were refused, the newest is tried until one is \
                        taken: look at the Monitor, and at last error";
            say(true, text.to_owned());
        }
        let standing = status.challenge.as_ref().map(|challenge| challenge.condition);
        if standing == Some(Standing::HeartbeatsOnly) {
            let text = "the challenge opens no WebSocket any more, heartbeats carry on: have the \
                        Monitor issue a new one, then sudo harborforge-connector enroll";
            say(false, text.to_owned());
        }
    }
    match &status.queue {
        Some(queue) => of_queue(queue, status.data_dir.as_deref().unwrap_or("data_dir"), &mut say),
        None if status.running => {
            let text = "the queue is not open, samples wait in memory: the daemon's log says why";
            say(true, text.to_owned());
        }
        None => {}
    }
    if let Some(skew) = status.clock_skew_ms
        && u128::from(skew.unsigned_abs()) > SKEW_TOLERANCE.as_millis()
    {
        let off = Duration::from_secs(skew.unsigned_abs() / 1000);
        let whose = if skew > 0 { "behind" } else { "ahead of" };
        let off = humantime::format_duration(off);
        let text = format!("this clock is {off} {whose} the Monitor's: timedatectl set-ntp true");
        say(false, text);
    }
    let (grave, other): (Vec<_>, Vec<_>) = all.into_iter().partition(|advice| advice.grave);
    [grave, other].concat()
}

/// A challenge and a key that are refused look alike; a clock that is far off explains it without
/// a new one.
fn refused(status: &Status) -> &'static str {
    let skew = Duration::from_millis(status.clock_skew_ms.unwrap_or(0).unsigned_abs());
    let kind = status.challenge.as_ref().map_or("challenge", |challenge| challenge.kind.as_str());
    match kind {
        "api_key" => {
            "the Monitor refuses the API key: have it issue a new one, then sudo \
             harborforge-connector enroll --api-key"
        }
        _ if skew > PROOF_TOLERANCE => {
            "the Monitor refuses the proof, and this clock is far off: set the clock first \
             (timedatectl set-ntp true); if that does not help, sudo harborforge-connector enroll"
        }
        _ => {
            "the Monitor refuses the challenge: have it issue a new one, then sudo \
             harborforge-connector enroll"
        }
    }
}

fn of_queue(queue: &Queue, data_dir: &str, say: &mut impl FnMut(bool, String)) {
    let Queue { in_memory, dropped, rejected, quarantined, .. } = *queue;
    if in_memory > 0 {
        let text = format!("the disk takes no samples, {in_memory} wait in memory: df {data_dir}");
        say(true, text);
    }
    if dropped > 0 {
        say(true, format!("{dropped} samples are lost: the disk took none and memory was full"));
    }
    let lost: u64 =
        queue.gaps.iter().map(|gap| gap.to.saturating_sub(gap.from).saturating_add(1)).sum();
    if lost > 0 {
        let text = format!("{lost} samples were given up: harborforge-connector dump --summary");
        say(false, text);
    }
    if rejected > 0 {
        let text = format!(
            "{rejected} samples were refused for good: harborforge-connector dump --state rejected"
        );
        say(false, text);
    }
    if quarantined > 0 {
        let text =
            format!("{quarantined} damaged parts are set aside: harborforge-connector verify");
        say(false, text);
    }
}
