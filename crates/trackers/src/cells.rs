//! Cells that never move, so that whoever has the number of one looks at it without a lock.
//!
//! The kernel's drivers hold a pointer to their range and read one word of it under the device lock. The seam names a
//! range by a number instead; this table makes the one as cheap as the other. It grows by segments, each twice as large
//! as the one before; a segment is made before anybody knows a number in it, and stays.

// The standard one on every engine: who looks at a cell has its number from whoever had the segment made, so there is
// nothing here for a model checker to find.
use pagemirror_sync::OnceLock;

/// Cells of the first segment. One segment is enough for a program of ordinary size; a model wants few.
const FIRST: usize = if cfg!(any(loom, shuttle)) { 2 } else { 64 };

/// As many segments as a number of 32 bits can name cells.
const SEGMENTS: usize = 32 - FIRST.ilog2() as usize;

/// A table of cells. See the module's text.
#[derive(Debug)]
pub(crate) struct Cells<T> {
    segments: [OnceLock<Box<[T]>>; SEGMENTS],
    make: fn() -> T,
}

impl<T> Cells<T> {
    /// An empty table, whose cells begin as `make` makes them.
    pub(crate) fn new(make: fn() -> T) -> Self {
        Self { segments: [const { OnceLock::new() }; SEGMENTS], make }
    }

    /// Makes the cells below `count`. Allocates: not under a lock that an invalidation takes.
    pub(crate) fn reserve(&self, count: usize) {
        let Some(last) = count.checked_sub(1) else { return };
        for (number, segment) in self.segments.iter().enumerate().take(locate(last).0 + 1) {
            segment.get_or_init(|| (0..FIRST << number).map(|_| (self.make)()).collect());
        }
    }

    /// The cell of this number, if it was made.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let (segment, offset) = locate(number as usize);
        self.segments.get(segment)?.get()?.get(offset)
    }
}

/// In which segment a cell lies, and where in it.
#[inline]
const fn locate(number: usize) -> (usize, usize) {
    let segment = (number / FIRST + 1).ilog2() as usize;
    (segment, number - FIRST * ((1 << segment) - 1))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::ptr;

    use super::*;

    #[test]
    fn every_number_has_a_cell_of_its_own_and_keeps_it() {
        let cells = Cells::new(|| 7_u64);
        assert!(cells.get(0).is_none());
        cells.reserve(1);
        let first = ptr::from_ref(cells.get(0).unwrap());
        let count = FIRST as u32 * 9;
        cells.reserve(count as usize);
        assert!(ptr::eq(first, cells.get(0).unwrap()), "a cell moved");
        let places: HashSet<_> = (0..count).map(|number| ptr::from_ref(cells.get(number).unwrap())).collect();
        assert_eq!(places.len(), count as usize);
    }

    #[test]
    fn segments_follow_each_other_without_a_gap() {
        assert_eq!(locate(0), (0, 0));
        assert_eq!(locate(FIRST - 1), (0, FIRST - 1));
        assert_eq!(locate(FIRST), (1, 0));
        assert_eq!(locate(3 * FIRST - 1), (1, 2 * FIRST - 1));
        assert_eq!(locate(3 * FIRST), (2, 0));
        assert!(locate(u32::MAX as usize).0 <= SEGMENTS);
    }
}
