//! The WebSocket: the driver's end, the Monitor's end, and the network between them, in order
//! both ways as TCP has it.

use std::collections::VecDeque;
use std::time::Duration;

use harborforge_connector::protocol::{CONNECT_DEADLINE, HANDSHAKE_DEADLINE};
use harborforge_connector::sender::machine::{
    Attempt, Event, FailureKind, Handshake, LinkEvent, Proof,
};

use super::due::Due;
use super::http::failure;
use super::monitor::{Mood, Proved};
use super::world::{Checked, Net, World};

const BYTES_IN_FLIGHT: usize = 1024 * 1024;
const SAMPLES_IN_FLIGHT: usize = 512;
/// A Monitor deals with what it has read within this (docs/PROTOCOL.md 4 allows 5 s).
const DEALS_WITHIN: Duration = Duration::from_secs(4);

/// What goes from us to the Monitor.
#[derive(Debug)]
pub enum Up {
    Samples(Vec<u64>),
    Ping([u8; 8]),
    Closed,
}

/// Where a link is going to break, if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    None,
    /// The Monitor accepts, and that is lost.
    AcceptanceLost,
    /// Cut while the token is being saved.
    Saving,
    /// Cut after some of the samples of a part, or all, were written.
    Writing,
    /// Cut when the Monitor has dealt with samples and says so.
    AckLost,
    /// The other end, or all between, is silently gone at a first Ping.
    HalfOpenAtPing,
    /// The same while samples are being written, which then never ends.
    HalfOpenWriting,
}

pub struct Link {
    pub name: Attempt,
    run: u32,
    monitor: usize,
    proof: Proof,
    fate: Fate,
    /// The token that came with the acceptance, and whether it was saved.
    token: Option<u64>,
    saved: bool,
    /// Confirms by number.
    ack: bool,
    /// We hold it.
    ours: bool,
    /// The machine was told that it is accepted.
    pub accepted: bool,
    greeted: bool,
    /// The Monitor holds it.
    theirs: bool,
    /// The process of the Monitor that accepted it.
    process: u32,
    /// Whatever is sent either way vanishes.
    silent: bool,
    stuck: bool,
    writer_free: Duration,
    up_last: Duration,
    down_last: Duration,
    dealt_last: Duration,
    /// The first number sent and the one after the last.
    sent: Option<(u64, u64)>,
    /// What is in flight as we can tell: number, size, place.
    flying: VecDeque<(u64, usize, u64)>,
    places: u64,
    pings: VecDeque<([u8; 8], u64)>,
}

impl Link {
    fn alive(&self) -> bool {
        self.ours && !self.silent
    }
}

impl World {
    pub fn connect(
        &mut self,
        name: Attempt,
        proof: Proof,
        events: &mut VecDeque<Event>,
    ) -> Checked {
        self.rules.connects(self.now, proof, self.held.is_some())?;
        let fates = [
            Fate::AcceptanceLost,
            Fate::Saving,
            Fate::Writing,
            Fate::AckLost,
            Fate::HalfOpenAtPing,
            Fate::HalfOpenWriting,
        ];
        let fate = if self.accident(self.scenario.broken_links) {
            self.dice.pick(&fates)
        } else {
            Fate::None
        };
        self.links.push(Link {
            name,
            run: self.run,
            monitor: self.monitor,
            proof,
            fate,
            token: None,
            saved: false,
            ack: false,
            ours: true,
            accepted: false,
            greeted: false,
            theirs: false,
            process: 0,
            silent: false,
            stuck: false,
            writer_free: self.now,
            up_last: self.now,
            down_last: self.now,
            dealt_last: self.now,
            sent: None,
            flying: VecDeque::new(),
            places: 0,
            pings: VecDeque::new(),
        });
        let link = self.links.len() - 1;
        self.held = Some(link);
        if self.net == Net::Dark || self.accident(self.scenario.faults) {
            self.no_handshake(link, CONNECT_DEADLINE, FailureKind::Unreachable);
            return Ok(());
        }
        let Some(proved) = self.prove(proof) else {
            self.held = None;
            self.links[link].ours = false;
            let result = Handshake::Broken(failure(FailureKind::Local, "no key"));
            events.push_back(Event::Handshake { link: name, result });
            return Ok(());
        };
        // Three round trips: TCP, the upgrade, the proof.
        let wait = self.latency() * 5;
        self.after(wait, Due::Knock { link, proved });
        Ok(())
    }

    fn no_handshake(&mut self, link: usize, wait: Duration, kind: FailureKind) {
        self.handshake_ends(link, wait, Handshake::Broken(failure(kind, "no handshake")));
    }

    /// The end of a handshake reaches us, if we still wait for it.
    fn handshake_ends(&mut self, link: usize, wait: Duration, result: Handshake) {
        let (run, name) = (self.links[link].run, self.links[link].name);
        self.after(wait, Due::Machine(run, Event::Handshake { link: name, result }));
    }

    pub fn knock(&mut self, link: usize, proved: &Proved) {
        let latency = self.latency();
        let monitor = self.links[link].monitor;
        let result = match self.monitors[monitor].mood {
            Mood::Gone => return self.no_handshake(link, latency, FailureKind::Unreachable),
            Mood::Hangs => {
                return self.no_handshake(link, HANDSHAKE_DEADLINE, FailureKind::Unreachable);
            }
            Mood::Fails | Mood::Portal => {
                return self.no_handshake(link, latency, FailureKind::Answer);
            }
            Mood::Busy(seconds) => {
                Handshake::Busy((seconds > 0).then_some(Duration::from_secs(seconds)), "503".into())
            }
            Mood::Disowns => Handshake::Refused("403".into()),
            Mood::Well | Mood::RefusesSamples | Mood::Mute | Mood::Lies => {
                let now = self.now;
                match self.monitors[monitor].accepts_link(proved, now) {
                    None => Handshake::Refused("who are you?".into()),
                    Some(token) => {
                        let ack = self.monitors[monitor].capabilities.ack;
                        let process = self.monitors[monitor].process;
                        let link = &mut self.links[link];
                        (link.token, link.theirs, link.ack) = (token, true, ack);
                        link.process = process;
                        if link.fate == Fate::AcceptanceLost {
                            link.silent = true;
                            Handshake::Broken(failure(FailureKind::Unreachable, "silence"))
                        } else {
                            Handshake::Accepted { token: token.is_some() }
                        }
                    }
                }
            }
        };
        let wait = if self.links[link].fate == Fate::AcceptanceLost {
            HANDSHAKE_DEADLINE
        } else {
            latency
        };
        let down = &mut self.links[link].down_last;
        *down = self.now + wait;
        self.handshake_ends(link, wait, result);
    }

    /// A handshake's end is about to be told: what the driver does on its side.
    pub fn handshake_told(&mut self, name: Attempt, result: &Handshake) {
        let Some(link) = self.held.filter(|held| self.links[*held].name == name) else { return };
        self.known.skew = self.clock_error;
        match result {
            Handshake::Accepted { .. } => {
                self.links[link].accepted = true;
                self.summary.links += 1;
                self.rules.accepted();
            }
            Handshake::Refused(_) => {
                self.summary.refused_links += 1;
                self.rules.refused(self.now, self.links[link].proof);
                self.hang_up(link);
            }
            Handshake::Busy(..) | Handshake::Broken(_) => self.hang_up(link),
        }
    }

    pub fn save_token(&mut self, name: Attempt, events: &mut VecDeque<Event>) -> Checked {
        let Some(held) = self.holds(name) else { return Ok(()) };
        let Some(token) = self.links[held].token else {
            return Err("a token is to be saved, and none came".into());
        };
        let saved = !self.accident(20);
        if saved {
            self.token = Some(token);
            self.links[held].saved = true;
        }
        if self.links[held].fate == Fate::Saving {
            self.cut(held);
        }
        events.push_back(Event::TokenSaved { link: name, saved });
        Ok(())
    }

    fn holds(&self, name: Attempt) -> Option<usize> {
        self.held.filter(|held| self.links[*held].name == name)
    }

    pub fn hello(&mut self, name: Attempt) -> Checked {
        let Some(held) = self.holds(name) else { return Err("hello on no link".into()) };
        let link = &mut self.links[held];
        if link.token.is_some() && !link.saved {
            return Err("something is sent before the token is durable".into());
        }
        link.greeted = true;
        Ok(())
    }

    pub fn send(&mut self, name: Attempt, from: u64, records: usize, bytes: usize) -> Checked {
        let Some(held) = self.holds(name) else { return Err("samples on no link".into()) };
        if !self.links[held].greeted {
            return Err("samples before server.hello".into());
        }
        let wait = self.dice.up_to(Duration::from_millis(5));
        let link = &mut self.links[held];
        link.writer_free = link.writer_free.max(self.now) + wait;
        let at = link.writer_free;
        if !link.stuck {
            self.push(at, Due::Read { link: held, from, records, bytes });
        }
        Ok(())
    }

    pub fn read(&mut self, at: usize, from: u64, records: usize, bytes: usize) -> Checked {
        if !self.links[at].ours {
            return Ok(());
        }
        let name = self.links[at].name;
        let items = self.queue.read(from, self.readable(), records, bytes);
        let (Some(&(first, size)), Some(&(last, _))) = (items.first(), items.last()) else {
            let event = LinkEvent::Written { nothing: true };
            self.push(self.now, Due::Down(at, event));
            return Ok(());
        };
        self.in_order(at, first, items.len())?;
        let link = &mut self.links[at];
        link.sent = Some((link.sent.map_or(first, |(from, _)| from), last + 1));
        for (seq, size) in &items {
            link.places += 1;
            link.flying.push_back((*seq, *size, link.places));
        }
        let sum: usize = link.flying.iter().map(|sample| sample.1).sum();
        if link.flying.len() > SAMPLES_IN_FLIGHT || sum > BYTES_IN_FLIGHT + size.max(65536) {
            let samples = link.flying.len();
            return Err(format!("{samples} samples, {sum} bytes are in flight"));
        }
        let mut samples: Vec<u64> = items.iter().map(|item| item.0).collect();
        let writing = matches!(link.fate, Fate::Writing | Fate::HalfOpenWriting);
        let breaks = writing && self.dice.permille(300);
        if breaks {
            let half = self.dice.below(samples.len() as u64 + 1) as usize;
            samples.truncate(half);
        }
        self.tell(Event::Link { link: name, event: LinkEvent::Sending(items) })?;
        self.transmit(at, Up::Samples(samples));
        let latency = self.latency();
        let link = &mut self.links[at];
        if breaks && link.fate == Fate::HalfOpenWriting {
            (link.silent, link.stuck) = (true, true);
            return Ok(());
        }
        if breaks {
            self.cut(at);
            return Ok(());
        }
        link.writer_free = self.now + latency / 2;
        let done = link.writer_free;
        self.push(done, Due::Down(at, LinkEvent::Written { nothing: false }));
        Ok(())
    }

    /// Samples go oldest first: no pending one is passed over on this link.
    fn in_order(&mut self, link: usize, first: u64, samples: usize) -> Checked {
        if self.rules.probing() {
            self.probed.insert(first);
            return if samples == 1 { Ok(()) } else { Err("a probe of many samples".into()) };
        }
        let head = self.queue.head();
        // What this link has carried may still be pending, and so may what came before it and is
        // delivered, if the disk refused the confirmation.
        let (from, next) = self.links[link].sent.unwrap_or((head, head));
        let older = self.owed(head, from.min(first));
        match older.or_else(|| self.owed(head.max(next), first)) {
            Some(older) => Err(format!("the link carries {first}, and {older} is older")),
            None => Ok(()),
        }
    }

    pub fn ping(&mut self, name: Attempt, payload: [u8; 8]) -> Checked {
        let Some(held) = self.holds(name) else { return Err("a Ping on no link".into()) };
        let link = &self.links[held];
        if !link.stuck {
            let at = link.writer_free.max(self.now);
            self.push(at, Due::PingWritten { link: held, payload });
        }
        Ok(())
    }

    pub fn ping_written(&mut self, at: usize, payload: [u8; 8]) {
        let link = &mut self.links[at];
        if link.fate == Fate::HalfOpenAtPing && self.dice.permille(300) {
            link.silent = true;
        }
        link.pings.push_back((payload, link.places));
        self.transmit(at, Up::Ping(payload));
    }

    pub fn close_link(&mut self, name: Attempt) {
        if let Some(held) = self.holds(name) {
            self.rules.link_gone(self.now, self.links[held].accepted);
            self.hang_up(held);
        }
    }

    /// We let go of a link; the Monitor hears of it, if it can.
    pub fn hang_up(&mut self, at: usize) {
        self.transmit(at, Up::Closed);
        let link = &mut self.links[at];
        (link.ours, link.accepted) = (false, false);
        self.held = self.held.filter(|held| *held != at);
    }

    /// What was to break the links does not come about any more; what has broken stays broken.
    pub fn spare_links(&mut self) {
        for link in &mut self.links {
            link.fate = Fate::None;
        }
    }

    /// The connection breaks, and we notice.
    pub fn cut(&mut self, at: usize) {
        let wait = self.latency();
        self.links[at].theirs = false;
        self.transmit_down(at, wait, LinkEvent::Lost("cut".into()));
    }

    /// The held link goes silent without a word.
    pub fn silence(&mut self) {
        if let Some(held) = self.held {
            self.links[held].silent = true;
        }
    }

    fn transmit(&mut self, at: usize, up: Up) {
        let latency = self.latency();
        let dark = self.net == Net::Dark;
        let link = &mut self.links[at];
        link.silent |= dark;
        if link.silent || !link.ours {
            return;
        }
        link.up_last = link.up_last.max(self.now + latency);
        let arrival = link.up_last;
        self.push(arrival, Due::Up(at, up));
    }

    fn transmit_down(&mut self, at: usize, wait: Duration, event: LinkEvent) {
        let dark = self.net == Net::Dark;
        let link = &mut self.links[at];
        link.silent |= dark;
        if link.silent {
            return;
        }
        link.down_last = link.down_last.max(self.now + wait);
        let arrival = link.down_last;
        self.push(arrival, Due::Down(at, event));
    }

    /// Something reaches the Monitor.
    pub fn up(&mut self, at: usize, up: Up) -> Checked {
        let monitor = self.links[at].monitor;
        let mood = self.monitors[monitor].mood;
        let gone = self.links[at].process != self.monitors[monitor].process;
        if mood == Mood::Hangs {
            // It never comes back to what it left unread.
            (self.links[at].theirs, self.links[at].silent) = (false, true);
        }
        if gone || !self.links[at].theirs {
            return Ok(());
        }
        match up {
            Up::Closed => self.links[at].theirs = false,
            Up::Ping(payload) => {
                if mood != Mood::Mute || self.dice.permille(500) {
                    let latency = self.latency();
                    self.transmit_down(at, latency, LinkEvent::Pong(payload));
                }
            }
            Up::Samples(samples) => {
                let killer = self.scenario.killers;
                if let Some(stop) = samples.iter().position(|seq| {
                    killer > 0 && harborforge_connector::jitter::spread(*seq) % killer == 3
                }) && !self.calm
                {
                    // Something in it kills the connection; what stands before it is read.
                    self.take(at, samples[..stop].to_vec())?;
                    self.cut(at);
                    return Ok(());
                }
                return self.take(at, samples);
            }
        }
        Ok(())
    }

    /// The Monitor has read samples: it deals with them at once, or in a while.
    fn take(&mut self, at: usize, samples: Vec<u64>) -> Checked {
        if self.links[at].ack {
            return self.deal(at, &samples);
        }
        let deal = self.now + self.dice.up_to(DEALS_WITHIN);
        let link = &mut self.links[at];
        link.dealt_last = link.dealt_last.max(deal);
        let when = link.dealt_last;
        self.push(when, Due::Deal(at, samples));
        Ok(())
    }

    /// The Monitor deals with samples, and says what there is to say.
    pub fn deal(&mut self, at: usize, samples: &[u64]) -> Checked {
        let (monitor, ack, fate) =
            (self.links[at].monitor, self.links[at].ack, self.links[at].fate);
        let mood = self.monitors[monitor].mood;
        let gone = self.links[at].process != self.monitors[monitor].process;
        if gone || (ack && !self.links[at].theirs) {
            return Ok(());
        }
        let latency = self.latency();
        let late =
            if self.accident(50) { self.dice.up_to(Duration::from_secs(20)) } else { latency };
        let mut acked = None;
        let mut said = false;
        for &seq in samples {
            if self.refuses(monitor, seq) {
                if ack {
                    self.transmit_down(at, late, LinkEvent::Reject(seq, "no".into()));
                } else if !std::mem::replace(&mut said, true) || self.dice.permille(500) {
                    self.transmit_down(at, latency, LinkEvent::NotOk("no".into()));
                }
            } else {
                self.store(monitor, seq, true)?;
                acked = Some(seq);
            }
        }
        let lie = u64::from(mood == Mood::Lies) * 600;
        if fate == Fate::AckLost && self.dice.permille(200) {
            self.cut(at);
        } else if let Some(seq) = acked.filter(|_| ack && mood != Mood::Mute) {
            self.transmit_down(at, late, LinkEvent::Ack(seq + lie));
            if self.accident(20) {
                self.transmit_down(at, late * 2, LinkEvent::Ack(seq + lie));
            }
        }
        Ok(())
    }

    /// Something reaches us.
    pub fn down(&mut self, at: usize, event: LinkEvent) -> Checked {
        let local = matches!(event, LinkEvent::Written { .. });
        let link = &mut self.links[at];
        if link.run != self.run || !(link.alive() || local && link.ours) {
            return Ok(());
        }
        match &event {
            LinkEvent::Ack(acked) => {
                while link.flying.pop_front_if(|sample| sample.0 <= *acked).is_some() {}
            }
            LinkEvent::Reject(seq, _) => link.flying.retain(|sample| sample.0 != *seq),
            LinkEvent::Pong(payload) => {
                while let Some((ping, covers)) = link.pings.pop_front() {
                    while link.flying.pop_front_if(|sample| sample.2 <= covers).is_some() {}
                    if ping == *payload {
                        break;
                    }
                }
            }
            // Everything is called back.
            LinkEvent::NotOk(_) if !link.ack => link.flying.clear(),
            LinkEvent::NotOk(_)
            | LinkEvent::Frame
            | LinkEvent::Sending(_)
            | LinkEvent::Written { .. }
            | LinkEvent::Lost(_)
            | LinkEvent::Refused(_) => {}
        }
        let name = link.name;
        self.tell(Event::Link { link: name, event })
    }
}
