//! userfaultfd as a source of notifications: open, agree on features, register for write protection without protecting
//! anything, read what changed, and ask whether something is changing.

use std::io::{self, ErrorKind};
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};

use super::hidden::{Feature, is_hidden};
use super::message::{MESSAGE_LEN, RawMessage};
use super::{NONE, READ, READ_WRITE, ioc, ioc_of, ioctl};

/// The group of all userfaultfd requests, and the version that is asked for.
const GROUP: u8 = 0xaa;
/// The version of the interface; there has only been this one.
pub const UFFD_API: u64 = 0xaa;
/// Flag of the system call: page faults in the kernel are not reported. Without it privilege is needed.
pub const UFFD_USER_MODE_ONLY: i32 = 1;

/// Agrees on version and features; the first request on a descriptor.
pub const UFFDIO_API: u32 = ioc_of::<UffdioApi>(READ_WRITE, GROUP, 0x3f);
/// Registers a range.
pub const UFFDIO_REGISTER: u32 = ioc_of::<UffdioRegister>(READ_WRITE, GROUP, 0x00);
/// Unregisters a range. Marked in the kernel as a request with an answer, though it has none.
pub const UFFDIO_UNREGISTER: u32 = ioc_of::<UffdioRange>(READ, GROUP, 0x01);
/// Sets or clears write protection.
pub const UFFDIO_WRITEPROTECT: u32 = ioc_of::<UffdioWriteprotect>(READ_WRITE, GROUP, 0x06);
/// Makes a descriptor from an open `/dev/userfaultfd`.
pub const USERFAULTFD_IOC_NEW: u32 = ioc(NONE, GROUP, 0x00, 0);

/// The requests that the handshake says are there: API, REGISTER, UNREGISTER, one bit each.
pub const UFFD_API_IOCTLS: u64 = 1 << 0x00 | 1 << 0x01 | 1 << 0x3f;

/// Bits of the answer to a registration: the requests that the range can take.
pub mod range_ioctl {
    /// Wake who waits for a page.
    pub const WAKE: u64 = 1 << 0x02;
    /// Fill a page by copying.
    pub const COPY: u64 = 1 << 0x03;
    /// Set or clear write protection. The probe needs it.
    pub const WRITEPROTECT: u64 = 1 << 0x06;
}

/// Registration for faults on pages that are not there.
pub const UFFDIO_REGISTER_MODE_MISSING: u64 = 1 << 0;
/// Registration for faults on pages that are write-protected.
pub const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
/// Write protection is to be set; without it, cleared.
pub const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1 << 0;

/// Feature: write-protection faults are told apart.
pub const UFFD_FEATURE_PAGEFAULT_FLAG_WP: u64 = 1 << 0;
/// Feature: fork(2) is reported. Needs privilege.
pub const UFFD_FEATURE_EVENT_FORK: u64 = 1 << 1;
/// Feature: mremap(2) is reported.
pub const UFFD_FEATURE_EVENT_REMAP: u64 = 1 << 2;
/// Feature: discards by madvise(2) are reported.
pub const UFFD_FEATURE_EVENT_REMOVE: u64 = 1 << 3;
/// Feature: missing pages of hugetlbfs.
pub const UFFD_FEATURE_MISSING_HUGETLBFS: u64 = 1 << 4;
/// Feature: missing pages of shared memory.
pub const UFFD_FEATURE_MISSING_SHMEM: u64 = 1 << 5;
/// Feature: munmap(2), and whatever unmaps, is reported.
pub const UFFD_FEATURE_EVENT_UNMAP: u64 = 1 << 6;
/// Feature: faults raise SIGBUS and are not reported.
pub const UFFD_FEATURE_SIGBUS: u64 = 1 << 7;
/// Feature: faults name their thread.
pub const UFFD_FEATURE_THREAD_ID: u64 = 1 << 8;
/// Feature: minor faults of hugetlbfs.
pub const UFFD_FEATURE_MINOR_HUGETLBFS: u64 = 1 << 9;
/// Feature: minor faults of shared memory.
pub const UFFD_FEATURE_MINOR_SHMEM: u64 = 1 << 10;
/// Feature: faults give the address to the byte.
pub const UFFD_FEATURE_EXACT_ADDRESS: u64 = 1 << 11;
/// Feature: write protection of hugetlbfs and shared memory.
pub const UFFD_FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
/// Feature: write protection of pages that are not there yet.
pub const UFFD_FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
/// Feature: pages can be made to raise SIGBUS.
pub const UFFD_FEATURE_POISON: u64 = 1 << 14;
/// Feature: the kernel resolves write-protection faults itself, and every kind of mapping can be registered.
pub const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
/// Feature: pages can be moved.
pub const UFFD_FEATURE_MOVE: u64 = 1 << 16;

/// All features up to Linux 6.18 by name, in the order of their bits.
pub const UFFD_FEATURES: [(&str, u64); 17] = [
    ("PAGEFAULT_FLAG_WP", UFFD_FEATURE_PAGEFAULT_FLAG_WP),
    ("EVENT_FORK", UFFD_FEATURE_EVENT_FORK),
    ("EVENT_REMAP", UFFD_FEATURE_EVENT_REMAP),
    ("EVENT_REMOVE", UFFD_FEATURE_EVENT_REMOVE),
    ("MISSING_HUGETLBFS", UFFD_FEATURE_MISSING_HUGETLBFS),
    ("MISSING_SHMEM", UFFD_FEATURE_MISSING_SHMEM),
    ("EVENT_UNMAP", UFFD_FEATURE_EVENT_UNMAP),
    ("SIGBUS", UFFD_FEATURE_SIGBUS),
    ("THREAD_ID", UFFD_FEATURE_THREAD_ID),
    ("MINOR_HUGETLBFS", UFFD_FEATURE_MINOR_HUGETLBFS),
    ("MINOR_SHMEM", UFFD_FEATURE_MINOR_SHMEM),
    ("EXACT_ADDRESS", UFFD_FEATURE_EXACT_ADDRESS),
    ("WP_HUGETLBFS_SHMEM", UFFD_FEATURE_WP_HUGETLBFS_SHMEM),
    ("WP_UNPOPULATED", UFFD_FEATURE_WP_UNPOPULATED),
    ("POISON", UFFD_FEATURE_POISON),
    ("WP_ASYNC", UFFD_FEATURE_WP_ASYNC),
    ("MOVE", UFFD_FEATURE_MOVE),
];

/// What [`UFFDIO_API`] is asked and answers.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct UffdioApi {
    /// [`UFFD_API`].
    pub api: u64,
    /// Asked: the features that are wanted. Answered: all that this kernel offers to this caller.
    pub features: u64,
    /// Answered: the requests that the descriptor takes, one bit each.
    pub ioctls: u64,
}

const _: () = assert!(size_of::<UffdioApi>() == 24);
const _: () = assert!(offset_of!(UffdioApi, api) == 0);
const _: () = assert!(offset_of!(UffdioApi, features) == 8);
const _: () = assert!(offset_of!(UffdioApi, ioctls) == 16);

/// A range of bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct UffdioRange {
    /// The first address.
    pub start: u64,
    /// The length.
    pub len: u64,
}

const _: () = assert!(size_of::<UffdioRange>() == 16);
const _: () = assert!(offset_of!(UffdioRange, start) == 0);
const _: () = assert!(offset_of!(UffdioRange, len) == 8);

/// What [`UFFDIO_REGISTER`] is asked and answers.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct UffdioRegister {
    /// What is to be registered.
    pub range: UffdioRange,
    /// Which faults are to be reported.
    pub mode: u64,
    /// Answered: the requests that the range can take, one bit each.
    pub ioctls: u64,
}

const _: () = assert!(size_of::<UffdioRegister>() == 32);
const _: () = assert!(offset_of!(UffdioRegister, range) == 0);
const _: () = assert!(offset_of!(UffdioRegister, mode) == 16);
const _: () = assert!(offset_of!(UffdioRegister, ioctls) == 24);

/// What [`UFFDIO_WRITEPROTECT`] is asked.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct UffdioWriteprotect {
    /// Which pages.
    pub range: UffdioRange,
    /// Set or clear.
    pub mode: u64,
}

const _: () = assert!(size_of::<UffdioWriteprotect>() == 24);
const _: () = assert!(offset_of!(UffdioWriteprotect, range) == 0);
const _: () = assert!(offset_of!(UffdioWriteprotect, mode) == 16);

/// An open userfaultfd that never blocks. It reports the memory of the process that opened it, for ever: in a forked
/// child it still stands for the parent.
///
/// ```no_run
/// use pagemirror_linux::abi::{UFFD_FEATURE_EVENT_UNMAP, UFFD_FEATURE_WP_ASYNC, Uffd};
/// let source = Uffd::open(true)?;
/// source.handshake(UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_WP_ASYNC)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Uffd {
    fd: OwnedFd,
}

impl Uffd {
    /// Opens a descriptor. With `user_mode_only` no privilege is needed, and page faults inside the kernel are not
    /// reported; a source that only listens loses nothing by it.
    ///
    /// # Errors
    /// EPERM when neither the system call nor `/dev/userfaultfd` allows it (`vm.unprivileged_userfaultfd`, a seccomp
    /// filter), ENOSYS when the kernel was built without it, EMFILE when the process has no descriptor left.
    pub fn open(user_mode_only: bool) -> io::Result<Self> {
        let mode = if user_mode_only { UFFD_USER_MODE_ONLY } else { 0 };
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | mode;
        match Self::open_by_call(flags) {
            // The refusal of the system call is the one that the reader can act on, so it stays the answer. A seccomp filter may
            // say that there is no such call, and the device makes the same descriptors.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS)) => {
                Self::open_by_device(flags).map_err(|_| error)
            }
            opened => opened,
        }
    }

    fn open_by_call(flags: i32) -> io::Result<Self> {
        if let Some(errno) = hidden_by() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        // SAFETY: the call takes one integer and touches no memory of ours.
        let answer = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        adopt(answer).map(|fd| Self { fd })
    }

    /// Opens a descriptor by the device file, whose mode says who may.
    fn open_by_device(flags: i32) -> io::Result<Self> {
        if let Some(errno) = hidden_by() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let device = rustix::fs::open(c"/dev/userfaultfd", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        // SAFETY: the request takes its flags by value and touches no memory of ours.
        let answer = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW as libc::Ioctl, flags) };
        adopt(answer.into()).map(|fd| Self { fd })
    }

    /// The features that this kernel offers, asked of a descriptor that is thrown away.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn query_features() -> io::Result<u64> {
        Self::open(true)?.handshake(0)
    }

    /// Asks for `features`, once in the life of a descriptor and before anything else. Returns all that this kernel
    /// offers, whatever was asked for.
    ///
    /// # Errors
    /// EINVAL for a feature that this kernel lacks and for a second handshake, EPERM for `EVENT_FORK` without
    /// privilege, `Unsupported` when the descriptor cannot register ranges.
    pub fn handshake(&self, features: u64) -> io::Result<u64> {
        if features & hidden_features() != 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut api = UffdioApi { api: UFFD_API, features, ioctls: 0 };
        // SAFETY: the request takes a `UffdioApi`, which points to nothing.
        unsafe { ioctl(self.fd.as_fd(), UFFDIO_API, &mut api) }?;
        if api.ioctls & UFFD_API_IOCTLS != UFFD_API_IOCTLS {
            return Err(ErrorKind::Unsupported.into());
        }
        Ok(api.features & !hidden_features())
    }

    /// Registers `len` bytes at `start` for write protection, so that changes of them are reported. Protects nothing.
    /// Both are multiples of the page size of what is mapped there. Returns the requests that the range can take, as
    /// bits; see [`range_ioctl`].
    ///
    /// # Errors
    /// EBUSY when another descriptor has a part of it, EINVAL when a part is not mapped or of a kind that cannot be
    /// registered, EPERM when it is a shared mapping of a file opened read-only.
    ///
    /// # Blocking
    /// Waits for the address space's lock, so until running discards of the process are over; not for reports.
    pub fn register_wp(&self, start: u64, len: u64) -> io::Result<u64> {
        if super::hidden::refuses_shared(start, len) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let range = UffdioRange { start, len };
        let mut register = UffdioRegister { range, mode: UFFDIO_REGISTER_MODE_WP, ioctls: 0 };
        // SAFETY: the request takes a `UffdioRegister`, which points to nothing.
        unsafe { ioctl(self.fd.as_fd(), UFFDIO_REGISTER, &mut register) }?;
        Ok(register.ioctls)
    }

    /// Ends the registration of `len` bytes at `start`. Changes of them are not reported from now on.
    ///
    /// # Errors
    /// EINVAL when a part is not mapped, or was registered by another descriptor.
    ///
    /// # Blocking
    /// As [`register_wp`](Self::register_wp).
    pub fn unregister(&self, start: u64, len: u64) -> io::Result<()> {
        let mut range = UffdioRange { start, len };
        // SAFETY: the request takes a `UffdioRange`, which points to nothing.
        unsafe { ioctl(self.fd.as_fd(), UFFDIO_UNREGISTER, &mut range) }.map(drop)
    }

    /// Sets ([`UFFDIO_WRITEPROTECT_MODE_WP`]) or clears (0) write protection of `len` bytes at `start`. Clearing it on
    /// a page that was never protected changes nothing: that is the probe. Never allocates.
    ///
    /// # Errors
    /// EAGAIN while a change of memory that this descriptor has registered is under way and not read, or its caller did
    /// not run since; ENOENT when the range is not registered here; ESRCH when the address space is gone.
    ///
    /// # Blocking
    /// Waits for the address space's lock.
    pub fn write_protect(&self, start: u64, len: u64, mode: u64) -> io::Result<()> {
        let mut protect = UffdioWriteprotect { range: UffdioRange { start, len }, mode };
        // SAFETY: the request takes a `UffdioWriteprotect`, which points to nothing.
        unsafe { ioctl(self.fd.as_fd(), UFFDIO_WRITEPROTECT, &mut protect) }.map(drop)
    }

    /// The number of the descriptor, which stays this one's.
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Reads as many messages as there are and as fit, by one system call. Returns their count, at least one. **Reading
    /// releases the callers that they are about.** Never allocates.
    ///
    /// # Errors
    /// EAGAIN when there is none, EINVAL when `messages` is empty, `InvalidData` when the kernel gave a part of a
    /// message. EMFILE when a fork is reported and the process has no descriptor left for it.
    pub fn read_messages(&self, messages: &mut [RawMessage]) -> io::Result<usize> {
        let bytes = rustix::io::read(&self.fd, messages.as_flattened_mut())?;
        if bytes % MESSAGE_LEN != 0 {
            // No text: an error with one would be allocated, and the pump must not.
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(bytes / MESSAGE_LEN)
    }
}

/// What opening answers while a test hides userfaultfd itself.
fn hidden_by() -> Option<i32> {
    let answers = [(Feature::Userfaultfd, libc::ENOSYS), (Feature::Permission, libc::EPERM)];
    answers.into_iter().find(|(feature, _)| is_hidden(*feature)).map(|(_, errno)| errno)
}

/// The features that a test hides.
fn hidden_features() -> u64 {
    let all = [
        (Feature::WpAsync, UFFD_FEATURE_WP_ASYNC),
        (Feature::WpUnpopulated, UFFD_FEATURE_WP_UNPOPULATED),
        (Feature::WpShared, UFFD_FEATURE_WP_HUGETLBFS_SHMEM),
        (Feature::Move, UFFD_FEATURE_MOVE),
    ];
    all.into_iter().filter(|(feature, _)| is_hidden(*feature)).fold(0, |all, (_, bit)| all | bit)
}

/// Takes ownership of the descriptor that a call returned.
fn adopt(answer: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(answer) {
        // SAFETY: the call has just made this descriptor for us; nobody else knows its number.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
