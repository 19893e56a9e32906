//! Who runs next: a queue by virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// An actor that is to run at `time`, unless it has run since (`turn` tells).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) time: u64,
    /// Decides among those of one instant: drawn at random, so that no actor is always first.
    pub(super) order: u32,
    pub(super) actor: usize,
    pub(super) turn: u32,
}

/// The queue. Entries of actors that were woken earlier stay in it and are skipped.
#[derive(Debug, Default)]
pub(super) struct Queue(BinaryHeap<Reverse<Due>>);

impl Queue {
    pub(super) fn push(&mut self, due: Due) {
        self.0.push(Reverse(due));
    }

    pub(super) fn pop(&mut self) -> Option<Due> {
        self.0.pop().map(|Reverse(due)| due)
    }

    /// Whether nobody is due up to `time`.
    pub(super) fn is_quiet_until(&self, time: u64) -> bool {
        self.0.peek().is_none_or(|Reverse(due)| due.time > time)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
