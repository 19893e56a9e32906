//! The 2019 design by itself: mirrors, ranges, refused starts, the end of the address space.
#![cfg(not(any(loom, shuttle)))]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::collision::{CollisionTracker, Reader, Verdict};
use pagemirror_core::gate::Gate;
use pagemirror_core::wait::{Deadline, Expired, Interrupted, Wait};
use pagemirror_trackers::range_valid::{
    Dead, Hmm, Mirror, MirrorOps, RANGE_DEFAULT_TIMEOUT, RangeValid, Refused, Update, Waited,
};

/// A deadline that no test reaches; one that does has hung.
const NEVER: Duration = Duration::from_secs(60);
/// Long enough that a thread which was started is asleep by then, short enough for a test.
const ASLEEP: Duration = Duration::from_millis(50);

fn pages(first: u64, count: u64) -> PageRange {
    PageRange::covering(VirtAddr::new(first << 12), count << 12, 4096).unwrap()
}

fn blockable(range: PageRange) -> Update {
    Update { range, blockable: true }
}

/// Counts what it is told, and refuses what may not block if it is told to.
#[derive(Default)]
struct Device {
    told: AtomicUsize,
    released: AtomicUsize,
    busy: AtomicBool,
}

impl MirrorOps for Device {
    fn sync_cpu_device_pagetables(&self, update: &Update) -> Result<(), Refused> {
        if self.busy.load(Ordering::SeqCst) && !update.blockable {
            return Err(Refused);
        }
        self.told.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn release(&self) {
        self.released.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn precise_about_not_valid_and_lazy_about_valid() {
    let hmm = Hmm::new();
    let (here, elsewhere) = (hmm.range_register(pages(4, 4)).unwrap(), hmm.range_register(pages(32, 1)).unwrap());
    hmm.invalidate_range_start(&blockable(pages(7, 1))).unwrap();
    hmm.invalidate_range_start(&blockable(pages(100, 1))).unwrap();
    assert!(!here.is_valid() && elsewhere.is_valid());
    let late = hmm.range_register(pages(64, 1)).unwrap();
    assert!(!late.is_valid(), "registered while something runs");
    hmm.invalidate_range_end();
    assert!(!here.is_valid() && !late.is_valid(), "one that ends is not the last");
    hmm.invalidate_range_end();
    assert!(here.is_valid() && elsewhere.is_valid() && late.is_valid());
}

#[test]
fn a_neighbour_is_not_hit() {
    let hmm = Hmm::new();
    let range = hmm.range_register(pages(4, 2)).unwrap();
    for neighbour in [pages(3, 1), pages(6, 1)] {
        hmm.invalidate_range_start(&blockable(neighbour)).unwrap();
        assert!(range.is_valid(), "{neighbour}");
        hmm.invalidate_range_end();
    }
}

#[test]
fn a_flag_forgets_what_started_and_ended_in_between() {
    let (tracker, gate) = (RangeValid::default(), Gate::in_ordinary_memory());
    let deadline = Deadline::after(NEVER);
    let token = tracker.read_begin(&Reader::of(pages(4, 1)), &Wait::new(&deadline, &gate)).unwrap();
    let id = tracker.start(pages(4, 1));
    assert_eq!(tracker.read_retry(&token), Verdict::Hit(None));
    tracker.end(id);
    // This is the flaw, kept on purpose: the page has changed, and the tracker says that it has not.
    assert_eq!(tracker.read_retry(&token), Verdict::Valid);
    tracker.read_end(token);
    assert_eq!(tracker.hmm().registered(), 0);
}

#[test]
fn a_refused_start_leaves_no_count_behind() {
    let hmm = Hmm::new();
    let (first, second) = (Arc::new(Device::default()), Arc::new(Device::default()));
    let _mirrors = [&first, &second].map(|device| Mirror::register(&hmm, Arc::clone(device) as _).unwrap());
    let range = hmm.range_register(pages(4, 1)).unwrap();
    first.busy.store(true, Ordering::SeqCst);
    let refused = hmm.invalidate_range_start(&Update { range: pages(4, 1), blockable: false });
    assert_eq!(refused, Err(Refused));
    assert_eq!(second.told.load(Ordering::SeqCst), 0, "nobody is told after one has refused");
    assert!(range.is_valid(), "no end will come, so the start is undone");
    hmm.invalidate_range_start(&blockable(pages(4, 1))).unwrap();
    hmm.invalidate_range_end();
    assert!(range.is_valid());
    assert_eq!(second.told.load(Ordering::SeqCst), 1);
}

#[test]
fn a_refused_start_beside_one_that_runs_ends_only_itself() {
    let tracker = RangeValid::default();
    let range = tracker.hmm().range_register(pages(4, 1)).unwrap();
    let running = tracker.start(pages(4, 1));
    tracker.cancel(tracker.start(pages(4, 1)));
    assert!(!range.is_valid());
    tracker.end(running);
    assert!(range.is_valid());
}

#[test]
fn a_wait_ends_at_the_limit_of_the_design_or_of_the_caller() {
    let (hmm, gate) = (Hmm::new(), Gate::in_ordinary_memory());
    hmm.mark(pages(4, 1));
    let range = hmm.range_register(pages(4, 1)).unwrap();
    let wait = |limit, deadline| {
        let deadline = Deadline::after(deadline);
        let begun = Instant::now();
        (range.wait_until_valid(limit, &Wait::new(&deadline, &gate)), begun.elapsed())
    };
    let (answer, took) = wait(ASLEEP, NEVER);
    assert_eq!(answer, Ok(Waited::TimedOut));
    assert!(took >= ASLEEP, "{took:?}");
    let (answer, took) = wait(NEVER, ASLEEP);
    assert_eq!(answer, Err(Interrupted::Expired(Expired::TimedOut)));
    assert!(took >= ASLEEP && took < NEVER, "{took:?}");
    hmm.invalidate_range_end();
    assert_eq!(wait(ASLEEP, NEVER).0, Ok(Waited::Valid));
}

#[test]
fn on_the_seam_a_wait_goes_round_until_the_caller_gives_up() {
    let (tracker, gate) = (RangeValid::default(), Gate::in_ordinary_memory());
    let id = tracker.start(pages(4, 1));
    let deadline = Deadline::after(RANGE_DEFAULT_TIMEOUT + ASLEEP);
    let answer = tracker.read_begin(&Reader::of(pages(4, 1)), &Wait::new(&deadline, &gate)).map(drop);
    assert_eq!(answer, Err(Interrupted::Expired(Expired::TimedOut)));
    assert_eq!(tracker.timeouts(), 1, "a driver of that time would have said busy once");
    assert_eq!(tracker.hmm().registered(), 0, "the range of the attempt is given back");
    tracker.end(id);
}

#[test]
fn the_end_of_the_address_space_ends_every_wait_and_is_for_ever() {
    let (hmm, gate, device) = (Hmm::new(), Gate::in_ordinary_memory(), Arc::new(Device::default()));
    let _mirror = Mirror::register(&hmm, Arc::clone(&device) as _).unwrap();
    let (waiting, untouched) = (hmm.range_register(pages(4, 1)).unwrap(), hmm.range_register(pages(9, 1)).unwrap());
    hmm.mark(pages(4, 1));
    let deadline = Deadline::after(NEVER);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| waiting.wait_until_valid(NEVER, &Wait::new(&deadline, &gate)));
        thread::sleep(ASLEEP);
        assert!(!waiter.is_finished(), "did not wait");
        hmm.release();
        assert_eq!(waiter.join().unwrap(), Err(Interrupted::Lost));
    });
    assert!(deadline.expired().is_none(), "it was the deadline that ended the wait");
    assert_eq!(device.released.load(Ordering::SeqCst), 1);
    hmm.invalidate_range_end();
    assert!(!waiting.is_valid() && !untouched.is_valid(), "the last end marked ranges of a dead address space");
    assert_eq!(hmm.range_register(pages(4, 1)).map(drop), Err(Dead));
    assert_eq!(Mirror::register(&hmm, device).map(drop), Err(Dead));
}

#[test]
fn readers_of_a_dead_address_space_are_told_so() {
    let (tracker, gate) = (RangeValid::default(), Gate::in_ordinary_memory());
    tracker.hmm().release();
    let deadline = Deadline::after(NEVER);
    let answer = tracker.read_begin(&Reader::of(pages(4, 1)), &Wait::new(&deadline, &gate)).map(drop);
    assert_eq!(answer, Err(Interrupted::Lost));
    assert_eq!(tracker.subscribe(pages(4, 1)), None);
}

#[test]
fn mirrors_and_ranges_keep_the_address_space() {
    let hmm = Hmm::new();
    let watch = Arc::downgrade(&hmm);
    let alive = |watch: &Weak<Hmm>| watch.strong_count() > 0;
    let device = Arc::new(Device::default());
    let mirror = Mirror::register(&hmm, Arc::clone(&device) as _).unwrap();
    let range = mirror.hmm().range_register(pages(4, 1)).unwrap();
    drop(hmm);
    assert!(alive(&watch));
    drop(mirror);
    assert_eq!(Arc::strong_count(&device), 1, "a mirror that was unregistered is told nothing more");
    assert!(alive(&watch) && range.is_valid());
    drop(range);
    assert!(!alive(&watch));
}

#[test]
fn many_ranges_come_and_go_without_mixing_their_flags() {
    let hmm = Hmm::new();
    let mut ranges: Vec<_> = (0..1000).map(|n| Some(hmm.range_register(pages(n * 2, 1)).unwrap())).collect();
    ranges.iter_mut().step_by(3).for_each(|range| *range = None);
    let again: Vec<_> = (0..400).map(|n| hmm.range_register(pages(n * 2, 1)).unwrap()).collect();
    hmm.mark(pages(200, 101));
    let hit = |n: usize| (100..=150).contains(&n);
    for (n, range) in ranges.iter().enumerate().filter_map(|(n, range)| Some((n, range.as_ref()?))) {
        assert_eq!(range.is_valid(), !hit(n), "{n}");
    }
    again.iter().enumerate().for_each(|(n, range)| assert_eq!(range.is_valid(), !hit(n), "{n} again"));
    assert_eq!(hmm.registered(), 1000 - 334 + 400);
}
