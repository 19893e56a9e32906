//! A process's life: it forks, spawns, executes, starts and ends threads; the source stays its own.
#![expect(unsafe_code, reason = "forks, and reads memory by address")]

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pagemirror_core::gate::{Entered, LostCause};
use pagemirror_core::source::{Probe, Source};
use pagemirror_linux::{Config, Userfault};
use support::{Memory, in_child, source, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

fn watched(source: &Userfault, pages: usize) -> Memory {
    let memory = Memory::anonymous(pages);
    memory.fill(1);
    let _ = source.watch(memory.range()).unwrap();
    memory
}

/// Whether exactly `count` unmappings were told. A caller returns when its event was read, which is before it is counted.
fn told(source: &Userfault, count: u64) -> bool {
    let since = Instant::now();
    while source.stats().unmap < count && since.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(1));
    }
    source.stats().unmap == count
}

/// Runs `body` in a forked child and gives its exit status.
fn forked(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs `body` on the thread that it has and ends by _exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(99);
        // SAFETY: ends the child without running anything of the test program.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: the child is ours and not reaped yet.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 }
}

/// The descriptors of this process that are userfaultfds.
fn userfaultfds() -> usize {
    let is_one = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| {
            std::fs::read_link(entry.path()).is_ok_and(|name| name.to_string_lossy().contains("[userfaultfd]"))
        })
    };
    std::fs::read_dir("/proc/self/fd").unwrap().map(is_one).filter(|is_one| *is_one).count()
}

#[test]
fn a_forked_child_starts_empty_with_a_source_of_its_own() {
    let name = "a_forked_child_starts_empty_with_a_source_of_its_own";
    in_child(name, LIMIT, || {
        let Some(source) = source(name) else { return };
        let memory = watched(&source, 8);
        let status = forked(|| {
            if source.space().gate().lost() != Some(LostCause::Forked) {
                return 1;
            }
            if userfaultfds() != 0 {
                return 2; // the parent's descriptor was not closed
            }
            let Ok(own) = Userfault::open(Config::default()) else { return 3 };
            if source.space().gate().lost() != Some(LostCause::Forked) || own.space().gate().lost().is_some() {
                return 4;
            }
            // The memory is the child's own copy; it is watched by nobody until the child asks.
            memory.part(0, 1).unmap();
            if own.stats().unmap != 0 || own.watch(memory.part(1, 7).range()).is_err() {
                return 5;
            }
            memory.part(1, 1).unmap();
            if !told(&own, 1) || own.space().gate().lost().is_some() { 6 } else { 0 }
        });
        assert_eq!(status, 0);
        // The parent knows nothing of all that.
        assert_eq!((source.stats().unmap, source.space().gate().lost(), source.probe()), (0, None, Probe::Quiet));
        memory.unmap();
        assert!(told(&source, 1));
    });
}

/// Forks while other threads change watched memory: children never take an event away, and nobody stays blocked.
#[test]
fn forks_beside_changes() {
    let name = "forks_beside_changes";
    in_child(name, LIMIT, || {
        let Some(source) = source(name) else { return };
        let (stop, changes) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        watched(&source, 2).unmap();
                        changes.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let until = Instant::now() + Duration::from_secs(1);
            let mut forks = 0;
            while Instant::now() < until {
                assert_eq!(forked(|| i32::from(source.space().gate().lost() != Some(LostCause::Forked))), 0);
                forks += 1;
            }
            stop.store(true, Ordering::Relaxed);
            assert!(forks > 10, "only {forks} forks");
        });
        assert!(told(&source, changes.load(Ordering::Relaxed)), "an event was lost or taken");
        assert_eq!(source.space().gate().lost(), None);
    });
}

/// What is executed inherits nothing, however it is started; the source goes on.
#[test]
fn spawned_and_executed_programs_inherit_nothing() {
    let name = "spawned_and_executed_programs_inherit_nothing";
    in_child(name, LIMIT, || {
        let Some(source) = source(name) else { return };
        let memory = watched(&source, 8);
        assert_eq!(userfaultfds(), 1);
        for hook in [false, true] {
            let mut ls = Command::new("ls");
            ls.args(["-l", "/proc/self/fd"]);
            if hook {
                // SAFETY: the hook does nothing. With one, the child is made by fork and exec instead of a spawn.
                unsafe { std::os::unix::process::CommandExt::pre_exec(&mut ls, || Ok(())) };
            }
            let output = ls.output().unwrap();
            let listed = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && listed.contains(" -> ") && !listed.contains("userfaultfd"), "{listed}");
        }
        assert_eq!((source.probe(), source.space().gate().lost()), (Probe::Quiet, None));
        memory.unmap();
        assert!(told(&source, 1));
    });
}

/// Threads that come and go all the time, each with a section or two, beside changes: no slot of a section is lost with its
/// thread, so the pump never waits for one that has gone.
#[test]
fn threads_that_come_and_go() {
    let name = "threads_that_come_and_go";
    in_child(name, LIMIT, || {
        let Some(source) = source(name) else { return };
        let (stop, entered) = (AtomicBool::new(false), AtomicU64::new(0));
        let enter = || {
            for _ in 0..3 {
                match source.space().gate().enter() {
                    Entered::Open(section) => {
                        entered.fetch_add(1, Ordering::Relaxed);
                        drop(section);
                    }
                    Entered::Raised => thread::yield_now(),
                    other => panic!("{other:?}"),
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        thread::scope(|inner| {
                            (0..4).for_each(|_| drop(inner.spawn(enter)));
                        });
                    }
                });
            }
            let until = Instant::now() + Duration::from_secs(2);
            let mut slowest = Duration::ZERO;
            while Instant::now() < until {
                let memory = watched(&source, 2);
                let since = Instant::now();
                memory.unmap();
                slowest = slowest.max(since.elapsed());
            }
            stop.store(true, Ordering::Relaxed);
            assert!(slowest < pagemirror_linux::SECTION_LIMIT, "a caller was blocked for {slowest:?}");
        });
        let entered = entered.load(Ordering::Relaxed);
        assert!(entered > 1000, "only {entered} sections");
        assert_eq!(source.space().gate().lost(), None);
        wait_until("the probe is quiet", Duration::from_secs(5), || source.probe() == Probe::Quiet);
    });
}
