//! The unit of the table: as much memory as the largest entry covers, 2 MiB on a machine of 4 KiB pages.
//!
//! # Fields
//! `whole` and `pages` are written by who holds the range lock of the unit, and read by the device's walk at any time.
//! `mapped` has a bit for each page that is mapped by an entry of its own; only the holder looks at it.
//!
//! # Interleavings
//! A whole entry of which a part is revoked is *split*: the pages that stay are written first, and `whole` is cleared
//! after that, so a walk that finds no whole entry any more finds the page.
//! ```text
//! holder: split                             walk
//! pages[i] := part i of whole               look at whole: valid, use it
//! whole := absent                           or: absent, look at pages[i]
//! ```
//! `[Required: a page that stays mapped is found]`.
//!
//! # Orderings
//! | site | ordering | pairs with | without it |
//! |---|---|---|---|
//! | entry stored | Release | `get`: Acquire | the walk finds a page before what its frame stands for |
//! | `whole` cleared | Release | `get`: Acquire | a walk misses a page that stays mapped |
//!
//! # Checked by
//! `walk_beside_a_split`, `walk_beside_install` (loom) with the planted bugs `split-clears-first`, `entry-relaxed`,
//! `pages-under-whole-kept`; `table_oracle`.

use std::ops::Range;

use pagemirror_sync::atomic::{AtomicU64, Ordering};
use pagemirror_sync::planted;

use super::page::Page;

/// Pages of a unit, as a power of two. A model of four pages shows what one of 512 shows.
pub(super) const UNIT_BITS: u32 = if cfg!(any(loom, shuttle)) { 2 } else { 9 };
/// Pages of a unit.
pub const UNIT_PAGES: usize = 1 << UNIT_BITS;
/// Bits of a word of `mapped`.
const WORD: usize = u64::BITS as usize;
const WORDS: usize = UNIT_PAGES.div_ceil(WORD);

/// One unit. It has room for all its pages from the start, so splitting it allocates nothing.
#[derive(Debug)]
pub(super) struct Unit {
    whole: AtomicU64,
    mapped: [AtomicU64; WORDS],
    pages: [AtomicU64; UNIT_PAGES],
}

impl Unit {
    pub(super) fn new() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self { whole: zero(0), mapped: std::array::from_fn(zero), pages: std::array::from_fn(zero) }
    }

    /// The device's walk: what the table holds for page `index`.
    pub(super) fn get(&self, index: usize) -> Page {
        let whole = self.whole();
        if whole.is_valid() {
            return whole.nth(index);
        }
        // ORDERING: Acquire, see # Orderings.
        Page::from_word(self.pages[index].load(Ordering::Acquire))
    }

    fn whole(&self) -> Page {
        // ORDERING: Acquire, see # Orderings.
        Page::from_word(self.whole.load(Ordering::Acquire))
    }

    fn store(entry: &AtomicU64, page: Page) {
        // ORDERING: Release, see # Orderings.
        let order = if planted("entry-relaxed") { Ordering::Relaxed } else { Ordering::Release };
        entry.store(page.word(), order);
    }

    /// Whether nothing is mapped here. Under the range lock.
    pub(super) fn is_empty(&self) -> bool {
        // ORDERING: Relaxed, as every look at `mapped`: the range lock orders them.
        !self.whole().is_valid() && self.mapped.iter().all(|word| word.load(Ordering::Relaxed) == 0)
    }

    /// Maps page `index`. Under the range lock.
    pub(super) fn set(&self, index: usize, page: Page) {
        self.split(index..index + 1);
        Self::store(&self.pages[index], page);
        // ORDERING: Relaxed, under the range lock.
        self.mapped[index / WORD].fetch_or(1 << (index % WORD), Ordering::Relaxed);
    }

    /// Maps all pages by one entry. Under the range lock.
    pub(super) fn set_whole(&self, first: Page) {
        Self::store(&self.whole, first);
        if !planted("pages-under-whole-kept") {
            // What stays below would be found again when the whole entry goes.
            self.clear_pages(0..UNIT_PAGES);
        }
    }

    /// Unmaps `pages`. Under the range lock.
    pub(super) fn clear(&self, pages: Range<usize>) {
        self.split(pages.clone());
        self.clear_pages(pages);
    }

    /// Replaces a whole entry by entries of its pages, all but those in `without`.
    fn split(&self, without: Range<usize>) {
        let whole = self.whole();
        if !whole.is_valid() {
            return;
        }
        if planted("split-clears-first") {
            Self::store(&self.whole, Page::ABSENT);
        }
        for index in (0..UNIT_PAGES).filter(|index| !without.contains(index)) {
            Self::store(&self.pages[index], whole.nth(index));
            // ORDERING: Relaxed, under the range lock.
            self.mapped[index / WORD].fetch_or(1 << (index % WORD), Ordering::Relaxed);
        }
        Self::store(&self.whole, Page::ABSENT);
    }

    /// Clears what has an entry of its own: as many steps as pages are mapped, and one for each word.
    fn clear_pages(&self, pages: Range<usize>) {
        for (word, mapped) in self.mapped.iter().enumerate() {
            let base = word * WORD;
            let of_range = mask(pages.start.saturating_sub(base), pages.end.saturating_sub(base));
            // ORDERING: Relaxed, under the range lock.
            let found = mapped.load(Ordering::Relaxed);
            let mut left = found & of_range;
            if left == 0 {
                continue;
            }
            mapped.store(found & !of_range, Ordering::Relaxed);
            while left != 0 {
                Self::store(&self.pages[base + left.trailing_zeros() as usize], Page::ABSENT);
                left &= left - 1;
            }
        }
    }
}

/// The bits from `start` to before `end`, each cut off at the end of the word.
fn mask(start: usize, end: usize) -> u64 {
    let below = |bit: usize| if bit >= WORD { u64::MAX } else { (1 << bit) - 1 };
    below(end) & !below(start)
}
