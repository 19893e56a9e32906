//! Copies between a buffer and this process's memory by address, made by the kernel.
//!
//! What is not mapped, or may not be accessed so, is an error of the call and not a fault of the thread: that is what a
//! device needs, whose pages may go at any time. Both calls obey the protection of the mapping.
#![expect(unsafe_code, reason = "process_vm_readv and process_vm_writev take raw addresses")]

use std::io;

use libc::iovec;
use pagemirror_core::addr::VirtAddr;
use rustix::process::{Pid, getpid};

/// Copies from `address` on into `buffer`. Returns how many bytes were copied before the first page that cannot be read.
///
/// # Errors
/// EFAULT when not even the first byte can be read.
///
/// # Blocking
/// Takes the address space's lock and may fault pages in. Never waits for the pump, never allocates.
pub fn read(address: VirtAddr, buffer: &mut [u8]) -> io::Result<usize> {
    let (local, remote) = vectors(buffer.as_mut_ptr(), address, buffer.len());
    let own = Pid::as_raw(Some(getpid()));
    // SAFETY: both vectors are one element long; the kernel writes to `buffer` alone, which is borrowed for the call.
    copied(unsafe { libc::process_vm_readv(own, &raw const local, 1, &raw const remote, 1, 0) })
}

/// Copies `bytes` to `address` on. Returns how many were copied before the first page that cannot be written.
///
/// # Errors
/// EFAULT when not even the first byte can be written.
///
/// # Safety
/// Whatever of this process lies there must be such that its bytes may change at any time during the call: nothing holds a
/// reference to it that forbids that, and any bytes are a value of it.
///
/// # Blocking
/// As [`read`].
pub unsafe fn write(address: VirtAddr, bytes: &[u8]) -> io::Result<usize> {
    let (local, remote) = vectors(bytes.as_ptr().cast_mut(), address, bytes.len());
    let own = Pid::as_raw(Some(getpid()));
    // SAFETY: both vectors are one element long; the kernel reads `bytes`; for what it writes the caller vouches.
    copied(unsafe { libc::process_vm_writev(own, &raw const local, 1, &raw const remote, 1, 0) })
}

fn vectors(local: *mut u8, remote: VirtAddr, len: usize) -> (iovec, iovec) {
    let remote = std::ptr::with_exposed_provenance_mut(remote.get() as usize);
    (iovec { iov_base: local.cast(), iov_len: len }, iovec { iov_base: remote, iov_len: len })
}

fn copied(answer: isize) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Mapping;

    #[test]
    fn copies_there_and_back_and_stops_where_nothing_may_be_read() {
        let memory = Mapping::new(4 * 4096).unwrap();
        let at = |offset| VirtAddr::new(memory.start() + offset);
        // SAFETY: only this test knows the memory.
        assert_eq!(unsafe { write(at(4090), b"over the edge") }.unwrap(), 13);
        let mut back = [0; 13];
        assert_eq!(read(at(4090), &mut back).unwrap(), 13);
        assert_eq!(&back, b"over the edge");
        memory.forbid_access().unwrap();
        assert_eq!(read(at(4090), &mut back).unwrap_err().raw_os_error(), Some(libc::EFAULT));
        // SAFETY: as above; nothing is written.
        assert_eq!(unsafe { write(at(0), b"x") }.unwrap_err().raw_os_error(), Some(libc::EFAULT));
    }
}
