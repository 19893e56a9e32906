//! What a mirror asks of the memory that it mirrors.

use crate::addr::{PageRange, VirtAddr};
use crate::source::{Source, WatchError};
use crate::table::Page;

use super::request::Need;

/// Neighbouring pages of the same state. The frame says nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The pages.
    pub range: PageRange,
    /// What each of them is.
    pub page: Page,
}

/// Why a page that was asked for cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It was to be written, and its mapping forbids that.
    PermissionDenied,
    /// Nothing is mapped there, its mapping forbids every access, or its file ends before it.
    BadAddress,
    /// The system has no memory for it.
    NoMemory,
    /// Its memory is broken (a machine check).
    Poisoned,
    /// Its changes cannot be watched.
    Unwatched(WatchError),
    /// Something else, by the number of the system's error.
    System(i32),
}

/// What the host says of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Look {
    /// The first `told` pages are described.
    Told {
        /// How many.
        told: usize,
        /// A discard that was not announced may be under way: nothing of this may be kept.
        in_doubt: bool,
        /// Why the next page, if there is one, cannot be had.
        refused: Option<Refusal>,
    },
    /// The mappings changed while they were looked at: nothing is described. It counts as a collision.
    Changed,
}

/// The memory of a process, as its page tables have it.
pub trait HostSpace: Source {
    /// Has changes of `range` reported from now on, brings the pages in that `needs` ask for, and describes all of them in
    /// order, up to the first that was asked for and cannot be had. `needs` and `pages` have one element for each page.
    /// Pages that are not asked for are described as they are, by [`Page::ERROR`] where no fault could bring one.
    ///
    /// A mirror asks for at most [`UNIT_PAGES`](crate::table::UNIT_PAGES) pages of one unit at a time.
    ///
    /// The frame of a page is what the device will reach it by.
    ///
    /// # Blocking
    /// Faults pages in, which may read from disk. Never under a device lock or in a section.
    fn range_fault(&self, range: PageRange, needs: &[Need], pages: &mut [Page]) -> Look;

    /// Describes `range` in runs, from its start to its end without gaps. Brings nothing in and watches nothing.
    ///
    /// # Errors
    /// What the system refused.
    fn snapshot(&self, range: PageRange, visit: &mut dyn FnMut(Run)) -> Result<(), (VirtAddr, Refusal)>;
}
