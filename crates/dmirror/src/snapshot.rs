//! What the process's memory is, as `lib/test_hmm.c` of the kernel reports it: one byte for each page.

use pagemirror_core::addr::{MIN_PAGE, PageRange, VirtAddr};
use pagemirror_core::mirror::Run;
use pagemirror_core::table::Page;
use pagemirror_core::wait::Deadline;

use crate::accelerator::Accelerator;
use crate::error::Error;

/// The bytes (`lib/test_hmm_uapi.h`), and those of them that memory of the process alone can have.
#[derive(Debug)]
pub struct PageByte;

impl PageByte {
    /// No fault can bring the page.
    pub const ERROR: u8 = 0xff;
    /// The page is absent.
    pub const NONE: u8 = 0x00;
    /// It can be read.
    pub const READ: u8 = 0x01;
    /// It can be written, and read.
    pub const WRITE: u8 = 0x02;
    /// Beside one of the two above: it is mapped by a huge entry of 2 MiB.
    pub const PMD: u8 = 0x04;
    /// Beside one of the two above: it is mapped by a huge entry of 1 GiB.
    pub const PUD: u8 = 0x08;
    /// Beside `READ`: it is the page of zeros.
    pub const ZERO: u8 = 0x10;

    /// The orders of the two huge entries, with pages of 4 KiB.
    const PMD_ORDER: u8 = 9;
    const PUD_ORDER: u8 = 18;

    /// The byte for a page.
    #[must_use]
    pub const fn of(page: Page) -> u8 {
        if page.is_error() {
            return Self::ERROR;
        }
        if !page.is_valid() {
            return Self::NONE;
        }
        let right = if page.is_writable() { Self::WRITE } else { Self::READ };
        let size = match page.order() {
            Self::PUD_ORDER.. => Self::PUD,
            Self::PMD_ORDER.. => Self::PMD,
            _ => 0,
        };
        right | size | if page.is_zero() { Self::ZERO } else { 0 }
    }
}

/// One byte for each page of `runs`.
#[must_use]
pub fn page_bytes(runs: &[Run]) -> Vec<u8> {
    let pages = |run: &Run| (run.range.len() / MIN_PAGE) as usize;
    runs.iter().flat_map(|run| std::iter::repeat_n(PageByte::of(run.page), pages(run))).collect()
}

impl Accelerator {
    /// Describes the pages of the `len` bytes at `address` in runs, touching nothing.
    ///
    /// # Errors
    /// As [`Mirror::snapshot`](pagemirror_core::mirror::Mirror::snapshot).
    ///
    /// # Blocking
    /// Sleeps while invalidations of the range run.
    pub fn snapshot(&self, address: VirtAddr, len: u64, by: &Deadline<'_>) -> Result<Vec<Run>, Error> {
        let range = PageRange::covering(address, len, MIN_PAGE)?;
        self.mirror().snapshot(range, by).map_err(|source| Error::Fault { done: 0, source })
    }
}
