//! The ranges that a device has made known to the tracker.

use std::collections::BTreeMap;

use pagemirror_core::addr::PageRange;
use pagemirror_core::collision::{CollisionTracker, SubscriptionId};
use pagemirror_core::wait::Wait;
use serde::{Deserialize, Serialize};

/// For how long a tracker that tracks ranges is told one. The others do not care.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keeping {
    /// From the first fault on it until its memory is unmapped, or the device forgets it.
    #[default]
    Kept,
    /// From the first attempt of one fault until it is served, as the drivers of 2019 did. What they may sleep for when they
    /// give the range back is not counted.
    PerFault,
}

#[derive(Debug)]
struct Kept {
    id: Option<SubscriptionId>,
    /// Faults that are under way on it.
    users: usize,
    /// To be forgotten when the last of them is served.
    forgotten: bool,
}

/// The ranges that are known now, by their first address.
#[derive(Debug)]
pub(super) struct KeptRanges {
    keeping: Keeping,
    known: BTreeMap<PageKey, Kept>,
}

/// A range as the key of a map.
type PageKey = (u64, u64);

fn key(range: PageRange) -> PageKey {
    (range.start().get(), range.end().get())
}

impl KeptRanges {
    pub(super) fn new(keeping: Keeping) -> Self {
        Self { keeping, known: BTreeMap::new() }
    }

    /// The device mirrors `range` from now on, whether it has faulted it or not.
    pub(super) fn know<T: CollisionTracker + ?Sized>(&mut self, tracker: &T, range: PageRange) {
        if self.keeping == Keeping::Kept {
            let fresh = || Kept { id: tracker.subscribe(range), users: 0, forgotten: false };
            self.known.entry(key(range)).or_insert_with(fresh);
        }
    }

    /// A fault on `range` begins: its subscription, made now if it is not known yet.
    pub(super) fn begin<T: CollisionTracker + ?Sized>(
        &mut self,
        tracker: &T,
        range: PageRange,
    ) -> Option<SubscriptionId> {
        if self.keeping == Keeping::PerFault {
            return tracker.subscribe(range);
        }
        let kept = self.known.entry(key(range)).or_insert_with(|| Kept {
            id: tracker.subscribe(range),
            users: 0,
            forgotten: false,
        });
        kept.users += 1;
        kept.forgotten = false;
        kept.id
    }

    /// The fault on `range`, which began with this subscription, is served.
    pub(super) fn end<T: CollisionTracker + ?Sized>(
        &mut self,
        tracker: &T,
        range: PageRange,
        id: Option<SubscriptionId>,
        wait: &Wait<'_>,
    ) {
        if self.keeping == Keeping::PerFault {
            return unsubscribe(tracker, id, wait);
        }
        let Some(kept) = self.known.get_mut(&key(range)) else { return };
        kept.users -= 1;
        if kept.forgotten && kept.users == 0 {
            self.remove(tracker, range, wait);
        }
    }

    /// The device has no more use for `range`.
    pub(super) fn forget<T: CollisionTracker + ?Sized>(&mut self, tracker: &T, range: PageRange, wait: &Wait<'_>) {
        match self.known.get_mut(&key(range)) {
            Some(kept) if kept.users > 0 => kept.forgotten = true,
            Some(_) => self.remove(tracker, range, wait),
            None => {}
        }
    }

    fn remove<T: CollisionTracker + ?Sized>(&mut self, tracker: &T, range: PageRange, wait: &Wait<'_>) {
        unsubscribe(tracker, self.known.remove(&key(range)).and_then(|kept| kept.id), wait);
    }
}

fn unsubscribe<T: CollisionTracker + ?Sized>(tracker: &T, id: Option<SubscriptionId>, wait: &Wait<'_>) {
    if let Some(id) = id {
        // The wait has expired: a tracker that cannot forget now does so at its next quiet moment, which is all that is
        // asked of it here.
        let _ = tracker.unsubscribe(id, wait);
    }
}
