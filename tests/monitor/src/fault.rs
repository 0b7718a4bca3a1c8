//! Misbehaviour on request: what can go wrong, where and how often. Pure.
//!
//! A request meets at most one fault that takes the place of its answer or spoils it, and any
//! number of those that only change what the Monitor says. Which they are is said at each fault.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::answer::Answer;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// The key document.
    Key,
    /// A heartbeat, single or batch.
    Heartbeat,
    /// A WebSocket upgrade.
    WebSocket,
    /// Anything else.
    Other,
}

/// One way of misbehaving. As JSON: `{"kind":"status","status":503,"headers":[["Retry-After","7"]]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    // --- a connection, before anything is read ------------------------------------------
    /// It is reset (RST) when the client has said its first word.
    ResetConnection {},
    /// It is closed (FIN).
    CloseConnection {},
    /// It is held open and never read, TLS included.
    IgnoreConnection {},

    // --- in place of an answer: nothing of the request is done --------------------------
    /// The request is read and never answered.
    Hang {},
    /// The request is read and the connection closed.
    Disconnect {},
    /// This answer.
    Status {
        /// The status code.
        status: u16,
        /// Headers, name and value.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// The body.
        #[serde(default)]
        body: String,
    },
    /// 307 to this place.
    Redirect {
        /// The `Location`.
        location: String,
    },
    /// 200 with a captive portal's page.
    Portal {},
    /// 200 `{"ok":false,"error":...}`.
    OkFalse {},
    /// Bytes that are not HTTP.
    Garbage {},
    /// 200 with a body of this many bytes of JSON that never ends properly.
    HugeBody {
        /// Bytes of the body.
        bytes: u64,
    },
    /// A head that goes on for this many bytes.
    HugeHead {
        /// Bytes of the head.
        bytes: u64,
    },

    // --- the request is done, but the answer suffers ------------------------------------
    /// The connection is closed in place of the answer.
    LoseAnswer {},
    /// The answer is never sent.
    HoldAnswer {},
    /// Only this many bytes of the answer are sent, then the connection is closed.
    CutAnswer {
        /// Bytes sent, head included.
        after: usize,
    },
    /// The answer is sent byte by byte.
    SlowAnswer {
        /// Milliseconds between two bytes.
        pause_ms: u64,
    },

    // --- what the Monitor says is changed -----------------------------------------------
    /// The key document shows another key, with which nothing can be opened.
    WrongKey {},
    /// The `Date` header is off by this many seconds.
    DateSkew {
        /// Seconds, positive for a date ahead.
        seconds: i64,
    },
    /// There is no `Date` header.
    NoDate {},
    /// There is an `Age` header, as a cache adds.
    Age {
        /// Its value.
        seconds: u64,
    },
    /// Samples with these numbers are refused, over every transport.
    Reject {
        /// The numbers.
        seqs: BTreeSet<u64>,
        /// The status of a single heartbeat's refusal, 422 for one.
        #[serde(default = "unprocessable")]
        status: u16,
        /// Whether a batch that holds one is refused as a whole with that status, in place of
        /// listing it under `rejected`.
        #[serde(default)]
        whole_batch: bool,
    },
    /// Of a batch only this many samples are dealt with.
    PartOfBatch {
        /// How many.
        samples: usize,
    },
    /// A batch is dealt with, and answered with this `acked_seq`.
    WrongAckedSeq {
        /// The number.
        seq: u64,
    },
}

fn unprocessable() -> u16 {
    422
}

/// When in a request's life a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connection,
    Answer,
    Change,
}

impl Fault {
    /// A plain status without headers and body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Status { status, headers: Vec::new(), body: String::new() }
    }

    /// A status with a `Retry-After` header.
    #[must_use]
    pub fn retry_after(status: u16, value: &str) -> Self {
        let headers = vec![("Retry-After".to_owned(), value.to_owned())];
        Self::Status { status, headers, body: String::new() }
    }

    /// A refusal of these samples with 422, listed one by one in a batch.
    #[must_use]
    pub fn reject(seqs: impl IntoIterator<Item = u64>) -> Self {
        Self::Reject { seqs: seqs.into_iter().collect(), status: 422, whole_batch: false }
    }

    /// Every time, at every route.
    #[must_use]
    pub fn always(self) -> Plan {
        Plan { fault: self, at: None, times: None, after: 0 }
    }

    /// The next time only.
    #[must_use]
    pub fn once(self) -> Plan {
        self.always().times(1)
    }

    /// At one route only.
    #[must_use]
    pub fn at(self, route: Route) -> Plan {
        self.always().at(route)
    }

    fn stage(&self) -> Stage {
        match self {
            Self::ResetConnection {} | Self::CloseConnection {} | Self::IgnoreConnection {} => {
                Stage::Connection
            }
            Self::Hang {}
            | Self::Disconnect {}
            | Self::Status { .. }
            | Self::Redirect { .. }
            | Self::Portal {}
            | Self::OkFalse {}
            | Self::Garbage {}
            | Self::HugeBody { .. }
            | Self::HugeHead { .. }
            | Self::LoseAnswer {}
            | Self::HoldAnswer {}
            | Self::CutAnswer { .. }
            | Self::SlowAnswer { .. } => Stage::Answer,
            Self::WrongKey {}
            | Self::DateSkew { .. }
            | Self::NoDate {}
            | Self::Age { .. }
            | Self::Reject { .. }
            | Self::PartOfBatch { .. }
            | Self::WrongAckedSeq { .. } => Stage::Change,
        }
    }

    /// What is sent in place of dealing with the request; `None` when it is dealt with.
    #[must_use]
    pub(crate) fn instead(&self) -> Option<Outcome> {
        let answer = match self {
            Self::Hang {} => return Some(Outcome::Hang),
            Self::Disconnect {} => return Some(Outcome::Bytes(Vec::new())),
            Self::Garbage {} => {
                let bytes = b"\x16\x03\x01 this is not HTTP \xff\xfe\r\n\r\n".to_vec();
                return Some(Outcome::Bytes(bytes));
            }
            Self::HugeBody { bytes } => {
                let head = Answer::typed(200, "application/json", String::new()).head();
                let head = format!("{head}content-length: {bytes}\r\n\r\n[");
                return Some(Outcome::Endless {
                    start: head.into_bytes(),
                    filler: b"0,".repeat(4096),
                    bytes: *bytes,
                });
            }
            Self::HugeHead { bytes } => {
                return Some(Outcome::Endless {
                    start: b"HTTP/1.1 200 OK\r\n".to_vec(),
                    filler: b"x-filler: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(64),
                    bytes: *bytes,
                });
            }
            Self::Status { status, headers, body } => Answer {
                status: *status,
                headers: headers.clone(),
                body: body.clone().into_bytes(),
            },
            Self::Redirect { location } => Answer::detail(307, "moved").with("location", location),
            Self::Portal {} => Answer::typed(
                200,
                "text/html; charset=utf-8",
                "<!doctype html><title>Welcome</title><p>Please accept our terms.".to_owned(),
            ),
            Self::OkFalse {} => {
                Answer::json(200, &serde_json::json!({"ok": false, "error": "refused on request"}))
            }
            Self::ResetConnection {}
            | Self::CloseConnection {}
            | Self::IgnoreConnection {}
            | Self::LoseAnswer {}
            | Self::HoldAnswer {}
            | Self::CutAnswer { .. }
            | Self::SlowAnswer { .. }
            | Self::WrongKey {}
            | Self::DateSkew { .. }
            | Self::NoDate {}
            | Self::Age { .. }
            | Self::Reject { .. }
            | Self::PartOfBatch { .. }
            | Self::WrongAckedSeq { .. } => return None,
        };
        Some(Outcome::Answer(answer))
    }

    /// What becomes of the answer to a request that was dealt with.
    #[must_use]
    pub(crate) fn spoil(&self, answer: Answer) -> Outcome {
        match self {
            Self::LoseAnswer {} => Outcome::Bytes(Vec::new()),
            Self::HoldAnswer {} => Outcome::Hang,
            Self::CutAnswer { after } => {
                let mut bytes = answer.to_bytes();
                bytes.truncate(*after);
                Outcome::Bytes(bytes)
            }
            Self::SlowAnswer { pause_ms } => {
                Outcome::Slow { bytes: answer.to_bytes(), pause_ms: *pause_ms }
            }
            Self::ResetConnection {}
            | Self::CloseConnection {}
            | Self::IgnoreConnection {}
            | Self::Hang {}
            | Self::Disconnect {}
            | Self::Status { .. }
            | Self::Redirect { .. }
            | Self::Portal {}
            | Self::OkFalse {}
            | Self::Garbage {}
            | Self::HugeBody { .. }
            | Self::HugeHead { .. }
            | Self::WrongKey {}
            | Self::DateSkew { .. }
            | Self::NoDate {}
            | Self::Age { .. }
            | Self::Reject { .. }
            | Self::PartOfBatch { .. }
            | Self::WrongAckedSeq { .. } => Outcome::Answer(answer),
        }
    }
}

/// What goes back over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A proper answer.
    Answer(Answer),
    /// Nothing, ever.
    Hang,
    /// These bytes, then the connection is closed.
    Bytes(Vec<u8>),
    /// These bytes one by one, then the connection is closed.
    Slow { bytes: Vec<u8>, pause_ms: u64 },
    /// `start`, then `filler` again and again for `bytes` bytes, then the connection is closed.
    Endless { start: Vec<u8>, filler: Vec<u8>, bytes: u64 },
}

/// A fault with its place and number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What happens.
    pub fault: Fault,
    /// At which route; `None` for every one. Means nothing for a connection's faults.
    #[serde(default)]
    pub at: Option<Route>,
    /// How often; `None` for always.
    #[serde(default)]
    pub times: Option<u64>,
    /// How many matching requests or connections pass unharmed before.
    #[serde(default)]
    pub after: u64,
}

impl Plan {
    /// The same at one route only.
    #[must_use]
    pub fn at(mut self, route: Route) -> Self {
        self.at = Some(route);
        self
    }

    /// The same so many times only.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// The same after so many matching requests or connections.
    #[must_use]
    pub fn after(mut self, passes: u64) -> Self {
        self.after = passes;
        self
    }
}

impl From<Fault> for Plan {
    fn from(fault: Fault) -> Self {
        fault.always()
    }
}

/// The faults a request meets.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// The one that takes the place of the answer or spoils it.
    pub answer: Option<Fault>,
    /// Those that change what is said.
    pub changes: Vec<Fault>,
}

impl Met {
    /// How many.
    pub fn len(&self) -> u64 {
        self.answer.iter().count() as u64 + self.changes.len() as u64
    }

    /// Whether the key document is to show another key.
    pub fn wrong_key(&self) -> bool {
        self.changes.contains(&Fault::WrongKey {})
    }
}

/// The faults to come, in the order they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    plans: Vec<Plan>,
}

impl Schedule {
    pub fn add(&mut self, plan: Plan) {
        self.plans.push(plan);
    }

    pub fn clear(&mut self) {
        self.plans.clear();
    }

    /// The fault a new connection meets.
    pub fn connection(&mut self) -> Option<Fault> {
        let mut met = None;
        self.strike(|plan| {
            (plan.fault.stage() == Stage::Connection && met.is_none()).then(|| {
                if plan.after == 0 {
                    met = Some(plan.fault.clone());
                }
            })
        });
        met
    }

    /// The faults a request meets.
    pub fn request(&mut self, route: Route) -> Met {
        let mut met = Met::default();
        self.strike(|plan| {
            let here = plan.at.is_none_or(|at| at == route);
            let struck = match plan.fault.stage() {
                Stage::Connection => false,
                Stage::Answer => here && met.answer.is_none(),
                Stage::Change => here,
            };
            struck.then(|| {
                if plan.after == 0 {
                    match plan.fault.stage() {
                        Stage::Connection | Stage::Answer => met.answer = Some(plan.fault.clone()),
                        Stage::Change => met.changes.push(plan.fault.clone()),
                    }
                }
            })
        });
        met
    }

    /// The refusals of samples that stand for a WebSocket's events; none is counted down, since
    /// one link carries many samples.
    pub fn rejects(&self) -> Vec<Fault> {
        let here = |plan: &&Plan| {
            plan.at.is_none_or(|at| at == Route::WebSocket)
                && matches!(plan.fault, Fault::Reject { .. })
        };
        self.plans.iter().filter(here).map(|plan| plan.fault.clone()).collect()
    }

    /// Counts down every plan for which `matches` says `Some`, and drops those that are through.
    fn strike(&mut self, mut matches: impl FnMut(&Plan) -> Option<()>) {
        self.plans.retain_mut(|plan| {
            if matches(plan).is_none() {
                return true;
            }
            if plan.after > 0 {
                plan.after -= 1;
                return true;
            }
            match &mut plan.times {
                None => true,
                Some(times) => {
                    *times = times.saturating_sub(1);
                    *times > 0
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_strike_in_their_place_and_number() {
        let mut schedule = Schedule::default();
        schedule.add(Fault::status(503).once().at(Route::Heartbeat));
        schedule.add(Fault::Hang {}.at(Route::Heartbeat).times(1).after(1));
        schedule.add(Fault::NoDate {}.into());
        schedule.add(Fault::ResetConnection {}.once());
        assert_eq!(schedule.request(Route::Key).answer, None);
        assert_eq!(schedule.request(Route::Heartbeat).answer, Some(Fault::status(503)));
        assert_eq!(schedule.request(Route::Heartbeat).answer, None);
        let met = schedule.request(Route::Heartbeat);
        assert_eq!((met.answer, met.changes.len()), (Some(Fault::Hang {}), 1));
        assert_eq!(schedule.request(Route::Heartbeat).answer, None);
        assert_eq!(schedule.connection(), Some(Fault::ResetConnection {}));
        assert_eq!(schedule.connection(), None);
        schedule.clear();
        assert_eq!(schedule.request(Route::Heartbeat).len(), 0);
    }

    #[test]
    fn one_shot_faults_queue_up() {
        let mut schedule = Schedule::default();
        schedule.add(Fault::status(500).once());
        schedule.add(Fault::status(502).once());
        assert_eq!(schedule.request(Route::Heartbeat).answer, Some(Fault::status(500)));
        assert_eq!(schedule.request(Route::Heartbeat).answer, Some(Fault::status(502)));
        assert_eq!(schedule.request(Route::Heartbeat).answer, None);
    }

    #[test]
    fn plans_are_read_from_json() {
        let text = r#"{"fault":{"kind":"status","status":503,"headers":[["Retry-After","7"]]},
                       "at":"heartbeat","times":2}"#;
        let plan: Plan = serde_json::from_str(text).unwrap();
        assert_eq!(plan, Fault::retry_after(503, "7").at(Route::Heartbeat).times(2));
        let plan: Plan = serde_json::from_str(r#"{"fault":{"kind":"reject","seqs":[3]}}"#).unwrap();
        assert_eq!(plan, Fault::reject([3]).always());
        assert!(serde_json::from_str::<Plan>(r#"{"fault":{"kind":"hang","x":1}}"#).is_err());
        let text = serde_json::to_string(&Fault::Hang {}.always()).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), Fault::Hang {}.always());
    }

    #[test]
    fn answers_are_spoiled_as_asked() {
        let answer = Answer::detail(200, "fine");
        let cut = Fault::CutAnswer { after: 4 }.spoil(answer.clone());
        assert_eq!(cut, Outcome::Bytes(b"HTTP".to_vec()));
        assert_eq!(Fault::LoseAnswer {}.spoil(answer.clone()), Outcome::Bytes(Vec::new()));
        assert_eq!(Fault::NoDate {}.spoil(answer.clone()), Outcome::Answer(answer));
        assert_eq!(Fault::Hang {}.instead(), Some(Outcome::Hang));
        assert_eq!(Fault::LoseAnswer {}.instead(), None);
    }
}
