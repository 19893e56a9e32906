//! Every wait ends, and says why: what a model cannot show, because it has no clock.
#![cfg(not(any(loom, shuttle)))]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::error::Error;
use pagemirror_core::gate::LostCause;
use pagemirror_core::notify::Event;
use pagemirror_core::space::AddressSpace;
use pagemirror_core::wait::{CancelToken, Deadline, Interrupted, Wait, WaitQueue};

/// A deadline that no test reaches; one that does has hung.
const NEVER: Duration = Duration::from_secs(60);
/// Long enough that a thread which was started is asleep by then, short enough for a test.
const ASLEEP: Duration = Duration::from_millis(50);
/// The scheduler of a busy machine may be late by this much, hardly by more.
const LATE: Duration = Duration::from_secs(10);

fn pages(first: u64, count: u64) -> PageRange {
    PageRange::covering(VirtAddr::new(first << 12), count << 12, 4096).unwrap()
}

/// Runs `read_begin` of `pages(0, 2)` on a thread of its own while an invalidation of it runs, and `then` beside it.
fn wait_beside(deadline: Deadline<'_>, then: impl FnOnce(&AddressSpace)) -> (Result<(), Error>, Duration) {
    let space = AddressSpace::default();
    let running = space.invalidate_start(pages(1, 4), Event::Requested);
    let begun = Instant::now();
    let answer = thread::scope(|scope| {
        let reader = scope.spawn(|| space.read_begin(pages(0, 2), None, &deadline).map(drop));
        thread::sleep(ASLEEP);
        assert!(deadline.expired().is_some() || !reader.is_finished(), "did not wait for an overlapping invalidation");
        then(&space);
        reader.join().unwrap()
    });
    drop(running);
    (answer, begun.elapsed())
}

#[test]
fn a_cancelled_wait_comes_back_long_before_its_deadline() {
    let token = CancelToken::default();
    let (answer, took) = wait_beside(Deadline::after(NEVER).or_cancelled(&token), |_| token.cancel());
    assert_eq!(answer, Err(Error::Cancelled { range: pages(0, 2) }));
    assert!(took < LATE, "{took:?}");
}

#[test]
fn a_deadline_that_passes_names_the_range() {
    let (answer, took) = wait_beside(Deadline::after(ASLEEP), |_| {});
    let error = answer.unwrap_err();
    assert_eq!(error, Error::TimedOut { range: pages(0, 2) });
    assert!(error.to_string().contains("[0x0, 0x2000)"), "{error}");
    assert!(took >= ASLEEP && took < LATE, "{took:?}");
}

#[test]
fn a_released_space_ends_the_wait_and_says_so() {
    let (answer, took) = wait_beside(Deadline::after(NEVER), AddressSpace::release);
    assert_eq!(answer, Err(Error::Lost { range: pages(0, 2), cause: LostCause::Released }));
    assert!(took < LATE, "{took:?}");
}

#[test]
fn the_first_cause_of_a_loss_stays() {
    let space = AddressSpace::default();
    space.lose(LostCause::SourceClosed);
    space.release();
    let answer = space.read_begin(pages(0, 1), None, &Deadline::after(NEVER)).map(drop);
    assert_eq!(answer, Err(Error::Lost { range: pages(0, 1), cause: LostCause::SourceClosed }));
}

#[test]
fn a_reader_goes_on_when_its_own_invalidation_ends() {
    let space = Arc::new(AddressSpace::default());
    let forever = space.invalidate_start(pages(64, 1), Event::Requested);
    let running = space.invalidate_start(pages(0, 1), Event::Requested);
    let reader = {
        let space = Arc::clone(&space);
        thread::spawn(move || space.read_begin(pages(0, 1), None, &Deadline::after(NEVER)).map(drop))
    };
    thread::sleep(ASLEEP);
    assert!(!reader.is_finished(), "did not wait");
    drop(running);
    let begun = Instant::now();
    assert_eq!(reader.join().unwrap(), Ok(()));
    assert!(begun.elapsed() < LATE, "waited for the whole address space to be quiet");
    drop(forever);
}

#[test]
fn an_expired_deadline_is_no_obstacle_where_nothing_runs() {
    let space = AddressSpace::default();
    let elsewhere = space.invalidate_start(pages(64, 1), Event::Requested);
    let answer = space.read_begin(pages(0, 1), None, &Deadline::after(Duration::ZERO)).map(drop);
    assert_eq!(answer, Ok(()));
    drop(elsewhere);
}

#[test]
fn a_use_outside_a_raised_gate_waits_until_its_deadline() {
    let space = AddressSpace::default();
    space.gate().raise();
    let wait = |limit| space.gate().wait_open(&Wait::new(&Deadline::after(limit), space.gate()));
    let begun = Instant::now();
    assert!(matches!(wait(ASLEEP), Err(Interrupted::Expired(_))));
    assert!(begun.elapsed() >= ASLEEP);
    space.gate().lower();
    assert_eq!(wait(Duration::ZERO), Ok(()));
}

#[test]
fn a_queue_waits_at_most_as_long_as_it_is_told() {
    let queue = WaitQueue::new();
    let begun = Instant::now();
    assert!(!queue.wait_at_most(ASLEEP, || false));
    assert!(begun.elapsed() >= ASLEEP);
    assert!(queue.wait_at_most(Duration::ZERO, || true), "the condition is looked at before the clock");
}
