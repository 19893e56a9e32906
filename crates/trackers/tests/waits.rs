//! Every wait of every tracker ends, and says why; what a model cannot show, because it has no clock.
#![cfg(not(any(loom, shuttle)))]

use std::thread;
use std::time::{Duration, Instant};

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::collision::{CollisionTracker, Reader};
use pagemirror_core::error::Error;
use pagemirror_core::gate::{Gate, LostCause};
use pagemirror_core::notify::Event;
use pagemirror_core::space::AddressSpace;
use pagemirror_core::wait::{CancelToken, Deadline};
use pagemirror_trackers::catalogue::TrackerName;

/// A deadline that no test reaches; one that does has hung.
const NEVER: Duration = Duration::from_secs(60);
/// Long enough that a thread which was started is asleep by then, short enough for a test.
const ASLEEP: Duration = Duration::from_millis(50);

type Space = AddressSpace<Box<dyn CollisionTracker>>;

fn pages(first: u64, count: u64) -> PageRange {
    PageRange::covering(VirtAddr::new(first << 12), count << 12, 4096).unwrap()
}

/// What ends a wait.
#[derive(Debug, Clone, Copy)]
enum Ending {
    EndOfInvalidation,
    Cancellation,
    Release,
}

/// For each tracker, with and without a subscription: begins to read on a thread of its own while an invalidation of the
/// range runs, and says what came of it once this has happened.
fn assert_wait_ends(by: Ending, expected: Result<bool, Error>) {
    for name in TrackerName::ALL {
        for subscribed in [false, true] {
            let space = Space::new(name.build(), Gate::in_ordinary_memory());
            let subscription = subscribed.then(|| space.tracker().subscribe(pages(0, 4))).flatten();
            let mut running = Some(space.invalidate_start(pages(1, 4), Event::Requested));
            let reader = Reader { subscription, ..Reader::of(pages(0, 2)) };
            let token = CancelToken::default();
            let deadline = Deadline::after(NEVER).or_cancelled(&token);
            let answer = thread::scope(|scope| {
                let reading = scope.spawn(|| space.read_begin_as(&reader, &deadline).map(|attempt| attempt.waited()));
                thread::sleep(ASLEEP);
                assert!(!reading.is_finished(), "{name}: did not wait for what overlaps");
                match by {
                    Ending::EndOfInvalidation => running = None,
                    Ending::Cancellation => token.cancel(),
                    Ending::Release => space.release(),
                }
                reading.join().unwrap()
            });
            assert_eq!(answer, expected, "{name}, subscribed: {subscribed}");
            drop(running);
        }
    }
}

#[test]
fn the_end_of_what_runs_lets_the_reader_go_on() {
    assert_wait_ends(Ending::EndOfInvalidation, Ok(true));
}

#[test]
fn a_cancelled_wait_comes_back_long_before_its_deadline() {
    assert_wait_ends(Ending::Cancellation, Err(Error::Cancelled { range: pages(0, 2) }));
}

#[test]
fn a_released_space_ends_the_wait_and_says_so() {
    assert_wait_ends(Ending::Release, Err(Error::Lost { range: pages(0, 2), cause: LostCause::Released }));
}

#[test]
fn a_deadline_that_passes_ends_the_wait() {
    for name in TrackerName::ALL {
        let space = Space::new(name.build(), Gate::in_ordinary_memory());
        let running = space.invalidate_start(pages(1, 4), Event::Requested);
        let begun = Instant::now();
        let answer = space.read_begin(pages(0, 2), None, &Deadline::after(ASLEEP)).map(drop);
        assert_eq!(answer, Err(Error::TimedOut { range: pages(0, 2) }), "{name}");
        assert!(begun.elapsed() >= ASLEEP && begun.elapsed() < NEVER, "{name}");
        drop(running);
        // What the attempt left behind, if anything, is in nobody's way.
        let answer = space.read_begin(pages(0, 2), None, &Deadline::after(Duration::ZERO)).map(|it| it.is_valid());
        assert_eq!(answer, Ok(true), "{name}");
    }
}

#[test]
fn an_expired_deadline_is_no_obstacle_where_nothing_runs() {
    for name in TrackerName::ALL {
        for build in [TrackerName::build, TrackerName::build_near_wrap] {
            let space = Space::new(build(name), Gate::in_ordinary_memory());
            for _ in 0..8 {
                let attempt = space.read_begin(pages(0, 1), None, &Deadline::after(Duration::ZERO)).unwrap();
                assert!(attempt.is_valid() && !attempt.waited(), "{name}");
                drop(space.invalidate_start(pages(0, 1), Event::Requested));
                let forgets = name == TrackerName::RangeValid;
                assert_eq!(attempt.is_valid(), forgets, "{name}: what started and ended in between");
            }
        }
    }
}
