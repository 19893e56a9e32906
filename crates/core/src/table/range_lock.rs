//! A lock on a range of addresses: two holders never overlap, whatever is or is not in the table there.
//!
//! # Guarantee
//! While a [`RangeGuard`] lives, no other guard of an overlapping range does. Who asks is served in the order of asking
//! among those who overlap, so the pump is not passed by faults that come after it.
//!
//! # Fields
//! `queue` holds everybody who has asked and not given back, holders and waiters alike, with their number. It is locked
//! for one look over at most [`PLACES`] ranges; nothing is allocated or freed under it.
//!
//! # Checked by
//! `install_beside_revoke_of_an_empty_table` (loom) with the planted bugs `table-callback-skips-empty` and
//! `lock-first-unit-only`; `overlapping_guards_exclude_each_other`.

use std::time::Duration;

use pagemirror_sync::{Condvar, Mutex, MutexGuard, planted};

use crate::addr::PageRange;

/// Guards and waiters at once; one more waits for a place. Far more than threads that are in a fault's last step.
const PLACES: usize = if cfg!(any(loom, shuttle)) { 3 } else { 32 };

/// The longest sleep before a waiter looks again. Nobody misses a wake-up; this only bounds what a lost one would cost.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Asked {
    number: u64,
    range: PageRange,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    asleep: usize,
    asked: [Option<Asked>; PLACES],
}

impl Queue {
    fn is_first(&self, own: Asked) -> bool {
        !self.asked.iter().flatten().any(|other| other.number < own.number && other.range.overlaps(own.range))
    }

    fn take_place(&mut self, range: PageRange) -> Option<(usize, Asked)> {
        let place = self.asked.iter().position(Option::is_none)?;
        let asked = Asked { number: self.next, range };
        self.next += 1;
        self.asked[place] = Some(asked);
        Some((place, asked))
    }
}

/// The lock. See the module's text.
#[derive(Debug)]
pub(super) struct RangeLock {
    queue: Mutex<Queue>,
    bell: Condvar,
}

/// A held range.
#[derive(Debug)]
pub(super) struct RangeGuard<'l> {
    lock: &'l RangeLock,
    place: usize,
    range: PageRange,
}

impl RangeLock {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::new(Queue::default()), bell: Condvar::new() }
    }

    /// Takes `range`.
    ///
    /// # Blocking
    /// Waits for overlapping holders who asked before. Never allocates.
    pub(super) fn lock(&self, range: PageRange, first_unit: PageRange) -> RangeGuard<'_> {
        let range = if planted("lock-first-unit-only") { first_unit } else { range };
        let mut queue = self.queue.lock();
        let (place, own) = loop {
            match queue.take_place(range) {
                Some(taken) => break taken,
                None => queue = self.sleep(queue),
            }
        };
        while !queue.is_first(own) {
            queue = self.sleep(queue);
        }
        RangeGuard { lock: self, place, range }
    }

    fn sleep<'q>(&self, mut queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        queue.asleep += 1;
        let mut queue = self.bell.wait(queue, LOOK);
        queue.asleep -= 1;
        queue
    }
}

impl RangeGuard<'_> {
    /// What is held.
    pub(super) fn range(&self) -> PageRange {
        self.range
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut queue = self.lock.queue.lock();
        queue.asked[self.place] = None;
        let asleep = queue.asleep;
        drop(queue);
        if asleep > 0 {
            self.lock.bell.notify_all();
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::addr::VirtAddr;

    #[test]
    fn overlapping_guards_exclude_each_other() {
        let lock = Arc::new(RangeLock::new());
        // Who is inside, for each page.
        let inside: Arc<[AtomicUsize; 8]> = Arc::default();
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let (lock, inside) = (Arc::clone(&lock), Arc::clone(&inside));
                std::thread::spawn(move || {
                    for round in 0..2000_u64 {
                        let (first, len) = ((round + thread) % 6, 1 + (round * 7 + thread) % 2);
                        let range = PageRange::covering(VirtAddr::new(first * 4096), len * 4096, 4096).unwrap();
                        let guard = lock.lock(range, range);
                        let pages = &inside[first as usize..(first + len) as usize];
                        pages.iter().for_each(|page| assert_eq!(page.fetch_add(1, Ordering::SeqCst), 0));
                        pages.iter().for_each(|page| assert_eq!(page.fetch_sub(1, Ordering::SeqCst), 1));
                        drop(guard);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
