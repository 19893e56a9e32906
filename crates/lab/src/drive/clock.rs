//! Virtual time: who is due when, and what only one of them can have at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Virtual nanoseconds since the run began.
pub type Time = u64;

/// Who has a step to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Actor {
    Device(usize),
    Invalidator(usize),
}

/// The steps to come, in order of time, and of being put there within one instant.
#[derive(Debug, Default)]
pub(super) struct Queue {
    steps: BinaryHeap<Reverse<(Time, u64, Actor)>>,
    put: u64,
}

impl Queue {
    pub(super) fn put(&mut self, at: Time, actor: Actor) {
        self.put += 1;
        self.steps.push(Reverse((at, self.put, actor)));
    }

    /// The next step, unless it lies behind `until`.
    pub(super) fn next(&mut self, until: Time) -> Option<(Time, Actor)> {
        let Reverse((at, _, actor)) = self.steps.pop()?;
        (at <= until).then_some((at, actor))
    }
}

/// A lock in virtual time: whoever asks first has it first.
#[derive(Debug, Default)]
pub(super) struct Serial {
    free: Time,
}

impl Serial {
    /// When somebody who asks now would have it.
    pub(super) fn begins(&self, now: Time) -> Time {
        self.free.max(now)
    }

    /// Holds it for `hold` as soon as it is free; the answer is when that is over.
    pub(super) fn take(&mut self, now: Time, hold: Time) -> Time {
        self.free = self.begins(now) + hold;
        self.free
    }

    /// Whoever has it keeps it until `end`.
    pub(super) fn hold_until(&mut self, end: Time) {
        self.free = self.free.max(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_one_instant_keep_the_order_in_which_they_were_put() {
        let mut queue = Queue::default();
        queue.put(5, Actor::Device(1));
        queue.put(5, Actor::Device(0));
        queue.put(3, Actor::Invalidator(9));
        queue.put(8, Actor::Device(7));
        let order: Vec<_> = std::iter::from_fn(|| queue.next(7)).collect();
        assert_eq!(order, [(3, Actor::Invalidator(9)), (5, Actor::Device(1)), (5, Actor::Device(0))]);
    }

    #[test]
    fn a_lock_is_held_one_after_the_other() {
        let mut lock = Serial::default();
        assert_eq!([lock.take(10, 5), lock.take(12, 5), lock.take(30, 1)], [15, 20, 31]);
    }
}
