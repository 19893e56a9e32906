//! Every way to end a doubt too early that was ever found, on the real kernel. The rule under test: what is written after
//! the doubt has ended stays.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pagemirror_core::source::Source;
use pagemirror_linux::{Config, Control, Userfault};
use support::{Memory, PAGE, in_child, memfd, pin, run_last, source_with, wait_until};

/// Pages of the slow discard: enough that taking them away lasts while its caller gets no processor.
const PAGES: usize = 32 * 1024;

/// Between announcing and doing a discard lie some microseconds to milliseconds. Here they are made long: the caller runs
/// only when nobody else wants its CPU, and a spinner wants it until the discard is over.
struct SlowDiscard {
    memory: Memory,
    returned: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl SlowDiscard {
    fn start(source: &Userfault, memory: Memory, advice: i32) -> Self {
        memory.try_advise(libc::MADV_NOHUGEPAGE);
        memory.fill(1);
        let _ = source.watch(memory.range()).unwrap();
        let returned = Arc::new(AtomicBool::new(false));
        let before = source.space().doubt().mark();
        let (over, spinning) = (Arc::clone(&returned), Arc::clone(&returned));
        let spinner = thread::spawn(move || {
            pin(1);
            while !spinning.load(Ordering::SeqCst) {
                // A moment off the processor now and then, so that it can be seen elsewhere.
                let since = Instant::now();
                while since.elapsed() < Duration::from_millis(3) {
                    std::hint::spin_loop();
                }
                thread::sleep(Duration::from_micros(50));
            }
        });
        let caller = thread::spawn(move || {
            pin(1);
            run_last();
            // The kernel looks the address up again after the announcement, and says ENOMEM when a test has unmapped it.
            memory.try_advise(advice);
            over.store(true, Ordering::SeqCst);
        });
        wait_until("the discard is announced", Duration::from_secs(60), || source.space().doubt().mark() > before);
        Self { memory, returned, threads: vec![caller, spinner] }
    }

    fn running(&self) -> bool {
        !self.returned.load(Ordering::SeqCst)
    }

    fn join(self) {
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// Waits for the end of the doubt, writes to three pages, lets the discard finish, and says how many of them survived.
fn survivors(source: &Userfault, discard: SlowDiscard) -> usize {
    let memory = discard.memory;
    let doubt = source.space().doubt();
    wait_until("the doubt ends", Duration::from_secs(100), || !doubt.overlaps(memory.range()));
    let written = [PAGES / 2, PAGES - 2, PAGES - 1];
    written.iter().for_each(|page| memory.set_byte(*page, 7));
    discard.join();
    written.iter().filter(|page| memory.byte(**page) == 7).count()
}

/// One attack: `disturb` runs between the announcement and the end of the doubt, and tries to end it early.
fn attack(test: &str, config: Config, disturb: impl Fn(&Userfault, Memory)) -> Option<usize> {
    let source = source_with(test, config)?;
    let discard = SlowDiscard::start(&source, Memory::anonymous(PAGES), libc::MADV_DONTNEED);
    if !discard.running() {
        support::skipped(test, "the discard was over before it could be disturbed");
        return None;
    }
    disturb(&source, discard.memory);
    Some(survivors(&source, discard))
}

fn holds(test: &'static str, disturb: impl Fn(&Userfault, Memory)) {
    in_child(test, Duration::from_secs(120), || {
        if let Some(survived) = attack(test, Config::default(), disturb) {
            assert_eq!(survived, 3, "written after the doubt had ended, and gone");
        }
    });
}

#[test]
fn an_undisturbed_discard() {
    holds("an_undisturbed_discard", |_, _| {});
}

/// Two discards of one range: the second one's end says nothing of the first.
#[test]
fn a_second_discard_that_overtakes_the_first() {
    holds("a_second_discard_that_overtakes_the_first", |_, memory| {
        memory.part(PAGES - 1, 1).advise(libc::MADV_DONTNEED);
    });
}

/// The same attack with the doubt ended by the first absence that is seen: it must lose a page, or this test tests nothing. It
/// takes the right moment, so it is tried again.
#[test]
fn ending_it_by_an_absent_page_loses_what_is_written() {
    in_child("ending_it_by_an_absent_page_loses_what_is_written", Duration::from_secs(120), || {
        let control = Control { doubt_ends_at_first_absence: true, ..Control::default() };
        let name = "ending_it_by_an_absent_page_loses_what_is_written";
        let disturb = |_: &Userfault, memory: Memory| memory.part(PAGES - 1, 1).advise(libc::MADV_DONTNEED);
        for _ in 0..20 {
            match attack(name, Config { control }, disturb) {
                Some(3) => {}
                Some(_) | None => return,
            }
        }
        panic!("the control lost nothing: the attack does not reach the window");
    });
}

/// The page under a pending discard moves to another frame, by fork and a write.
#[test]
fn a_changed_frame() {
    holds("a_changed_frame", |_, memory| {
        let child = fork_sleeper();
        memory.set_byte(PAGES - 1, 2);
        end(child);
    });
}

/// The address is unmapped and mapped anew while the discard is pending: its caller will look the address up again.
#[test]
fn the_address_is_mapped_anew() {
    holds("the_address_is_mapped_anew", |_, memory| {
        let last = memory.part(PAGES - 2, 2);
        last.unmap();
        Memory::anonymous_at(last.start, 2).fill(3);
    });
}

/// Pages that were freed lazily are reclaimed: absent, though the discard has not come by.
#[test]
fn lazily_freed_pages_are_reclaimed() {
    holds("lazily_freed_pages_are_reclaimed", |_, memory| {
        let last = memory.part(PAGES - 2, 2);
        last.try_advise(libc::MADV_FREE);
        last.try_advise(libc::MADV_PAGEOUT);
    });
}

/// Guard pages come and go without an event, and leave the pages absent.
#[test]
fn guard_pages_come_and_go() {
    const GUARD_INSTALL: i32 = 102;
    const GUARD_REMOVE: i32 = 103;
    holds("guard_pages_come_and_go", |_, memory| {
        let last = memory.part(PAGES - 2, 2);
        if !last.try_advise(GUARD_INSTALL) {
            support::skipped("guard_pages_come_and_go", "this kernel has no guard pages");
        }
        last.try_advise(GUARD_REMOVE);
    });
}

/// A discard that entered the kernel before the mapping was watched is announced to nobody. So shared memory starts in
/// doubt, and the proof waits for that caller.
#[test]
fn a_discard_from_before_the_watch() {
    let name = "a_discard_from_before_the_watch";
    in_child(name, Duration::from_secs(120), || {
        let Some(source) = source_with(name, Config::default()) else { return };
        let mut reached = 0;
        for round in 0..20 {
            let memory = Memory::shared(memfd(PAGES / 2), PAGES / 2);
            memory.fill(1);
            let caller = thread::spawn(move || memory.advise(libc::MADV_REMOVE));
            thread::sleep(Duration::from_micros(200 * round));
            let _ = source.watch(memory.range()).unwrap();
            wait_until("the doubt ends", Duration::from_secs(60), || {
                source.watch(memory.range()) == Ok(pagemirror_core::source::Watched::Covered)
            });
            reached += usize::from(!caller.is_finished());
            let last = memory.len / PAGE - 1;
            memory.set_byte(last, 7);
            caller.join().unwrap();
            assert_eq!(memory.byte(last), 7, "round {round}: removed after it was cleared");
            memory.unmap();
        }
        println!("{name}: {reached} of 20 callers had not been joined when the doubt ended");
    });
}

#[expect(unsafe_code, reason = "forks a child that only sleeps")]
fn fork_sleeper() -> i32 {
    // SAFETY: the child calls nothing but pause and _exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: sleeps until it is killed.
        unsafe { libc::pause() };
        // SAFETY: ends the child without running anything of the test.
        unsafe { libc::_exit(0) };
    }
    child
}

#[expect(unsafe_code, reason = "ends the child that this test has forked")]
fn end(child: i32) {
    // SAFETY: the child is ours and not reaped yet.
    unsafe { libc::kill(child, libc::SIGKILL) };
    // SAFETY: as above; its status is not asked for.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}
