//! The kernel's words for what pagemirror asks of it: request numbers, structures, and the calls that carry them.
//!
//! Written here and not taken from a crate, because notification needs features that are newer than the headers of most
//! distributions, and none of the page-fault service that such crates are about. What is here is what has a user.
//!
//! # Where it comes from
//! `include/uapi/linux/userfaultfd.h` and `include/uapi/linux/fs.h` of Linux 6.18; userfaultfd(2),
//! ioctl_userfaultfd(2), PAGEMAP_SCAN(2const), `Documentation/filesystems/proc.rst`.
//!
//! # Checked by
//! Constant assertions on every size and offset; `tests/abi_layout.rs`, which asks the running kernel and, where there
//! is one, the C compiler with the headers that are installed.
#![expect(unsafe_code, reason = "ioctl(2) takes an untyped pointer; this is the one place that hands it one")]

mod hidden;
mod message;
mod procfs;
mod uffd;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

#[doc(hidden)]
pub use hidden::{Feature, hide};
pub use message::{MESSAGE_LEN, Message, RawMessage, event, message_offset};
pub use procfs::{
    PAGE_IS_FILE, PAGE_IS_GUARD, PAGE_IS_HUGE, PAGE_IS_PFNZERO, PAGE_IS_PRESENT, PAGEMAP_SCAN, PROCMAP_QUERY,
    PROCMAP_QUERY_COVERING_OR_NEXT, PROCMAP_QUERY_VMA_EXECUTABLE, PROCMAP_QUERY_VMA_READABLE, PROCMAP_QUERY_VMA_SHARED,
    PROCMAP_QUERY_VMA_WRITABLE, PageRegion, PmScanArg, ProcmapQuery,
};
pub(crate) use procfs::{query_mapping, query_name, scan_pages};
pub use uffd::{
    UFFD_API, UFFD_API_IOCTLS, UFFD_FEATURE_EVENT_FORK, UFFD_FEATURE_EVENT_REMAP, UFFD_FEATURE_EVENT_REMOVE,
    UFFD_FEATURE_EVENT_UNMAP, UFFD_FEATURE_EXACT_ADDRESS, UFFD_FEATURE_MINOR_HUGETLBFS, UFFD_FEATURE_MINOR_SHMEM,
    UFFD_FEATURE_MISSING_HUGETLBFS, UFFD_FEATURE_MISSING_SHMEM, UFFD_FEATURE_MOVE, UFFD_FEATURE_PAGEFAULT_FLAG_WP,
    UFFD_FEATURE_POISON, UFFD_FEATURE_SIGBUS, UFFD_FEATURE_THREAD_ID, UFFD_FEATURE_WP_ASYNC,
    UFFD_FEATURE_WP_HUGETLBFS_SHMEM, UFFD_FEATURE_WP_UNPOPULATED, UFFD_FEATURES, UFFD_USER_MODE_ONLY, UFFDIO_API,
    UFFDIO_REGISTER, UFFDIO_REGISTER_MODE_MISSING, UFFDIO_REGISTER_MODE_WP, UFFDIO_UNREGISTER, UFFDIO_WRITEPROTECT,
    UFFDIO_WRITEPROTECT_MODE_WP, USERFAULTFD_IOC_NEW, Uffd, UffdioApi, UffdioRange, UffdioRegister, UffdioWriteprotect,
    range_ioctl,
};

// The request numbers below are those of the common layout. PowerPC, MIPS, SPARC and Alpha have one of their own.
const _: () = assert!(
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64", target_arch = "loongarch64")),
    "pagemirror knows the ioctl numbers of x86-64, arm64, riscv64 and loongarch64 only"
);

/// The request carries no data.
const NONE: u32 = 0;
/// The request is marked as one that the kernel writes an answer to.
const READ: u32 = 2;
/// The request is marked as one that the kernel both reads and answers.
const READ_WRITE: u32 = 3;

/// A request number: direction, size of the structure, group and number within it, packed as `_IOC` of the kernel does.
const fn ioc(direction: u32, group: u8, number: u8, size: usize) -> u32 {
    // A size has 14 bits; a larger structure would run into the direction.
    assert!(size < 1 << 14);
    direction << 30 | (size as u32) << 16 | (group as u32) << 8 | number as u32
}

/// The number of a request that carries a `T`.
const fn ioc_of<T>(direction: u32, group: u8, number: u8) -> u32 {
    ioc(direction, group, number, size_of::<T>())
}

/// Sends `request` with `argument` to `fd` and returns the non-negative answer. Never allocates.
///
/// # Safety
/// `request` must be one that takes a `T`, and nothing that `argument` points to in its fields may be read or written
/// by it beyond what the caller owns.
unsafe fn ioctl<T>(fd: BorrowedFd<'_>, request: u32, argument: &mut T) -> io::Result<usize> {
    let argument: *mut T = argument;
    // SAFETY: the pointer is to a whole `T` that outlives the call; the caller vouches for the request.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, argument) };
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_numbers_are_those_of_the_c_library() {
        assert_eq!(u64::from(ioc(NONE, 0xaa, 0, 0)), libc::_IO(0xaa, 0) as u64);
        assert_eq!(u64::from(ioc_of::<[u64; 2]>(READ, 0xaa, 1)), libc::_IOR::<[u64; 2]>(0xaa, 1) as u64);
        assert_eq!(u64::from(ioc_of::<[u64; 12]>(READ_WRITE, b'f', 16)), libc::_IOWR::<[u64; 12]>(0x66, 16) as u64);
    }
}
