//! `CollisionLog`, the tracker that pagemirror ships: invalidations leave their ranges, readers leave nothing.
//!
//! # Guarantee
//! [`read_retry`](CollisionTracker::read_retry) says `Valid` only if no overlapping invalidation has started since
//! `read_begin` returned (as the seam's contract has it). It says `Hit` only if one has. `Outrun` says that the log no
//! longer knows; an attempt that goes again with that verdict in hand gets an exact answer at any rate of
//! invalidations, as long as a reader slot is free.
//!
//! # Steps
//! An invalidation: **range into a running slot, and the slot's busy bit**, **number from the head**, **fill and publish the
//! entry of that number**, mark the readers that were outrun before; then its callbacks; at the end clear the bit.
//! A reader: **load the head** (the token), **then look at the busy slots**; wait for those that overlap, and begin
//! again with a new token; then ask whatever else it has to ask; read the page table; take the device lock; look at
//! the entries newer than the token. Each of these orders is needed: the planted bugs swap them one by one.
//!
//! # Interleavings
//! ```text
//! reader                                    invalidation
//! head: 4 (token)                           slot := range; busy
//! busy slots: none overlaps                 head := 5; entry 5 := range
//! [Required: an invalidation not seen in    (callbacks wait for the device lock)
//!  the slots has a number above the token]
//! read the page table                       clear the bit, the change is over
//! lock; entries 5..: overlap, Hit
//! ```
//! That an invalidation starts *and ends* between the two looks is where a flag per range loses it: the flag is back
//! at "valid". The number is not.
//!
//! # Orderings
//! Busy bits and head are message passing: set the bit (Release), head (Release) against token (Acquire), bits (Acquire).
//! Bits are only ever changed by read-modify-writes, so whoever reads a later state of the word also sees what each change
//! before it has published. A reader that loads the word before a slot changes hands and the range after it finds the next
//! owner's range: hence Release and Acquire on the range as well, and Acquire where the next owner finds the slot free, so
//! that with the range it sees the former owner's change. No sequentially consistent access is needed. A
//! reader slot against a running invalidation is a store
//! followed by a load on both sides, hence the two fences. The head is looked at with Relaxed at the commit, because the
//! device lock orders it behind every callback that has run.
//!
//! # Checked by
//! Loom: `begin_commit_against_start_end`, `overlap_chain`, `outrun_and_hit_field`, `nested_invalidations`, and the
//! planted bugs `number-before-slot`, `slots-before-head`, `no-wait`, `one-slot-per-thread`, `token-relaxed`,
//! `busy-load-relaxed`, `free-load-relaxed`, `clear-relaxed`, `hit-without-fence`, `hit-against-zero`, `ends-forgotten`. Against an exact
//! oracle: `tests/log_oracle.rs`.
//!
//! # Not covered
//! A log that the kernel writes: its stores are not seen by a model checker. The handing over of a reader slot from one
//! owner to the next (`owner`): loom takes the order of execution for the order of modification, so it cannot show what
//! Acquire and Release there prevent.

use std::fmt;

use pagemirror_sync::atomic::{AtomicU64, Ordering, fence};
use pagemirror_sync::{Mutex, hint, planted, thread};

use crate::addr::PageRange;
use crate::collision::{CollisionTracker, Conservative, InvalidationId, Reader, Token, Verdict};
use crate::memory::{Entry, EntryRead, HeapMemory, LogMemory, LogSize, is_younger};
use crate::wait::{Interrupted, Wait, WaitQueue};

/// How often a reader looks at an entry that is not published yet before it answers `Outrun`. Publishing takes a few
/// instructions; a writer that takes longer was preempted, and the reader holds the device lock.
const PUBLISH_SPINS: u32 = if cfg!(any(loom, shuttle)) { 1 } else { 64 };

const FREE: u64 = 0;
const OWNED: u64 = 1;

/// The log of invalidations. See the module's text.
#[derive(Debug)]
pub struct CollisionLog<M: LogMemory = HeapMemory> {
    memory: M,
    /// Writers of this process take slot, number and entry one after the other. Held for those steps only.
    writer: Mutex<()>,
    parked: WaitQueue,
    outrun: AtomicU64,
    overflowed: AtomicU64,
}

impl CollisionLog {
    /// A log of this size in ordinary memory.
    #[must_use]
    pub fn new(size: LogSize) -> Self {
        Self::over(HeapMemory::new(size))
    }

    /// A log whose numbers go round in the sight of a test; see [`HeapMemory::starting_after`].
    #[must_use]
    pub fn starting_after(size: LogSize, number: u64) -> Self {
        Self::over(HeapMemory::starting_after(size, number))
    }
}

impl Default for CollisionLog {
    fn default() -> Self {
        Self::new(LogSize::default())
    }
}

impl<M: LogMemory> CollisionTracker for CollisionLog<M> {
    fn start(&self, range: PageRange) -> InvalidationId {
        let writing = self.writer.lock();
        let early = planted("number-before-slot").then(|| self.take_number());
        let slot = self.occupy(range);
        let number = early.unwrap_or_else(|| self.take_number());
        self.place(number).publish(number, range);
        drop(writing);
        self.hit_readers(range, number);
        InvalidationId { number, slot }
    }

    fn end(&self, id: InvalidationId) {
        match id.slot {
            Some(slot) => self.vacate(slot),
            // ORDERING: Release, as clearing a bit: it publishes that the change is over.
            None => drop(self.memory.overflow().fetch_sub(1, Ordering::Release)),
        }
        self.parked.wake();
    }

    fn read_begin(&self, reader: &Reader, wait: &Wait<'_>) -> Result<Token, Interrupted> {
        let range = reader.range;
        let slot = if reader.previous == Some(Verdict::Outrun) { self.claim_reader(range) } else { None };
        let mut waited = false;
        loop {
            let looked_early = planted("slots-before-head").then(|| self.is_running(range));
            // ORDERING: Acquire pairs with the Release of the head: who is counted in the token has its slot visible.
            let order = if planted("token-relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
            let number = self.memory.head().load(order);
            if !looked_early.unwrap_or_else(|| self.is_running(range)) || planted("no-wait") {
                return Ok(Token { range, number, slot, subscription: None, waited });
            }
            waited = true;
            // The deadline is looked at in each round: under a storm the condition may hold each time it is asked.
            if let Err(why) = self.parked.wait(wait, || !self.is_running(range)).and_then(|()| wait.check()) {
                self.release_reader(slot);
                return Err(why);
            }
        }
    }

    fn read_retry(&self, token: &Token) -> Verdict {
        if planted("ends-forgotten") {
            // The planted bug: a flag that is back at "valid" once the invalidation has ended.
            return if self.is_running(token.range) { Verdict::Hit(None) } else { Verdict::Valid };
        }
        let verdict = match token.slot {
            Some(slot) => self.hit_since(slot, token),
            None => self.entries_since(token),
        };
        if verdict == Verdict::Outrun {
            // ORDERING: Relaxed; a statistic.
            self.outrun.fetch_add(1, Ordering::Relaxed);
        }
        verdict
    }

    fn read_end(&self, token: Token) {
        self.release_reader(token.slot);
    }

    fn wake(&self) {
        self.parked.wake();
    }

    fn conservative(&self) -> Conservative {
        // ORDERING: Relaxed; statistics.
        Conservative { outrun: self.outrun.load(Ordering::Relaxed), overflow: self.overflowed.load(Ordering::Relaxed) }
    }
}

impl<M: LogMemory> CollisionLog<M> {
    /// A log over these words.
    pub fn over(memory: M) -> Self {
        Self {
            memory,
            writer: Mutex::new(()),
            parked: WaitQueue::new(),
            outrun: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
        }
    }

    /// Puts `range` into a free running slot, or counts it as everything. Under the writers' lock.
    fn occupy(&self, range: PageRange) -> Option<u32> {
        let Some(free) = self.free_slot() else {
            // ORDERING: Release, as setting a bit. The second counter is a statistic.
            self.memory.overflow().fetch_add(1, Ordering::Release);
            self.overflowed.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.memory.running()[free].set(range);
        // ORDERING: Release publishes the range to whoever sees the bit.
        self.memory.busy()[free / 64].fetch_or(1 << (free % 64), Ordering::Release);
        Some(free as u32)
    }

    fn free_slot(&self) -> Option<usize> {
        if planted("one-slot-per-thread") {
            return Some(0);
        }
        // ORDERING: Acquire pairs with the Release of `vacate`, so that our range publishes the former owner's change too:
        // a reader that still saw the former bit set may find our range behind it, and goes on.
        let order = if planted("free-load-relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
        let free = |word: &AtomicU64| (!word.load(order)).trailing_zeros() as usize;
        let busy = self.memory.busy().iter().enumerate();
        let first = busy.map(|(at, word)| (at, free(word))).find(|(_, bit)| *bit < 64).map(|(at, bit)| at * 64 + bit);
        first.filter(|slot| *slot < self.memory.running().len())
    }

    fn vacate(&self, slot: u32) {
        // ORDERING: Release publishes the change that the invalidation announced, which is over now.
        let order = if planted("clear-relaxed") { Ordering::Relaxed } else { Ordering::Release };
        self.memory.busy()[slot as usize / 64].fetch_and(!(1 << (slot % 64)), order);
    }

    fn take_number(&self) -> u64 {
        // ORDERING: Release pairs with the token's Acquire: the busy bit of this number is visible to who counts it in.
        self.memory.head().fetch_add(1, Ordering::Release).wrapping_add(1)
    }

    /// Whether an invalidation that overlaps `range` runs. The caller has loaded the head before.
    fn is_running(&self, range: PageRange) -> bool {
        // ORDERING: Acquire pairs with the Release of `occupy` and of `vacate`; for the overflow likewise.
        let order = if planted("busy-load-relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
        self.memory.busy().iter().enumerate().any(|(at, word)| self.any_overlaps(at * 64, word.load(order), range))
            || self.memory.overflow().load(Ordering::Acquire) > 0
    }

    /// Whether one of the slots from `first` on whose bits are set stands for a part of `range`.
    fn any_overlaps(&self, first: usize, mut bits: u64, range: PageRange) -> bool {
        while bits != 0 {
            let slot = &self.memory.running()[first + bits.trailing_zeros() as usize];
            if slot.range().is_some_and(|running| running.overlaps(range)) {
                return true;
            }
            bits &= bits - 1;
        }
        false
    }

    /// Raises the hit field of every outrun reader that overlaps.
    fn hit_readers(&self, range: PageRange, number: u64) {
        if !planted("hit-without-fence") {
            // ORDERING: pairs with the fence of `claim_reader`: either the reader's token counts this number in, and
            // it sees our running slot, or we see the reader's range.
            fence(Ordering::SeqCst);
        }
        // ORDERING: Relaxed, behind the fence.
        if self.memory.readers_in_use().load(Ordering::Relaxed) == 0 {
            return;
        }
        for reader in self.memory.readers() {
            if reader.range.range().is_some_and(|reading| reading.overlaps(range)) {
                // ORDERING: Release, and the device lock that the callbacks take next, order it before the commit. A late
                // writer finds a younger number there and leaves it.
                let raise = |hit| is_younger(number, hit).then_some(number);
                let _ = reader.hit.fetch_update(Ordering::Release, Ordering::Relaxed, raise);
            }
        }
    }

    /// Takes a reader slot for `range`; none when all are owned, which leaves the attempt to the ring.
    fn claim_reader(&self, range: PageRange) -> Option<u32> {
        let readers = self.memory.readers();
        // ORDERING: Acquire pairs with the Release of `release_reader`: the former owner's stores are over.
        let claim = |slot: &&crate::memory::ReaderSlot| {
            slot.owner.compare_exchange(FREE, OWNED, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        let slot = readers.iter().position(|slot| claim(&slot))?;
        // ORDERING: Relaxed; the fence below orders both before the token.
        self.memory.readers_in_use().fetch_add(1, Ordering::Relaxed);
        readers[slot].range.set(range);
        // ORDERING: pairs with the fence of `hit_readers`. Range first, then the token: the other order misses a hit.
        fence(Ordering::SeqCst);
        Some(slot as u32)
    }

    fn release_reader(&self, slot: Option<u32>) {
        let Some(slot) = slot else { return };
        let reader = &self.memory.readers()[slot as usize];
        reader.range.clear();
        // ORDERING: Relaxed; a writer that still counts us only looks once more.
        self.memory.readers_in_use().fetch_sub(1, Ordering::Relaxed);
        // ORDERING: Release pairs with the Acquire of the next owner.
        reader.owner.store(FREE, Ordering::Release);
    }

    fn hit_since(&self, slot: u32, token: &Token) -> Verdict {
        // ORDERING: Acquire; the device lock orders it behind every callback that has run.
        let hit = self.memory.readers()[slot as usize].hit.load(Ordering::Acquire);
        let since = if planted("hit-against-zero") { 0 } else { token.number };
        if is_younger(hit, since) { Verdict::Hit(self.range_of(hit)) } else { Verdict::Valid }
    }

    fn entries_since(&self, token: &Token) -> Verdict {
        // ORDERING: Relaxed; the device lock that our caller holds orders it behind every callback that has run.
        let head = self.memory.head().load(Ordering::Relaxed);
        let newer = head.wrapping_sub(token.number);
        if newer > self.memory.ring().len() as u64 {
            return Verdict::Outrun;
        }
        for number in (1..=newer).map(|after| token.number.wrapping_add(after)) {
            match self.entry(number) {
                EntryRead::Range(range) if range.overlaps(token.range) => return Verdict::Hit(Some(range)),
                EntryRead::Range(_) => {}
                EntryRead::NotYet | EntryRead::Overwritten => return Verdict::Outrun,
            }
        }
        Verdict::Valid
    }

    fn place(&self, number: u64) -> &Entry {
        let ring = self.memory.ring();
        &ring[number as usize & (ring.len() - 1)]
    }

    /// The entry of `number`, after a bounded wait for its writer to publish it.
    fn entry(&self, number: u64) -> EntryRead {
        let entry = self.place(number);
        for spin in 0..PUBLISH_SPINS {
            match entry.read(number) {
                EntryRead::NotYet if spin + 1 == PUBLISH_SPINS => {}
                EntryRead::NotYet if cfg!(any(loom, shuttle)) => thread::yield_now(),
                EntryRead::NotYet => hint::spin_loop(),
                found => return found,
            }
        }
        EntryRead::NotYet
    }

    fn range_of(&self, number: u64) -> Option<PageRange> {
        match self.entry(number) {
            EntryRead::Range(range) => Some(range),
            EntryRead::NotYet | EntryRead::Overwritten => None,
        }
    }
}

impl<M: LogMemory> fmt::Display for CollisionLog<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // ORDERING: Relaxed; for people.
        write!(f, "collision log at invalidation {}", self.memory.head().load(Ordering::Relaxed))
    }
}
