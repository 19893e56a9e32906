//! The kernel's refusals, in words that say what to do.
//!
//! io_uring answers with bare error numbers, and most of them stand for several causes. What can be found out here is
//! found out; where it cannot, every cause is named, likeliest first.

use std::fs;
use std::io;

use pagemirror_core::addr::PageRange;
use rustix::process::{Resource, getrlimit};

/// The kernel's bound on one fixed buffer (`io_buffer_validate` in `io_uring/rsrc.c`).
pub(crate) const MAX_BUFFER: u64 = 1 << 30;

/// The kernel's bound on a table of fixed buffers (`IORING_MAX_REG_BUFFERS`).
pub(crate) const MAX_SLOTS: u16 = 1 << 14;

const KIB: u64 = 1024;

/// Why `io_uring_setup` failed.
pub(crate) fn setup(error: &io::Error) -> String {
    let advice = match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel was built without io_uring, or a seccomp filter hides it".into(),
        Some(libc::EPERM) => match fs::read_to_string("/proc/sys/kernel/io_uring_disabled").as_deref().map(str::trim) {
            Ok("2") => "io_uring is switched off on this machine: sysctl kernel.io_uring_disabled is 2".into(),
            Ok("1") => {
                "io_uring is for privileged programs only on this machine (sysctl kernel.io_uring_disabled is 1): \
                        run with CAP_SYS_ADMIN or in the group of kernel.io_uring_group"
                    .into()
            }
            _ => "a security policy forbids it; container runtimes do by default: allow io_uring_setup, \
                  io_uring_enter and io_uring_register in the seccomp profile"
                .into(),
        },
        Some(libc::ENOMEM) => format!("the memory of the ring itself is over the limit: {}", locked_memory(None)),
        Some(libc::EMFILE | libc::ENFILE) => "too many open descriptors: raise ulimit -n".into(),
        _ => String::from("no cause that is known here"),
    };
    format!("{error}: {advice}")
}

/// Why the sparse table could not be registered.
pub(crate) fn table(error: &io::Error) -> String {
    let advice = match error.raw_os_error() {
        Some(libc::EBUSY) => {
            "the ring has a table of fixed buffers already, and it can have one only: unregister it \
             (Submitter::unregister_buffers), or give this cache a ring of its own"
        }
        Some(libc::EEXIST) => SINGLE_ISSUER,
        Some(libc::EACCES) => "the ring's restrictions do not allow it: allow IORING_REGISTER_BUFFERS2 and ..._UPDATE",
        Some(libc::EINVAL) => "sparse tables need Linux 5.19",
        Some(libc::ENOMEM) => "there is no memory for a table of this size: ask for fewer slots",
        _ => "no cause that is known here",
    };
    format!("{error}: {advice}")
}

/// Why rings of one thread cannot be served.
pub(crate) const SINGLE_ISSUER: &str = "the ring was made with IORING_SETUP_SINGLE_ISSUER (setup_single_issuer, \
    setup_defer_taskrun), so the kernel refuses registrations from any thread but one, and the cache deregisters from \
    its own: build the ring without these flags";

/// Why a slot could not be filled with `range`.
pub(crate) fn register(error: &io::Error, range: PageRange) -> String {
    let advice = match error.raw_os_error() {
        Some(libc::ENOMEM) => locked_memory(Some(range)),
        Some(libc::EFAULT) => {
            "io_uring pins fixed buffers for writing, whatever they are used for: every page must be \
                               mapped, private or shared memory without a file behind it, and writable (a read-only \
                               mapping, a shared file mapping and a hole are all refused)"
                .into()
        }
        Some(libc::EOPNOTSUPP) => {
            "memory with a file behind it cannot be pinned for long: use anonymous memory, memfd \
                                   or hugetlbfs"
                .into()
        }
        Some(libc::EINVAL | libc::ENXIO) => {
            "the ring has no table of fixed buffers any more: somebody unregistered it".into()
        }
        Some(libc::EEXIST) => SINGLE_ISSUER.into(),
        Some(libc::EACCES) => "the ring's restrictions do not allow IORING_REGISTER_BUFFERS_UPDATE".into(),
        Some(libc::EBADF) => {
            "the ring's descriptor was closed by somebody: look for close_range() in the program".into()
        }
        _ => "no cause that is known here".into(),
    };
    format!("{error}: {advice}")
}

/// Says that one buffer is larger than the kernel takes.
pub(crate) fn too_large(range: PageRange) -> String {
    format!("the kernel takes {} bytes at most as one fixed buffer, and this has {}: split it", MAX_BUFFER, range.len())
}

fn locked_memory(range: Option<PageRange>) -> String {
    let limit = match getrlimit(Resource::Memlock).current {
        Some(bytes) => format!("{} KiB", bytes / KIB),
        None => "unlimited (so the machine itself is out of memory)".into(),
    };
    let need = range.map_or(String::new(), |range| format!("this registration needs {} KiB more, ", range.len() / KIB));
    format!(
        "{need}RLIMIT_MEMLOCK is {limit} for all rings of this user together, and a page of a huge page is charged as the \
         whole one: raise it (ulimit -l, LimitMEMLOCK= of a systemd unit), or create the ring with CAP_IPC_LOCK; \
         registered pages stay charged after munmap, until their slot is cleared"
    )
}
