//! Who is left alone. Each holds only where the tracker promises it.

use pagemirror_core::collision::Reader;

use super::make::Make;
use super::ranges::Known;
use super::world::{Patience, World, elsewhere, here, join, pages, require};
use crate::steps::Actor;

/// An invalidation runs elsewhere; the reader neither waits for it nor goes round.
pub(crate) fn elsewhere_running(make: &Make) {
    let world = World::new(make);
    let known = Known::subscribe(&world, elsewhere());
    let reader = world.beside(Actor::fault(1), move |world| {
        let outcome = known.attempt(world, Patience::Never);
        require(outcome.is_undisturbed(), "kept from reading by an invalidation elsewhere");
        known
    });
    let running = world.start(here());
    world.change();
    let known = join(reader);
    drop(running);
    known.unsubscribe(&world);
    world.assert_quiet();
}

/// Two that overlap only each other, and end, while a reader elsewhere works.
pub(crate) fn elsewhere_ended(make: &Make) {
    let world = World::new(make);
    let known = Known::subscribe(&world, elsewhere());
    let first = world.beside(Actor::invalidate(1), |world| world.invalidate(here()));
    let second = world.beside(Actor::invalidate(2), |world| world.invalidate(pages(5, 3)));
    let outcome = known.attempt(&world, Patience::Never);
    require(outcome.is_undisturbed(), "kept from reading by invalidations elsewhere");
    join(first);
    join(second);
    known.unsubscribe(&world);
    world.assert_quiet();
}

/// Invalidations that touch the range on both sides, and share no page with it.
pub(crate) fn neighbours(make: &Make) {
    let world = World::new(make);
    let writer = world.beside(Actor::invalidate(1), |world| {
        world.invalidate(pages(2, 2));
        world.invalidate(pages(6, 2));
    });
    let outcome = world.attempt(0, &Reader::of(here()), Patience::Waits);
    require(outcome.is_undisturbed(), "hit by a neighbour");
    join(writer);
    world.assert_quiet();
}
