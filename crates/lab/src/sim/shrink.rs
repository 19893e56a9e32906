//! Makes a failing run smaller while it still fails: fewer calls, fewer actors, fewer faults, a simpler schedule.
//!
//! A smaller world is another world, so the same seed rarely fails in it. Each candidate is therefore tried with several
//! seeds; the first that fails in the same way is gone on with.

use std::time::{Duration, Instant};

use super::options::Options;
use super::phases::Run;
use super::simulator::Simulator;

/// Seeds for which a smaller world is tried.
const SEEDS: u64 = 60;
/// Worlds between the present value of an option and the simplest that are tried, largest step first.
const HALVINGS: u32 = 4;
/// Shrinking ends after so long, however small the run is.
const PATIENCE: Duration = Duration::from_secs(30);
/// Runs that may fail while shrinking. What a failed run leaves behind is not given back; together it is some hundred MiB.
const MOST_FAILURES: u32 = 400;

/// A failing run that was made smaller.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The smallest run, with its trace.
    pub run: Run,
    /// Runs that were tried.
    pub tried: u64,
}

impl Simulator {
    /// Shrinks a run that failed.
    #[must_use]
    pub fn shrink(&self, failed: &Run) -> Shrunk {
        let mut shrinking =
            Shrinking { simulator: self, best: failed.clone(), tried: 0, failures: 0, since: Instant::now() };
        while shrinking.one_pass() && shrinking.goes_on() {}
        let run = self.run_with(shrinking.best.seed, shrinking.best.options, true);
        Shrunk { run, tried: shrinking.tried }
    }
}

struct Shrinking<'s> {
    simulator: &'s Simulator,
    best: Run,
    tried: u64,
    failures: u32,
    since: Instant,
}

impl Shrinking<'_> {
    fn goes_on(&self) -> bool {
        self.since.elapsed() < PATIENCE && self.failures < MOST_FAILURES
    }

    /// Tries every option once. Says whether anything became smaller.
    fn one_pass(&mut self) -> bool {
        let mut smaller = false;
        for (name, simplest) in Options::SIMPLEST {
            smaller |= self.draw(name, *simplest);
        }
        smaller
    }

    /// Draws one option towards its simplest value: all the way, or else half of it, a quarter, an eighth.
    fn draw(&mut self, name: &str, simplest: u32) -> bool {
        let now = self.best.options.get(name).unwrap_or(simplest);
        for halving in 0..HALVINGS {
            let step = (i64::from(simplest) - i64::from(now)) / (1 << halving);
            let value = (i64::from(now) + step) as u32;
            if value == now || !self.goes_on() {
                break;
            }
            let mut options = self.best.options;
            options.set(name, value);
            if self.fails_with(options) {
                return true;
            }
        }
        false
    }

    fn fails_with(&mut self, options: Options) -> bool {
        // The seed that failed before comes first: with luck it still does.
        let seeds = std::iter::once(self.best.seed).chain(0..SEEDS);
        for seed in seeds {
            if !self.goes_on() {
                return false;
            }
            self.tried += 1;
            let run = self.simulator.run_with(seed, options, false);
            let Some(finding) = &run.finding else { continue };
            self.failures += 1;
            if kind(finding) == self.best.finding.as_deref().and_then(kind) {
                self.best = run;
                return true;
            }
        }
        false
    }
}

/// What kind of finding it is: the text up to its first colon, without numbers.
fn kind(finding: &str) -> Option<&str> {
    let words = finding.split(':').next()?;
    // "read_begin of [0x1000, ..." has none: there the first words must do.
    Some(words.split(['[', '0']).next().unwrap_or(words))
}
