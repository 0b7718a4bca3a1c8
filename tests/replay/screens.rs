//! On a terminal: the bar, narrow and wide, with and without colour, Ctrl-C; and the screens in
//! docs/OPERATIONS.md, taken again.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use harborforge_monitor::{Fault, Route};
use harborforge_storage::{NewRecord, Options, Queue, Stamp};

use crate::support::{PATIENCE, Site, batching, monitor, outcome, plain, run, spawn};
use crate::{done, replay};

/// What a terminal has shown.
#[derive(Default)]
struct Terminal {
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// Lines as they stood before they were wiped.
    wiped: Vec<String>,
    colours: usize,
}

impl Terminal {
    /// Follows what was written, as far as progress bars go.
    fn show(text: &str) -> Self {
        let mut screen = Self::default();
        let mut rest = text.chars().peekable();
        while let Some(next) = rest.next() {
            match next {
                '\r' => screen.column = 0,
                '\n' => screen.row += 1,
                '\u{1b}' => {
                    rest.next_if_eq(&'[').unwrap_or_else(|| panic!("not a CSI in {text:?}"));
                    let mut number = String::new();
                    let last = loop {
                        match rest.next().unwrap() {
                            digit @ ('0'..='9' | '?' | ';') => number.push(digit),
                            letter => break letter,
                        }
                    };
                    screen.control(last, number.parse().unwrap_or(1));
                }
                character => screen.put(character),
            }
        }
        screen
    }

    fn line(&mut self) -> &mut Vec<char> {
        if self.lines.len() <= self.row {
            self.lines.resize(self.row + 1, Vec::new());
        }
        &mut self.lines[self.row]
    }

    fn put(&mut self, character: char) {
        let column = self.column;
        let line = self.line();
        line.resize(line.len().max(column + 1), ' ');
        line[column] = character;
        self.column += 1;
    }

    fn control(&mut self, what: char, number: usize) {
        match what {
            'A' => self.row = self.row.saturating_sub(number),
            'B' => self.row += number,
            'K' => {
                let old: String = std::mem::take(self.line()).into_iter().collect();
                if !old.trim().is_empty() {
                    self.wiped.push(old);
                }
            }
            'm' => self.colours += 1,
            'C' | 'D' | 'J' | 'h' | 'l' => {}
            other => panic!("not known: CSI {other}"),
        }
    }

    /// What is left at the end.
    fn left(&self) -> String {
        let lines = self.lines.iter().map(|line| line.iter().collect::<String>());
        lines.map(|line| line.trim_end().to_owned() + "\n").collect::<String>().trim().to_owned()
    }

    /// The most characters a line that was wiped ever had; what stays may wrap.
    fn width(&self) -> usize {
        self.wiped.iter().map(|line| line.chars().count()).max().unwrap_or(0)
    }
}

/// The command behind a terminal of so many columns; `None`, said loudly, where util-linux'
/// script is not there to make one.
fn behind_a_terminal(site: &Site, columns: u16, arguments: &[&str]) -> Option<Command> {
    let inside = replay(site, arguments);
    let words = std::iter::once(inside.get_program()).chain(inside.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let line = format!("stty cols {columns} rows 24; exec {}", words.join(" "));
    if !["/usr/bin/script", "/bin/script"].iter().any(|path| fs::exists(path).unwrap()) {
        eprintln!("SKIPPED: there is no `script` to make a terminal with");
        return None;
    }
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env_clear();
    command.env("PATH", "/usr/bin:/bin").env("TERM", "xterm-256color").env("SHELL", "/bin/sh");
    command.stdin(Stdio::null());
    Some(command)
}

#[test]
fn the_bar_fits_forty_columns_and_honours_no_color() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        for (columns, plain) in [(40, true), (80, false)] {
            site.fill(120);
            let Some(mut command) = behind_a_terminal(&site, columns, &[]) else { return };
            if plain {
                command.env("NO_COLOR", "1");
            }
            let (code, text, _) = outcome(&mut command);
            assert_eq!(code, 0, "{text}");
            let screen = Terminal::show(&text);
            assert!(screen.width() <= usize::from(columns), "{} in {text:?}", screen.width());
            assert_eq!(screen.colours == 0, plain, "{text:?}");
            assert!(screen.wiped.iter().any(|line| line.contains("/120 ")), "{:?}", screen.wiped);
            assert!(screen.wiped.iter().any(|line| line.contains("/s, ")), "{:?}", screen.wiped);
            let left = screen.left();
            assert!(left.starts_with("120 of 120 samples delivered in "), "{left:?}");
            assert_eq!(left.lines().count(), 1, "the bar is gone: {left:?}");
        }
    });
}

#[test]
fn ctrl_c_at_the_terminal_ends_it_tidily() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        site.fill(500);
        let Some(mut command) = behind_a_terminal(&site, 80, &[]) else { return };
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut keyboard = child.stdin.take().unwrap();
        monitor.wait_for(|books| books.has_seq(20), PATIENCE).await.unwrap();
        keyboard.write_all(b"\x03").unwrap();
        let output = child.wait_with_output().unwrap();
        drop(keyboard);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(130), "{text}");
        let left = Terminal::show(&text).left();
        assert!(left.contains("samples delivered in") && left.contains("left."), "{left}");
        assert!(left.contains("interrupted, "), "{left}");
        done(&site, &[]);
    });
}

#[test]
fn a_reader_that_goes_away_hurts_nobody() {
    run(async {
        let monitor = monitor(batching()).await;
        let site = Site::new(&monitor);
        site.fill(30);
        let mut command = replay(&site, &[]);
        let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert_eq!(site.books().pending, 0);
    });
}

/// 2026-03-11T21:00:00Z
const START: u64 = 1_773_262_800_000;

/// 120 samples, one every 30 s.
fn documented_queue(site: &Site) {
    let stamp =
        |seq: u64| Stamp { wall_ms: START + seq * 30_000, boot_ms: seq * 30_000, boot_id: [7; 16] };
    let payload = br#"{"openclaw_version":null,"cpu_pct":12.5,"mem_pct":41.2,"disk_pct":62.0,"swap_pct":0.0,"uptime_seconds":12345,"load_avg":[0.1,0.1,0.1],"agents":[],"last_seen_at":"2026-03-11T21:00:00Z","connector_version":"0.1.0"}"#;
    let (mut queue, _) = Queue::open(&site.data_dir(), Options::default(), stamp(0)).unwrap();
    for seq in 1..=120 {
        queue.append(&[NewRecord { stamp: stamp(seq), payload }]).unwrap();
    }
    queue.close().unwrap();
}

/// The screen that docs/OPERATIONS.md shows for the `nth` use of a command.
fn documented(command: &str, nth: usize) -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md"));
    let text = text.unwrap();
    let prompt = format!("$ {command}\n");
    let screens: Vec<&str> = text.split("```text\n").skip(1).collect();
    let screens = screens.iter().filter_map(|screen| screen.split_once("```"));
    let screen = screens.filter_map(|(screen, _)| screen.strip_prefix(&prompt)).nth(nth);
    screen.unwrap_or_else(|| panic!("docs/OPERATIONS.md shows no `{command}`")).trim().to_owned()
}

/// Times, ports and lengths of bars differ from run to run; nothing else may.
fn without_figures(text: &str) -> String {
    let words = text.split_whitespace().map(|word| {
        let shape = |c: char| if c.is_ascii_digit() { '0' } else { c };
        let mut word: Vec<char> = word.chars().map(shape).collect();
        word.dedup_by(|one, other| one == other && matches!(*one, '0' | '='));
        // A time of whole seconds has no milliseconds, a longer one has minutes.
        let word: String = word.into_iter().collect();
        word.replace("0ms", "0s")
    });
    words.collect::<Vec<_>>().join(" ").replace("0m 0s", "0s").replace("0s 0s", "0s")
}

#[test]
fn the_screens_in_the_documentation_are_real() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        documented_queue(&site);
        let on_screen = |site: &Site, arguments: &[&str]| {
            let mut command = behind_a_terminal(site, 80, arguments)?;
            command.env("NO_COLOR", "1");
            Some(Terminal::show(&outcome(&mut command).1))
        };
        let Some(dry) = on_screen(&site, &["--dry-run"]) else { return };
        assert_eq!(dry.left(), documented("harborforge-connector replay --dry-run", 0));

        site.set("backend_url", "http://127.0.0.1:9");
        let away = on_screen(&site, &[]).unwrap().left();
        let shown = documented("harborforge-connector replay", 0);
        assert_eq!(without_figures(&away), without_figures(&shown), "\n{away}");

        site.set("backend_url", &monitor.url());
        let well = on_screen(&site, &[]).unwrap();
        let bar = documented("harborforge-connector replay", 1);
        let bar = without_figures(&bar);
        let bars: Vec<_> = well.wiped.iter().map(|line| without_figures(line)).collect();
        assert!(bars.contains(&bar), "{bar:?} is none of {bars:#?}\n{:#?}", well.wiped);
        let shown = documented("harborforge-connector replay", 2);
        assert_eq!(without_figures(&well.left()), without_figures(&shown), "\n{}", well.left());

        monitor.misbehave(Fault::status(500).at(Route::Heartbeat).after(37));
        let command = ["--sent", "--seq", "1.."];
        let broken = on_screen(&site, &command).unwrap().left();
        let shown = documented("harborforge-connector replay --sent --seq 1..", 0);
        assert_eq!(without_figures(&broken), without_figures(&shown), "\n{broken}");
        monitor.heal();
        let (code, summary, _) = outcome(&mut replay(&site, &["--sent", "--seq", "38.."]));
        assert_eq!(code, 0);
        let shown = documented("harborforge-connector replay --sent --seq 38.. | cat", 0);
        assert_eq!(without_figures(&summary), without_figures(&shown));
    });
}
