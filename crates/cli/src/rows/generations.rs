//! The generations of an object that is changed: which are complete, which was begun, which was used.
//!
//! # Fields
//! `started` and `done` as `oracle.rs` has them; written by the one thread that changes the object, read by device threads.
//! `used` is the newest generation that a device has used: only a change of a used generation counts as an invalidation,
//! because the kernel reports only what is watched.

use std::sync::atomic::{AtomicU64, Ordering};

use super::oracle::Window;

/// The counters. See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Generations {
    started: AtomicU64,
    done: AtomicU64,
    used: AtomicU64,
}

impl Generations {
    /// A change begins.
    pub(crate) fn begin(&self) {
        // ORDERING: SeqCst, as all four of the oracle.
        self.started.fetch_add(1, Ordering::SeqCst);
    }

    /// The generation that was begun, to be written to memory now.
    pub(crate) fn begun(&self) -> u64 {
        // ORDERING: SeqCst, as all four of the oracle.
        self.started.load(Ordering::SeqCst)
    }

    /// What was begun is complete: every byte has been written.
    pub(crate) fn finish(&self) {
        // ORDERING: SeqCst, as all four of the oracle.
        self.done.store(self.begun(), Ordering::SeqCst);
    }

    /// The newest complete generation. Read before a use begins.
    pub(crate) fn done(&self) -> u64 {
        // ORDERING: SeqCst, as all four of the oracle.
        self.done.load(Ordering::SeqCst)
    }

    /// The states since the generation `since`. Read after a use has completed.
    pub(crate) fn window(&self, since: u64) -> Window {
        Window { since, until: self.begun() }
    }

    /// A device has used this generation.
    pub(crate) fn note_used(&self, generation: u64) {
        // ORDERING: Relaxed; it only steers which changes are made and counted.
        self.used.fetch_max(generation, Ordering::Relaxed);
    }

    /// Whether a device has used the generation that is there.
    pub(crate) fn is_used(&self) -> bool {
        // ORDERING: Relaxed, see `note_used`.
        self.used.load(Ordering::Relaxed) == self.done()
    }
}
