//! The exact answer: a list of everything that ever started.
//!
//! Whoever drives a tracker tells the oracle of each step in the order in which the steps take effect, so it is for one
//! thread, for a model, and for a simulation; never for threads that race.

use pagemirror_core::addr::PageRange;
use pagemirror_core::collision::Verdict;

/// A tracker's answer beside the exact one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Judgement {
    /// The answer is the exact one.
    Exact,
    /// A retry without an overlapping invalidation: safe, and work done for nothing.
    FalseRetry,
    /// The tracker says that it no longer knows. Safe; not a claim that something overlapped.
    Conservative,
    /// `Valid` although this invalidation overlaps and started since: what is installed now is stale for ever.
    Missed(PageRange),
}

/// Everything that ever started, in order.
#[derive(Debug, Default)]
pub struct Oracle {
    started: Vec<PageRange>,
}

impl Oracle {
    /// An invalidation of `range` has started.
    pub fn start(&mut self, range: PageRange) {
        self.started.push(range);
    }

    /// Where a reader stands whose `read_begin` has returned now.
    #[must_use]
    pub fn position(&self) -> usize {
        self.started.len()
    }

    /// Compares the verdict on an attempt that began at `position` and reads `range`.
    pub fn judge(&self, position: usize, range: PageRange, verdict: Verdict) -> Judgement {
        let hit = self.started[position.min(self.started.len())..].iter().copied().find(|by| by.overlaps(range));
        match (verdict, hit) {
            (Verdict::Valid, Some(by)) => Judgement::Missed(by),
            (Verdict::Hit(_), None) => Judgement::FalseRetry,
            (Verdict::Outrun, _) => Judgement::Conservative,
            (Verdict::Valid, None) | (Verdict::Hit(_), Some(_)) => Judgement::Exact,
        }
    }
}
