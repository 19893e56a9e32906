//! What a run counts.

use serde::{Deserialize, Serialize};

/// Whole numbers only: they are the same on every machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Faults that were installed.
    pub served: u64,
    /// Faults that were still going round when the run ended.
    pub unfinished: u64,
    /// Times that a fault read the page table and asked for the verdict.
    pub attempts: u64,
    /// Verdicts other than `Valid`: true, false and conservative ones together.
    pub collisions: u64,
    /// `Hit`, and an overlapping invalidation had started or was running.
    pub true_retries: u64,
    /// `Hit`, and none had.
    pub false_retries: u64,
    /// `Outrun`: the tracker no longer knew.
    pub conservative: u64,
    /// Invalidations that found no room and stood for everything.
    pub overflow: u64,
    /// `Valid`, though an overlapping invalidation had started or was running: what was installed is stale for ever.
    pub missed: u64,
    /// Attempts that had to wait before they could begin.
    pub waits: u64,
    /// Those of them that were made to wait at least once while no overlapping invalidation ran.
    pub needless_waits: u64,
    /// Time waited, in virtual nanoseconds.
    pub waited_ns: u64,
    /// The part of it that began while no overlapping invalidation ran.
    pub needless_ns: u64,
    /// The longest time from the first attempt of a fault to its installation, or to the end of the run.
    pub starved_ns: u64,
    /// The time from first attempt to installation, summed over what was served.
    pub latency_ns: u64,
    /// Time spent reading the page table, all attempts together.
    pub reading_ns: u64,
    /// Invalidations that started.
    pub invalidations: u64,
    /// The tracker's own time in all steps, from the plan's costs.
    pub tracker_ns: u64,
    /// Time spent waiting for the tracker's lock.
    pub lock_wait_ns: u64,
    /// Time that invalidators spent in the tracker, waiting for its lock included.
    pub invalidators_ns: u64,
}

impl Counts {
    /// Sums two runs; of the longest times, the longer.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            served: self.served + other.served,
            unfinished: self.unfinished + other.unfinished,
            attempts: self.attempts + other.attempts,
            collisions: self.collisions + other.collisions,
            true_retries: self.true_retries + other.true_retries,
            false_retries: self.false_retries + other.false_retries,
            conservative: self.conservative + other.conservative,
            overflow: self.overflow + other.overflow,
            missed: self.missed + other.missed,
            waits: self.waits + other.waits,
            needless_waits: self.needless_waits + other.needless_waits,
            waited_ns: self.waited_ns + other.waited_ns,
            needless_ns: self.needless_ns + other.needless_ns,
            starved_ns: self.starved_ns.max(other.starved_ns),
            latency_ns: self.latency_ns + other.latency_ns,
            reading_ns: self.reading_ns + other.reading_ns,
            invalidations: self.invalidations + other.invalidations,
            tracker_ns: self.tracker_ns + other.tracker_ns,
            lock_wait_ns: self.lock_wait_ns + other.lock_wait_ns,
            invalidators_ns: self.invalidators_ns + other.invalidators_ns,
        }
    }
}
