//! What ends coherence: it is said, nobody stays blocked, and the limits that the documentation names are kept.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pagemirror_core::addr::PageRange;
use pagemirror_core::gate::{Entered, LostCause};
use pagemirror_core::notify::{Event, Subscriber};
use pagemirror_core::source::{Probe, Source};
use pagemirror_core::wait::Deadline;
use pagemirror_linux::{SECTION_LIMIT, STUCK_LIMIT, Userfault};
use support::{Memory, in_child, source, wait_until};

/// What the machine's own scheduling may add to a documented limit before a test calls it broken.
const SLACK: Duration = Duration::from_secs(5);

/// Unmaps on a thread of its own and says how long the call took.
fn timed_unmap(memory: Memory) -> thread::JoinHandle<Duration> {
    thread::spawn(move || {
        let since = Instant::now();
        memory.unmap();
        since.elapsed()
    })
}

fn watched(source: &Userfault, pages: usize) -> Memory {
    let memory = Memory::anonymous(pages);
    memory.fill(1);
    let _ = source.watch(memory.range()).unwrap();
    memory
}

/// Everything fails closed: uses, attempts, waits.
fn assert_lost(source: &Userfault, cause: LostCause) {
    let space = source.space();
    assert_eq!(space.gate().lost(), Some(cause));
    assert!(matches!(space.gate().enter(), Entered::Lost(found) if found == cause));
    let deadline = Deadline::after(Duration::from_secs(1));
    assert!(matches!(
        space.read_begin(PageRange::ALL, None, &deadline),
        Err(pagemirror_core::error::Error::Lost { cause: found, .. }) if found == cause
    ));
}

struct Panics;
impl Subscriber for Panics {
    fn invalidate(&self, _range: PageRange, _event: Event) {
        panic!("a callback with a bug");
    }
}

#[test]
fn a_panicking_callback() {
    let name = "a_panicking_callback";
    in_child(name, Duration::from_secs(30), || {
        let Some(source) = source(name) else { return };
        let memory = watched(&source, 4);
        let _subscription = source.space().subscribe(pagemirror_sync::Arc::new(Panics));
        memory.part(0, 1).unmap();
        wait_until("it is declared lost", SLACK, || source.space().gate().lost().is_some());
        assert_lost(&source, LostCause::CallbackPanicked);
        // The pump goes on reading, so nobody is blocked.
        assert!(timed_unmap(memory.part(1, 1)).join().unwrap() < SLACK);
    });
}

struct Blocks(Arc<AtomicBool>);
impl Subscriber for Blocks {
    fn invalidate(&self, _range: PageRange, _event: Event) {
        while !self.0.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A callback that blocks holds the pump up. The caller whose event was read is free; the next ones are freed by the
/// watchdog, after coherence was declared lost.
#[test]
fn a_callback_that_blocks() {
    let name = "a_callback_that_blocks";
    in_child(name, Duration::from_secs(60), || {
        let Some(source) = source(name) else { return };
        let memory = watched(&source, 8);
        let go_on = Arc::new(AtomicBool::new(false));
        let _subscription = source.space().subscribe(pagemirror_sync::Arc::new(Blocks(Arc::clone(&go_on))));
        memory.part(0, 1).unmap();
        let blocked = timed_unmap(memory.part(1, 1));
        let took = blocked.join().unwrap();
        assert!(took < STUCK_LIMIT + SLACK, "blocked in munmap for {took:?}");
        assert_lost(&source, LostCause::PumpStuck);
        assert!(timed_unmap(memory.part(2, 1)).join().unwrap() < SLACK, "the watchdog goes on reading");
        go_on.store(true, Ordering::SeqCst);
    });
}

/// The pump itself stands still, before it reads, while a forked child holds a copy of the descriptor: closing it would free
/// nobody, reading does.
#[test]
fn a_pump_that_stands_still() {
    let name = "a_pump_that_stands_still";
    in_child(name, Duration::from_secs(60), || {
        let Some(source) = source(name) else { return };
        let memory = watched(&source, 8);
        let child = raw_fork_sleeper();
        source.stall_pump(true);
        let took = timed_unmap(memory).join().unwrap();
        assert!(took < STUCK_LIMIT + SLACK, "blocked in munmap for {took:?}");
        assert_lost(&source, LostCause::PumpStuck);
        source.stall_pump(false);
        kill(child);
    });
}

/// A submission that stays in its section: past the limit the pump declares coherence lost and then reads.
#[test]
fn a_section_that_is_not_left() {
    let name = "a_section_that_is_not_left";
    in_child(name, Duration::from_secs(60), || {
        let Some(source) = source(name) else { return };
        let memory = watched(&source, 4);
        let Entered::Open(section) = source.space().gate().enter() else { panic!("the gate is open") };
        let took = timed_unmap(memory).join().unwrap();
        assert!(took >= SECTION_LIMIT / 2, "read beside a section after {took:?}");
        assert!(took < SECTION_LIMIT + SLACK, "blocked in munmap for {took:?}");
        // Said before the caller was freed, which is before we joined it.
        assert_eq!(source.space().gate().lost(), Some(LostCause::SectionOverdue));
        drop(section);
        assert_lost(&source, LostCause::SectionOverdue);
    });
}

/// A program closes every descriptor that it does not know.
#[test]
fn a_closed_descriptor() {
    let name = "a_closed_descriptor";
    in_child(name, Duration::from_secs(30), || {
        let Some(source) = source(name) else { return };
        let memory = watched(&source, 8);
        close_everything();
        assert!(timed_unmap(memory.part(0, 1)).join().unwrap() < SLACK);
        assert!(matches!(source.probe(), Probe::Lost(_)), "the probe takes a closed descriptor for quiet");
        assert_lost(&source, LostCause::SourceClosed);
    });
}

/// Another file under the same number must not be taken for the source, and not be read.
#[test]
fn a_reused_descriptor() {
    let name = "a_reused_descriptor";
    in_child(name, Duration::from_secs(30), || {
        let Some(source) = source(name) else { return };
        let _memory = watched(&source, 8);
        close_everything();
        let (mut readers, mut writers) = (Vec::new(), Vec::new());
        // Pipes on every low number, with something to read in each.
        for _ in 0..32 {
            let (reader, mut writer) = std::io::pipe().unwrap();
            std::io::Write::write_all(&mut writer, &[9; 64]).unwrap();
            readers.push(reader);
            writers.push(writer);
        }
        assert!(matches!(source.probe(), Probe::Lost(_)), "the probe takes a pipe for a quiet source");
        assert_lost(&source, LostCause::SourceClosed);
        thread::sleep(Duration::from_millis(1500));
        for mut reader in readers {
            let mut bytes = [0; 64];
            std::io::Read::read_exact(&mut reader, &mut bytes).expect("nobody else has read from it");
        }
    });
}

/// A forked child has no source: it says so, and takes no event from its parent. Also a child that ran no fork handler.
#[test]
fn forked_children_fail_closed() {
    let name = "forked_children_fail_closed";
    in_child(name, Duration::from_secs(30), || {
        let Some(source) = source(name) else { return };
        let memory = watched(&source, 8);
        for raw in [false, true] {
            let status = in_fork(raw, || {
                let gate = source.space().gate();
                let closed = matches!(gate.enter(), Entered::Lost(LostCause::Forked));
                // A child that ran its handler has closed the descriptor; the other's copy asks about the parent.
                let quiet = matches!(source.probe(), Probe::Quiet);
                i32::from(!closed) + if raw { 0 } else { 2 * i32::from(quiet) }
            });
            assert_eq!(status, 0, "raw {raw}: the child fails open");
            assert!(source.space().gate().lost().is_none(), "the parent is unharmed");
        }
        assert!(timed_unmap(memory).join().unwrap() < SLACK);
    });
}

/// Killed while a caller is blocked and the pump stands still: the kernel lets go of everybody.
#[test]
fn killed_while_a_caller_is_blocked() {
    let name = "killed_while_a_caller_is_blocked";
    in_child(name, Duration::from_secs(30), || {
        let Some(_) = source(name) else { return };
        let program = std::env::current_exe().unwrap();
        let mut victim = std::process::Command::new(program)
            .args(["--exact", "the_victim", "--nocapture"])
            .env("PAGEMIRROR_TEST_CHILD", "the_victim")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(victim.stdout.take().unwrap()));
        assert!(lines.any(|line| line.unwrap().contains("blocked")), "the victim ended early");
        let since = Instant::now();
        victim.kill().unwrap();
        victim.wait().unwrap();
        assert!(since.elapsed() < SLACK, "a killed process took {:?} to go", since.elapsed());
    });
}

/// Runs only as the child of the test above.
#[test]
fn the_victim() {
    if std::env::var("PAGEMIRROR_TEST_CHILD").as_deref() != Ok("the_victim") {
        return;
    }
    let source = source("the_victim").unwrap();
    let memory = watched(&source, 4);
    source.stall_pump(true);
    let blocked = timed_unmap(memory);
    wait_until("the change is under way", SLACK, || source.probe() == Probe::Changing);
    println!("blocked");
    let _ = blocked.join();
}

#[expect(unsafe_code, reason = "closes descriptors as careless programs do")]
fn close_everything() {
    // SAFETY: what is open beyond the standard streams belongs to this child process's source, which is what is tested.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    assert_eq!(result, 0);
}

#[expect(unsafe_code, reason = "forks without running fork handlers")]
fn raw_fork() -> i64 {
    // SAFETY: what fork is to the kernel; the child calls only what needs no lock and ends by _exit.
    unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) }
}

#[expect(unsafe_code, reason = "a child that only sleeps")]
fn raw_fork_sleeper() -> i32 {
    let child = raw_fork();
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: sleeps until it is killed.
        unsafe { libc::pause() };
        // SAFETY: ends the child without running anything of the test.
        unsafe { libc::_exit(0) };
    }
    child as i32
}

#[expect(unsafe_code, reason = "forks, and reports by the exit status")]
fn in_fork(raw: bool, body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child makes system calls only, allocates nothing, and ends by _exit.
    let child = if raw { raw_fork() } else { i64::from(unsafe { libc::fork() }) };
    assert!(child >= 0);
    if child == 0 {
        let status = body();
        // SAFETY: ends the child without running anything of the test.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: the child is ours and not reaped yet.
    unsafe { libc::waitpid(child as i32, &raw mut status, 0) };
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 }
}

#[expect(unsafe_code, reason = "ends the child that this test has made")]
fn kill(child: i32) {
    // SAFETY: the child is ours and not reaped yet.
    unsafe { libc::kill(child, libc::SIGKILL) };
    // SAFETY: as above; its status is not asked for.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}
