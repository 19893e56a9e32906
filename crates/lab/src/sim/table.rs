//! A device's table, and what it holds: registrations of pinned pages.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use pagemirror_core_sim::addr::PageRange;
use pagemirror_core_sim::device::{Granted, Mappings};
use pagemirror_core_sim::notify::Event;
use pagemirror_sync_sim::atomic::{AtomicBool, Ordering};

use super::counts::Count;
use super::memory::range_of;
use super::world::World;

/// Revocations that a table remembers: more than any attempt outlives.
const REMEMBERED: usize = 4096;
/// How long a slow callback takes, at most, in nanoseconds.
const SLOW: u64 = 500_000;

/// Pinned pages.
#[derive(Debug)]
pub(crate) struct Registration {
    world: Arc<World>,
    pub(crate) pages: Range<usize>,
    pub(crate) tags: Vec<u32>,
    /// The moment at which the `read_begin` behind it returned; for one use, the moment it was pinned.
    pub(crate) began: u64,
    stale: AtomicBool,
}

impl Registration {
    pub(crate) fn new(world: &Arc<World>, pages: Range<usize>, tags: Vec<u32>, began: u64) -> Arc<Self> {
        Arc::new(Self { world: Arc::clone(world), pages, tags, began, stale: AtomicBool::new(false) })
    }

    /// Whether it was revoked. Asked in the section.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    /// The first page that no longer lies where it was pinned.
    pub(crate) fn first_untrue(&self) -> Option<PageRange> {
        let kernel = self.world.kernel();
        let at = self.tags.iter().position(|tag| !kernel.memory.is_there(*tag))?;
        Some(range_of(self.pages.start + at..self.pages.start + at + 1))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.world.kernel().memory.unpin(&self.tags);
    }
}

/// The registrations that a device keeps, behind the device lock.
#[derive(Debug)]
pub(crate) struct Table {
    world: Arc<World>,
    device: usize,
    held: Vec<Arc<Registration>>,
    revoked: VecDeque<(u64, PageRange)>,
}

impl Table {
    pub(crate) fn new(world: &Arc<World>, device: usize) -> Self {
        Self { world: Arc::clone(world), device, held: Vec::new(), revoked: VecDeque::new() }
    }

    pub(crate) fn find(&self, pages: &Range<usize>) -> Option<Arc<Registration>> {
        self.held.iter().find(|held| held.pages == *pages).map(Arc::clone)
    }

    /// Something that is held and is not true.
    pub(crate) fn first_untrue(&self) -> Option<PageRange> {
        self.held.iter().find_map(|held| held.first_untrue())
    }
}

impl Mappings for Table {
    type Item = Arc<Registration>;

    fn install(&mut self, _granted: Granted, range: PageRange, item: Self::Item) {
        let overlooked = self.revoked.iter().rev().take_while(|(at, _)| *at > item.began);
        if let Some((_, by)) = overlooked.into_iter().find(|(_, by)| by.overlaps(range)) {
            self.world.fail(format!(
                "an invalidation is lost: {range} is installed, though the revocation of {by} ran after its attempt began"
            ));
        }
        let device = self.device;
        self.world.note(|| format!("device {device} keeps {range}"));
        self.held.push(item);
    }

    fn revoke(&mut self, range: PageRange, event: Event) {
        if self.world.strikes(self.world.options.slow_callback, Count::FaultSlowCallback) {
            self.world.pause(SLOW);
        }
        self.revoked.push_back((self.world.moments.next(), range));
        if self.revoked.len() > REMEMBERED {
            self.revoked.pop_front();
        }
        let device = self.device;
        self.held.retain(|held| {
            let hit = range.overlaps(range_of(held.pages.clone()));
            if hit {
                held.stale.store(true, Ordering::Release);
                self.world.note(|| {
                    format!("device {device} revokes {:?} for {event:?} of {range}", range_of(held.pages.clone()))
                });
            }
            !hit
        });
        if self.world.strikes(self.world.options.panicking, Count::FaultPanicking) {
            // Not the macro: its hook would print a finding that is none.
            std::panic::resume_unwind(Box::new("a callback that panics"));
        }
    }
}
