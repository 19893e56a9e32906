//! Which place probably answers for an address: a table of hints that readers search without a lock.
//!
//! A hint proves nothing. Whoever follows it looks at the place itself; who finds nothing takes the device lock and asks the
//! index. So words are stored and loaded whole, nothing else is ordered, and a hint that is lost or wrong costs time only.
//!
//! A hint is filed under the page at which a request begins, so each part of a large registration that is asked for has its
//! own. Eight lie in a line.

use std::fmt;

use pagemirror_core::addr::VirtAddr;
use pagemirror_sync::OnceLock;
use pagemirror_sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::place::PlaceId;

const WAYS: usize = 8;
/// Lines of the first table, as a power of two; each further one has four times as many.
const FIRST_BITS: u32 = if cfg!(any(loom, shuttle)) { 0 } else { 6 };
const STEP_BITS: u32 = 2;
/// Tables: the last one has a million lines, 64 MiB. A cache that asks for more addresses pays with the index.
const TABLES: usize = 8;

/// Set in the mark of every hint, so that an empty word is none.
const TAGGED: u32 = 1 << 31;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; WAYS]);

/// The hints. See the module's text.
pub(crate) struct Hints {
    tables: [OnceLock<Box<[Line]>>; TABLES],
    current: AtomicUsize,
    /// Hints filed since the table was made.
    filed: AtomicUsize,
}

impl Hints {
    pub(crate) fn new() -> Self {
        let tables = [const { OnceLock::new() }; TABLES];
        let _ = tables[0].set(lines(0));
        Self { tables, current: AtomicUsize::new(0), filed: AtomicUsize::new(0) }
    }

    /// The first hinted place that `fits`.
    #[inline(always)]
    pub(crate) fn find<T>(&self, start: VirtAddr, fits: impl Fn(PlaceId) -> Option<T>) -> Option<T> {
        let (line, tag) = self.line(start)?;
        for hint in &line.0 {
            // ORDERING: Relaxed; a hint. The place is reached through its own words.
            let word = hint.load(Ordering::Relaxed);
            if (word >> 32) as u32 == tag
                && let Some(found) = fits(PlaceId(word as u32))
            {
                return Some(found);
            }
        }
        None
    }

    /// Files a hint, in place of one of the same page that does not `stand`, in a free way, or in place of any. Makes a larger
    /// table when this one is filed full, which allocates: not under a lock of the cache, nor in a section.
    pub(crate) fn file(&self, start: VirtAddr, id: PlaceId, stands: impl Fn(PlaceId) -> bool) {
        let Some((line, tag)) = self.line(start) else { return };
        let word = u64::from(tag) << 32 | u64::from(id.0);
        // ORDERING: Relaxed, everywhere here: hints.
        let words = line.0.each_ref().map(|hint| hint.load(Ordering::Relaxed));
        if words.contains(&word) {
            return;
        }
        let gone = |word: &u64| *word == 0 || !stands(PlaceId(*word as u32));
        let way = words.iter().position(gone).unwrap_or(id.0 as usize % WAYS);
        line.0[way].store(word, Ordering::Relaxed);
        self.grow_if_full();
    }

    fn grow_if_full(&self) {
        let current = self.current.load(Ordering::Relaxed);
        let bits = FIRST_BITS + STEP_BITS * current as u32;
        // A quarter of its ways: then hardly any line has more than eight.
        if self.filed.fetch_add(1, Ordering::Relaxed) < (WAYS << bits) / 4 || current + 1 == TABLES {
            return;
        }
        if self.tables[current + 1].set(lines(current + 1)).is_ok() {
            self.filed.store(0, Ordering::Relaxed);
            // The hints are filed anew as they are asked for.
            self.current.store(current + 1, Ordering::Relaxed);
        }
    }

    /// The line of a page, and the mark of its hints.
    #[inline(always)]
    fn line(&self, start: VirtAddr) -> Option<(&Line, u32)> {
        // ORDERING: Relaxed; the table is reached through its lock.
        let lines = self.tables.get(self.current.load(Ordering::Relaxed))?.get()?;
        let page = start.get() >> 12;
        // Fibonacci hashing (Knuth 6.4): the upper half of the product spreads neighbours and strides alike.
        let spread = page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        lines.get(spread as usize & (lines.len() - 1)).map(|line| (line, page as u32 | TAGGED))
    }
}

fn lines(table: usize) -> Box<[Line]> {
    (0..1_usize << (FIRST_BITS + STEP_BITS * table as u32)).map(|_| Line::default()).collect()
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hints").field("table", &self.current.load(Ordering::Relaxed)).finish_non_exhaustive()
    }
}
