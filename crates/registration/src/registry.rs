//! The registrations of a cache and who holds them: what hits, the evicting hand and the worker share without a lock.
//!
//! # Guarantee
//! Who has a [`Leased`] keeps the hand from evicting it; who has a [`Begun`] keeps the worker from letting its pages go.
//!
//! # Steps
//! A lease: look at the place; **hold; look again**. A use, in a section: **look; hold; leave the section**. The hand: let nobody
//! new in; look for leases, **then** for uses (a use begins while its lease is held); none: kill. The worker: after the kill
//! **settle the sections**, then look for uses.
//!
//! # Checked by
//! As `place.rs`, with the planted bugs `lease-looks-once`, `uses-before-leases`, `worker-does-not-settle`.

use std::num::NonZeroU32;

use pagemirror_core::addr::PageRange;
use pagemirror_core::hold::{Hold, Holds};
use pagemirror_sync::{Lane, lane, planted};

use crate::place::{Place, PlaceId, Places, State};
use crate::registrar::{Access, Key, Registered};

/// Every registration of a cache, and who holds it.
#[derive(Debug)]
pub(crate) struct Registry<K> {
    pub(crate) places: Places<K>,
    leases: Holds,
    uses: Holds,
}

/// A use without a borrow: its place, and the number of its hold. None: counted in the place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    id: PlaceId,
    hold: Option<NonZeroU32>,
}

/// A registration that is leased. Give it back once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leased<'c> {
    place: &'c Place,
    state: State,
    id: PlaceId,
    /// None when it is counted in its place.
    hold: Option<Hold<'c>>,
}

impl Leased<'_> {
    pub(crate) fn id(self) -> PlaceId {
        self.id
    }

    /// What the device knows it as. None when it was taken away since.
    pub(crate) fn registered<K: Key>(self) -> Option<Registered<K>> {
        let registered = self.place.registered();
        self.place.stands(self.state).then_some(registered)
    }

    /// Whether what was leased was taken away since. A hint, when asked outside a section.
    pub(crate) fn is_stale(self) -> bool {
        !self.place.stands(self.state)
    }
}

/// A registration that is in use. Give it back once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun<'c> {
    place: &'c Place,
    id: PlaceId,
    hold: Option<Hold<'c>>,
}

impl<K: Key> Registry<K> {
    pub(crate) fn new() -> Self {
        Self { places: Places::new(), leases: Holds::default(), uses: Holds::default() }
    }

    /// A lease on this place, if it is live and serves.
    #[inline(always)]
    pub(crate) fn lease(&self, lane: Lane, id: PlaceId, range: PageRange, access: Access) -> Option<Leased<'_>> {
        let place = self.places.get(id)?;
        let state = place.state();
        if !state.is_live() || !place.covers(range, access) {
            return None;
        }
        let hold = self.leases.take(lane, id.0);
        if hold.is_none() {
            place.count_lease();
        }
        let leased = Leased { place, state, id, hold };
        if place.state_now() == state || planted("lease-looks-once") {
            place.touch();
            return Some(leased);
        }
        self.end_lease(leased);
        None
    }

    #[inline(always)]
    pub(crate) fn end_lease(&self, leased: Leased<'_>) {
        match leased.hold {
            Some(hold) => hold.give_back(),
            None => leased.place.uncount_lease(),
        }
    }

    /// Begins a use of what is leased, unless it is stale. In a section, with the gate seen open.
    #[inline(always)]
    pub(crate) fn begin_use<'c>(&'c self, lane: Lane, leased: Leased<'c>) -> Option<(Begun<'c>, Registered<K>)> {
        let Leased { place, state, id, .. } = leased;
        if !place.stands(state) && !planted("stale-not-checked") {
            return None;
        }
        let hold = self.uses.take_in_section(lane, id.0);
        if hold.is_none() {
            place.count_use();
        }
        Some((Begun { place, id, hold }, place.registered()))
    }

    /// Gives a use back. Says whether the worker may be waiting for that.
    #[inline(always)]
    pub(crate) fn end_use(&self, begun: Begun<'_>) -> bool {
        match begun.hold {
            Some(hold) => hold.give_back(),
            None => begun.place.uncount_use(),
        }
        // The two are not ordered, which would cost as much as all the rest: the worker asks again by itself.
        !begun.place.state().is_live()
    }

    /// The name of a use, for who cannot keep the borrow.
    pub(crate) fn name(&self, begun: Begun<'_>) -> Name {
        Name { id: begun.id, hold: begun.hold.and_then(|hold| self.uses.number(lane(), hold)) }
    }

    /// As [`end_use`](Self::end_use), by the use's name.
    pub(crate) fn end_named(&self, name: Name) -> bool {
        let Some(place) = self.places.get(name.id) else { return false };
        match name.hold {
            Some(number) => self.uses.give_back_numbered(number),
            None => place.uncount_use(),
        }
        !place.state().is_live()
    }

    /// Kills what nobody holds and nobody has asked for since the last time. Under the device lock.
    pub(crate) fn evict_if_idle(&self, id: PlaceId) -> bool {
        let Some(place) = self.places.get(id) else { return false };
        if place.was_touched() {
            return false;
        }
        place.begin_leaving();
        let in_order = [&self.leases, &self.uses];
        let held = if planted("uses-before-leases") {
            in_order.iter().rev().any(|holds| holds.any(id.0))
        } else {
            in_order.iter().any(|holds| holds.any(id.0))
        };
        // Counted ones first and last: a use that is counted may belong to a lease that is not, and the other way round.
        let idle = !place.is_counted() && !held && !place.is_counted();
        if idle || planted("evicts-leased") {
            place.kill();
            return true;
        }
        place.stay();
        false
    }

    /// The places with uses that are not given back, in order. Behind a settling of the sections it has all that can be.
    pub(crate) fn in_use(&self, names: &mut Vec<PlaceId>) {
        names.clear();
        self.uses.for_each(|name| names.push(PlaceId(name)));
        names.sort_unstable();
    }

    /// Whether a dead place may be let go, by the names of [`in_use`](Self::in_use).
    pub(crate) fn is_finished(&self, id: PlaceId, in_use: &[PlaceId]) -> bool {
        let counted = self.places.get(id).is_some_and(|place| place.has_counted_uses());
        (!counted && in_use.binary_search(&id).is_err()) || planted("deregister-before-last-use")
    }
}
