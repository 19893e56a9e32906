//! One page as one word: what is known of it, and what the device reaches it by.
//!
//! The bits are those of `hmm_pfns` in Linux 7.3 (`include/linux/hmm.h`) where both have them: valid, write, error, the
//! order of the mapping, and in place of the page frame number the *frame*.

use std::fmt;

const VALID: u64 = 1 << 63;
const WRITE: u64 = 1 << 62;
const ERROR: u64 = 1 << 61;
/// The kernel keeps its own (DMA) state in this bit; a mirror in user space has none, and tells the zero page instead.
const ZERO: u64 = 1 << 60;
const ORDER_SHIFT: u32 = 53;
const ORDER_MASK: u64 = 0x1f << ORDER_SHIFT;
const FRAME_MASK: u64 = (1 << ORDER_SHIFT) - 1;

/// What is known of one page. The default is a page that is absent: a fault could bring one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Page(u64);

impl Page {
    /// A page that is not there now.
    pub const ABSENT: Self = Self(0);

    /// A page that no fault can bring: nothing is mapped there, or it may not be read.
    pub const ERROR: Self = Self(ERROR);

    /// A readable page that is reached by `frame`, of which the low 53 bits are kept.
    #[must_use]
    pub const fn readable(frame: u64) -> Self {
        Self(VALID | (frame & FRAME_MASK))
    }

    /// The same page, writable if `writable`.
    #[must_use]
    pub const fn with_write(self, writable: bool) -> Self {
        Self(if writable { self.0 | WRITE } else { self.0 & !WRITE })
    }

    /// The same page, said to be the one page of zeros that many mappings share. It is never writable.
    #[must_use]
    pub const fn with_zero(self) -> Self {
        Self((self.0 | ZERO) & !WRITE)
    }

    /// The same page as a part of a mapping of `1 << order` pages. At most 31 is kept.
    #[must_use]
    pub const fn with_order(self, order: u8) -> Self {
        Self((self.0 & !ORDER_MASK) | (((order as u64) << ORDER_SHIFT) & ORDER_MASK))
    }

    /// It is there and can be read.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// It can be written without another fault.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.0 & WRITE != 0
    }

    /// No fault can bring it.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 & ERROR != 0
    }

    /// It is the page of zeros.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 & ZERO != 0
    }

    /// The binary logarithm of how many pages the CPU maps it together with.
    #[must_use]
    pub const fn order(self) -> u8 {
        ((self.0 & ORDER_MASK) >> ORDER_SHIFT) as u8
    }

    /// What the device reaches the page by. In a whole unit it counts on by one for each page.
    #[must_use]
    pub const fn frame(self) -> u64 {
        self.0 & FRAME_MASK
    }

    /// The `index`th page of the unit whose first page this is.
    pub(super) const fn nth(self, index: usize) -> Self {
        Self((self.0 & !FRAME_MASK) | (self.0.wrapping_add(index as u64) & FRAME_MASK))
    }

    pub(super) const fn word(self) -> u64 {
        self.0
    }

    pub(super) const fn from_word(word: u64) -> Self {
        Self(word)
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_valid(), self.is_error()) {
            (false, false) => return f.write_str("absent"),
            (false, true) => return f.write_str("error"),
            (true, _) => {}
        }
        let right = if self.is_writable() { "rw" } else { "r" };
        let zero = if self.is_zero() { " zero" } else { "" };
        write!(f, "{right}{zero} order {} frame {:#x}", self.order(), self.frame())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_word_do_not_touch_each_other() {
        let page = Page::readable(u64::MAX).with_write(true).with_order(9);
        assert!(page.is_valid() && page.is_writable() && !page.is_error() && !page.is_zero());
        assert_eq!((page.order(), page.frame()), (9, FRAME_MASK));
        assert_eq!(page.nth(1).frame(), 0, "the frame goes round in its own bits");
        assert_eq!((page.nth(1).order(), page.nth(1).is_writable()), (9, true));
        assert!(!page.with_zero().is_writable(), "the page of zeros is never written");
        assert_eq!(page.with_order(3).order(), 3);
    }
}
