//! The simulator's primitives: deterministic coroutines in virtual time, chosen by `--cfg sim`.
//!
//! # Guarantee
//! One seed gives one run, to the last step. Nothing here reads a clock, an address or a hash with a key of its own.
//!
//! # Model
//! Every actor is a coroutine of one real thread. Each atomic operation, fence and lock is a possible switch point, at
//! which the actor may be paused for a moment (as if another processor had been faster) or for long (as if it had been
//! preempted). Whoever is due first in virtual time runs next. Time passes only in pauses, sleeps and timed waits, so an
//! hour in which nothing happens costs nothing.
//!
//! # Interleavings
//! Any number of processors: an actor is never kept waiting because others run. Between two switch points an actor runs
//! alone.
//!
//! # Not covered
//! Orderings. Execution is sequentially consistent, as under shuttle; what Relaxed permits is loom's business.

mod due;
mod handle;
mod point;
mod run;

pub mod atomic;
pub mod lock;
pub mod time;

pub use handle::{JoinHandle, spawn, spawn_named};
pub use point::{current, elapsed, sleep, yield_now};
pub(crate) use point::{park, section_depth, wake_all};
pub use run::{Outcome, Schedule, calm, fail, random, run};

/// Where actors wait for something that is not in the library: a model of the kernel, a phase of the run.
#[derive(Debug, Default)]
pub struct Bell {
    /// A bell is known by its place, so it must have one.
    _place: u8,
}

impl Bell {
    /// A bell that nobody waits for.
    #[must_use]
    pub const fn new() -> Self {
        Self { _place: 0 }
    }

    /// Sleeps until it rings, or until `limit` of virtual time has passed. Says whether it rang.
    ///
    /// # Blocking
    /// Sleeps; nobody else runs between the caller's last look and its falling asleep.
    pub fn wait(&self, limit: Option<std::time::Duration>) -> bool {
        park(self.key(), limit)
    }

    /// Wakes everybody who waits now.
    pub fn ring(&self) {
        wake_all(self.key());
    }

    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}
