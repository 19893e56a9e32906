//! What the lock of an [`IntervalSeq`](super::IntervalSeq) protects: the tree, and who waits to get into or out of it.
//!
//! Nothing here allocates or frees but [`Book::reserve_from`], which takes room that was made outside the lock and
//! gives the old one back to be freed outside it. One place for each subscription, kept until it is out of the tree;
//! the tree and the deferred list have room for as many as there are places.

use pagemirror_core::addr::PageRange;
use pagemirror_core::interval::{EntryId, IntervalIndex, Spare as TreeSpare};
use pagemirror_sync::planted;

const NONE: u32 = u32::MAX;

/// Room of the first book: a few subscriptions cost no second one.
const FIRST: usize = 16;

/// What running invalidations exclude.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exclusion {
    /// Nothing runs.
    Idle,
    /// Something runs that hits no interval: the tree may change.
    Partial,
    /// Something runs, or ran beside it, that hits an interval: the tree is frozen until everything has ended.
    Full,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Free {
        next: u32,
    },
    InTree(EntryId),
    /// At this position of the deferred list, to be inserted.
    Inserting(PageRange, u32),
    /// In the tree and in the deferred list, to be removed.
    Removing(EntryId),
}

/// What became of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// It is done, or there was nothing to remove.
    Done,
    /// It happens when everything has ended.
    Deferred,
}

/// Room allocated ahead, to be handed over under the lock.
#[derive(Debug)]
pub(super) struct Spare {
    places: Vec<Place>,
    deferred: Vec<u32>,
    tree: TreeSpare<u32>,
}

impl Spare {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self {
            places: Vec::with_capacity(capacity),
            deferred: Vec::with_capacity(capacity),
            tree: TreeSpare::with_capacity(capacity),
        }
    }
}

/// The book. See the module's text.
#[derive(Debug)]
pub(super) struct Book {
    /// Odd while the tree is frozen. Wraps.
    pub(super) seq: u64,
    /// The invalidations that run.
    pub(super) active: u64,
    tree: IntervalIndex<u32>,
    deferred: Vec<u32>,
    places: Vec<Place>,
    /// How many places there may be; the vectors and the tree have room for as many.
    room: usize,
    free: u32,
    len: usize,
}

impl Book {
    pub(super) fn new(seq: u64) -> Self {
        Self {
            seq,
            active: 0,
            tree: IntervalIndex::default(),
            deferred: Vec::new(),
            places: Vec::new(),
            room: 0,
            free: NONE,
            len: 0,
        }
    }

    pub(super) fn exclusion(&self) -> Exclusion {
        match (self.active, is_odd(self.seq)) {
            (_, true) => Exclusion::Full,
            (0, false) => Exclusion::Idle,
            (_, false) => Exclusion::Partial,
        }
    }

    /// How many subscriptions are in the tree or on their way into or out of it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn has_room(&self) -> bool {
        self.free != NONE || self.places.len() < self.room
    }

    /// How many places a larger book should have.
    pub(super) fn larger(&self) -> usize {
        (self.room * 2).max(FIRST)
    }

    /// Moves into `spare`, which has room for `capacity`, if it is larger. What is returned is to be dropped after the lock
    /// was released.
    #[must_use = "drop it outside the lock"]
    pub(super) fn reserve_from(&mut self, mut spare: Spare, capacity: usize) -> Spare {
        if capacity > self.room {
            spare.places.append(&mut self.places);
            std::mem::swap(&mut self.places, &mut spare.places);
            spare.deferred.append(&mut self.deferred);
            std::mem::swap(&mut self.deferred, &mut spare.deferred);
            spare.tree = self.tree.reserve_from(spare.tree);
            self.room = capacity;
        }
        spare
    }

    /// Calls `each` with the place of every subscription in the tree that overlaps `range`.
    pub(super) fn for_each_overlapping(&self, range: PageRange, mut each: impl FnMut(u32)) {
        self.tree.for_each_overlapping(range, |_, _, &at| each(at));
    }

    /// Inserts now, which is allowed unless the tree is frozen. There is room.
    pub(super) fn insert(&mut self, range: PageRange) -> u32 {
        let at = self.take_place();
        self.places[at as usize] = Place::InTree(self.tree.insert(range, at));
        at
    }

    /// Inserts when everything has ended. There is room.
    pub(super) fn defer_insert(&mut self, range: PageRange) -> u32 {
        let at = self.take_place();
        self.places[at as usize] = Place::Inserting(range, self.deferred.len() as u32);
        self.deferred.push(at);
        at
    }

    /// Takes a place without an owner. There is room.
    fn take_place(&mut self) -> u32 {
        self.len += 1;
        if let Some(Place::Free { next }) = self.places.get(self.free as usize) {
            let next = *next;
            return std::mem::replace(&mut self.free, next);
        }
        self.places.push(Place::Free { next: NONE });
        (self.places.len() - 1) as u32
    }

    /// Removes: now if the tree may change or the place is not in it yet, otherwise when everything has ended.
    pub(super) fn remove(&mut self, at: u32) -> Removal {
        let frozen = self.exclusion() == Exclusion::Full;
        match self.places.get(at as usize).copied() {
            Some(Place::InTree(entry)) if frozen => {
                self.places[at as usize] = Place::Removing(entry);
                self.deferred.push(at);
                Removal::Deferred
            }
            Some(Place::InTree(entry)) => {
                self.take_out(at, entry);
                Removal::Done
            }
            Some(Place::Inserting(_, position)) => {
                self.undo_insert(at, position);
                Removal::Done
            }
            Some(Place::Removing(_)) => Removal::Deferred,
            Some(Place::Free { .. }) | None => Removal::Done,
        }
    }

    /// Everything has ended: carries out what was deferred.
    pub(super) fn apply_deferred(&mut self) {
        while let Some(at) = self.deferred.pop() {
            match self.places[at as usize] {
                Place::Inserting(..) if planted("interval-seq-deferred-insert-dropped") => {}
                Place::Inserting(range, _) => {
                    self.places[at as usize] = Place::InTree(self.tree.insert(range, at));
                }
                Place::Removing(entry) => self.take_out(at, entry),
                Place::InTree(_) | Place::Free { .. } => {}
            }
        }
    }

    /// Takes an insertion that has not happened yet off the deferred list.
    fn undo_insert(&mut self, at: u32, position: u32) {
        self.deferred.swap_remove(position as usize);
        if let Some(&moved) = self.deferred.get(position as usize)
            && let Place::Inserting(_, its_position) = &mut self.places[moved as usize]
        {
            *its_position = position;
        }
        self.give_place_back(at);
    }

    fn take_out(&mut self, at: u32, entry: EntryId) {
        self.tree.retire(entry);
        // Plain numbers: there is nothing to drop, so the node is free at once.
        while self.tree.take_retired().is_some() {}
        self.give_place_back(at);
    }

    fn give_place_back(&mut self, at: u32) {
        self.places[at as usize] = Place::Free { next: self.free };
        self.free = at;
        self.len -= 1;
    }
}

pub(super) const fn is_odd(seq: u64) -> bool {
    seq & 1 == 1
}
