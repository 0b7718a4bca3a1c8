//! How cost grows with what waits.

use std::thread::sleep;
use std::time::Duration;

use crate::agent::Place;
use crate::{Bench, median, queue};

const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// What is taken, in the order of the columns.
pub const COLUMNS: [&str; 6] = [
    "append, of raw sync",
    "start, ms",
    "RSS, MiB",
    "status, ms",
    "dump, us each",
    "drain, us each",
];

/// The figures with so many samples waiting.
pub struct Row {
    /// Samples of 400 bytes.
    pub waiting: u64,
    /// As [`COLUMNS`] says.
    pub figures: [f64; COLUMNS.len()],
}

/// Takes and prints them.
pub fn show(bench: &mut Bench) -> Vec<Row> {
    println!("\nhow it grows with what waits");
    print!("{:<10}", "waiting");
    COLUMNS.iter().for_each(|name| print!("{name:>21}"));
    println!();
    SIZES.map(|waiting| take(bench, waiting)).into()
}

fn take(bench: &mut Bench, waiting: u64) -> Row {
    let place = Place::new(bench, "1h");
    queue::fill(&place.data(), waiting, 500);
    let append = queue::append_ratio(&place.data());
    bench.monitor.ask("pause");
    let start = median((0..3).map(|_| place.starts_within()).collect());
    let agent = place.run();
    sleep(Duration::from_secs(5));
    let rss = agent.rss();
    let status = median((0..5).map(|_| place.takes("status")).collect());
    let dump = place.takes("dump") * 1000.0 / waiting as f64;
    let seconds = bench.monitor.takes_again(waiting, || agent.signal("USR1"));
    let drain = seconds * 1e6 / waiting as f64;
    let figures = [append, start, rss, status, dump, drain];
    print!("{waiting:<10}");
    figures.iter().for_each(|figure| print!("{figure:>21.1}"));
    println!();
    Row { waiting, figures }
}
