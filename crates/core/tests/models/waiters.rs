//! Whoever waits is woken: by the end of what it waits for, or by the loss of the space.
//!
//! Under a model a sleeper without a wake-up sleeps for ever, which the engine reports as a deadlock. On real threads it
//! would look again after a slice of its deadline, so there these bodies show only that the answers are right.

use pagemirror_core::error::Error;
use pagemirror_core::gate::{Entered, LostCause};
use pagemirror_core::notify::Event;
use pagemirror_core::wait::{Deadline, Interrupted, Wait};

use super::engine::beside;
use super::world::{LONG, SMALL, World, here};

/// The space goes away while a reader waits for an invalidation that does not end before the reader is back.
pub(crate) fn release_with_waiters() {
    let world = World::new(SMALL);
    let running = world.space.invalidate_start(here(), Event::Requested);
    let reader = beside(&world, |world| {
        let answer = world.space.read_begin(here(), None, &Deadline::after(LONG)).map(drop);
        assert_eq!(answer, Err(Error::Lost { range: here(), cause: LostCause::Released }), "VIOLATION: not lost");
    });
    world.space.release();
    reader.join().unwrap();
    drop(running);
}

/// The invalidation ends while a reader waits for it; a second reader, who waits for nothing, does not disturb.
pub(crate) fn end_with_waiters() {
    let world = World::new(SMALL);
    let running = world.space.invalidate_start(here(), Event::Requested);
    let reader = beside(&world, |world| world.fault(here(), None));
    world.change();
    drop(running);
    assert_eq!(reader.join().unwrap(), Ok(()), "VIOLATION: the invalidation that was waited for became a collision");
    world.assert_coherent();
}

/// The gate is lowered, or the space is lost, while a use waits outside.
pub(crate) fn lowered_gate_with_waiters() {
    let world = World::new(SMALL);
    let gate = world.space.gate();
    gate.raise();
    let waiting = beside(&world, |world| {
        let gate = world.space.gate();
        gate.wait_open(&Wait::new(&Deadline::after(LONG), gate))
    });
    gate.lower();
    assert_eq!(waiting.join().unwrap(), Ok(()), "VIOLATION: the gate is open, the wait is not over");

    gate.raise();
    let waiting = beside(&world, |world| {
        let gate = world.space.gate();
        gate.wait_open(&Wait::new(&Deadline::after(LONG), gate))
    });
    world.space.lose(LostCause::SourceClosed);
    assert_eq!(waiting.join().unwrap(), Err(Interrupted::Lost), "VIOLATION: a raised gate was found open");
    gate.lower();
    assert!(matches!(gate.enter(), Entered::Lost(LostCause::SourceClosed)), "VIOLATION: loss does not last");
}
