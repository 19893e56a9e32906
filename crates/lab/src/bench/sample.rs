//! Times as medians with their spread.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A figure that was measured several times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// A quarter of the samples are below.
    pub low: f64,
    /// Half of them.
    pub median: f64,
    /// Three quarters of them.
    pub high: f64,
    /// How many there are.
    pub samples: usize,
}

impl Spread {
    /// The spread of these samples, but for those that are no numbers; all zero if none are left.
    #[must_use]
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted: Vec<f64> = samples.iter().copied().filter(|sample| sample.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        Self {
            low: quantile(&sorted, 0.25),
            median: quantile(&sorted, 0.5),
            high: quantile(&sorted, 0.75),
            samples: sorted.len(),
        }
    }

    /// The spread of the quotients of samples that were taken side by side: drift of the machine cancels out.
    #[must_use]
    pub fn of_ratios(samples: &[f64], to: &[f64]) -> Self {
        let ratios: Vec<f64> = samples.iter().zip(to).filter(|(_, to)| **to > 0.0).map(|(one, to)| one / to).collect();
        Self::of(&ratios)
    }
}

fn quantile(sorted: &[f64], at: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = at * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// How long one sample should take: long beside the clock's 30 ns, short beside a time slice, so that most samples are
/// not interrupted.
const SAMPLE: Duration = Duration::from_micros(500);
/// The most operations in one sample.
const MOST: usize = 4096;

/// How many operations make one sample, found out by making some. That also warms the caches.
pub(super) fn batch(mut operation: impl FnMut(usize)) -> usize {
    let begun = Instant::now();
    let mut made = 0;
    while made < MOST && (begun.elapsed() < SAMPLE || made == 0) {
        operation(made);
        made += 1;
    }
    made
}

/// Nanoseconds for each of `count` operations.
pub(super) fn time(count: usize, mut operation: impl FnMut(usize)) -> f64 {
    let begun = Instant::now();
    for nth in 0..count {
        operation(black_box(nth));
    }
    begun.elapsed().as_nanos() as f64 / count.max(1) as f64
}

/// The share of `first` in the time of `first` and `second` together. The clock between them costs about as much as they
/// do, and the same for both: what it costs alone is taken off.
pub(super) fn share<R>(count: usize, mut first: impl FnMut(usize) -> R, mut second: impl FnMut(usize, R)) -> f64 {
    let (mut one, mut two, mut clock) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for nth in 0..count {
        let begun = Instant::now();
        let between = first(black_box(nth));
        let middle = Instant::now();
        second(nth, between);
        let end = Instant::now();
        clock += end.elapsed();
        one += middle - begun;
        two += end - middle;
    }
    let (one, two) = (one.saturating_sub(clock).as_nanos() as f64, two.saturating_sub(clock).as_nanos() as f64);
    if one + two > 0.0 { one / (one + two) } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_the_samples() {
        let spread = Spread::of(&[5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!((spread.low, spread.median, spread.high, spread.samples), (2.0, 3.0, 4.0, 5));
        assert_eq!(Spread::of(&[1.0, 2.0]).median, 1.5);
        assert_eq!(Spread::of(&[f64::NAN]), Spread::default());
        assert_eq!(Spread::of_ratios(&[4.0, 6.0], &[f64::NAN, 2.0]), Spread::of(&[3.0]));
    }

    #[test]
    fn ratios_are_taken_sample_by_sample() {
        // The second half of the run was ten times slower for both.
        let ratios = Spread::of_ratios(&[2.0, 20.0, 2.0, 20.0], &[1.0, 10.0, 1.0, 10.0]);
        assert_eq!((ratios.low, ratios.median, ratios.high), (2.0, 2.0, 2.0));
    }

    #[test]
    fn a_share_is_what_the_first_part_takes() {
        let spin = |times: u64| {
            for n in 0..times {
                black_box(n);
            }
        };
        let half = share(400, |_| spin(20_000), |_, ()| spin(20_000));
        let most = share(400, |_| spin(60_000), |_, ()| spin(2_000));
        assert!(half < most && most > 0.7, "{half} {most}");
    }
}
