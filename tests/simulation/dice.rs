//! Everything that is random in a run comes from one of these, and so from the run's seed.

use std::time::Duration;

use harborforge_connector::jitter;

/// A generator: SplitMix64, which the project's jitter is drawn with too.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        // Seeds in a row, as tests use them, are not to give related streams.
        Self(jitter::spread(seed ^ 0x6861_7262_6f72_6672))
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        jitter::spread(self.0)
    }

    /// Uniform in 0 to `n` - 1.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(n.max(1))) >> 64) as u64
    }

    /// True so many times in a thousand.
    pub fn permille(&mut self, times: u64) -> bool {
        self.below(1000) < times
    }

    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        from + jitter::uniform(to.saturating_sub(from), self.roll())
    }

    pub fn up_to(&mut self, most: Duration) -> Duration {
        jitter::uniform(most, self.roll())
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
