//! Kernels, containers and limits that do not give everything: what is left works, what is not is refused in plain words, and
//! nobody is blocked. Features are hidden one by one; `ci/hidden.sh` runs other tests without each of them.
#![expect(unsafe_code, reason = "maps memory, lowers limits, installs filters")]

mod support;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

use pagemirror_core::addr::PageRange;
use pagemirror_core::notify::{Event, Subscriber};
use pagemirror_core::source::{Probe, Source};
use pagemirror_core::wait::Deadline;
use pagemirror_linux::abi::{Feature, hide};
use pagemirror_linux::pagemap::Pagemap;
use pagemirror_linux::{Config, OpenError, Privilege, Userfault};
use pagemirror_sync::{Arc, Mutex};
use support::{Memory, PAGE, in_child, memfd, skipped, source, wait_until};

const MADV_GUARD_INSTALL: i32 = 102;
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `body` without some features, in a process of its own.
fn without(features: &[Feature], test: &str, body: impl FnOnce()) {
    in_child(test, LIMIT, || {
        features.iter().copied().for_each(hide);
        body();
    });
}

/// A private mapping of this program's own file.
fn private_file() -> Memory {
    let file = File::open("/proc/self/exe").unwrap();
    let (read, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
    // SAFETY: a new mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4 * PAGE, read, private, file.as_raw_fd(), 0) };
    assert!(at != libc::MAP_FAILED);
    Memory { start: at as usize, len: 4 * PAGE }
}

/// Changes of private anonymous memory are told: what every kernel since 5.7 does.
fn assert_tells(source: &Userfault) {
    struct Seen(Mutex<bool>, PageRange);
    impl Subscriber for Seen {
        fn invalidate(&self, range: PageRange, event: Event) {
            *self.0.lock() |= event == Event::Unmap && range == self.1;
        }
    }
    let memory = Memory::anonymous(4);
    memory.fill(1);
    let _ = source.watch(memory.range()).unwrap();
    let seen = Arc::new(Seen(Mutex::new(false), memory.part(1, 2).range()));
    let subscription = source.space().subscribe(Arc::clone(&seen) as Arc<dyn Subscriber>);
    memory.part(1, 2).unmap();
    wait_until("the change is told", Duration::from_secs(5), || *seen.0.lock());
    drop(subscription);
    wait_until("the probe is quiet", Duration::from_secs(5), || source.probe() == Probe::Quiet);
    assert_eq!(source.space().gate().lost(), None);
}

#[test]
fn without_asynchronous_write_protection() {
    let test = "without_asynchronous_write_protection";
    without(&[Feature::WpAsync], test, || {
        let Some(source) = source(test) else { return };
        assert!(!source.watches_files());
        let refused = source.watch(private_file().range()).unwrap_err().to_string();
        assert!(refused.contains("Linux 6.7 watches files too"), "{refused}");
        let _ = source.watch(Memory::shared(memfd(4), 4).range()).expect("shared memory needs Linux 5.19 only");
        assert_tells(&source);
    });
}

#[test]
fn without_write_protection_of_anything_shared() {
    let test = "without_write_protection_of_anything_shared";
    without(&[Feature::WpAsync, Feature::WpShared, Feature::WpUnpopulated], test, || {
        let Some(source) = source(test) else { return };
        let refused = source.watch(Memory::shared(memfd(4), 4).range()).unwrap_err().to_string();
        assert!(refused.contains("watches anonymous memory only"), "{refused}");
        assert_tells(&source);
    });
}

#[test]
fn without_anything_newer_than_the_events() {
    let test = "without_anything_newer_than_the_events";
    let newer = [Feature::WpAsync, Feature::WpShared, Feature::WpUnpopulated, Feature::Move];
    without(&[&newer[..], &[Feature::PagemapScan, Feature::ProcmapQuery]].concat(), test, || {
        let Some(source) = source(test) else { return };
        assert_tells(&source);
    });
}

#[test]
fn without_scans_of_the_page_map() {
    let test = "without_scans_of_the_page_map";
    without(&[Feature::PagemapScan], test, || {
        let error = Pagemap::open().unwrap().present_pages(Memory::anonymous(4).range()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
        let Some(source) = source(test) else { return };
        assert_tells(&source);
        // Guard pages cannot be seen: a check says so, unless there are none on this kernel.
        let has_guards = Memory::anonymous(1).try_advise(MADV_GUARD_INSTALL);
        let look = source.look(Memory::anonymous(1).range());
        assert_eq!(look.is_err_and(|why| why.contains("guard pages")), has_guards);
    });
}

/// The kernel cannot be asked what a discarded range shows, so what moved is followed.
#[test]
fn without_queries_of_mappings() {
    let test = "without_queries_of_mappings";
    without(&[Feature::ProcmapQuery], test, || {
        let Some(source) = source(test) else { return };
        assert_tells(&source);
        let fd = memfd(8);
        let (kept, moving) = (Memory::shared(fd, 8), Memory::shared(fd, 8));
        let _ = source.watch(kept.range()).unwrap();
        let _ = source.watch(moving.range()).unwrap();
        let moved = moving.move_to(Memory::anonymous(8).start);
        wait_until("a proof", Duration::from_secs(20), || !source.space().doubt().overlaps(kept.range()));
        // A reader of the other mapping is hit. (The doubt may have been proved over before anybody looks for it.)
        let soon = Deadline::after(Duration::from_secs(20));
        let reading = source.space().read_begin(kept.part(2, 3).range(), None, &soon).unwrap();
        moved.part(2, 3).advise(libc::MADV_REMOVE);
        wait_until("the other mapping to be told", Duration::from_secs(20), || !reading.is_valid());
    });
}

/// The name of a System V segment is read from the text where there are no queries.
#[test]
fn a_system_v_segment_without_queries() {
    without(&[Feature::ProcmapQuery], "a_system_v_segment_without_queries", || {
        // SAFETY: a new segment.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, 4 * PAGE, libc::IPC_CREAT | 0o600) };
        // SAFETY: attached where the kernel likes.
        let at = unsafe { libc::shmat(id, std::ptr::null(), 0) };
        // SAFETY: it goes with this process.
        unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
        assert_ne!(at as isize, -1);
        let maps = pagemirror_linux::maps::Maps::open().unwrap();
        assert!(!maps.can_query_without_allocating());
        assert!(maps.is_system_v(at as u64).unwrap());
        assert!(!maps.is_system_v(Memory::shared(memfd(1), 1).start as u64).unwrap());
        assert!(!maps.is_system_v(Memory::anonymous(1).start as u64).unwrap());
    });
}

#[test]
fn a_kernel_without_userfaultfd() {
    let test = "a_kernel_without_userfaultfd";
    without(&[Feature::Userfaultfd], test, || {
        let error = Userfault::open(Config::default()).unwrap_err();
        assert!(matches!(error, OpenError::Missing(_)) && error.to_string().contains("CONFIG_USERFAULTFD"), "{error}");
    });
}

#[test]
fn a_user_who_may_not() {
    let test = "a_user_who_may_not";
    without(&[Feature::Permission], test, || {
        let error = Userfault::open(Config::default()).unwrap_err();
        assert!(matches!(error, OpenError::Refused(_)) && error.to_string().contains("seccomp"), "{error}");
    });
}

/// Has `call` answered with `errno` for this thread and those that it starts.
fn refuse(call: i64, errno: i32) {
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let mut filter = [
        // The number of the call is the first word of what a filter is shown.
        statement((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0),
        libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf: 1, k: call as u32 },
        statement((libc::BPF_RET | libc::BPF_K) as u16, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement((libc::BPF_RET | libc::BPF_K) as u16, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: makes this thread one that gains no privileges, which is what a filter asks for.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program is alive during the call, which copies it.
    let installed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(installed, 0, "no filter: {}", io::Error::last_os_error());
}

fn become_nobody() {
    // SAFETY: this child process has no more business as root.
    assert_eq!(unsafe { libc::setresgid(65534, 65534, 65534) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setresuid(65534, 65534, 65534) }, 0);
}

fn is_root() -> bool {
    // SAFETY: asks only.
    unsafe { libc::geteuid() == 0 }
}

/// A container's filter refuses the system call; the device is permitted, and makes the same descriptors.
#[test]
fn the_device_where_the_call_is_refused() {
    by_device("the_device_where_the_call_is_refused", libc::EPERM);
}

/// As some filters say it.
#[test]
fn the_device_where_the_call_is_denied_to_exist() {
    by_device("the_device_where_the_call_is_denied_to_exist", libc::ENOSYS);
}

fn by_device(test: &str, errno: i32) {
    in_child(test, LIMIT, || {
        if File::options().read(true).write(true).open("/dev/userfaultfd").is_err() {
            return skipped(test, "/dev/userfaultfd may not be opened");
        }
        refuse(libc::SYS_userfaultfd, errno);
        let source = Userfault::open(Config::default()).unwrap();
        assert_eq!(source.privilege(), Privilege::Full);
        assert_tells(&source);
    });
}

#[test]
fn a_filter_and_no_device() {
    let test = "a_filter_and_no_device";
    in_child(test, LIMIT, || {
        if is_root() {
            become_nobody();
        }
        refuse(libc::SYS_userfaultfd, libc::EPERM);
        let error = Userfault::open(Config::default()).unwrap_err();
        assert!(error.to_string().contains("allow the system call in its seccomp profile"), "{error}");
        assert!(matches!(error, OpenError::Refused(_)));
    });
}

/// Without any privilege the descriptor serves user mode only, and tells as much.
#[test]
fn an_ordinary_user() {
    let test = "an_ordinary_user";
    in_child(test, LIMIT, || {
        if is_root() {
            become_nobody();
            // SAFETY: the kernel took the right away to look at oneself in /proc, as it does from nobody's own programs not.
            assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }, 0);
        }
        let Some(source) = source(test) else { return };
        let setting = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").unwrap_or_default();
        if setting.trim() == "0" && File::open("/dev/userfaultfd").is_err() {
            assert_eq!(source.privilege(), Privilege::UserModeOnly);
        }
        assert_tells(&source);
        // Proofs are to be had too.
        let memory = Memory::anonymous(2);
        let _ = source.watch(memory.range()).unwrap();
        memory.advise(libc::MADV_DONTNEED);
        wait_until("a proof", Duration::from_secs(20), || !source.space().doubt().overlaps(memory.range()));
        assert!(!source.stats().proof_unavailable);
    });
}

/// A watched part of a mapping is a mapping of its own. When there are too many, watching is refused, and what is watched stays
/// so.
#[test]
fn too_many_mappings() {
    let test = "too_many_mappings";
    in_child(test, LIMIT, || {
        let Some(source) = source(test) else { return };
        if !pagemirror_linux::maps::Maps::open().unwrap().can_query_without_allocating() {
            return skipped(test, "each miss reads the whole list of mappings here, so this would take minutes");
        }
        let watched = Memory::anonymous(4);
        let _ = source.watch(watched.range()).unwrap();
        let large = Memory::anonymous(200_000);
        let mut refused = None;
        for page in (1..199_999).step_by(2) {
            if let Err(error) = source.watch(large.part(page, 1).range()) {
                refused = Some(error);
                break;
            }
        }
        let Some(error) = refused else { return skipped(test, "vm.max_map_count is higher than the test reaches") };
        assert!(error.to_string().contains("raise vm.max_map_count"), "{error}");
        assert_eq!((source.space().gate().lost(), source.probe()), (None, Probe::Quiet));
        let before = source.stats().unmap;
        watched.unmap();
        large.unmap();
        // A caller goes on when its event was read, which is before it is counted.
        wait_until("both are counted", Duration::from_secs(5), || source.stats().unmap == before + 2);
        assert_eq!(source.space().gate().lost(), None);
        assert_tells(&source);
    });
}

#[test]
fn no_descriptor_is_left() {
    let test = "no_descriptor_is_left";
    in_child(test, LIMIT, || {
        if source_would_open(test).is_none() {
            return;
        }
        let limit = libc::rlimit { rlim_cur: 32, rlim_max: 32 };
        // SAFETY: lowers this process's own limit.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        let mut files = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        let error = Userfault::open(Config::default()).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.to_string().contains("userfaultfd") && cause.contains("Too many open files"), "{error}: {cause}");
        drop(files);
        assert_tells(&Userfault::open(Config::default()).unwrap());
    });
}

/// Whether a descriptor can be had here, without opening a source.
fn source_would_open(test: &str) -> Option<()> {
    support::hide_what_is_asked();
    pagemirror_linux::abi::Uffd::open(true).map(drop).map_err(|error| skipped(test, error)).ok()
}

/// The range that a library gives another userfaultfd is said to be taken, and the source goes on.
#[test]
fn a_second_copy_of_the_library() {
    let test = "a_second_copy_of_the_library";
    in_child(test, LIMIT, || {
        let Some(source) = source(test) else { return };
        // What another copy of the library does when it opens its own source.
        let other =
            pagemirror_linux::abi::Uffd::open(false).or_else(|_| pagemirror_linux::abi::Uffd::open(true)).unwrap();
        other.handshake(0).unwrap();
        let (ours, theirs) = (Memory::anonymous(4), Memory::anonymous(4));
        let _ = source.watch(ours.range()).unwrap();
        other.register_wp(theirs.start as u64, theirs.len as u64).unwrap();
        let refused = source.watch(theirs.range()).unwrap_err();
        assert_eq!(refused.errno, Some(libc::EBUSY));
        assert!(refused.to_string().contains("another copy of this one"), "{refused}");
        let taken = other.register_wp(ours.start as u64, ours.len as u64).unwrap_err();
        assert_eq!(taken.raw_os_error(), Some(libc::EBUSY));
        assert_tells(&source);
        // It goes away, and its memory is free to be watched.
        drop(other);
        let _ = source.watch(theirs.range()).unwrap();
    });
}

/// A pipe's descriptor under the number of a source is another test's (`lost.rs`); this one is that a source that could not be
/// made leaves nothing behind.
#[test]
fn a_source_that_cannot_be_opened_keeps_no_descriptor() {
    let test = "a_source_that_cannot_be_opened_keeps_no_descriptor";
    without(&[Feature::Permission], test, || {
        let next = || {
            // SAFETY: a new descriptor, which is closed at once.
            let fd = unsafe { libc::dup(0) };
            // SAFETY: ours.
            drop(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) });
            fd
        };
        let before = next();
        for _ in 0..10 {
            assert!(Userfault::open(Config::default()).is_err());
        }
        assert_eq!(next(), before);
    });
}
