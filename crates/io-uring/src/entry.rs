//! Requests that name a registration, for programs that run a loop of their own.
//!
//! Made inside [`begin`](pagemirror_registration::RegistrationCache::begin), pushed there, given back at completion:
//!
//! ```no_run
//! # use std::os::fd::BorrowedFd;
//! # use io_uring::IoUring;
//! # use pagemirror_core::{addr::VirtAddr, wait::Deadline};
//! # use pagemirror_io_uring::{FixedBuffers, FixedEntry};
//! # use pagemirror_registration::{Access, RegistrationCache, Use};
//! /// # Safety
//! /// The buffer stays until the use was given back.
//! unsafe fn start_write<'c>(
//!     ring: &mut IoUring,
//!     cache: &'c RegistrationCache<FixedBuffers>,
//!     file: BorrowedFd<'_>,
//!     buffer: &[u8],
//!     deadline: &Deadline<'_>,
//! ) -> Result<Use<'c, FixedBuffers>, Box<dyn std::error::Error>> {
//!     let lease = cache.get(VirtAddr::of(buffer.as_ptr()), buffer.len() as u64, Access::Read, deadline)?;
//!     let (using, pushed) = cache.begin(&[&lease], deadline, |registered| {
//!         let write = registered[0].write_fixed(file, buffer.as_ptr(), buffer.len() as u32)?;
//!         let entry = write.offset(0).build().user_data(7);
//!         // SAFETY: the caller promises that the buffer stays, and the use keeps the slot.
//!         unsafe { ring.submission().push(&entry) }.map_err(|_| std::io::ErrorKind::WouldBlock)?;
//!         ring.submit()
//!     })?;
//!     pushed?;
//!     Ok(using) // to be completed when the completion with `user_data` 7 has arrived
//! }
//! ```

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{opcode, types};
use pagemirror_core::addr::VirtAddr;
use pagemirror_registration::Registered;

use crate::fixed::Slot;

/// A file that a request is about.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// An open descriptor. It is looked up when the request is issued.
    Fd(types::Fd),
    /// A file that was registered with the ring.
    Fixed(types::Fixed),
}

impl From<types::Fd> for Target {
    fn from(fd: types::Fd) -> Self {
        Self::Fd(fd)
    }
}

impl From<types::Fixed> for Target {
    fn from(fixed: types::Fixed) -> Self {
        Self::Fixed(fixed)
    }
}

impl From<BorrowedFd<'_>> for Target {
    fn from(fd: BorrowedFd<'_>) -> Self {
        Self::Fd(types::Fd(fd.as_raw_fd()))
    }
}

/// The bytes asked for are not all in the registration: the kernel would refuse them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes asked for lie outside the registration; get a lease on all of them")]
pub struct Outside;

impl From<Outside> for io::Error {
    /// Allocates nothing: it may be made inside a section.
    fn from(_: Outside) -> Self {
        Self::from_raw_os_error(libc::EFAULT)
    }
}

/// Makes requests of a registration. They are safe to make; what has to be promised is promised when they are pushed:
/// that the buffer stays until the completion, and with it the [`Use`](pagemirror_registration::Use).
pub trait FixedEntry {
    /// A request that writes `len` bytes at `buffer` to a file.
    ///
    /// # Errors
    /// When the bytes are not all registered.
    fn write_fixed(&self, file: impl Into<Target>, buffer: *const u8, len: u32) -> Result<opcode::WriteFixed, Outside>;

    /// A request that reads `len` bytes of a file to `buffer`.
    ///
    /// # Errors
    /// When the bytes are not all registered.
    fn read_fixed(&self, file: impl Into<Target>, buffer: *mut u8, len: u32) -> Result<opcode::ReadFixed, Outside>;
}

impl FixedEntry for Registered<Slot> {
    fn write_fixed(&self, file: impl Into<Target>, buffer: *const u8, len: u32) -> Result<opcode::WriteFixed, Outside> {
        let slot = slot_of(self, buffer, len)?;
        Ok(match file.into() {
            Target::Fd(fd) => opcode::WriteFixed::new(fd, buffer, len, slot),
            Target::Fixed(fixed) => opcode::WriteFixed::new(fixed, buffer, len, slot),
        })
    }

    fn read_fixed(&self, file: impl Into<Target>, buffer: *mut u8, len: u32) -> Result<opcode::ReadFixed, Outside> {
        let slot = slot_of(self, buffer, len)?;
        Ok(match file.into() {
            Target::Fd(fd) => opcode::ReadFixed::new(fd, buffer, len, slot),
            Target::Fixed(fixed) => opcode::ReadFixed::new(fixed, buffer, len, slot),
        })
    }
}

fn slot_of(registered: &Registered<Slot>, buffer: *const u8, len: u32) -> Result<u16, Outside> {
    let start = VirtAddr::of(buffer).get();
    let end = start.checked_add(u64::from(len)).ok_or(Outside)?;
    let range = registered.range;
    if start < range.start().get() || end > range.end().get() {
        return Err(Outside);
    }
    Ok(registered.key.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pagemirror_core::addr::PageRange;

    #[test]
    fn only_registered_bytes_are_asked_for() {
        let range = PageRange::covering(VirtAddr::new(0x10000), 0x2000, 4096).unwrap();
        let registered = Registered { key: Slot::new(3), range };
        let at = |address: usize, len| {
            registered.write_fixed(types::Fd(0), std::ptr::without_provenance(address), len).map(|_| ())
        };
        assert_eq!(at(0x10000, 0x2000), Ok(()));
        assert_eq!(at(0x11fff, 1), Ok(()));
        assert_eq!(at(0xffff, 1), Err(Outside));
        assert_eq!(at(0x11fff, 2), Err(Outside));
        assert_eq!(at(usize::MAX, 2), Err(Outside));
    }
}
