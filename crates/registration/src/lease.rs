//! A lease: what a caller holds between uses.

use std::fmt;

use pagemirror_core::addr::PageRange;
use pagemirror_sync::Arc;
use pagemirror_sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::cache::Shared;
use crate::registrar::{Access, Registrar};
use crate::registry::Leased;
use crate::stats::count;

pub(crate) enum Kind<'c> {
    /// A registration of the cache, on which this lease is held.
    Cached(Leased<'c>),
    /// Permission to register once, when the use begins. Set once it was used. Boxed, so that a lease of the common kind has
    /// nothing in it that must lie in memory.
    OneShot(Box<AtomicBool>),
}

impl Kind<'_> {
    /// Nothing is registered yet. Counted by its reason.
    pub(crate) fn one_shot(reason: &AtomicU64) -> Self {
        count(reason);
        Self::one_shot_granted()
    }

    /// The same, counted already.
    pub(crate) fn one_shot_granted() -> Self {
        Self::OneShot(Box::new(AtomicBool::new(false)))
    }
}

/// Keeps a registration from being evicted. It promises nothing about the memory: only
/// [`begin`](crate::RegistrationCache::begin) does, for one use at a time.
pub struct Lease<'c, R: Registrar> {
    pub(crate) kind: Kind<'c>,
    pub(crate) range: PageRange,
    pub(crate) access: Access,
    pub(crate) shared: &'c Arc<Shared<R>>,
}

impl<'c, R: Registrar> Lease<'c, R> {
    #[inline(always)]
    pub(crate) fn cached(shared: &'c Arc<Shared<R>>, range: PageRange, access: Access, leased: Leased<'c>) -> Self {
        Self { kind: Kind::Cached(leased), range, access, shared }
    }

    /// The pages that were asked for.
    #[must_use]
    pub fn range(&self) -> PageRange {
        self.range
    }

    /// Whether it serves one use only, by a registration made when that use begins. A device that can also be given an
    /// address serves such a request cheaper that way, and just as coherently.
    #[must_use]
    pub fn is_one_shot(&self) -> bool {
        matches!(self.kind, Kind::OneShot(_))
    }

    /// Whether `begin` is known to refuse it. `false` is a hint: only `begin` knows.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        match &self.kind {
            Kind::Cached(leased) => leased.is_stale(),
            // ORDERING: Relaxed; a hint.
            Kind::OneShot(used) => used.load(Ordering::Relaxed),
        }
    }
}

impl<R: Registrar> Drop for Lease<'_, R> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Kind::Cached(leased) = &self.kind {
            self.shared.registry.end_lease(*leased);
        }
    }
}

impl<R: Registrar> fmt::Debug for Lease<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("range", &self.range)
            .field("one_shot", &self.is_one_shot())
            .finish_non_exhaustive()
    }
}
