//! Who holds what, without a count that threads share: each thread writes the names of what it holds in a lane of its own,
//! and whoever wants to take something away looks at all lanes.
//!
//! # Guarantee
//! When [`Holds::any`] says that nobody holds a name, then nobody does who took it by [`Holds::take`] and found the name
//! standing *afterwards*, provided that it was taken down (and a sequentially consistent fence passed) before the question.
//!
//! # States
//! A slot is zero, *free*, or holds a name plus one. A taker turns free into held; whoever has the [`Hold`] frees it, on any
//! thread.
//!
//! # Fields
//! The slots of a lane are taken by its thread alone (of the last one: by all threads that share it), freed by
//! anybody who was given the hold, and read by anybody. `hint` is where the thread looks first; it proves nothing.
//!
//! # Interleavings
//! ```text
//! taker                                     who takes it away
//! slot := name (SeqCst)                     name does not stand any more
//!                                           fence(SeqCst)
//! does the name stand? yes, go on           slots: nobody, go on
//! ```
//! `[Required: not both]`. [`Holds::take_in_section`] is cheaper: it does without the order of the first column, because the
//! taker is in a section of the [gate](crate::gate), and the other side [settles](crate::gate::Gate::settle) the sections
//! before it asks.
//!
//! What is held twice in turn, by an old hold and then by a new one in another `Holds`, is found if the question is asked
//! of the old one's first.
//!
//! # Orderings
//! | site | ordering | pairs with | without it |
//! |---|---|---|---|
//! | `take`: slot, and the look behind it | SeqCst | fence before `any` | held and taken away at once |
//! | `give_back`: slot | Release | `any`, `for_each`: Acquire | taken away while the holder is still at it |
//!
//! # Checked by
//! `hold_against_taking_away`, `hold_in_section_against_taking_away` (loom), planted bugs `hold-without-fence`,
//! `settle-without-fence`, `give-back-relaxed`; what is held twice in turn by the models of the cache (shuttle).
//!
//! # Not covered
//! As in the [gate](crate::gate): loom checks a fence where the ordinary build has sequentially consistent accesses.

use std::fmt;
use std::num::NonZeroU32;

use pagemirror_sync::atomic::{AtomicU64, Ordering};
use pagemirror_sync::{LANES, Lane, fence_for_loom, lanes_in_use, planted};

/// Slots of one lane: what a thread holds at a time beyond this, or what it does not find room for at once, is counted
/// elsewhere. One less than a power of two, so that a lane with its hint fills whole lines.
const SLOTS: usize = if cfg!(any(loom, shuttle)) { 2 } else { 31 };
/// Slots that are looked at before the lane is called full.
const LOOKS: usize = if SLOTS < 4 { SLOTS } else { 4 };

#[derive(Debug)]
#[repr(align(128))]
struct Row {
    hint: AtomicU64,
    slots: [AtomicU64; SLOTS],
}

/// What threads hold, by name. See the module's text.
pub struct Holds {
    rows: Box<[Row]>,
}

/// A slot that is held. Give it back once.
#[derive(Debug, Clone, Copy)]
#[must_use = "what is held stays held until it is given back"]
pub struct Hold<'h>(&'h AtomicU64);

impl Hold<'_> {
    /// Gives back what was held. On any thread.
    #[inline(always)]
    pub fn give_back(self) {
        // ORDERING: Release pairs with `any`: what the holder did is over.
        let order = if planted("give-back-relaxed") { Ordering::Relaxed } else { Ordering::Release };
        self.0.store(0, order);
    }
}

impl Default for Holds {
    fn default() -> Self {
        let free = |_| AtomicU64::new(0);
        let row = |_| Row { hint: AtomicU64::new(0), slots: std::array::from_fn(free) };
        Self { rows: (0..LANES).map(row).collect() }
    }
}

impl Holds {
    /// Holds `name`, so that the look that the caller takes afterwards, with sequentially consistent ordering, says whether the
    /// name still stood. `None` when the lane is full.
    #[inline]
    pub fn take(&self, lane: Lane, name: u32) -> Option<Hold<'_>> {
        let row = &self.rows[lane.index()];
        let taken = row.slot(|slot| {
            // ORDERING: SeqCst keeps the order to the caller's look (# Interleavings).
            slot.compare_exchange(0, u64::from(name) + 1, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        });
        if !planted("hold-without-fence") {
            fence_for_loom();
        }
        taken
    }

    /// Holds `name`. The caller is in a section, and stays in it until it has looked whether the name stands. `None` when
    /// the lane is full.
    #[inline]
    pub fn take_in_section(&self, lane: Lane, name: u32) -> Option<Hold<'_>> {
        let row = &self.rows[lane.index()];
        let word = u64::from(name) + 1;
        if lane.is_exclusive() {
            row.slot(|slot| {
                // ORDERING: Acquire pairs with `give_back`. The store is published by leaving the section, and nobody else
                // takes a slot of this lane.
                let free = slot.load(Ordering::Acquire) == 0;
                if free {
                    slot.store(word, Ordering::Relaxed);
                }
                free
            })
        } else {
            // ORDERING: as above; others may be after the same slot.
            row.slot(|slot| slot.compare_exchange(0, word, Ordering::Acquire, Ordering::Relaxed).is_ok())
        }
    }

    /// The number of a slot that is held, for who cannot keep the borrow. Looks in `lane` first.
    #[must_use]
    pub fn number(&self, lane: Lane, hold: Hold<'_>) -> Option<NonZeroU32> {
        let lanes = std::iter::once(lane.index()).chain(lanes_in_use());
        let numbers = lanes.flat_map(|lane| (0..SLOTS).map(move |at| (lane, at)));
        let (lane, at) = numbers.into_iter().find(|(lane, at)| std::ptr::eq(&self.rows[*lane].slots[*at], hold.0))?;
        NonZeroU32::new((lane * SLOTS + at + 1) as u32)
    }

    /// As [`Hold::give_back`], by the number of the hold.
    pub fn give_back_numbered(&self, number: NonZeroU32) {
        let at = number.get() as usize - 1;
        if let Some(slot) = self.rows.get(at / SLOTS).map(|row| &row.slots[at % SLOTS]) {
            Hold(slot).give_back();
        }
    }

    /// Whether somebody holds `name`.
    #[must_use]
    pub fn any(&self, name: u32) -> bool {
        let word = u64::from(name) + 1;
        // ORDERING: Acquire pairs with `give_back`.
        lanes_in_use().any(|lane| self.rows[lane].slots.iter().any(|slot| slot.load(Ordering::Acquire) == word))
    }

    /// Calls `each` with every name that is held.
    pub fn for_each(&self, mut each: impl FnMut(u32)) {
        for lane in lanes_in_use() {
            for slot in &self.rows[lane].slots {
                // ORDERING: Acquire, as in `any`.
                let word = slot.load(Ordering::Acquire);
                if word != 0 {
                    each((word - 1) as u32);
                }
            }
        }
    }
}

impl Row {
    /// The first of a few slots that `take` takes.
    #[inline(always)]
    fn slot(&self, take: impl Fn(&AtomicU64) -> bool) -> Option<Hold<'_>> {
        // ORDERING: Relaxed; a hint.
        let hint = self.hint.load(Ordering::Relaxed) as usize;
        if let Some(slot) = self.slots.get(hint)
            && take(slot)
        {
            return Some(Hold(slot));
        }
        self.other_slot(hint, take)
    }

    #[cold]
    #[inline(never)]
    fn other_slot(&self, hint: usize, take: impl Fn(&AtomicU64) -> bool) -> Option<Hold<'_>> {
        let found = (hint + 1..=hint + LOOKS).map(|at| at % SLOTS).find(|at| take(&self.slots[*at]))?;
        self.hint.store(found as u64, Ordering::Relaxed);
        Some(Hold(&self.slots[found]))
    }
}

impl fmt::Debug for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut held = 0;
        self.for_each(|_| held += 1);
        f.debug_struct("Holds").field("held", &held).finish_non_exhaustive()
    }
}
