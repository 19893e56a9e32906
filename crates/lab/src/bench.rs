//! `bench`: what every tracker costs on this machine, and what it decides on made-up work.
//!
//! - `rig` is one tracker with a device over it; `sample` is a figure with its spread;
//! - `costs` times one thread over the number of ranges, `threads` two threads; both with the trackers side by side, one
//!   sample of each in turn, so that drift of the machine hits all alike;
//! - `sweep` drives the trackers in virtual time with the costs that were measured in the same run.

mod costs;
mod rig;
mod sample;
mod sweep;
mod threads;

use serde::Serialize;

pub use costs::{CostRow, Costed};
pub use sample::Spread;
pub use sweep::{Kind, SweepRow};
pub use threads::{ThreadsRow, Together};

use crate::drive::TimeModel;
use crate::variant::Variant;

/// What is to be measured.
#[derive(Debug, Clone, Serialize)]
pub struct BenchOptions {
    /// Numbers of mirrored ranges.
    pub ranges: Vec<u64>,
    /// Which trackers.
    pub variants: Vec<Variant>,
    /// Samples of each figure.
    pub samples: usize,
    /// How long each virtual run lasts, in virtual nanoseconds.
    pub virtual_ns: u64,
    /// How long each sample of two threads lasts, in milliseconds: shorter than a time slice.
    pub threads_ms: u64,
    /// Seed of every choice.
    pub seed: u64,
}

/// Pages of each mirrored range: 64 KiB.
pub const RANGE_PAGES: u64 = 16;

impl BenchOptions {
    /// The whole measurement: some minutes.
    #[must_use]
    pub fn full() -> Self {
        Self {
            ranges: vec![1, 10, 100, 1000, 10_000, 100_000, 1_000_000],
            variants: Variant::all(),
            samples: 25,
            virtual_ns: 400_000_000,
            threads_ms: 3,
            seed: 1,
        }
    }

    /// A short one: some seconds, with wider spreads and nothing beyond 10,000 ranges.
    #[must_use]
    pub fn quick() -> Self {
        Self { ranges: vec![1, 100, 10_000], samples: 7, virtual_ns: 40_000_000, threads_ms: 2, ..Self::full() }
    }
}

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct BenchFigures {
    /// What was asked for.
    pub options: BenchOptions,
    /// The durations outside the trackers that the virtual runs assume.
    pub time: TimeModel,
    /// One thread, on this machine.
    pub costs: Vec<CostRow>,
    /// Two threads, on this machine.
    pub threads: Vec<ThreadsRow>,
    /// In virtual time.
    pub sweeps: Vec<SweepRow>,
}

/// Measures. `progress` is told what is being done, and which of how many parts is over.
pub fn run(options: &BenchOptions, progress: &mut dyn FnMut(&str, usize, usize)) -> BenchFigures {
    let time = TimeModel::default();
    let parts = options.ranges.len() + Together::ALL.len() + Kind::ALL.len();
    let mut done = 0;
    let mut part = |what: &str| {
        progress(what, done, parts);
        done += 1;
    };
    let mut costs = Vec::new();
    for &ranges in &options.ranges {
        part(&format!("one thread, {ranges} ranges"));
        costs.extend(costs::measure(options, ranges));
    }
    let mut threads = Vec::new();
    for together in Together::ALL {
        part(&format!("two threads, {}", together.text()));
        threads.extend(threads::measure(options, together, &time));
    }
    let mut sweeps = Vec::new();
    for kind in Kind::ALL {
        part(&format!("virtual time, {}", kind.text()));
        sweeps.extend(sweep::run(options, kind, &time, &costs));
    }
    BenchFigures { options: options.clone(), time, costs, threads, sweeps }
}
