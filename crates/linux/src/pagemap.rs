//! Which pages are in memory, asked of the kernel.
//!
//! # Guarantee
//! Each page is reported as it was at an instant of the call. That a page is absent proves nothing about *who* removed
//! it, so nothing here ends a doubt (`tasks` does).

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};

use pagemirror_core::addr::PageRange;
use rustix::fs::{Mode, OFlags};

use crate::abi::{self, PageRegion};

/// One page's entry in the file, in bytes.
const ENTRY_LEN: u64 = 8;
/// The bit of an entry that says that the page is in memory.
const ENTRY_PRESENT: u64 = 1 << 63;
/// Regions that are asked for at a time: 1.5 KiB of stack. Memory in use has few, since neighbours are merged.
const REGIONS: usize = 64;

/// Entries that are read at a time: 512 bytes of stack.
const ENTRIES: usize = 64;
/// The bit of an entry that says that no other process, and no other mapping, maps the page.
const ENTRY_EXCLUSIVE: u64 = 1 << 56;
/// The bit of an entry that says that every access to it is a fault.
const ENTRY_GUARD: u64 = 1 << 58;
/// The bit of an entry that says that the page belongs to a file or to shared memory.
const ENTRY_FILE: u64 = 1 << 61;

/// One page, as the file tells it (`Documentation/admin-guide/mm/pagemap.rst`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PagemapEntry(u64);

impl PagemapEntry {
    /// It is in memory.
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0 & ENTRY_PRESENT != 0
    }

    /// Nobody else maps it. Not so for a page that a forked child still shares.
    #[must_use]
    pub const fn is_exclusive(self) -> bool {
        self.0 & ENTRY_EXCLUSIVE != 0
    }

    /// It belongs to a file or to shared memory.
    #[must_use]
    pub const fn is_of_file(self) -> bool {
        self.0 & ENTRY_FILE != 0
    }

    /// Every access to it is a fault.
    #[must_use]
    pub const fn is_guard(self) -> bool {
        self.0 & ENTRY_GUARD != 0
    }
}

/// The open page map of this process. A forked child that inherits it asks about its parent.
#[derive(Debug)]
pub struct Pagemap {
    fd: OwnedFd,
    page_size: u64,
}

impl Pagemap {
    /// Opens the page map.
    ///
    /// # Errors
    /// When `/proc` is not mounted, or the process may not look at itself.
    pub fn open() -> io::Result<Self> {
        let fd = rustix::fs::open(c"/proc/self/pagemap", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd, page_size: rustix::param::page_size() as u64 })
    }

    /// Whether the page at `address` is in memory. Nothing mapped there counts as absent. Never allocates.
    ///
    /// # Errors
    /// When the address lies beyond what a process can have, or the address space is gone (`UnexpectedEof`).
    pub fn present(&self, address: u64) -> io::Result<bool> {
        let mut entry = [0; ENTRY_LEN as usize];
        let read = rustix::io::pread(&self.fd, &mut entry, address / self.page_size * ENTRY_LEN)?;
        if read != entry.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(u64::from_ne_bytes(entry) & ENTRY_PRESENT != 0)
    }

    /// How many pages of `range` are in memory, in pages of the system's size. A huge page counts as all that it
    /// holds. Never allocates.
    ///
    /// # Errors
    /// ENOTTY before Linux 6.7; EFAULT when the range reaches beyond what a process can have.
    ///
    /// # Blocking
    /// Waits for a change of the address space that runs.
    pub fn present_pages(&self, range: PageRange) -> io::Result<u64> {
        let mut bytes = 0;
        let present = abi::PAGE_IS_PRESENT;
        self.scan(range, present, present, &mut |region| bytes += region.end - region.start)?;
        Ok(bytes / self.page_size)
    }

    /// Calls `visit` with the pages of `range` that are in one of the categories `any_of`, in order, neighbours together, each
    /// with those of its categories that are in `told`. Never allocates by itself.
    ///
    /// # Errors
    /// ENOTTY before Linux 6.7, EINVAL for a category that this kernel does not know, EFAULT when the range reaches beyond what
    /// a process can have.
    ///
    /// # Blocking
    /// Waits for a change of the address space that runs.
    pub fn scan(&self, range: PageRange, any_of: u64, told: u64, visit: &mut dyn FnMut(PageRegion)) -> io::Result<()> {
        let mut regions = [PageRegion::default(); REGIONS];
        let (mut at, end) = (range.start().get(), range.end().get());
        while at < end {
            let (filled, walked_to) = abi::scan_pages(self.fd.as_fd(), (at, end), any_of, told, &mut regions)?;
            regions[..filled].iter().for_each(|region| visit(*region));
            if walked_to <= at {
                return Err(ErrorKind::InvalidData.into());
            }
            at = walked_to;
        }
        Ok(())
    }

    /// Reads the entries of the pages from `address` on. Never allocates.
    ///
    /// # Errors
    /// As [`present`](Self::present).
    pub fn entries(&self, address: u64, entries: &mut [PagemapEntry]) -> io::Result<()> {
        let mut bytes = [[0; ENTRY_LEN as usize]; ENTRIES];
        for (first, part) in entries.chunks_mut(ENTRIES).enumerate() {
            let bytes = &mut bytes[..part.len()];
            let offset = (address / self.page_size + (first * ENTRIES) as u64) * ENTRY_LEN;
            let read = rustix::io::pread(&self.fd, bytes.as_flattened_mut(), offset)?;
            if read != bytes.as_flattened().len() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            for (entry, bytes) in part.iter_mut().zip(bytes) {
                *entry = PagemapEntry(u64::from_ne_bytes(*bytes));
            }
        }
        Ok(())
    }
}

impl Pagemap {
    /// The first guard page in `range`. Never allocates.
    ///
    /// # Errors
    /// ENOTTY before Linux 6.7, EINVAL before 6.15; EFAULT when the range reaches beyond what a process can have.
    ///
    /// # Blocking
    /// Waits for a change of the address space that runs.
    pub fn first_guard(&self, range: PageRange) -> io::Result<Option<u64>> {
        let mut first = [PageRegion::default(); 1];
        let (start, end) = (range.start().get(), range.end().get());
        let (filled, _) =
            abi::scan_pages(self.fd.as_fd(), (start, end), abi::PAGE_IS_GUARD, abi::PAGE_IS_GUARD, &mut first)?;
        Ok((filled > 0).then_some(first[0].start))
    }
}

#[cfg(test)]
mod tests {
    use pagemirror_core::addr::VirtAddr;

    use super::*;
    use crate::mapping::Mapping;

    /// More single pages than one scan has room for, so that the walk must go on where it stopped.
    const PAGES: usize = 4 * REGIONS;

    #[test]
    fn touched_pages_are_present_and_untouched_ones_are_not() {
        let pagemap = Pagemap::open().unwrap();
        let page = rustix::param::page_size();
        let memory = Mapping::new(PAGES * page).unwrap();
        memory.forbid_huge_pages().unwrap();
        let whole = PageRange::covering(VirtAddr::new(memory.start()), memory.len(), page as u64).unwrap();
        assert_eq!(pagemap.present_pages(whole).unwrap(), 0);
        assert!(!pagemap.present(memory.start()).unwrap());

        for index in (0..PAGES).step_by(2) {
            memory.touch(index * page);
        }
        assert_eq!(pagemap.present_pages(whole).unwrap(), PAGES as u64 / 2);
        for index in 0..PAGES {
            let address = memory.start() + (index * page) as u64;
            assert_eq!(pagemap.present(address + 17).unwrap(), index % 2 == 0, "page {index}");
        }
    }

    #[test]
    fn nothing_is_present_where_nothing_is_mapped() {
        let pagemap = Pagemap::open().unwrap();
        let page = rustix::param::page_size() as u64;
        assert!(!pagemap.present(0).unwrap());
        assert_eq!(pagemap.present_pages(PageRange::covering(VirtAddr::new(0), page, page).unwrap()).unwrap(), 0);
        assert!(pagemap.present(u64::MAX).is_err());
        assert!(pagemap.present_pages(PageRange::ALL).is_err());
    }
}
