//! Runs one body on whatever this build has: loom, shuttle, or the machine's own threads.
//!
//! | build | engine | what it is the authority for |
//! |---|---|---|
//! | `models/trackers-loom` | every interleaving up to a number of preemptions, and every reordering | orderings, interleavings |
//! | `models/trackers-shuttle` | random schedules from a fixed seed, sequentially consistent | schedules, never orderings |
//! | this one | real threads, repeated | that the bodies run on real primitives, with a real clock |
//!
//! A finding is a panic whose text begins with `VIOLATION`, or a deadlock that the engine reports by a panic. It is not
//! caught here: whoever calls has a process to lose.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::steps;

/// How much may be explored.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Exploration stops after this time, complete or not. A verdict that is to be the same on every machine needs more
    /// than the exploration takes.
    pub time: Duration,
    /// Executions under random schedules and on real threads; loom stops when it has seen everything.
    pub executions: u64,
}

/// What was explored without a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explored {
    /// How often the body was run.
    pub executions: u64,
    /// Whether all that was planned was done; otherwise the time was over.
    pub complete: bool,
}

/// How many executions have begun. It counts outside the model, and may be read by any thread meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Count(Arc<AtomicU64>);

impl Count {
    /// Executions so far.
    #[must_use]
    pub fn executions(&self) -> u64 {
        // ORDERING: Relaxed; a number for people.
        self.0.load(Ordering::Relaxed)
    }

    fn one_more(&self) {
        // ORDERING: Relaxed, as reading it.
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs `body` as this build can: with at most `preemptions` switches that no thread asked for (loom; `None` is all
/// there are), or as often as the budget says.
///
/// # Panics
/// When a check of the body fails, or when its threads wait for each other for ever.
pub fn explore<F>(preemptions: Option<usize>, budget: Budget, count: &Count, body: F) -> Explored
where
    F: Fn() + Send + Sync + 'static,
{
    let begun = Instant::now();
    let counted = {
        let count = count.clone();
        move || {
            count.one_more();
            steps::begin_execution();
            body();
        }
    };
    run(preemptions, budget, counted);
    // On real threads there is nothing to complete: they run for as long as they were given.
    let complete = cfg!(not(any(loom, shuttle))) || begun.elapsed() < budget.time;
    Explored { executions: count.executions(), complete }
}

/// Loom gives up on an execution with more steps than this: far above the longest scenario, so that only a loop without
/// a bound gets there.
#[cfg(loom)]
const MAX_BRANCHES: usize = 20_000;

/// Loom looks at the clock once in so many executions: a small part of a second.
#[cfg(loom)]
const LOOK_AT_CLOCK: usize = 500;

/// Preemptions that are explored before the scenario's own number. What is found is then found with the fewest switches
/// that it needs, which makes the shortest story; and the first rounds cost little beside the last.
#[cfg(loom)]
const FIRST_ROUNDS: std::ops::Range<usize> = 0..3;

#[cfg(loom)]
fn run<F: Fn() + Send + Sync + 'static>(preemptions: Option<usize>, budget: Budget, body: F) {
    let begun = Instant::now();
    let body = Arc::new(body);
    let shorter = FIRST_ROUNDS.filter(|round| preemptions.is_none_or(|most| *round < most)).map(Some);
    for round in shorter.chain([preemptions]) {
        let mut builder = loom::model::Builder::new();
        builder.max_branches = MAX_BRANCHES;
        builder.preemption_bound = round;
        builder.checkpoint_interval = LOOK_AT_CLOCK;
        builder.max_duration = Some(budget.time.saturating_sub(begun.elapsed()));
        let body = Arc::clone(&body);
        builder.check(move || body());
    }
}

/// The seed of every random schedule: any number does, as long as it stays the same.
#[cfg(all(shuttle, not(loom)))]
const SEED: u64 = 20_190_608;

/// Switches that the second scheduler of shuttle looks for: two for each of the two sides.
#[cfg(all(shuttle, not(loom)))]
const SWITCHES: usize = 4;

/// Half of the executions switch at random at every step; the other half run threads by priorities that change a few
/// times (Burckhardt and others, ASPLOS 2010), which reaches orders that are rare otherwise.
#[cfg(all(shuttle, not(loom)))]
fn run<F: Fn() + Send + Sync + 'static>(_preemptions: Option<usize>, budget: Budget, body: F) {
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    let begun = Instant::now();
    let half = (budget.executions / 2).max(1) as usize;
    let body = Arc::new(body);
    let again = Arc::clone(&body);
    let config = |begun: Instant| {
        let mut config = shuttle::Config::new();
        config.failure_persistence = shuttle::FailurePersistence::None;
        config.silence_warnings = true;
        config.max_time = Some(budget.time.saturating_sub(begun.elapsed()));
        config
    };
    shuttle::Runner::new(RandomScheduler::new_from_seed(SEED, half), config(begun)).run(move || body());
    shuttle::Runner::new(PctScheduler::new_from_seed(SEED, SWITCHES, half), config(begun)).run(move || again());
}

#[cfg(not(any(loom, shuttle)))]
fn run<F: Fn() + Send + Sync + 'static>(_preemptions: Option<usize>, budget: Budget, body: F) {
    let begun = Instant::now();
    for _ in 0..budget.executions {
        body();
        if begun.elapsed() >= budget.time {
            break;
        }
    }
}
