//! The key document and the heartbeat: what the driver does with a request, and the Monitor with
//! it. Answers are real ones, read by the real classification.

use std::time::{Duration, SystemTime};

use harborforge_connector::protocol::{Capabilities, REQUEST_DEADLINE};
use harborforge_connector::sender::classify::{Asked, Reply, classify};
use harborforge_connector::sender::machine::{
    Answered, Attempt, Event, Failure, FailureKind, KeyNews, Proof, Selection,
};

use super::due::{Due, Posting};
use super::monitor::{Mood, Proved};
use super::world::{Checked, Net, World};

pub fn failure(kind: FailureKind, reason: &str) -> Failure {
    Failure { kind, reason: reason.to_owned() }
}

impl World {
    /// An event for the machine after a while; and now and then the same once more, which it has
    /// to recognise as late.
    pub fn answer_after(&mut self, wait: Duration, event: Event) {
        if self.accident(10) {
            let late = wait + self.dice.up_to(Duration::from_secs(30));
            self.after(late, Due::Machine(self.run, event.clone()));
        }
        self.after(wait, Due::Machine(self.run, event));
    }

    pub fn fetch_key(&mut self, attempt: Attempt) {
        self.summary.tries.push(self.now);
        let latency = self.latency();
        let (run, known, monitor) = (self.run, self.known.instance, self.monitor);
        if self.net == Net::Dark || self.accident(self.scenario.faults) {
            return self.no_key(REQUEST_DEADLINE, attempt);
        }
        self.after(latency, Due::KeyAsked { run, known, monitor, attempt });
    }

    fn no_key(&mut self, wait: Duration, attempt: Attempt) {
        let result = Err(failure(FailureKind::Unreachable, "no key document"));
        self.answer_after(wait, Event::Key { attempt, result });
    }

    pub fn key_asked(&mut self, run: u32, known: u32, monitor: usize, attempt: Attempt) {
        if run != self.run {
            return;
        }
        let latency = self.latency();
        let there = &self.monitors[monitor];
        let (key, capabilities) = (there.key, there.capabilities);
        match there.mood {
            Mood::Gone => self.no_key(latency, attempt),
            Mood::Hangs => self.no_key(REQUEST_DEADLINE - latency, attempt),
            Mood::Fails | Mood::Portal => {
                let result = Err(failure(FailureKind::Key, "no document"));
                self.answer_after(latency, Event::Key { attempt, result });
            }
            Mood::Well
            | Mood::Busy(_)
            | Mood::Disowns
            | Mood::RefusesSamples
            | Mood::Mute
            | Mood::Lies => {
                self.after(latency, Due::KeyCame { run, known, key, capabilities, attempt });
            }
        }
    }

    pub fn key_came(
        &mut self,
        known: u32,
        key: u64,
        capabilities: Capabilities,
        attempt: Attempt,
    ) -> Event {
        self.dated(known);
        if known == self.known.instance {
            self.known.key = Some(key);
        }
        let changed = self.remembered.replace(key).is_some_and(|before| before != key);
        Event::Key { attempt, result: Ok(KeyNews { capabilities, changed }) }
    }

    /// An answer's `Date` shows how far the clock is off.
    pub fn dated(&mut self, known: u32) {
        if known == self.known.instance {
            self.known.skew = self.clock_error;
        }
    }

    pub fn post(&mut self, attempt: Attempt, selection: Selection, proof: Proof) -> Checked {
        let accepted = self.held.is_some_and(|held| self.links[held].accepted);
        self.rules.posts(self.now, attempt, accepted, &mut self.summary)?;
        let (from, batch) = match selection {
            Selection::Single { from } => (from, None),
            Selection::Batch { from, records, bytes } => (from, Some((records, bytes))),
        };
        // What it is for may be over before it is read.
        let probe = self.rules.probing();
        let post = Posting { attempt, from, batch, probe, proof };
        let wait = self.dice.up_to(Duration::from_millis(5));
        self.after(wait, Due::PostRead { run: self.run, post });
        Ok(())
    }

    pub fn post_read(&mut self, post: Posting) -> Checked {
        let Posting { attempt, from, batch, probe, proof } = post;
        let (records, bytes) = batch.unwrap_or((1, usize::MAX));
        let items = self.queue.read(from, self.readable(), records, bytes);
        let Some(&(first, _)) = items.first() else {
            let event = Event::Answer { attempt, result: Answered::NothingToSend };
            return self.tell(event);
        };
        if probe {
            if batch.is_some() {
                return Err("a probe is a batch".into());
            }
            self.probed.insert(first);
        } else if let Some(older) = self.owed(self.queue.head(), first) {
            return Err(format!("a heartbeat carries {first}, and {older} is older"));
        }
        if batch.is_some()
            && (items.len() > 500 || items.iter().map(|i| i.1).sum::<usize>() > 1 << 20)
        {
            return Err(format!("a batch of {} samples is too large", items.len()));
        }
        let Some(proved) = self.prove(proof) else {
            let result = Answered::Failed(failure(FailureKind::Local, "the key is not known"));
            return self.tell(Event::Answer { attempt, result });
        };
        let sent: Vec<u64> = items.into_iter().map(|(seq, _)| seq).collect();
        if self.net == Net::Dark || self.accident(self.scenario.faults) {
            self.no_answer(REQUEST_DEADLINE, attempt);
            return Ok(());
        }
        let latency = self.latency();
        let (run, known, monitor) = (self.run, self.known.instance, self.monitor);
        let single = batch.is_none();
        self.after(latency, Due::Posted { run, known, monitor, attempt, sent, single, proved });
        Ok(())
    }

    fn no_answer(&mut self, wait: Duration, attempt: Attempt) {
        let result = Answered::Failed(failure(FailureKind::Unreachable, "no answer"));
        self.answer_after(wait, Event::Answer { attempt, result });
    }

    #[allow(clippy::too_many_arguments, reason = "a request is all of that")]
    pub fn posted(
        &mut self,
        run: u32,
        known: u32,
        monitor: usize,
        attempt: Attempt,
        sent: Vec<u64>,
        single: bool,
        proved: &Proved,
    ) -> Checked {
        let (status, retry_after, body) = match self.monitors[monitor].mood {
            Mood::Gone | Mood::Hangs => {
                if run == self.run {
                    self.no_answer(REQUEST_DEADLINE, attempt);
                }
                return Ok(());
            }
            Mood::Busy(seconds) => (503, Some(seconds.to_string()), String::new()),
            Mood::Fails => (500, None, String::new()),
            Mood::Portal => (200, None, "<html>Sign in</html>".to_owned()),
            Mood::Disowns => (403, None, String::new()),
            Mood::Well | Mood::RefusesSamples | Mood::Mute | Mood::Lies => {
                let (status, body) = self.judge_heartbeat(monitor, &sent, single, proved)?;
                (status, None, body)
            }
        };
        if run != self.run {
            return Ok(());
        }
        if self.accident(self.scenario.faults) {
            // Dealt with, and the answer is lost.
            self.no_answer(REQUEST_DEADLINE, attempt);
            return Ok(());
        }
        let (first, last) = (sent.first().copied(), sent.last().copied());
        let asked = match (single, first, last) {
            (false, Some(first), Some(last)) => Asked::Batch { first, last },
            _ => Asked::Single,
        };
        let reply = Reply {
            status,
            retry_after: retry_after.as_deref(),
            location: None,
            body: body.as_bytes(),
        };
        let outcome = classify(asked, &reply, SystemTime::UNIX_EPOCH);
        let latency = self.latency();
        self.after(latency, Due::Dated(known));
        self.answer_after(
            latency,
            Event::Answer { attempt, result: Answered::Got { sent, outcome } },
        );
        Ok(())
    }

    fn judge_heartbeat(
        &mut self,
        monitor: usize,
        sent: &[u64],
        single: bool,
        proved: &Proved,
    ) -> Checked<(u16, String)> {
        let now = self.now;
        let there = &mut self.monitors[monitor];
        if self.settings.proved && proved.key != there.key {
            // It says so in the words for a bad sample, so one or two may be set aside (and kept)
            // before the new key is there.
            for seq in sent {
                self.refused.insert(*seq);
            }
            return Ok((400, String::new()));
        }
        if !there.accepts_heartbeat(proved, now) {
            return Ok((401, String::new()));
        }
        if single {
            let mut status = 200;
            for seq in sent {
                if self.refuses(monitor, *seq) {
                    self.refused.insert(*seq);
                    return Ok((422, String::new()));
                }
                if self.stored.contains(*seq) {
                    status = 409;
                }
                self.store(monitor, *seq, false)?;
            }
            let body = if status == 409 { r#"{"duplicate":true}"# } else { r#"{"ok":true}"# };
            return Ok((status, body.to_owned()));
        }
        if !self.monitors[monitor].capabilities.batch {
            for seq in sent {
                self.refused.insert(*seq);
            }
            return Ok((422, String::new()));
        }
        // Some Monitors name the refused, others refuse the whole.
        let names = self.scenario.names_refused;
        // And some stop in the middle.
        let stop = if self.accident(100) { self.dice.below(sent.len() as u64) } else { u64::MAX };
        let mut acked = sent.first().map_or(0, |first| first - 1);
        let mut rejected = Vec::new();
        let bad: Vec<bool> = sent.iter().map(|seq| self.refuses(monitor, *seq)).collect();
        if !names && bad.contains(&true) {
            return Ok((422, String::new()));
        }
        for (i, (seq, bad)) in sent.iter().zip(bad).enumerate() {
            if i as u64 > stop {
                break;
            }
            acked = *seq;
            if bad {
                rejected.push(format!(r#"{{"seq":{seq},"error":"no"}}"#));
            } else {
                self.store(monitor, *seq, false)?;
            }
        }
        let rejected = rejected.join(",");
        Ok((200, format!(r#"{{"ok":true,"acked_seq":{acked},"rejected":[{rejected}]}}"#)))
    }
}
