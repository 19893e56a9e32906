//! One registration and who counts on it.
//!
//! # States
//! One word. [`STALE`]: invalidated, evicted or made for one use; never cleared. The upper half counts leases, the lower
//! half uses. *Live* is `STALE` clear. *Idle* is live with both counts zero: it may be evicted. *Finished* is stale
//! with no use: it may be deregistered, whatever the leases, which only know that they are stale.
//!
//! # Fields
//! `state` is changed by everybody, always by one read-modify-write, so that "no new use" and "no use left" are one
//! order: a use that adds itself and finds `STALE` takes itself back and never touches the key.
//!
//! # Checked by
//! `get_against_invalidation`, `eviction_and_lease_drop` (shuttle), planted bugs `stale-not-checked`,
//! `deregister-before-last-use`, `evicts-leased`.

use std::fmt;

use pagemirror_core::addr::PageRange;
use pagemirror_sync::atomic::{AtomicBool, AtomicU64, Ordering};
use pagemirror_sync::planted;

use crate::registrar::Access;

const STALE: u64 = 1 << 63;
const LEASE: u64 = 1 << 32;
const USE: u64 = 1;
const USES: u64 = LEASE - 1;

/// A registration that the device holds.
pub(crate) struct Registration<K> {
    pub(crate) range: PageRange,
    pub(crate) access: Access,
    pub(crate) key: K,
    state: AtomicU64,
    /// Whether it was asked for since the evicting hand last passed.
    referenced: AtomicBool,
}

impl<K: Copy> Registration<K> {
    /// A live registration with one lease on it.
    pub(crate) fn leased(range: PageRange, access: Access, key: K) -> Self {
        Self::with_state(range, access, key, LEASE)
    }

    /// A registration for one use that has begun, stale from the start so that nobody else gets it.
    pub(crate) fn for_one_use(range: PageRange, access: Access, key: K) -> Self {
        Self::with_state(range, access, key, STALE | USE)
    }

    fn with_state(range: PageRange, access: Access, key: K, state: u64) -> Self {
        Self { range, access, key, state: AtomicU64::new(state), referenced: AtomicBool::new(true) }
    }

    /// Adds a lease, unless it is stale.
    pub(crate) fn lease(&self) -> bool {
        // ORDERING: Relaxed; used for a moment under the device lock, where staleness was decided too.
        self.referenced.store(true, Ordering::Relaxed);
        self.add(LEASE)
    }

    /// Takes a lease back.
    pub(crate) fn end_lease(&self) {
        // ORDERING: Release; what the lease's owner did is over before the registration can be evicted.
        self.state.fetch_sub(LEASE, Ordering::Release);
    }

    /// Adds a use, unless it is stale. Called in a section, with the gate seen open.
    pub(crate) fn begin_use(&self) -> bool {
        self.add(USE)
    }

    /// Gives a use back. Says whether that finished the registration.
    pub(crate) fn end_use(&self) -> bool {
        // ORDERING: AcqRel; the completed use is over before the worker sees the count, see `is_finished`.
        let before = self.state.fetch_sub(USE, Ordering::AcqRel);
        before & STALE != 0 && before & USES == USE
    }

    fn add(&self, unit: u64) -> bool {
        // ORDERING: Acquire pairs with `mark_stale`: who finds it live comes before the invalidation in its one order.
        let before = self.state.fetch_add(unit, Ordering::Acquire);
        if before & STALE == 0 || planted("stale-not-checked") {
            return true;
        }
        // ORDERING: Relaxed; nothing was done with it.
        self.state.fetch_sub(unit, Ordering::Relaxed);
        false
    }

    /// From now on nobody begins a use of it.
    pub(crate) fn mark_stale(&self) {
        // ORDERING: AcqRel, the one order of the word.
        self.state.fetch_or(STALE, Ordering::AcqRel);
    }

    /// Makes it stale if nobody holds a lease or a use of it.
    pub(crate) fn evict_if_idle(&self) -> bool {
        if self.referenced.swap(false, Ordering::Relaxed) {
            return false;
        }
        if planted("evicts-leased") {
            self.mark_stale();
            return true;
        }
        // ORDERING: AcqRel; from idle to stale in one step, or not at all.
        self.state.compare_exchange(0, STALE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether it is stale.
    pub(crate) fn is_stale(&self) -> bool {
        // ORDERING: Acquire for form; a hint to its caller.
        self.state.load(Ordering::Acquire) & STALE != 0
    }

    /// Whether it may be deregistered: stale, and its last use was given back.
    pub(crate) fn is_finished(&self) -> bool {
        // ORDERING: Acquire pairs with `end_use`: every completed use is over.
        let state = self.state.load(Ordering::Acquire);
        state & STALE != 0 && (state & USES == 0 || planted("deregister-before-last-use"))
    }
}

impl<K: fmt::Debug> fmt::Debug for Registration<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("range", &self.range).field("key", &self.key).finish_non_exhaustive()
    }
}
