//! Which functions a daemon that does its usual work goes through, as a linker script that puts them
//! side by side (deploy/layout.ld).
//!
//! The kernel maps a program's text in runs of 64 KiB: what lies scattered costs a run each. The
//! daemon runs under `qemu-x86_64`, which tells the name of each piece of code it meets first; the
//! program must have its symbols (`--config profile.dist.strip=false`). The script names beginnings, as
//! short as they tell what is met from what is not, and no hash of a crate: so it serves other
//! versions of the compiler and of what we build on too, and a new function goes where its neighbours
//! go.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::Bench;
use crate::agent::Place;

const HEAD: &str = "\
/* What a daemon in its usual work goes through, side by side: the kernel maps a program's text in runs
   of 64 KiB, and these functions are about half of it. For what is published (src/build.rs). Made by
     cargo bench --bench figures -- --layout deploy/layout.ld --program PATH
   (tests/bench/figures/layout.rs). What is not named here stays where the linker puts it. */
SECTIONS
{
  .text.often :
  {
    *crt1.o(.text)
    /* Where the processor decides which of several is used. */
    *libring-*:*(.text .text.*)
    *(.text*.*9crc32fast11specialized*)
    *(.text*.*6memchr4arch*)
    *(.text*.*4sha18compress*)
    *(.text*.*4sha26sha256*)
    *(.text*.*9core_arch3x86*)
    /* Not called under an emulator. */
    *(.text*.*6rustix7backend4vdso*)
    /* What was met. */
";
const TAIL: &str = "  }\n}\nINSERT AFTER .text;\n";

/// Writes the script for the bench's program.
pub fn write(bench: &mut Bench, to: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let program = std::mem::replace(&mut bench.program, dir.path().join("traced"));
    let script = format!(
        "#!/bin/sh\nexec qemu-x86_64 -d in_asm -D {}/trace.$$ {} \"$@\"\n",
        dir.path().display(),
        program.canonicalize().unwrap().display()
    );
    fs::write(&bench.program, script).unwrap();
    fs::set_permissions(&bench.program, fs::Permissions::from_mode(0o755)).unwrap();
    work(bench);
    let mut met = BTreeSet::new();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let trace = fs::read(entry.unwrap().path()).unwrap();
        let trace = String::from_utf8_lossy(&trace);
        let names = trace.lines().filter_map(|line| line.strip_prefix("IN: "));
        met.extend(names.map(without_hashes));
    }
    let functions = functions(&program);
    let mut beginnings = Vec::new();
    name(&functions.iter().collect::<Vec<_>>(), 0, &met, &mut beginnings);
    assert!(!beginnings.is_empty(), "nothing was traced: has the program its symbols?");
    let lines = beginnings.iter().map(|name| format!("    *(.text*.{name}*)\n"));
    fs::write(to, [HEAD, &lines.collect::<String>(), TAIL].concat()).unwrap();
    println!("{} beginnings for {} functions", beginnings.len(), functions.len());
}

/// A new queue, an outage, and a second start; at last a daemon that is left alone for as long as it
/// takes to be asked for a sign of life.
fn work(bench: &mut Bench) {
    let place = Place::new(bench, "1s");
    let agent = place.run();
    delivered(bench, 3);
    bench.monitor.ask("pause");
    sleep(Duration::from_secs(5));
    bench.monitor.takes_again(5, || ());
    agent.stop();
    let agent = place.run();
    delivered(bench, 3);
    agent.stop();
    let agent = Place::new(bench, "30s").run();
    sleep(bench.idle);
    agent.stop();
}

fn delivered(bench: &mut Bench, more: u64) {
    let until = bench.monitor.unique() + more;
    bench.monitor.ask(&format!("reaches {until}"));
}

/// The program's own functions, without hashes, in the order of their names.
fn functions(program: &Path) -> BTreeSet<String> {
    let listed = Command::new("nm").arg(program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let function = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, "t" | "T", name] => Some(without_hashes(name)),
        _ => None,
    };
    listed.lines().filter_map(function).collect()
}

/// The beginnings of those that are met, among functions whose names agree in so many bytes.
fn name(functions: &[&String], agree: usize, met: &BTreeSet<String>, beginnings: &mut Vec<String>) {
    let (Some(first), Some(last)) = (functions.first(), functions.last()) else { return };
    if functions.iter().all(|name| met.contains(*name)) {
        return beginnings.push(first[..agree].to_owned());
    }
    // They are sorted: what the first and the last agree in, all do.
    let pairs = first.bytes().zip(last.bytes());
    let agree = pairs.take_while(|(first, last)| first == last).count();
    let after = |name: &str| name.as_bytes().get(agree).copied();
    for branch in functions.chunk_by(|a, b| after(a) == after(b)) {
        match branch {
            // All of it is the beginning of the others, or there are none.
            [whole] if whole.len() == agree => {
                beginnings.extend(met.contains(*whole).then(|| (*whole).clone()));
            }
            _ => name(branch, agree + 1, met, beginnings),
        }
    }
}

/// The name with an asterisk for each hash: `17h` and 16 digits at the end of an older name, `Cs` and
/// some letters up to an underscore before each crate in a newer one; and without what the optimiser
/// adds behind a dot.
fn without_hashes(name: &str) -> String {
    if let Some(name) = name.strip_prefix("_ZN") {
        let end = name.rfind("17h").unwrap_or(name.len());
        return format!("_ZN{}", &name[..end]);
    }
    let Some(rest) = name.strip_prefix("_R") else { return name.to_owned() };
    let rest = rest.split('.').next().unwrap();
    let mut pieces = rest.split("Cs");
    let mut name = format!("_R{}", pieces.next().unwrap());
    for piece in pieces {
        name.push_str("Cs");
        match piece.split_once('_') {
            Some((hash, after)) if hash.len() > 8 => {
                name.push_str("*_");
                name.push_str(after);
            }
            _ => name.push_str(piece),
        }
    }
    name
}
