//! Which kinds of memory can be watched, each tried.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use pagemirror::{PageRange, Source, Userfault, VirtAddr};

use super::coverage::scratch::{attach_segment, call, map, page, reserve};
use super::kernel::read;
use super::survey::Check;

const HUGE: usize = 2 << 20;

/// A mapping that was made, and its length.
type Made = io::Result<(usize, usize)>;

pub(super) fn ask(source: &Userfault, checks: &mut Vec<Check>) {
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let kinds: [(&'static str, &'static str, Made); 6] = [
        ("watch-anonymous", "watched: anonymous memory", map(0, page(), private, -1).map(|at| (at, page()))),
        ("watch-memfd", "watched: memfd, shared anonymous", memfd(0, page())),
        (
            "watch-shm",
            "watched: System V segment",
            reserve(page()).and_then(|at| attach_segment(at, page())).map(|at| (at, page())),
        ),
        ("watch-private-file", "watched: private mapping of a file", file(libc::MAP_PRIVATE)),
        ("watch-shared-read-only", "watched: shared mapping of a read-only file", file(libc::MAP_SHARED)),
        ("watch-hugetlb", "watched: huge pages (hugetlb)", memfd(libc::MFD_HUGETLB, HUGE)),
    ];
    for (name, question, made) in kinds {
        checks.push(try_to_watch(source, name, question, made));
    }
    checks.push(Check::fact("thp", "transparent huge pages", read("/sys/kernel/mm/transparent_hugepage/enabled")));
}

fn try_to_watch(source: &Userfault, name: &'static str, question: &'static str, made: Made) -> Check {
    let watched = made.map_err(|error| format!("not tried, none is to be had: {error}")).and_then(|(at, len)| {
        let range = PageRange::covering(VirtAddr::new(at as u64), len as u64, page() as u64);
        let range = range.map_err(|error| error.to_string())?;
        let standing = source.watch(range).map_err(|error| error.reason)?;
        // What is watched is left mapped; the process ends soon.
        Ok(standing)
    });
    match watched {
        Ok(_) => Check::fine(name, question, "yes"),
        Err(why) if name == "watch-shared-read-only" || why.starts_with("not tried") => {
            Check::fact(name, question, why)
        }
        Err(why) => Check::lacks(name, question, "no", why),
    }
}

fn memfd(flags: u32, len: usize) -> Made {
    let name = c"pagemirror-doctor";
    let fd = call(libc::SYS_memfd_create, [name.as_ptr().addr(), (libc::MFD_CLOEXEC | flags) as usize, 0, 0, 0, 0])?;
    call(libc::SYS_ftruncate, [fd, len, 0, 0, 0, 0])?;
    Ok((map(0, len, libc::MAP_SHARED, fd as i32)?, len))
}

/// A page of this program's own file, as who can only read it maps it.
fn file(flags: i32) -> Made {
    let file = std::fs::File::open("/proc/self/exe")?;
    let fd = BorrowedFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&file)) as usize;
    let at = call(libc::SYS_mmap, [0, page(), libc::PROT_READ as usize, flags as usize, fd, 0])?;
    Ok((at, page()))
}
