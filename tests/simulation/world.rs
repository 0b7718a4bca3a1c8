//! One server's life in virtual time: the real machine, a model driver around it, and everything
//! it deals with. What is due stands in one heap, ordered by time; there is no other clock.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use harborforge_connector::sender::machine::{Command, Event, Machine, Now, Proof, Settings};

use super::dice::Dice;
use super::due::{Due, Entry};
use super::monitor::{Monitor, Proved, Shown};
use super::queue::{Numbers, Queue};
use super::rules::Rules;
use super::saboteur::{Bug, Saboteur};
use super::scenario::{Scenario, Turn};
use super::summary::Summary;
use super::wire::Link;

/// What a broken invariant looks like.
pub type Broken = String;
pub type Checked<T = ()> = Result<T, Broken>;

/// What the process knows of the Monitor besides the machine; lost at a restart.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Counts the changes of credentials and endpoint.
    pub instance: u32,
    pub key: Option<u64>,
    pub skew: i64,
}

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    Well,
    /// Packets vanish.
    Dark,
}

pub struct World {
    pub scenario: Scenario,
    pub dice: Dice,
    pub now: Duration,
    heap: BinaryHeap<Reverse<Entry>>,
    order: u64,
    pub brain: Option<Saboteur>,
    bug: Option<Bug>,
    /// Which process this is, counted from its starts.
    pub run: u32,
    pub born: Duration,
    wake: Option<Duration>,
    view_due: bool,
    /// When a Monitor last changed its key.
    pub rekeyed: Option<Duration>,
    /// The process that was told to stop.
    pub stopping: Option<u32>,
    pub settings: Settings,
    pub net: Net,
    pub calm: bool,
    /// The disk has refused the last confirmation, when this was the next number.
    pub disk_refused: Option<u64>,
    /// Seconds by which the host's clock is ahead of the Monitor's.
    pub clock_error: i64,
    pub known: Known,
    pub monitors: [Monitor; 2],
    pub monitor: usize,
    pub links: Vec<Link>,
    /// Index of the link the process holds.
    pub held: Option<usize>,
    pub rules: Rules,
    // What is durable:
    pub queue: Queue,
    pub stored: Numbers,
    /// What the Monitor has refused at least once.
    pub refused: Numbers,
    /// What was sent as a probe.
    pub probed: Numbers,
    pub token: Option<u64>,
    pub challenge: u64,
    pub remembered: Option<u64>,
    /// What it came to.
    pub summary: Summary,
    trace: Option<VecDeque<String>>,
}

impl World {
    pub fn new(scenario: Scenario, bug: Option<Bug>, trace: bool) -> Self {
        let mut monitors =
            [Monitor::new(scenario.capabilities, 1), Monitor::new(scenario.other, 2)];
        let [first, _] = &mut monitors;
        first.issue(1, Duration::ZERO);
        let settings = scenario.settings;
        let mut world = Self {
            dice: Dice::new(scenario.seed),
            now: Duration::ZERO,
            heap: BinaryHeap::new(),
            order: 0,
            brain: None,
            bug,
            run: 0,
            born: Duration::ZERO,
            wake: None,
            view_due: false,
            rekeyed: None,
            stopping: None,
            settings,
            net: Net::Well,
            calm: false,
            disk_refused: None,
            clock_error: 0,
            known: Known { instance: 0, key: None, skew: 0 },
            monitors,
            monitor: 0,
            links: Vec::new(),
            held: None,
            rules: Rules::new(settings),
            queue: Queue::new(scenario.largest),
            stored: Numbers::default(),
            refused: Numbers::default(),
            probed: Numbers::default(),
            token: None,
            challenge: 1,
            remembered: None,
            summary: Summary::default(),
            trace: trace.then(VecDeque::new),
            scenario,
        };
        world.push(Duration::ZERO, Due::Turn(Turn::Start));
        world.push(Duration::ZERO, Due::Sample);
        world.schedule_turns();
        world
    }

    /// Runs it to its end.
    pub fn run(&mut self) -> Checked<Summary> {
        while let Some(at) = self.next_at() {
            if at > self.scenario.length {
                break;
            }
            self.now = at;
            self.summary.events += 1;
            let result = if self.wake.is_some_and(|wake| wake <= at) {
                self.wake = None;
                self.tell(Event::Tick)
            } else {
                match self.heap.pop() {
                    Some(Reverse(entry)) => self.happen(entry.due),
                    None => break,
                }
            };
            result.map_err(|broken| self.report(&broken))?;
        }
        Ok(self.summary.clone())
    }

    fn next_at(&self) -> Option<Duration> {
        let due = self.heap.peek().map(|Reverse(entry)| entry.at);
        match (due, self.wake) {
            (Some(due), Some(wake)) => Some(due.min(wake).max(self.now)),
            (due, wake) => due.or(wake).map(|at| at.max(self.now)),
        }
    }

    pub fn push(&mut self, at: Duration, due: Due) {
        self.order += 1;
        self.heap.push(Reverse(Entry { at: at.max(self.now), order: self.order, due }));
    }

    pub fn after(&mut self, wait: Duration, due: Due) {
        self.push(self.now + wait, due);
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() >= 120 {
                trace.pop_front();
            }
            trace.push_back(format!("{:>13.3} {}", self.now.as_secs_f64(), what()));
        }
    }

    fn report(&self, broken: &str) -> Broken {
        let mut text =
            format!("at {:.3} s: {broken}\n{:?}\n", self.now.as_secs_f64(), self.settings);
        for line in self.trace.iter().flatten() {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    pub fn mono(&self) -> Duration {
        self.now - self.born
    }

    fn wall(&self) -> SystemTime {
        let base = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.now;
        let error = Duration::from_secs(self.clock_error.unsigned_abs());
        if self.clock_error < 0 { base - error } else { base + error }
    }

    /// One-way latency, as it is now.
    pub fn latency(&mut self) -> Duration {
        let most = if self.calm { Duration::from_millis(20) } else { self.scenario.latency };
        self.dice.between(most / 4, most)
    }

    /// Whether an accident of these many in a thousand happens; never when all is well.
    pub fn accident(&mut self, permille: u64) -> bool {
        !self.calm && self.dice.permille(permille)
    }

    /// Gives the machine an event and carries out what it says.
    pub fn tell(&mut self, event: Event) -> Checked {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = Now { mono: self.mono(), wall: self.wall() };
            let seed = self.dice.roll();
            if self.trace.is_some() {
                self.note(|| format!("  > {event:?}"));
            }
            if let Event::Handshake { link, result } = &event {
                self.handshake_told(*link, result);
            }
            self.rules.event(self.now, &event)?;
            let Some(brain) = &mut self.brain else { return Ok(()) };
            let commands = brain.handle(now, event, seed);
            self.wake = None;
            self.rules.judge(self.now, &commands)?;
            for command in commands {
                if self.trace.is_some() {
                    self.note(|| format!("  < {command:?}"));
                }
                if self.scenario.crashes && self.accident(1) && self.dice.permille(200) {
                    return self.crash();
                }
                self.carry_out(command, &mut events)?;
                if self.brain.is_none() {
                    return Ok(());
                }
            }
            let accepted = self.held.is_some_and(|held| self.links[held].accepted);
            self.rules.settled(self.now, &self.queue, accepted)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, command: Command, events: &mut VecDeque<Event>) -> Checked {
        match command {
            Command::WakeAt(at) => {
                let at = self.born + at;
                self.rules.wakes(self.now, at)?;
                self.wake = Some(at);
            }
            Command::FetchKey { attempt } => self.fetch_key(attempt),
            Command::Post { attempt, selection, proof } => self.post(attempt, selection, proof)?,
            Command::Connect { link, proof } => self.connect(link, proof, events)?,
            Command::SaveToken { link } => return self.save_token(link, events),
            Command::Hello { link } => self.hello(link)?,
            Command::Send { link, from, records, bytes } => {
                self.send(link, from, records, bytes)?;
            }
            Command::Ping { link, payload } => self.ping(link, payload)?,
            Command::CloseLink { link } => self.close_link(link),
            Command::Acknowledge { up_to, .. } => self.acknowledge(up_to)?,
            Command::Reject { seq, .. } => {
                if !self.refused.contains(seq) {
                    return Err(format!(
                        "{seq} is moved to the rejected, and no Monitor refused it"
                    ));
                }
                self.summary.rejected += 1;
                self.queue.reject(seq);
                self.look();
            }
            Command::Report(report) => self.rules.report(self.now, &report, &mut self.summary)?,
            Command::Finished => {
                self.brain = None;
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, up_to: u64) -> Checked {
        if up_to >= self.queue.next() {
            return Err(format!("{up_to} is acknowledged, and was never appended"));
        }
        for seq in self.queue.head()..=up_to {
            if !self.stored.contains(seq) && !self.queue.is_rejected(seq) {
                return Err(format!("{up_to} is acknowledged, and no Monitor has stored {seq}"));
            }
        }
        // A disk that refuses is tried again with the next confirmation.
        self.disk_refused = self.accident(2).then(|| self.queue.next());
        if self.disk_refused.is_none() {
            self.queue.acknowledge(up_to);
        }
        self.look();
        Ok(())
    }

    /// The queue has changed: the driver will see it.
    pub fn look(&mut self) {
        if !std::mem::replace(&mut self.view_due, true) {
            let wait = if self.scenario.slow_views {
                self.dice.up_to(Duration::from_millis(50))
            } else {
                Duration::ZERO
            };
            self.after(wait, Due::View);
        }
    }

    fn happen(&mut self, due: Due) -> Checked {
        match due {
            Due::Machine(run, event) => {
                if run == self.run {
                    self.tell(event)?;
                }
            }
            Due::View => {
                self.view_due = false;
                self.tell(Event::Queue(self.queue.view()))?;
            }
            Due::Sample => {
                self.after(self.settings.report_interval, Due::Sample);
                if self.brain.is_some() {
                    let sync = self.dice.up_to(Duration::from_millis(20));
                    self.after(sync, Due::Durable(self.run));
                    if self.bug == Some(Bug::SendsBeforeDurable) {
                        let mut view = self.queue.view();
                        view.next += 1;
                        self.tell(Event::Queue(view))?;
                    }
                }
            }
            Due::Durable(run) => {
                if run == self.run {
                    self.queue.append(self.now);
                    self.summary.samples += 1;
                    self.look();
                }
            }
            Due::KeyAsked { run, known, monitor, attempt } => {
                self.key_asked(run, known, monitor, attempt);
            }
            Due::KeyCame { run, known, key, capabilities, attempt } => {
                if run == self.run {
                    let event = self.key_came(known, key, capabilities, attempt);
                    self.tell(event)?;
                }
            }
            Due::PostRead { run, post } => {
                if run == self.run {
                    self.post_read(post)?;
                }
            }
            Due::Posted { run, known, monitor, attempt, sent, single, proved } => {
                self.posted(run, known, monitor, attempt, sent, single, &proved)?;
            }
            Due::Dated(known) => self.dated(known),
            Due::Knock { link, proved } => self.knock(link, &proved),
            Due::Read { link, from, records, bytes } => self.read(link, from, records, bytes)?,
            Due::PingWritten { link, payload } => self.ping_written(link, payload),
            Due::Up(link, up) => self.up(link, up)?,
            Due::Deal(link, samples) => self.deal(link, &samples)?,
            Due::Down(link, event) => self.down(link, event)?,
            Due::Turn(turn) => self.turn(turn)?,
        }
        Ok(())
    }

    /// The end of what may be read: what is durable.
    pub fn readable(&self) -> u64 {
        let early = u64::from(self.bug == Some(Bug::SendsBeforeDurable));
        self.queue.next() + early
    }

    pub fn start(&mut self) -> Checked {
        self.run += 1;
        self.born = self.now;
        self.known = Known { instance: self.known.instance + 1, key: None, skew: 0 };
        self.rules.restarted(self.now, self.settings);
        let machine = Machine::new(self.settings, self.token.is_some());
        self.brain = Some(Saboteur::new(machine, self.bug));
        self.tell(Event::Queue(self.queue.view()))
    }

    /// The process dies where it stands: what is not durable is gone.
    pub fn crash(&mut self) -> Checked {
        self.note(|| "killed".into());
        self.gone();
        let downtime = self.dice.between(Duration::from_secs(1), Duration::from_secs(600));
        self.after(downtime, Due::Turn(Turn::Start));
        Ok(())
    }

    /// The process is gone, however it ended.
    pub fn gone(&mut self) {
        self.brain = None;
        self.run += 1;
        self.wake = None;
        if let Some(held) = self.held.take() {
            self.hang_up(held);
        }
        self.summary.restarts += 1;
    }

    /// What a proof made now shows.
    pub fn prove(&self, proof: Proof) -> Option<Proved> {
        if !self.settings.proved {
            return Some(Proved { shown: Shown::ApiKey(self.challenge), key: 0, off_by: 0 });
        }
        let shown = match (proof, self.token) {
            (Proof::Token, Some(token)) => Shown::Token(token),
            (Proof::Challenge | Proof::Token, _) => Shown::Challenge(self.challenge),
        };
        let corrected = if self.known.skew.abs() > 5 { self.known.skew } else { 0 };
        Some(Proved { shown, key: self.known.key?, off_by: self.clock_error - corrected })
    }

    /// A Monitor stores a sample.
    pub fn store(&mut self, monitor: usize, seq: u64, by_link: bool) -> Checked {
        if seq >= self.queue.next() {
            return Err(format!("{seq} was sent before it was durable"));
        }
        if self.stored.insert(seq) {
            if by_link {
                self.summary.by_link += 1;
            } else {
                self.summary.by_heartbeat += 1;
            }
            let exempt = self.probed.contains(seq) || self.refused.contains(seq);
            self.rules.first_stored(monitor, seq, exempt)?;
        }
        Ok(())
    }

    /// The first sample from `from` on, before `to`, that no Monitor has.
    pub fn owed(&self, from: u64, to: u64) -> Option<u64> {
        (from..to).find(|seq| self.queue.is_pending(*seq) && !self.stored.contains(*seq))
    }

    /// Whether the Monitor refuses this sample, for what it is or whatever it is.
    pub fn refuses(&mut self, monitor: usize, seq: u64) -> bool {
        let poison = self.scenario.poison;
        let refuses = self.monitors[monitor].mood == super::monitor::Mood::RefusesSamples
            || (!self.calm
                && poison > 0
                && harborforge_connector::jitter::spread(seq) % poison == 1);
        if refuses {
            self.refused.insert(seq);
        }
        refuses
    }
}
