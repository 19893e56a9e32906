//! Which implementation of the primitives this build uses.

#[cfg(sim)]
pub use crate::sim::atomic;
#[cfg(loom)]
pub use loom::{hint, sync::atomic};
#[cfg(all(shuttle, not(loom)))]
pub use shuttle::{hint, sync::atomic};
#[cfg(not(any(loom, shuttle, sim)))]
pub use std::{hint, sync::atomic};

/// Hints of this build.
#[cfg(sim)]
pub mod hint {
    pub use crate::sim::yield_now as spin_loop;
}

/// The clock of this build. A model checker has none: there an instant is the standard one, and nothing depends on it.
pub mod time {
    #[cfg(sim)]
    pub use crate::sim::time::Instant;
    #[cfg(not(sim))]
    pub use std::time::Instant;
}

/// Threads of this build's scheduler.
pub mod thread {
    #[cfg(sim)]
    pub use crate::sim::{JoinHandle, sleep, spawn, yield_now};
    #[cfg(loom)]
    pub use loom::thread::{Builder, JoinHandle, spawn, yield_now};
    #[cfg(all(shuttle, not(loom)))]
    pub use shuttle::thread::{Builder, JoinHandle, spawn, yield_now};
    #[cfg(not(any(loom, shuttle, sim)))]
    pub use std::thread::{Builder, JoinHandle, spawn, yield_now};

    /// Sleeps for `duration`; under a model checker, which has no clock, it only lets others run.
    #[cfg(not(sim))]
    pub fn sleep(duration: std::time::Duration) {
        if cfg!(any(loom, shuttle)) {
            yield_now();
        } else {
            std::thread::sleep(duration);
        }
    }
}

/// A small number of the calling thread, the same for its whole life; numbers are handed out from 0 upwards.
///
/// Used to spread threads over counters. Two threads never share a number while both live; numbers are not used
/// again after a thread has ended.
#[cfg(not(any(loom, shuttle, sim)))]
#[inline]
#[must_use]
pub fn thread_index() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // ORDERING: Relaxed; only uniqueness counts, which the read-modify-write gives.
        static INDEX: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // A thread that is being torn down shares number 0: counters are shared safely, only less evenly.
    INDEX.try_with(|index| *index).unwrap_or(0)
}

/// See the standard build: the same numbers, handed out anew in each execution of the model.
#[cfg(loom)]
#[must_use]
pub fn thread_index() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    // The counter itself is not part of the model, so it is a standard atomic, made anew for each execution.
    loom::lazy_static! { static ref NEXT: AtomicUsize = AtomicUsize::new(0); }
    loom::thread_local! { static INDEX: usize = NEXT.fetch_add(1, Ordering::Relaxed); }
    INDEX.with(|index| *index)
}

/// See the standard build: shuttle numbers its threads itself.
#[cfg(all(shuttle, not(loom)))]
#[must_use]
pub fn thread_index() -> usize {
    shuttle::current::me().into()
}

/// See the standard build: the actor's number.
#[cfg(sim)]
#[must_use]
pub fn thread_index() -> usize {
    crate::sim::current()
}

/// Runs `f` on the calling thread's count of sections it is in: 0 or 1. Outside the model: never an interleaving.
#[inline]
pub fn section_depth<R>(f: impl FnOnce(&std::cell::Cell<u32>) -> R) -> R {
    #[cfg(loom)]
    {
        loom::thread_local! { static DEPTH: std::cell::Cell<u32> = std::cell::Cell::new(0); }
        DEPTH.with(f)
    }
    #[cfg(all(shuttle, not(loom)))]
    {
        shuttle::thread_local! { static DEPTH: std::cell::Cell<u32> = std::cell::Cell::new(0); }
        DEPTH.with(f)
    }
    #[cfg(sim)]
    {
        crate::sim::section_depth(f)
    }
    #[cfg(not(any(loom, shuttle, sim)))]
    {
        thread_local! { static DEPTH: std::cell::Cell<u32> = const { std::cell::Cell::new(0) }; }
        DEPTH.with(f)
    }
}
