//! The ways in which a userfaultfd hangs a process, and that ours does not. Each case runs in a process of its own with a
//! deadline; what ends coherence on the way is declared, and nobody stays blocked.
//!
//! | # | what hangs a process that monitors itself | here |
//! |---|---|---|
//! | 1 | the monitor unmaps registered memory | `a_callback_that_unmaps` |
//! | 2 | the monitor discards it | `a_callback_that_discards` |
//! | 3 | the monitor forks | `a_callback_that_forks` |
//! | 4 | the monitor frees a block that is a mapping | `a_callback_that_frees_a_mapped_block` |
//! | 5 | the monitor touches a page that is not there | `a_callback_that_touches_a_missing_page` |
//! | 6 | the kernel touches one for somebody (a read, a pin) | `the_kernel_touches_a_missing_page_while_nobody_reads` |
//! | 7 | the monitor takes a lock that the blocked caller holds | `a_callback_that_takes_the_caller_s_lock` |
//! | 8 | the monitor allocates before it reads | `pump_allocates_nothing.rs`; the read comes before every callback |
//! | 9 | the monitor allocates and frees on a registered heap | `a_callback_that_uses_a_watched_heap` |
//! | 10 | a vfork child unmaps while its parent sleeps | `a_vfork_child_that_unmaps` |
//! | 11 | a submission touches a page that is not there, and the monitor waits for it | `a_section_that_touches_a_missing_page` |
//! | 12 | a signal handler frees memory inside a submission | `a_section_whose_thread_unmaps` |
//! | 13 | a submission never ends, or its thread is gone | `lost.rs`: `a_section_that_is_not_left` |
//! | 14 | the monitor stands still, and a child holds the descriptor | `lost.rs`: `a_pump_that_stands_still`, `a_callback_that_blocks` |
//! | 15 | a fork with a full descriptor table | `a_full_descriptor_table` |
//! | 16 | exit, exec and kill while a caller is blocked | `exit_while_a_caller_is_blocked`, `exec_while_a_caller_is_blocked`; `lost.rs`: `killed_while_a_caller_is_blocked` |
#![expect(unsafe_code, reason = "forks, unmaps and blocks as careless programs do")]

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pagemirror_core::addr::PageRange;
use pagemirror_core::gate::{Entered, LostCause};
use pagemirror_core::notify::{Event, Subscriber};
use pagemirror_core::source::{Probe, Source};
use pagemirror_linux::{SECTION_LIMIT, STUCK_LIMIT, Userfault};
use pagemirror_sync::Arc;
use support::{Memory, PAGE, in_child, source, wait_until};

/// What the machine's own scheduling may add to a documented limit.
const SLACK: Duration = Duration::from_secs(5);
/// After this the child is killed and its test fails.
const LIMIT: Duration = Duration::from_secs(30);

fn watched(source: &Userfault, pages: usize) -> Memory {
    let memory = Memory::anonymous(pages);
    memory.fill(1);
    let _ = source.watch(memory.range()).unwrap();
    memory
}

/// Runs `act` once, in the pump, at the first event about `about`.
struct Once<F> {
    about: PageRange,
    done: AtomicBool,
    act: F,
}

impl<F: Fn() + Send + Sync> Subscriber for Once<F> {
    fn invalidate(&self, range: PageRange, _event: Event) {
        if range.overlaps(self.about) && !self.done.swap(true, Ordering::SeqCst) {
            (self.act)();
        }
    }
}

/// A caller of munmap whose event makes the pump run `act`. Says how long the callers were blocked: that one, and one that comes
/// while `act` runs.
fn act_in_the_pump(source: &Arc<Userfault>, act: impl Fn() + Send + Sync + 'static) -> Duration {
    let (first, second) = (watched(source, 1), watched(source, 1));
    let once = Arc::new(Once { about: first.range(), done: AtomicBool::new(false), act });
    let _subscription = source.space().subscribe(Arc::clone(&once) as Arc<dyn Subscriber>);
    let since = Instant::now();
    first.unmap();
    second.unmap();
    let took = since.elapsed();
    assert!(once.done.load(Ordering::SeqCst), "the callback was not called");
    took
}

/// The pump waits for itself, which the watchdog ends: coherence is declared lost, then the event is read.
fn hangs_itself(name: &str, act: fn(Memory)) {
    in_child(name, LIMIT, || {
        let Some(source) = source(name) else { return };
        let own = watched(&source, 4);
        let took = act_in_the_pump(&source, move || act(own));
        assert!(took < STUCK_LIMIT + SLACK, "blocked for {took:?}");
        assert_eq!(source.space().gate().lost(), Some(LostCause::PumpStuck));
    });
}

/// Nobody is blocked, and nothing is lost.
fn does_no_harm(name: &str, act: impl Fn() + Send + Sync + 'static) {
    in_child(name, LIMIT, || {
        let Some(source) = source(name) else { return };
        let took = act_in_the_pump(&source, act);
        assert!(took < STUCK_LIMIT, "blocked for {took:?}");
        wait_until("the pump goes on", SLACK, || matches!(source.space().gate().enter(), Entered::Open(_)));
    });
}

#[test]
fn a_callback_that_unmaps() {
    hangs_itself("a_callback_that_unmaps", Memory::unmap);
}

#[test]
fn a_callback_that_discards() {
    hangs_itself("a_callback_that_discards", |memory| memory.advise(libc::MADV_DONTNEED));
}

#[test]
fn a_callback_that_forks() {
    does_no_harm("a_callback_that_forks", || {
        // SAFETY: the child ends at once.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends the child without running anything of the test.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: the child is ours and not reaped yet.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    });
}

#[test]
fn a_callback_that_frees_a_mapped_block() {
    let name = "a_callback_that_frees_a_mapped_block";
    in_child(name, LIMIT, || {
        let Some(source) = source(name) else { return };
        let block = vec![1_u8; 64 << 20];
        let range = PageRange::covering(pagemirror_core::addr::VirtAddr::of(block.as_ptr()), block.len() as u64, 4096);
        let _ = source.watch(range.unwrap()).unwrap();
        let block = Mutex::new(Some(block));
        let took = act_in_the_pump(&source, move || drop(block.lock().unwrap().take()));
        assert!(took < STUCK_LIMIT + SLACK, "blocked for {took:?}");
        assert_eq!(source.space().gate().lost(), Some(LostCause::PumpStuck));
    });
}

#[test]
fn a_callback_that_touches_a_missing_page() {
    let name = "a_callback_that_touches_a_missing_page";
    in_child(name, LIMIT, || {
        let Some(source) = source(name) else { return };
        let missing = Memory::anonymous(4);
        let _ = source.watch(missing.range()).unwrap();
        let took = act_in_the_pump(&source, move || missing.fill(2));
        assert!(took < STUCK_LIMIT, "blocked for {took:?}");
        assert_eq!((source.space().gate().lost(), missing.byte(3)), (None, 2));
    });
}

/// Nothing is registered for missing pages, so the kernel's own accesses never wait for the pump either.
#[test]
fn the_kernel_touches_a_missing_page_while_nobody_reads() {
    let name = "the_kernel_touches_a_missing_page_while_nobody_reads";
    in_child(name, LIMIT, || {
        let Some(source) = source(name) else { return };
        let (missing, pinned) = (Memory::anonymous(4), Memory::anonymous(4));
        let _ = source.watch(missing.range()).unwrap();
        let _ = source.watch(pinned.range()).unwrap();
        source.stall_pump(true);
        let since = Instant::now();
        let zero = std::fs::File::open("/dev/zero").unwrap();
        // SAFETY: the test's own memory, which nothing refers to.
        let read = unsafe { libc::read(std::os::fd::AsRawFd::as_raw_fd(&zero), missing.start as *mut _, missing.len) };
        assert_eq!(read, missing.len as isize);
        match io_uring::IoUring::new(2) {
            Ok(ring) => {
                let buffer = libc::iovec { iov_base: pinned.start as *mut _, iov_len: pinned.len };
                // SAFETY: the memory stays mapped for as long as the ring lives.
                unsafe { ring.submitter().register_buffers(&[buffer]) }.unwrap();
            }
            Err(error) => support::skipped(name, format_args!("pinning, in part: no io_uring: {error}")),
        }
        assert!(since.elapsed() < STUCK_LIMIT);
        source.stall_pump(false);
        assert_eq!(source.space().gate().lost(), None);
    });
}

/// The caller's event is read before any callback runs, so the caller goes on and lets the lock go.
#[test]
fn a_callback_that_takes_the_caller_s_lock() {
    let name = "a_callback_that_takes_the_caller_s_lock";
    in_child(name, LIMIT, || {
        static LOCK: Mutex<()> = Mutex::new(());
        let Some(source) = source(name) else { return };
        let memory = watched(&source, 1);
        let act = || drop(LOCK.lock().unwrap());
        let once = Arc::new(Once { about: memory.range(), done: AtomicBool::new(false), act });
        let _subscription = source.space().subscribe(once);
        let held = LOCK.lock().unwrap();
        let since = Instant::now();
        memory.unmap();
        drop(held);
        assert!(since.elapsed() < STUCK_LIMIT);
        wait_until("the pump goes on", SLACK, || matches!(source.space().gate().enter(), Entered::Open(_)));
    });
}

/// Callbacks are asked not to allocate. One that does, on a heap that is watched and that other threads shrink and grow, gets the
/// allocator's lock, because whoever holds it was freed before.
#[test]
fn a_callback_that_uses_a_watched_heap() {
    let name = "a_callback_that_uses_a_watched_heap";
    in_child(name, LIMIT, || {
        let Some(source) = source(name) else { return };
        struct Allocates(AtomicU32);
        impl Subscriber for Allocates {
            fn invalidate(&self, _range: PageRange, _event: Event) {
                self.0.fetch_add(1, Ordering::Relaxed);
                std::hint::black_box(vec![1_u8; 300]);
            }
        }
        #[cfg(target_env = "gnu")]
        for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
            // So that every block is given back to the kernel when it is freed.
            // SAFETY: sets a parameter of the allocator, by the one thread that there is.
            unsafe { libc::mallopt(parameter, 64 << 10) };
        }
        let callback = Arc::new(Allocates(AtomicU32::new(0)));
        let subscription = source.space().subscribe(Arc::clone(&callback) as Arc<dyn Subscriber>);
        let until = Instant::now() + Duration::from_secs(2);
        let churn = |source: Arc<Userfault>| {
            move || {
                while Instant::now() < until {
                    let block = vec![1_u8; 200 << 10];
                    let at = pagemirror_core::addr::VirtAddr::of(block.as_ptr());
                    let range = PageRange::covering(at, block.len() as u64, PAGE as u64).unwrap();
                    // Its neighbours may come and go, and it is no matter whether this one was watched.
                    let _ = source.watch(range);
                }
            }
        };
        let threads: Vec<_> = (0..3).map(|_| thread::spawn(churn(Arc::clone(&source)))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(subscription);
        assert!(callback.0.load(Ordering::Relaxed) > 100, "the heap was not given back often enough");
        assert_eq!(source.space().gate().lost(), None);
    });
}

/// A child that shares the memory is no thread of the process; its event is ours all the same, and the pump, which is not the
/// thread that waits for it, reads it.
#[test]
fn a_vfork_child_that_unmaps() {
    let name = "a_vfork_child_that_unmaps";
    in_child(name, LIMIT, || {
        let Some(source) = source(name) else { return };
        let memory = watched(&source, 4);
        let before = source.stats().unmap;
        let since = Instant::now();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let mut stack = vec![0_u8; 64 << 10];
        let top = stack.as_mut_ptr().wrapping_add(stack.len() / 2).wrapping_sub(stack.as_ptr().addr() % 16);
        // SAFETY: the child has a stack of its own, makes two system calls and ends; this thread sleeps meanwhile.
        let child = unsafe { libc::clone(unmap_and_end, top.cast(), flags, (&raw const memory).cast_mut().cast()) };
        assert!(child > 0);
        assert!(since.elapsed() < STUCK_LIMIT, "the child was blocked for {:?}", since.elapsed());
        let mut status = -1;
        // SAFETY: the child is ours and not reaped yet.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
        // The child goes on when its event was read, which is before it is counted.
        wait_until("the event is counted", SLACK, || source.stats().unmap == before + 1);
        assert_eq!(source.space().gate().lost(), None);
    });
}

extern "C" fn unmap_and_end(memory: *mut libc::c_void) -> i32 {
    // SAFETY: the parent's value, which lives while the parent sleeps.
    let memory = unsafe { *memory.cast::<Memory>() };
    // SAFETY: the test's own memory.
    let result = unsafe { libc::munmap(memory.start as *mut _, memory.len) };
    // SAFETY: ends the child only.
    unsafe { libc::_exit(result) }
}

/// The pump waits for the section, and the section touches what is watched and missing: no fault is ever reported.
#[test]
fn a_section_that_touches_a_missing_page() {
    let name = "a_section_that_touches_a_missing_page";
    in_child(name, LIMIT, || {
        let Some(source) = source(name) else { return };
        let (memory, missing) = (watched(&source, 4), Memory::anonymous(4));
        let _ = source.watch(missing.range()).unwrap();
        let Entered::Open(section) = source.space().gate().enter() else { panic!("the gate is open") };
        let caller = thread::spawn(move || memory.unmap());
        wait_until("the change is under way", SLACK, || source.probe() == Probe::Changing);
        missing.fill(3);
        drop(section);
        caller.join().unwrap();
        assert_eq!(source.space().gate().lost(), None);
    });
}

/// What a signal handler does that frees memory in the middle of a submission: the pump waits for the section, and the section
/// for the pump. The limit on sections ends it, and coherence is lost before anybody goes on.
#[test]
fn a_section_whose_thread_unmaps() {
    let name = "a_section_whose_thread_unmaps";
    in_child(name, LIMIT, || {
        static FREED: AtomicU32 = AtomicU32::new(0);
        static TARGET: Mutex<Option<Memory>> = Mutex::new(None);
        extern "C" fn handler(_signal: i32) {
            if let Some(memory) = TARGET.try_lock().ok().and_then(|mut target| target.take()) {
                memory.unmap();
                FREED.fetch_add(1, Ordering::SeqCst);
            }
        }
        let Some(source) = source(name) else { return };
        *TARGET.lock().unwrap() = Some(watched(&source, 4));
        // SAFETY: a handler that only unmaps, and that no other code of this process replaces.
        unsafe { libc::signal(libc::SIGUSR1, handler as *const () as usize) };
        let Entered::Open(section) = source.space().gate().enter() else { panic!("the gate is open") };
        let since = Instant::now();
        // SAFETY: a signal to this thread.
        unsafe { libc::raise(libc::SIGUSR1) };
        assert_eq!(FREED.load(Ordering::SeqCst), 1);
        assert!(since.elapsed() < SECTION_LIMIT + SLACK, "blocked for {:?}", since.elapsed());
        assert_eq!(source.space().gate().lost(), Some(LostCause::SectionOverdue));
        drop(section);
    });
}

/// Forks are not asked for, so none waits for a descriptor that cannot be made; and nothing else of the source needs a new one.
#[test]
fn a_full_descriptor_table() {
    let name = "a_full_descriptor_table";
    in_child(name, LIMIT, || {
        let Some(source) = source(name) else { return };
        let memory = watched(&source, 8);
        let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: lowers this process's own limit.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        let mut files = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            files.push(file);
        }
        let since = Instant::now();
        // SAFETY: the child ends at once.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends the child without running anything of the test.
            unsafe { libc::_exit(0) };
        }
        let mut status = -1;
        // SAFETY: the child is ours and not reaped yet.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
        memory.part(0, 1).unmap();
        let _ = source.watch(memory.part(1, 7).range()).unwrap();
        memory.part(1, 2).advise(libc::MADV_DONTNEED);
        assert!(since.elapsed() < STUCK_LIMIT, "blocked for {:?}", since.elapsed());
        assert_eq!(source.space().gate().lost(), None);
        // The prover reads /proc through a descriptor that it cannot have now: the doubt stays, and ends when it can again.
        thread::sleep(Duration::from_millis(50));
        assert!(source.space().doubt().overlaps(memory.part(1, 2).range()), "a doubt ended without a proof");
        drop(files);
        wait_until("a proof", SLACK, || !source.space().doubt().overlaps(memory.part(1, 2).range()));
    });
}

/// Blocks a caller behind a pump that stands still, then does what its argument says.
fn with_a_blocked_caller(source: &Arc<Userfault>) {
    let memory = watched(source, 4);
    source.stall_pump(true);
    thread::spawn(move || memory.unmap());
    wait_until("the change is under way", SLACK, || source.probe() == Probe::Changing);
}

#[test]
fn exit_while_a_caller_is_blocked() {
    let name = "exit_while_a_caller_is_blocked";
    in_child(name, LIMIT, || {
        let Some(source) = source(name) else { return };
        with_a_blocked_caller(&source);
        std::process::exit(0);
    });
}

#[test]
fn exec_while_a_caller_is_blocked() {
    let name = "exec_while_a_caller_is_blocked";
    in_child(name, LIMIT, || {
        let Some(source) = source(name) else { return };
        with_a_blocked_caller(&source);
        let error = std::os::unix::process::CommandExt::exec(&mut std::process::Command::new("true"));
        panic!("exec failed: {error}");
    });
}
