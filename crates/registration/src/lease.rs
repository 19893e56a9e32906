//! A lease: what a caller holds between uses.

use std::fmt;

use pagemirror_core::addr::PageRange;
use pagemirror_sync::Arc;
use pagemirror_sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::cache::Shared;
use crate::registrar::{Access, Registrar};
use crate::registration::Registration;
use crate::stats::count;

pub(crate) enum Kind<K> {
    /// A registration of the cache, on which this lease is counted.
    Cached(Arc<Registration<K>>),
    /// Permission to register once, when the use begins. Set once it was used.
    OneShot(AtomicBool),
}

/// Keeps a registration from being evicted. It promises nothing about the memory: only
/// [`begin`](crate::RegistrationCache::begin) does, for one use at a time.
pub struct Lease<R: Registrar> {
    pub(crate) kind: Kind<R::Key>,
    pub(crate) range: PageRange,
    pub(crate) access: Access,
    pub(crate) shared: Arc<Shared<R>>,
}

impl<R: Registrar> Lease<R> {
    pub(crate) fn cached(
        shared: &Arc<Shared<R>>,
        range: PageRange,
        access: Access,
        registration: Arc<Registration<R::Key>>,
    ) -> Self {
        Self { kind: Kind::Cached(registration), range, access, shared: Arc::clone(shared) }
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
            Kind::Cached(registration) => registration.is_stale(),
            // ORDERING: Relaxed; a hint.
            Kind::OneShot(used) => used.load(Ordering::Relaxed),
        }
    }
}

impl<R: Registrar> Shared<R> {
    /// A lease for one use: nothing is registered yet. Counted by its reason.
    pub(crate) fn one_shot(self: &Arc<Self>, range: PageRange, access: Access, reason: &AtomicU64) -> Lease<R> {
        count(reason);
        Lease { kind: Kind::OneShot(AtomicBool::new(false)), range, access, shared: Arc::clone(self) }
    }
}

impl<R: Registrar> Drop for Lease<R> {
    fn drop(&mut self) {
        if let Kind::Cached(registration) = &self.kind {
            registration.end_lease();
        }
    }
}

impl<R: Registrar> fmt::Debug for Lease<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("range", &self.range)
            .field("one_shot", &self.is_one_shot())
            .finish_non_exhaustive()
    }
}
