//! What the threads of a row count together.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::stress::report::Invalidations;

use super::oracle::{Stale, Window};

/// What a mutator calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// munmap, then mmap(MAP_FIXED_NOREPLACE).
    Munmap,
    /// mmap(MAP_FIXED) over it.
    MapFixed,
    /// mremap to another place, and a fresh mapping.
    Mremap,
    /// madvise(MADV_DONTNEED).
    Dontneed,
    /// madvise(MADV_REMOVE) through another mapping of the file.
    Remove,
    /// A block freed by the program's allocator.
    Allocator,
}

impl Kind {
    /// Those that a mutator makes on regions.
    pub(crate) const ON_REGIONS: [Self; 5] = [Self::Munmap, Self::MapFixed, Self::Mremap, Self::Dontneed, Self::Remove];
}

/// Examples and findings that are kept: enough to see what is wrong, little enough to read.
const KEPT: usize = 8;

/// Counters of a row. See the fields of `RowReport` for what they mean.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    uses: AtomicU64,
    checked_bytes: AtomicU64,
    stale_uses: AtomicU64,
    stale_bytes: AtomicU64,
    unmapped_answers: AtomicU64,
    invalidations: [AtomicU64; 6],
    examples: Mutex<Vec<String>>,
    findings: Mutex<Vec<String>>,
    /// What the machine lacks, when that is why the row ended.
    lacking: Mutex<Option<String>>,
    /// Something ended the row early.
    stopped: AtomicBool,
}

/// Adds to a statistic.
fn add(counter: &AtomicU64, amount: u64) {
    // ORDERING: Relaxed; a statistic.
    counter.fetch_add(amount, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    // ORDERING: Relaxed; a statistic.
    counter.load(Ordering::Relaxed)
}

fn keep(list: &Mutex<Vec<String>>, text: impl FnOnce() -> String) {
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    if list.len() < KEPT {
        list.push(text());
    }
}

fn copy(list: &Mutex<Vec<String>>) -> Vec<String> {
    list.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Tally {
    /// A use was completed, and this is what the oracle says of it.
    pub(crate) fn checked(&self, what: &str, id: u64, bytes: usize, window: Window, stale: Stale) {
        add(&self.uses, 1);
        add(&self.checked_bytes, bytes as u64);
        if stale.bytes == 0 {
            return;
        }
        add(&self.stale_uses, 1);
        add(&self.stale_bytes, stale.bytes);
        keep(&self.examples, || {
            let (offset, byte) = stale.first.unwrap_or_default();
            let Window { since, until } = window;
            format!(
                "{what} {id}: {} of {bytes} bytes stale, the first at offset {offset}: sent {byte:#04x}, \
                 expected the tag of a generation in {since}..={until}",
                stale.bytes
            )
        });
    }

    /// The device was told that nothing is mapped, while it was being changed.
    pub(crate) fn unmapped(&self) {
        add(&self.unmapped_answers, 1);
    }

    /// A change of memory that a device had used.
    pub(crate) fn invalidated(&self, kind: Kind) {
        add(&self.invalidations[kind as usize], 1);
    }

    pub(crate) fn invalidations_of(&self, kind: Kind) -> u64 {
        read(&self.invalidations[kind as usize])
    }

    /// Something that must not happen.
    pub(crate) fn finding(&self, text: impl Into<String>) {
        let text = text.into();
        keep(&self.findings, || text);
    }

    /// Something after which the row cannot go on.
    pub(crate) fn halt(&self, text: impl Into<String>) {
        self.finding(text);
        self.stop();
    }

    /// The machine does not allow what the row needs: it is neither fine nor a finding.
    pub(crate) fn lacks(&self, what: String) {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
        self.stop();
    }

    /// What the machine lacks, if that is why the row ended.
    pub(crate) fn lacking(&self) -> Option<String> {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The row has shown what it is there to show.
    pub(crate) fn stop(&self) {
        // ORDERING: Relaxed; every thread looks at it again soon.
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        // ORDERING: Relaxed, see `stop`.
        self.stopped.load(Ordering::Relaxed)
    }

    pub(crate) fn uses(&self) -> u64 {
        read(&self.uses)
    }

    pub(crate) fn checked_bytes(&self) -> u64 {
        read(&self.checked_bytes)
    }

    pub(crate) fn stale(&self) -> (u64, u64) {
        (read(&self.stale_uses), read(&self.stale_bytes))
    }

    pub(crate) fn unmapped_answers(&self) -> u64 {
        read(&self.unmapped_answers)
    }

    pub(crate) fn invalidations(&self) -> Invalidations {
        let of = |kind| self.invalidations_of(kind);
        Invalidations {
            munmap: of(Kind::Munmap),
            map_fixed: of(Kind::MapFixed),
            mremap: of(Kind::Mremap),
            dontneed: of(Kind::Dontneed),
            remove: of(Kind::Remove),
            allocator: of(Kind::Allocator),
        }
    }

    pub(crate) fn examples(&self) -> Vec<String> {
        copy(&self.examples)
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        copy(&self.findings)
    }
}
