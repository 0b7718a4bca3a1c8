//! What befalls a run: drawn from its seed before it starts, as storms, in which anything may
//! happen, and calms, at whose end everything that waited must be delivered.

use std::time::Duration;

use harborforge_connector::protocol::Capabilities;
use harborforge_connector::sender::machine::{Event, Settings, Transports};

use super::dice::Dice;
use super::due::Due;
use super::monitor::Mood;
use super::world::{Checked, Net, World};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// How long all has been well before the queue has to be empty.
const WELL: Duration = Duration::from_secs(600);

#[derive(Debug, Clone)]
pub struct Scenario {
    pub seed: u64,
    pub length: Duration,
    pub settings: Settings,
    /// What the Monitor offers, and the other one.
    pub capabilities: Capabilities,
    pub other: Capabilities,
    /// Largest one-way latency in a storm.
    pub latency: Duration,
    /// Largest sample.
    pub largest: usize,
    /// One sample in so many is refused for what it is; 0: none.
    pub poison: u64,
    /// One in so many kills the link it comes over; 0: none.
    pub killers: u64,
    /// Requests and answers lost, in a thousand.
    pub faults: u64,
    /// Links with a flaw, in a thousand.
    pub broken_links: u64,
    pub crashes: bool,
    /// The driver sees changes of the queue late.
    pub slow_views: bool,
    /// A batch's answer names the samples it refuses.
    pub names_refused: bool,
    /// Nothing happens but this, for tests of one thing.
    pub script: Option<Vec<(Duration, Turn)>>,
}

/// A change of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The process starts.
    Start,
    /// Anything may happen now.
    Storm,
    /// One of the things that may happen.
    Accident,
    /// All is well from now on.
    Calm,
    /// Everything that waited must be delivered.
    Verdict,
    Mood(Mood),
    /// The process is to stop in order.
    Stop,
    /// It is killed if it has not.
    Stopped,
}

impl Scenario {
    /// A day, a month: whatever the seed says.
    pub fn drawn(seed: u64, length: Duration) -> Self {
        let mut dice = Dice::new(seed);
        let transports = match dice.below(10) {
            0 => Transports::Http,
            1 => Transports::Websocket,
            _ => Transports::Both,
        };
        let proved = transports != Transports::Http || dice.permille(500);
        let mut report_interval = dice.pick(&[1, 10, 30, 30, 30, 30, 30, 60, 60, 300, 300, 3600]);
        if report_interval == 1 && !dice.permille(150) {
            report_interval = 60;
        }
        let settings = Settings {
            proved,
            transports,
            report_interval: SECOND * report_interval,
            fallback_interval: SECOND * dice.pick(&[10, 60, 60, 60, 120, 600]),
            backoff_cap: SECOND * dice.pick(&[1, 30, 300, 300, 300, 600]),
        };
        let capabilities = offered(&mut dice);
        let other = offered(&mut dice);
        let latency = Duration::from_millis(dice.pick(&[5, 50, 50, 200, 1500]));
        Self {
            seed,
            length,
            settings,
            capabilities,
            other,
            latency,
            largest: dice.pick(&[600, 1500, 1500, 64 * 1024]),
            poison: dice.pick(&[0, 0, 20, 200]),
            killers: dice.pick(&[0, 0, 0, 150]),
            faults: dice.pick(&[0, 5, 50, 300]),
            broken_links: dice.pick(&[0, 100, 500, 900]),
            crashes: dice.permille(500),
            slow_views: dice.permille(300),
            names_refused: dice.permille(500),
            script: None,
        }
    }

    /// All is well but for the script.
    pub fn scripted(seed: u64, length: Duration, script: Vec<(Duration, Turn)>) -> Self {
        let settings = Settings {
            proved: true,
            transports: Transports::Both,
            report_interval: SECOND * 30,
            fallback_interval: MINUTE,
            backoff_cap: MINUTE * 5,
        };
        Self {
            seed,
            length,
            settings,
            capabilities: Capabilities { ack: true, resume: true, batch: true },
            other: Capabilities::default(),
            latency: Duration::from_millis(50),
            largest: 600,
            poison: 0,
            killers: 0,
            faults: 0,
            broken_links: 0,
            crashes: false,
            slow_views: false,
            names_refused: true,
            script: Some(script),
        }
    }
}

fn offered(dice: &mut Dice) -> Capabilities {
    Capabilities { ack: dice.permille(600), resume: dice.permille(700), batch: dice.permille(600) }
}

impl World {
    pub fn schedule_turns(&mut self) {
        if self.scenario.slow_views {
            self.rules.lenient_rounds();
        }
        match self.scenario.script.clone() {
            Some(script) => {
                self.calm = true;
                for (at, turn) in script {
                    self.push(at, Due::Turn(turn));
                }
            }
            None => self.push(Duration::ZERO, Due::Turn(Turn::Storm)),
        }
    }

    pub fn turn(&mut self, turn: Turn) -> Checked {
        self.note(|| format!("* {turn:?}"));
        match turn {
            Turn::Start => {
                if self.brain.is_none() {
                    return self.start();
                }
            }
            Turn::Storm => {
                self.calm = false;
                let lasts = self.dice.between(MINUTE * 10, HOUR * 5);
                self.after(lasts, Due::Turn(Turn::Calm));
                self.after(SECOND, Due::Turn(Turn::Accident));
            }
            Turn::Accident if self.calm => {}
            Turn::Accident => {
                let pause = self.dice.pick(&[SECOND * 5, MINUTE, MINUTE * 10, MINUTE * 30]);
                let pause = self.dice.up_to(pause);
                self.after(pause, Due::Turn(Turn::Accident));
                return self.accident_happens();
            }
            Turn::Calm => return self.calm_down(),
            // Another challenge has a sample to go with.
            Turn::Verdict if self.came_too_late() => return self.calm_down(),
            Turn::Verdict => {
                self.verdict()?;
                if self.dice.permille(300) {
                    // A challenge runs out unused, a fallback goes on: some calms are long.
                    let lasts = self.dice.up_to(HOUR * 3);
                    self.after(lasts, Due::Turn(Turn::Storm));
                } else {
                    self.push(self.now, Due::Turn(Turn::Storm));
                }
            }
            Turn::Mood(mood) => self.moody(mood),
            Turn::Stop => {
                if self.brain.is_some() {
                    self.after(SECOND * 5, Due::Turn(Turn::Stopped));
                    self.stopping = Some(self.run);
                    return self.tell(Event::Shutdown);
                }
            }
            Turn::Stopped => {
                if self.stopping.take() == Some(self.run) {
                    self.gone();
                    let downtime = self.dice.between(SECOND, MINUTE);
                    self.after(downtime, Due::Turn(Turn::Start));
                }
            }
        }
        Ok(())
    }

    fn moody(&mut self, mood: Mood) {
        let monitor = self.monitor;
        self.monitors[monitor].mood = mood;
        if mood == Mood::Gone {
            self.monitors[monitor].process += 1;
            if let Some(held) = self.held {
                self.cut(held);
            }
        }
    }

    fn accident_happens(&mut self) -> Checked {
        let monitor = self.monitor;
        match self.dice.below(24) {
            0..=2 => self.net = Net::Dark,
            3..=6 => self.net = Net::Well,
            7..=10 => {
                let moods = [
                    Mood::Gone,
                    Mood::Hangs,
                    Mood::Busy(self.dice.pick(&[0, 1, 30, 100_000])),
                    Mood::Fails,
                    Mood::Disowns,
                    Mood::RefusesSamples,
                    Mood::Mute,
                    Mood::Lies,
                    Mood::Portal,
                ];
                let mood = self.dice.pick(&moods);
                self.moody(mood);
            }
            11..=13 => self.moody(Mood::Well),
            14 => return if self.brain.is_some() { self.crash() } else { Ok(()) },
            15 => return self.turn(Turn::Stop),
            16 => {
                let jump = self.dice.pick(&[3, 100, 3600, 86_400 * 365 * 5]) as i64;
                self.clock_error = if self.dice.permille(500) { jump } else { -jump };
            }
            17 => return self.tell(Event::TryNow),
            18 => {
                let mut settings = self.settings;
                settings.backoff_cap = SECOND * self.dice.pick(&[1, 30, 300]);
                settings.fallback_interval = SECOND * self.dice.pick(&[10, 60, 120]);
                if settings.proved && self.dice.permille(200) {
                    settings.transports = self.dice.pick(&[
                        Transports::Both,
                        Transports::Http,
                        Transports::Websocket,
                        self.scenario.settings.transports,
                    ]);
                }
                self.settings = settings;
                return self.tell(Event::Settings(settings));
            }
            19 => return self.enrol(),
            20 => self.monitors[monitor].forget_tokens(),
            // Rarely enough that between two changes a key can be read.
            21 if self.rekeyed.is_none_or(|at| at + MINUTE * 5 < self.now) => {
                self.rekeyed = Some(self.now);
                self.monitors[monitor].key += 2;
                if self.dice.permille(500) {
                    self.monitors[monitor].capabilities = offered(&mut self.dice);
                }
            }
            22 => {
                if self.dice.permille(300) {
                    return self.move_away();
                }
                self.rules.given_up();
                self.queue.give_up(self.dice.pick(&[1, 10, 1000]));
                self.look();
            }
            _ => {
                if let Some(held) = self.held {
                    if self.dice.permille(500) {
                        self.cut(held);
                    } else {
                        self.silence();
                    }
                }
            }
        }
        Ok(())
    }

    /// The Monitor issues a challenge, and the daemon is told.
    pub fn enrol(&mut self) -> Checked {
        if !self.settings.proved {
            return self.renew_api_key();
        }
        self.challenge += 1;
        let (monitor, now) = (self.monitor, self.now);
        // It takes a while until somebody has typed it in: too long, sometimes.
        let typing = if self.accident(300) { self.dice.up_to(MINUTE * 12) } else { SECOND };
        self.monitors[monitor].issue(self.challenge, now.saturating_sub(typing));
        self.known.instance += 1;
        self.tell(Event::Credentials)
    }

    /// The same in mode `api_key`; sometimes nobody tells the daemon, and the key it has is wrong.
    fn renew_api_key(&mut self) -> Checked {
        let (monitor, now) = (self.monitor, self.now);
        let key = self.monitors[monitor].renew_api_key(now);
        if self.accident(300) {
            return Ok(());
        }
        self.challenge = key;
        self.known.instance += 1;
        self.tell(Event::Credentials)
    }

    /// Another Monitor is configured.
    fn move_away(&mut self) -> Checked {
        if !self.settings.proved {
            return Ok(());
        }
        self.monitor = 1 - self.monitor;
        self.challenge += 1;
        let (monitor, now) = (self.monitor, self.now);
        self.monitors[monitor].issue(self.challenge, now);
        self.token = None;
        self.remembered = None;
        self.known.instance += 1;
        (self.known.key, self.known.skew) = (None, 0);
        self.tell(Event::Endpoint { token: false })
    }

    fn calm_down(&mut self) -> Checked {
        self.calm = true;
        self.net = Net::Well;
        for monitor in &mut self.monitors {
            monitor.mood = Mood::Well;
        }
        self.spare_links();
        let cap = self.settings.backoff_cap;
        // An earlier Retry-After may last one and a half of the cap.
        let mut lasts = WELL.max(cap + cap / 2 + MINUTE * 5);
        if self.brain.is_none() {
            self.turn(Turn::Start)?;
        } else if self.stopping.is_some() {
            lasts += MINUTE * 2;
        }
        let there = &self.monitors[self.monitor];
        let valid = match self.settings.proved {
            true => there.knows(self.challenge, self.token),
            false => there.has_api_key(self.challenge),
        };
        let only_link = self.settings.transports == Transports::Websocket;
        if only_link || !valid || self.dice.permille(200) {
            self.enrol()?;
        }
        self.after(lasts, Due::Turn(Turn::Verdict));
        Ok(())
    }

    /// Heartbeats alone show a challenge with a sample: the first one there was came too late for it.
    fn came_too_late(&self) -> bool {
        let there = &self.monitors[self.monitor];
        self.settings.transports == Transports::Http
            && self.settings.proved
            && !there.knows(self.challenge, self.token)
            && !self.queue.is_empty()
            && self.queue.appended(self.queue.head()).is_some_and(|at| there.ran_out_before(at))
    }

    fn verdict(&mut self) -> Checked {
        self.summary.verdicts += 1;
        // A round of heartbeats is on its way, or a barrier.
        let lag = self.settings.fallback_interval * 2 + SECOND * 90;
        let (head, next) = (self.queue.head(), self.queue.next());
        // What is delivered is confirmed again with the next sample, where the disk refused that.
        let waiting = match self.disk_refused {
            None => Some(head),
            Some(then) => self.owed(head, next).or((then < next).then_some(then.max(head))),
        };
        let since = waiting.and_then(|seq| Some((seq, self.queue.appended(seq)?)));
        match since {
            Some((seq, since)) if since + lag < self.now => Err(format!(
                "all has been well for long, and {seq} still waits since {:.0} s, of {}",
                since.as_secs_f64(),
                next - head
            )),
            Some(_) | None => Ok(()),
        }
    }
}
