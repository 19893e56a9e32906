//! Work that is made up: how many ranges, how often something is invalidated, how large it is, how much of it overlaps.

use pagemirror_core::addr::PageRange;
use serde::{Deserialize, Serialize};

use super::{Fault, Ground, Job, Random, Workload};
use crate::drive::{Time, TimeModel};

/// Which of its ranges a device faults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkingSet {
    /// Every range alike.
    #[default]
    Uniform,
    /// Nine faults of ten go to a tenth of the ranges.
    Hot,
    /// Nine faults of ten go to the sixteen ranges that were mapped last.
    Recent,
}

/// How many ranges are recent.
pub(super) const RECENT: u64 = 16;
/// The share of faults, of a thousand, that go where the working set points.
pub(super) const CONCENTRATED: u64 = 900;

impl WorkingSet {
    /// The number of one of `count` things in the order in which they came to be; 0 if there are none.
    pub(super) fn choose(self, count: u64, random: &mut Random) -> u64 {
        let concentrated = random.per_mille(CONCENTRATED);
        let first = match self {
            Self::Uniform => return random.below(count),
            _ if !concentrated => return random.below(count),
            Self::Hot => return random.below(count.div_ceil(10)),
            Self::Recent => count.saturating_sub(RECENT),
        };
        first + random.below(count - first)
    }
}

/// What the made-up work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyntheticOptions {
    /// Ranges that the device mirrors.
    pub ranges: u64,
    /// Pages of each.
    pub range_pages: u64,
    /// Which of them it faults.
    pub working_set: WorkingSet,
    /// Threads that invalidate.
    pub invalidators: usize,
    /// Invalidations in a second of virtual time, all invalidators together. 0 for none.
    pub rate: u64,
    /// Pages of each invalidation.
    pub invalidated_pages: u64,
    /// How many of a thousand invalidations overlap a mirrored range.
    pub related_per_mille: u64,
    /// The pause of a device thread between two faults, on average.
    pub pause: Time,
    /// Seed of every choice.
    pub seed: u64,
}

impl Default for SyntheticOptions {
    fn default() -> Self {
        Self {
            ranges: 1000,
            range_pages: 16,
            working_set: WorkingSet::Uniform,
            invalidators: 4,
            rate: 10_000,
            invalidated_pages: 4,
            related_per_mille: 0,
            pause: 10_000,
            seed: 1,
        }
    }
}

/// Streams of choices: invalidators from 0, device threads from here, so that neither disturbs the other.
const DEVICE_STREAMS: u64 = 1 << 32;

/// The workload. Each thread has choices of its own, so what one does never depends on when another was served.
#[derive(Debug)]
pub struct Synthetic {
    options: SyntheticOptions,
    ground: Ground,
    time: TimeModel,
    invalidators: Vec<Random>,
    /// When the next job of each invalidator is due, whether or not the last one is over.
    due: Vec<Time>,
    devices: Vec<Random>,
}

impl Synthetic {
    /// The work of these options, in this model of time.
    #[must_use]
    pub fn new(options: SyntheticOptions, time: TimeModel) -> Self {
        let ground = Ground { ranges: options.ranges, pages: options.range_pages };
        let invalidators = (0..options.invalidators as u64).map(|stream| Random::new(options.seed, stream)).collect();
        Self { options, ground, time, invalidators, due: vec![0; options.invalidators], devices: Vec::new() }
    }

    fn invalidated(&mut self, invalidator: usize) -> PageRange {
        let options = self.options;
        let random = &mut self.invalidators[invalidator];
        if random.per_mille(options.related_per_mille) {
            let number = options.working_set.choose(options.ranges, random);
            self.ground.over(number, options.invalidated_pages)
        } else {
            self.ground.beside(random.next(), options.invalidated_pages)
        }
    }
}

/// The most ranges that are known from the start, so that setting up a run stays short. Further ones become known when they
/// are first faulted.
const KNOWN: u64 = 10_000;

impl Workload for Synthetic {
    fn known(&self) -> Vec<PageRange> {
        (0..self.options.ranges.min(KNOWN)).map(|number| self.ground.range(number)).collect()
    }

    fn invalidators(&self) -> usize {
        self.options.invalidators
    }

    fn next_job(&mut self, invalidator: usize, _now: Time) -> Option<(Time, Job)> {
        const SECOND: u64 = 1_000_000_000;
        if self.options.rate == 0 {
            return None;
        }
        let mean = SECOND * self.options.invalidators as u64 / self.options.rate;
        let range = self.invalidated(invalidator);
        let random = &mut self.invalidators[invalidator];
        self.due[invalidator] += random.around(mean);
        let change = self.time.change_of(self.options.invalidated_pages, self.time.is_preempted(random));
        Some((self.due[invalidator], Job { ranges: vec![range], change, number: 0 }))
    }

    fn next_fault(&mut self, device: usize, now: Time) -> Option<Fault> {
        while self.devices.len() <= device {
            let stream = DEVICE_STREAMS + self.devices.len() as u64;
            self.devices.push(Random::new(self.options.seed, stream));
        }
        let random = &mut self.devices[device];
        let number = self.options.working_set.choose(self.options.ranges, random);
        Some(Fault { at: now + random.around(self.options.pause), range: Some(self.ground.range(number)) })
    }
}
