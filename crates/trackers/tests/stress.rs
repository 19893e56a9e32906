//! All trackers on real threads for a second: no device ever holds a page that is not there, and nobody is left waiting.
//!
//! While the device lock is held, what is installed must be what the page table says: an invalidation that is past its
//! callback has taken the translation away, one that is not has changed nothing yet, and what is installed meanwhile was
//! permitted. `RangeValid` is known to break this now and then, so of it only progress is asked.
#![cfg(not(any(loom, shuttle)))]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::collision::{CollisionTracker, Reader, SubscriptionId};
use pagemirror_core::device::{Commit, DeviceTable, Granted, Mappings};
use pagemirror_core::gate::Gate;
use pagemirror_core::notify::Event;
use pagemirror_core::space::AddressSpace;
use pagemirror_core::wait::{Deadline, Wait};
use pagemirror_trackers::catalogue::TrackerName;

/// How long each tracker is driven; five of them take a second.
const TIME: Duration = Duration::from_millis(200);
/// Far above any wait here; a reader that waits as long has been forgotten.
const NEVER: Duration = Duration::from_secs(30);

const PAGES: usize = 8;
const READERS: u64 = 2;
const WRITERS: u64 = 2;

/// The page table: which page lies where. Changed only between callback and end of an invalidation.
type Contents = Arc<[AtomicU64; PAGES]>;

/// What was read: the first page, and the contents from there on.
type Seen = Vec<u64>;

struct Device {
    contents: Contents,
    installed: [Option<u64>; PAGES],
    /// Whether a stale page is a finding.
    strict: bool,
}

impl Device {
    fn assert_coherent(&self) {
        for (held, content) in self.installed.iter().zip(&*self.contents) {
            // ORDERING: Relaxed; the device lock and the tracker carry the order, which is what is tested.
            let now = content.load(Ordering::Relaxed);
            let stale = held.is_some_and(|held| held != now);
            assert!(!stale || !self.strict, "the device holds page {held:?}, but page {now} is there");
        }
    }
}

impl Mappings for Device {
    type Item = Seen;

    fn install(&mut self, _granted: Granted, range: PageRange, seen: Seen) {
        for (at, content) in indices(range).zip(seen) {
            self.installed[at] = Some(content);
        }
        self.assert_coherent();
    }

    fn revoke(&mut self, range: PageRange, _event: Event) {
        self.assert_coherent();
        indices(range).for_each(|at| self.installed[at] = None);
    }
}

fn pages(first: u64, count: u64) -> PageRange {
    PageRange::covering(VirtAddr::new(first << 12), count << 12, 4096).unwrap()
}

fn indices(range: PageRange) -> std::ops::Range<usize> {
    (range.start().get() >> 12) as usize..(range.end().get() >> 12) as usize
}

/// A random sequence (xorshift64, Marsaglia 2003), seeded by the thread's number: good enough to mix ranges.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn range(&mut self) -> PageRange {
        let first = self.below(PAGES as u64);
        pages(first, 1 + self.below((PAGES as u64 - first).min(3)))
    }
}

struct World {
    space: Arc<AddressSpace<Box<dyn CollisionTracker>>>,
    table: DeviceTable<Device, Box<dyn CollisionTracker>>,
    contents: Contents,
    stop: AtomicBool,
    installed: AtomicUsize,
    collided: AtomicUsize,
    changed: AtomicUsize,
}

impl World {
    fn new(name: TrackerName) -> Self {
        let contents: Contents = Arc::default();
        let space = Arc::new(AddressSpace::new(name.build_near_wrap(), Gate::in_ordinary_memory()));
        let strict = name != TrackerName::RangeValid;
        let device = Device { contents: Arc::clone(&contents), installed: [None; PAGES], strict };
        let table = DeviceTable::new(&space, device);
        let count = || AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        Self { space, table, contents, stop, installed: count(), collided: count(), changed: count() }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn invalidate(&self, mut random: Random) {
        while self.goes_on() {
            let range = random.range();
            if random.below(16) == 0 {
                // Refused: nothing is changed.
                let tracker = self.space.tracker();
                tracker.cancel(tracker.start(range));
            }
            let running = self.space.invalidate_start(range, Event::Requested);
            for content in &self.contents[indices(range)] {
                // ORDERING: Relaxed; the tracker carries the order.
                content.fetch_add(1, Ordering::Relaxed);
            }
            drop(running);
            self.changed.fetch_add(1, Ordering::Relaxed);
            if random.below(4) == 0 {
                thread::yield_now();
            }
        }
    }

    fn read(&self, mut random: Random) {
        let tracker = self.space.tracker();
        let mut subscribed: Option<(SubscriptionId, PageRange)> = None;
        while self.goes_on() {
            if random.below(32) == 0 {
                let deadline = Deadline::after(NEVER);
                let gone =
                    subscribed.take().map(|(id, _)| tracker.unsubscribe(id, &Wait::new(&deadline, self.space.gate())));
                assert!(gone.is_none_or(|gone| gone.is_ok()), "a subscription was not forgotten: {gone:?}");
                let range = random.range();
                subscribed = tracker.subscribe(range).map(|id| (id, range));
            }
            let under = subscribed.filter(|_| random.below(2) == 0);
            let range = under.map_or_else(|| random.range(), |(_, range)| range);
            self.fault(&Reader { subscription: under.map(|(id, _)| id), ..Reader::of(range) });
        }
    }

    fn fault(&self, reader: &Reader) {
        let begun = self.space.read_begin_as(reader, &Deadline::after(NEVER));
        // Lost when a callback found a stale page, and out of time when nobody woke it.
        let attempt = begun.unwrap_or_else(|why| panic!("a reader was left alone: {why}"));
        let seen = self.contents[indices(reader.range)].iter().map(|content| content.load(Ordering::Relaxed)).collect();
        match self.table.lock().commit(&attempt) {
            Commit::Permit(permit) => {
                permit.install(seen);
                self.installed.fetch_add(1, Ordering::Relaxed);
            }
            Commit::Collided(_) => drop(self.collided.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

#[test]
fn no_device_holds_a_page_that_is_not_there() {
    for name in TrackerName::ALL {
        let world = World::new(name);
        let begun = Instant::now();
        thread::scope(|scope| {
            // Seeds of xorshift may not be zero.
            let world = &world;
            (1..=READERS).for_each(|seed| drop(scope.spawn(move || world.read(Random(seed)))));
            (1..=WRITERS).for_each(|seed| drop(scope.spawn(move || world.invalidate(Random(seed << 32)))));
            thread::sleep(TIME);
            world.stop.store(true, Ordering::Relaxed);
        });
        let [installed, collided, changed] =
            [&world.installed, &world.collided, &world.changed].map(|count| count.load(Ordering::Relaxed));
        println!("{name}: {installed} installed, {collided} collided, {changed} invalidations");
        assert!(installed > 0 && changed > 0, "{name} made no progress");
        assert!(begun.elapsed() < NEVER, "{name} waited for {:?}", begun.elapsed());
    }
}
