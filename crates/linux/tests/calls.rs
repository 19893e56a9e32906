//! The calls that say so first, against the real kernel: what was cached is stale before the change, nothing new is cached
//! beside it, and the doubt about one's own discard ends exactly when it may.
#![expect(unsafe_code, reason = "discards, protects and unmaps real memory")]

mod support;

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pagemirror_core::addr::PageRange;
use pagemirror_core::holder::Holder;
use pagemirror_core::notify::{Event, Subscriber};
use pagemirror_core::source::{Probe, Source};
use pagemirror_core::wait::Deadline;
use pagemirror_linux::{Config, Discard, Discarded, Unmapped, Userfault, Uses};
use rustix::mm::MprotectFlags;
use support::{Memory, PAGE, in_child, memfd, source_with, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// Remembers what was revoked, and what its first byte was at that moment; none where nothing was mapped.
#[derive(Default)]
struct Revoked(Mutex<Vec<(PageRange, Option<u8>)>>);

impl Subscriber for Revoked {
    fn invalidate(&self, range: PageRange, _event: Event) {
        let mut byte = [0];
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let read = memory.read_exact_at(&mut byte, range.start().get());
        self.0.lock().unwrap().push((range, read.is_ok().then_some(byte[0])));
    }
}

impl Revoked {
    /// What the first byte of `memory` was when it was first revoked since this was last asked.
    fn first(&self, memory: Memory) -> Option<u8> {
        let mut all = self.0.lock().unwrap();
        let found = all.iter().find(|(range, _)| range.overlaps(memory.range())).copied();
        all.clear();
        found.expect("it was not revoked").1
    }
}

/// Runs `body` with a source in a process of its own: what others discard would be seen.
fn alone(test: &str, body: impl FnOnce(&Arc<Userfault>)) {
    in_child(test, LIMIT, || {
        if let Some(source) = source_with(test, Config::default()) {
            body(&source);
        }
    });
}

fn watched(source: &Userfault, memory: Memory) -> Memory {
    memory.fill(1);
    let _ = source.watch(memory.range()).unwrap();
    wait_until("no doubt is left", LIMIT, || !source.space().doubt().any());
    memory
}

fn discard(source: &Userfault, memory: Memory, how: Discard) -> Discarded {
    // SAFETY: the test's own memory, borrowed by nobody.
    unsafe { source.discard(memory.range(), how) }.unwrap()
}

fn file(fd: i32) -> BorrowedFd<'static> {
    // SAFETY: a descriptor that the test never closes.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// A thread that computes and never sleeps, so that no doubt is proven over while it runs.
struct Computing(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Computing {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !theirs.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        Self(over, Some(thread))
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn the_doubt_about_ones_own_discard_is_over_at_once_and_that_about_anothers_is_not() {
    alone("the_doubt_about_ones_own_discard_is_over_at_once_and_that_about_anothers_is_not", |source| {
        let memory = watched(source, Memory::anonymous(16));
        let computing = Computing::start();
        let mut known = 0;
        for _ in 0..100 {
            memory.fill(2);
            match discard(source, memory, Discard::Now) {
                Discarded::Known => {
                    known += 1;
                    assert!(!source.space().doubt().overlaps(memory.range()));
                }
                Discarded::InDoubt => wait_until("the prover meets the thread between two clock ticks", LIMIT, || {
                    !source.space().doubt().any()
                }),
            }
            assert_eq!(memory.byte(7), 0, "the pages went");
        }
        assert!(known >= 90, "only {known} of 100 were known to be over");
        // Somebody else's, by the plain call, of the same range: nothing is known, and nothing is ended.
        memory.advise(libc::MADV_DONTNEED);
        let doubted = source.space().doubt().overlaps(memory.range());
        let answer = discard(source, memory, Discard::Now);
        if doubted {
            assert_eq!(answer, Discarded::InDoubt);
            assert!(source.space().doubt().overlaps(memory.range()), "the older doubt was ended with ours");
        }
        assert!(doubted, "the thread that computes was taken for one that sleeps");
        drop(computing);
        wait_until("the doubts end", LIMIT, || !source.space().doubt().any());
    });
}

/// Somebody else's discard of the same range is announced beside ours, after ours had found nothing in doubt: the two cannot be
/// told apart, so the doubt stays.
#[test]
fn a_discard_beside_anothers_is_in_doubt() {
    alone("a_discard_beside_anothers_is_in_doubt", |source| {
        let memory = watched(source, Memory::anonymous(16));
        let computing = Computing::start();
        source.stall_pump(true);
        let other = std::thread::spawn(move || memory.advise(libc::MADV_DONTNEED));
        wait_until("the other's is announced", LIMIT, || source.probe() == Probe::Changing);
        let theirs = Arc::clone(source);
        let ours = std::thread::spawn(move || discard(&theirs, memory, Discard::Now));
        std::thread::sleep(Duration::from_millis(100));
        source.stall_pump(false);
        assert_eq!(ours.join().unwrap(), Discarded::InDoubt);
        assert!(source.space().doubt().overlaps(memory.range()));
        other.join().unwrap();
        drop(computing);
        wait_until("the doubts end", LIMIT, || !source.space().doubt().any());
    });
}

#[test]
fn protection_and_unmapping_revoke_before_they_change() {
    alone("protection_and_unmapping_revoke_before_they_change", |source| {
        let memory = watched(source, Memory::anonymous(4));
        let revoked = Arc::new(Revoked::default());
        let _subscription = source.space().subscribe(Arc::clone(&revoked) as Arc<dyn Subscriber>);
        // SAFETY: the test's own memory, borrowed by nobody.
        unsafe { source.protect(memory.range(), MprotectFlags::READ) }.unwrap();
        assert_eq!(revoked.first(memory), Some(1), "mprotect");
        // SAFETY: as above.
        assert_eq!(unsafe { source.unmap(memory.range(), Uses::Detach) }.unwrap(), Unmapped::Detached);
        assert_eq!(revoked.first(memory), Some(1), "munmap: revoked when it was gone already");
        // SAFETY: as above; nothing is mapped there, so nothing is changed.
        let error = unsafe { source.protect(memory.range(), MprotectFlags::READ) }.unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOMEM));
        let text = error.to_string();
        assert!(text.contains(&memory.range().to_string()) && text.contains("map it first"), "{text}");
    });
}

/// A miss that begins while the call runs is not kept, and one that begins later is.
#[test]
fn nothing_is_cached_while_the_change_runs() {
    alone("nothing_is_cached_while_the_change_runs", |source| {
        let memory = watched(source, Memory::anonymous(4));
        let space = source.space();
        let attempt = space.read_begin(memory.range(), None, &Deadline::after(LIMIT)).unwrap();
        let running = source.invalidate(memory.range());
        assert!(!attempt.is_valid());
        drop(attempt);
        let soon = Deadline::after(Duration::from_millis(20));
        assert!(space.read_begin(memory.range(), None, &soon).is_err(), "it does not wait for the change");
        drop(running);
        assert!(space.read_begin(memory.range(), None, &Deadline::after(LIMIT)).unwrap().is_valid());
    });
}

#[test]
fn operations_on_a_file_reach_every_mapping_of_it() {
    alone("operations_on_a_file_reach_every_mapping_of_it", |source| {
        let fd = memfd(8);
        let (one, two) = (watched(source, Memory::shared(fd, 8)), Memory::shared(fd, 8));
        let private = Memory::private(fd, 8);
        let other = watched(source, Memory::shared(memfd(8), 8));
        let revoked = Arc::new(Revoked::default());
        let _subscription = source.space().subscribe(Arc::clone(&revoked) as Arc<dyn Subscriber>);
        let all = |what: &str, part: fn(Memory) -> Memory, spared: fn(Memory) -> Memory| {
            let events = revoked.0.lock().unwrap().split_off(0);
            let reached = |memory: Memory| events.iter().any(|(range, _)| range.overlaps(memory.range()));
            for memory in [one, two, private] {
                let first = events.iter().find(|(range, _)| range.overlaps(part(memory).range()));
                assert!(
                    first.is_some_and(|(_, byte)| *byte == Some(1)),
                    "{what}: {first:?} of {memory:?} was gone already"
                );
                assert!(reached(part(memory)), "{what}: {memory:?} was missed");
                assert!(!reached(spared(memory)), "{what}: too much of {memory:?}");
            }
            assert!(!reached(other), "{what}: another file");
        };
        source.punch(file(fd).as_fd(), PAGE as u64, 2 * PAGE as u64).unwrap();
        all("a hole", |memory| memory.part(1, 2), |memory| memory.part(3, 5));
        assert_eq!((one.byte(1), one.byte(3)), (0, 1));
        discard(source, one.part(4, 1), Discard::FromFile);
        all("MADV_REMOVE", |memory| memory.part(4, 1), |memory| memory.part(5, 3));
        discard(source, two.part(5, 1), Discard::FromFile);
        all(
            "MADV_REMOVE through a mapping that is not watched",
            |memory| memory.part(5, 1),
            |memory| memory.part(6, 2),
        );
        source.truncate(file(fd).as_fd(), 6 * PAGE as u64).unwrap();
        all("a truncation", |memory| memory.part(6, 2), |memory| memory.part(0, 6));
        // SAFETY: a descriptor of the test's own.
        let sealed = unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) };
        assert_eq!(sealed, -1, "a memfd without MFD_ALLOW_SEALING takes no seals");
        let error = source.punch(file(fd).as_fd(), 0, 0).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EINVAL), "{error}");
    });
}

/// Uses that end when they are told to.
struct Pretended(Mutex<u32>, std::sync::Condvar);

impl Holder for Pretended {
    fn wait_released(&self, _range: PageRange, deadline: &Deadline<'_>) -> bool {
        let mut uses = self.0.lock().unwrap();
        while *uses > 0 && deadline.expired().is_none() {
            uses = self.1.wait_timeout(uses, Duration::from_millis(5)).unwrap().0;
        }
        *uses == 0
    }
}

#[test]
fn a_blocking_unmapping_waits_for_the_uses_and_not_for_ever() {
    alone("a_blocking_unmapping_waits_for_the_uses_and_not_for_ever", |source| {
        let uses = Arc::new(Pretended(Mutex::new(1), std::sync::Condvar::new()));
        let first = watched(source, Memory::anonymous(4));
        let soon = Deadline::after(Duration::from_millis(50));
        // SAFETY: the test's own memory, borrowed by nobody.
        let unmapped = unsafe { source.unmap(first.range(), Uses::Block(&[uses.as_ref()], &soon)) }.unwrap();
        assert_eq!(unmapped, Unmapped::Detached);
        assert!(soon.expired().is_some(), "it did not wait");

        let second = watched(source, Memory::anonymous(4));
        let theirs = Arc::clone(&uses);
        let ends = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            // Still mapped: the use reads it.
            assert_eq!(second.byte(0), 1);
            *theirs.0.lock().unwrap() = 0;
            theirs.1.notify_all();
        });
        // SAFETY: as above.
        let unmapped =
            unsafe { source.unmap(second.range(), Uses::Block(&[uses.as_ref()], &Deadline::after(LIMIT))) }.unwrap();
        assert_eq!(unmapped, Unmapped::Released);
        ends.join().unwrap();
    });
}

#[test]
fn a_call_from_inside_a_submission_is_refused() {
    alone("a_call_from_inside_a_submission_is_refused", |source| {
        let memory = watched(source, Memory::anonymous(1));
        let pagemirror_core::gate::Entered::Open(section) = source.space().gate().enter() else { panic!("not open") };
        // SAFETY: the test's own memory, borrowed by nobody.
        let error = unsafe { source.unmap(memory.range(), Uses::Detach) }.unwrap_err();
        drop(section);
        assert_eq!(error.errno(), Some(libc::EDEADLK));
        assert_eq!(memory.byte(0), 1, "it was unmapped all the same");
    });
}
