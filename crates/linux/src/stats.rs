//! What a source counts.

use pagemirror_sync::atomic::{AtomicU64, Ordering};

/// A copy of the source's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceStats {
    /// Turns of the pump in which it read.
    pub turns: u64,
    /// UNMAP events: munmap, MAP_FIXED, brk, mremap.
    pub unmap: u64,
    /// REMAP events: mremap.
    pub remap: u64,
    /// REMOVE events: madvise.
    pub remove: u64,
    /// Ranges that a REMOVE of another mapping of the same file took pages from.
    pub aliases: u64,
    /// Discards treated as discards of everything, because a list was too small.
    pub everything: u64,
    /// Times that a System V segment was asked for, which is never cached: shmdt tells nobody.
    pub uncacheable: u64,
    /// Proofs completed: each ended the doubts that it began after.
    pub proofs: u64,
    /// Whether a proof is to be had at all: not without `/proc/self/task/*/syscall`.
    pub proof_unavailable: bool,
    /// Kernel workers of io_uring that kept the last unfinished proof waiting.
    pub io_workers: u64,
}

/// The counters themselves.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) turns: AtomicU64,
    pub(crate) unmap: AtomicU64,
    pub(crate) remap: AtomicU64,
    pub(crate) remove: AtomicU64,
    pub(crate) aliases: AtomicU64,
    pub(crate) everything: AtomicU64,
    pub(crate) uncacheable: AtomicU64,
    pub(crate) proofs: AtomicU64,
    pub(crate) proof_unavailable: AtomicU64,
    pub(crate) io_workers: AtomicU64,
}

/// Adds one to a statistic.
pub(crate) fn count(counter: &AtomicU64) {
    // ORDERING: Relaxed; a statistic.
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn snapshot(&self) -> SourceStats {
        // ORDERING: Relaxed; statistics.
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SourceStats {
            turns: load(&self.turns),
            unmap: load(&self.unmap),
            remap: load(&self.remap),
            remove: load(&self.remove),
            aliases: load(&self.aliases),
            everything: load(&self.everything),
            uncacheable: load(&self.uncacheable),
            proofs: load(&self.proofs),
            proof_unavailable: load(&self.proof_unavailable) != 0,
            io_workers: load(&self.io_workers),
        }
    }
}
