//! The memory that the operations of the matrix are fired at, and the two ways to look at it: as the processor does, and as
//! the device does that has it pinned.
//!
//! # Guarantee
//! A [`Scratch`] is memory that nothing in this program refers to: no allocation lies in it, and nothing follows an address
//! of it but the kernel. So it may be unmapped, replaced and discarded at will, and looking at it where nothing is mapped
//! is an answer and not a signal.
#![expect(unsafe_code, reason = "the operations under test are system calls on raw addresses")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use pagemirror::linux::{Arena, Sealing};

use super::catalogue::{Memory, Operation};

/// What the memory is filled with at the start, and what is written later to tell pages apart.
pub(crate) const BEFORE: u8 = b'A';
pub(crate) const LATER: u8 = b'B';
/// Room on both sides, so that neighbours never merge and a mapping can grow: also one huge page, to align by.
const ROOM: usize = 2 << 20;

/// A system call. Its safety is the module's guarantee: every address that is handed to it is one of a scratch, or of a
/// value that is borrowed for the call, and every descriptor is the caller's own.
pub(in crate::doctor) fn call(number: libc::c_long, arguments: [usize; 6]) -> io::Result<usize> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: see above.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

/// A registered range and what is behind it.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// The file that it shows, if it is a shared mapping of one.
    pub(crate) file: Option<OwnedFd>,
    /// The same part of the file, mapped once more.
    pub(crate) alias: Option<usize>,
}

pub(crate) fn page() -> usize {
    rustix::param::page_size()
}

impl Scratch {
    /// Memory of this kind for `operation`, filled.
    pub(crate) fn new(memory: Memory, operation: Operation) -> io::Result<Self> {
        let len = operation.pages() * page();
        // One page more, which some operations are about.
        let whole = len + page();
        let (start, file) = match memory {
            _ if is_allocated(operation) => (allocate(whole)?, None),
            Memory::Anonymous => (reserve(whole)?, None),
            Memory::Memfd => {
                let file = rustix::fs::memfd_create(c"pagemirror-doctor", rustix::fs::MemfdFlags::CLOEXEC)?;
                rustix::fs::ftruncate(&file, whole as u64)?;
                (reserve(whole)?, Some(file))
            }
            Memory::Shm => (attach_segment(reserve(whole)?, whole)?, None),
            Memory::Heap => (grow_heap(whole)?, None),
            Memory::Arena => (sealed(whole)?, None),
        };
        match (memory, &file) {
            _ if is_allocated(operation) => {}
            (_, Some(file)) => map(start, whole, libc::MAP_SHARED | libc::MAP_FIXED, file.as_raw_fd()).map(drop)?,
            (Memory::Anonymous, None) => map(start, whole, PRIVATE | libc::MAP_FIXED, -1).map(drop)?,
            _ => {}
        }
        let alias = match &file {
            Some(file) => Some(map(0, whole, libc::MAP_SHARED, file.as_raw_fd())?),
            None => None,
        };
        let scratch = Self { start, len, file, alias };
        scratch.fill(start, whole, BEFORE)?;
        Ok(scratch)
    }

    /// What the processor sees of each page; nothing where it sees none.
    pub(crate) fn seen(&self) -> io::Result<Vec<Option<Vec<u8>>>> {
        // By this file the kernel reads what is mapped, whatever its protection, and answers where nothing is.
        let memory = File::open("/proc/self/mem")?;
        let look = |at: usize| {
            let mut bytes = vec![0; page()];
            memory.read_exact_at(&mut bytes, at as u64).is_ok().then_some(bytes)
        };
        Ok((self.start..self.start + self.len).step_by(page()).map(look).collect())
    }

    /// Writes as the processor would, with or without permission of the mapping. Fails where nothing is mapped.
    pub(crate) fn fill(&self, at: usize, len: usize, byte: u8) -> io::Result<()> {
        let memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
        memory.write_all_at(&vec![byte; len], at as u64)
    }
}

const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Maps memory of ours: somewhere, or over other memory of ours.
pub(in crate::doctor) fn map(at: usize, len: usize, flags: i32, fd: i32) -> io::Result<usize> {
    call(libc::SYS_mmap, [at, len, READ_WRITE as usize, flags as usize, fd as usize, 0])
}

/// An address, aligned to a huge page, with nothing of anybody around it.
pub(in crate::doctor) fn reserve(len: usize) -> io::Result<usize> {
    let at = call(libc::SYS_mmap, [0, len + 3 * ROOM, 0, PRIVATE as usize, usize::MAX, 0])?;
    Ok((at + ROOM).next_multiple_of(ROOM))
}

/// A part of an arena, never given back.
fn sealed(len: usize) -> io::Result<usize> {
    let arena = Arena::new(len).map_err(io::Error::other)?;
    let Sealing { mapping, locked, .. } = arena.sealing();
    if !mapping || !locked {
        return Err(io::Error::other(
            "this kernel, or the limit on locked memory, does not let an arena be sealed whole",
        ));
    }
    let block = arena.allocate(len).ok_or(io::ErrorKind::OutOfMemory)?;
    let start = block.range().start().get() as usize;
    std::mem::forget(block);
    Ok(start)
}

/// The operations of the allocator, on a block of its own.
fn is_allocated(operation: Operation) -> bool {
    matches!(operation, Operation::FreeLarge | Operation::ReallocMoves)
}

/// A block of the allocator that is mapped for itself, and its whole pages behind the header.
fn allocate(len: usize) -> io::Result<usize> {
    const LARGE: usize = 1 << 20;
    // SAFETY: no requirement; the block is never followed as a pointer.
    let block = unsafe { libc::malloc(len + LARGE) };
    if block.is_null() {
        return Err(io::Error::last_os_error());
    }
    BLOCK.store(block.addr(), std::sync::atomic::Ordering::Relaxed);
    Ok(block.expose_provenance().next_multiple_of(page()))
}

/// The block of [`allocate`]; a process fires one operation.
static BLOCK: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

pub(super) fn free_block() {
    // ORDERING: Relaxed; handed over by starting the thread that fires.
    let block = BLOCK.swap(0, std::sync::atomic::Ordering::Relaxed);
    // SAFETY: the allocator's own block, or null, and freed once.
    unsafe { libc::free(std::ptr::with_exposed_provenance_mut(block)) };
}

/// Has the block grow to where it has no room.
pub(super) fn grow_block() -> io::Result<()> {
    const MUCH: usize = 64 << 20;
    // ORDERING: Relaxed, as above.
    let block = BLOCK.load(std::sync::atomic::Ordering::Relaxed);
    // SAFETY: the allocator's own block, or null.
    let grown = unsafe { libc::realloc(std::ptr::with_exposed_provenance_mut(block), MUCH) };
    match grown.addr() {
        0 => Err(io::Error::last_os_error()),
        // There was room: nothing has moved, so nothing is shown.
        same if same == block => Err(io::ErrorKind::Unsupported.into()),
        _ => Ok(()),
    }
}

/// A segment that is attached at `at`, in place of our reservation, and goes away with its last attachment.
pub(in crate::doctor) fn attach_segment(at: usize, len: usize) -> io::Result<usize> {
    let id = call(libc::SYS_shmget, [libc::IPC_PRIVATE as usize, len, 0o600 | libc::IPC_CREAT as usize, 0, 0, 0])?;
    let attached = call(libc::SYS_shmat, [id, at, libc::SHM_REMAP as usize, 0, 0, 0]);
    call(libc::SYS_shmctl, [id, libc::IPC_RMID as usize, 0, 0, 0, 0])?;
    attached
}

/// Moves the program break up and gives the first whole page behind the old one. By the C library, which remembers the break
/// for its allocator.
fn grow_heap(len: usize) -> io::Result<usize> {
    stock_up();
    let start = program_break().next_multiple_of(page());
    set_break(start + len)?;
    Ok(start)
}

/// Has the allocator hold free memory below the break, so that it does not move the break while a case runs. Other
/// allocators than glibc's do not use the break.
fn stock_up() {
    #[cfg(target_env = "gnu")]
    {
        const STOCK: usize = 8 << 20;
        for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
            // SAFETY: sets a parameter of the allocator, which is documented to be done at any time by one thread.
            unsafe { libc::mallopt(parameter, 2 * STOCK as i32) };
        }
        // SAFETY: no requirement.
        let block = unsafe { libc::malloc(STOCK) };
        // SAFETY: the block that was made just now, or null.
        unsafe { libc::free(block) };
    }
}

pub(super) fn program_break() -> usize {
    // SAFETY: asks for the break and changes nothing.
    unsafe { libc::sbrk(0) }.addr()
}

pub(super) fn set_break(at: usize) -> io::Result<()> {
    // SAFETY: the callers move it only over memory behind the allocator's own.
    match unsafe { libc::brk(std::ptr::with_exposed_provenance_mut(at)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A second descriptor of the file, opened by its name in `/proc`.
pub(super) fn open_truncating(file: &OwnedFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}\0", file.as_raw_fd());
    let flags = (libc::O_RDWR | libc::O_TRUNC | libc::O_CLOEXEC) as usize;
    let fd = call(libc::SYS_openat, [libc::AT_FDCWD as usize, path.as_ptr().addr(), flags, 0, 0, 0])?;
    // SAFETY: the call has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
