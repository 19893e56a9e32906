//! Memory of our own from the kernel, apart from every allocator: what the pump stands on must never be registered,
//! and the gate's word must be wiped in a forked child.
#![expect(unsafe_code, reason = "mapping and unmapping memory, and a reference into a page that is never unmapped")]

use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Private anonymous memory that is unmapped when it is dropped.
///
/// Holds addresses, not references: who follows them answers for what is there. The pump must not drop one that is
/// registered, since it would wait for itself.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is a pair of numbers that says which memory to unmap; nothing is shared through it.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method writes to `self`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes, readable and writable, rounded up to whole pages. They are zero, and absent until touched.
    ///
    /// # Errors
    /// ENOMEM when there is no room or a limit is reached, EINVAL when `len` is zero or overflows.
    pub fn new(len: usize) -> io::Result<Self> {
        let whole = len.checked_next_multiple_of(rustix::param::page_size()).filter(|&len| len != 0);
        let len = whole.ok_or(rustix::io::Errno::INVAL)?;
        let writable = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the place, so nothing that exists is replaced.
        let start = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, writable, MapFlags::PRIVATE) }?;
        Ok(Self::adopt(start, len))
    }

    /// The first page of `file`, mapped without any right: to find out what the kernel calls the file.
    pub(crate) fn of_descriptor(file: BorrowedFd<'_>) -> io::Result<Self> {
        let len = rustix::param::page_size();
        // SAFETY: the kernel chooses the place, so nothing that exists is replaced.
        let at = unsafe { rustix::mm::mmap(ptr::null_mut(), len, ProtFlags::empty(), MapFlags::SHARED, file, 0) }?;
        Ok(Self::adopt(at, len))
    }

    fn adopt(start: *mut c_void, len: usize) -> Self {
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address zero that it chose itself");
        Self { start, len }
    }

    /// The first address.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start.addr().get() as u64
    }

    /// The length in bytes: what was asked for, rounded up to whole pages. Never zero.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// A pointer to the first byte. Reading and writing through it is up to who can say that nobody else does.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and who kept an address of it has answered for not following it now.
        let unmapped = unsafe { rustix::mm::munmap(self.as_ptr().cast(), self.len) };
        // A failure would mean that the pages are not ours to unmap: a bug, or a sealed mapping, which stays.
        debug_assert_eq!(unmapped, Ok(()));
    }
}

/// A word that is zero in every forked child, whatever it was in the parent: its page is wiped by the kernel. It starts
/// as zero; the caller gives it its first value (`pagemirror_core::gate::ALIVE`). The page stays mapped for ever, since
/// a use may look at the word at any time.
///
/// # Errors
/// ENOMEM when no page is to be had; EINVAL before Linux 4.14, which cannot wipe.
pub fn wipe_on_fork_word() -> io::Result<&'static AtomicU64> {
    let page = Mapping::new(size_of::<AtomicU64>())?;
    // SAFETY: the page is ours and holds nothing yet.
    unsafe { rustix::mm::madvise(page.as_ptr().cast(), page.len, Advice::LinuxWipeOnFork) }?;
    let word = page.as_ptr().cast::<u64>();
    // Leaked on purpose: this is what makes the reference below one for ever.
    std::mem::forget(page);
    // SAFETY: the word is at the start of a page, so aligned; zero is a value of it; nobody unmaps the page, and it is
    // reached only through this atomic.
    Ok(unsafe { AtomicU64::from_ptr(word) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::maps::Maps;

    impl Mapping {
        /// A shared mapping of `len` bytes of `file` from `offset`.
        pub(crate) fn of_file(file: &File, offset: u64, len: usize) -> io::Result<Self> {
            let writable = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: the kernel chooses the place, so nothing that exists is replaced.
            let at = unsafe { rustix::mm::mmap(ptr::null_mut(), len, writable, MapFlags::SHARED, file, offset) }?;
            Ok(Self::adopt(at, len))
        }

        /// Keeps the kernel from using huge pages, so that a touched page is one page.
        pub(crate) fn forbid_huge_pages(&self) -> io::Result<()> {
            // SAFETY: this advice changes no content.
            unsafe { rustix::mm::madvise(self.as_ptr().cast(), self.len, Advice::LinuxNoHugepage) }.map_err(Into::into)
        }

        /// Takes away every right.
        pub(crate) fn forbid_access(&self) -> io::Result<()> {
            let nothing = rustix::mm::MprotectFlags::empty();
            // SAFETY: only this test knows the memory, and it does not look at it any more.
            unsafe { rustix::mm::mprotect(self.as_ptr().cast(), self.len, nothing) }.map_err(Into::into)
        }

        /// Writes to the byte at `offset`.
        pub(crate) fn touch(&self, offset: usize) {
            assert!(offset < self.len);
            let byte = self.as_ptr().wrapping_add(offset);
            // SAFETY: inside the mapping, which is writable and which only this test knows.
            unsafe { byte.write_volatile(1) };
        }
    }

    #[test]
    fn a_mapping_is_whole_pages() {
        let page = rustix::param::page_size();
        let mapping = Mapping::new(page + 1).unwrap();
        assert_eq!(mapping.len(), 2 * page as u64);
        mapping.touch(2 * page - 1);
    }

    #[test]
    fn a_dropped_mapping_is_gone() {
        // Other tests may be given the address as soon as it is free, so what is looked for is this one's file.
        let file = File::from(rustix::fs::memfd_create(c"dropped", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(4096).unwrap();
        let mapping = Mapping::of_file(&file, 0, 4096).unwrap();
        let (maps, start) = (Maps::open().unwrap(), mapping.start());
        let inode = |address| maps.query(address, false).unwrap().map(|vma| vma.inode);
        let ours = inode(start);
        assert_eq!(ours, Some(file.metadata().unwrap().ino()));
        drop(mapping);
        assert_ne!(inode(start), ours);
    }

    #[test]
    fn what_cannot_be_mapped_is_an_error() {
        assert_eq!(Mapping::new(0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(Mapping::new(usize::MAX).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(Mapping::new(1 << 62).unwrap_err().raw_os_error(), Some(libc::ENOMEM));
    }

    #[test]
    fn the_word_is_zero_in_a_forked_child_and_keeps_its_value_here() {
        const VALUE: u64 = 41;
        let word = wipe_on_fork_word().unwrap();
        assert_eq!(word.load(Ordering::Relaxed), 0);
        word.store(VALUE, Ordering::Relaxed);
        // SAFETY: the child makes two calls that are allowed after a fork beside threads: a load and _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let found = word.load(Ordering::Relaxed);
            // SAFETY: ends the child at once, without running anything of the test program.
            unsafe { libc::_exit(if found == 0 { 0 } else { 1 }) };
        }
        assert!(child > 0);
        let mut status = -1;
        // SAFETY: the status is ours to be written.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!((waited, status), (child, 0), "the child did not find a wiped word");
        assert_eq!(word.load(Ordering::Relaxed), VALUE);
    }
}
