//! Attempts beside invalidations.

use pagemirror_core::addr::PageRange;
use pagemirror_core::collision::{Reader, Verdict};

use super::make::Make;
use super::ranges::Known;
use super::world::{Patience, World, elsewhere, here, join, pages};
use crate::steps::{self, Actor};

/// One attempt beside one invalidation that starts and ends.
pub(crate) fn aba(make: &Make) {
    let world = World::new(make);
    let writer = world.beside(Actor::invalidate(1), |world| world.invalidate(here()));
    world.attempt(0, &Reader::of(here()), Patience::Waits);
    join(writer);
    world.assert_quiet();
}

/// Attempts until one is installed, beside two invalidations of one thread. The second is elsewhere, and takes the place
/// that the first has left.
pub(crate) fn begin_commit(make: &Make) {
    let world = World::new(make);
    let writer = world.beside(Actor::invalidate(1), |world| {
        world.invalidate(here());
        world.invalidate(elsewhere());
    });
    world.fault(0, here());
    join(writer);
    world.assert_quiet();
}

/// An invalidation of `range` that outlives the attempt beside it.
fn beside_a_running_one(make: &Make, range: PageRange) {
    let world = World::new(make);
    let reader = world.beside(Actor::fault(1), |world| world.attempt(0, &Reader::of(here()), Patience::Never));
    steps::act_as(Actor::invalidate(1));
    let running = world.start(range);
    world.change();
    join(reader);
    drop(running);
    steps::act_as(Actor::fault(1));
    world.assert_quiet();
}

pub(crate) fn start(make: &Make) {
    beside_a_running_one(make, here());
}

pub(crate) fn first_page(make: &Make) {
    beside_a_running_one(make, pages(3, 2));
}

pub(crate) fn last_page(make: &Make) {
    beside_a_running_one(make, pages(5, 3));
}

/// Two invalidations on two threads overlap each other and the reader: that one of them ends does not make the range
/// quiet.
pub(crate) fn chain(make: &Make) {
    let world = World::new(make);
    let first = world.beside(Actor::invalidate(1), |world| world.invalidate(pages(3, 2)));
    let second = world.beside(Actor::invalidate(2), |world| world.invalidate(pages(4, 8)));
    world.attempt(0, &Reader::of(here()), Patience::Waits);
    join(first);
    join(second);
    world.assert_quiet();
}

/// The same, and the first outlives the attempt.
pub(crate) fn chain_running(make: &Make) {
    let world = World::new(make);
    let reader = world.beside(Actor::fault(1), |world| world.attempt(0, &Reader::of(here()), Patience::Never));
    steps::act_as(Actor::invalidate(1));
    let running = world.start(pages(3, 2));
    let second = world.beside(Actor::invalidate(2), |world| world.invalidate(pages(4, 8)));
    world.change();
    join(second);
    join(reader);
    drop(running);
    steps::act_as(Actor::fault(1));
    world.assert_quiet();
}

/// Two invalidations of two threads, one of them elsewhere, which may take the place in the tracker that the other has just
/// left. Whoever finds it there also finds what the former one has changed.
pub(crate) fn handed_over(make: &Make) {
    let world = World::new(make);
    let former = world.beside(Actor::invalidate(1), |world| world.invalidate(here()));
    let next = world.beside(Actor::invalidate(2), |world| world.invalidate(elsewhere()));
    world.attempt(0, &Reader::of(here()), Patience::Waits);
    join(former);
    join(next);
    world.assert_quiet();
}

/// One thread holds two: the inner one, which is elsewhere, must neither take the place of the outer one nor end it.
pub(crate) fn nested(make: &Make) {
    let world = World::new(make);
    let reader = world.beside(Actor::fault(1), |world| world.attempt(0, &Reader::of(here()), Patience::Never));
    steps::act_as(Actor::invalidate(1));
    let outer = world.start(here());
    let inner = world.start(elsewhere());
    drop(inner);
    world.change();
    join(reader);
    drop(outer);
    steps::act_as(Actor::fault(1));
    world.assert_quiet();
}

/// A start that a callback refuses, beside one that succeeds: taking back the one does not end the other.
pub(crate) fn refused_start(make: &Make) {
    let world = World::new(make);
    let reader = world.beside(Actor::fault(1), |world| world.attempt(0, &Reader::of(here()), Patience::Never));
    steps::act_as(Actor::invalidate(1));
    let running = world.start(here());
    let refused = world.beside(Actor::invalidate(2), |world| world.refused_start(pages(5, 3)));
    world.change();
    join(refused);
    join(reader);
    drop(running);
    steps::act_as(Actor::fault(1));
    world.assert_quiet();
}

/// Two devices with a table and a lock each, on one address space.
pub(crate) fn two_devices(make: &Make) {
    let world = World::with_devices(make, 2);
    let other = world.beside(Actor::fault(2), |world| world.attempt(1, &Reader::of(here()), Patience::Waits));
    let writer = world.beside(Actor::invalidate(1), |world| world.invalidate(here()));
    world.attempt(0, &Reader::of(here()), Patience::Waits);
    join(other);
    join(writer);
    world.assert_quiet();
}

/// Invalidations after which the next one takes the last number, or the first again.
const BEFORE_WRAP: usize = 3;

/// The number wraps between the token and the commit.
pub(crate) fn wrap(make: &Make) {
    let make = Make { near_wrap: true, ..*make };
    let world = World::new(&make);
    let known = Known::subscribe(&world, here());
    for _ in 0..BEFORE_WRAP {
        world.invalidate(here());
    }
    let writer = world.beside(Actor::invalidate(1), |world| {
        world.invalidate(here());
        world.invalidate(here());
    });
    known.fault(&world);
    join(writer);
    known.unsubscribe(&world);
    world.assert_quiet();
}

/// A reader that was outrun goes again and asks for the exact answer.
pub(crate) fn after_outrun(make: &Make) {
    let world = World::new(make);
    let writer = world.beside(Actor::invalidate(1), |world| world.invalidate(here()));
    let again = Reader { previous: Some(Verdict::Outrun), ..Reader::of(here()) };
    // Both are exact: the second is not hit by what hit the first.
    world.attempt(0, &again, Patience::Waits);
    world.attempt(0, &again, Patience::Waits);
    join(writer);
    world.assert_quiet();
}
