//! The list of registered ranges, walked from end to end by every invalidation.
//!
//! A slab: a place is kept from registering to unregistering, so it names the range and its bit. It lives behind
//! `ranges_lock`, so nothing here allocates or frees but [`RangeList::reserve_from`], which takes a vector that was
//! made outside the lock and gives the old one back to be freed outside it.

use pagemirror_core::addr::PageRange;

const NONE: u32 = u32::MAX;

/// Room of the first vector: a few ranges cost no second one.
const FIRST: usize = 16;

#[derive(Debug)]
enum Place {
    Registered(PageRange),
    Free { next: u32 },
}

/// Places allocated ahead, to be handed over under the lock.
#[derive(Debug)]
pub(super) struct Spare(Vec<Place>);

impl Spare {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(super) fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

/// The list. See the module's text.
#[derive(Debug)]
pub(super) struct RangeList {
    places: Vec<Place>,
    free: u32,
    len: usize,
}

impl RangeList {
    pub(super) const fn new() -> Self {
        Self { places: Vec::new(), free: NONE, len: 0 }
    }

    /// How many ranges are registered.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn has_room(&self) -> bool {
        self.free != NONE || self.places.len() < self.places.capacity()
    }

    /// How many places a larger list should have.
    pub(super) fn larger(&self) -> usize {
        (self.places.capacity() * 2).max(FIRST)
    }

    /// Moves into `spare` if it is larger. What is returned is to be dropped after the lock was released.
    #[must_use = "drop it outside the lock"]
    pub(super) fn reserve_from(&mut self, mut spare: Spare) -> Spare {
        if spare.0.capacity() > self.places.capacity() {
            spare.0.append(&mut self.places);
            std::mem::swap(&mut self.places, &mut spare.0);
        }
        spare
    }

    /// Adds a range. Nothing when there is no room: the caller reserves some and comes again.
    pub(super) fn add(&mut self, range: PageRange) -> Option<u32> {
        if !self.has_room() {
            return None;
        }
        let at = if let Some(Place::Free { next }) = self.places.get(self.free as usize) {
            let next = *next;
            std::mem::replace(&mut self.free, next)
        } else {
            self.places.push(Place::Registered(range));
            (self.places.len() - 1) as u32
        };
        self.places[at as usize] = Place::Registered(range);
        self.len += 1;
        Some(at)
    }

    /// Takes a range out. Says whether it was there.
    pub(super) fn remove(&mut self, at: u32) -> bool {
        let Some(place @ Place::Registered(_)) = self.places.get_mut(at as usize) else { return false };
        *place = Place::Free { next: self.free };
        self.free = at;
        self.len -= 1;
        true
    }

    /// Every registered range, and its place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, PageRange)> {
        self.places.iter().zip(0..).filter_map(|(place, at)| match place {
            Place::Registered(range) => Some((at, *range)),
            Place::Free { .. } => None,
        })
    }
}
