//! `Hmm`: one for each address space, with its ranges, its count of notifiers, and its mirrors.

use std::fmt;
use std::time::Duration;

use pagemirror_core::addr::PageRange;
use pagemirror_core::wait::{Deadline, Interrupted, Wait, WaitQueue};
use pagemirror_sync::atomic::{AtomicBool, Ordering};
use pagemirror_sync::{Arc, Mutex, planted};

use super::list::{RangeList, Spare};
use super::mirror::{Mirrors, Refused, Update};
use crate::cells::Cells;
use crate::steps::{named, step};

/// How long drivers of 2019 waited for a range to become valid (`HMM_RANGE_DEFAULT_TIMEOUT`).
pub const RANGE_DEFAULT_TIMEOUT: Duration = Duration::from_millis(1000);

/// The address space has gone away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dead;

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the address space has gone away: drop what was built on it")
    }
}

impl std::error::Error for Dead {}

/// How a wait for a range ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Waited {
    /// The range is valid.
    Valid,
    /// The limit passed first.
    TimedOut,
}

/// What `ranges_lock` protects.
#[derive(Debug)]
struct Ranges {
    list: RangeList,
    /// The invalidations that run: from counting up in start to counting down in end.
    notifiers: u64,
}

/// One address space (`struct hmm`). Mirrors and registered ranges hold a reference each.
#[derive(Debug)]
pub struct Hmm {
    ranges: Mutex<Ranges>,
    /// The bit of each range, by its place in the list; beside the lock, so that it is looked at without it.
    valid: Cells<AtomicBool>,
    mirrors: Mirrors,
    parked: WaitQueue,
    dead: AtomicBool,
}

impl Hmm {
    /// A quiet address space (`hmm_get_or_create`).
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            ranges: Mutex::new(Ranges { list: RangeList::new(), notifiers: 0 }),
            valid: Cells::new(|| AtomicBool::new(false)),
            mirrors: Mirrors::new(),
            parked: WaitQueue::new(),
            dead: AtomicBool::new(false),
        })
    }

    pub(super) fn mirrors(&self) -> &Mirrors {
        &self.mirrors
    }

    pub(super) fn is_dead(&self) -> bool {
        // ORDERING: Acquire pairs with the Release of `release`.
        self.dead.load(Ordering::Acquire)
    }

    /// How many ranges are registered.
    #[must_use]
    pub fn registered(&self) -> usize {
        self.ranges.lock().list.len()
    }

    /// An invalidation starts: marks what overlaps, then tells the mirrors (`hmm_invalidate_range_start`).
    ///
    /// # Errors
    /// When a mirror refused. The count is undone, because no end will come.
    ///
    /// # Blocking
    /// Runs the mirrors' callbacks. Not from one of them.
    pub fn invalidate_range_start(&self, update: &Update) -> Result<(), Refused> {
        self.mark(update.range);
        self.mirrors.sync(update).inspect_err(|_| self.refused())
    }

    /// Counts an invalidation and marks every range that it overlaps: precise about "not valid".
    pub fn mark(&self, range: PageRange) {
        if planted("range-valid-counted-after-marks") {
            self.mark_overlapping(&self.ranges.lock(), range);
            self.ranges.lock().notifiers += 1;
            return;
        }
        let mut ranges = self.ranges.lock();
        ranges.notifiers += 1;
        step(|| format!("notifiers = {}", ranges.notifiers));
        self.mark_overlapping(&ranges, range);
    }

    fn mark_overlapping(&self, ranges: &Ranges, by: PageRange) {
        let hits = |range| if planted("range-valid-only-inside") { by.contains(range) } else { by.overlaps(range) };
        for (at, range) in ranges.list.iter().filter(|&(_, range)| hits(range)) {
            // ORDERING: Relaxed; the device lock, which every callback takes next, carries it to who commits.
            self.set_valid(at, false, Ordering::Relaxed);
            step(|| format!("{}: valid = false", named(range)));
        }
    }

    /// The start was refused by a mirror: the count is undone, because no end will come.
    pub fn refused(&self) {
        if !planted("range-valid-refused-start-leaks") {
            self.notifiers_decrement();
        }
    }

    /// An invalidation ends (`hmm_invalidate_range_end`).
    pub fn invalidate_range_end(&self) {
        self.notifiers_decrement();
    }

    /// The last one out marks everything valid and wakes everybody: lazy about "valid".
    fn notifiers_decrement(&self) {
        let mut ranges = self.ranges.lock();
        ranges.notifiers = ranges.notifiers.saturating_sub(1);
        step(|| format!("notifiers = {}", ranges.notifiers));
        let last = ranges.notifiers == 0 || planted("range-valid-end-of-one-marks-all");
        if last && !self.is_dead() {
            for (at, range) in ranges.list.iter() {
                // ORDERING: Release pairs with the Acquire of `is_valid`. Whoever waited sees the changes of all the
                // invalidations that have ended, because each end took the lock.
                self.set_valid(at, true, Ordering::Release);
                step(|| format!("{}: valid = true", named(range)));
            }
        }
        drop(ranges);
        if last && !planted("range-valid-end-without-wake") {
            self.parked.wake();
        }
    }

    /// Registers a range (`hmm_range_register`). It is valid at once unless any invalidation runs, wherever.
    ///
    /// # Errors
    /// When the address space is gone.
    ///
    /// # Blocking
    /// Never sleeps; may allocate.
    pub fn range_register(self: &Arc<Self>, range: PageRange) -> Result<HmmRange, Dead> {
        let at = self.add(range)?;
        Ok(HmmRange { hmm: Arc::clone(self), at })
    }

    /// Registers a range under the number of its place. Allocates outside the lock, because invalidations take it.
    pub(super) fn add(&self, range: PageRange) -> Result<u32, Dead> {
        let mut spare = Spare::with_capacity(0);
        loop {
            let mut ranges = self.ranges.lock();
            let old = ranges.list.reserve_from(spare);
            let added = if self.is_dead() { Err(Dead) } else { Ok(self.add_to(&mut ranges, range)) };
            let wanted = ranges.list.larger();
            drop(ranges);
            drop(old);
            if let Some(at) = added? {
                return Ok(at);
            }
            spare = Spare::with_capacity(wanted);
            self.valid.reserve(spare.capacity());
        }
    }

    fn add_to(&self, ranges: &mut Ranges, range: PageRange) -> Option<u32> {
        let at = ranges.list.add(range)?;
        let valid = ranges.notifiers == 0 || planted("range-valid-registered-valid");
        // ORDERING: Release, as in `notifiers_decrement`.
        self.set_valid(at, valid, Ordering::Release);
        step(|| format!("{} registered: valid = {valid}", named(range)));
        Some(at)
    }

    /// Unregisters the range of this place (`hmm_range_unregister`). It is never looked at again.
    pub(super) fn remove(&self, at: u32) {
        // Under the lock until the bit is down: the place is free for the next owner, who puts it up.
        let mut ranges = self.ranges.lock();
        if ranges.list.remove(at) {
            // ORDERING: Relaxed; nobody has this number any more. It only makes a late look fail.
            self.set_valid(at, false, Ordering::Relaxed);
        }
    }

    fn set_valid(&self, at: u32, valid: bool, order: Ordering) {
        if let Some(cell) = self.valid.get(at) {
            // ORDERING: the caller's.
            cell.store(valid, order);
        }
    }

    /// One look at the bit, without a lock (`hmm_range_valid`). Only under the device lock is it an answer.
    pub(super) fn is_valid(&self, at: u32) -> bool {
        // ORDERING: Acquire pairs with the Release of `notifiers_decrement`: who goes on because the range is valid reads
        // the page table as it is after the changes.
        let order = if planted("range-valid-look-relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
        self.valid.get(at).is_some_and(|cell| cell.load(order))
    }

    /// Waits until the range is valid, for at most `limit` (`hmm_range_wait_until_valid`).
    pub(super) fn wait_until_valid(&self, at: u32, limit: Duration, wait: &Wait<'_>) -> Result<Waited, Interrupted> {
        let limit = Deadline::after(limit);
        let over = || limit.expired().is_some();
        self.parked.wait(wait, || self.is_valid(at) || self.is_dead() || over())?;
        if self.is_dead() {
            return Err(Interrupted::Lost);
        }
        // A range that was valid for a moment was waited for; what started since is the commit's to find.
        Ok(if self.is_valid(at) || !over() { Waited::Valid } else { Waited::TimedOut })
    }

    /// The address space goes away (`hmm_release`): no range is valid any more, every wait ends, mirrors drop everything.
    ///
    /// # Blocking
    /// Runs the mirrors' callbacks. Not from one of them.
    pub fn release(&self) {
        let ranges = self.ranges.lock();
        // ORDERING: Release pairs with the Acquire of `is_dead`. Under the lock, so that no end marks anything valid later.
        self.dead.store(true, Ordering::Release);
        for (at, _) in ranges.list.iter() {
            // ORDERING: Relaxed; the mirrors take the device lock next.
            self.set_valid(at, false, Ordering::Relaxed);
        }
        drop(ranges);
        self.wake();
        self.mirrors.release();
    }

    /// Wakes whoever waits, to look again.
    pub(super) fn wake(&self) {
        if !planted("range-valid-release-without-wake") {
            self.parked.wake();
        }
    }
}

/// A registered range (`struct hmm_range`). It keeps the [`Hmm`] alive, and is unregistered when it is dropped.
#[derive(Debug)]
#[must_use = "the range is unregistered when this is dropped"]
pub struct HmmRange {
    hmm: Arc<Hmm>,
    at: u32,
}

impl HmmRange {
    /// Whether the range intersects no parallel invalidation. Only under the device lock is it an answer.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.hmm.is_valid(self.at)
    }

    /// Waits until the range is valid, for at most `limit`; [`RANGE_DEFAULT_TIMEOUT`] is what drivers used.
    ///
    /// # Errors
    /// When `wait` ended before, and why; `Lost` when the address space has gone away.
    ///
    /// # Blocking
    /// Sleeps. Not under a lock that a mirror's callback takes.
    pub fn wait_until_valid(&self, limit: Duration, wait: &Wait<'_>) -> Result<Waited, Interrupted> {
        self.hmm.wait_until_valid(self.at, limit, wait)
    }
}

impl Drop for HmmRange {
    fn drop(&mut self) {
        self.hmm.remove(self.at);
    }
}
