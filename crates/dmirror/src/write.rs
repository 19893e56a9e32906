//! Writing to memory of the process: the one place with unsafe code.
#![expect(unsafe_code, reason = "the device writes to memory that the caller vouches for")]

use pagemirror_core::addr::VirtAddr;
use pagemirror_core::mirror::Need;
use pagemirror_core::wait::Deadline;
use pagemirror_linux::memory;

use crate::accelerator::{Accelerator, Transfer};
use crate::error::Error;

impl Accelerator {
    /// Writes `bytes` to `address` on.
    ///
    /// # Errors
    /// [`Error::Fault`] at the first page that cannot be had or may not be written.
    ///
    /// # Safety
    /// What lies there is memory whose bytes may change at any time during the call: nothing of the process holds a reference
    /// to it that forbids that, and any bytes are a value of it.
    ///
    /// # Blocking
    /// As [`read`](Self::read).
    pub unsafe fn write(&self, address: VirtAddr, bytes: &[u8], by: &Deadline<'_>) -> Result<Transfer, Error> {
        self.transfer(address, bytes.len(), Need::WRITE, by, &mut |at, part| {
            // SAFETY: the caller vouches for the whole of it, and `part` lies in `bytes` as `at` lies at `address`.
            unsafe { memory::write(at, &bytes[part]) }
        })
    }

    /// Writes `bytes` over `target`, which is borrowed for the device.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`Error::Lengths`] when the two are not as long.
    ///
    /// # Blocking
    /// As [`read`](Self::read).
    pub fn write_to(&self, target: &mut [u8], bytes: &[u8], by: &Deadline<'_>) -> Result<Transfer, Error> {
        if target.len() != bytes.len() {
            return Err(Error::Lengths { left: target.len(), right: bytes.len() });
        }
        // SAFETY: the target is borrowed mutably, so nobody else refers to it, and any bytes are a value of bytes.
        unsafe { self.write(VirtAddr::of(target.as_mut_ptr()), bytes, by) }
    }

    /// As [`write_to`](Self::write_to), for words.
    pub(crate) fn write_words(&self, target: &mut [u32], words: &[u32], by: &Deadline<'_>) -> Result<Transfer, Error> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let most = bytes.len().min(size_of_val(target));
        // SAFETY: as in `write_to`; no more is written than the target has, and any bytes are a value of words.
        unsafe { self.write(VirtAddr::of(target.as_mut_ptr()), &bytes[..most], by) }
    }
}
