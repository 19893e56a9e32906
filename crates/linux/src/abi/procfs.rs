//! The two requests that files of `/proc/self` answer: which mapping is at an address, and which pages are present.

use std::io;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;

use super::hidden::{Feature, is_hidden};
use super::{READ_WRITE, ioc_of, ioctl};

/// The group that both requests belong to.
const GROUP: u8 = b'f';

/// Asks `/proc/PID/pagemap` for the pages of a range by what they are. Linux 6.7.
pub const PAGEMAP_SCAN: u32 = ioc_of::<PmScanArg>(READ_WRITE, GROUP, 16);
/// Asks `/proc/PID/maps` for one mapping. Linux 6.11.
pub const PROCMAP_QUERY: u32 = ioc_of::<ProcmapQuery>(READ_WRITE, GROUP, 17);

/// A category of [`PAGEMAP_SCAN`]: the page is in memory.
pub const PAGE_IS_PRESENT: u64 = 1 << 3;
/// A category of [`PAGEMAP_SCAN`]: the page belongs to a file or to shared memory, not to this mapping alone.
pub const PAGE_IS_FILE: u64 = 1 << 2;
/// A category of [`PAGEMAP_SCAN`]: it is the page of zeros that all mappings share.
pub const PAGE_IS_PFNZERO: u64 = 1 << 5;
/// A category of [`PAGEMAP_SCAN`]: it is mapped by a huge entry.
pub const PAGE_IS_HUGE: u64 = 1 << 6;

/// A category of [`PAGEMAP_SCAN`]: a guard page (`MADV_GUARD_INSTALL`). Linux 6.15.
pub const PAGE_IS_GUARD: u64 = 1 << 8;

/// The mapping is readable.
pub const PROCMAP_QUERY_VMA_READABLE: u64 = 1;
/// The mapping is writable.
pub const PROCMAP_QUERY_VMA_WRITABLE: u64 = 2;
/// The mapping is executable.
pub const PROCMAP_QUERY_VMA_EXECUTABLE: u64 = 4;
/// The mapping shares its pages with other mappings of the same object.
pub const PROCMAP_QUERY_VMA_SHARED: u64 = 8;
/// Asks for the next mapping when none is at the address.
pub const PROCMAP_QUERY_COVERING_OR_NEXT: u64 = 0x10;

/// What [`PAGEMAP_SCAN`] is asked, and where it stopped. Addresses in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct PmScanArg {
    /// The size of this structure, by which the kernel tells versions apart.
    pub size: u64,
    /// Side effects that are wanted; none here.
    pub flags: u64,
    /// The first address.
    pub start: u64,
    /// The first address behind the range.
    pub end: u64,
    /// Answer: the address at which the walk ended.
    pub walk_end: u64,
    /// The address of an array of [`PageRegion`].
    pub vec: u64,
    /// How many of them it has.
    pub vec_len: u64,
    /// The most pages to report; zero for no limit.
    pub max_pages: u64,
    /// Categories whose meaning is turned round in the masks below.
    pub category_inverted: u64,
    /// Categories that must all match.
    pub category_mask: u64,
    /// Categories of which one must match.
    pub category_anyof_mask: u64,
    /// Categories that the answer names.
    pub return_mask: u64,
}

const _: () = assert!(size_of::<PmScanArg>() == 96);
const _: () = assert!(offset_of!(PmScanArg, size) == 0);
const _: () = assert!(offset_of!(PmScanArg, flags) == 8);
const _: () = assert!(offset_of!(PmScanArg, start) == 16);
const _: () = assert!(offset_of!(PmScanArg, end) == 24);
const _: () = assert!(offset_of!(PmScanArg, walk_end) == 32);
const _: () = assert!(offset_of!(PmScanArg, vec) == 40);
const _: () = assert!(offset_of!(PmScanArg, vec_len) == 48);
const _: () = assert!(offset_of!(PmScanArg, max_pages) == 56);
const _: () = assert!(offset_of!(PmScanArg, category_inverted) == 64);
const _: () = assert!(offset_of!(PmScanArg, category_mask) == 72);
const _: () = assert!(offset_of!(PmScanArg, category_anyof_mask) == 80);
const _: () = assert!(offset_of!(PmScanArg, return_mask) == 88);

/// Neighbouring pages of the same categories.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageRegion {
    /// The first address.
    pub start: u64,
    /// The first address behind them.
    pub end: u64,
    /// What they all are.
    pub categories: u64,
}

const _: () = assert!(size_of::<PageRegion>() == 24);
const _: () = assert!(offset_of!(PageRegion, start) == 0);
const _: () = assert!(offset_of!(PageRegion, end) == 8);
const _: () = assert!(offset_of!(PageRegion, categories) == 16);

/// What [`PROCMAP_QUERY`] is asked, and the mapping that it found.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcmapQuery {
    /// The size of this structure, by which the kernel tells versions apart.
    pub size: u64,
    /// Which mapping is wanted.
    pub query_flags: u64,
    /// The address that is asked about.
    pub query_addr: u64,
    /// Answer: the first address.
    pub vma_start: u64,
    /// Answer: the first address behind the mapping.
    pub vma_end: u64,
    /// Answer: readable, writable, executable, shared.
    pub vma_flags: u64,
    /// Answer: the size of its pages in bytes; a huge page for hugetlbfs.
    pub vma_page_size: u64,
    /// Answer: where in its file it begins, in bytes.
    pub vma_offset: u64,
    /// Answer: the inode of its file, or zero.
    pub inode: u64,
    /// Answer: the device of its file.
    pub dev_major: u32,
    /// Answer: the device of its file.
    pub dev_minor: u32,
    /// The room for its name, in bytes; zero when it is not wanted.
    pub vma_name_size: u32,
    /// The room for its build identifier, in bytes; zero when it is not wanted.
    pub build_id_size: u32,
    /// Where the name goes.
    pub vma_name_addr: u64,
    /// Where the build identifier goes.
    pub build_id_addr: u64,
}

const _: () = assert!(size_of::<ProcmapQuery>() == 104);
const _: () = assert!(offset_of!(ProcmapQuery, size) == 0);
const _: () = assert!(offset_of!(ProcmapQuery, query_flags) == 8);
const _: () = assert!(offset_of!(ProcmapQuery, query_addr) == 16);
const _: () = assert!(offset_of!(ProcmapQuery, vma_start) == 24);
const _: () = assert!(offset_of!(ProcmapQuery, vma_end) == 32);
const _: () = assert!(offset_of!(ProcmapQuery, vma_flags) == 40);
const _: () = assert!(offset_of!(ProcmapQuery, vma_page_size) == 48);
const _: () = assert!(offset_of!(ProcmapQuery, vma_offset) == 56);
const _: () = assert!(offset_of!(ProcmapQuery, inode) == 64);
const _: () = assert!(offset_of!(ProcmapQuery, dev_major) == 72);
const _: () = assert!(offset_of!(ProcmapQuery, dev_minor) == 76);
const _: () = assert!(offset_of!(ProcmapQuery, vma_name_size) == 80);
const _: () = assert!(offset_of!(ProcmapQuery, build_id_size) == 84);
const _: () = assert!(offset_of!(ProcmapQuery, vma_name_addr) == 88);
const _: () = assert!(offset_of!(ProcmapQuery, build_id_addr) == 96);

/// Asks the open `/proc/PID/maps` in `maps` for the mapping at `address`, or with `flags` for the next one. Never
/// allocates.
pub(crate) fn query_mapping(maps: BorrowedFd<'_>, address: u64, flags: u64) -> io::Result<ProcmapQuery> {
    if is_hidden(Feature::ProcmapQuery) {
        return Err(io::Error::from_raw_os_error(libc::ENOTTY));
    }
    // Neither a name nor a build identifier is asked for: their sizes and addresses stay zero.
    let size = size_of::<ProcmapQuery>() as u64;
    let mut query = ProcmapQuery { size, query_flags: flags, query_addr: address, ..ProcmapQuery::default() };
    // SAFETY: the request takes a `ProcmapQuery`, and this one points to nothing.
    unsafe { ioctl(maps, PROCMAP_QUERY, &mut query) }?;
    Ok(query)
}

/// Writes the name of the mapping at `address` and a NUL to the start of `name`. Says whether they
/// fit: what is longer is not written. Never allocates.
pub(crate) fn query_name(maps: BorrowedFd<'_>, address: u64, name: &mut [u8]) -> io::Result<bool> {
    let mut query = ProcmapQuery {
        size: size_of::<ProcmapQuery>() as u64,
        query_addr: address,
        vma_name_size: name.len() as u32,
        vma_name_addr: name.as_mut_ptr().expose_provenance() as u64,
        ..ProcmapQuery::default()
    };
    // SAFETY: the request takes a `ProcmapQuery`; it writes at most `vma_name_size` bytes to `vma_name_addr`, which is all of
    // `name`, borrowed for as long as this function runs.
    match unsafe { ioctl(maps, PROCMAP_QUERY, &mut query) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Fills `regions` with the pages from `start` to before `end` that are in one of the categories `any_of`, as the open
/// `/proc/PID/pagemap` in `pagemap` tells, each with those of its categories that are in `told`. Returns how many regions it
/// filled and the address at which it stopped. Never allocates.
pub(crate) fn scan_pages(
    pagemap: BorrowedFd<'_>,
    (start, end): (u64, u64),
    any_of: u64,
    told: u64,
    regions: &mut [PageRegion],
) -> io::Result<(usize, u64)> {
    if is_hidden(Feature::PagemapScan) {
        return Err(io::Error::from_raw_os_error(libc::ENOTTY));
    }
    let mut scan = PmScanArg {
        size: size_of::<PmScanArg>() as u64,
        start,
        end,
        vec: regions.as_mut_ptr().expose_provenance() as u64,
        vec_len: regions.len() as u64,
        category_anyof_mask: any_of,
        return_mask: told,
        ..PmScanArg::default()
    };
    // SAFETY: the request takes a `PmScanArg`; it writes at most `vec_len` regions to `vec`, which is all of `regions`,
    // borrowed for as long as this function runs.
    let filled = unsafe { ioctl(pagemap, PAGEMAP_SCAN, &mut scan) }?;
    Ok((filled, scan.walk_end))
}
