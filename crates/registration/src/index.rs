//! The device table of the cache: which registrations there are, behind the device lock.

use pagemirror_core::addr::PageRange;
use pagemirror_core::device::{Granted, Mappings};
use pagemirror_core::interval::IntervalIndex;
use pagemirror_core::notify::Event;
use pagemirror_sync::Arc;

use crate::registrar::Access;
use crate::registration::Registration;
use crate::stats::Invalidations;
use crate::worker::Bell;

/// Entries that the evicting hand looks at before it lets go of the device lock for a moment.
const HAND_STEPS: usize = 64;

/// What the evicting hand came to in one stretch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// One idle registration was given up.
    Evicted,
    /// This many entries were looked at, and all are leased, in use, or were asked for since the last round.
    Passed(usize),
}

/// Every live registration, by range. Nothing in here allocates or frees under the lock.
#[derive(Debug)]
pub(crate) struct Index<K: Copy + Send + Sync + 'static> {
    intervals: IntervalIndex<Arc<Registration<K>>>,
    /// Where the evicting hand stands.
    hand: usize,
    invalidations: Invalidations,
    bell: Arc<Bell>,
}

impl<K: Copy + Send + Sync + 'static> Mappings for Index<K> {
    type Item = Arc<Registration<K>>;

    fn install(&mut self, _granted: Granted, range: PageRange, registration: Self::Item) {
        self.intervals.insert(range, registration);
    }

    /// Revoking is marking stale and taking out of the index; letting go of the pages is the worker's part.
    fn revoke(&mut self, range: PageRange, event: Event) {
        let revoked = self.intervals.retire_overlapping(range, |registration| registration.mark_stale());
        self.invalidations.count(event, revoked as u64);
        if revoked > 0 {
            self.bell.ring();
        }
    }
}

impl<K: Copy + Send + Sync + 'static> Index<K> {
    pub(crate) fn new(bell: Arc<Bell>) -> Self {
        Self { intervals: IntervalIndex::default(), hand: 0, invalidations: Invalidations::default(), bell }
    }

    /// A live registration that covers `range`, with a lease on it.
    pub(crate) fn find(&self, range: PageRange, access: Access) -> Option<Arc<Registration<K>>> {
        let fits = |registration: &Arc<Registration<K>>| registration.access.serves(access) && registration.lease();
        self.intervals.find_containing(range, fits).map(|(_, registration)| Arc::clone(registration))
    }

    /// Moves the hand on until it has evicted one idle registration, for a bounded number of steps.
    pub(crate) fn evict_one(&mut self) -> Eviction {
        for passed in 0..HAND_STEPS {
            let Some((id, registration, next)) = self.intervals.step(self.hand) else {
                return Eviction::Passed(passed);
            };
            let evicted = registration.evict_if_idle();
            self.hand = next;
            if evicted {
                self.intervals.retire(id);
                self.bell.ring();
                return Eviction::Evicted;
            }
        }
        Eviction::Passed(HAND_STEPS)
    }

    pub(crate) fn len(&self) -> usize {
        self.intervals.len()
    }

    pub(crate) fn intervals(&mut self) -> &mut IntervalIndex<Arc<Registration<K>>> {
        &mut self.intervals
    }

    pub(crate) fn invalidations(&self) -> Invalidations {
        self.invalidations
    }
}
