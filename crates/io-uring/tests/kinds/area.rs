//! Memory of every kind, and every operation that can be made on it. Contents are given and read by raw address.
#![expect(unsafe_code, reason = "maps, moves, discards and reads memory by address")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::support::PAGE;

/// What an area is made of.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Anonymous,
    SharedAnonymous,
    HugeAnonymous,
    /// The file has at least four times the area's length: each new mapping shows the next part, so that other pages are there.
    File {
        file: Arc<File>,
        shared: bool,
    },
}

/// A change of an area after which other pages may be at its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// munmap and mmap(MAP_FIXED_NOREPLACE).
    Unmap,
    /// mmap(MAP_FIXED) over it.
    MapOver,
    /// mremap to another place, and a new mapping here.
    MoveAway,
    /// mremap of another mapping of the kind onto it.
    MoveOnto,
    /// The last part only: unmapped, and mapped again.
    UnmapTail,
    Discard,
    DiscardLocked,
    /// MADV_REMOVE of this mapping.
    Remove,
    /// MADV_REMOVE of another mapping of the same part of the file.
    RemoveByAlias,
}

/// Every operation that gives other pages to any kind of memory.
pub(crate) const REMAPS: [Change; 5] =
    [Change::Unmap, Change::MapOver, Change::MoveAway, Change::MoveOnto, Change::UnmapTail];

/// An area. `unit` is the size of its pages, and the least that can be changed.
#[derive(Debug)]
pub(crate) struct Area {
    kind: Kind,
    at: usize,
    len: usize,
    unit: usize,
    /// Which part of the file is shown.
    part: usize,
}

fn map(kind: &Kind, at: usize, len: usize, fixed: i32, offset: usize) -> io::Result<usize> {
    let (flags, fd) = match kind {
        Kind::Anonymous => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        Kind::SharedAnonymous => (libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1),
        Kind::HugeAnonymous => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB, -1),
        Kind::File { file, shared } => (if *shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE }, file.as_raw_fd()),
    };
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let offset = if fd < 0 { 0 } else { offset as i64 };
    // SAFETY: a new mapping, or one over memory of the test's own that nothing refers to.
    let got = unsafe { libc::mmap(at as *mut _, len, protection, flags | fixed, fd, offset) };
    if got == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(got as usize) }
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Area {
    /// `units` pages of `unit` bytes, mapped at a multiple of their size with a hole around them.
    pub(crate) fn new(kind: Kind, units: usize, unit: usize) -> io::Result<Self> {
        let len = units * unit;
        let at = reserve(len, unit);
        map(&kind, at, len, libc::MAP_FIXED, 0)?;
        Ok(Self { kind, at, len, unit, part: 0 })
    }

    pub(crate) fn address(&self) -> usize {
        self.at
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped, and changed only through `&mut self`.
        unsafe { std::slice::from_raw_parts(self.at as *const u8, self.len) }
    }

    /// Every page has bytes of its own.
    pub(crate) fn fill(&mut self, round: u8) {
        for page in 0..self.len / PAGE {
            // SAFETY: inside the area, which is mapped and writable.
            unsafe { std::ptr::write_bytes((self.at + page * PAGE) as *mut u8, round ^ page as u8, PAGE) };
        }
    }

    pub(crate) fn advise(&self, advice: i32) -> io::Result<()> {
        // SAFETY: the test's own memory; no reference into it is kept over this.
        check(unsafe { libc::madvise(self.at as *mut _, self.len, advice) })
    }

    /// Another part of the file for a new mapping.
    fn next_part(&mut self) -> usize {
        self.part = (self.part + 1) % 4;
        self.part * self.len
    }

    fn offset(&self) -> usize {
        self.part * self.len
    }

    fn aside(&mut self) -> io::Result<usize> {
        let aside = reserve(self.len, self.unit);
        let offset = self.next_part();
        map(&self.kind, aside, self.len, libc::MAP_FIXED, offset)
    }

    /// Makes `change`.
    pub(crate) fn change(&mut self, change: Change) -> io::Result<()> {
        let (at, len) = (self.at, self.len);
        match change {
            Change::Unmap => {
                unmap(at, len)?;
                let offset = self.next_part();
                map(&self.kind, at, len, libc::MAP_FIXED_NOREPLACE, offset).map(drop)
            }
            Change::MapOver => {
                let offset = self.next_part();
                map(&self.kind, at, len, libc::MAP_FIXED, offset).map(drop)
            }
            Change::MoveAway => {
                let aside = reserve(len, self.unit);
                remap(at, len, aside)?;
                let offset = self.next_part();
                map(&self.kind, at, len, libc::MAP_FIXED_NOREPLACE, offset)?;
                unmap(aside, len)
            }
            Change::MoveOnto => {
                let other = self.aside()?;
                remap(other, len, at)
            }
            Change::UnmapTail => {
                let tail = at + len - self.unit;
                unmap(tail, self.unit)?;
                // A part of the file that no other mapping of the area shows.
                let offset = 4 * len;
                map(&self.kind, tail, self.unit, libc::MAP_FIXED_NOREPLACE, offset).map(drop)
            }
            Change::Discard => self.advise(libc::MADV_DONTNEED),
            Change::DiscardLocked => self.advise(MADV_DONTNEED_LOCKED),
            Change::Remove => self.advise(libc::MADV_REMOVE),
            Change::RemoveByAlias => Err(io::Error::other("asked of the alias")),
        }
    }

    /// Another mapping of what this one shows.
    pub(crate) fn alias(&self) -> io::Result<Self> {
        let at = reserve(self.len, self.unit);
        map(&self.kind, at, self.len, libc::MAP_FIXED, self.offset())?;
        Ok(Self { kind: self.kind.clone(), at, len: self.len, unit: self.unit, part: self.part })
    }
}

/// Linux 5.18.
const MADV_DONTNEED_LOCKED: i32 = 24;

/// Where areas lie: the kernel's own placement goes down from the top of the address space and does not get here, so an address
/// that is free for a moment is given to nobody else.
static NEXT: AtomicUsize = AtomicUsize::new(0x3000_0000_0000);

/// Addresses that nobody else is given, at a multiple of `unit`, with a hole on both sides.
fn reserve(len: usize, unit: usize) -> usize {
    NEXT.fetch_add(len + 2 * unit, Ordering::Relaxed).next_multiple_of(unit)
}

fn unmap(at: usize, len: usize) -> io::Result<()> {
    // SAFETY: the test's own memory; no reference into it is kept over this.
    check(unsafe { libc::munmap(at as *mut _, len) })
}

/// Moves, one mapping at a time where a change of a part has split it.
fn remap(from: usize, len: usize, to: usize) -> io::Result<()> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: between areas of the test's own.
    let got = unsafe { libc::mremap(from as *mut _, len, len, flags, to as *mut libc::c_void) };
    if got == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Drop for Area {
    fn drop(&mut self) {
        let _ = unmap(self.at, self.len);
    }
}
