//! Callers of a discard, blocked and running, by every way to ask for one: none is said to be elsewhere.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use pagemirror_linux::abi::{self, Message, Uffd};
use pagemirror_linux::mapping::Mapping;
use pagemirror_linux::tasks::{Progress, Sight, Threads};

use crate::{LOOKS, NAP, PATIENCE, await_sight, await_that, file_of, prove_all_but, skipped, spawn, turn};

const PAGES: u64 = 16;

/// Memory whose discards are announced to `uffd`. It stays mapped, since unmapping it would wait for who reads.
pub(crate) struct Watched {
    uffd: Uffd,
    pub(crate) start: u64,
    pub(crate) len: u64,
}

impl Watched {
    /// Private memory, in the first 4 GiB where there is a choice, so that every system-call convention can name it.
    pub(crate) fn private() -> Self {
        let low = if cfg!(target_arch = "x86_64") { 0x40 } else { 0 };
        Self::mapped(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | low, -1)
    }

    fn of_memfd() -> Self {
        let file = rustix::fs::memfd_create(c"tasks", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, PAGES * 4096).unwrap();
        Self::mapped(libc::MAP_SHARED, file.as_raw_fd())
    }

    fn mapped(flags: i32, file: i32) -> Self {
        let (len, rights) = (PAGES * 4096, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: the kernel chooses the place, so nothing that exists is replaced.
        let at = unsafe { libc::mmap(ptr::null_mut(), len as usize, rights, flags | libc::MAP_POPULATE, file, 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        let start = at.expose_provenance() as u64;
        let uffd = Uffd::open(true).unwrap();
        let events = abi::UFFD_FEATURE_EVENT_REMOVE | abi::UFFD_FEATURE_PAGEFAULT_FLAG_WP;
        uffd.handshake(events | abi::UFFD_FEATURE_WP_ASYNC | abi::UFFD_FEATURE_WP_UNPOPULATED).unwrap();
        uffd.register_wp(start, len).unwrap();
        Self { uffd, start, len }
    }

    /// Reads the announcement of the discard, which lets its caller go on.
    pub(crate) fn read_remove(&self) -> Message {
        let mut messages = [[0; 32]; 4];
        let mut read = 0;
        await_that("an event", || {
            read = self.uffd.read_messages(&mut messages).unwrap_or(0);
            read > 0
        });
        assert_eq!(read, 1);
        Message::decode(&messages[0])
    }
}

/// One way of asking for a discard. Returns the answer, or the negative error number.
type Discard = fn(u64, u64) -> i64;

fn call(number: libc::c_long, arguments: [u64; 5]) -> i64 {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the memory that the call discards belongs to this test and is not read again.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e) };
    if answer == -1 { -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { answer }
}

fn dont_need(start: u64, len: u64) -> i64 {
    call(libc::SYS_madvise, [start, len, libc::MADV_DONTNEED as u64, 0, 0])
}

fn free(start: u64, len: u64) -> i64 {
    call(libc::SYS_madvise, [start, len, libc::MADV_FREE as u64, 0, 0])
}

fn remove(start: u64, len: u64) -> i64 {
    call(libc::SYS_madvise, [start, len, libc::MADV_REMOVE as u64, 0, 0])
}

fn by_process_madvise(start: u64, len: u64) -> i64 {
    let ourselves = call(libc::SYS_pidfd_open, [u64::from(std::process::id()), 0, 0, 0, 0]);
    assert!(ourselves >= 0);
    let vector = libc::iovec { iov_base: ptr::with_exposed_provenance_mut(start as usize), iov_len: len as usize };
    let vector = (&raw const vector).expose_provenance() as u64;
    let answer = call(libc::SYS_process_madvise, [ourselves as u64, vector, 1, libc::MADV_DONTNEED as u64, 0]);
    // SAFETY: the descriptor was opened above and is used by nobody else.
    unsafe { libc::close(ourselves as i32) };
    answer
}

#[cfg(target_arch = "x86_64")]
fn by_x32(start: u64, len: u64) -> i64 {
    call(0x4000_0000 | libc::SYS_madvise, [start, len, libc::MADV_DONTNEED as u64, 0, 0])
}

#[cfg(target_arch = "x86_64")]
fn by_32_bit(start: u64, len: u64) -> i64 {
    const MADVISE_32: i64 = 219;
    let mut answer = MADVISE_32;
    // SAFETY: the 32-bit system call takes its arguments in these registers and changes no memory but the discarded,
    // which is this test's. `rbx` is kept by hand because the compiler reserves it.
    unsafe {
        std::arch::asm!("push rbx", "mov ebx, {start:e}", "int 0x80", "pop rbx", start = in(reg) start as u32,
            inlateout("rax") answer, in("rcx") len, in("rdx") libc::MADV_DONTNEED as u64,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
    }
    i64::from(answer as i32)
}

/// Whether a call ends a child that makes it: how one finds out that there are no 32-bit system calls.
#[cfg(target_arch = "x86_64")]
fn has_32_bit_calls() -> bool {
    // SAFETY: the child makes a call on memory that is not mapped, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        by_32_bit(0, 4096);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: the status is ours to be written.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    status == 0
}

/// Makes the call on watched memory, leaves its announcement unread, and looks: nobody may say it is elsewhere.
fn assert_unproven_until_read(watched: &Watched, discard: Discard, what: &str) {
    let threads = Threads::open().unwrap();
    let &Watched { start, len, .. } = watched;
    let (go, waits) = mpsc::channel::<()>();
    let (number, caller) = spawn(move || {
        waits.recv().unwrap();
        discard(start, len)
    });
    await_sight(&threads, number, Sight::Elsewhere);
    go.send(()).unwrap();
    await_that("it is blocked, or done", || file_of(number, "stat").contains(") D ") || caller.is_finished());
    if caller.is_finished() {
        match -caller.join().unwrap() as i32 {
            libc::ENOSYS | libc::EINVAL => return skipped(what, "this kernel has no such call"),
            error => panic!("{what} was not announced: {}", io::Error::from_raw_os_error(error)),
        }
    }
    println!("{what}: the blocked caller is in {}", file_of(number, "syscall").trim());
    let mut proof = prove_all_but(&[number]);
    for _ in 0..LOOKS {
        assert_eq!(threads.look(number).unwrap(), Sight::Unproven, "{what}: {}", file_of(number, "syscall"));
        assert_eq!(proof.advance().unwrap(), Progress::Waiting { unproven: 1, io_workers: 0 }, "{what}");
        thread::sleep(NAP / 10);
    }
    assert_eq!(watched.read_remove(), Message::Remove { start, end: start + len });
    await_that("it is proven", || proof.advance().unwrap() == Progress::Done);
    assert!(caller.join().unwrap() >= 0, "{what}");
}

#[test]
fn a_caller_whose_announcement_is_unread_is_not_proven() {
    let _turn = turn();
    assert_unproven_until_read(&Watched::private(), dont_need, "DONTNEED");
    assert_unproven_until_read(&Watched::private(), free, "FREE");
    assert_unproven_until_read(&Watched::private(), by_process_madvise, "process_madvise on itself");
    assert_unproven_until_read(&Watched::of_memfd(), remove, "REMOVE");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_caller_by_another_convention_is_not_proven() {
    let _turn = turn();
    assert_unproven_until_read(&Watched::private(), by_x32, "x32 madvise");
    if !has_32_bit_calls() {
        return skipped("32-bit madvise", "this kernel has no 32-bit system calls");
    }
    assert_unproven_until_read(&Watched::private(), by_32_bit, "32-bit madvise");
}

/// What the child of a vfork does: one discard.
extern "C" fn discard_in_child(watched: *mut libc::c_void) -> i32 {
    // SAFETY: the parent waits, and keeps what it has handed over.
    let watched = unsafe { &*watched.cast::<Watched>() };
    i32::from(dont_need(watched.start, watched.len) != 0)
}

#[test]
fn a_thread_that_waits_for_its_vfork_child_is_not_proven() {
    const STACK: usize = 64 * 1024;
    let _turn = turn();
    let threads = Threads::open().unwrap();
    let watched = Arc::new(Watched::private());
    let handed = Arc::clone(&watched);
    let (number, parent) = spawn(move || {
        let stack = Mapping::new(STACK).unwrap();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let argument = Arc::as_ptr(&handed).cast_mut().cast();
        // SAFETY: the child has a stack of its own, which lives until it has ended, since its parent waits for that.
        let child =
            unsafe { libc::clone(discard_in_child, stack.as_ptr().wrapping_add(STACK).cast(), flags, argument) };
        assert!(child > 0, "{}", io::Error::last_os_error());
        let mut status = -1;
        // SAFETY: the status is ours to be written.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    });
    await_that("it waits", || file_of(number, "stat").contains(") D "));
    println!("a vfork's parent is in {}", file_of(number, "syscall").trim());
    // Judged when the child has ended, since it would outlive a test that fails: it holds the descriptor too.
    let sights: Vec<Sight> = (0..LOOKS).map(|_| threads.look(number).unwrap()).collect();
    let event = watched.read_remove();
    parent.join().unwrap();
    assert_eq!(event, Message::Remove { start: watched.start, end: watched.start + watched.len });
    assert!(sights.iter().all(|&sight| sight == Sight::Unproven), "{sights:?}");
}

#[test]
fn a_caller_in_the_middle_of_a_discard_is_never_proven() {
    const LEN: usize = 512 << 20;
    const SAMPLES: u64 = 20_000;
    let _turn = turn();
    if thread::available_parallelism().unwrap().get() < 2 {
        return skipped("a_caller_in_the_middle", "one processor: nobody could look while the caller runs");
    }
    let threads = Threads::open().unwrap();
    let memory = Arc::new(Mapping::new(LEN).unwrap());
    pin_to(0);
    let stop = Arc::new(AtomicBool::new(false));
    let spins = Arc::clone(&stop);
    let (_, spinner) = spawn(move || {
        pin_to(1);
        // ORDERING: Relaxed; the thread only has to see it some time.
        while !spins.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    });
    let (mut samples, mut rounds, deadline) = (0_u64, 0, Instant::now() + PATIENCE);
    while samples < SAMPLES && Instant::now() < deadline {
        samples += look_through_one_discard(&threads, &memory);
        rounds += 1;
    }
    stop.store(true, Ordering::Relaxed);
    spinner.join().unwrap();
    println!("{samples} looks during {rounds} discards of 512 MiB, none of them said elsewhere");
    assert!(samples >= 5_000, "only {samples} looks fell into a discard");
}

/// Discards `memory` on the spinner's processor, looks at the caller until it has returned, and says how often.
fn look_through_one_discard(threads: &Threads, memory: &Arc<Mapping>) -> u64 {
    // SAFETY: the mapping belongs to the calling test, and no other thread touches it now.
    unsafe { memory.as_ptr().write_bytes(1, memory.len() as usize) };
    let (entered, returned) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (enters, returns, (start, len)) = (Arc::clone(&entered), Arc::clone(&returned), (memory.start(), memory.len()));
    let (number, caller) = spawn(move || {
        pin_to(1);
        // ORDERING: SeqCst on both flags: a look between them fell into the call or into the few steps around it.
        enters.store(true, Ordering::SeqCst);
        assert_eq!(dont_need(start, len), 0);
        returns.store(true, Ordering::SeqCst);
    });
    let mut samples = 0;
    while !returned.load(Ordering::SeqCst) {
        let is_in = entered.load(Ordering::SeqCst);
        let sight = threads.look(number).unwrap();
        if is_in && !returned.load(Ordering::SeqCst) {
            assert_eq!(sight, Sight::Unproven, "look {samples}");
            samples += 1;
        }
    }
    caller.join().unwrap();
    samples
}

fn pin_to(processor: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(processor);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}
