//! How many samples over time, in one line. Memory is bounded whatever the times are: when they
//! span more than fits, steps get longer.

/// Lengths of a step in seconds; each a multiple of the one before.
const STEPS: [u64; 14] = [
    1,
    5,
    15,
    60,
    300,
    900,
    3600,
    21_600,
    86_400,
    604_800,
    2_419_200,
    29_030_400,
    290_304_000,
    2_903_040_000,
];
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Counts over time.
#[derive(Debug, Default)]
pub struct Spark {
    start: Option<u64>,
    /// Which of [`STEPS`].
    step: usize,
    counts: Vec<u64>,
}

impl Spark {
    /// Most steps there are.
    pub const MOST: usize = 60;

    /// Counts one at this wall clock in milliseconds. One before the first counts with it: the
    /// clock ran backwards.
    pub fn add(&mut self, wall_ms: u64) {
        let start = *self.start.get_or_insert(wall_ms);
        let since = wall_ms.saturating_sub(start) / 1000;
        loop {
            let place = usize::try_from(since / self.seconds()).unwrap_or(usize::MAX);
            if place < Self::MOST {
                if self.counts.len() <= place {
                    self.counts.resize(place + 1, 0);
                }
                if let Some(count) = self.counts.get_mut(place) {
                    *count += 1;
                }
                return;
            }
            if !self.lengthen() {
                return;
            }
        }
    }

    /// How long a step is, in seconds.
    pub fn seconds(&self) -> u64 {
        STEPS.get(self.step).copied().unwrap_or(u64::MAX)
    }

    fn lengthen(&mut self) -> bool {
        let before = self.seconds();
        if self.step + 1 >= STEPS.len() {
            return false;
        }
        self.step += 1;
        let merged = usize::try_from(self.seconds() / before).unwrap_or(usize::MAX);
        self.counts = self.counts.chunks(merged).map(|chunk| chunk.iter().sum()).collect();
        true
    }

    /// The line, at most so many characters wide; empty where there is no course to show.
    pub fn line(&mut self, most: usize) -> String {
        while self.counts.len() > most.max(1) && self.lengthen() {}
        if self.counts.len() < 2 {
            return String::new();
        }
        let highest = self.counts.iter().copied().max().unwrap_or(0).max(1);
        let bar = |count: &u64| match count {
            0 => ' ',
            count => {
                let height = count.saturating_mul(BARS.len() as u64).div_ceil(highest) - 1;
                let height = usize::try_from(height).unwrap_or(0);
                BARS.get(height).copied().unwrap_or('█')
            }
        };
        self.counts.iter().map(bar).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_get_longer_until_it_fits() {
        let mut spark = Spark::default();
        for minute in 0..600u64 {
            spark.add(1_000_000 + minute * 60_000);
        }
        assert_eq!(spark.line(60).chars().count(), 40, "steps of 15 minutes");
        assert_eq!(spark.seconds(), 900);
        assert_eq!(spark.line(20).chars().count(), 10);
        assert_eq!(spark.counts.iter().sum::<u64>(), 600);
    }

    #[test]
    fn it_shows_the_course_and_the_gaps_in_it() {
        let mut spark = Spark::default();
        for (second, count) in [(0, 1), (1, 4), (3, 8), (4, 8)] {
            (0..count).for_each(|_| spark.add(second * 1000));
        }
        assert_eq!(spark.line(60), "▁▄ ██");
    }

    #[test]
    fn odd_clocks_do_no_harm() {
        let mut spark = Spark::default();
        for at in [5_000, 0, u64::MAX, 6_000, u64::MAX - 1] {
            spark.add(at);
        }
        assert!(spark.counts.len() <= Spark::MOST);
        assert!(Spark::default().line(60).is_empty());
        let mut one = Spark::default();
        one.add(1);
        assert!(one.line(60).is_empty());
    }
}
