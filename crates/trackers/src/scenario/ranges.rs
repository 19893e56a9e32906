//! Readers whose ranges a tracker keeps: made known and forgotten while invalidations run.

use pagemirror_core::addr::PageRange;
use pagemirror_core::collision::{CollisionTracker, Reader, SubscriptionId};
use pagemirror_core::wait::{CancelToken, Deadline, Wait};
use pagemirror_sync::Arc;

use super::make::Make;
use super::world::{LONG, Outcome, Patience, World, elsewhere, here, join, require};
use crate::steps::{self, Actor, named, step};

/// A range that the tracker may know; those that keep no ranges know nobody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    range: PageRange,
    id: Option<SubscriptionId>,
}

impl Known {
    pub(crate) fn subscribe(world: &World, range: PageRange) -> Self {
        let id = world.tracker().subscribe(range);
        step(|| format!("subscribe to {}", named(range)));
        Self { range, id }
    }

    pub(crate) fn reader(&self) -> Reader {
        Reader { subscription: self.id, ..Reader::of(self.range) }
    }

    pub(crate) fn attempt(&self, world: &World, patience: Patience) -> Outcome {
        world.attempt(0, &self.reader(), patience)
    }

    /// Goes round until what was read is installed.
    pub(crate) fn fault(&self, world: &World) {
        while self.attempt(world, Patience::Waits) != Outcome::Installed {}
    }

    pub(crate) fn unsubscribe(self, world: &World) {
        let Some(id) = self.id else { return };
        let deadline = Deadline::after(LONG);
        step(|| format!("unsubscribe from {}", named(self.range)));
        let answer = world.tracker().unsubscribe(id, &Wait::new(&deadline, world.space.gate()));
        require(answer.is_ok(), format_args!("a range could not be forgotten: {answer:?}"));
    }

    /// Does not wait for what runs. The range is forgotten all the same, later.
    fn unsubscribe_at_once(self, world: &World) {
        let Some(id) = self.id else { return };
        let now = CancelToken::default();
        now.cancel();
        let deadline = Deadline::after(LONG).or_cancelled(&now);
        step(|| format!("unsubscribe from {} without waiting", named(self.range)));
        // Both answers are right: it had to wait, or it had not.
        let _ = world.tracker().unsubscribe(id, &Wait::new(&deadline, world.space.gate()));
    }
}

/// A range is made known while an invalidation of it runs: the reader waits for that one too.
pub(crate) fn insert(make: &Make) {
    let world = World::new(make);
    steps::act_as(Actor::invalidate(1));
    let running = world.start(here());
    let reader = world.beside(Actor::fault(1), |world| {
        let known = Known::subscribe(world, here());
        known.fault(world);
        known
    });
    world.change();
    drop(running);
    steps::act_as(Actor::fault(1));
    join(reader).unsubscribe(&world);
    world.assert_quiet();
}

/// A range is made known beside the start of an invalidation that outlives the attempt.
pub(crate) fn insert_beside_start(make: &Make) {
    let world = World::new(make);
    let reader = world.beside(Actor::fault(1), |world| {
        let known = Known::subscribe(world, here());
        known.attempt(world, Patience::Never);
        known
    });
    steps::act_as(Actor::invalidate(1));
    let running = world.start(here());
    world.change();
    let known = join(reader);
    drop(running);
    steps::act_as(Actor::fault(1));
    known.unsubscribe(&world);
    world.assert_quiet();
}

/// A range is made known while an invalidation runs over another known range, which is when a tracker may put it off. Once
/// that has ended, the range is known: the next invalidation reaches it.
pub(crate) fn insert_put_off(make: &Make) {
    let world = World::new(make);
    let other = Known::subscribe(&world, elsewhere());
    let running = world.start(elsewhere());
    let known = Known::subscribe(&world, here());
    drop(running);
    let reader = world.beside(Actor::fault(1), move |world| known.attempt(world, Patience::Never));
    steps::act_as(Actor::invalidate(1));
    let running = world.start(here());
    world.change();
    join(reader);
    drop(running);
    steps::act_as(Actor::fault(1));
    // The put-off one is not forgotten again: had it been lost, that would fail in another way and hide what it breaks.
    other.unsubscribe(&world);
    world.assert_quiet();
}

/// Forgetting a range waits for the invalidations that have hit it, where the tracker promises that: who forgets it and gives
/// its memory back finds everything changed.
pub(crate) fn remove_waits(make: &Make) {
    let world = World::new(make);
    let known = Known::subscribe(&world, here());
    let running = world.start(here());
    let remover = world.beside(Actor::fault(1), move |world| {
        known.unsubscribe(world);
        require(world.snapshot() == 1, "the range is forgotten, but an invalidation that has hit it still runs");
    });
    world.change();
    drop(running);
    join(remover);
    world.assert_quiet();
}

/// A range is forgotten while an invalidation of it runs. Whoever comes next, in the same place of the tracker, is not hit
/// for the former owner.
pub(crate) fn remove(make: &Make) {
    let world = World::new(make);
    let known = Known::subscribe(&world, here());
    let writer = world.beside(Actor::invalidate(1), |world| world.invalidate(here()));
    known.unsubscribe(&world);
    let next = Known::subscribe(&world, elsewhere());
    next.attempt(&world, Patience::Waits);
    join(writer);
    next.unsubscribe(&world);
    world.assert_quiet();
}

/// The same by somebody who does not wait: the range is forgotten when the invalidation has ended.
pub(crate) fn remove_at_once(make: &Make) {
    let world = World::new(make);
    let known = Known::subscribe(&world, here());
    let running = world.start(here());
    let remover = world.beside(Actor::fault(1), move |world| {
        known.unsubscribe_at_once(world);
        Known::subscribe(world, here())
    });
    world.change();
    drop(running);
    let next = join(remover);
    require(
        next.attempt(&world, Patience::Never) == Outcome::Installed,
        "a forgotten range keeps the next one waiting",
    );
    next.unsubscribe(&world);
    world.assert_quiet();
}

/// Two readers under one known range; both begin before an invalidation that outlives them, or not at all.
pub(crate) fn two_readers(make: &Make) {
    let world = World::new(make);
    let known = Known::subscribe(&world, here());
    let read = move |world: &Arc<World>| known.attempt(world, Patience::Never);
    let one = world.beside(Actor::fault(1), read);
    let other = world.beside(Actor::fault(2), read);
    steps::act_as(Actor::invalidate(1));
    let running = world.start(here());
    world.change();
    join(one);
    join(other);
    drop(running);
    steps::act_as(Actor::fault(1));
    known.unsubscribe(&world);
    world.assert_quiet();
}
