//! What the connector costs, all of it in one run: `cargo bench --bench figures`.
//!
//! The first half is a table of memory, processor, wake-ups, threads, size, start, disk, drain and
//! bytes on the wire; the second how some of them grow with the queue. It prints figures and
//! asserts none, since they are the machine's as much as the daemon's: the machine's own speed
//! stands above them.
//!
//! The daemon is the real program, with TLS and the WebSocket, in the environment of the systemd
//! unit; the Monitor is a process of its own on loopback. Words after `--`:
//! - `table` or `growth` for one half,
//! - `--only PARTS` for some parts of the table: size, idle, sampling, start, disk, drain, waiting,
//! - `--program PATH` for another build than the one `cargo bench` makes, such as the packaged one,
//! - `--idle SECONDS` for how long an idle daemon is watched,
//! - `--plot PATH` to draw the second half as SVG,
//! - `--layout PATH` to write deploy/layout.ld anew instead.

// A bench may say in one word what must hold; clippy only knows that inside `#[test]`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod agent;
mod growth;
mod layout;
mod monitor;
mod plot;
mod queue;
#[path = "../samples.rs"]
mod samples;
mod table;
#[path = "../../support/unit.rs"]
mod unit;
mod yardstick;

use std::path::PathBuf;
use std::time::Duration;

use self::monitor::Remote;
use self::yardstick::Yardstick;

/// What one run needs.
struct Bench {
    program: PathBuf,
    monitor: Remote,
    idle: Duration,
    yardstick: Yardstick,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| words.iter().any(|given| given == word);
    let after = |word: &str| {
        let at = words.iter().position(|given| given == word)?;
        Some(words.get(at + 1).unwrap_or_else(|| panic!("{word} needs a value")).clone())
    };
    // `cargo test --benches` and `cargo bench -- --test` only want to know that it builds.
    if has("--test") {
        return;
    }
    if has("--monitor") {
        return monitor::serve();
    }
    let built = env!("CARGO_BIN_EXE_harborforge-connector").to_owned();
    let seconds = after("--idle").map_or(120, |seconds| seconds.parse().unwrap());
    println!("what the connector costs on this machine");
    let mut bench = Bench {
        program: after("--program").unwrap_or(built).into(),
        monitor: Remote::start(),
        idle: Duration::from_secs(seconds),
        yardstick: Yardstick::take(),
    };
    if let Some(path) = after("--layout") {
        return layout::write(&mut bench, path.as_ref());
    }
    println!("load of the machine before {}", load());
    if !has("growth") {
        table::show(&mut bench, after("--only").as_deref());
    }
    if !has("table") {
        let rows = growth::show(&mut bench);
        if let Some(path) = after("--plot") {
            plot::draw(path.as_ref(), &rows);
        }
    }
    println!("\nload of the machine after {}", load());
}

/// Of 1, 5 and 15 minutes.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap();
    let figures: Vec<&str> = text.split(' ').take(3).collect();
    format!("{}, processors {}", figures.join(" "), std::thread::available_parallelism().unwrap())
}

/// The middle one.
fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}
