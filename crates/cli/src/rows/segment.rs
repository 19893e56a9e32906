//! Memory that mmap does not make: System V segments, and the heap behind the break.
//!
//! # Unsafe code
//! Every call here takes addresses. They are those of a span of the reserved area, or lie behind the allocator's break, and
//! no reference into either is ever made.
#![expect(unsafe_code, reason = "attaches segments and moves the break")]

use std::ffi::c_void;
use std::io;

use super::memory::Span;

/// Attaches a new segment at `span`. It goes away with its attachment.
pub(crate) fn attach(span: Span) -> io::Result<()> {
    // SAFETY: makes a segment of this size.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, span.len(), libc::IPC_CREAT | 0o600) };
    if id < 0 {
        return Err(io::Error::last_os_error());
    }
    let at: *const c_void = std::ptr::with_exposed_provenance(span.address());
    // SAFETY: without SHM_REMAP nothing is replaced.
    let attached = unsafe { libc::shmat(id, at, 0) };
    let attached = if attached.addr() == usize::MAX { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: marks the segment as one that goes with its last attachment.
    unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    attached
}

/// Detaches the segment at `span`.
pub(crate) fn detach(span: Span) -> io::Result<()> {
    let at: *const c_void = std::ptr::with_exposed_provenance(span.address());
    // SAFETY: attached by `attach`; no reference into it exists.
    if unsafe { libc::shmdt(at) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Where `len` bytes behind the break would lie.
pub(crate) fn behind_break(len: usize) -> Span {
    // SAFETY: asks only.
    let top = unsafe { libc::sbrk(0) };
    Span::elsewhere(top.addr().next_multiple_of(rustix::param::page_size()), len)
}

/// Takes the memory of `span`, which lies behind the break.
pub(crate) fn take(span: Span) -> io::Result<()> {
    set_break(span.address() + span.len())
}

/// Gives it back.
pub(crate) fn give_back(span: Span) -> io::Result<()> {
    set_break(span.address())
}

fn set_break(to: usize) -> io::Result<()> {
    // SAFETY: only memory behind the allocator's is taken and given back; see `leave_the_break_alone`.
    if unsafe { libc::brk(std::ptr::with_exposed_provenance_mut(to)) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
