//! How long things take in virtual time.

use serde::{Deserialize, Serialize};

use super::clock::Time;
use super::kept::Keeping;
use crate::workload::Random;

/// Durations outside the tracker, in nanoseconds. They are assumptions, the same for every tracker, and stand in every
/// report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeModel {
    /// A fault reads the page table and has the device pin what is there. A device read fault on a present page takes
    /// 1 to 2 us in the kernel, a registration of a buffer some tens of us; this lies between.
    pub snapshot: Time,
    /// The change itself, from the last callback to the end: what munmap or MADV_DONTNEED of one page takes.
    pub change: Time,
    /// What each page of it adds. A page that was touched adds about 250 ns, and not every page was.
    pub change_per_page: Time,
    /// A callback holds the device lock: the first entry that it revokes costs about this.
    pub callback: Time,
    /// From an end until a sleeper looks again: half a round trip between two threads on one processor.
    pub wake: Time,
    /// One invalidation in this many is preempted between start and end; 0 for none.
    pub preempted_one_in: u64,
    /// For how long: a time slice of the kernel's scheduler.
    pub preempted: Time,
}

impl Default for TimeModel {
    fn default() -> Self {
        Self {
            snapshot: 10_000,
            change: 2_500,
            change_per_page: 100,
            callback: 700,
            wake: 3_000,
            preempted_one_in: 0,
            preempted: 3_000_000,
        }
    }
}

impl TimeModel {
    /// How long a change of this many pages takes, with what a preemption adds, if this one is `preempted`.
    #[must_use]
    pub fn change_of(&self, pages: u64, preempted: bool) -> Time {
        self.change + self.change_per_page * pages + if preempted { self.preempted } else { 0 }
    }

    /// Whether the next invalidation is preempted.
    pub fn is_preempted(&self, random: &mut Random) -> bool {
        self.preempted_one_in > 0 && random.below(self.preempted_one_in) == 0
    }
}

/// What one step of a tracker costs, and whether it is taken under the lock that all its callers share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// In nanoseconds.
    pub cost: Time,
    /// Under the tracker's lock, one after the other.
    pub locked: bool,
}

/// What the steps of a tracker cost. All zero: the run only counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Costs {
    /// `start`.
    pub start: Step,
    /// `end`.
    pub end: Step,
    /// `read_begin`, each time that it is asked, with what `read_end` costs.
    pub begin: Step,
    /// `read_retry`, which is always asked under the device lock, when nothing has started since.
    pub retry: Step,
    /// What a thousand invalidations that have started since add to it, in nanoseconds.
    pub retry_per_thousand: Time,
}

impl Costs {
    /// The cost of `read_retry` when this many invalidations have started since `read_begin`.
    #[must_use]
    pub fn retry_after(&self, started: usize) -> Step {
        Step { cost: self.retry.cost + self.retry_per_thousand * started as u64 / 1000, ..self.retry }
    }
}

/// What a run is given besides tracker and workload.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// When the run ends.
    pub until: Time,
    /// Threads of the device that fault.
    pub device_threads: usize,
    /// Durations outside the tracker.
    pub time: TimeModel,
    /// Durations inside it.
    pub costs: Costs,
    /// Whether ranges are made known to the tracker for long, or for each fault.
    pub keeping: Keeping,
}
