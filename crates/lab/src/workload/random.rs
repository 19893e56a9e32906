//! Random choices that are the same everywhere and for ever: a small generator, and whole numbers only.

/// SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The choices of stream `stream` of a run with this seed.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    /// Any number.
    #[expect(clippy::should_implement_trait, reason = "an endless source is no iterator that could be exhausted")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True in `share` of a thousand cases.
    pub fn per_mille(&mut self, share: u64) -> bool {
        self.below(1000) < share
    }

    /// A time that is `mean` on average, spread evenly from nothing to twice that.
    pub fn around(&mut self, mean: u64) -> u64 {
        self.below(2 * mean + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_choices_and_streams_differ() {
        let choices = |seed, stream| {
            let mut random = Random::new(seed, stream);
            [random.next(), random.below(1000), random.below(7)]
        };
        assert_eq!(choices(5, 1), choices(5, 1));
        assert_ne!(choices(5, 1), choices(5, 2));
        assert_ne!(choices(5, 1), choices(6, 1));
    }

    #[test]
    fn bounds_hold_and_averages_are_near() {
        let mut random = Random::new(1, 0);
        let draws: Vec<u64> = (0..10_000).map(|_| random.around(500)).collect();
        assert!(draws.iter().all(|&draw| draw <= 1000));
        let mean = draws.iter().sum::<u64>() / 10_000;
        assert!((480..520).contains(&mean), "{mean}");
        let hits = (0..10_000).filter(|_| random.per_mille(250)).count();
        assert!((2300..2700).contains(&hits), "{hits}");
        assert_eq!(random.below(0), 0);
    }
}
