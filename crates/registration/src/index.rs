//! The device table of the cache: which registrations there are, behind the device lock.

use pagemirror_core::addr::PageRange;
use pagemirror_core::device::{Granted, Mappings};
use pagemirror_core::interval::{IntervalIndex, Spare};
use pagemirror_core::notify::Event;
use pagemirror_sync::{Arc, lane};

use crate::journal::{Cause, Entry, Journal, Taken};
use crate::place::PlaceId;
use crate::registrar::{Access, Key};
use crate::registry::{Leased, Registry};
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

/// What larger tables are made of, allocated outside the lock; what they replace is freed there too.
#[derive(Debug)]
pub(crate) struct Room {
    intervals: Spare<PlaceId>,
    free: Vec<PlaceId>,
}

impl Room {
    /// Tables for `places` places, of which those with `fresh` numbers are new.
    pub(crate) fn for_places(places: usize, fresh: std::ops::Range<u32>) -> Self {
        let mut free = Vec::with_capacity(places);
        free.extend(fresh.rev().map(PlaceId));
        Self { intervals: Spare::with_capacity(places), free }
    }
}

/// Every live registration, by range. Nothing in here allocates or frees under the lock.
#[derive(Debug)]
pub(crate) struct Index<K: Key> {
    registry: Arc<Registry<K>>,
    intervals: IntervalIndex<PlaceId>,
    /// Places to be filled. Has room for every place there is.
    free: Vec<PlaceId>,
    /// Bytes of all live registrations together.
    bytes: u64,
    /// Where the evicting hand stands.
    hand: usize,
    invalidations: Invalidations,
    journal: Journal,
    bell: Arc<Bell>,
}

impl<K: Key> Mappings for Index<K> {
    type Item = (Access, K);

    fn install(&mut self, _granted: Granted, range: PageRange, (access, key): Self::Item) {
        let free = self.free.pop().and_then(|id| Some((id, self.registry.places.get(id)?)));
        let Some((id, place)) = free else {
            unreachable!("a registration was installed without a place reserved for it");
        };
        place.fill(range, access, key);
        self.intervals.insert(range, id);
        self.bytes += range.len();
    }

    /// Revoking is marking stale and taking out of the index; letting go of the pages is the worker's part.
    fn revoke(&mut self, range: PageRange, event: Event) {
        let revoked = self.take_away(range, Cause::Invalidated { event, range });
        self.invalidations.count(event, revoked);
    }
}

impl<K: Key> Index<K> {
    /// Ends every registration that overlaps `range`. Says how many there were.
    pub(crate) fn take_away(&mut self, range: PageRange, cause: Cause) -> u64 {
        let (registry, bytes, journal) = (&self.registry, &mut self.bytes, &mut self.journal);
        let mut entry = Entry::new(cause);
        self.intervals.retire_overlapping(range, |id| {
            if let Some(place) = registry.places.get(*id) {
                let registered = place.range();
                *bytes -= registered.len();
                place.kill();
                journal.note(&mut entry, registered);
            }
        });
        let taken = journal.end(&entry);
        if taken > 0 {
            self.bell.ring();
        }
        taken
    }

    /// What is known of registrations of `range` that ended. `out` has room for every record.
    pub(crate) fn explain(&self, range: PageRange, out: &mut Vec<Taken>) {
        self.journal.copy_of(range, out);
    }
}

impl<K: Key> Index<K> {
    pub(crate) fn new(registry: Arc<Registry<K>>, bell: Arc<Bell>) -> Self {
        let (intervals, invalidations) = (IntervalIndex::default(), Invalidations::default());
        let journal = Journal::new();
        Self { registry, intervals, free: Vec::new(), bytes: 0, hand: 0, invalidations, journal, bell }
    }

    /// A lease on a live registration that covers `range`. `registry` is the one that the index was made over.
    pub(crate) fn find<'r>(&self, registry: &'r Registry<K>, range: PageRange, access: Access) -> Option<Leased<'r>> {
        let (lane, found) = (lane(), std::cell::Cell::new(None));
        self.intervals.find_containing(range, |id| {
            found.set(registry.lease(lane, *id, range, access));
            found.get().is_some()
        });
        found.get()
    }

    /// Whether one more registration finds a place without an allocation.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty() && self.intervals.has_room()
    }

    /// Takes `room` over. What is returned is to be dropped after the lock was released.
    #[must_use = "drop it outside the lock"]
    pub(crate) fn grow(&mut self, mut room: Room) -> Room {
        room.intervals = self.intervals.reserve_from(room.intervals);
        if room.free.capacity() > self.free.capacity() {
            std::mem::swap(&mut room.free, &mut self.free);
        }
        self.free.append(&mut room.free);
        room
    }

    /// Moves the hand on until it has evicted one idle registration, for a bounded number of steps.
    pub(crate) fn evict_one(&mut self) -> Eviction {
        for passed in 0..HAND_STEPS {
            let Some((entry, id, next)) = self.intervals.step(self.hand) else {
                return Eviction::Passed(passed);
            };
            let id = *id;
            self.hand = next;
            if self.registry.evict_if_idle(id) {
                self.intervals.retire(entry);
                if let Some(evicted) = self.registry.places.get(id).map(|place| place.range()) {
                    self.bytes -= evicted.len();
                    self.journal.note(&mut Entry::new(Cause::Evicted), evicted);
                }
                self.bell.ring();
                return Eviction::Evicted;
            }
        }
        Eviction::Passed(HAND_STEPS)
    }

    /// Hands out one place that was revoked or evicted, to be let go.
    pub(crate) fn take_retired(&mut self) -> Option<PlaceId> {
        self.intervals.take_retired()
    }

    /// The place of what was let go may be filled again.
    pub(crate) fn free(&mut self, id: PlaceId) {
        self.free.push(id);
    }

    /// How many registrations are live.
    pub(crate) fn len(&self) -> usize {
        self.intervals.len()
    }

    /// How many bytes they cover.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn invalidations(&self) -> Invalidations {
        self.invalidations
    }
}
