//! Which slots of the table are free.
//!
//! # Guarantee
//! A slot is given out to one registration at a time, and again only after the kernel has let go of the one before.
//! The cache asks for that when the last use of a registration was given back, so **no slot is named by two registrations
//! while a request that names it is in flight**: the kernel looks the slot up when it *issues* a request, which may be
//! long after it was submitted (links, drains, polling threads, worker threads).
//!
//! # States
//! Of one slot: [`Free`](State::Free), [`Filled`](State::Filled) (from before the call that fills it), then
//! [`Clearing`](State::Clearing) and back to free; or [`Stuck`](State::Stuck) when the kernel did not let go: never used
//! again.
//!
//! # Checked by
//! `tests/slot_reuse.rs`, and the unit tests below.

use std::collections::VecDeque;

use crate::fixed::Slot;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Filled { bytes: u64 },
    Clearing,
    Stuck,
}

/// The states of all slots. Lives under one lock, which is never held across a system call.
#[derive(Debug)]
pub(crate) struct Slots {
    states: Box<[State]>,
    /// First in, first out: a slot rests for as long as possible, so that a request whose use was given back too early
    /// by a faulty caller finds an empty slot (and fails) rather than somebody else's pages.
    free: VecDeque<Slot>,
}

impl Slots {
    pub(crate) fn new(count: u16) -> Self {
        Self {
            states: vec![State::Free; usize::from(count)].into_boxed_slice(),
            free: (0..count).map(Slot::new).collect(),
        }
    }

    /// A free slot, for `bytes` bytes.
    pub(crate) fn take(&mut self, bytes: u64) -> Option<Slot> {
        let slot = self.free.pop_front()?;
        self.states[slot.index()] = State::Filled { bytes };
        Some(slot)
    }

    /// The kernel did not fill `slot` after all.
    pub(crate) fn give_back(&mut self, slot: Slot) {
        self.states[slot.index()] = State::Free;
        self.free.push_back(slot);
    }

    /// Begins to clear `slot`. `false` when it is not filled: then it is not the caller's to clear.
    #[must_use]
    pub(crate) fn begin_clear(&mut self, slot: Slot) -> bool {
        match self.states.get_mut(slot.index()) {
            Some(state @ State::Filled { .. }) => {
                *state = State::Clearing;
                true
            }
            _ => false,
        }
    }

    /// The kernel has let go of `slot`, or not.
    pub(crate) fn end_clear(&mut self, slot: Slot, cleared: bool) {
        if cleared {
            self.give_back(slot);
        } else {
            self.states[slot.index()] = State::Stuck;
        }
    }

    /// How many slots are filled, and with how many bytes.
    pub(crate) fn filled(&self) -> (u16, u64) {
        self.states.iter().fold((0, 0), |(slots, sum), state| match state {
            State::Filled { bytes } => (slots + 1, sum + bytes),
            _ => (slots, sum),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_given_out_once_until_it_was_cleared() {
        let mut slots = Slots::new(2);
        let (first, second) = (slots.take(4096).unwrap(), slots.take(4096).unwrap());
        assert_ne!(first, second);
        assert_eq!(slots.take(4096), None);
        assert!(slots.begin_clear(first));
        assert_eq!(slots.take(4096), None, "the kernel still has it");
        slots.end_clear(first, true);
        assert_eq!(slots.take(8192), Some(first));
        assert_eq!(slots.filled(), (2, 12288));
    }

    #[test]
    fn a_slot_is_cleared_once() {
        let mut slots = Slots::new(2);
        let slot = slots.take(4096).unwrap();
        assert!(slots.begin_clear(slot));
        assert!(!slots.begin_clear(slot), "twice at the same time");
        slots.end_clear(slot, true);
        assert!(!slots.begin_clear(slot), "twice, one after the other");
        assert!(!slots.begin_clear(Slot::new(7)), "of another table");
    }

    #[test]
    fn a_slot_that_the_kernel_kept_is_out_of_use() {
        let mut slots = Slots::new(1);
        let slot = slots.take(4096).unwrap();
        assert!(slots.begin_clear(slot));
        slots.end_clear(slot, false);
        assert_eq!(slots.take(4096), None);
        assert!(!slots.begin_clear(slot));
    }
}
