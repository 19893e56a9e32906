//! What is asked of each page of a range.

use std::ops::{BitAnd, BitOr};

use crate::addr::{MIN_PAGE, PageRange};
use crate::table::Page;

/// What is asked of one page. Two bits, fault and write, as `HMM_PFN_REQ_FAULT` and `HMM_PFN_REQ_WRITE` of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Need(u8);

impl Need {
    /// Only to know what is there.
    pub const NOTHING: Self = Self(0);
    /// To be brought in for reading.
    pub const READ: Self = Self(1);
    /// To be brought in for reading and writing.
    pub const WRITE: Self = Self(3);

    /// Whether the page is to be brought in.
    #[must_use]
    pub const fn faults(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether it is to be writable. Without the fault bit nothing is asked.
    #[must_use]
    pub const fn writes(self) -> bool {
        self.0 & 3 == 3
    }

    /// Whether `page` gives what is needed.
    #[must_use]
    pub const fn is_met_by(self, page: Page) -> bool {
        !self.faults() || (page.is_valid() && (!self.writes() || page.is_writable()))
    }
}

impl BitAnd for Need {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for Need {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What is asked of a range, page by page: `(needs[i] & mask) | default`. And where the answers go.
///
/// ```
/// use pagemirror_core::mirror::{Need, Request};
/// let needs = [Need::NOTHING, Need::WRITE];
/// let request = Request::with_needs(&needs, Need::WRITE, Need::READ);
/// assert_eq!((request.need(0), request.need(1)), (Need::READ, Need::WRITE));
/// ```
#[derive(Debug)]
pub struct Request<'r> {
    default: Need,
    mask: Need,
    needs: &'r [Need],
    pages: &'r mut [Page],
}

impl<'r> Request<'r> {
    /// The same for every page.
    #[must_use]
    pub fn all(need: Need) -> Self {
        Self { default: need, mask: Need::NOTHING, needs: &[], pages: &mut [] }
    }

    /// Each page asks for itself, through `mask`, and for `default` besides. Pages beyond `needs` ask for `default`.
    #[must_use]
    pub fn with_needs(needs: &'r [Need], mask: Need, default: Need) -> Self {
        Self { default, mask, needs, pages: &mut [] }
    }

    /// The answers are written to `pages`, from the first on. After an error, the pages before the one that it names are
    /// answers, that page is [`Page::ERROR`], and those behind it are as they were.
    #[must_use]
    pub fn answering(self, pages: &'r mut [Page]) -> Self {
        Self { pages, ..self }
    }

    /// What is asked of the `index`th page.
    #[must_use]
    pub fn need(&self, index: usize) -> Need {
        let own = self.needs.get(index).copied().unwrap_or(Need::NOTHING);
        (own & self.mask) | self.default
    }

    /// Whether there are no more needs and answers than `range` has pages.
    pub(super) fn fits(&self, range: PageRange) -> bool {
        let longest = self.needs.len().max(self.pages.len());
        longest as u64 <= range.len() / MIN_PAGE
    }

    /// Writes the answers for the pages from the `first`th on, and an error behind them if one of them was refused.
    pub(super) fn answer(&mut self, first: usize, told: &[Page], refused: bool) {
        let rest = self.pages.get_mut(first..).unwrap_or_default();
        let count = told.len().min(rest.len());
        rest[..count].copy_from_slice(&told[..count]);
        if let Some(page) = rest.get_mut(told.len()).filter(|_| refused) {
            *page = Page::ERROR;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_bit_alone_asks_for_nothing() {
        let alone = Need::WRITE & Need(2);
        assert!(!alone.writes() && !alone.faults());
        assert!((alone | Need::READ).writes());
    }

    #[test]
    fn a_read_need_is_met_by_a_page_that_can_be_written_and_not_the_other_way() {
        let page = Page::readable(0);
        assert!(Need::READ.is_met_by(page.with_write(true)) && Need::READ.is_met_by(page));
        assert!(!Need::WRITE.is_met_by(page) && !Need::READ.is_met_by(Page::ABSENT));
        assert!(Need::NOTHING.is_met_by(Page::ERROR));
    }
}
