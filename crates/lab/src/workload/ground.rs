//! Where things lie in a synthetic address space.

use pagemirror_core::addr::{MIN_PAGE, PageRange, VirtAddr};

/// Mirrored ranges with a gap as large behind each. What is invalidated without touching any lies in a gap, so that
/// related and unrelated memory is mixed as in a process; what does not fit there lies behind all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ground {
    /// How many ranges the device mirrors; at least one.
    pub ranges: u64,
    /// Pages of each; at least one.
    pub pages: u64,
}

/// Where the first range begins. Low enough that a million large ranges and what lies behind them fit.
const BASE: u64 = 1 << 32;
/// How many separate places there are behind the ranges, for invalidations that fit in no gap.
const FAR_PLACES: u64 = 1 << 16;

impl Ground {
    /// The mirrored range with this number, counted round.
    #[must_use]
    pub fn range(self, number: u64) -> PageRange {
        self.at(self.cell(number), self.pages)
    }

    /// `pages` pages that begin where the mirrored range with this number does.
    #[must_use]
    pub fn over(self, number: u64, pages: u64) -> PageRange {
        self.at(self.cell(number), pages)
    }

    /// `pages` pages that touch no mirrored range.
    #[must_use]
    pub fn beside(self, number: u64, pages: u64) -> PageRange {
        if pages <= self.pages {
            return self.at(self.cell(number) + self.pages, pages);
        }
        let behind = self.ranges.max(1) * 2 * self.pages;
        self.at(behind + number % FAR_PLACES * pages, pages)
    }

    /// The first page of the cell with this number: a range and its gap.
    fn cell(self, number: u64) -> u64 {
        number % self.ranges.max(1) * 2 * self.pages
    }

    fn at(self, page: u64, pages: u64) -> PageRange {
        let address = VirtAddr::new(BASE.saturating_add(page.saturating_mul(MIN_PAGE)));
        PageRange::covering(address, pages.max(1).saturating_mul(MIN_PAGE), MIN_PAGE).unwrap_or(PageRange::ALL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_touches_no_range_and_what_lies_over_touches_its_own() {
        let ground = Ground { ranges: 50, pages: 4 };
        for pages in [1, 4, 5, 400] {
            for number in 0..120 {
                let beside = ground.beside(number, pages);
                assert!((0..50).all(|range| !ground.range(range).overlaps(beside)), "{beside} of {pages} pages");
                assert!(ground.over(number, pages).overlaps(ground.range(number)));
            }
        }
        assert!((1..50).all(|range| !ground.range(range).overlaps(ground.range(range - 1))));
    }
}
