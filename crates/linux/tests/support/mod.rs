//! What the tests on real memory share: mappings, threads in chosen places, child processes, skipping.
#![expect(unsafe_code, reason = "maps, unmaps and discards real memory")]
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_linux::abi::{Feature, hide};
use pagemirror_linux::{Config, OpenError, Userfault};

pub(crate) const PAGE: usize = 4096;

/// The source, or nothing and a line that says why the test is skipped.
pub(crate) fn source(test: &str) -> Option<Arc<Userfault>> {
    source_with(test, Config::default())
}

/// Hides what the variable `PAGEMIRROR_TEST_HIDE` names, several with commas between them.
pub(crate) fn hide_what_is_asked() {
    let Ok(asked) = std::env::var("PAGEMIRROR_TEST_HIDE") else { return };
    for name in asked.split(',') {
        let known = Feature::ALL.iter().find(|(known, _)| *known == name);
        hide(known.unwrap_or_else(|| panic!("no feature {name:?}")).1);
    }
}

pub(crate) fn source_with(test: &str, config: Config) -> Option<Arc<Userfault>> {
    hide_what_is_asked();
    match Userfault::open(config) {
        Ok(source) => Some(source),
        Err(error @ OpenError::OtherConfig) => panic!("{error}"),
        Err(error) => {
            skipped(test, error);
            None
        }
    }
}

/// Says that a test did not run, and why. Not by `println`, which the test harness keeps to itself.
pub(crate) fn skipped(test: &str, why: impl std::fmt::Display) {
    let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("SKIPPED: {test}: {why}\n"));
}

/// Some pages of memory at an address of their own. Never unmapped: the tests do that themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

fn check(result: i32, what: &str) {
    assert!(result == 0, "{what}: {}", std::io::Error::last_os_error());
}

fn map(at: usize, len: usize, flags: i32, fd: i32) -> Memory {
    // SAFETY: a new mapping, or one over memory of the test's own that nothing refers to.
    let got = unsafe { libc::mmap(at as *mut _, len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0) };
    assert!(got != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    Memory { start: got as usize, len }
}

impl Memory {
    /// Fresh private anonymous pages with a hole of address space around them, so that neighbours never merge.
    pub(crate) fn anonymous(pages: usize) -> Self {
        let reserved = pages * PAGE + 2 * PAGE;
        // SAFETY: a new reservation.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), reserved, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        assert!(at != libc::MAP_FAILED);
        Self::anonymous_at(at as usize + PAGE, pages)
    }

    /// Fresh private anonymous pages exactly here, over whatever is here.
    pub(crate) fn anonymous_at(at: usize, pages: usize) -> Self {
        map(at, pages * PAGE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED, -1)
    }

    /// A shared mapping of a memfd.
    pub(crate) fn shared(fd: i32, pages: usize) -> Self {
        map(0, pages * PAGE, libc::MAP_SHARED, fd)
    }

    /// A private mapping of a memfd.
    pub(crate) fn private(fd: i32, pages: usize) -> Self {
        map(0, pages * PAGE, libc::MAP_PRIVATE, fd)
    }

    pub(crate) fn part(self, first: usize, pages: usize) -> Self {
        Self { start: self.start + first * PAGE, len: pages * PAGE }
    }

    pub(crate) fn range(self) -> PageRange {
        PageRange::covering(VirtAddr::new(self.start as u64), self.len as u64, PAGE as u64).unwrap()
    }

    pub(crate) fn fill(self, byte: u8) {
        // SAFETY: the test's own writable memory.
        unsafe { std::ptr::write_bytes(self.start as *mut u8, byte, self.len) };
    }

    /// The first byte of a page.
    pub(crate) fn byte(self, page: usize) -> u8 {
        // SAFETY: the test's own readable memory.
        unsafe { std::ptr::read_volatile((self.start + page * PAGE) as *const u8) }
    }

    pub(crate) fn set_byte(self, page: usize, byte: u8) {
        // SAFETY: the test's own writable memory.
        unsafe { std::ptr::write_volatile((self.start + page * PAGE) as *mut u8, byte) };
    }

    pub(crate) fn unmap(self) {
        // SAFETY: the test's own memory; nothing refers to it afterwards.
        check(unsafe { libc::munmap(self.start as *mut _, self.len) }, "munmap");
    }

    pub(crate) fn advise(self, advice: i32) {
        // SAFETY: the test's own memory.
        check(unsafe { libc::madvise(self.start as *mut _, self.len, advice) }, "madvise");
    }

    /// As [`advise`](Self::advise), where the kernel may not know the advice.
    pub(crate) fn try_advise(self, advice: i32) -> bool {
        // SAFETY: the test's own memory.
        unsafe { libc::madvise(self.start as *mut _, self.len, advice) == 0 }
    }

    pub(crate) fn protect(self, protection: i32) {
        // SAFETY: the test's own memory.
        check(unsafe { libc::mprotect(self.start as *mut _, self.len, protection) }, "mprotect");
    }

    pub(crate) fn move_to(self, target: usize) -> Self {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: moves the test's own memory over memory of its own.
        let got = unsafe { libc::mremap(self.start as *mut _, self.len, self.len, flags, target as *mut libc::c_void) };
        assert!(got != libc::MAP_FAILED, "mremap: {}", std::io::Error::last_os_error());
        Self { start: got as usize, len: self.len }
    }

    pub(crate) fn shrink(self, pages: usize) -> Self {
        // SAFETY: shrinks the test's own memory in place.
        let got = unsafe { libc::mremap(self.start as *mut _, self.len, pages * PAGE, 0) };
        assert!(got != libc::MAP_FAILED, "mremap: {}", std::io::Error::last_os_error());
        Self { start: got as usize, len: pages * PAGE }
    }
}

pub(crate) fn memfd(pages: usize) -> i32 {
    // SAFETY: a new descriptor, which the test never closes.
    let fd = unsafe { libc::memfd_create(c"pagemirror-test".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: the descriptor is ours.
    check(unsafe { libc::ftruncate(fd, (pages * PAGE) as i64) }, "ftruncate");
    fd
}

/// Runs this thread on one CPU only, or on the only one.
pub(crate) fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// Lets this thread run only when nobody else wants its CPU: what it is doing then takes long.
pub(crate) fn run_last() {
    let lowest = libc::sched_param { sched_priority: 0 };
    // SAFETY: changes this thread only.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &lowest) };
}

pub(crate) fn wait_until(what: &str, limit: Duration, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Runs `body` in a process of its own, which must end well within `limit`. For what ends a process's coherence, and for
/// other configurations: a process has one source. What the child prints is printed.
pub(crate) fn in_child(test: &str, limit: Duration, body: impl FnOnce()) {
    const NAME: &str = "PAGEMIRROR_TEST_CHILD";
    if std::env::var(NAME).as_deref() == Ok(test) {
        body();
        return;
    }
    let (status, printed) = child(test, limit, NAME);
    for line in printed.lines() {
        // The harness of the child may have written the name of the test before it, on the same line.
        match line.split_once("SKIPPED: ").and_then(|(_, said)| said.split_once(": ")) {
            Some((test, why)) => skipped(test, why),
            None => println!("{line}"),
        }
    }
    assert_eq!(status, Some(0), "the child process failed:\n{printed}");
}

fn child(test: &str, limit: Duration, name: &str) -> (Option<i32>, String) {
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(name, test)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if since.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            println!("{test}: killed after {limit:?}");
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut printed = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut printed).unwrap();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut printed).unwrap();
    (status, printed)
}
