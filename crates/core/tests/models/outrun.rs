//! Attempts that outlive the log's memory, and the reader slot that makes them exact all the same.

use pagemirror_core::collision::Verdict;
use pagemirror_core::memory::LogSize;

use super::engine::beside;
use super::world::{World, elsewhere, here, pages};

/// A log that forgets everything but its newest invalidation.
const ONE: LogSize = LogSize { ring: 1, running: 2, readers: 1 };

/// Attempts until the page is installed: each goes again with `Outrun` in hand, so that it asks for the exact answer.
///
/// Attempts follow each other, so one invalidation can hit one of them at most: more hits than overlapping invalidations
/// are false ones. This needs no clock and adds no order of its own.
fn fault_exactly(world: &World, mut previous: Option<Verdict>, overlapping: usize) {
    let mut hits = 0;
    loop {
        let exact = previous == Some(Verdict::Outrun);
        match world.fault(here(), previous) {
            Ok(()) => return,
            Err(Verdict::Hit(_)) => hits += 1,
            Err(other) => assert!(!exact, "VIOLATION: {other:?} with a reader slot in hand"),
        }
        assert!(hits <= overlapping, "VIOLATION: hit {hits} times by {overlapping} overlapping invalidations");
        previous = Some(Verdict::Outrun);
    }
}

/// The log is outrun between token and commit; the second attempt is exact.
pub(crate) fn outrun_and_hit_field() {
    let world = World::new(ONE);
    let writer = beside(&world, |world| {
        world.invalidate(elsewhere());
        world.invalidate(here());
    });
    fault_exactly(&world, None, 1);
    writer.join().unwrap();
    world.assert_coherent();
}

/// The reader slot alone, against one invalidation: range and token of the reader, slot and look at the readers of the
/// writer are a store and a load on both sides.
pub(crate) fn hit_field_against_one_writer() {
    let world = World::new(ONE);
    let writer = beside(&world, |world| world.invalidate(here()));
    fault_exactly(&world, Some(Verdict::Outrun), 1);
    writer.join().unwrap();
    world.assert_coherent();
}

/// The reader slot changes hands while a writer looks at it: whoever has it next is not hit for the former owner, nor by
/// a range that was put together from both.
pub(crate) fn hit_of_the_former_owner() {
    let world = World::new(ONE);
    let writer = beside(&world, |world| world.invalidate(pages(6, 2)));
    drop(world.begin(pages(7, 1), Some(Verdict::Outrun)));
    let next = world.begin(pages(2, 1), Some(Verdict::Outrun));
    assert_eq!(world.commit(&next, 0), Ok(()), "VIOLATION: hit by an invalidation elsewhere");
    drop(next);
    writer.join().unwrap();
}

/// A writer that saw the former owner writes its number late: it must not lower the hit of a younger one.
pub(crate) fn hit_beside_a_late_writer() {
    let world = World::new(ONE);
    let late = beside(&world, |world| world.invalidate(elsewhere()));
    let younger = beside(&world, |world| world.invalidate(here()));
    drop(world.begin(elsewhere(), Some(Verdict::Outrun)));
    // One attempt: what counts is that it is not installed beside the younger writer.
    let _ = world.fault(here(), Some(Verdict::Outrun));
    late.join().unwrap();
    younger.join().unwrap();
    world.assert_coherent();
}
