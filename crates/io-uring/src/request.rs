//! What a caller of the ring asked for, with the borrow that makes it good.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{opcode, squeue, types};
use pagemirror_core::addr::VirtAddr;
use pagemirror_registration::Registered;
use rustix::fs::{OFlags, fcntl_getfl};

use crate::entry::{FixedEntry, Outside};
use crate::error::{Direction, Error};
use crate::explain::MAX_BUFFER;
use crate::fixed::Slot;

/// The most that one request transfers, so that the pages around it are a fixed buffer that the kernel takes: the kernel's
/// bound less one page of the largest size at either end.
const MAX_TRANSFER: usize = MAX_BUFFER as usize - 2 * 65536;

/// Bytes from which a request to a cached file is handed to the kernel's worker threads at once. A read of what is in the page
/// cache is copied by the call that submits, and that call is made in a section, which holds up everybody who unmaps
/// memory: 55 us for 1 MiB where this was measured, 1.9 ms for 16 MiB, against 1.3 us for handing it over. Direct transfers
/// are only queued by that call (at most 0.1 ms for 16 MiB). No smaller, because a worker, once made, lives as long as its
/// ring, and while one lives no discard of this process is proven over.
const ASYNC_FROM: usize = 1 << 20;

/// One transfer. Borrows the buffer and the file.
#[derive(Debug)]
pub(crate) struct Request<'b> {
    file: BorrowedFd<'b>,
    direction: Direction,
    buffer: *mut u8,
    len: usize,
    offset: u64,
    copied_in_worker: bool,
    borrow: PhantomData<&'b mut [u8]>,
}

impl<'b> Request<'b> {
    pub(crate) fn write(file: BorrowedFd<'b>, buffer: &'b [u8], offset: u64) -> Self {
        // Only written through by `read`, which has a mutable borrow.
        Self::new(file, Direction::Write, buffer.as_ptr().cast_mut(), buffer.len(), offset)
    }

    pub(crate) fn read(file: BorrowedFd<'b>, buffer: &'b mut [u8], offset: u64) -> Self {
        Self::new(file, Direction::Read, buffer.as_mut_ptr(), buffer.len(), offset)
    }

    fn new(file: BorrowedFd<'b>, direction: Direction, buffer: *mut u8, len: usize, offset: u64) -> Self {
        let len = len.min(MAX_TRANSFER);
        let direct = || fcntl_getfl(file).is_ok_and(|flags| flags.contains(OFlags::DIRECT));
        let copied_in_worker = len >= ASYNC_FROM && !direct();
        Self { file, direction, buffer, len, offset, copied_in_worker, borrow: PhantomData }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn address(&self) -> VirtAddr {
        VirtAddr::of(self.buffer)
    }

    pub(crate) fn len(&self) -> u64 {
        self.len as u64
    }

    /// The request through a registration. Allocates nothing.
    pub(crate) fn fixed(&self, registered: &Registered<Slot>) -> Result<squeue::Entry, Outside> {
        let len = self.len as u32;
        let entry = match self.direction {
            Direction::Write => registered.write_fixed(self.file, self.buffer, len)?.offset(self.offset).build(),
            Direction::Read => registered.read_fixed(self.file, self.buffer, len)?.offset(self.offset).build(),
        };
        Ok(if self.copied_in_worker { entry.flags(squeue::Flags::ASYNC) } else { entry })
    }

    /// The request by address.
    pub(crate) fn plain(&self) -> squeue::Entry {
        let (fd, len) = (types::Fd(self.file.as_raw_fd()), self.len as u32);
        match self.direction {
            Direction::Write => opcode::Write::new(fd, self.buffer, len).offset(self.offset).build(),
            Direction::Read => opcode::Read::new(fd, self.buffer, len).offset(self.offset).build(),
        }
    }

    /// Whether the file is one that waits: then "try again" is not an answer for the caller.
    pub(crate) fn blocks(&self) -> bool {
        fcntl_getfl(self.file).is_ok_and(|flags| !flags.contains(OFlags::NONBLOCK))
    }

    /// The file's answer as an error.
    pub(crate) fn failed(&self, source: io::Error) -> Error {
        let (direction, address, len, offset) = (self.direction, self.address(), self.len, self.offset);
        Error::Transfer { direction, address, len, offset, source }
    }
}
