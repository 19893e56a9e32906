//! `HullSeq`: what KVM does, a sequence, a count of those in progress, and one range around all of them.
//!
//! The origin: `virt/kvm/kvm_main.c` (`kvm_mmu_invalidate_begin`, `_range_add`, `_end`) and `mmu_invalidate_retry_gfn`.
//!
//! # Guarantee
//! [`read_retry`](CollisionTracker::read_retry) says `Valid` only if no overlapping invalidation has started since
//! `read_begin` returned (as the seam's contract has it). It never says `Outrun`.
//!
//! # States
//! *Quiet*: nothing in progress, the hull is meaningless. *In progress*: the hull covers every invalidation that has
//! started since the address space was last quiet. It widens and never shrinks until all are done.
//!
//! # Fields
//! `in_progress` and the two ends of the hull are written under `writer`, by invalidations only; KVM's lock for it is
//! `mmu_lock`, which is its device lock too. Ours is apart from the device lock, so readers look without it, at
//! atomics. `sequence` is moved by each end, under `writer`.
//!
//! # Where it differs from KVM
//! * KVM's fault side does not sleep: it takes the sequence and, when the commit refuses, lets the guest fault again.
//!   The seam promises a wait with a deadline, so `read_begin` sleeps while the range lies in the hull, then takes the
//!   sequence. The wait is politeness: the commit is right without it.
//! * KVM's commit holds `mmu_lock` shared. Ours looks at four words without a lock, which is a little cheaper.
//! * There are no memory slots: each invalidation counts as one that hits some slot.
//!
//! # False retries
//! In progress: whatever lies in the hull. After: *any* end since the token, wherever it was. The token is taken before
//! the look at the hull, as in KVM, so an end between the two counts as well.
//!
//! # Interleavings
//! ```text
//! reader, under the device lock             invalidation
//! in_progress: 1; hull: elsewhere           [Required: if the hull is not the one that our invalidation is in, the
//!                                            sequence has moved]
//!                                           end: sequence += 1, then in_progress := 0
//!                                           (another) start: hull := elsewhere, in_progress := 1
//! sequence: moved, Hit
//! ```
//! The sequence is looked at last, and moved first; either the other way round loses an end.
//!
//! # Orderings
//! | site | ordering | pairs with | without it |
//! |---|---|---|---|
//! | `end`: sequence | Release | `read_begin`: Acquire | the page table is read as it was before the change |
//! | `end`: in_progress | Release | `read_retry`: Acquire | the commit sees the end and not the sequence |
//! | `set_hull`: both ends | Release | `read_retry`: Acquire | the commit sees the next hull and not the sequence of the last end |
//!
//! # Checked by
//! `tracker_oracle` (proptest, against this rule and the list of everything), `waits`, `stress`; the bugs of
//! [`planted`](crate::planted) show that they can fail.

use pagemirror_core::addr::{MIN_PAGE, PageRange};
use pagemirror_core::collision::{CollisionTracker, Conservative, InvalidationId, Reader, Token, Verdict};
use pagemirror_core::wait::{Interrupted, Wait, WaitQueue};
use pagemirror_sync::atomic::{AtomicU64, Ordering};
use pagemirror_sync::{Mutex, planted};

use crate::steps::step;

/// The sequence and the hull. See the module's text.
#[derive(Debug)]
pub struct HullSeq {
    /// Serialises starts and ends; held for a few stores.
    writer: Mutex<()>,
    sequence: AtomicU64,
    in_progress: AtomicU64,
    hull_start: AtomicU64,
    hull_end: AtomicU64,
    parked: WaitQueue,
}

impl HullSeq {
    /// A quiet address space whose sequence begins at `sequence`.
    #[must_use]
    pub fn starting_at(sequence: u64) -> Self {
        Self {
            writer: Mutex::new(()),
            sequence: AtomicU64::new(sequence),
            in_progress: AtomicU64::new(0),
            hull_start: AtomicU64::new(0),
            hull_end: AtomicU64::new(0),
            parked: WaitQueue::new(),
        }
    }

    /// Takes `range` into the hull. Under the writers' lock.
    fn widen(&self, range: PageRange, first: bool) {
        let (mut start, mut end) = (range.start().get(), range.end().get());
        if !first && !planted("hull-seq-replaced") {
            // ORDERING: Relaxed; only writers change it, and they hold the lock.
            start = start.min(self.hull_start.load(Ordering::Relaxed));
            end = end.max(self.hull_end.load(Ordering::Relaxed));
        }
        self.set_hull(start, end);
        step(|| format!("hull = pages {}..{}", start / MIN_PAGE, end / MIN_PAGE));
    }

    fn set_hull(&self, start: u64, end: u64) {
        // ORDERING: Release pairs with the Acquire of `is_in_hull`: who sees the hull of now sees the sequence of all the
        // ends before it.
        let order = if planted("hull-seq-hull-relaxed") { Ordering::Relaxed } else { Ordering::Release };
        self.hull_start.store(start, order);
        self.hull_end.store(end, order);
    }

    /// Whether something is in progress around `range`. The sequence is to be looked at after this.
    fn is_in_hull(&self, range: PageRange) -> bool {
        // ORDERING: Acquire pairs with the Release of `end`: who sees it done sees the sequence moved.
        self.in_progress.load(Ordering::Acquire) != 0
            // ORDERING: Acquire, see `set_hull`. Two ends of different hulls are no danger: see # Interleavings.
            && self.hull_start.load(Ordering::Acquire) < range.end().get()
            && range.start().get() < self.hull_end.load(Ordering::Acquire)
    }

    /// Moves the sequence. Under the writers' lock.
    fn move_sequence(&self) {
        // ORDERING: Relaxed load, writers hold the lock. Release pairs with the Acquire of `read_begin`: who reads the page
        // table after this sees the change.
        let next = self.sequence.load(Ordering::Relaxed).wrapping_add(1);
        self.sequence.store(next, Ordering::Release);
        step(|| format!("sequence = {next}"));
    }

    /// Counts one out. Under the writers' lock.
    fn leave(&self) {
        // ORDERING: Relaxed load, writers hold the lock. Release: the sequence was moved before.
        let rest = self.in_progress.load(Ordering::Relaxed).saturating_sub(1);
        let order = if planted("hull-seq-count-relaxed") { Ordering::Relaxed } else { Ordering::Release };
        self.in_progress.store(rest, order);
        step(|| format!("in progress = {rest}"));
        if rest > 0 && planted("hull-seq-shrunk-early") {
            self.set_hull(0, 0);
        }
    }
}

impl Default for HullSeq {
    fn default() -> Self {
        Self::starting_at(0)
    }
}

impl CollisionTracker for HullSeq {
    fn start(&self, range: PageRange) -> InvalidationId {
        let writing = self.writer.lock();
        if planted("hull-seq-moved-at-start") {
            self.move_sequence();
        }
        // ORDERING: Relaxed; only writers change the two, and they hold the lock.
        let running = self.in_progress.load(Ordering::Relaxed);
        let number = self.sequence.load(Ordering::Relaxed);
        self.widen(range, running == 0);
        // ORDERING: Release, so that a reader who waits finds the hull; the device lock carries it to who commits.
        self.in_progress.store(running + 1, Ordering::Release);
        step(|| format!("in progress = {}", running + 1));
        drop(writing);
        InvalidationId { number, slot: None }
    }

    fn end(&self, _id: InvalidationId) {
        let writing = self.writer.lock();
        if planted("hull-seq-counted-before-moved") {
            self.leave();
            self.move_sequence();
        } else if planted("hull-seq-moved-at-start") {
            self.leave();
        } else {
            self.move_sequence();
            self.leave();
        }
        drop(writing);
        if !planted("hull-seq-end-without-wake") {
            self.parked.wake();
        }
    }

    fn cancel(&self, id: InvalidationId) {
        if !planted("hull-seq-refused-start-leaks") {
            self.end(id);
        }
    }

    fn read_begin(&self, reader: &Reader, wait: &Wait<'_>) -> Result<Token, Interrupted> {
        let range = reader.range;
        let mut waited = false;
        loop {
            // ORDERING: Acquire pairs with the Release of `move_sequence`: the changes of all that have ended are seen.
            let order = if planted("hull-seq-token-relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
            let number = self.sequence.load(order);
            if !self.is_in_hull(range) {
                step(|| format!("token {number}: nothing is in progress around the range"));
                return Ok(Token { range, number, slot: None, subscription: None, waited });
            }
            waited = true;
            step(|| "in the hull: wait".into());
            // The deadline is looked at in each round: under a storm the condition may hold each time it is asked.
            self.parked.wait(wait, || !self.is_in_hull(range)).and_then(|()| wait.check())?;
        }
    }

    fn read_retry(&self, token: &Token) -> Verdict {
        let looked_early = planted("hull-seq-sequence-first").then(|| self.sequence.load(Ordering::Acquire));
        let in_hull = self.is_in_hull(token.range);
        // ORDERING: Relaxed; behind the Acquire loads of `is_in_hull`, and the device lock that our caller holds.
        let now = looked_early.unwrap_or_else(|| self.sequence.load(Ordering::Relaxed));
        let moved = if planted("hull-seq-ends-forgotten") {
            false
        } else if planted("hull-seq-compared-by-order") {
            now > token.number
        } else {
            now != token.number
        };
        step(|| format!("in the hull: {in_hull}; token {}, sequence == {now}", token.number));
        if in_hull || moved { Verdict::Hit(None) } else { Verdict::Valid }
    }

    fn read_end(&self, _token: Token) {}

    fn wake(&self) {
        self.parked.wake();
    }

    fn conservative(&self) -> Conservative {
        Conservative::default()
    }
}
