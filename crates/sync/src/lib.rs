//! The one place of pagemirror that names threading primitives.
//!
//! Everything above imports atomics, locks, threads and the clock from here, so that one source builds four ways:
//! for real threads (the default), for loom (`--cfg loom`: every interleaving and every permitted reordering of
//! a small body), for shuttle (`--cfg shuttle`: random schedules of a large one, sequentially consistent) and for the
//! simulator (`--cfg sim`: as shuttle, in virtual time, from a seed).
//!
//! Locks here do not poison: a panic while one is held leaves data that its owner must be able to live with, and
//! each owner says why it can. `Arc` and `OnceLock` are the standard ones everywhere: they are not what we check.
//!
//! # Planted bugs
//!
//! A check that has never failed proves nothing. Built with `--cfg pagemirror_planted`, [`planted`] says whether
//! the named bug was chosen by the environment variable `PAGEMIRROR_PLANTED`; in every other build it is the
//! constant `false` and the wrong branch is not compiled into anything.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod backend;
mod lock;
#[cfg(sim)]
pub mod sim;

pub use backend::{
    LANES, Lane, atomic, fence_for_loom, hint, lane, lanes_in_use, section_depth, thread, thread_index, time,
};
pub use lock::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use std::sync::{Arc, OnceLock};

/// Says whether the bug of this name is planted in this run. Always `false` outside `--cfg pagemirror_planted`.
#[inline(always)]
#[must_use]
pub fn planted(name: &str) -> bool {
    cfg!(pagemirror_planted) && chosen_bug() == Some(name)
}

#[cfg(pagemirror_planted)]
fn chosen_bug() -> Option<&'static str> {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("PAGEMIRROR_PLANTED").ok()).as_deref()
}

#[cfg(not(pagemirror_planted))]
fn chosen_bug() -> Option<&'static str> {
    None
}
