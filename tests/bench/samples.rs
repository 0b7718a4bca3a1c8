//! Samples as a server with a few agents takes them: each another one, the same in every run.

/// Reproducible random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    fn pick<'a>(&mut self, among: &[&'a str]) -> &'a str {
        among[self.below(among.len() as u64) as usize]
    }

    fn tenths(&mut self, bound: u64) -> String {
        format!("{}.{}", self.below(bound), self.below(10))
    }

    fn hundredths(&mut self, bound: u64) -> String {
        format!("{}.{:02}", self.below(bound), self.below(100))
    }
}

const WORDS: [&str; 16] = [
    "harbor", "mail", "billing", "support", "night", "watch", "desk", "garden", "north", "ledger",
    "invoice", "press", "orchid", "copper", "falcon", "river",
];

const STATUSES: [&str; 4] = ["idle", "idle", "running", "stopped"];

/// The sample of this number, of exactly `size` bytes (300 and more) as it is stored.
pub fn sample(number: u64, size: usize) -> Vec<u8> {
    let mut random = Random(number);
    let head = format!(
        r#"{{"openclaw_version":"2026.{}.{}","cpu_pct":{},"mem_pct":{},"disk_pct":{},"swap_pct":{},"uptime_seconds":{},"load_avg":[{},{},{}],"agents":["#,
        1 + random.below(12),
        random.below(30),
        random.tenths(100),
        random.tenths(100),
        random.tenths(100),
        random.tenths(9),
        100_000 + number * 30,
        random.hundredths(4),
        random.hundredths(4),
        random.hundredths(4),
    );
    let tail = format!(
        r#"],"last_seen_at":"2026-{:02}-{:02}T{:02}:{:02}:{:02}Z","connector_version":"0.1.0"}}"#,
        1 + random.below(12),
        1 + random.below(28),
        random.below(24),
        random.below(60),
        random.below(60),
    );
    let mut text = head;
    // Of two words each, and one whose name takes what is left.
    while size - text.len() - tail.len() > 2 * 70 {
        let (first, second) = (random.pick(&WORDS), random.pick(&WORDS));
        let name = format!("{first} {second}");
        text += &agent(&format!("{first}-{second}"), &name, random.pick(&STATUSES));
        text.push(',');
    }
    let (id, status) = (random.pick(&WORDS), random.pick(&STATUSES));
    let taken = text.len() + agent(id, "", status).len() + tail.len();
    let mut name = String::new();
    while name.len() < size - taken {
        name += random.pick(&WORDS);
        name.push(' ');
    }
    name.truncate(size - taken);
    text += &agent(id, &name, status);
    text += &tail;
    assert_eq!(text.len(), size);
    text.into_bytes()
}

fn agent(id: &str, name: &str, status: &str) -> String {
    format!(r#"{{"id":"{id}","name":"{name}","status":"{status}"}}"#)
}
