//! The operations themselves: each is one call, or the few that belong to it, on a scratch.
#![expect(unsafe_code, reason = "forks, and calls the C library's munmap on scratch memory")]

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue::Entry, types};

use super::catalogue::Operation as Op;
use super::scratch::{
    LATER, Scratch, attach_segment, call, free_block, grow_block, map, open_truncating, page, program_break, reserve,
    set_break,
};

const PRIVATE_FIXED: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
/// Advice that the C library's headers may be too old for.
const MADV_GUARD_INSTALL: i32 = 102;
const MADV_DONTNEED_LOCKED: i32 = 24;
const MADV_COLLAPSE: i32 = 25;
const MADV_POPULATE_WRITE: i32 = 23;
const SYS_MSEAL: libc::c_long = 462;
/// From the end of a scratch to the second mapping of a span, in bytes.
pub(super) const SPAN_HOLE: usize = 1 << 16;
const MREMAP_DONTUNMAP: i32 = 4;
const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;

/// Does it. An error is the kernel's.
pub(crate) fn fire(operation: Op, scratch: &Scratch) -> io::Result<()> {
    let &Scratch { start, len, .. } = scratch;
    match operation {
        Op::Munmap => libc_munmap(start, len),
        Op::MunmapRaw => munmap(start, len),
        Op::MunmapUnrounded => munmap(start, 100),
        Op::MunmapOneOf64 => munmap(start + 17 * page(), page()),
        Op::MunmapNeighbour => munmap(start + len, page()),
        Op::MunmapVforkChild => in_vfork_child([libc::SYS_munmap as usize, start, len, 0]),
        Op::MunmapSpan => munmap(start, len + SPAN_HOLE + page()),
        Op::FreeLarge => {
            free_block();
            Ok(())
        }
        Op::ReallocMoves => grow_block(),
        Op::MapFixedOver => map(start, len, PRIVATE_FIXED, -1).map(drop),
        Op::MremapAway => mremap(start, len, len, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, reserve(len)?),
        Op::MremapDontunmap => {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | MREMAP_DONTUNMAP;
            mremap(start, len, len, flags, reserve(len)?)
        }
        Op::MremapShrink => mremap(start, len, len / 2, 0, 0),
        Op::MremapGrow => {
            munmap(start + len, 8 * page())?;
            mremap(start, len, 2 * len, 0, 0)
        }
        Op::MremapGrowMove => {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            mremap(start, len, 2 * len, flags, reserve(2 * len)?)
        }
        Op::MremapOnto => {
            let other = map(reserve(len)?, len, PRIVATE_FIXED, -1)?;
            scratch.fill(other, len, LATER)?;
            mremap(other, len, len, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, start)
        }
        Op::BrkShrink => shrink_heap(scratch),
        Op::Shmdt => call(libc::SYS_shmdt, [start, 0, 0, 0, 0, 0]).map(drop),
        Op::ShmatOver => attach_segment(start, len).map(drop),
        // Shows the page behind the range in its place.
        Op::RemapFilePages => call(libc::SYS_remap_file_pages, [start, page(), 0, len / page(), 0, 0]).map(drop),
        _ => fire_at_pages(operation, scratch),
    }
}

/// The operations that leave the mapping where it is.
fn fire_at_pages(operation: Op, scratch: &Scratch) -> io::Result<()> {
    let &Scratch { start, len, alias, .. } = scratch;
    match operation {
        Op::Dontneed => madvise(start, len, libc::MADV_DONTNEED),
        Op::DontneedLocked => {
            call(libc::SYS_mlock, [start, len, 0, 0, 0, 0])?;
            madvise(start, len, MADV_DONTNEED_LOCKED)
        }
        Op::Free => madvise(start, len, libc::MADV_FREE),
        Op::Remove => madvise(start, len, libc::MADV_REMOVE),
        Op::RemoveWatchedAlias | Op::RemoveOtherAlias => madvise(alias.unwrap_or(0), len, libc::MADV_REMOVE),
        Op::ProcessMadvise => process_madvise(start, len, libc::MADV_DONTNEED),
        Op::UringMadvise => uring(
            &opcode::Madvise::new(std::ptr::without_provenance(start), len as libc::off_t, libc::MADV_DONTNEED).build(),
        ),
        Op::DontneedVforkChild => {
            in_vfork_child([libc::SYS_madvise as usize, start, len, libc::MADV_DONTNEED as usize])
        }
        Op::GuardInstall => madvise(start, len, MADV_GUARD_INSTALL),
        Op::Pageout => madvise(start, len, libc::MADV_PAGEOUT),
        Op::Cold => madvise(start, len, libc::MADV_COLD),
        Op::Collapse => madvise(start, len, MADV_COLLAPSE),
        Op::Populate => madvise(start, len, MADV_POPULATE_WRITE),
        Op::ProtectNone => mprotect(start, len, libc::PROT_NONE),
        Op::ProtectRead => mprotect(start, len, libc::PROT_READ),
        Op::PkeyProtectNone => {
            // The key of every mapping that has none: it needs no processor with keys.
            call(libc::SYS_pkey_mprotect, [start, len, libc::PROT_NONE as usize, usize::MAX, 0, 0]).map(drop)
        }
        Op::WriteFromKernel => write_from_kernel(start, len),
        Op::Mseal => call(SYS_MSEAL, [start, len, 0, 0, 0, 0]).map(drop),
        Op::NoHugePages => madvise(start, len, libc::MADV_NOHUGEPAGE),
        Op::Mlock => call(libc::SYS_mlock, [start, len, 0, 0, 0, 0]).map(drop),
        Op::Msync => call(libc::SYS_msync, [start, len, libc::MS_SYNC as usize, 0, 0, 0]).map(drop),
        Op::ForkParentWrites => fork_and_write(scratch),
        _ => fire_at_file(operation, scratch),
    }
}

/// The operations on the file behind the mapping.
fn fire_at_file(operation: Op, scratch: &Scratch) -> io::Result<()> {
    let Scratch { len, .. } = *scratch;
    let file = scratch.file.as_ref().ok_or(io::ErrorKind::Unsupported)?;
    let fd = file.as_raw_fd();
    match operation {
        Op::PunchHole => call(libc::SYS_fallocate, [fd as usize, PUNCH_HOLE as usize, 0, len, 0, 0]).map(drop),
        Op::Truncate => Ok(rustix::fs::ftruncate(file, 0)?),
        Op::OpenTruncate => open_truncating(file).map(drop),
        Op::UringPunchHole => {
            uring(&opcode::Fallocate::new(types::Fd(fd), len as u64).offset(0).mode(PUNCH_HOLE).build())
        }
        Op::UringTruncate => uring(&opcode::Ftruncate::new(types::Fd(fd), 0).build()),
        Op::WriteOtherMapping => scratch.fill(scratch.alias.unwrap_or(0), len, LATER),
        Op::WriteFile => Ok(rustix::io::pwrite(file, &vec![LATER; len], 0).map(drop)?),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn libc_munmap(start: usize, len: usize) -> io::Result<()> {
    // SAFETY: scratch memory, which nothing refers to.
    match unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(start), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn munmap(start: usize, len: usize) -> io::Result<()> {
    call(libc::SYS_munmap, [start, len, 0, 0, 0, 0]).map(drop)
}

fn mremap(from: usize, old: usize, new: usize, flags: i32, to: usize) -> io::Result<()> {
    call(libc::SYS_mremap, [from, old, new, flags as usize, to, 0]).map(drop)
}

fn madvise(start: usize, len: usize, advice: i32) -> io::Result<()> {
    call(libc::SYS_madvise, [start, len, advice as usize, 0, 0, 0]).map(drop)
}

fn mprotect(start: usize, len: usize, protection: i32) -> io::Result<()> {
    call(libc::SYS_mprotect, [start, len, protection as usize, 0, 0, 0]).map(drop)
}

fn process_madvise(start: usize, len: usize, advice: i32) -> io::Result<()> {
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
    let vector = [start, len];
    let fd = own.as_raw_fd() as usize;
    call(libc::SYS_process_madvise, [fd, vector.as_ptr().addr(), 1, advice as usize, 0, 0]).map(drop)
}

/// One request on a ring of its own, carried out by a worker of the kernel's.
fn uring(entry: &Entry) -> io::Result<()> {
    let mut ring = IoUring::new(2)?;
    // SAFETY: the request names scratch memory or a descriptor that outlives it.
    unsafe { ring.submission().push(entry) }.map_err(|_| io::ErrorKind::WouldBlock)?;
    ring.submit_and_wait(1)?;
    let result = ring.completion().next().map_or(-libc::EIO, |completion| completion.result());
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}

fn shrink_heap(scratch: &Scratch) -> io::Result<()> {
    // The allocator may have grown the heap behind our part; then it is not ours to shrink.
    if program_break() != scratch.start + scratch.len + page() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    set_break(scratch.start)
}

/// The parent writes while a child holds copies of the same page table entries.
fn fork_and_write(scratch: &Scratch) -> io::Result<()> {
    // SAFETY: the child makes one system call, which never returns to code that could miss the other threads.
    let child = unsafe { libc::fork() };
    if child == 0 {
        loop {
            // SAFETY: no requirement.
            unsafe { libc::pause() };
        }
    }
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    let written = scratch.fill(scratch.start, scratch.len, LATER);
    // SAFETY: our own child, which nobody has waited for yet, so the number is its.
    unsafe { libc::kill(child, libc::SIGKILL) };
    // SAFETY: as above; the status is not asked for.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    written
}

/// The kernel copies into the range, as another process could have it do.
fn write_from_kernel(start: usize, len: usize) -> io::Result<()> {
    let bytes = vec![LATER; len];
    let (from, to) = ([bytes.as_ptr().addr(), len], [start, len]);
    let own = rustix::process::getpid().as_raw_nonzero().get() as usize;
    call(libc::SYS_process_vm_writev, [own, from.as_ptr().addr(), 1, to.as_ptr().addr(), 1, 0]).map(drop)
}

/// A task that shares the memory without being a thread makes a system call, and this thread sleeps until it has ended.
fn in_vfork_child(mut request: [usize; 4]) -> io::Result<()> {
    extern "C" fn body(argument: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the parent's array, which waits until this task has ended.
        let [number, a, b, c] = unsafe { *argument.cast::<[usize; 4]>() };
        i32::from(call(number as libc::c_long, [a, b, c, 0, 0, 0]).is_err())
    }
    const STACK: usize = 64 * 1024;
    let mut stack = vec![0_u128; STACK / size_of::<u128>()];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: stack and argument outlive the child, since this thread sleeps until the child has ended.
    let child = unsafe { libc::clone(body, top.cast(), flags, (&raw mut request).cast()) };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut status = -1;
    // SAFETY: our own child; the status is ours to be written.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    if status == 0 { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
}
