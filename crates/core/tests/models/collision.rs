//! Attempts against invalidations that fit into the log.

use pagemirror_core::addr::PageRange;
use pagemirror_core::collision::Verdict;
use pagemirror_core::gate::Gate;
use pagemirror_core::log::CollisionLog;
use pagemirror_core::memory::LogSize;
use pagemirror_core::notify::{Event, Subscriber};
use pagemirror_core::space::AddressSpace;
use pagemirror_core::wait::Deadline;
use pagemirror_sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use pagemirror_sync::{Arc, Mutex, planted};

use super::engine::beside;
use super::world::{LONG, SMALL, World, elsewhere, here, pages};

/// A collision that names its range must name one that overlaps.
fn assert_hit_overlaps(answer: Result<(), Verdict>, range: PageRange) {
    if let Err(Verdict::Hit(Some(by))) = answer {
        assert!(by.overlaps(range), "VIOLATION: {range} was hit by {by}, which is elsewhere");
    }
}

/// One attempt beside one overlapping invalidation. The writer's second invalidation takes the same running slot, which
/// must go on publishing the end of the first.
pub(crate) fn begin_commit_against_start_end() {
    let world = World::new(SMALL);
    let writer = beside(&world, |world| {
        world.invalidate(here());
        world.invalidate(elsewhere());
    });
    assert_hit_overlaps(world.fault(here(), None), here());
    writer.join().unwrap();
    world.assert_coherent();
}

/// The interleaving that a flag for each range cannot see: the flag is back at "valid". Nothing is left to chance here,
/// so the attempt must be hit, and the next one must not.
pub(crate) fn started_and_ended_between_snapshot_and_commit() {
    let world = World::new(SMALL);
    let attempt = world.begin(here(), None);
    let seen = world.snapshot();
    beside(&world, |world| world.invalidate(here())).join().unwrap();
    let answer = world.commit(&attempt, seen);
    assert_eq!(answer, Err(Verdict::Hit(Some(here()))), "VIOLATION: a change between snapshot and commit is forgotten");
    drop(attempt);
    assert_eq!(world.fault(here(), answer.err()), Ok(()), "VIOLATION: hit by an invalidation of the attempt before");
    assert_eq!(world.installed(), Some(world.snapshot()));
}

/// A device that is not a [`DeviceTable`](pagemirror_core::device::DeviceTable): its own lock, its own callback. This is
/// where the bugs of a device's author are planted.
struct OwnDevice {
    held: Mutex<Option<u64>>,
    /// How many translations there are, kept beside the lock for the author's clever callback.
    count: AtomicUsize,
}

impl Subscriber for OwnDevice {
    fn invalidate(&self, _range: PageRange, _event: Event) {
        // Planted in the device: nothing is held, so why take the lock? Because of the fault that holds it already.
        // ORDERING: SeqCst, so that the bug is not one of orderings.
        if planted("callback-skips-empty") && self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        *self.held.lock() = None;
        self.count.store(0, Ordering::SeqCst);
    }
}

impl OwnDevice {
    fn install(&self, held: &mut Option<u64>, seen: u64) {
        *held = Some(seen);
        self.count.store(1, Ordering::SeqCst);
    }
}

/// The same with a device lock that the library does not know.
pub(crate) fn begin_commit_under_a_device_lock_of_its_own() {
    let space = Arc::new(AddressSpace::new(CollisionLog::new(SMALL), Gate::in_ordinary_memory()));
    let device = Arc::new(OwnDevice { held: Mutex::new(None), count: AtomicUsize::new(0) });
    let _subscription = space.subscribe(Arc::clone(&device) as Arc<dyn Subscriber>);
    let content = Arc::new(AtomicU64::new(0));

    let changed = Arc::clone(&content);
    let writer = beside(&space, move |space| {
        let running = space.invalidate_start(here(), Event::Requested);
        changed.store(1, Ordering::Relaxed);
        drop(running);
    });
    let attempt = space.read_begin(here(), None, &Deadline::after(LONG)).unwrap();
    let seen = content.load(Ordering::Relaxed);
    // Planted in the device: the answer is asked for before the lock is taken.
    let asked_early = planted("commit-before-lock").then(|| attempt.is_valid());
    let mut held = device.held.lock();
    if asked_early.unwrap_or_else(|| attempt.is_valid()) {
        device.install(&mut held, seen);
    }
    drop(held);
    writer.join().unwrap();
    let (held, now) = (*device.held.lock(), content.load(Ordering::Relaxed));
    assert!(held.is_none_or(|held| held == now), "VIOLATION: the device holds page {held:?}, but page {now} is there");
}

/// Two invalidations overlap each other and the reader: that one of them ends does not make the range quiet.
pub(crate) fn overlap_chain() {
    two_overlapping(SMALL);
}

fn two_overlapping(size: LogSize) {
    let world = World::new(size);
    let first = beside(&world, |world| world.invalidate(pages(3, 2)));
    let second = beside(&world, |world| world.invalidate(pages(4, 8)));
    assert_hit_overlaps(world.fault(here(), None), here());
    first.join().unwrap();
    second.join().unwrap();
    world.assert_coherent();
}

/// A reader of another range is neither hit nor kept waiting.
pub(crate) fn overlap_chain_leaves_others_alone() {
    let world = World::new(SMALL);
    let running = world.space.invalidate_start(here(), Event::Requested);
    let other = beside(&world, |world| world.invalidate(pages(5, 3)));
    // Would sleep for ever if it waited for the invalidation that this very thread holds.
    let answer = world.fault(elsewhere(), None);
    assert!(!matches!(answer, Err(Verdict::Hit(_))), "VIOLATION: hit by an invalidation elsewhere: {answer:?}");
    drop(running);
    other.join().unwrap();
}

/// The same with one running slot: whoever comes second stands for everything.
pub(crate) fn overlap_chain_without_a_free_slot() {
    two_overlapping(LogSize { ring: 4, running: 1, readers: 1 });
}

/// One thread holds two invalidations; the second must not take the place of the first.
pub(crate) fn nested_invalidations() {
    let world = World::new(SMALL);
    let writer = beside(&world, |world| {
        let outer = world.space.invalidate_start(here(), Event::Requested);
        let inner = world.space.invalidate_start(elsewhere(), Event::Requested);
        world.change();
        // The inner one ends first, as nested values do; the outer one goes on.
        drop(inner);
        world.change();
        drop(outer);
    });
    assert_hit_overlaps(world.fault(here(), None), here());
    writer.join().unwrap();
    world.assert_coherent();
}

/// A running slot changes hands while the thread that leaves it is still clearing it: the next owner stands for its own
/// range and no more, so nobody elsewhere waits for it.
pub(crate) fn slot_handed_over_while_it_is_cleared() {
    let world = World::new(SMALL);
    let leaving = beside(&world, |world| world.invalidate(here()));
    let running = world.space.invalidate_start(elsewhere(), Event::Requested);
    leaving.join().unwrap();
    // Would sleep for ever if the slot stood for more than `elsewhere`: this very thread holds it.
    assert_eq!(world.fault(here(), None), Ok(()), "VIOLATION: hit by an invalidation elsewhere, or by one that ended");
    drop(running);
    world.assert_coherent();
}

/// The same slot, seen by a reader: whoever finds the next owner in it also finds what the former one has changed.
pub(crate) fn next_owner_of_a_slot_publishes_the_end_of_the_former() {
    let world = World::new(LogSize { ring: 4, running: 1, readers: 1 });
    let former = beside(&world, |world| world.invalidate(here()));
    let next = beside(&world, |world| world.invalidate(elsewhere()));
    assert_hit_overlaps(world.fault(here(), None), here());
    former.join().unwrap();
    next.join().unwrap();
    world.assert_coherent();
}
