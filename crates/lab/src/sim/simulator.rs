//! Which tracker is tried and with which options; one seed, or many on all processors.

use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pagemirror_core_sim::collision::CollisionTracker;
use pagemirror_trackers_sim::catalogue::{CollisionLog, HullSeq, IntervalSeq, NotifierCount, RangeValid, TrackerName};

use super::counts::Counts;
use super::observe::Claims;
use super::options::{Options, Setting};
use super::phases::{Run, Subject, run};

/// So many invalidations before its sequence wraps does the tracker of a run with `wrap` begin.
const BEFORE_WRAP: u64 = 10;
/// Seeds that one processor takes at a time.
const CHUNK: u64 = 8;

/// What is tried.
#[derive(Clone)]
pub struct Simulator {
    subject: Subject,
    settings: Vec<Setting>,
}

impl std::fmt::Debug for Simulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulator").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What many runs gave.
#[derive(Debug)]
pub struct Totals {
    /// Runs that were made.
    pub seeds: u64,
    /// Scheduling steps of all.
    pub steps: u64,
    /// What happened in all.
    pub counts: Counts,
    /// Virtual time of all.
    pub virtual_time: Duration,
    /// Time that the processors spent, all together.
    pub busy: Duration,
    /// Time that passed.
    pub elapsed: Duration,
    /// The failed run with the smallest seed of those that were made.
    pub failed: Option<Run>,
}

impl Simulator {
    /// Tries this tracker. What `settings` do not set, the seed chooses.
    #[must_use]
    pub fn new(tracker: TrackerName, settings: Vec<Setting>) -> Self {
        let claims = Claims {
            exact: tracker == TrackerName::CollisionLog,
            forgets_after_waiting: tracker == TrackerName::IntervalSeq,
            mends_range_valid: false,
        };
        Self { subject: Subject { build: Arc::new(move |options| build(tracker, options)), claims }, settings }
    }

    /// Tries another tracker, which claims to be exact.
    #[cfg(test)]
    pub(crate) fn of(build: impl Fn(&Options) -> Box<dyn CollisionTracker> + Send + Sync + 'static) -> Self {
        let claims = Claims { exact: true, forgets_after_waiting: false, mends_range_valid: false };
        Self { subject: Subject { build: Arc::new(build), claims }, settings: Vec::new() }
    }

    /// What a seed chooses, with what is set.
    #[must_use]
    pub fn options(&self, seed: u64) -> Options {
        Options::swarm(seed).with(&self.settings)
    }

    /// One run.
    #[must_use]
    pub fn run(&self, seed: u64) -> Run {
        self.run_with(seed, self.options(seed), false)
    }

    /// One run with its trace.
    #[must_use]
    pub fn trace(&self, seed: u64) -> Run {
        self.run_with(seed, self.options(seed), true)
    }

    pub(super) fn run_with(&self, seed: u64, options: Options, traced: bool) -> Run {
        run(seed, options, &self.subject, traced)
    }

    /// Runs many seeds on all processors, until all are done or one has failed. `progress` is told the number of each that
    /// is done.
    #[must_use]
    pub fn run_many(&self, seeds: Range<u64>, progress: &(dyn Fn(u64) + Sync)) -> Totals {
        let began = Instant::now();
        let next = AtomicU64::new(seeds.start);
        let totals = Mutex::new(Totals::nothing());
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        thread::scope(|scope| {
            for _ in 0..processors {
                scope.spawn(|| {
                    let mine = self.take_seeds(&next, seeds.end, progress);
                    totals.lock().unwrap_or_else(PoisonError::into_inner).merge(mine);
                });
            }
        });
        let mut totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
        totals.elapsed = began.elapsed();
        totals
    }

    /// The share of one processor. Who fails leaves nothing to take for the others, who finish what they have: so the
    /// smallest failing seed is found, whichever processor was faster.
    fn take_seeds(&self, next: &AtomicU64, end: u64, progress: &(dyn Fn(u64) + Sync)) -> Totals {
        let began = Instant::now();
        let mut totals = Totals::nothing();
        loop {
            // ORDERING: Relaxed, here and below; only uniqueness counts.
            let first = next.fetch_add(CHUNK, Ordering::Relaxed);
            if first >= end || totals.failed.is_some() {
                break;
            }
            for seed in first..end.min(first + CHUNK) {
                let run = self.run(seed);
                progress(seed);
                totals.add(run);
                if totals.failed.is_some() {
                    next.store(end, Ordering::Relaxed);
                    break;
                }
            }
        }
        totals.busy = began.elapsed();
        totals
    }
}

impl Totals {
    fn nothing() -> Self {
        Self {
            seeds: 0,
            steps: 0,
            counts: Counts::default(),
            virtual_time: Duration::ZERO,
            busy: Duration::ZERO,
            elapsed: Duration::ZERO,
            failed: None,
        }
    }

    fn add(&mut self, run: Run) {
        self.seeds += 1;
        self.steps += run.steps;
        self.counts.merge(&run.counts);
        self.virtual_time += run.virtual_time;
        if run.finding.is_some() {
            self.failed = Some(run);
        }
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.counts.merge(&other.counts);
        self.virtual_time += other.virtual_time;
        self.busy += other.busy;
        let failed = self.failed.take().into_iter().chain(other.failed);
        self.failed = failed.min_by_key(|run| run.seed);
    }

    /// What one step took, on average, on one processor.
    #[must_use]
    pub fn per_step(&self) -> Duration {
        Duration::from_nanos((self.busy.as_nanos() / u128::from(self.steps.max(1))) as u64)
    }
}

/// The tracker of this name, in the sizes of the run.
fn build(tracker: TrackerName, options: &Options) -> Box<dyn CollisionTracker> {
    let near = options.wrap > 0;
    let before = u64::MAX - BEFORE_WRAP;
    match tracker {
        TrackerName::RangeValid => Box::new(RangeValid::default()),
        TrackerName::CollisionLog if near => Box::new(CollisionLog::starting_after(options.log_size(), before)),
        TrackerName::CollisionLog => Box::new(CollisionLog::new(options.log_size())),
        TrackerName::NotifierCount if near => Box::new(NotifierCount::starting_at(before)),
        TrackerName::NotifierCount => Box::new(NotifierCount::default()),
        TrackerName::HullSeq if near => Box::new(HullSeq::starting_at(before)),
        TrackerName::HullSeq => Box::new(HullSeq::default()),
        TrackerName::IntervalSeq if near => Box::new(IntervalSeq::starting_at(before)),
        TrackerName::IntervalSeq => Box::new(IntervalSeq::default()),
    }
}
