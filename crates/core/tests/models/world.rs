//! What the scenarios share: one page with a content, one device that holds a translation of it.

use std::time::Duration;

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::collision::Verdict;
use pagemirror_core::device::{Commit, DeviceTable, Granted, Mappings};
use pagemirror_core::gate::Gate;
use pagemirror_core::log::CollisionLog;
use pagemirror_core::memory::LogSize;
use pagemirror_core::notify::Event;
use pagemirror_core::space::{AddressSpace, Attempt};
use pagemirror_core::wait::Deadline;
use pagemirror_sync::Arc;
use pagemirror_sync::atomic::{AtomicU64, Ordering};

/// Longer than any wait of a scenario on real threads; a model has no clock.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Enough of everything for two invalidations at once.
pub(crate) const SMALL: LogSize = LogSize { ring: 4, running: 2, readers: 1 };

/// `count` pages from page number `first` on.
pub(crate) fn pages(first: u64, count: u64) -> PageRange {
    PageRange::covering(VirtAddr::new(first * 4096), count * 4096, 4096).unwrap()
}

/// The range whose page the scenarios read.
pub(crate) fn here() -> PageRange {
    pages(4, 2)
}

/// A range that has nothing to do with it.
pub(crate) fn elsewhere() -> PageRange {
    pages(32, 2)
}

/// A device with room for one translation: the content that the page had when it was read.
#[derive(Debug, Default)]
pub(crate) struct OneTranslation {
    installed: Option<(PageRange, u64)>,
}

impl Mappings for OneTranslation {
    type Item = u64;

    fn install(&mut self, _granted: Granted, range: PageRange, item: u64) {
        self.installed = Some((range, item));
    }

    fn revoke(&mut self, range: PageRange, _event: Event) {
        self.installed = self.installed.filter(|(held, _)| !held.overlaps(range));
    }
}

/// One address space with one device, and the page at [`here`].
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) space: Arc<AddressSpace>,
    pub(crate) table: DeviceTable<OneTranslation>,
    /// Which page lies at [`here`]: it grows with each change. Read and written with Relaxed only, so that the library
    /// alone carries the order between the change and whoever reads the page.
    content: AtomicU64,
}

impl World {
    pub(crate) fn new(size: LogSize) -> Arc<Self> {
        let space = Arc::new(AddressSpace::new(CollisionLog::new(size), Gate::in_ordinary_memory()));
        let table = DeviceTable::new(&space, OneTranslation::default());
        Arc::new(Self { space, table, content: AtomicU64::new(0) })
    }

    /// Another page lies at [`here`] from now on: what an invalidation announces.
    pub(crate) fn change(&self) {
        self.content.fetch_add(1, Ordering::Relaxed);
    }

    /// What the page table says now.
    pub(crate) fn snapshot(&self) -> u64 {
        self.content.load(Ordering::Relaxed)
    }

    /// One whole invalidation of `range`, which changes the page if it lies in there.
    pub(crate) fn invalidate(&self, range: PageRange) {
        let running = self.space.invalidate_start(range, Event::Requested);
        if range.overlaps(here()) {
            self.change();
        }
        drop(running);
    }

    /// Waits for what runs over `range` and begins to read it.
    pub(crate) fn begin(&self, range: PageRange, previous: Option<Verdict>) -> Attempt<'_> {
        self.space.read_begin(range, previous, &Deadline::after(LONG)).unwrap()
    }

    /// Takes the device lock and installs `seen` if nothing collided.
    pub(crate) fn commit(&self, attempt: &Attempt<'_>, seen: u64) -> Result<(), Verdict> {
        match self.table.lock().commit(attempt) {
            Commit::Permit(permit) => {
                permit.install(seen);
                Ok(())
            }
            Commit::Collided(verdict) => Err(verdict),
        }
    }

    /// One attempt of the fault side, as in DESIGN 4.1.
    pub(crate) fn fault(&self, range: PageRange, previous: Option<Verdict>) -> Result<(), Verdict> {
        let attempt = self.begin(range, previous);
        let seen = self.snapshot();
        self.commit(&attempt, seen)
    }

    /// What the device holds.
    pub(crate) fn installed(&self) -> Option<u64> {
        self.table.lock().installed_content()
    }

    /// Nothing runs any more: what the device holds is the page that is there.
    pub(crate) fn assert_coherent(&self) {
        let now = self.snapshot();
        let held = self.installed();
        assert!(
            held.is_none_or(|held| held == now),
            "VIOLATION: the device holds page {held:?}, but page {now} is there"
        );
    }
}

impl OneTranslation {
    fn installed_content(&self) -> Option<u64> {
        self.installed.map(|(_, content)| content)
    }
}
