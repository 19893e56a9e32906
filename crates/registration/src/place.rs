//! Where registrations live: places of atomic words that are used again and never freed while the cache lives, so that
//! readers look at them without a lock.
//!
//! # States
//! One word: a generation, and what it is in. *Free*: nobody's, or on the way out. *Live*: in the index. *Leaving*: live, but
//! the evicting hand is looking whether anybody holds it; nobody new takes a lease. A place that has been revoked or evicted is
//! free with the next generation at once; it is *filled again* only after its last use was given back and the device has
//! let go.
//!
//! # Fields
//! `state` and the fields behind it change under the device lock only (filling happens under it too). Anybody reads them:
//! `state`, the fields, `state` again; equal means that they belong together. Who holds a place is in the cache's two
//! [`Holds`](pagemirror_core::hold::Holds), and for those that found no room there in `counts`.
//!
//! # Orderings
//! | site | ordering | pairs with | without it |
//! |---|---|---|---|
//! | `kill`, `begin_leaving`: fence behind `state` | SeqCst | `state_now` behind a hold or in a section | evicted or let go while it is held |
//! | `fill`: fence(Release) before the fields | Release | `view`: fence(Acquire) behind them | fields of two registrations |
//! | `fill`: `state` | Release | `view`: Acquire | fields of the one before |
//!
//! # Checked by
//! `get_against_invalidation`, `eviction_and_lease_drop`, `eviction_against_lease_and_use`, `last_use_after_revocation` (shuttle), planted bugs
//! `stale-not-checked`, `evicts-leased`, `deregister-before-last-use`; the holds by loom, in the core.
//!
//! # Not covered
//! The orderings of the fields against `state`: they are those of a sequence lock, and shuttle knows none weaker than sequential
//! consistency.

use std::fmt;
use std::marker::PhantomData;

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use pagemirror_sync::{Mutex, OnceLock};

use crate::registrar::{Access, Key, Registered};

/// Places of the first chunk; each further chunk doubles what there is.
const FIRST: usize = if cfg!(any(loom, shuttle)) { 1 } else { 64 };
/// Chunks: room for a hundred million places, which no device has.
const CHUNKS: usize = 21;

const FREE: u64 = 0;
const LIVE: u64 = 1;
const LEAVING: u64 = 2;
const PHASE: u64 = 3;
const GENERATION: u64 = 4;

/// In the lowest bit of the end, which is a multiple of a page.
const WRITE: u64 = 1;

const LEASE: u64 = 1 << 32;
const USE: u64 = 1;
const USES: u64 = LEASE - 1;

/// The bits of a place's number that count within its chunk; those above name the chunk.
const CHUNK_BITS: u32 = 27;

/// A place, by its number: its chunk, and where it lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PlaceId(pub(crate) u32);

/// What a state word said when it was looked at. A lease keeps the one it was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(u64);

impl State {
    #[inline(always)]
    pub(crate) fn is_live(self) -> bool {
        self.0 & PHASE == LIVE
    }

    /// Whether it is the same registration, live or being looked at by the evicting hand.
    #[inline(always)]
    fn stands_for(self, leased: Self) -> bool {
        self == leased || self.0 == leased.0 - LIVE + LEAVING
    }
}

/// One place: a line of its own, which hits only read.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Place {
    state: AtomicU64,
    start: AtomicU64,
    end: AtomicU64,
    key: [AtomicU64; 2],
    /// Leases (upper half) and uses (lower half) that found no room in their lane.
    counts: AtomicU64,
    /// Whether it was asked for since the evicting hand last passed.
    referenced: AtomicBool,
}

impl Place {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        let key = [zero(), zero()];
        let (state, start, end, counts) = (zero(), zero(), zero(), zero());
        Self { state, start, end, key, counts, referenced: AtomicBool::new(false) }
    }

    /// The state, for a first look.
    #[inline(always)]
    pub(crate) fn state(&self) -> State {
        // ORDERING: Acquire pairs with `fill`: the fields are those of this state, or of a later one.
        State(self.state.load(Ordering::Acquire))
    }

    /// The state, behind a hold or in a section.
    #[inline(always)]
    pub(crate) fn state_now(&self) -> State {
        // ORDERING: what was read of the fields was read before this; and SeqCst, so that it keeps its order to the hold or
        // to the entry of the section. Costs nothing more than a load where that is strong.
        fence(Ordering::Acquire);
        State(self.state.load(Ordering::SeqCst))
    }

    /// Whether `leased` still stands, in a section.
    #[inline(always)]
    pub(crate) fn stands(&self, leased: State) -> bool {
        self.state_now().stands_for(leased)
    }

    /// Whether it covers `range` for `access`, if the state is the same before and after.
    #[inline(always)]
    pub(crate) fn covers(&self, range: PageRange, access: Access) -> bool {
        // ORDERING: Relaxed; between two looks at the state.
        let end = self.end.load(Ordering::Relaxed);
        let serves = access == Access::Read || end & WRITE != 0;
        serves && self.start.load(Ordering::Relaxed) <= range.start().get() && range.end().get() <= end & !WRITE
    }

    /// Notes that it was asked for.
    #[inline(always)]
    pub(crate) fn touch(&self) {
        // ORDERING: Relaxed; a hint. Looked at first, so that hits write nothing once it is set.
        if !self.referenced.load(Ordering::Relaxed) {
            self.referenced.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was touched since it was last asked.
    pub(crate) fn was_touched(&self) -> bool {
        // ORDERING: Relaxed; a hint.
        self.referenced.swap(false, Ordering::Relaxed)
    }

    /// What a submission sees. While the place cannot be filled again: it is held, or in the caller's hands.
    #[inline(always)]
    pub(crate) fn registered<K: Key>(&self) -> Registered<K> {
        // ORDERING: Relaxed; the caller has seen the state by Acquire, and nobody fills the place while it is held.
        let words = [self.key[0].load(Ordering::Relaxed), self.key[1].load(Ordering::Relaxed)];
        Registered { key: K::from_words(words), range: self.range() }
    }

    #[inline(always)]
    pub(crate) fn range(&self) -> PageRange {
        let (start, end) = (self.start.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed) & !WRITE);
        // Two words that belong together make a range; what does not is never used.
        PageRange::between(VirtAddr::new(start), VirtAddr::new(end)).unwrap_or(PageRange::ALL)
    }

    /// Fills a free place that is in nobody's hands but the caller's. Under the device lock.
    pub(crate) fn fill<K: Key>(&self, range: PageRange, access: Access, key: K) {
        // ORDERING: who sees one of the fields below sees the state that ended what was here before.
        fence(Ordering::Release);
        // ORDERING: Relaxed; published by the state.
        self.start.store(range.start().get(), Ordering::Relaxed);
        let write = if access == Access::Write { WRITE } else { 0 };
        self.end.store(range.end().get() | write, Ordering::Relaxed);
        for (word, value) in self.key.iter().zip(key.into_words()) {
            word.store(value, Ordering::Relaxed);
        }
        self.referenced.store(true, Ordering::Relaxed);
        // ORDERING: Release pairs with `state`.
        let state = self.state.load(Ordering::Relaxed);
        self.state.store(state - (state & PHASE) + LIVE, Ordering::Release);
    }

    /// From now on nobody begins a use of it. Under the device lock. The caller, or who deregisters, passes a sequentially
    /// consistent fence before it looks for holders.
    pub(crate) fn kill(&self) {
        // ORDERING: Release; what is revoked behind the gate is found by who sees the gate open.
        let state = self.state.load(Ordering::Relaxed);
        self.state.store(state - (state & PHASE) + GENERATION + FREE, Ordering::Release);
    }

    /// Nobody takes a new lease until `stay` or `kill`. Under the device lock.
    pub(crate) fn begin_leaving(&self) {
        let state = self.state.load(Ordering::Relaxed);
        self.state.store(state - (state & PHASE) + LEAVING, Ordering::Release);
        // ORDERING: pairs with the look behind a hold: either the taker sees that it leaves, or we see the hold.
        fence(Ordering::SeqCst);
    }

    /// Somebody holds it: live again.
    pub(crate) fn stay(&self) {
        // ORDERING: Release, for form: nothing has changed.
        let state = self.state.load(Ordering::Relaxed);
        self.state.store(state - (state & PHASE) + LIVE, Ordering::Release);
    }

    /// Counts a lease that found no room in its lane. The caller looks at the state afterwards.
    pub(crate) fn count_lease(&self) {
        // ORDERING: SeqCst, as a hold that is taken.
        self.counts.fetch_add(LEASE, Ordering::SeqCst);
    }

    pub(crate) fn uncount_lease(&self) {
        // ORDERING: Release, as a hold that is given back.
        self.counts.fetch_sub(LEASE, Ordering::Release);
    }

    /// Counts a use that found no room in its lane. In a section.
    pub(crate) fn count_use(&self) {
        // ORDERING: Relaxed; published by leaving the section.
        self.counts.fetch_add(USE, Ordering::Relaxed);
    }

    pub(crate) fn uncount_use(&self) {
        // ORDERING: Release, as a hold that is given back.
        self.counts.fetch_sub(USE, Ordering::Release);
    }

    /// Whether leases or uses are counted here.
    pub(crate) fn is_counted(&self) -> bool {
        // ORDERING: Acquire, as the question for holds.
        self.counts.load(Ordering::Acquire) != 0
    }

    /// Whether uses are counted here.
    pub(crate) fn has_counted_uses(&self) -> bool {
        // ORDERING: Acquire, as the question for holds.
        self.counts.load(Ordering::Acquire) & USES != 0
    }
}

/// All places of a cache.
pub(crate) struct Places<K> {
    chunks: [OnceLock<Box<[Place]>>; CHUNKS],
    /// Held while a chunk is made, so that one thread makes it. Never by the pump.
    growing: Mutex<usize>,
    key: PhantomData<fn() -> K>,
}

impl<K: Key> Places<K> {
    pub(crate) fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS], growing: Mutex::new(0), key: PhantomData }
    }

    /// The place of a number that was given out. `None` for another.
    #[inline(always)]
    pub(crate) fn get(&self, id: PlaceId) -> Option<&Place> {
        let chunk = self.chunks.get((id.0 >> CHUNK_BITS) as usize)?.get()?;
        chunk.get((id.0 & ((1 << CHUNK_BITS) - 1)) as usize)
    }

    /// Makes one more chunk, hands `all`, the number of places there are then, and the new numbers to `take`, and returns
    /// what that returns. Nothing is made when there is no chunk left.
    pub(crate) fn grow<T>(&self, take: impl FnOnce(usize, std::ops::Range<u32>) -> T) -> Option<T> {
        let mut made = self.growing.lock();
        let (before, count) = ((FIRST << *made) - FIRST, FIRST << *made);
        let first = (*made as u32) << CHUNK_BITS;
        let chunk: Box<[Place]> = (0..count).map(|_| Place::new()).collect();
        self.chunks.get(*made)?.set(chunk).ok()?;
        *made += 1;
        Some(take(before + count, first..first + count as u32))
    }
}

impl<K> fmt::Debug for Places<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").finish_non_exhaustive()
    }
}
