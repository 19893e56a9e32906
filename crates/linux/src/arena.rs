//! Memory that the library owns and seals: what happens to other memory unnoticed does not happen to this.
//!
//! # Guarantee
//! While a [`Block`] lives, the pages behind it stay the same. The kernel refuses to unmap, move, replace or protect them (`mseal`), and
//! to truncate, punch or newly map their file for writing (the seals of a memfd), whoever asks; nobody has a descriptor of the
//! file. What a kernel cannot seal is said by [`Arena::sealing`].
//!
//! # Where it comes from
//! mseal(2), Linux 6.10; `F_SEAL_FUTURE_WRITE`, which also refuses holes (`shmem_fallocate` in `mm/shmem.c`). `MADV_DONTNEED` is not
//! refused for memory that may be written (`can_madvise_modify` in `mm/madvise.c`), but it takes no page out of a shared file. Guard pages
//! are refused in locked memory (`is_valid_guard_vma`), so the arena is locked where the limit allows it.
//!
//! # Side effects
//! A sealed mapping is there until the process ends, and its pages with it: make few arenas and keep them. A forked child does
//! not have it (`MADV_DONTFORK`): it would share the pages, not copy them.
//!
//! # Not covered
//! `munlock` by the program, after which guard pages can be installed again. Another process with the right to open
//! `/proc/PID/map_files` can read the file, and write into it through descriptors; pages stay the same all the same.
//!
//! # Checked by
//! `tests/arena.rs`, and the rows of the coverage matrix on arena memory.
#![expect(unsafe_code, reason = "maps, locks and seals memory of its own, and hands out slices of it")]

use std::fmt;
use std::ptr::NonNull;

use pagemirror_core::addr::{MIN_PAGE, PageRange, VirtAddr};
use pagemirror_sync::{Arc, Mutex};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::calls::CallError;

/// The C library's headers may not have it; the number is the same on every architecture.
const SYS_MSEAL: libc::c_long = 462;

/// What the kernel was able to seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sealing {
    /// The mapping cannot be unmapped, moved, replaced or protected. Without it all of this is possible, and only what userfaultfd
    /// tells is noticed.
    pub mapping: bool,
    /// Guard pages are refused, and so is `MADV_DONTNEED`, as long as the memory is locked. Without it they are possible, and only a
    /// check sees them.
    pub locked: bool,
}

/// A part of the arena that nobody has.
#[derive(Debug, Clone, Copy)]
struct Free {
    offset: usize,
    len: usize,
}

struct Inner {
    start: NonNull<u8>,
    len: usize,
    sealing: Sealing,
    /// In the order of their offsets, neighbours joined.
    free: Mutex<Vec<Free>>,
}

// SAFETY: the mapping belongs to no thread, and parts of it are handed out once at a time, under the lock.
unsafe impl Send for Inner {}
// SAFETY: as above; nothing is read or written through a shared reference.
unsafe impl Sync for Inner {}

/// Sealed memory to allocate from. Copies are of the same arena.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let arena = pagemirror_linux::Arena::new(1 << 16)?;
/// let mut block = arena.allocate(5000).ok_or("the arena is full")?;
/// block.as_mut_slice().fill(7);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Arena(Arc<Inner>);

impl Arena {
    /// Makes an arena of `len` bytes, rounded up to whole pages. It is there until the process ends.
    ///
    /// # Errors
    /// [`CallError`]: no memory is to be had, or the kernel has no sealed files (before Linux 5.1). That the mapping itself cannot be
    /// sealed or locked is no error; see [`sealing`](Self::sealing).
    pub fn new(len: usize) -> Result<Self, CallError> {
        let failed = |errno| CallError::new("an arena", format!("{len} bytes"), errno);
        let whole = len.checked_next_multiple_of(rustix::param::page_size()).filter(|&len| len != 0);
        let len = whole.ok_or(failed(Errno::INVAL))?;
        let start = map_sealed_file(len).map_err(failed)?;
        let sealing = Sealing { locked: lock(start, len), mapping: seal(start, len) };
        let free = Mutex::new(vec![Free { offset: 0, len }]);
        Ok(Self(Arc::new(Inner { start, len, sealing, free })))
    }

    /// What the kernel was able to seal.
    #[must_use]
    pub fn sealing(&self) -> Sealing {
        self.0.sealing
    }

    /// The addresses of the whole arena.
    #[must_use]
    pub fn range(&self) -> PageRange {
        covering(self.0.start, self.0.len)
    }

    /// The first free part of at least `len` bytes, rounded up to whole pages, or nothing when there is none. Its content is
    /// zero, or what its last owner left.
    #[must_use]
    pub fn allocate(&self, len: usize) -> Option<Block> {
        let len = len.checked_next_multiple_of(rustix::param::page_size()).filter(|&len| len != 0)?;
        let mut free = self.0.free.lock();
        let at = free.iter().position(|part| part.len >= len)?;
        let offset = free[at].offset;
        if free[at].len == len {
            free.remove(at);
        } else {
            free[at] = Free { offset: offset + len, len: free[at].len - len };
        }
        drop(free);
        Some(Block { arena: self.clone(), offset, len })
    }

    fn give_back(&self, offset: usize, len: usize) {
        let mut free = self.0.free.lock();
        let at = free.partition_point(|part| part.offset < offset);
        free.insert(at, Free { offset, len });
        // Behind first, so that the index of the one in front stays.
        for first in [at, at.wrapping_sub(1)] {
            let joins = |pair: &[Free]| pair[0].offset + pair[0].len == pair[1].offset;
            if free.get(first..first.saturating_add(2)).is_some_and(joins) {
                free[first].len += free[first + 1].len;
                free.remove(first + 1);
            }
        }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("range", &self.range()).field("sealing", &self.sealing()).finish_non_exhaustive()
    }
}

/// A part of an arena, given back when it is dropped. What a device has registered of it stays right for its next owner.
pub struct Block {
    arena: Arena,
    offset: usize,
    len: usize,
}

impl Block {
    /// A pointer to the first byte.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.arena.0.start.as_ptr().wrapping_add(self.offset)
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: this part of the mapping is this block's alone, is initialised by the kernel, and is there for ever.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) }
    }

    /// The bytes, to be written.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the block is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr(), self.len) }
    }

    /// The addresses.
    #[must_use]
    pub fn range(&self) -> PageRange {
        covering(self.arena.0.start.map_addr(|start| start.saturating_add(self.offset)), self.len)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.arena.give_back(self.offset, self.len);
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Block").field(&self.range()).finish()
    }
}

/// The range of a mapping: the kernel's own addresses, which are a range.
fn covering(start: NonNull<u8>, len: usize) -> PageRange {
    PageRange::covering(VirtAddr::of(start.as_ptr()), len as u64, MIN_PAGE).unwrap_or(PageRange::ALL)
}

/// Maps a new file of `len` bytes, seals it, and gives the descriptor up: nobody can get at the file by it.
fn map_sealed_file(len: usize) -> Result<NonNull<u8>, Errno> {
    let file = rustix::fs::memfd_create(c"pagemirror-arena", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, len as u64)?;
    let writable = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the place, so nothing that exists is replaced.
    let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, writable, MapFlags::SHARED, &file, 0) }?;
    let sealed = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    let sealed = rustix::fs::fcntl_add_seals(&file, sealed);
    // SAFETY: our own new mapping; the advice changes no content.
    let kept_from_children = sealed.and_then(|()| unsafe { rustix::mm::madvise(at, len, Advice::LinuxDontFork) });
    if let Err(errno) = kept_from_children {
        // SAFETY: our own new mapping, which nothing refers to.
        let _ = unsafe { rustix::mm::munmap(at, len) };
        return Err(errno);
    }
    NonNull::new(at.cast()).ok_or(Errno::NOMEM)
}

/// Locks what is touched from now on. Says whether the limit allowed it.
fn lock(start: NonNull<u8>, len: usize) -> bool {
    // SAFETY: our own mapping; no content is changed.
    unsafe { rustix::mm::mlock_with(start.as_ptr().cast(), len, rustix::mm::MlockFlags::ONFAULT) }.is_ok()
}

/// Seals the mapping. Says whether the kernel does.
fn seal(start: NonNull<u8>, len: usize) -> bool {
    // SAFETY: our own mapping, which is never changed from now on.
    let sealed = unsafe { libc::syscall(SYS_MSEAL, start.as_ptr(), len, 0_usize) };
    sealed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_given_out_again_and_nothing_twice() {
        let page = rustix::param::page_size();
        let arena = Arena::new(8 * page).unwrap();
        let mut blocks: Vec<Block> = (0..8).map(|_| arena.allocate(1).unwrap()).collect();
        assert!(arena.allocate(1).is_none());
        for (index, block) in blocks.iter().enumerate() {
            assert!(blocks[..index].iter().all(|other| !other.range().overlaps(block.range())));
        }
        // In an order that joins to both sides: pages 2, 4 and then 3.
        for index in [2, 3, 2] {
            blocks.remove(index);
        }
        let three = arena.allocate(3 * page).unwrap();
        assert_eq!(three.range().start().get(), arena.range().start().get() + 2 * page as u64);
        assert!(arena.allocate(1).is_none());
        drop((three, blocks));
        assert!(arena.allocate(8 * page).is_some());
        assert!(arena.allocate(0).is_none() && arena.allocate(usize::MAX).is_none());
    }
}
