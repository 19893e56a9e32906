//! Addresses in doubt: a discard was announced, and nobody says when it is over.
//!
//! The kernel reports `madvise(DONTNEED, FREE, REMOVE)` *before* the pages go, releases the caller, and is silent about
//! the end. A page that is pinned in between may be thrown away a moment later with no further word. So the addresses
//! are put in doubt, and only proof that the caller has returned ends it. What is read in doubt serves one request
//! that was already made, and is never kept.
//!
//! # Guarantee
//! A reader whose attempt commits `Valid`, and who found its range not in doubt *after* it took its token, has not read
//! a page that an announced discard was still going to remove.
//!
//! # Fields
//! A slot is written under `writer` (the pump, a newly watched shared mapping, the prover that ends doubts) and read
//! by anybody. `marks` counts every doubt that was set; a proof that began at mark `m` ends the doubts up to `m`.
//!
//! # Interleavings
//! ```text
//! reader                                    pump
//! token := head                             doubt := range        [Required: before the append]
//! in doubt? no   [Required: after token]    append to the log
//! read the doomed page                      (the caller is released and removes it)
//! lock; commit: entry newer than the token, Hit
//! ```
//! Doubt belongs to the *address*: it survives UNMAP, MAP_FIXED and REMAP of it, because the caller looks its address
//! up again after the announcement and removes whatever is mapped there by then.
//!
//! # Orderings
//! Message passing, as for a running slot: doubt slot (Release), head (Release) against token (Acquire), slot (Acquire).
//!
//! # Checked by
//! `doubt_against_append_and_token` (loom), planted bugs `doubt-after-append`, `doubt-before-token`. The proofs, and the
//! attacks that broke cheaper ones, are tested on the real kernel in `linux`.

use std::fmt;

use pagemirror_sync::Mutex;
use pagemirror_sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::addr::PageRange;
use crate::memory::Slot;

/// Doubts that are kept apart. One more puts every address in doubt until all those of that time are over.
pub const DOUBTS: usize = if cfg!(any(loom, shuttle)) { 2 } else { 1024 };

/// The addresses in doubt.
pub struct DoubtSet {
    slots: Box<[Slot]>,
    /// Slots at and beyond this index were never used.
    used: AtomicUsize,
    /// The mark of the newest doubt that found no slot; zero when there is none.
    overflow: AtomicU64,
    overflows: AtomicU64,
    marks: AtomicU64,
    writer: Mutex<Box<[u64]>>,
}

impl DoubtSet {
    /// Nothing in doubt, with room for so many doubts that are kept apart.
    #[must_use]
    pub(crate) fn with_room(doubts: usize) -> Self {
        Self {
            slots: (0..doubts).map(|_| Slot::default()).collect(),
            used: AtomicUsize::new(0),
            overflow: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
            marks: AtomicU64::new(0),
            writer: Mutex::new((0..doubts).map(|_| 0).collect()),
        }
    }

    /// Puts `range` in doubt. Before the append of the invalidation that goes with it. Never allocates.
    ///
    /// # Blocking
    /// Takes a lock that is held for one pass over the doubts at most.
    pub fn set(&self, range: PageRange) {
        let mut slot_marks = self.writer.lock();
        // ORDERING: Relaxed; written under the lock only.
        let mark = self.marks.load(Ordering::Relaxed) + 1;
        let used = self.used.load(Ordering::Relaxed);
        let same = self.slots[..used].iter().position(|slot| slot.range() == Some(range));
        let free = || self.slots.iter().position(|slot| slot.range().is_none());
        match same.or_else(free) {
            Some(index) => {
                slot_marks[index] = mark;
                if index >= used {
                    // ORDERING: Release; published together with the slot by the head, see # Orderings.
                    self.used.store(index + 1, Ordering::Release);
                }
                self.slots[index].set(range);
            }
            None => {
                // ORDERING: Release, as a slot.
                self.overflow.store(mark, Ordering::Release);
                self.overflows.fetch_add(1, Ordering::Relaxed);
            }
        }
        // ORDERING: Release pairs with the Acquire of `mark`: a proof that starts from this mark started after `set`.
        self.marks.store(mark, Ordering::Release);
    }

    /// Whether a page of `range` is in doubt. Asked after the token was taken.
    #[must_use]
    pub fn overlaps(&self, range: PageRange) -> bool {
        // ORDERING: Acquire, as a slot. A doubt that the token counts in has its index below `used`.
        let used = self.used.load(Ordering::Acquire);
        self.overflow.load(Ordering::Acquire) != 0
            || self.slots[..used].iter().any(|slot| slot.range().is_some_and(|doubt| doubt.overlaps(range)))
    }

    /// The newest doubt there is. A proof reads it first, looks at every thread, and ends doubts up to it.
    #[must_use]
    pub fn mark(&self) -> u64 {
        // ORDERING: Acquire pairs with the Release of `set`.
        self.marks.load(Ordering::Acquire)
    }

    /// Whether anything is in doubt.
    #[must_use]
    pub fn any(&self) -> bool {
        self.overlaps(PageRange::ALL)
    }

    /// Ends the doubts that were set up to `mark`: every caller of theirs was seen to have returned.
    pub fn end(&self, mark: u64) {
        self.end_where(mark, |_| true);
    }

    /// As [`end`](Self::end), for the ranges that `over` picks. For control runs that end doubts on weaker evidence.
    pub fn end_where(&self, mark: u64, over: impl Fn(PageRange) -> bool) {
        let slot_marks = self.writer.lock();
        for (slot, slot_mark) in self.slots.iter().zip(slot_marks.iter()) {
            if *slot_mark <= mark && slot.range().is_some_and(&over) {
                slot.clear();
            }
        }
        // ORDERING: Relaxed, under the lock; Release as clearing a slot.
        if self.overflow.load(Ordering::Relaxed) <= mark {
            self.overflow.store(0, Ordering::Release);
        }
    }

    /// How many doubts found no slot of their own, and so put everything in doubt for a while.
    #[must_use]
    pub fn overflows(&self) -> u64 {
        // ORDERING: Relaxed; a statistic.
        self.overflows.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for DoubtSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.slots.iter().filter_map(Slot::range);
        f.debug_list().entries(ranges).finish()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::addr::VirtAddr;

    fn pages(first: u64, count: u64) -> PageRange {
        PageRange::covering(VirtAddr::new(first * 4096), count * 4096, 4096).unwrap()
    }

    #[test]
    fn a_proof_ends_only_the_doubts_that_it_began_after() {
        let doubt = DoubtSet::with_room(DOUBTS);
        doubt.set(pages(0, 4));
        let mark = doubt.mark();
        doubt.set(pages(8, 4));
        doubt.end(mark);
        assert!(!doubt.overlaps(pages(0, 4)));
        assert!(doubt.overlaps(pages(9, 1)));
    }

    #[test]
    fn a_second_discard_of_the_same_range_needs_a_proof_of_its_own() {
        let doubt = DoubtSet::with_room(DOUBTS);
        doubt.set(pages(0, 4));
        let mark = doubt.mark();
        doubt.set(pages(0, 4));
        doubt.end(mark);
        assert!(doubt.overlaps(pages(3, 1)), "the second caller may still be at it");
    }

    #[test]
    fn too_many_doubts_put_everything_in_doubt_and_come_back() {
        let doubt = DoubtSet::with_room(DOUBTS);
        for page in 0..=DOUBTS as u64 {
            doubt.set(pages(page * 2, 1));
        }
        assert!(doubt.overlaps(pages(1, 1)), "the doubt without a slot stands for everything");
        assert_eq!(doubt.overflows(), 1);
        doubt.end(doubt.mark());
        assert!(!doubt.any());
    }
}
