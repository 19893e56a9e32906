//! Locking pages in memory, as a device that needs no hardware.
#![expect(unsafe_code, reason = "mlock and munlock take raw addresses")]

use std::ffi::c_void;
use std::io;

use pagemirror_core::addr::PageRange;

/// `mlock`: every page of `range` is brought in and stays in memory, until it is unlocked or unmapped.
///
/// # Errors
/// The kernel's: ENOMEM when a part is not mapped or the limit is reached, EPERM when the limit is zero, EAGAIN when a page
/// could not be brought in.
///
/// # Blocking
/// Faults pages in. Never waits for the pump.
pub fn lock(range: PageRange) -> io::Result<()> {
    // SAFETY: locking changes no content and no mapping; an address that is not mapped is an error.
    unsafe { rustix::mm::mlock(pointer(range), range.len() as usize) }.map_err(Into::into)
}

/// `munlock`: the pages of `range` may be paged out again. Locks do not count: one call undoes all.
///
/// # Errors
/// The kernel's: ENOMEM when a part is not mapped any more. What is mapped is unlocked up to there.
///
/// # Blocking
/// Takes the address space's lock. Never waits for the pump.
pub fn unlock(range: PageRange) -> io::Result<()> {
    // SAFETY: as `lock`.
    unsafe { rustix::mm::munlock(pointer(range), range.len() as usize) }.map_err(Into::into)
}

fn pointer(range: PageRange) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(range.start().get() as usize)
}
