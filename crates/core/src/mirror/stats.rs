//! What a mirror counts.

use pagemirror_sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) faults: AtomicU64,
    pub(super) collisions: AtomicU64,
    pub(super) false_retries: AtomicU64,
    pub(super) changed: AtomicU64,
    pub(super) in_doubt: AtomicU64,
    pub(super) contended: AtomicU64,
    pub(super) accesses: AtomicU64,
    pub(super) uncached: AtomicU64,
    pub(super) vanished: AtomicU64,
}

/// Since the mirror was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MirrorStats {
    /// Pieces of a range (2 MiB at most) that were faulted and installed.
    pub faults: u64,
    /// Attempts that went round again because an invalidation of their range had started.
    pub collisions: u64,
    /// Collisions with an invalidation that did not overlap the range. Zero, or a bug.
    pub false_retries: u64,
    /// Attempts that went round again because the mappings changed while they were looked at.
    pub changed: u64,
    /// Pieces that were not installed because a discard of them may have been under way.
    pub in_doubt: u64,
    /// Requests that collided too often.
    pub contended: u64,
    /// Accesses through translations.
    pub accesses: u64,
    /// Accesses that had to be made without a translation.
    pub uncached: u64,
    /// Accesses that found less than their translation said: mprotect, or a change by somebody who is not a thread.
    pub vanished: u64,
}

/// Counts one.
pub(super) fn count(counter: &AtomicU64) {
    // ORDERING: Relaxed; a statistic, on which nothing hangs.
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn snapshot(&self) -> MirrorStats {
        // ORDERING: Relaxed, as above.
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MirrorStats {
            faults: read(&self.faults),
            collisions: read(&self.collisions),
            false_retries: read(&self.false_retries),
            changed: read(&self.changed),
            in_doubt: read(&self.in_doubt),
            contended: read(&self.contended),
            accesses: read(&self.accesses),
            uncached: read(&self.uncached),
            vanished: read(&self.vanished),
        }
    }
}
