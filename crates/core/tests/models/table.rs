//! The device page table: installing and splitting beside invalidations and beside the device's walk.
//!
//! A model's unit has four pages, and its table four units.

use pagemirror_core::addr::{MIN_PAGE, PageRange};
use pagemirror_core::gate::Gate;
use pagemirror_core::log::CollisionLog;
use pagemirror_core::notify::Event;
use pagemirror_core::space::AddressSpace;
use pagemirror_core::table::{Commit, Page, PageTable, UNIT_PAGES};
use pagemirror_core::wait::Deadline;
use pagemirror_sync::Arc;
use pagemirror_sync::atomic::{AtomicU64, Ordering};

use super::engine::beside;
use super::world::{LONG, SMALL, pages};

const UNIT: u64 = UNIT_PAGES as u64;

/// An address space, one device's table, and what the page at [`second_unit`] is: it grows with each change.
struct World {
    space: Arc<AddressSpace>,
    table: PageTable,
    /// Relaxed only, so that the library alone carries the order.
    content: AtomicU64,
}

fn second_unit() -> PageRange {
    pages(UNIT, 1)
}

/// Pages that the CPU maps together, the first of them reached by `frame`.
fn whole(frame: u64) -> Vec<Page> {
    (0..UNIT).map(|index| Page::readable(frame + index).with_order(9)).collect()
}

impl World {
    fn new() -> Arc<Self> {
        let space = Arc::new(AddressSpace::new(CollisionLog::new(SMALL), Gate::in_ordinary_memory()));
        let table = PageTable::new(&space);
        table.prepare(pages(0, 2 * UNIT)).unwrap();
        Arc::new(Self { space, table, content: AtomicU64::new(0) })
    }

    fn install(&self, range: PageRange, what: &dyn Fn() -> Vec<Page>) -> bool {
        let attempt = self.space.read_begin(range, None, &Deadline::after(LONG)).unwrap();
        let seen = what();
        match self.table.lock(range).commit(&attempt) {
            Commit::Permit(permit) => {
                permit.install(&seen);
                true
            }
            Commit::Collided(_) => false,
        }
    }

    /// Reads what is at the second unit, and installs it there as part of `range`.
    fn fault(&self, range: PageRange) -> bool {
        let count = (range.len() / MIN_PAGE) as usize;
        self.install(range, &|| vec![Page::readable(self.content.load(Ordering::Relaxed)); count])
    }

    fn change(&self, range: PageRange) {
        let running = self.space.invalidate_start(range, Event::Requested);
        self.content.fetch_add(1, Ordering::Relaxed);
        drop(running);
    }

    fn assert_coherent(&self) {
        let (held, now) = (self.table.walk(second_unit().start()), self.content.load(Ordering::Relaxed));
        assert!(
            !held.is_valid() || held.frame() == now,
            "VIOLATION: the table holds page {}, but page {now} is there",
            held.frame()
        );
    }
}

/// Nothing is installed when the invalidation of both units comes; the fault of the second may have passed its check.
pub(crate) fn install_beside_revoke_of_an_empty_table() {
    let world = World::new();
    let writer = beside(&world, |world| world.change(pages(0, 2 * UNIT)));
    world.fault(second_unit());
    writer.join().unwrap();
    world.assert_coherent();
}

/// Two faults of one page beside an invalidation of it.
pub(crate) fn two_installs_beside_revoke() {
    let world = World::new();
    let other = beside(&world, |world| world.fault(pages(UNIT - 1, 2)));
    let writer = beside(&world, |world| world.change(second_unit()));
    world.fault(second_unit());
    other.join().unwrap();
    writer.join().unwrap();
    // The other fault read one content for both of its pages, so the page in the second unit is judged alone.
    world.assert_coherent();
}

/// Who finds an entry also finds what its frame stands for.
pub(crate) fn walk_beside_install() {
    let world = World::new();
    let fault = beside(&world, |world| {
        world.content.store(1, Ordering::Relaxed);
        world.fault(second_unit());
    });
    let found = world.table.walk(second_unit().start());
    let content = world.content.load(Ordering::Relaxed);
    assert!(!found.is_valid() || found.frame() <= content, "VIOLATION: an entry is found before what it stands for");
    fault.join().unwrap();
}

/// One page of a whole unit is revoked; the others are found at every instant, and the one never after it.
pub(crate) fn walk_beside_a_split() {
    let world = World::new();
    let unit = pages(0, UNIT);
    assert!(world.install(unit, &|| whole(8)), "VIOLATION: a collision with nothing");
    // The walk runs beside, because loom goes back only to the last access of a word, and the writer reads before it writes.
    let walk = beside(&world, move |world| world.table.walk(unit.start()));
    drop(world.space.invalidate_start(pages(3, 1), Event::Requested));
    let kept = walk.join().unwrap();
    assert_eq!((kept.is_valid(), kept.frame()), (true, 8), "VIOLATION: a page that stays mapped is missed");
    assert!(!world.table.walk(pages(3, 1).start()).is_valid(), "VIOLATION: a revoked page is still there");
}

/// Single pages, then a whole unit over them, then nothing: what was below must not come to light again.
pub(crate) fn whole_over_pages_then_revoked() {
    let world = World::new();
    let unit = pages(0, UNIT);
    assert!(world.install(pages(1, 1), &|| vec![Page::readable(5)]), "VIOLATION: a collision with nothing");
    assert!(world.install(unit, &|| whole(8)), "VIOLATION: a collision with nothing");
    let walk = beside(&world, |world| world.table.walk(pages(1, 1).start()));
    drop(world.space.invalidate_start(unit, Event::Requested));
    let found = walk.join().unwrap();
    assert!(!found.is_valid() || found.frame() == 9, "VIOLATION: a replaced entry is found again: {found:?}");
    assert!(!world.table.walk(pages(1, 1).start()).is_valid(), "VIOLATION: a revoked page is still there");
}
