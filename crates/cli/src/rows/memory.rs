//! Memory that belongs to nobody but the stress run: a reserved area of addresses, and the calls that change it.
//!
//! # Guarantee
//! A [`Span`] lies in the reserved area. The kernel's own placement goes down from the top of the address space and never
//! gets there, no Rust object is ever placed there, and no reference into it is ever made: so it may be unmapped, replaced
//! and discarded at will. Touching a span where nothing is mapped ends the process by a signal, which the parent reports.
//!
//! # Unsafe code
//! Every call here takes addresses. The module's invariant is that they come from a span.
#![expect(unsafe_code, reason = "mapping calls and filling mapped memory take raw addresses")]

use std::ffi::c_void;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use pagemirror::core::addr::AddrError;
use pagemirror::{PageRange, VirtAddr};
use rustix::mm::{Advice, MapFlags, MremapFlags, ProtFlags};

use super::oracle::{CHUNK, tag};

/// Where the area begins: 32 TiB, the lower half of every 47-bit address space, far below libraries and stacks.
const AREA: usize = 0x2000_0000_0000;

/// Pages between two spans, so that neighbours are never one mapping.
const GAP: usize = 1;

/// The first address that no span has.
static NEXT: AtomicUsize = AtomicUsize::new(AREA);

const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

/// Whole pages of the reserved area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    at: usize,
    len: usize,
}

/// What a mapping shows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Backing<'f> {
    /// Private anonymous memory.
    Anonymous,
    /// Shared memory that no file shows.
    SharedAnonymous,
    /// Private pages of hugetlbfs.
    Huge,
    /// A part of a file, from this offset.
    Shared(&'f OwnedFd, u64),
    /// The same, and what is written stays here.
    Private(&'f OwnedFd, u64),
}

/// Whether a mapping may take the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// `MAP_FIXED_NOREPLACE`: fails with EEXIST where something is mapped.
    Free,
    /// `MAP_FIXED`: replaces.
    Replace,
}

impl Span {
    /// A new span of this many pages. Addresses are not given back: the area is large.
    pub(crate) fn reserve(pages: usize) -> Self {
        let page = rustix::param::page_size();
        // ORDERING: Relaxed; only the numbers have to differ.
        let at = NEXT.fetch_add((pages + GAP) * page, Ordering::Relaxed);
        Self { at, len: pages * page }
    }

    /// The same of `bytes`, which begins at a multiple of `unit`.
    pub(crate) fn reserve_aligned(bytes: usize, unit: usize) -> Self {
        let page = rustix::param::page_size();
        let wide = Self::reserve((bytes + unit) / page);
        Self { at: wide.at.next_multiple_of(unit), len: bytes }
    }

    /// Memory that the kernel has placed elsewhere: a segment, the break.
    pub(super) fn elsewhere(at: usize, len: usize) -> Self {
        Self { at, len }
    }

    pub(crate) fn address(self) -> usize {
        self.at
    }

    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// The `len` bytes from `offset` on: pages of this span.
    pub(crate) fn part(self, offset: usize, len: usize) -> Self {
        let page = rustix::param::page_size();
        assert!(
            offset.is_multiple_of(page) && len.is_multiple_of(page) && offset + len <= self.len,
            "a part of whole pages"
        );
        Self { at: self.at + offset, len }
    }

    /// The last page.
    pub(crate) fn last_page(self) -> Self {
        let page = rustix::param::page_size();
        self.part(self.len - page, page)
    }

    pub(crate) fn range(self) -> Result<PageRange, AddrError> {
        PageRange::covering(VirtAddr::new(self.at as u64), self.len as u64, rustix::param::page_size() as u64)
    }

    fn pointer(self) -> *mut c_void {
        std::ptr::with_exposed_provenance_mut(self.at)
    }

    pub(crate) fn map(self, backing: Backing<'_>, placement: Placement) -> io::Result<()> {
        let fixed = match placement {
            Placement::Free => MapFlags::FIXED_NOREPLACE,
            Placement::Replace => MapFlags::FIXED,
        };
        let (flags, file) = match backing {
            Backing::Anonymous => (MapFlags::PRIVATE, None),
            Backing::SharedAnonymous => (MapFlags::SHARED, None),
            Backing::Huge => (MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_2MB, None),
            Backing::Shared(file, offset) => (MapFlags::SHARED, Some((file, offset))),
            Backing::Private(file, offset) => (MapFlags::PRIVATE, Some((file, offset))),
        };
        let (at, len, flags) = (self.pointer(), self.len, flags | fixed);
        let mapped = match file {
            // SAFETY: what is replaced lies in the reserved area, which nothing refers to.
            None => unsafe { rustix::mm::mmap_anonymous(at, len, READ_WRITE, flags) }?,
            // SAFETY: as above.
            Some((file, offset)) => unsafe { rustix::mm::mmap(at, len, READ_WRITE, flags, file, offset) }?,
        };
        assert_eq!(mapped.addr(), self.at, "the kernel keeps to fixed addresses since Linux 4.17");
        Ok(())
    }

    pub(crate) fn unmap(self) -> io::Result<()> {
        // SAFETY: in the reserved area, which nothing refers to.
        unsafe { rustix::mm::munmap(self.pointer(), self.len) }.map_err(io::Error::from)
    }

    /// Moves the pages to `target`, which has the same length. Nothing is mapped here afterwards.
    pub(crate) fn move_to(self, target: Self) -> io::Result<()> {
        assert_eq!(self.len, target.len, "a span moves to one of its own length");
        let (from, to) = (self.pointer(), target.pointer());
        // SAFETY: both in the reserved area, which nothing refers to.
        unsafe { rustix::mm::mremap_fixed(from, self.len, target.len, MremapFlags::MAYMOVE, to) }?;
        Ok(())
    }

    /// `MADV_DONTNEED`.
    pub(crate) fn discard(self) -> io::Result<()> {
        self.advise(Advice::LinuxDontNeed)
    }

    /// `MADV_REMOVE`: takes the pages out of the file.
    pub(crate) fn remove(self) -> io::Result<()> {
        self.advise(Advice::LinuxRemove)
    }

    /// `MADV_HUGEPAGE`.
    pub(crate) fn with_huge_pages(self) -> io::Result<()> {
        self.advise(Advice::LinuxHugepage)
    }

    /// `MADV_NOHUGEPAGE`.
    pub(crate) fn without_huge_pages(self) -> io::Result<()> {
        self.advise(Advice::LinuxNoHugepage)
    }

    /// `MADV_POPULATE_WRITE`.
    pub(crate) fn populate(self) -> io::Result<()> {
        self.advise(Advice::LinuxPopulateWrite)
    }

    fn advise(self, advice: Advice) -> io::Result<()> {
        // SAFETY: in the reserved area, which nothing refers to.
        unsafe { rustix::mm::madvise(self.pointer(), self.len, advice) }.map_err(io::Error::from)
    }

    /// Fills every chunk with its tag. Something writable is mapped here.
    pub(crate) fn fill(self, id: u64, generation: u64) {
        for (chunk, offset) in (0..self.len).step_by(CHUNK).enumerate() {
            let at: *mut u8 = std::ptr::with_exposed_provenance_mut(self.at + offset);
            // SAFETY: in the reserved area; no reference exists, so nothing but the kernel reads it meanwhile. Where
            // nothing is mapped the process ends.
            unsafe { at.write_bytes(tag(id, generation, chunk as u64), CHUNK) };
        }
    }
}

/// Makes the allocator take much memory behind the break at once and never give it back, so that it does not move the break
/// while a row does.
pub(crate) fn leave_the_break_alone() {
    #[cfg(target_env = "gnu")]
    {
        /// More than the row's own threads allocate.
        const PAD: i32 = 64 << 20;
        // SAFETY: sets a parameter of the allocator, which is documented to be done at any time by one thread.
        unsafe { libc::mallopt(libc::M_TOP_PAD, PAD) };
        // SAFETY: as above.
        unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX) };
        // Larger than what is free, smaller than a mapping of its own, so the break is moved now.
        drop(std::hint::black_box(vec![1_u8; 100 << 10]));
        drop(std::hint::black_box((0..4).map(|_| vec![1_u8; 100 << 10]).collect::<Vec<_>>()));
    }
}

/// Makes the allocator map and unmap every block of at least `from` bytes, and trim its heaps eagerly, so that a program's
/// churn reaches the kernel. Other allocators than glibc's do as they do.
pub(crate) fn allocate_by_mapping(from: usize) {
    #[cfg(target_env = "gnu")]
    {
        let from = i32::try_from(from).unwrap_or(i32::MAX);
        // SAFETY: sets a parameter of the allocator, which is documented to be done at any time by one thread.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, from) };
        // SAFETY: as above.
        unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, from) };
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = from;
}
