//! Runs one body on whatever this build has: loom, shuttle, or real threads.

use pagemirror_sync::Arc;
use pagemirror_sync::thread::{self, JoinHandle};

/// Loom gives up on an execution with more steps than this: far above the longest scenario, so that only a loop without
/// a bound gets there.
#[cfg(loom)]
const MAX_BRANCHES: usize = 20_000;

/// Random schedules of each scenario: all scenarios together take a few seconds.
#[cfg(all(shuttle, not(loom)))]
const SCHEDULES: usize = 20_000;

/// Repetitions on real threads, and the time after which they stop anyhow.
#[cfg(not(any(loom, shuttle)))]
const ROUNDS: usize = 5_000;
#[cfg(not(any(loom, shuttle)))]
const ROUNDS_TIME: std::time::Duration = std::time::Duration::from_secs(1);

/// Every interleaving of `body`, or those with at most `preemptions` switches that no thread asked for.
#[cfg(loom)]
pub(crate) fn check(preemptions: Option<usize>, body: fn()) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = MAX_BRANCHES;
    // LOOM_MAX_PREEMPTIONS explores further by hand; see the docs of loom.
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    builder.check(body);
}

/// Random schedules of `body`.
#[cfg(all(shuttle, not(loom)))]
pub(crate) fn check(_preemptions: Option<usize>, body: fn()) {
    shuttle::check_random(body, SCHEDULES);
}

/// `body` on real threads, again and again.
#[cfg(not(any(loom, shuttle)))]
pub(crate) fn check(_preemptions: Option<usize>, body: fn()) {
    let begun = std::time::Instant::now();
    for _ in 0..ROUNDS {
        body();
        if begun.elapsed() > ROUNDS_TIME {
            break;
        }
    }
}

/// Runs `run` on a thread of its own, beside the caller, on the same world.
pub(crate) fn beside<W, R>(world: &Arc<W>, run: impl FnOnce(&W) -> R + Send + 'static) -> JoinHandle<R>
where
    W: Send + Sync + 'static,
    R: Send + 'static,
{
    let world = Arc::clone(world);
    thread::spawn(move || run(&world))
}
