//! Whoever waits is woken: by the end of what it waits for, by a cancellation, or by the end of the address space.
//!
//! Under a model a sleeper without a wake-up sleeps for ever, which the engine reports as a deadlock. On real threads it
//! looks again after a part of its deadline, so there these bodies show that the answers are right.

use std::time::Duration;

use pagemirror_core::collision::{CollisionTracker, Reader};
use pagemirror_core::error::Error;
use pagemirror_core::gate::LostCause;
use pagemirror_core::wait::{CancelToken, Deadline};
use pagemirror_sync::Arc;

use super::make::Make;
use super::world::{LONG, Outcome, Patience, World, here, join, require};
use crate::steps::{self, Actor, step};

/// A deadline that passes on real threads while the scenario waits for it.
const SHORT: Duration = Duration::from_millis(2);

/// Two readers wait for one invalidation. It ends, and, if the tracker is exact, is no collision for those who waited.
pub(crate) fn woken(make: &Make) {
    let world = World::new(make);
    let exact = make.is_exact();
    let wait = move |world: &Arc<World>| {
        let outcome = world.attempt(0, &Reader::of(here()), Patience::Waits);
        let right = outcome == Outcome::Installed || !exact;
        require(right, "the invalidation that was waited for became a collision");
    };
    steps::act_as(Actor::invalidate(1));
    let running = world.start(here());
    let one = world.beside(Actor::fault(1), wait);
    let other = world.beside(Actor::fault(2), wait);
    world.change();
    drop(running);
    steps::act_as(Actor::fault(1));
    join(one);
    join(other);
    world.assert_quiet();
}

/// The next invalidation starts when the first has ended, and outlives the reader: who was woken looks again.
pub(crate) fn woken_into_the_next(make: &Make) {
    let world = World::new(make);
    steps::act_as(Actor::invalidate(1));
    let first = world.start(here());
    let cancel = Arc::new(CancelToken::default());
    let reader = {
        let cancel = Arc::clone(&cancel);
        world.beside(Actor::fault(1), move |world| {
            let deadline = Deadline::after(LONG).or_cancelled(&cancel);
            if let Ok(reading) = world.begin(&Reader::of(here()), &deadline) {
                let seen = world.snapshot();
                world.commit(0, &reading, seen);
            }
        })
    };
    world.change();
    drop(first);
    let second = world.start(here());
    world.change();
    // Otherwise it would wait for an invalidation that waits for it.
    cancel.cancel();
    world.tracker().wake();
    join(reader);
    drop(second);
    steps::act_as(Actor::fault(1));
    world.assert_quiet();
}

/// A reader waits for an invalidation whose end is told by one thread while another starts the next. Whichever of the two
/// the reader notices, it finds what the first has changed.
pub(crate) fn next_beside_the_end(make: &Make) {
    let world = World::new(make);
    steps::act_as(Actor::invalidate(1));
    let first = world.start_before_devices(here());
    let reader = world.beside(Actor::fault(1), |world| world.attempt(0, &Reader::of(here()), Patience::Waits));
    let ender = world.beside(Actor::invalidate(2), move |world| {
        world.change();
        world.end(first);
    });
    world.invalidate(here());
    join(ender);
    join(reader);
    steps::act_as(Actor::fault(1));
    world.assert_quiet();
}

/// A reader's patience ends before the invalidation does. A model has no clock: there a cancellation stands for the
/// deadline, and on real threads the deadline itself passes.
pub(crate) fn timeout(make: &Make) {
    let world = World::new(make);
    let running = world.start(here());
    let cancel = Arc::new(CancelToken::default());
    let reader = {
        let cancel = Arc::clone(&cancel);
        world.beside(Actor::fault(1), move |world| {
            let deadline = if cfg!(any(loom, shuttle)) {
                Deadline::after(LONG).or_cancelled(&cancel)
            } else {
                Deadline::after(SHORT)
            };
            let answer = world.begin(&Reader::of(here()), &deadline).map(drop);
            require(answer.is_err(), "begun to read while an invalidation runs");
            step(|| "the wait is over".into());
        })
    };
    if cfg!(any(loom, shuttle)) {
        cancel.cancel();
        world.tracker().wake();
    }
    join(reader);
    world.change();
    drop(running);
    world.assert_quiet();
}

/// The address space goes away while a reader waits for an invalidation that does not end before the reader is back.
pub(crate) fn released(make: &Make) {
    let world = World::new(make);
    let running = world.start(here());
    let reader = world.beside(Actor::fault(1), |world| {
        let answer = world.begin(&Reader::of(here()), &Deadline::after(LONG)).map(drop);
        let lost = Err(Error::Lost { range: here(), cause: LostCause::Released });
        require(answer == lost, format_args!("the space is gone, but the reader gets {answer:?}"));
    });
    step(|| "release of the address space".into());
    world.space.release();
    join(reader);
    drop(running);
}
