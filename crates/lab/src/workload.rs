//! What a tracker is driven with: who invalidates what and when, and what the device faults.

mod ground;
mod mapped;
mod random;
mod synthetic;
mod traced;

use pagemirror_core::addr::PageRange;

pub use ground::Ground;
pub use random::Random;
pub use synthetic::{Synthetic, SyntheticOptions, WorkingSet};
pub use traced::{DeviceOptions, Lives, TracedSpace};

use crate::drive::Time;

/// One call that changes memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What it invalidates, each range started and called back in this order, all ended after the change. Empty for a
    /// call that only maps.
    pub ranges: Vec<PageRange>,
    /// How long the change takes after the last callback.
    pub change: Time,
    /// The workload's own number of it.
    pub number: usize,
}

/// What a device thread does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub at: Time,
    /// What it faults; nothing when it only pauses until then.
    pub range: Option<PageRange>,
}

/// A source of jobs and faults. It may keep state, and may not look at the tracker: every tracker gets the same work.
pub trait Workload {
    /// The ranges that the device mirrors before anything happens.
    fn known(&self) -> Vec<PageRange> {
        Vec::new()
    }

    /// How many threads change memory.
    fn invalidators(&self) -> usize;

    /// The next job of this invalidator, and when it is due (now, if that has passed). None: it has no more.
    fn next_job(&mut self, invalidator: usize, now: Time) -> Option<(Time, Job)>;

    /// The job is over.
    fn done(&mut self, job: &Job) {
        let _ = job;
    }

    /// What this thread of the device faults next. None: it has no more to do.
    fn next_fault(&mut self, device: usize, now: Time) -> Option<Fault>;

    /// The ranges that the device has had no use for since this was last asked.
    fn forgotten(&mut self) -> Vec<PageRange> {
        Vec::new()
    }
}
