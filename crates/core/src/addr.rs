//! Addresses and page ranges with checked arithmetic.

use std::fmt;

use thiserror::Error;

/// The smallest page of any machine that Linux runs on with pagemirror, in bytes. Every [`PageRange`] is a multiple of
/// it; a system with larger pages rounds to its own size when it makes a range.
pub const MIN_PAGE: u64 = 4096;

/// An address of the process, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VirtAddr(u64);

impl VirtAddr {
    /// The address with this number.
    #[must_use]
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The address that a pointer holds. The pointer is not followed, now or later.
    #[must_use]
    pub fn of<T: ?Sized>(pointer: *const T) -> Self {
        Self(pointer.cast::<()>().addr() as u64)
    }

    /// The number of this address.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why an address and a length are no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddrError {
    /// The length is zero.
    #[error("the range at {at} is empty: give a length of at least one byte")]
    Empty {
        /// Where the range would begin.
        at: VirtAddr,
    },
    /// The end lies beyond the last address.
    #[error("the range of {len} bytes at {at} ends beyond the address space: check the length")]
    Overflow {
        /// Where the range would begin.
        at: VirtAddr,
        /// Its length in bytes.
        len: u64,
    },
    /// The page size is not a power of two that is at least [`MIN_PAGE`].
    #[error("{size} bytes is no page size: it must be a power of two and at least 4096")]
    PageSize {
        /// What was given, in bytes.
        size: u64,
    },
}

/// A range of whole pages: `start <= address < end`, never empty, both ends multiples of [`MIN_PAGE`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageRange {
    start: u64,
    end: u64,
}

impl PageRange {
    /// Every page there is. Stands for "everything" where the exact range is not known.
    pub const ALL: Self = Self { start: 0, end: !(MIN_PAGE - 1) };

    /// The smallest range of whole pages that holds the `len` bytes at `address`.
    ///
    /// # Errors
    /// When `len` is zero, when the end does not fit in the address space, or when `page` is no page size.
    ///
    /// ```
    /// use pagemirror_core::addr::{PageRange, VirtAddr};
    /// let range = PageRange::covering(VirtAddr::new(0x1fff), 2, 4096)?;
    /// assert_eq!((range.start().get(), range.len()), (0x1000, 0x2000));
    /// # Ok::<(), pagemirror_core::addr::AddrError>(())
    /// ```
    #[inline]
    pub fn covering(address: VirtAddr, len: u64, page: u64) -> Result<Self, AddrError> {
        if !page.is_power_of_two() || page < MIN_PAGE {
            return Err(AddrError::PageSize { size: page });
        }
        if len == 0 {
            return Err(AddrError::Empty { at: address });
        }
        let last = address.get().checked_add(len);
        // A page is a power of two, so rounding is an addition and a mask.
        match last.and_then(|last| last.checked_add(page - 1)).map(|end| end & !(page - 1)) {
            Some(end) if end <= Self::ALL.end => Ok(Self { start: address.get() & !(page - 1), end }),
            _ => Err(AddrError::Overflow { at: address, len }),
        }
    }

    /// The range from `start` up to `end`. `None` unless both are multiples of [`MIN_PAGE`] and something is in between.
    #[inline(always)]
    #[must_use]
    pub const fn between(start: VirtAddr, end: VirtAddr) -> Option<Self> {
        if start.0 < end.0 && (start.0 | end.0) & (MIN_PAGE - 1) == 0 {
            Some(Self { start: start.0, end: end.0 })
        } else {
            None
        }
    }

    /// The range from two stored words, or nothing when they make none (an empty slot, a torn pair).
    pub(crate) fn from_words(start: u64, end: u64) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// The first address.
    #[must_use]
    pub const fn start(self) -> VirtAddr {
        VirtAddr(self.start)
    }

    /// The first address behind the range.
    #[must_use]
    pub const fn end(self) -> VirtAddr {
        VirtAddr(self.end)
    }

    /// The length in bytes; never zero.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range of pages is never empty")]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether the two have a page in common.
    #[inline]
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether every page of `other` is in this range.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The pages that both have, if any.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::from_words(self.start.max(other.start), self.end.min(other.end))
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}, {:#x})", self.start, self.end)
    }
}

impl fmt::Debug for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covering_rounds_outward_to_the_page_size_given() {
        let at = |a, l, p| PageRange::covering(VirtAddr::new(a), l, p).map(|r| (r.start, r.end));
        assert_eq!(at(0x1000, 1, 4096), Ok((0x1000, 0x2000)));
        assert_eq!(at(0x1001, 0x1000, 4096), Ok((0x1000, 0x3000)));
        assert_eq!(at(0x1_8000, 1, 65536), Ok((0x1_0000, 0x2_0000)));
    }

    #[test]
    fn covering_refuses_what_is_no_range() {
        let at = |a, l, p| PageRange::covering(VirtAddr::new(a), l, p);
        assert!(matches!(at(7, 0, 4096), Err(AddrError::Empty { .. })));
        assert!(matches!(at(u64::MAX - 1, 1, 4096), Err(AddrError::Overflow { .. })));
        assert!(matches!(at(4096, u64::MAX, 4096), Err(AddrError::Overflow { .. })));
        assert!(matches!(at(0, 1, 1000), Err(AddrError::PageSize { size: 1000 })));
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let r = |a, b| PageRange { start: a, end: b };
        assert!(!r(0x1000, 0x2000).overlaps(r(0x2000, 0x3000)));
        assert!(r(0x1000, 0x2001).overlaps(r(0x2000, 0x3000)));
        assert_eq!(r(0x1000, 0x3000).intersection(r(0x2000, 0x5000)), Some(r(0x2000, 0x3000)));
        assert_eq!(r(0x1000, 0x2000).intersection(r(0x2000, 0x5000)), None);
    }
}
