//! Which processors there are, and putting a thread on one of them.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The two processors that an adversary plays on; the same one twice where there is only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) first: usize,
    pub(crate) second: usize,
}

impl Pair {
    /// The first and the last processor that this process may run on.
    pub(crate) fn of_this_process() -> Self {
        let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        let mut usable = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let first = usable.next().unwrap_or(0);
        Self { first, second: usable.next_back().unwrap_or(first) }
    }
}

/// Keeps the calling thread on `cpu`. Without it a row shows less, and is still right.
pub(crate) fn stay_on(cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu);
    let _ = sched_setaffinity(None, &only);
}
