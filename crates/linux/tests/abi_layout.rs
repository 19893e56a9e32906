//! Whether the kernel that runs, and the C compiler where there is one, agree with the numbers and layouts in `abi`.
#![expect(unsafe_code, reason = "makes the calls that are reported, and asks with structures of its own")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "abi_layout/headers.rs"]
mod headers;

use std::fs;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use pagemirror_linux::abi::{self, Message, Uffd};
use pagemirror_linux::mapping::Mapping;

const PATIENCE: Duration = Duration::from_secs(20);
const NAP: Duration = Duration::from_micros(200);
const PAGES: u64 = 16;
/// What notification asks of a descriptor.
const NOTIFY: u64 = abi::UFFD_FEATURE_EVENT_UNMAP
    | abi::UFFD_FEATURE_EVENT_REMAP
    | abi::UFFD_FEATURE_EVENT_REMOVE
    | abi::UFFD_FEATURE_PAGEFAULT_FLAG_WP
    | abi::UFFD_FEATURE_WP_ASYNC
    | abi::UFFD_FEATURE_WP_UNPOPULATED;

fn page() -> u64 {
    rustix::param::page_size() as u64
}

/// Says that a test did not run, and why. Not by `println`, which the test harness keeps to itself.
fn skipped(test: &str, why: impl std::fmt::Display) {
    let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("SKIPPED: {test}: {why}\n"));
}

/// A descriptor with these features, or nothing and the reason said when this machine has none.
fn open_with(test: &str, features: u64) -> Option<Uffd> {
    let opened = Uffd::open(true).and_then(|uffd| uffd.handshake(features).map(|_| uffd));
    opened.map_err(|error| skipped(test, format!("no userfaultfd with features {features:#x}: {error}"))).ok()
}

/// Asks with a structure of the test's own, and gives the answer or the error.
fn ask<T>(fd: RawFd, request: u32, argument: &mut T) -> io::Result<i32> {
    // SAFETY: each request in this file goes with the structure that its number was made of, and what they point to is
    // borrowed for longer than the call.
    let answer = unsafe { libc::ioctl(fd, request as libc::Ioctl, ptr::from_mut(argument)) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn errno<T: std::fmt::Debug>(answer: io::Result<T>) -> i32 {
    answer.unwrap_err().raw_os_error().unwrap()
}

/// Memory that is left mapped, since a test's thread may do anything to it.
fn pages(count: u64) -> u64 {
    let mapping = Mapping::new((count * page()) as usize).unwrap();
    let start = mapping.start();
    std::mem::forget(mapping);
    start
}

/// Waits for the next messages and reads them all at once.
fn read(uffd: &Uffd) -> Vec<Message> {
    let mut messages = [[0; 32]; 8];
    let deadline = Instant::now() + PATIENCE;
    loop {
        match uffd.read_messages(&mut messages) {
            Ok(count) => return messages[..count].iter().map(Message::decode).collect(),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        assert!(Instant::now() < deadline, "nothing was reported");
        thread::sleep(NAP);
    }
}

/// Runs `change`, which blocks until it is read, and gives what was reported.
fn reported(uffd: &Uffd, change: impl FnOnce() + Send) -> Vec<Message> {
    thread::scope(|scope| {
        let caller = scope.spawn(change);
        let mut all = read(uffd);
        while !caller.is_finished() {
            let mut messages = [[0; 32]; 8];
            let count = uffd.read_messages(&mut messages).unwrap_or(0);
            all.extend(messages[..count].iter().map(Message::decode));
            thread::sleep(NAP);
        }
        all
    })
}

fn unmap(start: u64, len: u64) {
    // SAFETY: the memory belongs to the calling test, which does not look at it any more.
    assert_eq!(unsafe { libc::munmap(ptr::with_exposed_provenance_mut(start as usize), len as usize) }, 0);
}

#[test]
fn the_handshake_names_its_requests_and_features() {
    let Ok(uffd) = Uffd::open(true) else { return skipped("handshake", "no userfaultfd") };
    let mut api = abi::UffdioApi { api: abi::UFFD_API, features: 0, ioctls: 0 };
    ask(uffd.raw_fd(), abi::UFFDIO_API, &mut api).unwrap();
    assert_eq!(api.ioctls, abi::UFFD_API_IOCTLS);
    assert_eq!(api.features, Uffd::query_features().unwrap());
    let known = abi::UFFD_FEATURES.iter().fold(0, |all, (_, bit)| all | bit);
    let lacking = abi::UFFD_FEATURES.iter().filter(|(_, bit)| api.features & bit == 0);
    println!("features {:#x}, unknown to us {:#x}", api.features, api.features & !known);
    println!("known to us and not offered: {:?}", lacking.map(|(name, _)| name).collect::<Vec<_>>());
    assert_eq!(errno(uffd.handshake(0)), libc::EINVAL, "a second handshake is refused");
    assert_eq!(errno(Uffd::open(true).unwrap().handshake(1 << 63)), libc::EINVAL);
}

#[test]
fn a_descriptor_does_not_block_and_does_not_survive_exec() {
    let Some(uffd) = open_with("descriptor", 0) else { return };
    assert!(rustix::fs::fcntl_getfl(&uffd).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
    assert!(rustix::io::fcntl_getfd(&uffd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    let mut messages = [[0; 32]; 2];
    assert_eq!(errno(uffd.read_messages(&mut messages)), libc::EAGAIN);
    assert_eq!(errno(uffd.read_messages(&mut [])), libc::EINVAL);
}

#[test]
fn a_device_opens_what_the_system_call_does() {
    let device = match fs::OpenOptions::new().read(true).write(true).open("/dev/userfaultfd") {
        Ok(device) => device,
        Err(error) => return skipped("/dev/userfaultfd", error),
    };
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the request takes its flags by value.
    let made = unsafe { libc::ioctl(device.as_raw_fd(), abi::USERFAULTFD_IOC_NEW as libc::Ioctl, flags) };
    assert!(made >= 0, "{}", io::Error::last_os_error());
    let mut api = abi::UffdioApi { api: abi::UFFD_API, features: 0, ioctls: 0 };
    ask(made, abi::UFFDIO_API, &mut api).unwrap();
    assert_eq!(api.ioctls, abi::UFFD_API_IOCTLS);
    // SAFETY: the descriptor was made above and is used by nobody else.
    unsafe { libc::close(made) };
}

#[test]
fn registering_tells_what_the_range_can_take() {
    /// Resolving minor faults, which was not registered for.
    const CONTINUE: u64 = 1 << 0x07;
    let Some(uffd) = open_with("registering", NOTIFY) else { return };
    let start = pages(PAGES);
    let ioctls = uffd.register_wp(start, PAGES * page()).unwrap();
    let expected = abi::range_ioctl::WRITEPROTECT | abi::range_ioctl::COPY | abi::range_ioctl::WAKE;
    assert_eq!(ioctls & (expected | CONTINUE), expected, "{ioctls:#x}");
    uffd.register_wp(start, PAGES * page()).unwrap();

    let other = open_with("registering", NOTIFY).unwrap();
    assert_eq!(errno(other.register_wp(start, page())), libc::EBUSY);
    uffd.unregister(start, PAGES * page()).unwrap();
    other.register_wp(start, page()).unwrap();
    assert_eq!(errno(other.register_wp(start + 1, page())), libc::EINVAL);
    other.unregister(start, page()).unwrap();
    unmap(start, PAGES * page());
    assert!(other.register_wp(0x1000, page()).is_err(), "nothing is mapped there");
}

#[test]
fn an_unmapped_range_is_reported_to_the_byte() {
    let Some(uffd) = open_with("UNMAP", NOTIFY) else { return };
    let start = pages(PAGES);
    uffd.register_wp(start, PAGES * page()).unwrap();
    let (first, len) = (start + 3 * page(), 5 * page());
    let messages = reported(&uffd, || unmap(first, len));
    assert_eq!(messages, [Message::Unmap { start: first, end: first + len }]);
}

#[test]
fn a_discarded_range_is_reported_to_the_byte() {
    let Some(uffd) = open_with("REMOVE", NOTIFY) else { return };
    let start = pages(PAGES);
    uffd.register_wp(start, PAGES * page()).unwrap();
    let (first, len) = (start + 2 * page(), 7 * page());
    let messages = reported(&uffd, || {
        let at = ptr::with_exposed_provenance_mut(first as usize);
        // SAFETY: the memory belongs to this test and holds nothing.
        assert_eq!(unsafe { libc::madvise(at, len as usize, libc::MADV_DONTNEED) }, 0);
    });
    assert_eq!(messages, [Message::Remove { start: first, end: first + len }]);
}

#[test]
fn a_moved_range_is_reported_to_the_byte() {
    let Some(uffd) = open_with("REMAP", NOTIFY) else { return };
    let (from, to, len) = (pages(PAGES), pages(PAGES), PAGES * page());
    uffd.register_wp(from, len).unwrap();
    let messages = reported(&uffd, || {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let [old, new] = [from, to].map(|address| ptr::with_exposed_provenance_mut::<libc::c_void>(address as usize));
        // SAFETY: both places are this test's, and hold nothing.
        assert_eq!(unsafe { libc::mremap(old, len as usize, len as usize, flags, new) }, new);
    });
    assert_eq!(messages[0], Message::Remap { from, to, len });
    // The old place is told to be unmapped as well.
    assert_eq!(messages[1..], [Message::Unmap { start: from, end: from + len }]);
}

#[test]
fn a_fork_is_reported_with_a_descriptor_that_is_open() {
    let Some(uffd) = open_with("FORK", abi::UFFD_FEATURE_EVENT_FORK) else { return };
    let start = pages(1);
    let mut register = abi::UffdioRegister {
        range: abi::UffdioRange { start, len: page() },
        mode: abi::UFFDIO_REGISTER_MODE_MISSING,
        ioctls: 0,
    };
    ask(uffd.raw_fd(), abi::UFFDIO_REGISTER, &mut register).unwrap();
    let messages = reported(&uffd, || {
        // SAFETY: the child only ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: the status is not asked for.
        assert_eq!(unsafe { libc::waitpid(child, ptr::null_mut(), 0) }, child);
    });
    for message in messages {
        // Other tests fork beside this one, and each fork is told.
        let Message::Fork { fd } = message else { panic!("{message:?}") };
        // SAFETY: reading the message has made the descriptor ours.
        assert_eq!(unsafe { libc::close(fd) }, 0);
    }
}

#[test]
fn a_page_fault_is_reported_with_its_address() {
    let Some(uffd) = open_with("PAGEFAULT", 0) else { return };
    let start = pages(PAGES);
    let range = abi::UffdioRange { start, len: PAGES * page() };
    let mut register = abi::UffdioRegister { range, mode: abi::UFFDIO_REGISTER_MODE_MISSING, ioctls: 0 };
    ask(uffd.raw_fd(), abi::UFFDIO_REGISTER, &mut register).unwrap();
    thread::scope(|scope| {
        let touched = start + 4 * page();
        // SAFETY: the page is mapped and this test's own.
        scope.spawn(move || unsafe { ptr::with_exposed_provenance_mut::<u8>(touched as usize).write_volatile(1) });
        const WRITE: u64 = 1;
        assert_eq!(read(&uffd), [Message::Pagefault { address: touched, flags: WRITE }]);
        uffd.unregister(start, PAGES * page()).unwrap();
    });
}

#[test]
fn asking_to_unprotect_tells_whether_something_changes() {
    let Some(uffd) = open_with("the probe", NOTIFY) else { return };
    let (quiet, changing) = (pages(1), pages(PAGES));
    uffd.register_wp(quiet, page()).unwrap();
    uffd.register_wp(changing, PAGES * page()).unwrap();
    let probe = || uffd.write_protect(quiet, page(), 0);
    probe().unwrap();
    thread::scope(|scope| {
        let caller = scope.spawn(|| unmap(changing, PAGES * page()));
        let deadline = Instant::now() + PATIENCE;
        while probe().is_ok() {
            assert!(Instant::now() < deadline, "a change that is not read was not told");
        }
        assert_eq!(errno(probe()), libc::EAGAIN);
        assert_eq!(read(&uffd), [Message::Unmap { start: changing, end: changing + PAGES * page() }]);
        caller.join().unwrap();
    });
    probe().unwrap();
    assert_eq!(errno(uffd.write_protect(pages(1), page(), 0)), libc::ENOENT, "not registered here");
    uffd.write_protect(quiet, page(), abi::UFFDIO_WRITEPROTECT_MODE_WP).unwrap();
    probe().unwrap();
}

#[test]
fn a_mapping_is_described_field_by_field() {
    let maps = fs::File::open("/proc/self/maps").unwrap();
    let file = rustix::fs::memfd_create(c"abi", rustix::fs::MemfdFlags::CLOEXEC).map(fs::File::from).unwrap();
    file.set_len(PAGES * page()).unwrap();
    let (offset, len) = (3 * page(), 4 * page());
    // SAFETY: the kernel chooses the place, so nothing that exists is replaced.
    let at = unsafe {
        libc::mmap(ptr::null_mut(), len as usize, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), offset as i64)
    };
    assert_ne!(at, libc::MAP_FAILED);
    let start = at.expose_provenance() as u64;
    let size = size_of::<abi::ProcmapQuery>() as u64;
    let mut query = abi::ProcmapQuery { size, query_addr: start + page(), ..Default::default() };
    match ask(maps.as_raw_fd(), abi::PROCMAP_QUERY, &mut query) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
            return skipped("PROCMAP_QUERY", "before Linux 6.11");
        }
        answer => assert_eq!(answer.unwrap(), 0),
    }
    let metadata = file.metadata().unwrap();
    assert_eq!((query.vma_start, query.vma_end, query.vma_offset), (start, start + len, offset));
    assert_eq!(query.vma_flags, abi::PROCMAP_QUERY_VMA_READABLE | abi::PROCMAP_QUERY_VMA_SHARED);
    assert_eq!((query.inode, query.vma_page_size), (metadata.ino(), page()));
    let device = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    assert_eq!((query.dev_major, query.dev_minor), device);

    unmap(start, len);
    query.query_addr = 0;
    assert_eq!(errno(ask(maps.as_raw_fd(), abi::PROCMAP_QUERY, &mut query)), libc::ENOENT);
    query.query_flags = abi::PROCMAP_QUERY_COVERING_OR_NEXT;
    ask(maps.as_raw_fd(), abi::PROCMAP_QUERY, &mut query).unwrap();
    assert!(query.vma_start > 0);
}

#[test]
fn present_pages_are_told_as_regions() {
    let pagemap = fs::File::open("/proc/self/pagemap").unwrap();
    let start = pages(PAGES);
    let at = |index: u64| ptr::with_exposed_provenance_mut::<u8>((start + index * page()) as usize);
    // SAFETY: this advice changes no content.
    unsafe { libc::madvise(at(0).cast(), (PAGES * page()) as usize, libc::MADV_NOHUGEPAGE) };
    for index in [2, 3, 4, 9] {
        // SAFETY: the page is mapped and this test's own.
        unsafe { at(index).write_volatile(1) };
    }
    let mut regions = [abi::PageRegion::default(); 4];
    let mut scan = abi::PmScanArg {
        size: size_of::<abi::PmScanArg>() as u64,
        start,
        end: start + PAGES * page(),
        vec: regions.as_mut_ptr().expose_provenance() as u64,
        vec_len: regions.len() as u64,
        category_mask: abi::PAGE_IS_PRESENT,
        return_mask: abi::PAGE_IS_PRESENT,
        ..Default::default()
    };
    match ask(pagemap.as_raw_fd(), abi::PAGEMAP_SCAN, &mut scan) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => return skipped("PAGEMAP_SCAN", "before Linux 6.7"),
        answer => assert_eq!(answer.unwrap(), 2),
    }
    let region = |first, last| abi::PageRegion {
        start: start + first * page(),
        end: start + last * page(),
        categories: abi::PAGE_IS_PRESENT,
    };
    assert_eq!(regions[..2], [region(2, 5), region(9, 10)]);
    assert_eq!(scan.walk_end, start + PAGES * page());
    // A walk that runs out of room says where to go on.
    (scan.vec_len, scan.max_pages) = (1, 2);
    assert_eq!(ask(pagemap.as_raw_fd(), abi::PAGEMAP_SCAN, &mut scan).unwrap(), 1);
    assert_eq!((regions[0], scan.walk_end), (region(2, 4), start + 4 * page()));
}
