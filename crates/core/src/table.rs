//! The device page table: what a device may believe about the memory that it mirrors.
//!
//! # Guarantee
//! An entry is installed only by a [`Permit`], so it was valid when it was installed; every overlapping invalidation that
//! starts later takes it away, because each table is subscribed from its first moment. A [`walk`](PageTable::walk) takes no
//! lock and finds each page as it was at an instant of the call.
//!
//! # Types
//! A [`Cursor`] is the device lock of its range. It is held whatever the table has there: a callback takes the cursor of
//! its whole range also where nothing is installed, so it waits for a fault that has passed its check and has not installed
//! yet. Only a cursor can [`commit`](Cursor::commit), and the permit borrows it.
//! ```compile_fail
//! # use pagemirror_core::{addr::PageRange, space::Attempt, table::{Commit, PageTable}};
//! fn keep<'t>(table: &'t PageTable, range: PageRange, attempt: &Attempt<'_>) -> Commit<'t, 't> {
//!     table.lock(range).commit(attempt) // borrows the cursor, which ends here
//! }
//! ```
//! ```compile_fail
//! # use pagemirror_core::table::{Page, Permit};
//! fn twice(permit: Permit<'_, '_>, pages: &[Page]) {
//!     permit.install(pages);
//!     permit.install(pages); // moved
//! }
//! ```
//! What is right compiles:
//! ```
//! # use pagemirror_core::{addr::PageRange, space::Attempt, table::{Commit, Page, PageTable}};
//! fn fault(table: &PageTable, attempt: &Attempt<'_>, pages: &[Page]) -> bool {
//!     let Ok(()) = table.prepare(attempt.range()) else { return false };
//!     match table.lock(attempt.range()).commit(attempt) {
//!         Commit::Permit(permit) => { permit.install(pages); true }
//!         Commit::Collided(_) => false,
//!     }
//! }
//! ```
//!
//! # Lock order
//! A cursor has rank 2, as every device lock; its queue is locked for one look. Under a cursor nothing is allocated, freed
//! or waited for: [`prepare`](PageTable::prepare) allocates before, and nodes are freed with the table.
//! Cursors reach to whole units (2 MiB), so that an entry of a whole unit has one holder. Whether an attempt *collided* is
//! still judged by its exact range.
//!
//! # Not covered
//! A walk alone says nothing about the next instant. The device makes its use inside a section of the gate, as
//! [`access`](crate::mirror::Mirror::access) does.
//!
//! # Checked by
//! `tests/models/table.rs` (loom), `table_oracle` (proptest against a map).

mod page;
mod range_lock;
mod tree;
mod unit;

use std::fmt;

use pagemirror_sync::{Arc, planted};
use thiserror::Error;

use crate::addr::{MIN_PAGE, PageRange, VirtAddr};
use crate::collision::{CollisionTracker, Verdict};
use crate::device;
use crate::log::CollisionLog;
use crate::notify::{Event, Subscriber};
use crate::space::{AddressSpace, Attempt, Subscription};

pub use page::Page;
use range_lock::{RangeGuard, RangeLock};
use tree::{LIMIT, Tree, UNIT_BYTES};
pub use unit::UNIT_PAGES;
use unit::Unit;

/// The range reaches beyond what a process can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{range} reaches beyond {limit}, where no process has memory: check address and length")]
pub struct BeyondTable {
    /// What was asked for.
    pub range: PageRange,
    /// The first address that a table does not cover.
    pub limit: VirtAddr,
}

/// The table of one device on one address space.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use pagemirror_core::{addr::{PageRange, VirtAddr}, notify::Event, space::AddressSpace, wait::Deadline};
/// # use pagemirror_core::table::{Commit, Page, PageTable};
/// let space: Arc<AddressSpace> = Arc::default();
/// let table = PageTable::new(&space);
/// let range = PageRange::covering(VirtAddr::new(0x20_0000), 4096, 4096)?;
/// table.prepare(range)?;
/// let attempt = space.read_begin(range, None, &Deadline::after(Duration::from_secs(1)))?;
/// if let Commit::Permit(permit) = table.lock(range).commit(&attempt) {
///     permit.install(&[Page::readable(7)]);
/// }
/// assert_eq!(table.walk(range.start()).frame(), 7);
/// drop(space.invalidate_start(range, Event::Requested));
/// assert_eq!(table.walk(range.start()), Page::ABSENT);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PageTable<T: CollisionTracker = CollisionLog> {
    // The subscription goes first, so that no callback runs while the rest is taken down.
    _subscription: Subscription<T>,
    locked: Arc<Locked>,
    space: Arc<AddressSpace<T>>,
}

struct Locked {
    lock: RangeLock,
    tree: Tree,
}

impl Subscriber for Locked {
    fn invalidate(&self, range: PageRange, _event: Event) {
        // Planted: nothing is held, so why take the lock? Because of the fault that holds it already.
        if planted("table-callback-skips-empty") && self.tree.looks_empty() {
            return;
        }
        let _held = self.lock(range);
        self.revoke(range);
    }
}

impl Locked {
    fn lock(&self, range: PageRange) -> RangeGuard<'_> {
        let whole = whole_units(range);
        let first = PageRange::from_words(whole.start().get(), whole.start().get() + UNIT_BYTES);
        self.lock.lock(whole, first.unwrap_or(whole))
    }

    /// Unmaps `range`, whose lock is held.
    fn revoke(&self, range: PageRange) {
        let end = range.end().get().min(LIMIT);
        let numbers = range.start().get() / UNIT_BYTES..end.div_ceil(UNIT_BYTES);
        self.tree.for_each_mapped(numbers, &mut |number, unit| {
            unit.clear(pages_of(number, range));
            if unit.is_empty() {
                self.tree.count(number, false);
            }
        });
    }

    /// Maps the pages of `range` that are valid, and unmaps the others. The lock is held and the units are there.
    fn install(&self, range: PageRange, pages: &[Page]) {
        let mut rest = pages;
        for number in units(range) {
            let Some(unit) = self.tree.unit(number) else { return };
            let indexes = pages_of(number, range);
            let (own, behind) = rest.split_at(indexes.len().min(rest.len()));
            let was_empty = unit.is_empty();
            fill(unit, indexes.start, own);
            match (was_empty, unit.is_empty()) {
                (true, false) => self.tree.count(number, true),
                (false, true) => self.tree.count(number, false),
                _ => {}
            }
            rest = behind;
        }
    }
}

fn fill(unit: &Unit, first: usize, pages: &[Page]) {
    if is_whole(pages) {
        return unit.set_whole(pages[0]);
    }
    for (index, &page) in (first..).zip(pages) {
        if page.is_valid() { unit.set(index, page) } else { unit.clear(index..index + 1) }
    }
}

/// Whether one entry can stand for all of these pages: they fill a unit, the CPU maps them together, and each is the next
/// of the one before.
fn is_whole(pages: &[Page]) -> bool {
    pages.len() == UNIT_PAGES
        && pages[0].is_valid()
        && usize::from(pages[0].order()) >= UNIT_PAGES.trailing_zeros() as usize
        && (0..UNIT_PAGES).all(|index| pages[index] == pages[0].nth(index))
}

/// The units that `range` touches, by number.
fn units(range: PageRange) -> std::ops::Range<u64> {
    range.start().get() / UNIT_BYTES..range.end().get().div_ceil(UNIT_BYTES)
}

/// The pages of unit `number` that lie in `range`.
fn pages_of(number: u64, range: PageRange) -> std::ops::Range<usize> {
    let base = number * UNIT_BYTES;
    let index = |address: u64| (address.saturating_sub(base).min(UNIT_BYTES) / MIN_PAGE) as usize;
    index(range.start().get())..index(range.end().get())
}

/// The smallest range of whole units that holds `range`; everything that is left at the end of the address space.
fn whole_units(range: PageRange) -> PageRange {
    let start = range.start().get() / UNIT_BYTES * UNIT_BYTES;
    let end = range.end().get().checked_next_multiple_of(UNIT_BYTES).unwrap_or(PageRange::ALL.end().get());
    PageRange::from_words(start, end).unwrap_or(range)
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked").field("looks_empty", &self.tree.looks_empty()).finish_non_exhaustive()
    }
}

impl<T: CollisionTracker + 'static> PageTable<T> {
    /// An empty table for `space`, subscribed to its invalidations.
    ///
    /// # Blocking
    /// As [`AddressSpace::subscribe`].
    pub fn new(space: &Arc<AddressSpace<T>>) -> Self {
        let locked = Arc::new(Locked { lock: RangeLock::new(), tree: Tree::new() });
        let subscription = space.subscribe(Arc::clone(&locked) as Arc<dyn Subscriber>);
        Self { _subscription: subscription, locked, space: Arc::clone(space) }
    }

    /// The address space that is mirrored.
    pub fn space(&self) -> &Arc<AddressSpace<T>> {
        &self.space
    }

    /// What the table holds for the page at `address`. Takes no lock and never allocates.
    pub fn walk(&self, address: VirtAddr) -> Page {
        let number = address.get() / UNIT_BYTES;
        let index = address.get() % UNIT_BYTES / MIN_PAGE;
        if address.get() >= LIMIT {
            return Page::ABSENT;
        }
        self.locked.tree.unit(number).map_or(Page::ABSENT, |unit| unit.get(index as usize))
    }

    /// Makes the nodes that mapping `range` needs. They stay until the table is dropped.
    ///
    /// # Errors
    /// When the range reaches beyond what a process can have.
    ///
    /// # Blocking
    /// Allocates: not under a cursor, not in a section, not in a callback.
    pub fn prepare(&self, range: PageRange) -> Result<(), BeyondTable> {
        if range.end().get() > LIMIT {
            return Err(BeyondTable { range, limit: VirtAddr::new(LIMIT) });
        }
        units(range).for_each(|number| self.locked.tree.make(number));
        Ok(())
    }

    /// Takes the device lock of `range`.
    ///
    /// # Blocking
    /// Waits for who holds a part of it, and by the rules of the module's text is quick.
    pub fn lock(&self, range: PageRange) -> Cursor<'_, T> {
        Cursor { held: self.locked.lock(range), table: self, range }
    }
}

/// The held device lock of a range.
#[derive(Debug)]
pub struct Cursor<'t, T: CollisionTracker = CollisionLog> {
    held: RangeGuard<'t>,
    table: &'t PageTable<T>,
    range: PageRange,
}

impl<'t, T: CollisionTracker> Cursor<'t, T> {
    /// Asks whether what `attempt` has read may be installed.
    ///
    /// # Panics
    /// When the attempt belongs to another address space or reaches beyond the cursor: bugs of the caller.
    pub fn commit(&mut self, attempt: &Attempt<'_, T>) -> Commit<'_, 't, T> {
        assert!(self.range.contains(attempt.range()), "an attempt was committed under the lock of another range");
        match device::verdict(&self.table.space, attempt) {
            Verdict::Valid => Commit::Permit(Permit { cursor: self, range: attempt.range() }),
            collided => Commit::Collided(collided),
        }
    }

    /// Unmaps the whole range of the cursor.
    pub fn clear(&mut self) {
        debug_assert!(planted("lock-first-unit-only") || self.held.range().contains(self.range));
        self.table.locked.revoke(self.range);
    }
}

/// The answer to a commit. A collision is an outcome, not an error: go round again with the verdict.
#[derive(Debug)]
#[must_use]
pub enum Commit<'c, 't, T: CollisionTracker = CollisionLog> {
    /// Nothing collided.
    Permit(Permit<'c, 't, T>),
    /// Something did, or may have.
    Collided(Verdict),
}

/// The right to install what one attempt has read, for as long as the cursor is held.
#[derive(Debug)]
#[must_use = "nothing is installed until it is used"]
pub struct Permit<'c, 't, T: CollisionTracker = CollisionLog> {
    cursor: &'c Cursor<'t, T>,
    range: PageRange,
}

impl<T: CollisionTracker> Permit<'_, '_, T> {
    /// Installs `pages` from the start of the attempt's range on: those that are valid are mapped, the others unmapped.
    /// Where fewer are given than the range has, the rest stays as it is.
    ///
    /// # Panics
    /// When more pages are given than the range has: a bug of the caller.
    pub fn install(self, pages: &[Page]) {
        let most = self.range.len() / MIN_PAGE;
        assert!(pages.len() as u64 <= most, "more pages than the attempt has read");
        let end = self.range.start().get() + pages.len() as u64 * MIN_PAGE;
        if let Some(range) = PageRange::from_words(self.range.start().get(), end) {
            self.cursor.table.locked.install(range, pages);
        }
    }
}
