//! The words of the collision log, behind a small trait: today they lie in ordinary memory and this process writes them;
//! a log that the kernel writes lies in a mapping, with the same layout and the same rules.
//!
//! # Orderings of an entry
//! | site | ordering | pairs with | without it |
//! |---|---|---|---|
//! | claim: compare-and-swap of `number` | Acquire, then fence(Release) | reader's second look | fields of two writers mixed |
//! | fields | Relaxed | | |
//! | publish: `number` | Release | reader's first look, Acquire | fields of the older entry under the new number |
//! | reader: fence before the second look | Acquire | claim | a torn range is accepted |
//!
//! # Checked by
//! `entry_of_a_lapped_writer`, `entry_read_beside_its_writer` (loom), planted bugs `entry-without-claim`,
//! `entry-without-fence`, `entry-read-once`.

use std::fmt;

use pagemirror_sync::atomic::{AtomicU64, Ordering, fence};
use pagemirror_sync::planted;

use crate::addr::PageRange;

/// Set in an entry's number while its fields are being written.
const FILLING: u64 = 1;

/// Whether invalidation number `one` is younger than `other`. Numbers count round in 63 bits (an entry's word holds one
/// twice), so the younger is the one that is less than half a round ahead.
#[inline]
pub(crate) const fn is_younger(one: u64, other: u64) -> bool {
    (one.wrapping_sub(other) << 1).cast_signed() > 0
}

/// A range that stands while something lasts: a discard in doubt, a reader that was outrun. Empty when `end` is zero.
/// Of a running invalidation it holds the range alone: whether that runs is a bit of [`LogMemory::busy`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct Slot {
    start: AtomicU64,
    end: AtomicU64,
}

impl Slot {
    /// Stands for `range` from now on. A reader that must see it has seen a number that was taken later, so it never
    /// sees one word without the other.
    pub fn set(&self, range: PageRange) {
        // ORDERING: Release on every store to a slot, also because it publishes the end of what stood here before:
        // a plain store after a Release clear would not.
        self.start.store(range.start().get(), Ordering::Release);
        self.end.store(range.end().get(), Ordering::Release);
    }

    /// Stands for nothing.
    pub fn clear(&self) {
        // ORDERING: Release, as in `set`. The end alone: from here on the slot may have its next owner, whose start a
        // second store would overwrite.
        self.end.store(0, Ordering::Release);
    }

    /// What it stands for. May be a mix of two ranges while it is being set; see [`set`](Self::set).
    #[inline]
    pub fn range(&self) -> Option<PageRange> {
        // ORDERING: Acquire pairs with the Release of `set` and `clear`.
        let end = self.end.load(Ordering::Acquire);
        if end == 0 {
            return None;
        }
        PageRange::from_words(self.start.load(Ordering::Acquire), end)
    }
}

/// One place of the ring. `number` is twice the invalidation's number, plus one while the fields change.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Entry {
    number: AtomicU64,
    start: AtomicU64,
    end: AtomicU64,
}

/// What a reader found in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryRead {
    /// The range of the invalidation that was asked for.
    Range(PageRange),
    /// Not published yet, or its writer has left the place alone.
    NotYet,
    /// A later invalidation has the place.
    Overwritten,
}

impl Entry {
    /// Publishes `range` under `number`. Leaves the place alone, and says so, when another writer is filling it or a
    /// later number has it: who needs this entry then counts itself hit.
    pub fn publish(&self, number: u64, range: PageRange) -> bool {
        let word = number << 1;
        // ORDERING: Relaxed; the compare-and-swap decides.
        let current = self.number.load(Ordering::Relaxed);
        if planted("entry-without-claim") {
            // The planted bug: no claim, so that a writer that was lapped fills beside the one that lapped it.
        } else if current & FILLING != 0 || !is_younger(number, current >> 1) {
            return false;
        } else if self.number.compare_exchange(current, word | FILLING, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // ORDERING: Acquire keeps the fills below behind the claim.
            return false;
        }
        if !planted("entry-without-fence") {
            // ORDERING: pairs with the reader's Acquire fence: who sees a new field sees the claim on its second look.
            fence(Ordering::Release);
        }
        // ORDERING: Relaxed, between the fence above and the Release below.
        self.start.store(range.start().get(), Ordering::Relaxed);
        self.end.store(range.end().get(), Ordering::Relaxed);
        // ORDERING: Release pairs with the Acquire of the first look.
        self.number.store(word, Ordering::Release);
        true
    }

    /// The range that was published under `number`.
    #[must_use]
    pub fn read(&self, number: u64) -> EntryRead {
        let word = number << 1;
        // ORDERING: Acquire pairs with the Release that published.
        let first = self.number.load(Ordering::Acquire);
        if first != word {
            return if is_younger(first >> 1, number) { EntryRead::Overwritten } else { EntryRead::NotYet };
        }
        // ORDERING: Relaxed, between the two looks at the number.
        let (start, end) = (self.start.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        // ORDERING: Acquire pairs with the writer's Release fence behind its claim.
        fence(Ordering::Acquire);
        // ORDERING: Relaxed, behind the fence.
        if self.number.load(Ordering::Relaxed) != word && !planted("entry-read-once") {
            return EntryRead::Overwritten;
        }
        PageRange::from_words(start, end).map_or(EntryRead::Overwritten, EntryRead::Range)
    }
}

/// A reader that was outrun leaves its range here; writers raise `hit` to their number. The number is compared with the
/// reader's token and never cleared, so that a late writer who saw the former owner hits nobody.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ReaderSlot {
    /// 0 free, 1 owned.
    pub(crate) owner: AtomicU64,
    pub(crate) range: Slot,
    pub(crate) hit: AtomicU64,
}

/// The words that a collision log consists of.
pub trait LogMemory: Send + Sync + fmt::Debug {
    /// The number of the newest invalidation; the first is 1.
    fn head(&self) -> &AtomicU64;
    /// Invalidations that run without a slot: each stands for everything.
    fn overflow(&self) -> &AtomicU64;
    /// The range of each invalidation that runs, where its bit of [`busy`](Self::busy) is set.
    fn running(&self) -> &[Slot];
    /// A bit for each running slot, 64 in a word: set while the invalidation in it runs.
    fn busy(&self) -> &[AtomicU64];
    /// The newest invalidations, by number modulo the length. That is a power of two, so that the places go round together
    /// with the numbers.
    fn ring(&self) -> &[Entry];
    /// Readers that were outrun.
    fn readers(&self) -> &[ReaderSlot];
    /// How many of [`readers`](Self::readers) are owned: nobody looks at them while it is zero.
    fn readers_in_use(&self) -> &AtomicU64;
}

/// How many of each a log has.
#[derive(Debug, Clone, Copy)]
pub struct LogSize {
    /// Invalidations remembered, rounded up to a power of two. An attempt that outlives more of them goes again through a reader slot.
    pub ring: usize,
    /// Invalidations that run at once. One more stands for everything while it runs.
    pub running: usize,
    /// Readers that can ask for the exact answer at once.
    pub readers: usize,
}

impl Default for LogSize {
    /// A thousand invalidations: some tens of milliseconds of a process that does nothing but unmap. Running and reader
    /// slots: more than threads are likely to be in an invalidation or outrun at once.
    fn default() -> Self {
        Self { ring: 1024, running: 64, readers: 64 }
    }
}

/// A log in ordinary memory, written by this process.
#[derive(Debug)]
pub struct HeapMemory {
    head: AtomicU64,
    overflow: AtomicU64,
    readers_in_use: AtomicU64,
    running: Box<[Slot]>,
    busy: Box<[AtomicU64]>,
    ring: Box<[Entry]>,
    readers: Box<[ReaderSlot]>,
}

impl HeapMemory {
    /// Makes an empty log. A size of zero counts as one.
    #[must_use]
    pub fn new(size: LogSize) -> Self {
        Self::starting_after(size, 0)
    }

    /// Makes an empty log whose first invalidation has the number behind `number`. Numbers count round; a log that starts
    /// just before they do shows what happens then, which in a log that starts at zero nobody lives to see.
    #[must_use]
    pub fn starting_after(size: LogSize, number: u64) -> Self {
        fn filled<T>(len: usize, make: impl Fn() -> T) -> Box<[T]> {
            (0..len.max(1)).map(|_| make()).collect()
        }
        let running = filled(size.running, Slot::default);
        Self {
            head: AtomicU64::new(number),
            overflow: AtomicU64::new(0),
            readers_in_use: AtomicU64::new(0),
            busy: filled(running.len().div_ceil(64), || AtomicU64::new(0)),
            running,
            ring: filled(size.ring.next_power_of_two(), || Entry {
                number: AtomicU64::new(number << 1),
                ..Entry::default()
            }),
            readers: filled(size.readers, || ReaderSlot { hit: AtomicU64::new(number), ..ReaderSlot::default() }),
        }
    }
}

impl LogMemory for HeapMemory {
    fn head(&self) -> &AtomicU64 {
        &self.head
    }
    fn overflow(&self) -> &AtomicU64 {
        &self.overflow
    }
    fn running(&self) -> &[Slot] {
        &self.running
    }
    fn busy(&self) -> &[AtomicU64] {
        &self.busy
    }
    fn ring(&self) -> &[Entry] {
        &self.ring
    }
    fn readers(&self) -> &[ReaderSlot] {
        &self.readers
    }
    fn readers_in_use(&self) -> &AtomicU64 {
        &self.readers_in_use
    }
}
