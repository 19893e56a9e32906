//! The kernel's interfaces, each by a call to it.

use std::fs;
use std::io;

use io_uring::IoUring;
use pagemirror::FixedBuffers;
use pagemirror::linux::abi::{self, UFFD_FEATURES, UFFD_USER_MODE_ONLY, USERFAULTFD_IOC_NEW, Uffd};
use pagemirror::linux::maps::Maps;
use pagemirror::linux::pagemap::Pagemap;
use pagemirror::{PageRange, VirtAddr};
use rustix::fs::{Mode, OFlags, SealFlags};

use super::coverage::scratch::{call, map, page};
use super::survey::Check;

pub(super) fn ask(checks: &mut Vec<Check>) {
    checks.push(userfaultfd_call());
    checks.push(userfaultfd_device());
    checks.push(seccomp());
    features(checks);
    checks.push(procmap_query());
    checks.push(pagemap_scan());
    checks.push(seal());
    checks.push(file_seals());
    checks.push(io_uring());
}

/// The content of a small file of the kernel's, or why there is none.
pub(super) fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|error| format!("unknown ({error})"), |text| text.trim().to_owned())
}

fn close(fd: usize) {
    // What was opened a moment ago is closed; no answer to that is of use.
    let _ = call(libc::SYS_close, [fd, 0, 0, 0, 0, 0]);
}

fn userfaultfd_call() -> Check {
    let (name, question) = ("userfaultfd-call", "userfaultfd, by system call");
    let open = |mode: i32| {
        let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK | mode) as usize;
        call(libc::SYS_userfaultfd, [flags, 0, 0, 0, 0, 0]).map(close)
    };
    let setting = read("/proc/sys/vm/unprivileged_userfaultfd");
    match (open(0), open(UFFD_USER_MODE_ONLY)) {
        (Ok(()), _) => Check::fine(name, question, "permitted, with faults of the kernel"),
        (Err(_), Ok(())) => {
            let answer = format!("permitted for user mode only (vm.unprivileged_userfaultfd is {setting})");
            // Notification needs no more; moving pages to a device on a fault in the kernel would.
            Check::fine(name, question, answer)
        }
        (Err(_), Err(error)) => Check::lacks(name, question, format!("refused: {error}"), advice_on_refusal(&error)),
    }
}

fn advice_on_refusal(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel was built without CONFIG_USERFAULTFD, or a seccomp filter answers so",
        Some(libc::EMFILE | libc::ENFILE) => "no descriptor is left: raise ulimit -n",
        _ => {
            "allow userfaultfd in the container's seccomp profile, or give the process read and write access to \
             /dev/userfaultfd"
        }
    }
}

fn userfaultfd_device() -> Check {
    let (name, question) = ("userfaultfd-device", "userfaultfd, by /dev/userfaultfd");
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let opened = rustix::fs::open(c"/dev/userfaultfd", flags, Mode::empty()).map_err(io::Error::from);
    let made = opened.and_then(|device| {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&device) as usize;
        let wanted = (libc::O_CLOEXEC | libc::O_NONBLOCK) as usize;
        call(libc::SYS_ioctl, [fd, USERFAULTFD_IOC_NEW as usize, wanted, 0, 0, 0]).map(close)
    });
    // One of the two ways is enough, and which of them is missing matters only when both are.
    Check::fact(name, question, made.map_or_else(|error| format!("no: {error}"), |()| "permitted".into()))
}

fn seccomp() -> Check {
    let status = read("/proc/self/status");
    let field = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim);
    let answer = match field {
        Some("0") => "no filter",
        Some("2") => "a filter is in place; what it refuses is seen in the answers here",
        Some("1") => "strict mode",
        _ => "unknown",
    };
    Check::fact("seccomp", "seccomp", answer)
}

/// The features that something here uses or would use, with what is lost without them.
const FEATURES: [(u64, &str, &str); 5] = [
    (abi::UFFD_FEATURE_EVENT_UNMAP, "userfaultfd: UNMAP, REMAP, REMOVE events", "Linux 5.7 has them"),
    (
        abi::UFFD_FEATURE_WP_ASYNC,
        "userfaultfd: WP_ASYNC",
        "without it only anonymous memory can be watched; Linux 6.7 has it",
    ),
    (abi::UFFD_FEATURE_WP_UNPOPULATED, "userfaultfd: WP_UNPOPULATED", "Linux 6.4 has it"),
    (
        abi::UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
        "userfaultfd: WP_HUGETLBFS_SHMEM",
        "without it shared and huge pages cannot be watched; Linux 5.19 has it",
    ),
    (abi::UFFD_FEATURE_MOVE, "userfaultfd: MOVE", "only moving pages to a device wants it; Linux 6.8 has it"),
];

fn features(checks: &mut Vec<Check>) {
    let Ok(offered) = Uffd::open(true).and_then(|uffd| uffd.handshake(0)) else { return };
    for (feature, question, advice) in FEATURES {
        let name = UFFD_FEATURES.iter().find(|(_, bit)| *bit == feature).map_or("feature", |(name, _)| name);
        let needed = [abi::UFFD_FEATURE_EVENT_UNMAP, abi::UFFD_FEATURE_EVENT_REMAP, abi::UFFD_FEATURE_EVENT_REMOVE];
        let is_event = feature == abi::UFFD_FEATURE_EVENT_UNMAP;
        let has = if is_event { needed.iter().all(|bit| offered & bit != 0) } else { offered & feature != 0 };
        checks.push(match (has, is_event) {
            (true, _) => Check::fine(name, question, "yes"),
            (false, true) => Check::missing(name, question, "no", advice),
            (false, false) => Check::lacks(name, question, "no", advice),
        });
    }
}

fn procmap_query() -> Check {
    let (name, question) = ("PROCMAP_QUERY", "PROCMAP_QUERY of /proc/self/maps");
    let advice = "checks read the text form, which is slow, and a discard through one mapping of a file is found in the \
        others only if both are watched; Linux 6.11 has it";
    match Maps::open() {
        Ok(maps) if maps.can_query_without_allocating() => Check::fine(name, question, "yes"),
        Ok(_) => Check::lacks(name, question, "no", advice),
        Err(error) => Check::lacks(name, question, format!("no: {error}"), "mount /proc"),
    }
}

fn pagemap_scan() -> Check {
    let (name, question) = ("PAGEMAP_SCAN", "PAGEMAP_SCAN of /proc/self/pagemap");
    let here = 0_u8;
    let range = PageRange::covering(VirtAddr::of(&raw const here), 1, page() as u64);
    let scanned = Pagemap::open().and_then(|pagemap| pagemap.present_pages(range.map_err(io::Error::other)?));
    match scanned {
        Ok(1) => Check::fine(name, question, "yes"),
        Ok(other) => Check::lacks(name, question, format!("says {other} of one page of the stack"), "report this"),
        Err(error) => {
            Check::lacks(name, question, format!("no: {error}"), "guard pages cannot be checked; Linux 6.7 has it")
        }
    }
}

/// `mseal`, of a page of our own that stays for as long as the process.
fn seal() -> Check {
    const SYS_MSEAL: libc::c_long = 462;
    let (name, question) = ("mseal", "mseal");
    let sealed = map(0, page(), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
        .and_then(|at| call(SYS_MSEAL, [at, page(), 0, 0, 0, 0]));
    let advice = "an arena can be unmapped, moved and protected by mistake; Linux 6.10 has it on 64-bit machines";
    match sealed {
        Ok(_) => Check::fine(name, question, "yes"),
        Err(error) => Check::lacks(name, question, format!("no: {error}"), advice),
    }
}

fn file_seals() -> Check {
    let (name, question) = ("file-seals", "memfd seals SHRINK, GROW, FUTURE_WRITE");
    let sealed =
        rustix::fs::memfd_create(c"pagemirror-doctor", rustix::fs::MemfdFlags::ALLOW_SEALING).and_then(|file| {
            rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE)
        });
    match sealed {
        Ok(()) => Check::fine(name, question, "yes"),
        Err(error) => Check::lacks(name, question, format!("no: {error}"), "no arena can be made; Linux 5.1 has them"),
    }
}

fn io_uring() -> Check {
    let (name, question) = ("io_uring", "io_uring with a table of fixed buffers");
    let made = IoUring::new(2)
        .map_err(|error| {
            format!("{error} (kernel.io_uring_disabled is {})", read("/proc/sys/kernel/io_uring_disabled"))
        })
        .and_then(|ring| FixedBuffers::new(&ring, 1).map(drop).map_err(|error| error.to_string()));
    let advice =
        "FixedBuffers and CoherentRing cannot be used; other devices can. Container runtimes forbid it by default";
    match made {
        Ok(()) => Check::fine(name, question, "yes"),
        Err(error) => Check::lacks(name, question, error, advice),
    }
}
