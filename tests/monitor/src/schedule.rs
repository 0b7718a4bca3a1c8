//! When faults strike: plans, and the countdown of what was planned. Pure.

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Route, Stage};

/// A fault with its place and number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What happens.
    pub fault: Fault,
    /// At which route; `None` for every one. Means nothing for a connection's faults; those of an
    /// opened WebSocket strike at [`Route::WebSocket`] only.
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
        self.changes.contains(&Fault::WrongKey)
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
                Stage::Connection | Stage::Link => false,
                Stage::Answer => here && met.answer.is_none(),
                Stage::Change => here,
            };
            struck.then(|| {
                if plan.after == 0 {
                    match plan.fault.stage() {
                        Stage::Connection | Stage::Answer => met.answer = Some(plan.fault.clone()),
                        Stage::Change => met.changes.push(plan.fault.clone()),
                        Stage::Link => {}
                    }
                }
            })
        });
        met
    }

    /// The faults a WebSocket meets that is being opened.
    pub fn link(&mut self) -> Vec<Fault> {
        let mut met = Vec::new();
        self.strike(|plan| {
            let here = plan.at.is_none_or(|at| at == Route::WebSocket);
            (here && plan.fault.stage() == Stage::Link).then(|| {
                if plan.after == 0 {
                    met.push(plan.fault.clone());
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
        schedule.add(Fault::Hang.at(Route::Heartbeat).times(1).after(1));
        schedule.add(Fault::NoDate.into());
        schedule.add(Fault::ResetConnection.once());
        assert_eq!(schedule.request(Route::Key).answer, None);
        assert_eq!(schedule.request(Route::Heartbeat).answer, Some(Fault::status(503)));
        assert_eq!(schedule.request(Route::Heartbeat).answer, None);
        let met = schedule.request(Route::Heartbeat);
        assert_eq!((met.answer, met.changes.len()), (Some(Fault::Hang), 1));
        assert_eq!(schedule.request(Route::Heartbeat).answer, None);
        assert_eq!(schedule.connection(), Some(Fault::ResetConnection));
        assert_eq!(schedule.connection(), None);
        schedule.clear();
        assert_eq!(schedule.request(Route::Heartbeat).len(), 0);
    }

    #[test]
    fn a_link_meets_its_own_faults_and_no_request_does() {
        let mut schedule = Schedule::default();
        schedule.add(Fault::NeverPong.once());
        schedule.add(Fault::Cut { messages: 3 }.always().times(1).after(1));
        schedule.add(Fault::AckTwice.at(Route::Heartbeat));
        assert_eq!(schedule.request(Route::WebSocket).len(), 0);
        assert_eq!(schedule.connection(), None);
        assert_eq!(schedule.link(), [Fault::NeverPong]);
        assert_eq!(schedule.link(), [Fault::Cut { messages: 3 }]);
        assert_eq!(schedule.link(), []);
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
        assert!(serde_json::from_str::<Plan>(r#"{"fault":{"kind":"age","x":1}}"#).is_err());
        let text = serde_json::to_string(&Fault::Hang.always()).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), Fault::Hang.always());
    }
}
