//! What the device holds: the bytes of the pages that were pinned, whatever is mapped at their address by now.
#![expect(unsafe_code, reason = "pushing a request is unsafe in the crate io-uring")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{IoUring, opcode, types};
use pagemirror::Slot;

use super::scratch::Scratch;

/// A ring, a filled slot of its table, and a file to write the slot's pages to.
pub(crate) struct Witness {
    ring: IoUring,
    slot: Slot,
    start: usize,
    len: usize,
    file: OwnedFd,
}

impl Witness {
    pub(crate) fn new(ring: IoUring, slot: Slot, scratch: &Scratch) -> io::Result<Self> {
        let file = rustix::fs::memfd_create(c"pagemirror-witness", rustix::fs::MemfdFlags::CLOEXEC)?;
        Ok(Self { ring, slot, start: scratch.start, len: scratch.len, file })
    }

    /// Has the device write its pages to the file, and reads that.
    pub(crate) fn held(&mut self) -> io::Result<Vec<u8>> {
        let mut done = 0;
        while done < self.len {
            done += self.write(done)?;
        }
        let mut bytes = vec![0; self.len];
        let mut read = 0;
        while read < self.len {
            match rustix::io::pread(&self.file, &mut bytes[read..], read as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => read += more,
            }
        }
        Ok(bytes)
    }

    fn write(&mut self, from: usize) -> io::Result<usize> {
        let at = std::ptr::without_provenance(self.start + from);
        let write =
            opcode::WriteFixed::new(types::Fd(self.file.as_raw_fd()), at, (self.len - from) as u32, self.slot.get());
        let entry = write.offset(from as u64).build();
        // SAFETY: the request names a registered buffer, whose pages the kernel holds while the use is kept; it never
        // follows the address.
        unsafe { self.ring.submission().push(&entry) }.map_err(|_| io::ErrorKind::WouldBlock)?;
        self.ring.submit_and_wait(1)?;
        let result = self.ring.completion().next().map_or(-libc::EIO, |completion| completion.result());
        match usize::try_from(result) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => Ok(written),
            Err(_) => Err(io::Error::from_raw_os_error(-result)),
        }
    }
}
