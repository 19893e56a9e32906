//! One tracker with a device over it, ready to be timed. Compiled for each tracker, so that nothing is called through a
//! table of functions but whole batches.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use pagemirror_core::addr::PageRange;
use pagemirror_core::collision::{CollisionTracker, Reader};
use pagemirror_core::device::{Commit, DeviceTable, Granted, Mappings};
use pagemirror_core::gate::Gate;
use pagemirror_core::interval::{IntervalIndex, Spare};
use pagemirror_core::notify::Event;
use pagemirror_core::space::AddressSpace;
use pagemirror_core::wait::{Deadline, Wait};

use super::sample::{batch, share, time};
use crate::drive::Keeping;
use crate::workload::{Ground, Random};

/// Different ranges in one round: enough that a large set of ranges does not fit in a cache.
const PICKS: usize = 4096;
/// Unrelated invalidations during one attempt, where their price at the commit is measured.
const SINCE: usize = 64;
/// How often the verdict is asked for then.
const ASKED: usize = 2000;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// `start` and `end` of what touches no range.
    Unrelated,
    /// `start` and `end` of what overlaps a range.
    Related,
    /// As `Unrelated`, through the address space: with the device lock and the table's lookup.
    UnrelatedOnDevice,
    /// As `Related`, through the address space.
    RelatedOnDevice,
    /// `read_begin`, `read_retry`, `read_end`, with nothing invalidated.
    Fault,
    /// The same through the address space, with the device lock.
    FaultOnDevice,
}

impl Operation {
    pub(super) const ALL: [Self; 6] = [
        Self::Unrelated,
        Self::Related,
        Self::UnrelatedOnDevice,
        Self::RelatedOnDevice,
        Self::Fault,
        Self::FaultOnDevice,
    ];
}

/// A device whose table holds every mirrored range. Nothing is really revoked, so that each round finds the same table.
#[derive(Debug)]
pub(super) struct Table {
    index: Arc<IntervalIndex<u32>>,
    found: u64,
}

impl Mappings for Table {
    type Item = ();

    fn install(&mut self, _granted: Granted, _range: PageRange, (): ()) {}

    fn revoke(&mut self, range: PageRange, _event: Event) {
        self.index.for_each_overlapping(range, |_, _, _| self.found += 1);
    }
}

/// The index of every range of `ground`, shared by all trackers.
pub(super) fn index(ground: Ground) -> Arc<IntervalIndex<u32>> {
    let mut index = IntervalIndex::default();
    drop(index.reserve_from(Spare::with_capacity(ground.ranges as usize)));
    for number in 0..ground.ranges {
        index.insert(ground.range(number), number as u32);
    }
    Arc::new(index)
}

/// A tracker that can be timed.
pub(super) trait Sampler {
    /// How many operations make a sample.
    fn batch(&self, operation: Operation) -> usize;
    /// Nanoseconds for each of `count` operations.
    fn sample(&self, operation: Operation, count: usize) -> f64;
    /// The share of `start` in `start` and `end`, and of `read_begin` with `read_end` in a fault.
    fn shares(&self, count: (usize, usize)) -> (f64, f64);
    /// Nanoseconds that each unrelated invalidation since `read_begin` adds to `read_retry`; never negative.
    fn each_since(&self) -> f64;
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Rig<T: CollisionTracker + 'static> {
    space: Arc<AddressSpace<T>>,
    table: DeviceTable<Table, T>,
    gate: Gate,
    readers: Vec<Reader>,
    related: Vec<PageRange>,
    unrelated: Vec<PageRange>,
}

/// Beyond anything that is waited for here.
const LONG: Duration = Duration::from_secs(60);

impl<T: CollisionTracker + 'static> Rig<T> {
    /// A tracker that knows every range of `ground`, if it keeps ranges, and a device that has all of them installed.
    pub(super) fn new(
        tracker: T,
        keeping: Keeping,
        ground: Ground,
        index: &Arc<IntervalIndex<u32>>,
        seed: u64,
    ) -> Self {
        let kept: Vec<_> = match keeping {
            Keeping::Kept => (0..ground.ranges).map(|number| tracker.subscribe(ground.range(number))).collect(),
            Keeping::PerFault => Vec::new(),
        };
        let space = Arc::new(AddressSpace::new(tracker, Gate::in_ordinary_memory()));
        let table = DeviceTable::new(&space, Table { index: Arc::clone(index), found: 0 });
        let mut random = Random::new(seed, ground.ranges);
        let mut pick = || random.below(ground.ranges);
        let reader = |number: u64| Reader {
            subscription: kept.get(number as usize).copied().flatten(),
            ..Reader::of(ground.range(number))
        };
        Self {
            space,
            table,
            gate: Gate::in_ordinary_memory(),
            readers: (0..PICKS).map(|_| reader(pick())).collect(),
            related: (0..PICKS).map(|_| ground.over(pick(), ground.pages)).collect(),
            unrelated: (0..PICKS).map(|_| ground.beside(pick(), ground.pages)).collect(),
        }
    }

    fn invalidate(&self, range: PageRange) {
        let tracker = self.space.tracker();
        tracker.end(tracker.start(range));
    }

    fn invalidate_on_device(&self, range: PageRange) {
        drop(self.space.invalidate_start(range, Event::Unmap));
    }

    fn fault(&self, reader: &Reader, wait: &Wait<'_>) {
        let tracker = self.space.tracker();
        let Ok(token) = tracker.read_begin(reader, wait) else { return };
        let _ = black_box(tracker.read_retry(&token));
        tracker.read_end(token);
    }

    fn fault_on_device(&self, reader: &Reader, deadline: &Deadline<'_>) {
        let Ok(attempt) = self.space.read_begin_as(reader, deadline) else { return };
        if let Commit::Permit(permit) = self.table.lock().commit(&attempt) {
            permit.install(());
        }
    }

    /// Hands `operation` to whoever repeats it, as a closure of its own type, so that the loop is compiled around it.
    fn repeat<R>(&self, operation: Operation, by: impl Repeat<R>) -> R {
        let deadline = Deadline::after(LONG);
        let wait = Wait::new(&deadline, &self.gate);
        let (unrelated, related, readers) = (&self.unrelated, &self.related, &self.readers);
        match operation {
            Operation::Unrelated => by.repeat(|nth| self.invalidate(unrelated[nth % PICKS])),
            Operation::Related => by.repeat(|nth| self.invalidate(related[nth % PICKS])),
            Operation::UnrelatedOnDevice => by.repeat(|nth| self.invalidate_on_device(unrelated[nth % PICKS])),
            Operation::RelatedOnDevice => by.repeat(|nth| self.invalidate_on_device(related[nth % PICKS])),
            Operation::Fault => by.repeat(|nth| self.fault(&readers[nth % PICKS], &wait)),
            Operation::FaultOnDevice => by.repeat(|nth| self.fault_on_device(&readers[nth % PICKS], &deadline)),
        }
    }
}

/// Whoever repeats an operation.
trait Repeat<R> {
    fn repeat(self, operation: impl FnMut(usize)) -> R;
}

/// Finds out how many make a sample.
struct Batch;

impl Repeat<usize> for Batch {
    fn repeat(self, operation: impl FnMut(usize)) -> usize {
        batch(operation)
    }
}

/// Times this many, after as many others that are not timed: the tracker before has left its own data in the caches.
struct Times(usize);

impl Repeat<f64> for Times {
    fn repeat(self, mut operation: impl FnMut(usize)) -> f64 {
        for nth in 0..self.0 {
            operation(PICKS / 2 + nth);
        }
        time(self.0, operation)
    }
}

impl<T: CollisionTracker + 'static> Sampler for Rig<T> {
    fn batch(&self, operation: Operation) -> usize {
        self.repeat(operation, Batch)
    }

    fn sample(&self, operation: Operation, count: usize) -> f64 {
        self.repeat(operation, Times(count))
    }

    fn shares(&self, count: (usize, usize)) -> (f64, f64) {
        let tracker = self.space.tracker();
        let deadline = Deadline::after(LONG);
        let wait = Wait::new(&deadline, &self.gate);
        let start = share(count.0, |nth| tracker.start(self.unrelated[nth % PICKS]), |_, id| tracker.end(id));
        let begin = share(
            count.1,
            |nth| tracker.read_begin(&self.readers[nth % PICKS], &wait).ok(),
            // The end of reading belongs to the beginning, but the token has to live until here.
            |_, token| {
                if let Some(token) = token {
                    let _ = black_box(tracker.read_retry(&token));
                    tracker.read_end(token);
                }
            },
        );
        (start, begin)
    }
    fn each_since(&self) -> f64 {
        let tracker = self.space.tracker();
        let deadline = Deadline::after(LONG);
        let Ok(token) = tracker.read_begin(&self.readers[0], &Wait::new(&deadline, &self.gate)) else { return 0.0 };
        let ask = |_| {
            let _ = black_box(tracker.read_retry(&token));
        };
        let none = time(ASKED, ask);
        for range in &self.unrelated[..SINCE] {
            self.invalidate(*range);
        }
        let all = time(ASKED, ask);
        tracker.read_end(token);
        ((all - none) / SINCE as f64).max(0.0)
    }
}
